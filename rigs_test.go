package carillon_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/faultnet"
)

var errBoom = errors.New("boom")

func succeed(context.Context, *carillon.Execution) error { return nil }

func goesWrong(context.Context, *carillon.Execution) error { return errBoom }

// later puts a failed job off for longer than any test takes.
func later(context.Context, *carillon.Execution) error {
	return carillon.RetryAfter(time.Hour, errBoom)
}

// wireTo returns a client like rdb whose connections, and those of every
// Scheduler made from it, go through a network that the test can break.
func wireTo(t testing.TB, rdb redis.UniversalClient) (redis.UniversalClient, *faultnet.Net) {
	t.Helper()
	n := faultnet.New(t, 1)
	return n.Client(t, rdb), n
}

// heal ends the faults of a network and waits until a Scheduler has Redis again, for
// its shutdown needs it: go-redis repeats the error of a dial for up to a second.
func heal(t testing.TB, wire *faultnet.Net, s *carillon.Scheduler) {
	t.Helper()
	wire.Set(faultnet.Faults{})
	eventually(t, "Redis is back", func() bool {
		_, err := s.Instances(context.Background())
		return err == nil || errors.Is(err, carillon.ErrClosed)
	})
}

// has reports whether a reply contains a word, in any case.
func has(b []byte, word string) bool {
	return bytes.Contains(bytes.ToLower(b), []byte(word))
}

// gate is a handler whose attempts wait until they are let go, or return when
// their context ends.
type gate struct {
	started chan *carillon.Execution
	stopped chan error // causes of contexts that ended
	pass    chan error // what one attempt returns
}

func newGate() *gate {
	return &gate{
		started: make(chan *carillon.Execution, 1000), stopped: make(chan error, 1000), pass: make(chan error, 1000),
	}
}

func (g *gate) run(ctx context.Context, x *carillon.Execution) error {
	g.started <- x
	select {
	case err := <-g.pass:
		return err
	case <-ctx.Done():
		g.stopped <- context.Cause(ctx)
		return context.Cause(ctx)
	}
}

// next waits for an attempt to start.
func (g *gate) next(t testing.TB) *carillon.Execution {
	t.Helper()
	return receive(t, g.started, "an attempt starts")
}

// open lets all attempts pass, also those to come.
func (g *gate) open() { close(g.pass) }

// diary notes the order in which attempts started.
type diary struct {
	mu      sync.Mutex
	entries []*carillon.Execution
}

func (d *diary) run(_ context.Context, x *carillon.Execution) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries = append(d.entries, x)
	return nil
}

func (d *diary) all() []*carillon.Execution {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.entries)
}

func (d *diary) ids() []string {
	var ids []string
	for _, x := range d.all() {
		ids = append(ids, x.ID)
	}
	return ids
}

// submitAll stores jobs and returns their IDs.
func submitAll(t testing.TB, s *carillon.Scheduler, jobs []carillon.Job) []string {
	t.Helper()
	receipts, err := s.SubmitMany(t.Context(), jobs)
	require.NoError(t, err)
	ids := make([]string, len(receipts))
	for i, r := range receipts {
		ids[i] = r.ID
	}
	return ids
}

// awaitAll waits until all jobs are final, and returns them in the order asked.
func awaitAll(t testing.TB, s *carillon.Scheduler, ids []string) []*carillon.JobInfo {
	t.Helper()
	infos := make([]*carillon.JobInfo, len(ids))
	for i, id := range ids {
		infos[i] = await(t, s, id)
	}
	return infos
}

// inState waits until a job is in a state and returns it.
func inState(t testing.TB, s *carillon.Scheduler, id string, want carillon.State) *carillon.JobInfo {
	t.Helper()
	var info *carillon.JobInfo
	eventually(t, fmt.Sprintf("job %s is %s", id, want), func() bool {
		info = get(t, s, id)
		return info.State == want
	})
	return info
}

// listed returns the IDs of the jobs that match, sorted.
func listed(t testing.TB, s *carillon.Scheduler, f carillon.Filter) []string {
	t.Helper()
	ids := []string{}
	for info, err := range s.List(t.Context(), f) {
		require.NoError(t, err)
		ids = append(ids, info.ID)
	}
	slices.Sort(ids)
	return ids
}

// redisNow asks the server for its time: the tests' clock may be another.
func (p *place) redisNow(t testing.TB) time.Time {
	t.Helper()
	now, err := p.rdb.Time(t.Context()).Result()
	require.NoError(t, err)
	return now
}

func concurrency(n int) func(*carillon.Config) {
	return func(c *carillon.Config) { c.Concurrency = n }
}

// last returns a job's latest attempt.
func last(t testing.TB, info *carillon.JobInfo) carillon.Attempt {
	t.Helper()
	require.NotEmpty(t, info.Attempts)
	return slices.MaxFunc(info.Attempts, func(a, b carillon.Attempt) int { return cmp.Compare(a.Number, b.Number) })
}

func sorted(ids ...string) []string {
	slices.Sort(ids)
	return ids
}

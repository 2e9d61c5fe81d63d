package carillon_test

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/audit"
	"github.com/carillon-go/carillon/internal/redistest"
)

// soon is how long a test waits for what should happen at once. Only a failing
// test waits that long.
const soon = 30 * time.Second

// short is how often a test looks, which is not for nothing.
const short = 20 * time.Millisecond

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, soon, short, what)
}

// receive waits for a value.
func receive[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(soon):
		require.FailNow(t, "did not happen: "+what)
		panic("unreachable")
	}
}

// keysOf lists the keys of a namespace.
func keysOf(t testing.TB, rdb redis.UniversalClient, namespace string) []string {
	t.Helper()
	var mu sync.Mutex
	var keys []string
	scan := func(ctx context.Context, c *redis.Client) error {
		it := c.Scan(ctx, 0, "{"+namespace+":*", 1000).Iterator()
		for it.Next(ctx) {
			mu.Lock()
			keys = append(keys, it.Val())
			mu.Unlock()
		}
		return it.Err()
	}
	switch c := rdb.(type) {
	case *redis.ClusterClient:
		require.NoError(t, c.ForEachMaster(t.Context(), scan))
	case *redis.Client:
		require.NoError(t, scan(t.Context(), c))
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// keyLike finds the one key of a namespace with a suffix.
func keyLike(t testing.TB, rdb redis.UniversalClient, namespace, suffix string) string {
	t.Helper()
	var found []string
	for _, key := range keysOf(t, rdb, namespace) {
		if strings.HasSuffix(key, suffix) {
			found = append(found, key)
		}
	}
	require.Len(t, found, 1, "keys that end in %s", suffix)
	return found[0]
}

// auditDrained checks what is left when no job lives and no instance runs
// (invariants 5 and 11).
func auditDrained(t testing.TB, rdb redis.UniversalClient, namespace string) {
	t.Helper()
	r, err := audit.Settle(t.Context(), rdb, namespace, time.Second)
	require.NoError(t, err)
	assert.NotEmpty(t, keysOf(t, rdb, namespace), "there was nothing to audit")
	assert.Empty(t, r.Findings)
	assert.Empty(t, r.Left)
}

// attemptsOf lists how a job's attempts ended.
func outcomesOf(info *carillon.JobInfo) []carillon.Outcome {
	var all []carillon.Outcome
	for _, a := range info.Attempts {
		all = append(all, a.Outcome)
	}
	return all
}

// place is a namespace of its own on a backend.
type place struct {
	rdb       redis.UniversalClient
	namespace string
	segments  int
	real      bool // a real server, not miniredis
}

// handlers maps names to what runs under them.
type handlers map[string]carillon.HandlerFunc

// new makes a Scheduler of the namespace. Cleanup shuts it down.
func (p *place) new(t testing.TB, h handlers, edit ...func(*carillon.Config)) *carillon.Scheduler {
	t.Helper()
	return p.over(t, p.rdb, h, edit...)
}

// over is new with another client. On a real server the Scheduler may do only
// what docs/operations.md grants; the tests themselves may do everything.
func (p *place) over(t testing.TB, rdb redis.UniversalClient, h handlers, edit ...func(*carillon.Config)) *carillon.Scheduler {
	t.Helper()
	c := carillon.Config{
		Namespace: p.namespace, Segments: p.segments, Concurrency: 8, LeaseTTL: 3 * time.Second,
		ShutdownTimeout: 2 * time.Second, Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range edit {
		f(&c)
	}
	s, err := carillon.New(redistest.Limited(t, rdb), c)
	require.NoError(t, err)
	for name, f := range h {
		require.NoError(t, s.Handle(name, f))
	}
	t.Cleanup(func() { shutdown(t, s) })
	return s
}

// run is new and started.
func (p *place) run(t testing.TB, h handlers, edit ...func(*carillon.Config)) *carillon.Scheduler {
	t.Helper()
	return start(t, p.new(t, h, edit...))
}

// run2 is over and started.
func (p *place) run2(t testing.TB, rdb redis.UniversalClient, h handlers, edit ...func(*carillon.Config)) *carillon.Scheduler {
	t.Helper()
	return start(t, p.over(t, rdb, h, edit...))
}

func start(t testing.TB, s *carillon.Scheduler) *carillon.Scheduler {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	require.NoError(t, s.Start(ctx))
	return s
}

// shutdown ends a Scheduler; it may be ended already.
func shutdown(t testing.TB, s *carillon.Scheduler) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	assert.NoError(t, s.Shutdown(ctx))
}

func lease(d time.Duration) func(*carillon.Config) {
	return func(c *carillon.Config) { c.LeaseTTL = d }
}

func queues(q map[string]int) func(*carillon.Config) {
	return func(c *carillon.Config) { c.Queues = q }
}

// submit stores a job and returns its ID.
func submit(t testing.TB, s *carillon.Scheduler, job carillon.Job) string {
	t.Helper()
	r, err := s.Submit(t.Context(), job)
	require.NoError(t, err)
	require.False(t, r.Duplicate)
	return r.ID
}

// await waits until a job is final.
func await(t testing.TB, s *carillon.Scheduler, id string) *carillon.JobInfo {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	info, err := s.Await(ctx, id)
	require.NoError(t, err)
	return info
}

// get reads a job.
func get(t testing.TB, s *carillon.Scheduler, id string) *carillon.JobInfo {
	t.Helper()
	info, err := s.Get(t.Context(), id)
	require.NoError(t, err)
	return info
}

// counter counts what happens to each job.
type counter struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counter) add(id string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = make(map[string]int)
	}
	c.n[id]++
	return c.n[id]
}

func (c *counter) of(id string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[id]
}

func (c *counter) all() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.n)
}

// logbook is a slog.Handler that remembers messages.
type logbook struct {
	mu       sync.Mutex
	messages []string
}

func (l *logbook) Enabled(context.Context, slog.Level) bool { return true }
func (l *logbook) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logbook) WithGroup(string) slog.Handler            { return l }

func (l *logbook) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.messages = append(l.messages, r.Message)
	return nil
}

// count tells how many messages have a text.
func (l *logbook) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, m := range l.messages {
		if strings.Contains(m, text) {
			n++
		}
	}
	return n
}

func logTo(l *logbook) func(*carillon.Config) {
	return func(c *carillon.Config) { c.Logger = slog.New(l) }
}

// fastPlaces is eachPlace for cases that take long and depend on time, not on
// the topology: miniredis and a single server.
func fastPlaces(t *testing.T, f func(t *testing.T, p *place)) {
	t.Helper()
	placesIn(t, f, "miniredis", "redis")
}

// realPlaces is for what miniredis cannot show.
func realPlaces(t *testing.T, f func(t *testing.T, p *place)) {
	t.Helper()
	placesIn(t, f, "redis")
}

func placesIn(t *testing.T, f func(t *testing.T, p *place), names ...string) {
	t.Helper()
	for _, b := range backends {
		if slices.Contains(names, b.name) {
			t.Run(b.name, func(t *testing.T) {
				t.Parallel()
				f(t, b.place(t))
			})
		}
	}
}

// singleServer starts a server that no other test uses.
func singleServer(t testing.TB, conf ...string) *redistest.Server {
	t.Helper()
	return redistest.Single(t, conf...)
}

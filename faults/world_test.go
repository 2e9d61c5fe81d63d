package faults_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/audit"
	"github.com/carillon-go/carillon/internal/redistest"
	"github.com/carillon-go/carillon/internal/verify"
)

// soon is how long a test waits for what should happen. Only a failing test
// waits that long.
const soon = 30 * time.Second

// world is a namespace in which a test breaks things, and what is known about it
// outside of Redis.
type world struct {
	t         testing.TB
	admin     redis.UniversalClient // healthy: for the test, not for those it torments
	namespace string
	segments  int
	lease     time.Duration
	calm      bool // nothing is broken here: the run that others are compared with
	queue     verify.Queue
	faults    atomic.Int64
	said      transcript          // by all instances
	observer  *carillon.Scheduler // never started

	mu        sync.Mutex
	instances []*carillon.Scheduler
	allowed   bool            // acknowledged jobs may be forgotten, and are counted
	excused   map[string]bool // which of them; nil: all
}

// newWorld makes a namespace behind a healthy client.
func newWorld(t testing.TB, admin redis.UniversalClient, edit ...func(*world)) *world {
	t.Helper()
	w := &world{t: t, admin: admin, namespace: redistest.Namespace(t), lease: 600 * time.Millisecond}
	for _, f := range edit {
		f(w)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the last that instances said:\n%s", w.said.String())
		}
	})
	w.observer = w.scheduler(admin)
	return w
}

// transcript keeps the end of what is written.
type transcript struct {
	mu  sync.Mutex
	end []byte
}

const transcriptBytes = 8 << 10

func (s *transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end = append(s.end, p...)
	s.end = s.end[max(0, len(s.end)-transcriptBytes):]
	return len(p), nil
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.end)
}

// config is the configuration of every Scheduler of the world.
func (w *world) config() carillon.Config {
	keep := carillon.Keep{Count: 10_000_000}
	return carillon.Config{
		Namespace: w.namespace, Segments: w.segments, LeaseTTL: w.lease, Concurrency: 16,
		ShutdownTimeout: 5 * time.Second, Logger: slog.New(slog.NewTextHandler(&w.said, nil)),
		Retry:     carillon.Retry{MaxAttempts: 100, Delays: []time.Duration{20 * time.Millisecond}},
		Retention: carillon.Retention{Succeeded: keep, Failed: keep, Cancelled: keep, Expired: keep},
	}
}

// scheduler makes a Scheduler that notes every execution. It ends with the test.
func (w *world) scheduler(rdb redis.UniversalClient, edit ...func(*carillon.Config)) *carillon.Scheduler {
	w.t.Helper()
	c := w.config()
	for _, f := range edit {
		f(&c)
	}
	s, err := carillon.New(rdb, c)
	require.NoError(w.t, err)
	require.NoError(w.t, s.Use(noted(&w.queue)))
	w.mu.Lock()
	w.instances = append(w.instances, s)
	w.mu.Unlock()
	w.t.Cleanup(func() { w.shutdown(s) })
	return s
}

// noted is middleware that remembers executions.
func noted(n notes) carillon.Middleware {
	return func(next carillon.Handler) carillon.Handler {
		return carillon.HandlerFunc(func(ctx context.Context, x *carillon.Execution) error {
			n.Ran(x.ID, verify.Run{Attempt: x.Attempt, Token: x.Token})
			return next.ServeJob(ctx, x)
		})
	}
}

// handlers maps names to what runs under them.
type handlers map[string]carillon.HandlerFunc

// instance makes a Scheduler with handlers and starts it.
func (w *world) instance(rdb redis.UniversalClient, h handlers, edit ...func(*carillon.Config)) *carillon.Scheduler {
	w.t.Helper()
	s := w.scheduler(rdb, edit...)
	for name, f := range h {
		require.NoError(w.t, s.Handle(name, f))
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), soon)
	defer cancel()
	require.NoError(w.t, s.Start(ctx))
	return s
}

// shutdown ends a Scheduler; it may be ended already.
func (w *world) shutdown(s *carillon.Scheduler) {
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	_ = s.Shutdown(ctx) // while a fault lasts, its farewell may fail
}

// submit hands in a job and notes what became of it. The ID comes back also when
// the outcome is unknown.
func (w *world) submit(s *carillon.Scheduler, job carillon.Job) (string, error) {
	r, err := s.Submit(w.t.Context(), job)
	if !r.Duplicate || r.ID == job.ID {
		w.queue.Submitted(r.ID, err)
	}
	return r.ID, err
}

// persist submits a job until it is acknowledged, always under the same ID.
func (w *world) persist(s *carillon.Scheduler, job carillon.Job) string {
	w.t.Helper()
	id, err := w.insist(w.t.Context(), s, job)
	if err != nil {
		assert.Failf(w.t, "cannot submit", "%v", err)
	}
	return id
}

// insist is persist that gives up when ctx ends.
func (w *world) insist(ctx context.Context, s *carillon.Scheduler, job carillon.Job) (string, error) {
	deadline := time.Now().Add(soon)
	for {
		id, err := w.submit(s, job)
		if err == nil || time.Now().After(deadline) || ctx.Err() != nil {
			return id, err
		}
		if errors.Is(err, carillon.ErrUncertain) {
			job.ID = id // it may be stored
		}
	}
}

// load submits n jobs from some goroutines, each until it is acknowledged. It
// returns when all are.
func (w *world) load(s *carillon.Scheduler, n int, job carillon.Job) {
	w.t.Helper()
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for range min(n, 8) {
		wg.Go(func() {
			for left.Add(-1) >= 0 && w.t.Context().Err() == nil {
				w.persist(s, job)
			}
		})
	}
	wg.Wait()
}

// fault counts faults that took effect.
func (w *world) fault(n int) { w.faults.Add(int64(n)) }

// sound says that nothing can be lost any more, and submits n jobs more to show
// it.
func (w *world) sound(s *carillon.Scheduler, n int) {
	w.t.Helper()
	w.excused = map[string]bool{}
	for _, id := range w.queue.Acked() {
		w.excused[id] = true
	}
	w.load(s, n, carillon.Job{Name: "work"})
}

// mayLose says that acknowledged jobs can be lost here, because Redis itself can
// lose them: they are counted by finish instead of failing the test.
func (w *world) mayLose() { w.allowed = true }

// get reads a job.
func (w *world) get(id string) (*carillon.JobInfo, error) {
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	return w.observer.Get(ctx, id)
}

// eventually waits until a condition holds.
func (w *world) eventually(what string, cond func() bool) {
	w.t.Helper()
	require.Eventually(w.t, cond, soon, 5*time.Millisecond, what)
}

// settled waits until every job that may be stored is final, or is not known.
func (w *world) settled() {
	w.t.Helper()
	waiting := w.queue.Known()
	var last string
	deadline := time.Now().Add(soon)
	for len(waiting) > 0 {
		id := waiting[len(waiting)-1]
		info, err := w.get(id)
		switch {
		case err == nil && info.State.Final(), errors.Is(err, carillon.ErrNotFound):
			waiting = waiting[:len(waiting)-1]
			continue
		case err != nil:
			last = err.Error()
		default:
			last = fmt.Sprintf("%s is %s after %d attempts", id, info.State, info.Attempt)
		}
		if time.Now().After(deadline) {
			assert.Failf(w.t, "stalled", "%d jobs are not done after %v: %s", len(waiting), soon, last)
			return
		}
		_ = wait(w.t.Context(), 10*time.Millisecond)
	}
}

// finish ends the world: all faults are healed by now. It waits for the jobs,
// stops the instances, judges, and audits. atLeast is how many jobs the test
// must have had acknowledged.
func (w *world) finish(atLeast int) verify.Verdict {
	w.t.Helper()
	w.settled()
	w.mu.Lock()
	instances := w.instances
	w.mu.Unlock()
	var wg sync.WaitGroup
	for _, s := range instances {
		if s != w.observer {
			wg.Go(func() { w.shutdown(s) })
		}
	}
	wg.Wait()
	report, err := audit.Settle(w.t.Context(), w.admin, w.namespace, 5*time.Second+3*w.lease)
	require.NoError(w.t, err)
	v, err := w.queue.Judge(report.Outcomes, w.get)
	require.NoError(w.t, err)

	if !w.allowed || w.excused != nil {
		for _, id := range v.Forgotten {
			if !w.excused[id] {
				v.Lost = append(v.Lost, id+" was acknowledged and is not known")
			}
		}
	}
	sum := verify.Sum{
		Faults: int(w.faults.Load()), Jobs: v.Jobs, Lost: len(v.Lost), Phantom: len(v.Phantom), Twice: len(v.Twice),
		Stale: len(v.Stale), Audit: len(report.Findings) + len(report.Left),
	}
	if w.allowed {
		w.t.Logf("%d of %d acknowledged jobs were forgotten", len(v.Forgotten), v.Jobs)
	}
	tally.Add(sum)
	assert.Empty(w.t, some(v.Lost), "lost")
	assert.Empty(w.t, some(v.Phantom), "phantom")
	assert.Empty(w.t, some(v.Twice), "settled twice")
	assert.Empty(w.t, some(v.Stale), "stale accepted")
	assert.Empty(w.t, some(report.Findings), "audit findings")
	assert.Empty(w.t, some(report.Left), "left behind")
	assert.NotEqual(w.t, w.calm, w.faults.Load() > 0, "faults took effect")
	assert.GreaterOrEqual(w.t, v.Jobs, atLeast, "too few jobs were acknowledged")
	return v
}

// some keeps messages readable.
func some(all []string) []string { return all[:min(len(all), 10)] }

// wait waits in a loop that looks at something else than a condition.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

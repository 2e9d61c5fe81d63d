package faults_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
)

// B3: the server restarts empty, twice. What it held is lost, which it cannot
// help; the instances go on by themselves, and a service that starts anew
// registers its schedule again.
func TestB3_RestartsEmpty(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t)
	w := newWorld(t, server.Client(t))
	w.mayLose()
	w.queue.Made(func(id string) bool { return strings.HasPrefix(id, "beat~") })
	var beats, worked atomic.Int64
	h := handlers{
		"beat": func(context.Context, *carillon.Execution) error { beats.Add(1); return nil },
		"work": func(ctx context.Context, x *carillon.Execution) error { worked.Add(1); return work(ctx, x) },
	}
	var log noise
	service := func() *carillon.Scheduler {
		s := w.instance(server.Client(t), h, log.heard)
		require.NoError(t, s.Schedule(t.Context(), carillon.Schedule{
			Name: "beat", Spec: carillon.Every(100 * time.Millisecond), Job: carillon.Job{Name: "beat"},
		}))
		return s
	}
	survivor, old := service(), service()
	ctx, cancel := context.WithCancel(t.Context())
	var producers sync.WaitGroup
	defer producers.Wait()
	defer cancel()
	producers.Go(func() {
		for wait(ctx, 2*time.Millisecond) == nil {
			w.persist(survivor, carillon.Job{Name: "work"})
		}
	})
	for n := range 2 {
		w.eventually("jobs run and the schedule fires", func() bool { return worked.Load() > 50 && beats.Load() > 0 })
		server.Restart(t)
		w.fault(1)
		w.eventually("it is said", func() bool { return n > 0 || len(log.of("has lost the namespace")) > 0 })
		worked.Store(0)
		w.eventually("new jobs run", func() bool { return worked.Load() > 50 })
		_, err := survivor.GetSchedule(t.Context(), "beat")
		require.ErrorIs(t, err, carillon.ErrNotFound)
		w.shutdown(old)
		old = service()
		beats.Store(0)
	}
	w.eventually("the schedule fires again", func() bool { return beats.Load() > 1 })
	cancel()
	producers.Wait()
	require.NoError(t, survivor.Unschedule(t.Context(), "beat"))
	w.eventually("both are registered", func() bool {
		all, err := survivor.Instances(t.Context())
		return err == nil && len(all) == 2
	})
	counts, err := survivor.Counts(t.Context())
	require.NoError(t, err)
	assert.Contains(t, counts.Queues, "default")
	assert.LessOrEqual(t, len(log.of("")), 100, "they are quiet: %v", some(log.of("")))
	w.finish(100)
}

// outages are two ways for a server to be away that forgets nothing.
var outages = map[string]struct {
	begin, end func(testing.TB, *redistest.Server)
}{
	"killed": {
		func(_ testing.TB, s *redistest.Server) { s.Kill() },
		func(t testing.TB, s *redistest.Server) { t.Helper(); s.Restart(t) },
	},
	"hung": {
		func(t testing.TB, s *redistest.Server) { t.Helper(); s.Pause(t) },
		func(t testing.TB, s *redistest.Server) { t.Helper(); s.Resume(t) },
	},
}

// B4: an outage of two leases, while the workers live. Handlers with a mutex
// stop themselves, for the mutex could be another's soon; the others run on.
// Nobody takes anybody for dead afterwards.
func TestB4_OutageBeyondLease(t *testing.T) { //nolint:tparallel // see below
	// Not parallel: its bounds are those of a promise, whatever other rows do to the machine.
	for name, outage := range outages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Single(t, durable...)
			w := newWorld(t, server.Client(t), func(w *world) { w.lease = time.Second })
			var running, inside atomic.Int64
			release, over := make(chan struct{}), make(chan struct{})
			causes := make(chan error, 100)
			h := handlers{
				"work": work,
				"long": func(ctx context.Context, _ *carillon.Execution) error {
					running.Add(1)
					select {
					case <-release:
						return nil
					case <-ctx.Done():
						return context.Cause(ctx)
					}
				},
				"exclusive": func(ctx context.Context, _ *carillon.Execution) error {
					if isClosed(over) {
						return nil
					}
					running.Add(1)
					inside.Add(1)
					<-ctx.Done()
					inside.Add(-1)
					causes <- context.Cause(ctx)
					return context.Cause(ctx)
				},
			}
			var log noise
			var s *carillon.Scheduler
			for range 2 {
				s = w.instance(server.Client(t), h, log.heard)
			}
			var long, exclusive []string
			for range 10 {
				long = append(long, w.persist(s, carillon.Job{Name: "long"}))
			}
			for _, mutex := range []string{"a", "b", "c"} {
				exclusive = append(exclusive, w.persist(s, carillon.Job{Name: "exclusive", Mutex: mutex}))
				w.persist(s, carillon.Job{Name: "work", Mutex: mutex})
			}
			w.eventually("they run", func() bool { return running.Load() == 13 })

			outage.begin(t, server)
			began := time.Now()
			w.fault(1)
			for range 3 {
				require.ErrorIs(t, receive(t, causes), carillon.ErrLeaseLost)
			}
			assert.Zero(t, inside.Load())
			assert.Less(t, time.Since(began), 2*w.lease, "before the lease has lapsed, by a wide margin")
			close(over)
			w.passes(2*w.lease - time.Since(began))
			outage.end(t, server)
			w.load(s, 50, carillon.Job{Name: "work"})
			w.passes(5 * w.lease / 4) // the long ones run on while others could reclaim them
			close(release)
			w.settled()
			for _, id := range long {
				info, err := w.get(id)
				require.NoError(t, err)
				assert.Len(t, w.queue.Runs(id), 1, "nobody took it for lost: %+v", info.Attempts)
			}
			for _, id := range exclusive {
				info, err := w.get(id)
				require.NoError(t, err)
				assert.Len(t, w.queue.Runs(id), 2)
				assert.Zero(t, info.Failures+info.Losses, "it was not the job's fault: %+v", info.Attempts)
			}
			assert.Empty(t, log.of("reclaimed the work"))
			w.finish(66)
		})
	}
}

// receive waits for a value.
func receive[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(soon):
		require.Fail(t, "nothing came")
	}
	panic("unreachable")
}

// B5: the server hangs while many call it. Every call returns by its deadline
// and tells the truth, and neither goroutines nor memory pile up. It counts
// goroutines, so nothing runs beside it.
func TestB5_ServerHangs(t *testing.T) {
	hang := 1500 * time.Millisecond
	if full {
		hang = 10 * time.Second
	}
	server := redistest.Single(t)
	w := newWorld(t, server.Client(t))
	var log noise
	s := w.instance(server.Client(t), handlers{"work": work}, log.heard)
	w.load(s, 50, carillon.Job{Name: "work"})

	const callers, limit = 50, 100 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var unavailable, uncertain, other atomic.Int64
	var latest atomic.Int64
	call := func(f func(context.Context) error) {
		began := time.Now()
		ctx, done := context.WithTimeout(t.Context(), limit)
		err := f(ctx)
		done()
		took := int64(time.Since(began))
		for {
			if old := latest.Load(); took <= old || latest.CompareAndSwap(old, took) {
				break
			}
		}
		switch {
		case errors.Is(err, carillon.ErrUnavailable):
			unavailable.Add(1)
		case errors.Is(err, carillon.ErrUncertain):
			uncertain.Add(1)
		case err != nil:
			other.Add(1)
		}
	}
	before := usage()
	server.Pause(t)
	for range callers {
		all.Go(func() {
			for ctx.Err() == nil {
				call(func(ctx context.Context) error {
					r, err := s.Submit(ctx, carillon.Job{Name: "work"})
					w.queue.Submitted(r.ID, err)
					return err
				})
				call(func(ctx context.Context) error { _, err := s.Get(ctx, "x"); return err })
			}
		})
	}
	w.passes(hang / 2)
	middle := usage()
	w.passes(hang / 2)
	after := usage()
	cancel()
	all.Wait()
	server.Resume(t)
	w.fault(1)

	t.Logf("%d calls: %d unavailable, %d uncertain; the slowest took %v; goroutines %d, %d, %d; heap %d, %d, %d KiB; %d lines",
		unavailable.Load()+uncertain.Load(), unavailable.Load(), uncertain.Load(), time.Duration(latest.Load()),
		before.goroutines, middle.goroutines, after.goroutines, before.heap>>10, middle.heap>>10, after.heap>>10, len(log.of("")))
	assert.Zero(t, other.Load(), "every error tells whether it was done")
	assert.Positive(t, unavailable.Load())
	assert.Positive(t, uncertain.Load())
	assert.Less(t, time.Duration(latest.Load()), limit+2*time.Second, "deadlines are kept")
	assert.Less(t, after.goroutines, before.goroutines+6*callers)
	assert.Less(t, after.heap, before.heap+(32<<20))
	assert.LessOrEqual(t, len(log.of("")), 10+2*int(hang/time.Second), "%v", some(log.of("")))
	w.load(s, 50, carillon.Job{Name: "work"})
	w.finish(100)
}

// used is what a process needs.
type used struct {
	goroutines int
	heap       uint64
}

func usage() used {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return used{runtime.NumGoroutine(), m.HeapAlloc}
}

// Invariant 14 of DESIGN, "quiet failure": an instance whose server is away
// for long, or refuses everything, tries again at a bounded rate and says so
// now and then.
func TestB4_QuietWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	for name, outage := range outages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Single(t, durable...)
			w := newWorld(t, server.Client(t), func(w *world) { w.lease = 3 * time.Second })
			var l line
			var log noise
			s := w.instance(l.client(t, server), handlers{"work": work}, log.heard)
			w.load(s, 20, carillon.Job{Name: "work"})
			w.settled()
			outage.begin(t, server)
			w.fault(1)
			w.passes(500 * time.Millisecond) // the first tries follow fast
			before, began := l.dials.Load(), time.Now()
			w.passes(2 * time.Second)
			rate := float64(l.dials.Load()-before) / time.Since(began).Seconds()
			lines := len(log.of(""))
			outage.end(t, server)
			t.Logf("%.1f dials/s, %d lines", rate, lines)
			assert.Less(t, rate, 30.0, "dials per second of one instance")
			assert.LessOrEqual(t, lines, 8, "%v", log.of(""))
			w.load(s, 20, carillon.Job{Name: "work"})
			w.finish(40)
		})
	}
}

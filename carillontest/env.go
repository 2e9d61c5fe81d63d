package carillontest

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/embedded"
	"github.com/carillon-go/carillon/internal/knobs"
)

// Env is a world in which a test runs: a Redis, schedulers on it, and the clock.
// The methods that move the clock or fail the test are for the test's own
// goroutine; the others may also be called from handlers.
type Env struct {
	// Scheduler is the first instance, made with the Config of the test. It
	// works once Start was called.
	Scheduler *carillon.Scheduler

	t       testing.TB
	ctx     context.Context
	config  carillon.Config
	rdb     *redis.Client
	inspect *carillon.Scheduler // never started, so that nothing can be shut down under the helpers
	record  recorder
	watch   *watch

	mu         sync.Mutex
	schedulers []*carillon.Scheduler
	origin     time.Time // of offsets: the first Start
}

// Test runs f in a bubble of its own, with a Redis and a Scheduler of the given
// Config. Everything is shut down when f returns. It can be called in tests and
// subtests, parallel ones too.
func Test(t *testing.T, config carillon.Config, f func(t *testing.T, env *Env)) {
	t.Helper()
	w := startWatch(t.Name())
	defer w.stop()
	synctest.Test(t, func(t *testing.T) {
		f(t, newEnv(t, config, w))
	})
}

// New makes an Env for a bubble that the test made itself with synctest.Test.
// Everything is shut down by t.Cleanup.
func New(t testing.TB, config carillon.Config) *Env {
	t.Helper()
	if !inBubble() {
		t.Fatalf("carillontest.New: not in a bubble; use carillontest.Test, or call New within synctest.Test")
	}
	return newEnv(t, config, nil)
}

func inBubble() (yes bool) {
	defer func() { _ = recover() }() // outside of a bubble Wait panics
	synctest.Wait()
	return true
}

// How often what is idle wakes up. Everything that is due, and every signal,
// wakes it without; but a command costs as much as in real time.
const (
	look  = 12 * time.Hour // for work nobody has told of, such as trimming
	lease = time.Hour      // of locks
)

func newEnv(t testing.TB, config carillon.Config, w *watch) *Env {
	t.Helper()
	rdb, stop := embedded.Open()
	opts := *rdb.Options()
	opts.ReadTimeout = look   // subscriptions are checked as often
	opts.ConnMaxIdleTime = -1 // nothing is gained by a new one
	_ = rdb.Close()           // nothing was sent with it
	env := &Env{
		t: t, config: config, rdb: redis.NewClient(&opts), watch: w,
		ctx: knobs.With(t.Context(), knobs.Knobs{Poll: look, Block: look, Lease: 3 * look}),
	}
	t.Cleanup(func() { env.close(stop) })
	env.Scheduler = env.Instance(config)
	inspect, err := carillon.New(env.rdb, env.completed(config))
	if err != nil {
		t.Fatalf("carillontest: %v", err)
	}
	env.inspect = inspect
	return env
}

// Instance makes one more Scheduler on the same Redis: another worker, once it
// is started, or a producer. Where the Config leaves Namespace and Segments
// empty they are those of the test.
func (e *Env) Instance(config carillon.Config) *carillon.Scheduler {
	e.t.Helper()
	s, err := carillon.New(e.rdb, e.completed(config))
	if err == nil {
		err = s.Use(e.Record)
	}
	if err != nil {
		e.t.Fatalf("carillontest: %v", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.schedulers = append(e.schedulers, s)
	return s
}

// completed fills in what is different in a test.
func (e *Env) completed(config carillon.Config) carillon.Config {
	if config.Namespace == "" {
		config.Namespace = e.config.Namespace
	}
	if config.Segments == 0 {
		config.Segments = e.config.Segments
	}
	if config.LeaseTTL == 0 {
		config.LeaseTTL = lease
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.NewTextHandler(e.t.Output(), nil))
	}
	return config
}

// Start starts instances, or Env.Scheduler when none is named, and returns when
// they wait for work. Handlers are registered before.
func (e *Env) Start(instances ...*carillon.Scheduler) {
	e.t.Helper()
	if len(instances) == 0 {
		instances = []*carillon.Scheduler{e.Scheduler}
	}
	e.mu.Lock()
	if e.origin.IsZero() {
		e.origin = time.Now()
	}
	e.mu.Unlock()
	done := e.watch.during("Start")
	defer done()
	for _, s := range instances {
		if err := s.Start(e.ctx); err != nil {
			e.t.Fatalf("carillontest: %v", err)
		}
	}
	synctest.Wait()
}

// Redis returns a client of the Redis, for code that makes its own Scheduler.
// Pass [Env.Context] to its Run, and [Env.Record] to its Use if the test is to
// see what it runs. The client is closed at the end of the test.
func (e *Env) Redis() *redis.Client { return e.rdb }

// Context is t.Context() with settings by which a Scheduler that gets it in Run
// or Start does not wake every second of virtual time, nor does its Await.
func (e *Env) Context() context.Context { return e.ctx }

// Submit submits a job through Env.Scheduler and returns its ID.
func (e *Env) Submit(job carillon.Job) string {
	e.t.Helper()
	r, err := e.Scheduler.Submit(e.ctx, job)
	if err != nil {
		e.t.Fatalf("carillontest: %v", err)
	}
	return r.ID
}

// patience is how long, in virtual time, the end of a test waits for handlers
// that ignore the end of their context.
const patience = 24 * time.Hour

// close shuts everything down, so that no goroutine is left in the bubble.
func (e *Env) close(stopRedis func()) {
	done := e.watch.during("the end of the test")
	defer done()
	ctx := context.WithoutCancel(e.ctx)
	e.mu.Lock()
	schedulers := append(e.schedulers[:len(e.schedulers):len(e.schedulers)], e.inspect)
	e.mu.Unlock()
	var stops sync.WaitGroup
	for _, s := range schedulers {
		if s == nil {
			continue // its Config was refused
		}
		stops.Go(func() {
			if err := s.Shutdown(ctx); err != nil {
				e.t.Logf("carillontest: %v", err)
			}
		})
	}
	stops.Wait()
	// Leases end when they are to be renewed, within an hour. Schedulers that the
	// test made itself may still drain.
	for waited := time.Duration(0); waited == 0 || waited < patience && e.record.running() > 0; waited += lease {
		time.Sleep(lease)
	}
	for _, r := range e.record.runs("") {
		if !r.Done {
			e.t.Errorf("carillontest: the handler of %q (job %s, attempt %d) is still running %v after the end of the test; "+
				"it ignores the end of its context", r.Name, r.ID, r.Attempt, patience)
		}
	}
	_ = e.rdb.Close()
	stopRedis()
	synctest.Wait()
}

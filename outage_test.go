package carillon_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/embedded"
	"github.com/carillon-go/carillon/internal/faultnet"
	"github.com/carillon-go/carillon/internal/knobs"
	"github.com/carillon-go/carillon/internal/redistest"
)

// An outage makes a server unreachable and brings it back.
type outage struct {
	name  string
	begin func(t testing.TB, s *redistest.Server)
	end   func(t testing.TB, s *redistest.Server)
}

var outages = []outage{
	{"killed", func(_ testing.TB, s *redistest.Server) { s.Kill() }, func(t testing.TB, s *redistest.Server) { t.Helper(); s.Restart(t) }},
	{
		"frozen", func(t testing.TB, s *redistest.Server) { t.Helper(); s.Pause(t) },
		func(t testing.TB, s *redistest.Server) { t.Helper(); s.Resume(t) },
	},
}

// durable starts a server that forgets nothing it acknowledged.
func durable(t testing.TB) *redistest.Server {
	t.Helper()
	return redistest.Single(t, "appendonly yes", "appendfsync always")
}

func eachOutage(t *testing.T, f func(t *testing.T, server *redistest.Server, p *place, o outage)) {
	t.Helper()
	for _, o := range outages {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			server := durable(t)
			f(t, server, &place{rdb: server.Client(t), namespace: redistest.Namespace(t), real: true}, o)
		})
	}
}

// away checks what a call says while Redis is away.
func away(t *testing.T, name string, err error) {
	t.Helper()
	require.Error(t, err, name)
	unavailable, uncertain := errors.Is(err, carillon.ErrUnavailable), errors.Is(err, carillon.ErrUncertain)
	assert.NotEqual(t, unavailable, uncertain, "%s: exactly one of both: %v", name, err)
	for _, wrong := range []error{carillon.ErrNotFound, carillon.ErrState, carillon.ErrFenced, carillon.ErrDamaged, carillon.ErrInvalid} {
		assert.NotErrorIs(t, err, wrong, name)
	}
	var e *carillon.Error
	assert.ErrorAs(t, err, &e, name)
}

func TestEveryCallReturnsWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	eachOutage(t, func(t *testing.T, server *redistest.Server, p *place, o outage) {
		s := p.new(t, nil)
		id := submit(t, s, carillon.Job{Name: "x", Delay: time.Hour})
		require.NoError(t, s.Schedule(t.Context(), carillon.Schedule{Name: "s", Spec: carillon.Every(time.Hour), Job: carillon.Job{Name: "x"}}))
		held, err := s.TryLock(t.Context(), "held")
		require.NoError(t, err)
		o.begin(t, server)

		calls := map[string]func(context.Context) error{
			"Submit": func(ctx context.Context) error {
				_, err := s.Submit(ctx, carillon.Job{Name: "x"})
				return err
			},
			"Submit to a new queue": func(ctx context.Context) error {
				_, err := s.Submit(ctx, carillon.Job{Name: "x", Queue: "new"})
				return err
			},
			"Schedule": func(ctx context.Context) error {
				return s.Schedule(ctx, carillon.Schedule{Name: "t", Spec: carillon.Every(time.Hour), Job: carillon.Job{Name: "x"}})
			},
			"Unschedule":  func(ctx context.Context) error { return s.Unschedule(ctx, "s") },
			"GetSchedule": func(ctx context.Context) error { _, err := s.GetSchedule(ctx, "s"); return err },
			"Schedules":   func(ctx context.Context) error { _, err := s.Schedules(ctx); return err },
			"Get":         func(ctx context.Context) error { _, err := s.Get(ctx, id); return err },
			"Await":       func(ctx context.Context) error { _, err := s.Await(ctx, id); return err },
			"Counts":      func(ctx context.Context) error { _, err := s.Counts(ctx); return err },
			"Cancel":      func(ctx context.Context) error { return s.Cancel(ctx, id) },
			"Retry":       func(ctx context.Context) error { return s.Retry(ctx, id) },
			"RetryAll":    func(ctx context.Context) error { _, err := s.RetryAll(ctx, carillon.Filter{}); return err },
			"RunNow":      func(ctx context.Context) error { return s.RunNow(ctx, id) },
			"PauseQueue":  func(ctx context.Context) error { return s.PauseQueue(ctx, "q") },
			"ResumeQueue": func(ctx context.Context) error { return s.ResumeQueue(ctx, "q") },
			"Instances":   func(ctx context.Context) error { _, err := s.Instances(ctx); return err },
			"Lock":        func(ctx context.Context) error { _, err := s.Lock(ctx, "free"); return err },
			"TryLock":     func(ctx context.Context) error { _, err := s.TryLock(ctx, "free"); return err },
			"Release":     held.Release,
			"Start": func(ctx context.Context) error {
				return p.new(t, nil).Start(ctx)
			},
			"SubmitMany": func(ctx context.Context) error {
				receipts, err := s.SubmitMany(ctx, []carillon.Job{{Name: "x"}, {Name: "x"}})
				assert.Error(t, err)
				for _, r := range receipts {
					assert.NotEmpty(t, r.ID)
					away(t, "receipt", r.Err)
				}
				return receipts[0].Err
			},
		}
		for _, state := range []carillon.State{"", carillon.StateScheduled, carillon.StateQueued, carillon.StateFailed} {
			calls["List "+string(state)] = func(ctx context.Context) error {
				f := carillon.Filter{}
				if state != "" {
					f.States = []carillon.State{state}
				}
				for _, err := range s.List(ctx, f) {
					return err
				}
				return nil
			}
		}
		var all sync.WaitGroup
		for name, call := range calls {
			for kind, limit := range map[string]func(context.Context) (context.Context, context.CancelFunc){
				"deadline": func(ctx context.Context) (context.Context, context.CancelFunc) {
					return context.WithTimeout(ctx, 200*time.Millisecond)
				},
				"cancel": func(ctx context.Context) (context.Context, context.CancelFunc) {
					ctx, cancel := context.WithCancel(ctx)
					timer := time.AfterFunc(200*time.Millisecond, cancel)
					return ctx, func() { timer.Stop(); cancel() }
				},
			} {
				if name == "Release" && kind == "cancel" {
					continue // it does so once
				}
				all.Go(func() {
					ctx, cancel := limit(t.Context())
					defer cancel()
					longest := 4 * time.Second // a read may take 5 s
					if kind == "cancel" && strings.HasPrefix(name, "Submit") {
						longest += 5 * time.Second // it may be in one that only its deadline ends
					}
					began := time.Now()
					err := call(ctx)
					assert.Less(t, time.Since(began), longest, "%s %s", name, kind)
					away(t, name+" "+kind, err)
					if name == "Submit" {
						assert.ErrorIs(t, err, ctx.Err(), kind)
					}
				})
			}
		}
		all.Wait()

		o.end(t, server)
		eventually(t, "all is well", func() bool { _, err := s.Get(t.Context(), id); return err == nil })
		eventually(t, "for each of its connections", func() bool {
			_, err := s.Submit(t.Context(), carillon.Job{Name: "x"})
			return err == nil
		})
	})
}

// What a producer is told during outages must agree with what Redis holds when
// they are over.
func TestSubmissionsTellTheTruth(t *testing.T) {
	t.Parallel()
	eachOutage(t, func(t *testing.T, server *redistest.Server, p *place, o outage) {
		s := p.new(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var mu sync.Mutex
		told := map[string]error{}
		submitted := func() (ok, failed int) {
			mu.Lock()
			defer mu.Unlock()
			for _, err := range told {
				if err == nil {
					ok++
				} else {
					failed++
				}
			}
			return ok, failed
		}
		var producers sync.WaitGroup
		for n := range 8 {
			producers.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					id := fmt.Sprintf("%d-%d", n, i)
					limit, done := context.WithTimeout(t.Context(), 500*time.Millisecond)
					_, err := s.Submit(limit, carillon.Job{Name: "x", ID: id, Delay: time.Hour})
					done()
					mu.Lock()
					told[id] = err
					mu.Unlock()
					if err != nil {
						away(t, id, err)
					} else if _, failed := submitted(); failed == 0 && i > 200 {
						receiveTick(ctx)
					}
				}
			})
		}
		for range 2 {
			before, failedBefore := submitted()
			eventually(t, "jobs are accepted", func() bool { ok, _ := submitted(); return ok > before+20 })
			o.begin(t, server)
			eventually(t, "jobs are refused", func() bool { _, failed := submitted(); return failed > failedBefore+20 })
			o.end(t, server)
		}
		before, _ := submitted()
		eventually(t, "jobs are accepted again", func() bool { ok, _ := submitted(); return ok > before+20 })
		cancel()
		producers.Wait()

		var ok, unavailable, uncertain, stored int
		for id, err := range told {
			exists := p.rdb.Exists(t.Context(), "{"+p.namespace+":0}:j:"+id).Val() == 1
			switch {
			case err == nil:
				ok++
				assert.True(t, exists, "%s was acknowledged and is lost", id)
			case errors.Is(err, carillon.ErrUnavailable):
				unavailable++
				assert.False(t, exists, "%s is there although it was surely not stored: %v", id, err)
			default:
				uncertain++
				if exists {
					stored++
				}
			}
		}
		t.Logf("%d accepted, %d surely not, %d uncertain of which %d are there", ok, unavailable, uncertain, stored)
	})
}

// receiveTick lets the other producers have the processor.
func receiveTick(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Millisecond):
	}
}

func TestAllGoesOnAfterAnOutage(t *testing.T) {
	t.Parallel()
	eachOutage(t, func(t *testing.T, server *redistest.Server, p *place, o outage) {
		var ran counter
		release, holding := make(chan struct{}), make(chan string, 10)
		h := handlers{
			"ok": func(_ context.Context, x *carillon.Execution) error { ran.add(x.ID); return nil },
			"hold": func(_ context.Context, x *carillon.Execution) error {
				ran.add(x.ID)
				holding <- x.ID
				<-release
				return nil
			},
		}
		const ttl = 3 * time.Second
		log := &logbook{}
		s := p.run(t, h, logTo(log), lease(ttl))
		other := p.run(t, h, lease(ttl))
		held := submit(t, s, carillon.Job{Name: "hold"})
		receive(t, holding, "a job runs")
		delayed := submit(t, s, carillon.Job{Name: "ok", Delay: 500 * time.Millisecond})
		require.NoError(t, s.Schedule(t.Context(), carillon.Schedule{
			Name: "s", Spec: carillon.Every(200 * time.Millisecond), Job: carillon.Job{Name: "ok", Queue: "default"},
		}))
		awaited := make(chan error, 1)
		go func() {
			for {
				_, err := other.Await(t.Context(), held)
				if err == nil || t.Context().Err() != nil {
					awaited <- err
					return
				}
			}
		}()

		o.begin(t, server)
		eventually(t, "the instance notices", func() bool { return log.count("trying again") > 0 })
		close(release) // its outcome cannot be recorded now
		eventually(t, "more than a lease passes", passed(ttl*3/2))
		o.end(t, server)

		require.NoError(t, receive(t, awaited, "the job is awaited"))
		info := get(t, s, held)
		assert.Equal(t, carillon.StateSucceeded, info.State)
		assert.Equal(t, 1, ran.of(held), "nobody took it for lost")
		assert.Zero(t, info.Losses)
		assert.Equal(t, carillon.StateSucceeded, await(t, s, delayed).State)
		id := submit(t, other, carillon.Job{Name: "ok"})
		assert.Equal(t, carillon.StateSucceeded, await(t, s, id).State)
		before := len(ran.all())
		eventually(t, "the schedule fires on", func() bool { return len(ran.all()) >= before+2 })
		for id, n := range ran.all() {
			assert.Equal(t, 1, n, id)
		}
		eventually(t, "both instances are registered", func() bool {
			all, err := s.Instances(t.Context())
			return err == nil && len(all) == 2 && !slices.ContainsFunc(all, func(i carillon.InstanceInfo) bool { return !i.Alive })
		})
	})
}

// An outage ages all leases alike. Whoever noticed it, and whoever has just
// started, trusts no lapse for one lease, in which the others come back.
func TestAnOutageIsNobodysDeath(t *testing.T) {
	t.Parallel()
	server := durable(t)
	p := &place{rdb: server.Client(t), namespace: redistest.Namespace(t), real: true}
	g, ttl := newGate(), 5*time.Second
	s := p.run(t, handlers{"hold": g.run}, lease(ttl))
	log := &logbook{}
	looks := knobs.With(t.Context(), knobs.Knobs{Poll: 20 * time.Millisecond})
	other := p.new(t, nil, logTo(log), lease(ttl))
	require.NoError(t, other.Start(looks))
	id := submit(t, s, carillon.Job{Name: "hold"})
	g.next(t)
	// A heartbeat mends the lease, and is sent each third of it.
	aged := func() {
		workers := keyLike(t, p.rdb, p.namespace, "}:workers")
		for _, instance := range p.rdb.ZRange(t.Context(), workers, 0, -1).Val() {
			require.NoError(t, p.rdb.ZAddXX(t.Context(), workers, redis.Z{Score: 1, Member: instance}).Err())
		}
		eventually(t, "the other looks", passed(300*time.Millisecond))
		assert.Zero(t, log.count("reclaimed"))
	}
	aged() // the other has just started
	eventually(t, "the grace of the start is over", passed(ttl))
	server.Kill()
	eventually(t, "the other notices", func() bool { return log.count("housekeeping failed") > 0 })
	server.Restart(t)
	aged()
	g.open()
	info := await(t, s, id)
	assert.Equal(t, 1, info.Attempt)
	assert.Zero(t, info.Losses)
}

// passed becomes true after a while.
func passed(d time.Duration) func() bool {
	began := time.Now()
	return func() bool { return time.Since(began) > d }
}

func TestStartWaitsForRedis(t *testing.T) {
	t.Parallel()
	eachOutage(t, func(t *testing.T, server *redistest.Server, p *place, o outage) {
		log := &logbook{}
		s := p.new(t, handlers{"ok": func(context.Context, *carillon.Execution) error { return nil }}, logTo(log))
		o.begin(t, server)
		started := make(chan error, 1)
		go func() { started <- s.Start(t.Context()) }()
		eventually(t, "it waits", func() bool { return log.count("waiting for Redis") > 0 })
		select {
		case err := <-started:
			require.Fail(t, "it started without Redis", "%v", err)
		default:
		}
		o.end(t, server)
		require.NoError(t, receive(t, started, "it starts"))
		assert.Equal(t, carillon.StateSucceeded, await(t, s, submit(t, s, carillon.Job{Name: "ok"})).State)
	})
}

func TestShutdownWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	eachOutage(t, func(t *testing.T, server *redistest.Server, p *place, o outage) {
		stop, holding := make(chan struct{}), make(chan string, 1)
		s, err := carillon.New(redistest.Limited(t, p.rdb), carillon.Config{
			Namespace: p.namespace, LeaseTTL: time.Second, ShutdownTimeout: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
		})
		require.NoError(t, err)
		require.NoError(t, s.Handle("hold", carillon.HandlerFunc(func(ctx context.Context, x *carillon.Execution) error {
			holding <- x.ID
			select {
			case <-stop:
			case <-ctx.Done():
			}
			return ctx.Err()
		})))
		start(t, s)
		id := submit(t, s, carillon.Job{Name: "hold"})
		receive(t, holding, "the job runs")
		o.begin(t, server)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		err = s.Shutdown(ctx)
		assert.Error(t, err, "the job could not be given back")
		assert.Less(t, time.Since(began), 15*time.Second)
		_, err = s.Get(t.Context(), id)
		assert.ErrorIs(t, err, carillon.ErrClosed)
		o.end(t, server)
		close(stop)

		// Another instance takes the job once the lease has lapsed.
		again := p.run(t, handlers{"hold": func(context.Context, *carillon.Execution) error { return nil }}, lease(time.Second))
		assert.Equal(t, carillon.StateSucceeded, await(t, again, id).State)
	})
}

// After many failures go-redis dials no more for up to a second, also when the
// server is there again. An instance that ends just then takes its leave all the
// same.
func TestFarewellRightAfterAnOutage(t *testing.T) {
	t.Parallel()
	p := &place{rdb: durable(t).Client(t), namespace: redistest.Namespace(t), real: true}
	var all []*carillon.Scheduler
	var wires []*faultnet.Net
	for range 8 {
		rdb, wire := wireTo(t, p.rdb)
		all, wires = append(all, p.run2(t, rdb, nil)), append(wires, wire)
	}
	for _, wire := range wires { // so that go-redis tries to dial at another moment for each
		wire.Set(faultnet.Faults{Cut: true})
		eventually(t, "a part of a second has passed", passed(time.Second/8))
	}
	eventually(t, "each has failed often", passed(2*time.Second))
	for _, wire := range wires {
		wire.Set(faultnet.Faults{})
	}
	var ended []<-chan error
	for _, s := range all {
		ended = append(ended, ending(t.Context(), s))
	}
	for _, done := range ended {
		require.NoError(t, receive(t, done, "the end of Shutdown"))
	}
	auditDrained(t, p.rdb, p.namespace)
}

func TestStartGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	server := durable(t)
	p := &place{rdb: server.Client(t), namespace: redistest.Namespace(t), real: true}
	server.Kill()
	s := p.new(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := s.Run(ctx)
	require.ErrorIs(t, err, carillon.ErrUnavailable)
	_, err = s.Submit(t.Context(), carillon.Job{Name: "x"})
	assert.ErrorIs(t, err, carillon.ErrClosed, "a Scheduler runs once")
}

// However long Redis is silent after it, Start tells what was wrong before.
func TestStartTellsTheCauseBesideTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rdb, stop := embedded.Open()
		defer stop()
		silent := make(chan struct{})
		o := *rdb.Options()
		o.Dialer = func(ctx context.Context, _, _ string) (net.Conn, error) {
			select {
			case <-silent:
				<-ctx.Done()
				return nil, ctx.Err()
			default:
				return nil, errors.New("no way there")
			}
		}
		lost := redis.NewClient(&o)
		defer lost.Close()
		s, err := carillon.New(lost, carillon.Config{Namespace: "n", Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		time.AfterFunc(time.Second, func() { close(silent) })
		err = s.Start(ctx)
		require.ErrorIs(t, err, carillon.ErrUnavailable)
		assert.ErrorContains(t, err, "deadline exceeded")
		assert.ErrorContains(t, err, "no way there")
		assert.NoError(t, s.Shutdown(t.Context()))
	})
}

// A server that came back empty is noticed by whoever asks first: a read, or,
// as here, a heartbeat. All that only the start writes has to be written again.
func TestHeartbeatFindsTheNamespaceGone(t *testing.T) {
	t.Parallel()
	p := &place{rdb: redistest.Shared(t).Client(t), namespace: redistest.Namespace(t), real: true}
	log := &logbook{}
	s := p.run(t, handlers{"ok": succeed}, logTo(log), lease(300*time.Millisecond))
	key := func(name string) string { return "{" + p.namespace + ":0}:" + name }
	require.NoError(t, p.rdb.Del(t.Context(), key("meta"), key("queues"), key("workers"), key("inst")).Err())
	eventually(t, "it is said", func() bool { return log.count("has lost the namespace") == 1 })
	eventually(t, "the namespace is there again", func() bool {
		return p.rdb.Exists(t.Context(), key("meta"), key("queues"), key("workers"), key("inst")).Val() == 4
	})
	assert.Equal(t, []string{"default"}, p.rdb.SMembers(t.Context(), key("queues")).Val())
	assert.Equal(t, carillon.StateSucceeded, await(t, s, submit(t, s, carillon.Job{Name: "ok"})).State)
}

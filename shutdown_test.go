package carillon_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/faultnet"
)

// patience sets how long a shutdown lets running jobs finish.
func patience(d time.Duration) func(*carillon.Config) {
	return func(c *carillon.Config) { c.ShutdownTimeout = d }
}

// ending shuts s down and tells how that went.
func ending(ctx context.Context, s *carillon.Scheduler) <-chan error {
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(ctx) }()
	return done
}

func TestShutdown(t *testing.T) {
	t.Run("lets running jobs finish and starts no others", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			begun, finish := make(chan struct{}, 9), make(chan struct{})
			var ran counter
			s := p.run(t, handlers{
				"long": func(ctx context.Context, _ *carillon.Execution) error {
					begun <- struct{}{}
					<-finish
					return ctx.Err()
				},
				"late": func(_ context.Context, x *carillon.Execution) error {
					ran.add(x.ID)
					return nil
				},
			})
			producer := p.new(t, nil)
			long := submit(t, producer, carillon.Job{Name: "long"})
			receive(t, begun, "the job starts")
			done := ending(t.Context(), s)
			// The first ones may still be read.
			var late []string
			for range 30 {
				late = append(late, submit(t, producer, carillon.Job{Name: "late"}))
			}
			assert.Empty(t, done, "it did not wait for the running job")
			close(finish)
			require.NoError(t, receive(t, done, "the end of Shutdown"))

			info := get(t, producer, long)
			assert.Equal(t, carillon.StateSucceeded, info.State)
			assert.Equal(t, 1, info.Attempt)
			for _, id := range late {
				info := get(t, producer, id)
				if ran.of(id) == 1 {
					assert.Equal(t, carillon.StateSucceeded, info.State)
					continue
				}
				assert.Zero(t, ran.of(id))
				assert.Equal(t, carillon.StateQueued, info.State)
				assert.Zero(t, info.Losses)
				assert.Zero(t, info.Failures)
			}
			assert.Zero(t, ran.of(late[len(late)-1]), "it went on reading")
		})
	})

	t.Run("then ends the contexts and gives the jobs to others, uncharged", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			begun, causes := make(chan struct{}, 9), make(chan error, 9)
			h := handlers{"job": func(ctx context.Context, x *carillon.Execution) error {
				if x.Attempt > 1 {
					return x.SetResult(x.Failures + x.Losses)
				}
				begun <- struct{}{}
				<-ctx.Done()
				causes <- context.Cause(ctx)
				return ctx.Err()
			}}
			s := p.run(t, h, patience(50*time.Millisecond))
			producer := p.new(t, nil)
			ids := []string{
				submit(t, producer, carillon.Job{Name: "job", Retry: &carillon.Retry{MaxAttempts: 1}}),
				submit(t, producer, carillon.Job{Name: "job", Mutex: "one at a time", Retry: &carillon.Retry{MaxAttempts: 1}}),
			}
			for range ids {
				receive(t, begun, "a job starts")
			}
			at := time.Now()
			require.NoError(t, s.Shutdown(t.Context()))
			assert.GreaterOrEqual(t, time.Since(at), 50*time.Millisecond, "it gave them no time")
			for _, id := range ids {
				assert.ErrorIs(t, receive(t, causes, "a cause"), carillon.ErrShutdown)
				assert.Equal(t, carillon.StateQueued, get(t, producer, id).State, "it goes to the others at once")
			}
			other := p.run(t, h)
			for _, id := range ids {
				info := await(t, producer, id)
				assert.Equal(t, carillon.StateSucceeded, info.State)
				assert.Equal(t, []carillon.Outcome{carillon.OutcomeReleased, carillon.OutcomeSucceeded}, outcomesOf(info))
				assert.JSONEq(t, "0", string(info.Result), "it was charged")
				assert.Greater(t, info.Attempts[1].Token, info.Attempts[0].Token)
			}
			shutdown(t, other)
			auditDrained(t, p.rdb, p.namespace)
		})
	})

	t.Run("leaves a handler behind that ignores its context; it cannot settle any more", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			begun, ignorant, stale := make(chan struct{}, 9), make(chan struct{}), make(chan error, 1)
			s := p.run(t, handlers{"job": func(ctx context.Context, x *carillon.Execution) error {
				begun <- struct{}{}
				<-ignorant
				stale <- x.Progress(context.WithoutCancel(ctx), "stale")
				return x.SetResult("stale")
			}}, patience(time.Hour))
			producer := p.new(t, nil)
			id := submit(t, producer, carillon.Job{Name: "job"})
			receive(t, begun, "the job starts")

			// The caller's patience ends long before the Scheduler's.
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			at := time.Now()
			require.NoError(t, s.Shutdown(ctx))
			assert.Less(t, time.Since(at), tardy, "it did not heed its context")

			second := p.run(t, handlers{"job": func(_ context.Context, x *carillon.Execution) error {
				close(ignorant)
				assert.ErrorIs(t, receive(t, stale, "the stale progress"), carillon.ErrClosed)
				return x.SetResult("second")
			}})
			info := await(t, producer, id)
			assert.JSONEq(t, `"second"`, string(info.Result))
			assert.Equal(t, []carillon.Outcome{carillon.OutcomeReleased, carillon.OutcomeSucceeded}, outcomesOf(info))
			assert.Nil(t, info.Progress)
			shutdown(t, second)
			auditDrained(t, p.rdb, p.namespace)
		})
	})

	t.Run("heeds a context that ends while it waits for handlers to return", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			begun, ignorant := make(chan struct{}, 9), make(chan struct{})
			defer close(ignorant)
			s := p.run(t, handlers{"job": func(ctx context.Context, _ *carillon.Execution) error {
				begun <- struct{}{}
				<-ctx.Done()
				begun <- struct{}{}
				<-ignorant
				return nil
			}}, patience(time.Millisecond))
			submit(t, s, carillon.Job{Name: "job"})
			receive(t, begun, "the job starts")
			ctx, cancel := context.WithCancel(t.Context())
			done := ending(ctx, s)
			receive(t, begun, "the end of its context")
			at := time.Now()
			cancel()
			assert.NoError(t, receive(t, done, "the end of Shutdown"))
			assert.Less(t, time.Since(at), tardy)
		})
	})

	t.Run("may be called again, at the same time too", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			begun, finish := make(chan struct{}, 9), make(chan struct{})
			s := p.run(t, handlers{"job": func(ctx context.Context, _ *carillon.Execution) error {
				begun <- struct{}{}
				<-ctx.Done()
				begun <- struct{}{}
				<-finish
				return nil
			}}, patience(time.Millisecond))
			submit(t, s, carillon.Job{Name: "job"})
			receive(t, begun, "the job starts")
			first := ending(t.Context(), s)
			receive(t, begun, "the end of its context")
			second := ending(t.Context(), s)
			hasty, cancel := context.WithCancel(t.Context())
			cancel()
			assert.ErrorIs(t, s.Shutdown(hasty), context.Canceled, "a later call heeds its context")
			assert.Empty(t, first)
			assert.Empty(t, second)
			close(finish)
			assert.NoError(t, receive(t, first, "the first"))
			assert.NoError(t, receive(t, second, "the second"))
			assert.NoError(t, s.Shutdown(t.Context()))
		})
	})

	t.Run("of a Scheduler that never ran closes it", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.new(t, nil)
			id := submit(t, s, carillon.Job{Name: "job"})
			require.NoError(t, s.Shutdown(t.Context()))
			_, err := s.Submit(t.Context(), carillon.Job{Name: "job"})
			assert.ErrorIs(t, err, carillon.ErrClosed)
			_, err = s.Get(t.Context(), id)
			assert.ErrorIs(t, err, carillon.ErrClosed)
			_, err = s.TryLock(t.Context(), "name")
			assert.ErrorIs(t, err, carillon.ErrClosed)
			assert.ErrorIs(t, s.Start(t.Context()), carillon.ErrClosed)
			assert.ErrorIs(t, s.Run(t.Context()), carillon.ErrClosed)
			assert.NoError(t, p.rdb.Ping(t.Context()).Err(), "the caller's client is the caller's")
		})
	})

	t.Run("before anything was sent", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			assert.NoError(t, p.new(t, nil).Shutdown(t.Context()))
			assert.Empty(t, keysOf(t, p.rdb, p.namespace))
		})
	})

	t.Run("ends calls that wait", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, nil)
			other := p.new(t, nil)
			id := submit(t, other, carillon.Job{Name: "job", Delay: time.Hour})
			held, err := other.TryLock(t.Context(), "name")
			require.NoError(t, err)
			mine, err := s.TryLock(t.Context(), "mine")
			require.NoError(t, err)
			ends := make(chan error, 3)
			go func() {
				_, err := s.Await(t.Context(), id)
				ends <- err
			}()
			go func() {
				_, err := s.Lock(t.Context(), "name")
				ends <- err
			}()
			go func() {
				var last error
				for _, err := range s.Subscribe(t.Context(), "") {
					last = err
				}
				ends <- last
			}()
			at := time.Now()
			require.NoError(t, s.Shutdown(t.Context()))
			for range 3 {
				assert.ErrorIs(t, receive(t, ends, "the end of a call"), carillon.ErrClosed)
			}
			receive(t, mine.Context().Done(), "the end of a lease that was not released")
			assert.ErrorIs(t, context.Cause(mine.Context()), carillon.ErrLeaseLost)
			assert.Less(t, time.Since(at), tardy)
			assert.NoError(t, held.Release(t.Context()))
		})
	})
}

func TestShutdownLeavesNothing(t *testing.T) {
	// Not parallel: it looks at all goroutines.
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			p := b.place(t)
			require.NoError(t, p.rdb.Ping(t.Context()).Err())
			before := goleak.IgnoreCurrent()
			rdb := named(t, p.rdb, p.namespace)
			s := p.over(t, rdb, handlers{"job": func(context.Context, *carillon.Execution) error { return nil }})
			start(t, s)
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					r, err := s.Submit(t.Context(), carillon.Job{Name: "job"})
					if assert.NoError(t, err) {
						_, err = s.Await(t.Context(), r.ID)
						assert.NoError(t, err)
					}
				})
			}
			wg.Wait()
			lock, err := s.Lock(t.Context(), "name")
			require.NoError(t, err)
			require.NoError(t, lock.Release(t.Context()))
			if p.real {
				assert.NotZero(t, connections(t, p.rdb, p.namespace))
			}
			require.NoError(t, s.Shutdown(t.Context()))
			// A miniredis that comes late to a blocking read waits out its time: for nobody, and not in our goroutine.
			assert.NoError(t, goleak.Find(before, goleak.IgnoreAnyFunction("testing.(*T).Run"),
				goleak.IgnoreAnyFunction("github.com/alicebob/miniredis/v2.blocking"),
				goleak.IgnoreAnyFunction("github.com/alicebob/miniredis/v2.blocking.func2"),
				goleak.IgnoreAnyFunction("github.com/alicebob/miniredis/v2.setCondTimer")))
			if p.real {
				eventually(t, "the server has no connection of it", func() bool {
					return connections(t, p.rdb, p.namespace) == 0
				})
			}
			auditDrained(t, p.rdb, p.namespace)
		})
	}
}

// named returns a client whose connections have a name.
func named(t testing.TB, rdb redis.UniversalClient, name string) redis.UniversalClient {
	t.Helper()
	var out redis.UniversalClient
	switch c := rdb.(type) {
	case *redis.Client:
		o := *c.Options()
		o.ClientName = name
		out = redis.NewClient(&o)
	case *redis.ClusterClient:
		o := *c.Options()
		o.ClientName = name
		out = redis.NewClusterClient(&o)
	}
	t.Cleanup(func() { _ = out.Close() })
	return out
}

// connections counts those with a name, on all servers.
func connections(t testing.TB, rdb redis.UniversalClient, name string) int {
	t.Helper()
	var mu sync.Mutex
	n := 0
	count := func(ctx context.Context, c *redis.Client) error {
		list, err := c.ClientList(ctx).Result()
		mu.Lock()
		defer mu.Unlock()
		n += strings.Count(list, " name="+name+" ")
		return err
	}
	switch c := rdb.(type) {
	case *redis.ClusterClient:
		require.NoError(t, c.ForEachShard(t.Context(), count))
	case *redis.Client:
		require.NoError(t, count(t.Context(), c))
	}
	return n
}

func TestRun(t *testing.T) {
	t.Run("works until its context ends and returns nil", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			begun, finish := make(chan struct{}, 9), make(chan struct{})
			s := p.new(t, handlers{"job": func(ctx context.Context, _ *carillon.Execution) error {
				begun <- struct{}{}
				<-finish
				return ctx.Err()
			}})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			id := submit(t, s, carillon.Job{Name: "job"})
			receive(t, begun, "the job starts")
			cancel()
			close(finish)
			assert.NoError(t, receive(t, done, "the end of Run"))
			info := get(t, p.new(t, nil), id)
			assert.Equal(t, carillon.StateSucceeded, info.State, "it drains")
			assert.ErrorIs(t, s.Run(t.Context()), carillon.ErrClosed, "it runs once")
		})
	})

	t.Run("returns when Shutdown is called", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			s := p.new(t, handlers{"job": func(context.Context, *carillon.Execution) error { return nil }})
			done := make(chan error, 1)
			go func() { done <- s.Run(t.Context()) }()
			await(t, s, submit(t, s, carillon.Job{Name: "job"}))
			assert.NoError(t, s.Shutdown(t.Context()))
			assert.NoError(t, receive(t, done, "the end of Run"))
		})
	})
}

// Whatever does not answer, and though the client was told to wait for ever: once
// its context has ended, Shutdown has one more second.
func TestShutdownDoesNotWaitForTheNetwork(t *testing.T) {
	t.Parallel()
	const limit = 200 * time.Millisecond
	silences := map[string]faultnet.Faults{
		"cut":                      {Cut: true},
		"no requests":              {Up: true},
		"no replies":               {Down: true},
		"nothing":                  {Up: true, Down: true},
		"nobody to talk to":        {HalfOpen: true, Hang: true},
		"no new connections":       {Hang: true},
		"the old ones are severed": {HalfOpen: true},
		"a trickle":                {Bandwidth: 10},
	}
	for name, silence := range silences {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fastPlaces(t, func(t *testing.T, p *place) {
				healthy, ok := p.rdb.(*redis.Client)
				require.True(t, ok)
				o := *healthy.Options()
				o.ReadTimeout, o.WriteTimeout = -1, -1
				deaf := redis.NewClient(&o)
				t.Cleanup(func() { assert.NoError(t, deaf.Close()) })
				rdb, wire := wireTo(t, deaf)
				s, err := carillon.New(rdb, carillon.Config{Namespace: p.namespace, LeaseTTL: time.Second, Logger: slog.New(slog.DiscardHandler)})
				require.NoError(t, err)
				listening, err := carillon.New(rdb, carillon.Config{Namespace: p.namespace})
				require.NoError(t, err)
				start(t, s)
				id := submit(t, listening, carillon.Job{Name: "job", Delay: time.Hour})
				wire.Set(silence)
				wait, cancel := context.WithCancel(t.Context())
				awaited := make(chan error, 1)
				go func() { // it subscribes to hints, on a new connection
					_, err := listening.Await(wait, id)
					awaited <- err
				}()
				if silence.Bandwidth == 0 {
					eventually(t, "the silence is noticed", func() bool { return wire.Took() > 2 })
				}
				ctx, stop := context.WithTimeout(t.Context(), limit)
				defer stop()
				began := time.Now()
				both := []<-chan error{ending(ctx, s), ending(ctx, listening)}
				for _, done := range both {
					_ = receive(t, done, "the end of Shutdown") // it says that it could not take its leave
				}
				assert.Less(t, time.Since(began), limit+time.Second+tardy)
				cancel()
				assert.Error(t, receive(t, awaited, "the end of Await"))
			})
		})
	}
}

// However long each answer takes, an instance takes its leave: a Redis Cluster has
// to be asked for much, segment by segment.
func TestFarewellOnASlowNetwork(t *testing.T) {
	t.Parallel()
	placesIn(t, func(t *testing.T, p *place) {
		rdb, wire := wireTo(t, p.rdb)
		s := p.run2(t, rdb, nil, lease(time.Minute))
		eventually(t, "it owns every segment", func() bool {
			leases := slices.DeleteFunc(keysOf(t, p.rdb, p.namespace), func(key string) bool { return !strings.Contains(key, ":k:") })
			return len(leases) == clusterSegments
		})
		wire.Set(faultnet.Faults{Latency: 100 * time.Millisecond})
		require.NoError(t, s.Shutdown(t.Context()))
		wire.Set(faultnet.Faults{})
		auditDrained(t, p.rdb, p.namespace)
	}, "cluster")
}

package carillon_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/embedded"
	"github.com/carillon-go/carillon/internal/faultnet"
	"github.com/carillon-go/carillon/internal/redistest"
)

func TestInstanceWithoutHandler(t *testing.T) {
	t.Run("leaves the job to others, uncharged, in growing intervals", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			var log logbook
			without := p.run(t, nil, logTo(&log))
			id := submit(t, without, carillon.Job{Name: "exotic", Retry: &carillon.Retry{MaxAttempts: 1}})
			eventually(t, "the job is offered three times", func() bool { return len(get(t, without, id).Attempts) >= 3 })
			info := get(t, without, id)
			for i, least := range []time.Duration{250 * time.Millisecond, 500 * time.Millisecond} {
				gap := info.Attempts[i+1].DispatchedAt.Sub(info.Attempts[i].DispatchedAt)
				assert.GreaterOrEqual(t, gap, least, "a hot loop")
			}
			assert.Equal(t, 1, log.count("cannot run a job"), "it says so, once")

			p.run(t, handlers{"exotic": func(context.Context, *carillon.Execution) error { return nil }})
			eventually(t, "the other instance runs it", func() bool {
				_ = without.RunNow(t.Context(), id) // it may be anywhere
				return get(t, without, id).State.Final()
			})
			info = get(t, without, id)
			assert.Equal(t, carillon.StateSucceeded, info.State)
			assert.Zero(t, info.Failures)
			assert.Zero(t, info.Losses)
			outcomes := outcomesOf(info)
			for _, o := range outcomes[:len(outcomes)-1] {
				assert.Equal(t, carillon.OutcomeDeclined, o)
			}
		})
	})
}

// seasoned waits until an instance is older than a lease: before that it
// declares nobody dead.
func seasoned(t testing.TB, s *carillon.Scheduler, ttl time.Duration) {
	t.Helper()
	eventually(t, "the instances are older than a lease", func() bool {
		all, err := s.Instances(t.Context())
		require.NoError(t, err)
		for _, in := range all {
			if in.Heartbeat.Sub(in.StartedAt) < ttl+ttl/3 {
				return false
			}
		}
		return true
	})
}

// crash is a job whose first worker was cut off from Redis.
type crash struct {
	survivor, doomed *carillon.Scheduler
	wire             *faultnet.Net
	log              logbook // of the doomed instance
	id               string
	at               time.Time      // of the cut
	stale            chan staleCall // what the first worker is to do with its execution
	second           chan time.Time // when the second attempt started
	release          chan struct{}  // ends the second attempt
}

type staleCall func(ctx context.Context, x *carillon.Execution)

// crashing runs a job on an instance and cuts that off. Another one is there.
func crashing(t *testing.T, p *place, ttl time.Duration, job carillon.Job) *crash {
	t.Helper()
	c := &crash{stale: make(chan staleCall), second: make(chan time.Time, 9), release: make(chan struct{})}
	begun := make(chan struct{}, 9)
	rdb, wire := wireTo(t, p.rdb)
	c.wire = wire
	c.doomed = p.over(t, rdb, handlers{"job": func(ctx context.Context, x *carillon.Execution) error {
		begun <- struct{}{}
		for call := range c.stale {
			call(ctx, x)
		}
		return x.SetResult("stale")
	}}, lease(ttl), logTo(&c.log))
	t.Cleanup(func() { heal(t, wire, c.doomed) })
	start(t, c.doomed)
	job.Name = "job"
	c.id = submit(t, c.doomed, job)
	receive(t, begun, "the job starts")
	c.survivor = p.run(t, handlers{"job": func(ctx context.Context, x *carillon.Execution) error {
		c.second <- time.Now()
		select {
		case <-c.release:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		return x.SetResult("second")
	}}, lease(ttl))
	seasoned(t, c.survivor, ttl)
	c.at = time.Now()
	wire.Set(faultnet.Faults{Cut: true})
	return c
}

func TestLostWorker(t *testing.T) {
	t.Run("its job runs elsewhere within one and a half leases", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			const ttl = 3 * time.Second // half of it is more than a busy machine is late by
			c := crashing(t, p, ttl, carillon.Job{})
			took := receive(t, c.second, "the second attempt").Sub(c.at)
			assert.Less(t, took, ttl*3/2)
			close(c.release)
			close(c.stale)
			info := await(t, c.survivor, c.id)
			assert.Equal(t, carillon.StateSucceeded, info.State)
		})
	})

	t.Run("cannot settle the job that moved on, and joins again", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			c := crashing(t, p, time.Second, carillon.Job{Retry: &carillon.Retry{MaxAttempts: 1}})
			receive(t, c.second, "the second attempt")
			info := get(t, c.survivor, c.id)
			require.Equal(t, carillon.StateRunning, info.State)
			assert.Equal(t, 1, info.Losses)
			assert.Zero(t, info.Failures, "a lost worker is no failure")
			require.Equal(t, []carillon.Outcome{carillon.OutcomeLost, carillon.OutcomeRunning}, outcomesOf(info))
			first, second := info.Attempts[0], info.Attempts[1]
			assert.Greater(t, second.Token, first.Token)
			assert.NotEqual(t, first.Instance, second.Instance)

			c.wire.Set(faultnet.Faults{})
			ended := make(chan error, 1)
			c.stale <- func(ctx context.Context, x *carillon.Execution) {
				<-ctx.Done()
				ended <- context.Cause(ctx)
				assert.Equal(t, first.Token, x.Token)
				ctx = context.WithoutCancel(ctx)
				assert.ErrorIs(t, x.Progress(ctx, "stale"), carillon.ErrFenced)
				assert.ErrorIs(t, x.Checkpoint(ctx, "stale"), carillon.ErrFenced)
			}
			assert.ErrorIs(t, receive(t, ended, "it is told"), carillon.ErrLeaseLost)
			close(c.stale)
			eventually(t, "its outcome is refused", func() bool { return c.log.count("refused") == 1 })
			info = get(t, c.survivor, c.id)
			assert.Equal(t, carillon.StateRunning, info.State)
			assert.Equal(t, 2, info.Attempt)
			assert.Nil(t, info.Progress)

			close(c.release)
			info = await(t, c.survivor, c.id)
			assert.Equal(t, carillon.StateSucceeded, info.State)
			assert.JSONEq(t, `"second"`, string(info.Result))
			assert.Equal(t, []carillon.Outcome{carillon.OutcomeLost, carillon.OutcomeSucceeded}, outcomesOf(info))

			shutdown(t, c.survivor)
			again := await(t, c.doomed, submit(t, c.doomed, carillon.Job{Name: "job"}))
			assert.Equal(t, first.Instance, again.Attempts[len(again.Attempts)-1].Instance, "it works again")
			all, err := c.doomed.Instances(t.Context())
			require.NoError(t, err)
			if assert.Len(t, all, 1) {
				assert.True(t, all[0].Alive)
				assert.Equal(t, first.Instance, all[0].ID)
			}
		})
	})

	t.Run("its job runs elsewhere also while Redis is out of memory", func(t *testing.T) {
		server := singleServer(t)
		p := &place{rdb: server.Client(t), namespace: redistest.Namespace(t), real: true}
		c := crashing(t, p, time.Second, carillon.Job{})
		plan(t, c.survivor, carillon.Schedule{Name: "due all the time", Spec: carillon.Every(100 * time.Millisecond)})
		require.NoError(t, p.rdb.ConfigSet(t.Context(), "maxmemory", "1").Err())
		receive(t, c.second, "the second attempt")
		_, err := c.survivor.Submit(t.Context(), carillon.Job{Name: "job"})
		assert.ErrorIs(t, err, carillon.ErrUnavailable, "the server is not out of memory")
		close(c.release)
		close(c.stale)
		eventually(t, "its outcome is recorded", func() bool {
			info := get(t, c.survivor, c.id)
			return info.State == carillon.StateSucceeded
		})
		require.NoError(t, p.rdb.ConfigSet(t.Context(), "maxmemory", "0").Err())
		assert.Equal(t, 1, get(t, c.survivor, c.id).Losses)
	})

	t.Run("a job that loses three of them is dead", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			const ttl = time.Second
			watcher := p.run(t, nil, lease(ttl), queues(map[string]int{"other": 1}))
			id := submit(t, watcher, carillon.Job{Name: "killer", Retry: &carillon.Retry{MaxAttempts: 1}})
			release := make(chan struct{})
			doomed := map[*faultnet.Net]*carillon.Scheduler{}
			var starts atomic.Int32
			for range 3 {
				begun := make(chan struct{}, 9)
				rdb, wire := wireTo(t, p.rdb)
				doomed[wire] = p.run2(t, rdb, handlers{"killer": func(context.Context, *carillon.Execution) error {
					starts.Add(1)
					begun <- struct{}{}
					<-release
					return nil
				}}, lease(ttl))
				receive(t, begun, "an attempt")
				wire.Set(faultnet.Faults{Cut: true})
			}
			info := await(t, watcher, id)
			close(release)
			for wire, s := range doomed {
				heal(t, wire, s)
			}
			assert.Equal(t, carillon.StateFailed, info.State)
			assert.Equal(t, 3, info.Losses)
			assert.Zero(t, info.Failures)
			assert.Equal(t, []carillon.Outcome{"lost", "lost", "lost"}, outcomesOf(info))
			assert.EqualValues(t, 3, starts.Load())
		})
	})
}

func TestReadReplyIsLost(t *testing.T) {
	t.Run("the entries are taken up, without another attempt", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			rdb, wire := wireTo(t, p.rdb)
			var ran counter
			var lost atomic.Bool
			p.run2(t, rdb, handlers{"job": func(_ context.Context, x *carillon.Execution) error {
				ran.add(x.ID)
				return nil
			}})
			wire.Set(faultnet.Faults{Reply: func(_ []string, reply []byte) faultnet.Fate {
				if has(reply, "first-victim") && lost.CompareAndSwap(false, true) {
					return faultnet.HangUp
				}
				return faultnet.Pass
			}})
			producer := p.new(t, nil)
			submit(t, producer, carillon.Job{Name: "job", ID: "first-victim"})
			info := await(t, producer, "first-victim")
			assert.True(t, lost.Load(), "the reply was not lost")
			assert.Equal(t, carillon.StateSucceeded, info.State)
			assert.Equal(t, 1, info.Attempt)
			assert.Equal(t, 1, ran.of("first-victim"))
		})
	})
}

func TestInstanceCutOff(t *testing.T) {
	t.Run("stops jobs with a mutex before the lease lapses, and no others", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			const ttl = 3 * time.Second // a tenth of it is the margin
			rdb, wire := wireTo(t, p.rdb)
			begun := make(chan context.Context, 9)
			release := make(chan struct{})
			s := p.run2(t, rdb, handlers{
				"plain": func(ctx context.Context, _ *carillon.Execution) error {
					begun <- ctx
					<-release
					return ctx.Err()
				},
				"exclusive": func(ctx context.Context, x *carillon.Execution) error {
					if x.Attempt > 1 {
						return nil
					}
					begun <- ctx
					<-ctx.Done()
					return context.Cause(ctx)
				},
			}, lease(ttl))
			t.Cleanup(func() { heal(t, wire, s) })
			producer := p.new(t, nil)
			plain := submit(t, producer, carillon.Job{Name: "plain"})
			plainCtx := receive(t, begun, "the plain job")
			exclusive := submit(t, producer, carillon.Job{Name: "exclusive", Mutex: "m"})
			exclusiveCtx := receive(t, begun, "the job with a mutex")

			at := time.Now()
			wire.Set(faultnet.Faults{Cut: true})
			receive(t, exclusiveCtx.Done(), "the end of its context")
			assert.Less(t, time.Since(at), ttl, "another instance may have the mutex by now")
			assert.ErrorIs(t, context.Cause(exclusiveCtx), carillon.ErrLeaseLost)
			assert.NoError(t, plainCtx.Err())
			wire.Set(faultnet.Faults{})
			close(release)

			info := await(t, producer, plain)
			assert.Equal(t, carillon.StateSucceeded, info.State)
			assert.Equal(t, 1, info.Attempt)
			info = await(t, producer, exclusive)
			assert.Equal(t, carillon.StateSucceeded, info.State)
			assert.Zero(t, info.Failures)
			assert.Zero(t, info.Losses, "it gave the job back itself")
		})
	})
}

// Jobs that lost two workers start apart from each other, and a long one does not
// hold up the others for long.
func TestSuspectsTakeTurns(t *testing.T) {
	t.Parallel()
	realPlaces(t, func(t *testing.T, p *place) {
		const jobs = 3
		started, finish := make(chan struct{}, jobs), make(chan struct{})
		s := p.run(t, handlers{"long": func(ctx context.Context, _ *carillon.Execution) error {
			started <- struct{}{}
			select {
			case <-finish:
			case <-ctx.Done():
			}
			return nil
		}}, lease(time.Second))
		var ids []string
		for range jobs {
			id := submit(t, s, carillon.Job{Name: "long", Delay: 3 * time.Second})
			require.NoError(t, p.rdb.HSet(t.Context(), keyLike(t, p.rdb, p.namespace, ":j:"+id), "l", 2).Err())
			ids = append(ids, id)
		}
		for range jobs {
			receive(t, started, "it starts")
		}
		close(finish)
		var dispatched []time.Time
		for _, id := range ids {
			info := await(t, s, id)
			assert.Equal(t, carillon.StateSucceeded, info.State)
			assert.Equal(t, 2, info.Losses, "nothing was charged")
			dispatched = append(dispatched, last(t, info).DispatchedAt)
		}
		slices.SortFunc(dispatched, time.Time.Compare)
		for i := 1; i < jobs; i++ {
			assert.GreaterOrEqual(t, dispatched[i].Sub(dispatched[i-1]), 900*time.Millisecond, "they start apart")
		}
	})
}

// A handler may do what it likes to its Execution.
func TestHandlerThatWipesItsExecution(t *testing.T) {
	eachPlace(t, func(t *testing.T, p *place) {
		s := p.run(t, handlers{"wipe": func(_ context.Context, x *carillon.Execution) error {
			*x = carillon.Execution{}
			return errors.New("no")
		}})
		id := submit(t, s, carillon.Job{Name: "wipe", Retry: &carillon.Retry{MaxAttempts: 1}})
		eventually(t, "it ends", func() bool { return get(t, s, id).State.Final() })
		assert.Equal(t, carillon.StateFailed, get(t, s, id).State)
	})
}

// What a handler was given is not printed with its context.
func TestContextOfAHandlerShowsNoArguments(t *testing.T) {
	rdb, stop := embedded.Open()
	t.Cleanup(stop)
	p := &place{rdb: rdb, namespace: redistest.Namespace(t)}
	printed := make(chan string, 1)
	s := p.run(t, handlers{"print": func(ctx context.Context, x *carillon.Execution) error {
		assert.Equal(t, x, carillon.FromContext(ctx))
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		printed <- fmt.Sprintf("%v", ctx)
		return nil
	}})
	submit(t, s, carillon.Job{Name: "print", Args: "a secret", Headers: map[string]string{"key": "a secret"}})
	assert.NotContains(t, receive(t, printed, "the context is printed"), "secret")
}

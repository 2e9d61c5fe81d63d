package carillon_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/faultnet"
)

func TestCancel(t *testing.T) {
	t.Run("a job that does not run is over at once, in every state", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			z := newZoo(t, p)
			for _, state := range liveStates {
				if state == carillon.StateRunning {
					continue
				}
				id := z.ids[state]
				require.NoError(t, z.s.Cancel(t.Context(), id), state)
				info := get(t, z.s, id)
				assert.Equal(t, carillon.StateCancelled, info.State, state)
				assert.NotEmpty(t, info.Reason)
				assert.NotZero(t, info.FinishedAt)
				assert.ErrorIs(t, z.s.RunNow(t.Context(), id), carillon.ErrState)
			}
			n, err := z.s.Counts(t.Context())
			require.NoError(t, err)
			assert.Equal(t, 5, n.Cancelled)
			assert.Zero(t, n.Scheduled+n.Waiting+n.Queued, "something was left in its place: %+v", n)
			assert.Equal(t, []string{z.ids[carillon.StateRunning]}, listed(t, z.s, carillon.Filter{Tag: "zoo"}))

			for _, state := range finalStates {
				require.NoError(t, z.s.Cancel(t.Context(), z.ids[state]), "of a final job is no error")
				assert.Equal(t, state, get(t, z.s, z.ids[state]).State)
			}
			assert.ErrorIs(t, z.s.Cancel(t.Context(), "nobody"), carillon.ErrNotFound)
			z.gate.open()
			assert.Equal(t, carillon.StateSucceeded, await(t, z.s, z.ids[carillon.StateRunning]).State)
		})
	})

	t.Run("the context of a running job ends fast, with a cause", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			g := newGate()
			// Heartbeats every 20 s: what comes sooner came by the signal.
			s := p.run(t, handlers{"hold": g.run}, lease(time.Minute))
			from := p.new(t, nil)
			id := submit(t, from, carillon.Job{Name: "hold"})
			g.next(t)
			began := time.Now()
			require.NoError(t, from.Cancel(t.Context(), id))
			assert.ErrorIs(t, receive(t, g.stopped, "the end of its context"), carillon.ErrCancelled)
			assert.Less(t, time.Since(began), 15*time.Second)
			info := await(t, s, id)
			assert.Equal(t, carillon.StateCancelled, info.State)
			assert.Equal(t, []carillon.Outcome{carillon.OutcomeCancelled}, outcomesOf(info))
			assert.True(t, info.CancelRequested)
			assert.Zero(t, info.Failures)
			assert.Empty(t, g.started, "another attempt started")
		})
	})

	// loseSignals keeps a worker from hearing of cancelled jobs by messages.
	loseSignals := func(wire *faultnet.Net) (lost *atomic.Int32) {
		lost = new(atomic.Int32)
		wire.Set(faultnet.Faults{Reply: func(_ []string, reply []byte) faultnet.Fate {
			if has(reply, "message") && has(reply, "\r\nc ") {
				lost.Add(1)
				return faultnet.Swallow
			}
			return faultnet.Pass
		}})
		return lost
	}

	t.Run("a job whose worker does not hear of it in time is not tried again", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			g := newGate()
			rdb, wire := wireTo(t, p.rdb)
			loseSignals(wire)
			p.run2(t, rdb, handlers{"hold": g.run}, lease(5*time.Minute))
			from := p.new(t, nil)
			for _, result := range []error{errBoom, carillon.RetryAfter(0, errBoom), carillon.Snooze(0), carillon.Permanent(errBoom)} {
				id := submit(t, from, carillon.Job{Name: "hold", Retry: &carillon.Retry{Delays: []time.Duration{0}}})
				g.next(t)
				require.NoError(t, from.Cancel(t.Context(), id))
				g.pass <- result
				assert.Equal(t, carillon.StateCancelled, await(t, from, id).State, "%v", result)
			}
			id := submit(t, from, carillon.Job{Name: "hold"})
			g.next(t)
			require.NoError(t, from.Cancel(t.Context(), id))
			g.pass <- nil
			assert.Equal(t, carillon.StateSucceeded, await(t, from, id).State)
			assert.Empty(t, g.started)
		})
	})

	t.Run("within a heartbeat when the signal is lost", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			const ttl = 600 * time.Millisecond
			g := newGate()
			rdb, wire := wireTo(t, p.rdb)
			lost := loseSignals(wire)
			p.run2(t, rdb, handlers{"hold": g.run}, lease(ttl))
			from := p.new(t, nil)
			id := submit(t, from, carillon.Job{Name: "hold"})
			g.next(t)
			began := time.Now()
			require.NoError(t, from.Cancel(t.Context(), id))
			assert.ErrorIs(t, receive(t, g.stopped, "the end of its context"), carillon.ErrCancelled)
			assert.Less(t, time.Since(began), ttl/3+tardy)
			eventually(t, "the signal is lost", func() bool { return lost.Load() == 1 }) // it may be slower than the heartbeat
			assert.Equal(t, carillon.StateCancelled, await(t, from, id).State)
		})
	})

	// What a handler makes of the end of its context.
	for name, end := range map[string]struct {
		result error
		state  carillon.State
	}{
		"nil, has succeeded":                     {nil, carillon.StateSucceeded},
		"an error, is cancelled and not retried": {errBoom, carillon.StateCancelled},
		"RetryAfter, is cancelled all the same":  {carillon.RetryAfter(0, errBoom), carillon.StateCancelled},
		"Snooze, is cancelled all the same":      {carillon.Snooze(0), carillon.StateCancelled},
		"Permanent, is cancelled all the same":   {carillon.Permanent(errBoom), carillon.StateCancelled},
	} {
		t.Run("a running job that returns "+name, func(t *testing.T) {
			eachPlace(t, func(t *testing.T, p *place) {
				var ran counter
				begun := make(chan struct{}, 9)
				s := p.run(t, handlers{"job": func(ctx context.Context, x *carillon.Execution) error {
					ran.add(x.ID)
					begun <- struct{}{}
					<-ctx.Done()
					return end.result
				}})
				id := submit(t, s, carillon.Job{Name: "job", Mutex: "m"})
				receive(t, begun, "the attempt")
				require.NoError(t, s.Cancel(t.Context(), id))
				require.NoError(t, s.Cancel(t.Context(), id), "a second time")
				info := await(t, s, id)
				assert.Equal(t, end.state, info.State)
				assert.Equal(t, 1, ran.of(id))
				assert.Zero(t, info.Failures)
				n, err := s.Counts(t.Context())
				require.NoError(t, err)
				assert.Zero(t, n.Scheduled+n.Waiting+n.Queued+n.Running)
			})
		})
	}

	t.Run("one that ignores its context keeps its slot until it returns", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			begun, release := make(chan context.Context, 1), make(chan struct{})
			s := p.run(t, handlers{"deaf": func(ctx context.Context, _ *carillon.Execution) error {
				begun <- ctx
				<-release
				return errBoom
			}})
			id := submit(t, s, carillon.Job{Name: "deaf"})
			ctx := receive(t, begun, "the attempt")
			require.NoError(t, s.Cancel(t.Context(), id))
			receive(t, ctx.Done(), "the end of its context")
			info := get(t, s, id)
			assert.Equal(t, carillon.StateRunning, info.State)
			assert.True(t, info.CancelRequested)
			close(release)
			assert.Equal(t, carillon.StateCancelled, await(t, s, id).State)
		})
	})

	t.Run("no attempt starts afterwards", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			// Jobs that never stop by themselves, cancelled at any moment.
			var attempts counter
			again := func(_ context.Context, x *carillon.Execution) error {
				attempts.add(x.ID)
				return errBoom
			}
			s := p.run(t, handlers{"again": again, "ok": succeed}, concurrency(4))
			p.run(t, handlers{"again": again, "ok": succeed}, concurrency(4))
			jobs := make([]carillon.Job, 40)
			for i := range jobs {
				jobs[i] = carillon.Job{Name: "again", Retry: &carillon.Retry{MaxAttempts: 10_000, Delays: []time.Duration{0}}}
				if i%2 == 0 {
					jobs[i].Mutex = fmt.Sprint("m", i%3)
				}
			}
			ids := submitAll(t, s, jobs)
			var wg sync.WaitGroup
			for _, id := range ids {
				wg.Go(func() { assert.NoError(t, s.Cancel(t.Context(), id)) })
			}
			wg.Wait()
			for _, info := range awaitAll(t, s, ids) {
				assert.Equal(t, carillon.StateCancelled, info.State)
			}
			seen := attempts.all()
			// Whatever was still on its way to a worker comes before these.
			var after []carillon.Job
			for range 40 {
				after = append(after, carillon.Job{Name: "ok", Priority: carillon.Low})
			}
			awaitAll(t, s, submitAll(t, s, after))
			assert.Equal(t, seen, attempts.all())
			for _, id := range ids {
				info := get(t, s, id)
				assert.LessOrEqual(t, seen[id], info.Attempt)
			}
			n, err := s.Counts(t.Context())
			require.NoError(t, err)
			assert.Zero(t, n.Scheduled+n.Waiting+n.Queued+n.Running)
		})
	})

	t.Run("a job behind a full worker never starts", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			g := newGate()
			s := p.run(t, handlers{"hold": g.run}, concurrency(1), lease(time.Minute))
			first := submit(t, s, carillon.Job{Name: "hold"})
			g.next(t)
			second := submit(t, s, carillon.Job{Name: "hold"})
			require.NoError(t, s.Cancel(t.Context(), second))
			assert.Equal(t, carillon.StateCancelled, await(t, s, second).State)
			g.pass <- nil
			assert.Equal(t, carillon.StateSucceeded, await(t, s, first).State)
			assert.Empty(t, g.started)
		})
	})

	t.Run("the signal may overtake the job on its way to the worker", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			g := newGate()
			rdb, wire := wireTo(t, p.rdb)
			delivered, signalled, arrive := make(chan struct{}), make(chan struct{}), make(chan struct{})
			var once, twice sync.Once
			wire.Set(faultnet.Faults{Reply: func(_ []string, reply []byte) faultnet.Fate {
				switch {
				case !has(reply, "victim"):
				case has(reply, "message"):
					twice.Do(func() { close(signalled) })
				default:
					once.Do(func() { close(delivered) })
					<-arrive
				}
				return faultnet.Pass
			}})
			p.run2(t, rdb, handlers{"hold": g.run}, lease(5*time.Minute)) // heartbeats do not help
			resume := sync.OnceFunc(func() { close(arrive) })
			t.Cleanup(resume)
			from := p.new(t, nil)
			submit(t, from, carillon.Job{Name: "hold", ID: "victim"})
			receive(t, delivered, "the delivery")
			eventually(t, "the signal", func() bool { // lost as long as nobody listens
				require.NoError(t, from.Cancel(t.Context(), "victim"))
				select {
				case <-signalled:
					return true
				default:
					return false
				}
			})
			resume()
			assert.Equal(t, carillon.StateCancelled, await(t, from, "victim").State)
		})
	})
}

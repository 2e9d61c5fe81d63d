package carillon_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/faultnet"
)

func TestMutex(t *testing.T) {
	t.Run("at most one runs", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			var inside [3]atomic.Int32
			var mu sync.Mutex
			tokens := map[string][]uint64{}
			work := func(_ context.Context, x *carillon.Execution) error {
				var i int
				if err := x.Decode(&i); err != nil {
					return err
				}
				assert.EqualValues(t, 1, inside[i].Add(1), "two at once")
				mu.Lock()
				tokens[x.Headers["m"]] = append(tokens[x.Headers["m"]], x.MutexToken)
				mu.Unlock()
				<-time.After(time.Duration(i) * time.Millisecond) // others could come in
				inside[i].Add(-1)
				if x.Attempt == 1 && i == 1 {
					return carillon.RetryAfter(0, errBoom)
				}
				return nil
			}
			qs := queues(map[string]int{"default": 8, "other": 8})
			s := p.run(t, handlers{"job": work}, qs)
			p.run(t, handlers{"job": work}, qs)
			var jobs []carillon.Job
			const each = 15
			for n := range each * len(inside) {
				m := fmt.Sprint("mutex ", n%len(inside))
				jobs = append(jobs, carillon.Job{
					Name: "job", Args: n % len(inside), Mutex: m, Headers: map[string]string{"m": m},
					Priority: carillon.Priority(n%4 - 1), Queue: []string{"default", "other"}[n%2],
					Delay: time.Duration(n%5) * 5 * time.Millisecond,
				})
			}
			for _, info := range awaitAll(t, s, submitAll(t, s, jobs)) {
				assert.Equal(t, carillon.StateSucceeded, info.State)
			}
			for m, seen := range tokens {
				assert.GreaterOrEqual(t, len(seen), each)
				for i := 1; i < len(seen); i++ {
					assert.Greater(t, seen[i], seen[i-1], "%s: a holder whose token does not grow", m)
				}
			}
		})
	})

	t.Run("the others wait in order, without a slot", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			g := newGate()
			s := p.run(t, handlers{"hold": g.run, "free": succeed}, concurrency(2))
			job := carillon.Job{Name: "hold", Mutex: "m"}
			var ids []string
			for i := range 6 {
				// Who waits longer goes first, whatever the priority.
				job.Priority = carillon.Priority(i%4 - 1)
				ids = append(ids, submit(t, s, job))
			}
			assert.Equal(t, ids[0], g.next(t).ID)
			for _, id := range ids[1:] {
				assert.Equal(t, carillon.StateWaiting, get(t, s, id).State)
			}
			free := submit(t, s, carillon.Job{Name: "free"})
			assert.Equal(t, carillon.StateSucceeded, await(t, s, free).State, "those who wait hold the slots")
			for i, id := range ids {
				if i > 0 {
					require.Equal(t, id, g.next(t).ID, "number %d", i)
				}
				assert.Empty(t, g.started)
				g.pass <- nil
				assert.Equal(t, carillon.StateSucceeded, await(t, s, id).State)
			}
		})
	})

	t.Run("a delayed job queues up when it is due", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			g := newGate()
			s := p.run(t, handlers{"hold": g.run})
			delayed := submit(t, s, carillon.Job{Name: "hold", Mutex: "m", Delay: time.Hour})
			first := submit(t, s, carillon.Job{Name: "hold", Mutex: "m"})
			assert.Equal(t, first, g.next(t).ID, "a job that is not due held it")
			require.NoError(t, s.RunNow(t.Context(), delayed))
			inState(t, s, delayed, carillon.StateWaiting)
			third := submit(t, s, carillon.Job{Name: "hold", Mutex: "m"})
			g.pass <- nil
			assert.Equal(t, delayed, g.next(t).ID)
			g.pass <- nil
			assert.Equal(t, third, g.next(t).ID)
			g.open()
			await(t, s, third)
		})
	})

	// Whatever ends a holder's attempt, the next one gets the mutex.
	for name, outcome := range map[string]error{
		"a retry":          carillon.RetryAfter(time.Hour, errBoom),
		"a snooze":         carillon.Snooze(time.Hour),
		"a failure":        carillon.Permanent(errBoom),
		"a retry at once":  carillon.RetryAfter(0, errBoom),
		"a snooze of zero": carillon.Snooze(0),
	} {
		t.Run(name+" passes it on", func(t *testing.T) {
			eachPlace(t, func(t *testing.T, p *place) {
				g := newGate()
				s := p.run(t, handlers{"hold": g.run})
				first := submit(t, s, carillon.Job{Name: "hold", Mutex: "m"})
				holder := g.next(t)
				second := submit(t, s, carillon.Job{Name: "hold", Mutex: "m"})
				g.pass <- outcome
				next := g.next(t)
				assert.Equal(t, second, next.ID, "the first one cut in")
				assert.Greater(t, next.MutexToken, holder.MutexToken)
				g.open()
				assert.Equal(t, carillon.StateSucceeded, await(t, s, second).State)
				_ = s.RunNow(t.Context(), first) // where it was put off
				if name == "a failure" {
					require.NoError(t, s.Retry(t.Context(), first))
				}
				again := g.next(t)
				assert.Equal(t, first, again.ID)
				assert.Greater(t, again.MutexToken, next.MutexToken)
				await(t, s, first)
			})
		})
	}

	t.Run("cancelling passes it on, wherever the job is", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			g := newGate()
			s := p.new(t, handlers{"hold": g.run})
			job := carillon.Job{Name: "hold", Mutex: "m"}
			var ids []string
			for range 5 {
				ids = append(ids, submit(t, s, job))
			}
			require.NoError(t, s.Cancel(t.Context(), ids[0])) // queued: it holds the mutex
			require.NoError(t, s.Cancel(t.Context(), ids[2])) // waiting
			start(t, s)
			require.Equal(t, ids[1], g.next(t).ID)
			require.NoError(t, s.Cancel(t.Context(), ids[1])) // running
			assert.ErrorIs(t, receive(t, g.stopped, "the end of its context"), carillon.ErrCancelled)
			require.Equal(t, ids[3], g.next(t).ID)
			g.open()
			states := []carillon.State{"cancelled", "cancelled", "cancelled", "succeeded", "succeeded"}
			for i, info := range awaitAll(t, s, ids) {
				assert.Equal(t, states[i], info.State, "number %d", i)
			}
		})
	})

	t.Run("an expired job passes it on", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.new(t, handlers{"job": succeed})
			var ids []string
			for range 3 {
				ids = append(ids, submit(t, s, carillon.Job{Name: "job", Mutex: "m", ExpiresAt: time.Unix(1, 0)}))
			}
			ids = append(ids, submit(t, s, carillon.Job{Name: "job", Mutex: "m"}))
			start(t, s)
			infos := awaitAll(t, s, ids)
			for _, info := range infos[:3] {
				assert.Equal(t, carillon.StateExpired, info.State)
			}
			assert.Equal(t, carillon.StateSucceeded, infos[3].State)
		})
	})

	t.Run("a newcomer cannot cut in while it changes hands", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			g := newGate()
			rdb, wire := wireTo(t, p.rdb)
			p.run2(t, rdb, handlers{"hold": g.run}, lease(time.Minute))
			from := p.new(t, nil)
			job := carillon.Job{Name: "hold", Mutex: "m"}
			first := submit(t, from, job)
			g.next(t)
			second := submit(t, from, job)
			// The worker gives the mutex back and does not hear that it did, so
			// it cannot hand it on.
			hear := make(chan struct{})
			resume := sync.OnceFunc(func() { close(hear) })
			t.Cleanup(resume)
			wire.Set(faultnet.Faults{Reply: func(sent []string, reply []byte) faultnet.Fate {
				all := strings.Join(sent, " ")
				if strings.Contains(all, ":cancels ") && strings.Contains(all, ":h:s ") && !has(reply, "noscript") {
					<-hear
				}
				return faultnet.Pass
			}})
			g.pass <- nil
			inState(t, from, first, carillon.StateSucceeded)
			third := submit(t, from, job)
			assert.Equal(t, carillon.StateWaiting, get(t, from, third).State)
			resume()
			for _, id := range []string{second, third} {
				assert.Equal(t, id, g.next(t).ID)
				g.pass <- nil
				await(t, from, id)
			}
		})
	})

	t.Run("a lost holder runs again first, under a larger token", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			const ttl = 2 * time.Second
			stuck, g := newGate(), newGate()
			rdb, wire := wireTo(t, p.rdb)
			doomed := p.run2(t, rdb, handlers{"hold": stuck.run}, lease(ttl))
			t.Cleanup(func() { heal(t, wire, doomed) })
			first := submit(t, doomed, carillon.Job{Name: "hold", Mutex: "m"})
			lost := stuck.next(t)
			wire.Set(faultnet.Faults{Cut: true})
			s := p.run(t, handlers{"hold": g.run}, lease(ttl))
			second := submit(t, s, carillon.Job{Name: "hold", Mutex: "m"})
			assert.ErrorIs(t, receive(t, stuck.stopped, "the lost holder hears of it"), carillon.ErrLeaseLost)
			again := g.next(t)
			assert.Equal(t, first, again.ID, "both held it")
			assert.Equal(t, 1, again.Losses)
			assert.Greater(t, again.MutexToken, lost.MutexToken)
			g.pass <- nil
			next := g.next(t)
			assert.Equal(t, second, next.ID)
			assert.Greater(t, next.MutexToken, again.MutexToken)
			g.open()
			await(t, s, second)
		})
	})

	t.Run("a holder that is cancelled while its worker is lost passes it on", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			const ttl = 2 * time.Second
			stuck, g := newGate(), newGate()
			rdb, wire := wireTo(t, p.rdb)
			doomed := p.run2(t, rdb, handlers{"hold": stuck.run}, lease(ttl))
			t.Cleanup(func() { heal(t, wire, doomed) })
			first := submit(t, doomed, carillon.Job{Name: "hold", Mutex: "m"})
			stuck.next(t)
			wire.Set(faultnet.Faults{Cut: true})
			s := p.run(t, handlers{"hold": g.run}, lease(ttl))
			require.NoError(t, s.Cancel(t.Context(), first))
			second := submit(t, s, carillon.Job{Name: "hold", Mutex: "m"})
			assert.Equal(t, second, g.next(t).ID)
			assert.Equal(t, carillon.StateCancelled, await(t, s, first).State)
			g.open()
			await(t, s, second)
		})
	})

	t.Run("keeps its order over a shutdown", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			stuck, g := newGate(), newGate()
			s := p.run(t, handlers{"hold": stuck.run}, func(c *carillon.Config) { c.ShutdownTimeout = 10 * time.Millisecond })
			first := submit(t, s, carillon.Job{Name: "hold", Mutex: "m"})
			held := stuck.next(t)
			second := submit(t, s, carillon.Job{Name: "hold", Mutex: "m"})
			shutdown(t, s)
			assert.ErrorIs(t, receive(t, stuck.stopped, "the end of its context"), carillon.ErrShutdown)
			s = p.run(t, handlers{"hold": g.run})
			again := g.next(t)
			assert.Equal(t, first, again.ID)
			assert.Zero(t, again.Failures+again.Losses)
			assert.Greater(t, again.MutexToken, held.MutexToken)
			g.open()
			assert.Equal(t, second, g.next(t).ID)
			await(t, s, second)
		})
	})
}

package carillon_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
)

// delays makes a job fail n times and returns the delays that were planned. It
// does not wait for them.
func delays(t *testing.T, s *carillon.Scheduler, job carillon.Job, n int) []time.Duration {
	t.Helper()
	id := submit(t, s, job)
	var planned []time.Duration
	for i := range n {
		var info *carillon.JobInfo
		eventually(t, fmt.Sprintf("failure %d", i+1), func() bool {
			info = get(t, s, id)
			return info.Failures == i+1
		})
		require.Equal(t, carillon.StateRetrying, info.State)
		planned = append(planned, info.DueAt.Sub(last(t, info).FinishedAt))
		require.NoError(t, s.RunNow(t.Context(), id))
	}
	return planned
}

func TestRetry(t *testing.T) {
	const h = time.Hour

	t.Run("exponential without jitter doubles up to its cap", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"bad": goesWrong})
			policy := &carillon.Retry{Initial: h, Max: 10 * h, NoJitter: true}
			assert.Equal(t, []time.Duration{h, 2 * h, 4 * h, 8 * h, 10 * h, 10 * h},
				delays(t, s, carillon.Job{Name: "bad", Retry: policy}, 6))
			policy = &carillon.Retry{Initial: h, Factor: 3, Max: 20 * h, NoJitter: true}
			assert.Equal(t, []time.Duration{h, 3 * h, 9 * h, 20 * h},
				delays(t, s, carillon.Job{Name: "bad", Retry: policy}, 4))
		})
	})

	t.Run("full jitter spreads evenly below the bound", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"bad": goesWrong})
			jobs := make([]carillon.Job, 60)
			for i := range jobs {
				jobs[i] = carillon.Job{Name: "bad", Retry: &carillon.Retry{Initial: 30 * h}}
			}
			var thirds [3]int
			for _, id := range submitAll(t, s, jobs) {
				info := inState(t, s, id, carillon.StateRetrying)
				d := info.DueAt.Sub(last(t, info).FinishedAt)
				require.GreaterOrEqual(t, d, time.Duration(0))
				require.LessOrEqual(t, d, 30*h)
				thirds[min(2, d/(10*h))]++
			}
			for i, n := range thirds { // fewer in one of 10^7 runs
				assert.GreaterOrEqual(t, n, 4, "third %d of %v", i, thirds)
			}
		})
	})

	t.Run("a list of delays is used as it is, the last one again and again", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"bad": goesWrong})
			list := []time.Duration{time.Minute, 5 * time.Minute, 10 * time.Minute}
			assert.Equal(t, append(list, list[2], list[2]),
				delays(t, s, carillon.Job{Name: "bad", Retry: &carillon.Retry{Delays: list}}, 5))
		})
	})

	t.Run("a function gets the failures and the error", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.new(t, nil)
			backoff := func(failures int, err error) time.Duration {
				if !errors.Is(err, errBoom) {
					return 0
				}
				return time.Duration(failures*failures) * h
			}
			require.NoError(t, s.HandleWith("bad", carillon.HandlerFunc(goesWrong), carillon.HandlerConfig{
				Retry: &carillon.Retry{Backoff: backoff},
			}))
			require.NoError(t, s.HandleWith("worse", carillon.HandlerFunc(goesWrong), carillon.HandlerConfig{
				Retry: &carillon.Retry{Backoff: func(int, error) time.Duration { panic("in backoff") }},
			}))
			start(t, s)
			assert.Equal(t, []time.Duration{h, 4 * h, 9 * h}, delays(t, s, carillon.Job{Name: "bad"}, 3))
			id := submit(t, s, carillon.Job{Name: "worse"})
			eventually(t, "it is tried again all the same", func() bool { return get(t, s, id).Attempt > 1 })
			require.NoError(t, s.Cancel(t.Context(), id))
		})
	})

	t.Run("MaxAttempts bounds the failures, ten by default", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"bad": goesWrong})
			for limit, want := range map[int]int{1: 1, 3: 3, 0: 10} {
				info := await(t, s, submit(t, s, carillon.Job{
					Name: "bad", Retry: &carillon.Retry{MaxAttempts: limit, Delays: []time.Duration{0}},
				}))
				assert.Equal(t, carillon.StateFailed, info.State)
				assert.Equal(t, want, info.Attempt)
				assert.Equal(t, want, info.Failures)
				require.Len(t, info.Attempts, want)
				for i, a := range info.Attempts {
					assert.Equal(t, i+1, a.Number)
					assert.Equal(t, "boom", a.Error)
					assert.Equal(t, i+1 < want, a.Outcome == carillon.OutcomeRetrying)
					assert.True(t, i == 0 || a.Token > info.Attempts[i-1].Token, "tokens grow")
				}
			}
		})
	})

	t.Run("the attempts before are told to the handler", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			g := newGate()
			s := p.run(t, handlers{"hold": g.run})
			id := submit(t, s, carillon.Job{Name: "hold", Retry: &carillon.Retry{Delays: []time.Duration{0}}})
			for i, result := range []error{errBoom, carillon.Snooze(0), errBoom, nil} {
				x := g.next(t)
				assert.Equal(t, i+1, x.Attempt)
				assert.Equal(t, []int{0, 1, 1, 2}[i], x.Failures)
				assert.Zero(t, x.Losses)
				g.pass <- result
			}
			info := await(t, s, id)
			assert.Equal(t, carillon.StateSucceeded, info.State)
			assert.Equal(t, []carillon.Outcome{"retrying", "snoozed", "retrying", "succeeded"}, outcomesOf(info))
		})
	})

	t.Run("Permanent ends it at once, also wrapped", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{
				"bad": func(_ context.Context, x *carillon.Execution) error {
					return fmt.Errorf("in %s: %w", x.Name, carillon.Permanent(errBoom))
				},
				"fine": func(context.Context, *carillon.Execution) error { return carillon.Permanent(nil) },
			})
			info := await(t, s, submit(t, s, carillon.Job{Name: "bad"}))
			assert.Equal(t, carillon.StateFailed, info.State)
			assert.Equal(t, []carillon.Outcome{"failed"}, outcomesOf(info))
			assert.Equal(t, 1, info.Failures)
			assert.Equal(t, "in bad: boom", last(t, info).Error)
			assert.Equal(t, carillon.StateSucceeded, await(t, s, submit(t, s, carillon.Job{Name: "fine"})).State)
		})
	})

	t.Run("RetryAfter replaces the delay and is charged", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"later": later})
			job := carillon.Job{Name: "later", ID: "one", Retry: &carillon.Retry{MaxAttempts: 3, Delays: []time.Duration{9 * h}}}
			assert.Equal(t, []time.Duration{h, h}, delays(t, s, job, 2))
			info := await(t, s, "one")
			assert.Equal(t, carillon.StateFailed, info.State)
			assert.Equal(t, 3, info.Failures)
		})
	})

	t.Run("Snooze puts off without a charge", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			g := newGate()
			s := p.run(t, handlers{"hold": g.run})
			id := submit(t, s, carillon.Job{Name: "hold", Retry: &carillon.Retry{MaxAttempts: 1}})
			for range 3 {
				g.next(t)
				g.pass <- fmt.Errorf("not yet: %w", carillon.Snooze(h))
				info := inState(t, s, id, carillon.StateScheduled)
				assert.Equal(t, h, info.DueAt.Sub(last(t, info).FinishedAt))
				assert.Equal(t, carillon.OutcomeSnoozed, last(t, info).Outcome)
				assert.Zero(t, info.Failures)
				require.NoError(t, s.RunNow(t.Context(), id))
			}
			g.next(t)
			g.pass <- errBoom
			assert.Equal(t, carillon.StateFailed, await(t, s, id).State, "the one attempt it had")
		})
	})

	t.Run("of the job beats the handler's, which beats the scheduler's, as a whole", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.new(t, nil, func(c *carillon.Config) {
				c.Retry = carillon.Retry{MaxAttempts: 2, Initial: 3 * h, NoJitter: true}
			})
			require.NoError(t, s.Handle("plain", carillon.HandlerFunc(goesWrong)))
			require.NoError(t, s.HandleWith("own", carillon.HandlerFunc(goesWrong), carillon.HandlerConfig{
				Retry: &carillon.Retry{Initial: 2 * h, Max: 99 * h, NoJitter: true},
			}))
			start(t, s)
			job := &carillon.Retry{Initial: h, Max: 99 * h, NoJitter: true}
			assert.Equal(t, []time.Duration{3 * h}, delays(t, s, carillon.Job{Name: "plain"}, 1))
			// Three failures: MaxAttempts of the scheduler is not mixed in.
			assert.Equal(t, []time.Duration{2 * h, 4 * h, 8 * h}, delays(t, s, carillon.Job{Name: "own"}, 3))
			assert.Equal(t, []time.Duration{h, 2 * h, 4 * h}, delays(t, s, carillon.Job{Name: "own", Retry: job}, 3))
		})
	})
}

func TestPanic(t *testing.T) {
	t.Run("is a failure with its stack, and harms no other job", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			g := newGate()
			s := p.run(t, handlers{
				"hold": g.run,
				"panic": func(_ context.Context, x *carillon.Execution) error {
					if x.Attempt == 1 {
						panic("ouch")
					}
					return nil
				},
				"nil": func(context.Context, *carillon.Execution) error {
					var m map[string]int
					m["x"]++ //nolint:govet,staticcheck // the panic is what the case is about
					return nil
				},
			})
			other := submit(t, s, carillon.Job{Name: "hold"})
			g.next(t)
			info := await(t, s, submit(t, s, carillon.Job{Name: "panic", Retry: &carillon.Retry{Delays: []time.Duration{0}}}))
			assert.Equal(t, carillon.StateSucceeded, info.State)
			require.Len(t, info.Attempts, 2)
			assert.Contains(t, info.Attempts[0].Error, "panic: ouch")
			assert.Contains(t, info.Attempts[0].Error, "retry_test.go")
			info = await(t, s, submit(t, s, carillon.Job{Name: "nil", Retry: &carillon.Retry{MaxAttempts: 1}}))
			assert.Equal(t, carillon.StateFailed, info.State)
			assert.Contains(t, last(t, info).Error, "nil map")
			g.open()
			assert.Equal(t, carillon.StateSucceeded, await(t, s, other).State)
		})
	})

	t.Run("so is a handler that ends its goroutine, and its slot comes back", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"exit": func(_ context.Context, x *carillon.Execution) error {
				if x.Attempt < 3 {
					runtime.Goexit()
				}
				return nil
			}}, concurrency(1))
			info := await(t, s, submit(t, s, carillon.Job{Name: "exit", Retry: &carillon.Retry{Delays: []time.Duration{0}}}))
			assert.Equal(t, carillon.StateSucceeded, info.State)
			assert.Equal(t, []carillon.Outcome{"retrying", "retrying", "succeeded"}, outcomesOf(info))
			assert.Contains(t, info.Attempts[0].Error, "ended its goroutine")
		})
	})
}

func TestRetryOfDeadJobs(t *testing.T) {
	once := &carillon.Retry{MaxAttempts: 2, Delays: []time.Duration{0}}

	t.Run("gives a new life with all attempts", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"bad": goesWrong})
			id := submit(t, s, carillon.Job{Name: "bad", Retry: once, Retain: time.Hour})
			for life := 1; life <= 3; life++ {
				info := await(t, s, id)
				assert.Equal(t, carillon.StateFailed, info.State)
				assert.Equal(t, 2, info.Failures, "of this life")
				assert.Equal(t, 2*life, info.Attempt)
				assert.Len(t, info.Attempts, 2*life)
				assert.Equal(t, []string{id}, listed(t, s, carillon.Filter{States: []carillon.State{carillon.StateFailed}}))
				n, err := s.Counts(t.Context())
				require.NoError(t, err)
				assert.Equal(t, 1, n.Failed)
				require.NoError(t, s.Retry(t.Context(), id))
			}
			await(t, s, id)
		})
	})

	t.Run("is for those that are final and did not succeed", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			z := newZoo(t, p)
			for state, id := range z.ids {
				err := z.s.Retry(t.Context(), id)
				switch state {
				case carillon.StateFailed, carillon.StateCancelled, carillon.StateExpired:
					assert.NoError(t, err, state)
				default:
					assert.ErrorIs(t, err, carillon.ErrState, state)
					assert.Equal(t, state, get(t, z.s, id).State)
				}
			}
			assert.ErrorIs(t, z.s.Retry(t.Context(), "nobody"), carillon.ErrNotFound)
			info := await(t, z.s, z.ids[carillon.StateCancelled])
			assert.Equal(t, carillon.StateSucceeded, info.State)
			assert.False(t, info.CancelRequested, "the old request is forgotten")
			assert.Empty(t, info.Reason)
			z.gate.open()
			awaitAll(t, z.s, []string{z.ids[carillon.StateRunning], z.ids[carillon.StateWaiting]})
		})
	})

	t.Run("RetryAll takes those that match", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"bad": goesWrong, "worse": goesWrong}, queues(map[string]int{"default": 9, "side": 9}))
			one := &carillon.Retry{MaxAttempts: 1}
			ids := submitAll(t, s, []carillon.Job{
				{Name: "bad", Retry: one},
				{Name: "bad", Retry: one, Queue: "side"},
				{Name: "worse", Retry: one, Tags: []string{"u1", "u2"}},
				{Name: "worse", Retry: one, Tags: []string{"u2"}},
			})
			cancelled := submit(t, s, carillon.Job{Name: "bad", Delay: time.Hour})
			require.NoError(t, s.Cancel(t.Context(), cancelled))
			lives := []int{1, 1, 1, 1}
			for _, step := range []struct {
				filter carillon.Filter
				which  []int
			}{
				{carillon.Filter{Queue: "side"}, []int{1}},
				{carillon.Filter{Name: "worse"}, []int{2, 3}},
				{carillon.Filter{Tag: "u1"}, []int{2}},
				{carillon.Filter{Tag: "u2", Name: "bad"}, nil},
				{carillon.Filter{States: []carillon.State{carillon.StateCancelled}}, []int{0, 1, 2, 3}},
			} {
				awaitAll(t, s, ids)
				n, err := s.RetryAll(t.Context(), step.filter)
				require.NoError(t, err)
				assert.Equal(t, len(step.which), n, "%+v", step.filter)
				for _, i := range step.which {
					lives[i]++
				}
				for i, info := range awaitAll(t, s, ids) {
					assert.Equal(t, lives[i], info.Attempt, "job %d after %+v", i, step.filter)
				}
			}
			assert.Equal(t, carillon.StateCancelled, get(t, s, cancelled).State)
		})
	})

	t.Run("RetryAll takes more than a page", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"bad": goesWrong}, concurrency(64))
			jobs := slices.Repeat([]carillon.Job{{Name: "bad", Retry: &carillon.Retry{MaxAttempts: 1}}}, 120)
			ids := submitAll(t, s, jobs)
			awaitAll(t, s, ids)
			n, err := s.RetryAll(t.Context(), carillon.Filter{})
			require.NoError(t, err)
			assert.Equal(t, len(jobs), n)
			for _, info := range awaitAll(t, s, ids) {
				assert.Equal(t, 2, info.Attempt)
			}
		})
	})
}

package carillon_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
)

// tardy is how late something may be on a busy machine.
const tardy = 5 * time.Second

func TestDelay(t *testing.T) {
	t.Run("counts from the moment Redis accepts the job", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"job": succeed})
			const delay = 200 * time.Millisecond
			id := submit(t, s, carillon.Job{Name: "job", Delay: delay})
			info := get(t, s, id)
			if info.State == carillon.StateScheduled { // or this machine is very slow
				assert.Equal(t, info.SubmittedAt.Add(delay), info.DueAt)
			}
			info = await(t, s, id)
			require.Equal(t, carillon.StateSucceeded, info.State)
			waited := info.Attempts[0].DispatchedAt.Sub(info.SubmittedAt)
			assert.GreaterOrEqual(t, waited, delay)
			assert.Less(t, waited, delay+tardy)
			assert.Zero(t, info.DueAt)
		})
	})

	t.Run("jobs start in the order of their times, not of their submission", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			var d diary
			p.segments = 1
			s := p.new(t, handlers{"job": d.run}, concurrency(1))
			at := p.redisNow(t).Add(150 * time.Millisecond)
			third := submit(t, s, carillon.Job{Name: "job", RunAt: at.Add(20 * time.Millisecond)})
			second := submit(t, s, carillon.Job{Name: "job", RunAt: at.Add(10 * time.Millisecond)})
			first := submit(t, s, carillon.Job{Name: "job", RunAt: at})
			start(t, s)
			awaitAll(t, s, []string{first, second, third})
			assert.Equal(t, []string{first, second, third}, d.ids())
		})
	})
}

func TestRunAt(t *testing.T) {
	t.Run("is never early by Redis' clock", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"job": succeed})
			base := p.redisNow(t)
			var ids []string
			var at []time.Time
			for i := range 20 {
				// Fractions of a millisecond must be rounded up.
				at = append(at, base.Add(100*time.Millisecond+time.Duration(i)*7777*time.Microsecond))
				ids = append(ids, submit(t, s, carillon.Job{Name: "job", RunAt: at[i]}))
			}
			for i, info := range awaitAll(t, s, ids) {
				assert.False(t, info.Attempts[0].DispatchedAt.Before(at[i]), "%v early", at[i].Sub(info.Attempts[0].DispatchedAt))
				assert.WithinDuration(t, at[i], info.Attempts[0].DispatchedAt, tardy)
			}
		})
	})

	t.Run("in the past runs at once", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"job": succeed})
			info := await(t, s, submit(t, s, carillon.Job{Name: "job", RunAt: p.redisNow(t).Add(-time.Hour)}))
			assert.Equal(t, carillon.StateSucceeded, info.State)
		})
	})
}

func TestExpiresAt(t *testing.T) {
	t.Run("a job that was not started by then is expired and never runs", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			var ran counter
			s := p.new(t, handlers{"job": func(_ context.Context, x *carillon.Execution) error {
				ran.add(x.ID)
				return nil
			}})
			end := p.redisNow(t).Add(50 * time.Millisecond)
			job := carillon.Job{Name: "job", ExpiresAt: end}
			ids := []string{submit(t, s, job)}
			job.Mutex = "m"
			ids = append(ids, submit(t, s, job), submit(t, s, job))
			intime := submit(t, s, carillon.Job{Name: "job", ExpiresAt: end.Add(time.Hour)})
			eventually(t, "time passes", func() bool { return p.redisNow(t).After(end) })
			start(t, s)
			for _, info := range awaitAll(t, s, ids) {
				assert.Equal(t, carillon.StateExpired, info.State)
				assert.Equal(t, []carillon.Outcome{carillon.OutcomeExpired}, outcomesOf(info))
				assert.WithinDuration(t, end, info.ExpiresAt, time.Millisecond)
				assert.Zero(t, ran.of(info.ID))
			}
			assert.Equal(t, carillon.StateSucceeded, await(t, s, intime).State)
		})
	})

	t.Run("a retry after it is not made", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			g := newGate()
			s := p.run(t, handlers{"job": g.run})
			end := p.redisNow(t).Add(3 * time.Second) // by then it has started
			id := submit(t, s, carillon.Job{Name: "job", ExpiresAt: end})
			g.next(t)
			eventually(t, "time passes", func() bool { return p.redisNow(t).After(end) })
			g.pass <- carillon.RetryAfter(0, errBoom)
			info := await(t, s, id)
			assert.Equal(t, carillon.StateExpired, info.State)
			assert.Equal(t, []carillon.Outcome{carillon.OutcomeRetrying, carillon.OutcomeExpired}, outcomesOf(info))
		})
	})
}

func TestTimeout(t *testing.T) {
	// untilStopped waits for the end of its context and tells why it ended.
	untilStopped := func(causes chan<- error) carillon.HandlerFunc {
		return func(ctx context.Context, _ *carillon.Execution) error {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return ctx.Err()
		}
	}

	t.Run("ends the context with a cause, as a failure", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			causes := make(chan error, 9)
			s := p.run(t, handlers{"job": untilStopped(causes)})
			id := submit(t, s, carillon.Job{
				Name: "job", Timeout: 30 * time.Millisecond, Retry: &carillon.Retry{MaxAttempts: 2, Delays: []time.Duration{0}},
			})
			info := await(t, s, id)
			for range 2 {
				assert.ErrorIs(t, receive(t, causes, "the timeout"), carillon.ErrTimeout)
			}
			assert.Equal(t, carillon.StateFailed, info.State)
			assert.Equal(t, 2, info.Failures)
			assert.Contains(t, last(t, info).Error, "timed out after 30ms")
			for _, a := range info.Attempts {
				assert.GreaterOrEqual(t, a.FinishedAt.Sub(a.StartedAt), 29*time.Millisecond)
			}
		})
	})

	t.Run("a handler that finishes all the same has succeeded", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"job": func(ctx context.Context, _ *carillon.Execution) error {
				<-ctx.Done()
				return nil
			}})
			info := await(t, s, submit(t, s, carillon.Job{Name: "job", Timeout: 10 * time.Millisecond}))
			assert.Equal(t, carillon.StateSucceeded, info.State)
		})
	})

	t.Run("of the job beats the handler's, which beats the scheduler's", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			var left atomic.Int64
			deadline := carillon.HandlerFunc(func(ctx context.Context, _ *carillon.Execution) error {
				left.Store(0)
				if at, ok := ctx.Deadline(); ok {
					left.Store(int64(time.Until(at)))
				}
				return nil
			})
			run := func(config, handler, job time.Duration) time.Duration {
				s := p.new(t, nil, func(c *carillon.Config) { c.Timeout = config })
				require.NoError(t, s.HandleWith("job", deadline, carillon.HandlerConfig{Timeout: handler}))
				start(t, s)
				await(t, s, submit(t, s, carillon.Job{Name: "job", Timeout: job}))
				shutdown(t, s)
				return time.Duration(left.Load())
			}
			const m = float64(30 * time.Second)
			assert.InDelta(t, time.Minute, run(3*time.Minute, 2*time.Minute, time.Minute), m)
			assert.InDelta(t, 2*time.Minute, run(3*time.Minute, 2*time.Minute, 0), m)
			assert.InDelta(t, 3*time.Minute, run(3*time.Minute, 0, 0), m)
			assert.Zero(t, run(0, 0, 0), "no deadline unless one is asked for")
		})
	})
}

package carillon_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/faultnet"
	"github.com/carillon-go/carillon/internal/knobs"
)

func TestProgress(t *testing.T) {
	t.Run("is seen while the job runs and after it", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			step, done := make(chan int), make(chan error)
			s := p.run(t, handlers{"job": func(ctx context.Context, x *carillon.Execution) error {
				for n := range step {
					done <- x.Progress(ctx, map[string]int{"percent": n})
				}
				return nil
			}})
			id := submit(t, s, carillon.Job{Name: "job"})
			for _, n := range []int{10, 50} {
				step <- n
				require.NoError(t, receive(t, done, "progress"))
				assert.JSONEq(t, fmt.Sprintf(`{"percent":%d}`, n), string(get(t, s, id).Progress))
			}
			close(step)
			assert.JSONEq(t, `{"percent":50}`, string(await(t, s, id).Progress))
		})
	})

	t.Run("of too many bytes is refused", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"job": func(ctx context.Context, x *carillon.Execution) error {
				assert.NoError(t, x.Progress(ctx, "12345678")) // with its quotes just 10
				assert.ErrorIs(t, x.Progress(ctx, "123456789"), carillon.ErrInvalid)
				assert.ErrorIs(t, x.Checkpoint(ctx, "123456789"), carillon.ErrInvalid)
				assert.ErrorIs(t, x.Checkpoint(ctx, func() {}), carillon.ErrInvalid)
				return nil
			}}, func(c *carillon.Config) { c.MaxPayload = 10 })
			info := await(t, s, submit(t, s, carillon.Job{Name: "job"}))
			assert.JSONEq(t, `"12345678"`, string(info.Progress))
		})
	})
}

func TestCheckpoint(t *testing.T) {
	t.Run("is restored by the next attempt", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			type position struct{ Line int }
			var found []int
			s := p.run(t, handlers{"job": func(ctx context.Context, x *carillon.Execution) error {
				var at position
				ok, err := x.Restore(ctx, &at)
				assert.NoError(t, err)
				assert.Equal(t, x.Attempt > 1, ok)
				found = append(found, at.Line)
				assert.NoError(t, x.Checkpoint(ctx, position{at.Line + 1}))
				assert.NoError(t, x.Checkpoint(ctx, position{at.Line + 100}))
				if x.Attempt < 3 {
					return carillon.RetryAfter(0, errors.New("again"))
				}
				return nil
			}})
			info := await(t, s, submit(t, s, carillon.Job{Name: "job"}))
			assert.Equal(t, carillon.StateSucceeded, info.State)
			assert.Equal(t, []int{0, 100, 200}, found)
		})
	})

	t.Run("that is something else is an error", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"job": func(ctx context.Context, x *carillon.Execution) error {
				assert.NoError(t, x.Checkpoint(ctx, "secret"))
				var n int
				_, err := x.Restore(ctx, &n)
				assert.ErrorContains(t, err, "restore")
				assert.NotContains(t, err.Error(), "secret")
				return nil
			}})
			await(t, s, submit(t, s, carillon.Job{Name: "job"}))
		})
	})
}

func TestResult(t *testing.T) {
	t.Run("is kept of the attempt that succeeded, and of no other", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			type sum struct{ A, B int }
			s := p.new(t, handlers{"fails": func(_ context.Context, x *carillon.Execution) error {
				assert.NoError(t, x.SetResult("not this"))
				return carillon.Permanent(errors.New("no"))
			}})
			require.NoError(t, s.Handle("adds", carillon.FuncResult(func(_ context.Context, in sum) (map[string]int, error) {
				return map[string]int{"sum": in.A + in.B}, nil
			})))
			start(t, s)
			info := await(t, s, submit(t, s, carillon.Job{Name: "adds", Args: sum{2, 3}}))
			assert.JSONEq(t, `{"sum":5}`, string(info.Result))
			info = await(t, s, submit(t, s, carillon.Job{Name: "fails"}))
			assert.Equal(t, carillon.StateFailed, info.State)
			assert.Nil(t, info.Result)
		})
	})
}

func TestAwait(t *testing.T) {
	t.Run("of many jobs by many at the same time", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"job": func(_ context.Context, x *carillon.Execution) error {
				return x.SetResult(x.ID)
			}})
			others := []*carillon.Scheduler{p.new(t, nil), p.new(t, nil)}
			var wg sync.WaitGroup
			for i := range 40 {
				wg.Go(func() {
					id := fmt.Sprint("job-", i)
					_, err := others[0].Submit(t.Context(), carillon.Job{Name: "job", ID: id, Delay: time.Duration(i%5) * 20 * time.Millisecond})
					assert.NoError(t, err)
					for _, o := range append(others, s) {
						wg.Go(func() {
							ctx, cancel := context.WithTimeout(t.Context(), soon)
							defer cancel()
							info, err := o.Await(ctx, id)
							if assert.NoError(t, err) {
								assert.JSONEq(t, fmt.Sprintf("%q", id), string(info.Result))
							}
						})
					}
				})
			}
			wg.Wait()
		})
	})

	t.Run("of a job that is final returns at once, of an unknown one an error", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.new(t, nil)
			id := submit(t, s, carillon.Job{Name: "job"})
			require.NoError(t, s.Cancel(t.Context(), id))
			assert.Equal(t, carillon.StateCancelled, await(t, s, id).State)
			_, err := s.Await(t.Context(), "unknown")
			assert.ErrorIs(t, err, carillon.ErrNotFound)
		})
	})

	t.Run("is told at once, without asking again and again", func(t *testing.T) {
		realPlaces(t, func(t *testing.T, p *place) {
			begun, finish := make(chan struct{}, 1), make(chan struct{})
			s := p.run(t, handlers{"job": func(context.Context, *carillon.Execution) error {
				begun <- struct{}{}
				<-finish
				return nil
			}})
			id := submit(t, s, carillon.Job{Name: "job"})
			receive(t, begun, "the job starts")
			done := make(chan struct{})
			go func() {
				deaf := knobs.With(t.Context(), knobs.Knobs{Poll: time.Hour}) // it finds nothing out by itself
				if _, err := s.Await(deaf, id); assert.NoError(t, err) {
					close(done)
				}
			}()
			eventually(t, "it waits", func() bool {
				return awaited(t, p, id)
			})
			close(finish)
			receive(t, done, "the end of Await")
		})
	})

	t.Run("finds out by itself when the hint is lost", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			begun, finish := make(chan struct{}, 1), make(chan struct{})
			s := p.run(t, handlers{"job": func(context.Context, *carillon.Execution) error {
				begun <- struct{}{}
				<-finish
				return nil
			}})
			id := submit(t, s, carillon.Job{Name: "job"})
			receive(t, begun, "the job starts")
			rdb, wire := wireTo(t, p.rdb)
			var lost atomic.Int32
			wire.Set(faultnet.Faults{Reply: func(_ []string, reply []byte) faultnet.Fate {
				if has(reply, "$7\r\nmessage\r\n") {
					lost.Add(1)
					return faultnet.Swallow
				}
				return faultnet.Pass
			}})
			done := make(chan *carillon.JobInfo, 1)
			awaiting := p.over(t, rdb, nil)
			go func() {
				info, err := awaiting.Await(t.Context(), id)
				assert.NoError(t, err)
				done <- info
			}()
			eventually(t, "it waits", func() bool { return awaited(t, p, id) })
			close(finish)
			assert.Equal(t, carillon.StateSucceeded, receive(t, done, "the end of Await").State)
		})
	})

	t.Run("gives up when its context ends", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			s := p.new(t, nil)
			id := submit(t, s, carillon.Job{Name: "job", Delay: time.Hour})
			ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, assert.AnError)
			defer cancel()
			_, err := s.Await(ctx, id)
			assert.ErrorIs(t, err, assert.AnError)
		})
	})
}

func TestAttempts(t *testing.T) {
	t.Run("are recorded, the current one while it runs", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			begun, proceed := make(chan struct{}, 9), make(chan struct{})
			s := p.run(t, handlers{"job": func(_ context.Context, x *carillon.Execution) error {
				begun <- struct{}{}
				<-proceed
				switch x.Attempt {
				case 1:
					return carillon.RetryAfter(0, errors.New("first failure"))
				case 2:
					return carillon.Snooze(0)
				}
				return nil
			}})
			id := submit(t, s, carillon.Job{Name: "job"})
			all, err := s.Instances(t.Context())
			require.NoError(t, err)
			require.Len(t, all, 1)
			for n := 1; n <= 3; n++ {
				receive(t, begun, "an attempt")
				info := get(t, s, id)
				assert.Equal(t, carillon.StateRunning, info.State)
				assert.Equal(t, n, info.Attempt)
				if assert.Len(t, info.Attempts, n) {
					now := info.Attempts[n-1]
					assert.Equal(t, n, now.Number)
					assert.Equal(t, carillon.OutcomeRunning, now.Outcome)
					assert.Equal(t, all[0].ID, now.Instance)
					assert.NotZero(t, now.Token)
					assert.False(t, now.DispatchedAt.Before(info.SubmittedAt))
					assert.WithinDuration(t, now.DispatchedAt, now.StartedAt, 5*time.Second)
					assert.Zero(t, now.FinishedAt)
				}
				proceed <- struct{}{}
			}
			info := await(t, s, id)
			assert.Equal(t, 1, info.Failures)
			require.Equal(t, []carillon.Outcome{
				carillon.OutcomeRetrying, carillon.OutcomeSnoozed, carillon.OutcomeSucceeded,
			}, outcomesOf(info))
			assert.Equal(t, "first failure", info.Attempts[0].Error)
			var last carillon.Attempt
			for _, a := range info.Attempts {
				assert.Greater(t, a.Token, last.Token)
				assert.False(t, a.DispatchedAt.Before(last.FinishedAt))
				assert.False(t, a.FinishedAt.Before(a.StartedAt))
				assert.Equal(t, all[0].ID, a.Instance)
				last = a
			}
			assert.WithinDuration(t, last.FinishedAt, info.FinishedAt, tardy)
		})
	})

	t.Run("beyond twenty are forgotten, the oldest first", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"job": func(_ context.Context, x *carillon.Execution) error {
				if x.Attempt < 25 {
					return carillon.RetryAfter(0, errors.New("again"))
				}
				return nil
			}})
			info := await(t, s, submit(t, s, carillon.Job{Name: "job", Retry: &carillon.Retry{MaxAttempts: 30}}))
			assert.Equal(t, carillon.StateSucceeded, info.State)
			assert.Equal(t, 25, info.Attempt)
			require.Len(t, info.Attempts, 20)
			assert.Equal(t, 6, info.Attempts[0].Number)
			assert.Equal(t, 25, info.Attempts[19].Number)
		})
	})
}

func TestCounts(t *testing.T) {
	eachPlace(t, func(t *testing.T, p *place) {
		producer := p.new(t, nil)
		for range 2 {
			submit(t, producer, carillon.Job{Name: "job", Delay: time.Hour})
		}
		for range 3 {
			submit(t, producer, carillon.Job{Name: "job", Queue: "nobody's"})
		}
		cancelled := submit(t, producer, carillon.Job{Name: "job", Delay: time.Hour})
		require.NoError(t, producer.Cancel(t.Context(), cancelled))
		late := submit(t, producer, carillon.Job{Name: "job", ExpiresAt: time.Now().Add(-time.Hour)})
		release := make(chan struct{})
		begun := make(chan struct{}, 9)
		s := p.run(t, handlers{
			"fails": func(context.Context, *carillon.Execution) error { return carillon.Permanent(errors.New("no")) },
			"works": func(context.Context, *carillon.Execution) error { return nil },
			"stays": func(context.Context, *carillon.Execution) error {
				begun <- struct{}{}
				<-release
				return nil
			},
		})
		defer close(release)
		await(t, s, late)
		await(t, s, submit(t, s, carillon.Job{Name: "fails"}))
		for range 2 {
			await(t, s, submit(t, s, carillon.Job{Name: "works"}))
		}
		for range 2 { // one runs, the other one waits
			submit(t, s, carillon.Job{Name: "stays", Mutex: "m"})
		}
		submit(t, s, carillon.Job{Name: "stays"})
		receive(t, begun, "a job that stays")
		receive(t, begun, "another one")
		require.NoError(t, s.PauseQueue(t.Context(), "nobody's"))

		got, err := producer.Counts(t.Context())
		require.NoError(t, err)
		assert.Equal(t, carillon.Counts{
			Scheduled: 2, Waiting: 1, Queued: 3, Running: 2, Succeeded: 2, Failed: 1, Cancelled: 1, Expired: 1,
			Queues: map[string]carillon.QueueCounts{
				"default":  {Running: 2},
				"nobody's": {Queued: 3, Paused: true},
			},
		}, got)
	})
}

func TestInstances(t *testing.T) {
	eachPlace(t, func(t *testing.T, p *place) {
		producer := p.new(t, nil)
		all, err := producer.Instances(t.Context())
		require.NoError(t, err)
		assert.Empty(t, all)

		const ttl = 4 * time.Second
		release := make(chan struct{})
		defer close(release)
		noop := func(context.Context, *carillon.Execution) error { return nil }
		a := p.run(t, handlers{"stays": func(context.Context, *carillon.Execution) error {
			<-release
			return nil
		}, "b": noop}, lease(ttl), func(c *carillon.Config) { c.Version = "v1.2.3" })
		b := p.run(t, nil, queues(map[string]int{"x": 5, "y": 0}))
		submit(t, producer, carillon.Job{Name: "stays"})
		var info carillon.InstanceInfo
		eventually(t, "the heartbeat tells what runs", func() bool {
			all, err = producer.Instances(t.Context())
			require.NoError(t, err)
			require.Len(t, all, 2)
			for _, in := range all {
				if in.Version != "" {
					info = in
				}
			}
			return info.Running == 1
		})
		host, err := os.Hostname()
		require.NoError(t, err)
		assert.Equal(t, "v1.2.3", info.Version)
		assert.Equal(t, host, info.Host)
		assert.Equal(t, os.Getpid(), info.PID)
		assert.Equal(t, []string{"b", "stays"}, info.Handlers)
		assert.Equal(t, map[string]int{"default": 8}, info.Queues)
		assert.True(t, info.Alive)
		assert.WithinDuration(t, time.Now(), info.Heartbeat, ttl)
		assert.WithinDuration(t, time.Now(), info.StartedAt, soon)
		for _, in := range all {
			if in.ID != info.ID {
				assert.Equal(t, map[string]int{"x": 5, "y": 8}, in.Queues)
				assert.Empty(t, in.Handlers)
			}
		}
		shutdown(t, b)
		all, err = producer.Instances(t.Context())
		require.NoError(t, err)
		assert.Len(t, all, 1, "one that left is gone at once")
		_ = a
	})
}

// awaited tells whether Redis is to say when a job has ended.
func awaited(t testing.TB, p *place, id string) bool {
	t.Helper()
	key, _, _ := strings.Cut(keyLike(t, p.rdb, p.namespace, "j:"+id), "j:")
	return p.rdb.HExists(t.Context(), key+"awaited", id).Val()
}

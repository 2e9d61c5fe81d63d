package carillontest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/carillontest"
)

const day = 24 * time.Hour

var (
	errBusy = errors.New("busy")
	fine    = carillon.HandlerFunc(func(context.Context, *carillon.Execution) error { return nil })
	failing = carillon.HandlerFunc(func(context.Context, *carillon.Execution) error { return errBusy })
)

// run is carillontest.Test with a handler named "work".
func run(t *testing.T, h carillon.Handler, f func(t *testing.T, env *carillontest.Env)) {
	t.Helper()
	carillontest.Test(t, carillon.Config{}, func(t *testing.T, env *carillontest.Env) {
		require.NoError(t, env.Scheduler.Handle("work", h))
		env.Start()
		f(t, env)
	})
}

func TestDelay(t *testing.T) {
	run(t, fine, func(t *testing.T, env *carillontest.Env) {
		id := env.Submit(carillon.Job{Name: "work", Args: "ada", Delay: day})
		assert.Equal(t, carillon.StateScheduled, env.State(id))
		env.Advance(day - time.Millisecond)
		env.RequireRuns("work", 0)
		env.Advance(time.Millisecond)
		runs := env.RequireRuns("work", 1)
		assert.Equal(t, carillontest.Run{
			ID: id, Name: "work", Args: json.RawMessage(`"ada"`), Attempt: 1,
			At: time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC).Local(), Offset: day, Done: true,
		}, runs[0])
		var who string
		require.NoError(t, runs[0].Decode(&who))
		assert.Equal(t, "ada", who)
		env.RequireState(id, carillon.StateSucceeded)
	})
}

func TestRunAtOnAnotherDate(t *testing.T) {
	carillontest.Test(t, carillon.Config{}, func(t *testing.T, env *carillontest.Env) {
		start := time.Date(2032, 2, 28, 12, 0, 0, 0, time.UTC)
		env.AdvanceTo(start)
		require.NoError(t, env.Scheduler.Handle("work", fine))
		env.Start()
		env.Submit(carillon.Job{Name: "work", RunAt: start.Add(36 * time.Hour)})
		env.AdvanceTo(time.Date(2032, 3, 1, 0, 0, 0, 0, time.UTC))
		runs := env.RequireRunsAt("work", 36*time.Hour)
		assert.Equal(t, "2032-03-01", runs[0].At.UTC().Format(time.DateOnly))
		assert.Equal(t, 36*time.Hour, env.Elapsed())
	})
}

func TestRetries(t *testing.T) {
	t.Run("with a list of delays", func(t *testing.T) {
		run(t, failing, func(t *testing.T, env *carillontest.Env) {
			id := env.Submit(carillon.Job{Name: "work", Retry: &carillon.Retry{
				MaxAttempts: 4, Delays: []time.Duration{time.Minute, 5 * time.Minute, 10 * time.Minute},
			}})
			env.Advance(time.Minute)
			env.RequireState(id, carillon.StateRetrying)
			env.Advance(day)
			runs := env.RequireRunsAt("work", 0, time.Minute, 6*time.Minute, 16*time.Minute)
			for i, r := range runs {
				assert.Equal(t, i+1, r.Attempt)
				assert.ErrorIs(t, r.Err, errBusy)
			}
			env.RequireState(id, carillon.StateFailed)
		})
	})
	t.Run("that double", func(t *testing.T) {
		run(t, failing, func(t *testing.T, env *carillontest.Env) {
			env.Submit(carillon.Job{Name: "work", Retry: &carillon.Retry{MaxAttempts: 6, Initial: time.Hour, Max: 5 * time.Hour, NoJitter: true}})
			env.Advance(day)
			env.RequireRunsAt("work", 0, time.Hour, 3*time.Hour, 7*time.Hour, 12*time.Hour, 17*time.Hour)
		})
	})
	t.Run("at random times", func(t *testing.T) {
		run(t, failing, func(t *testing.T, env *carillontest.Env) {
			id := env.Submit(carillon.Job{Name: "work"})
			job := env.Await(id, day)
			assert.Equal(t, carillon.StateFailed, job.State)
			env.RequireRuns("work", 10)
		})
	})
	t.Run("after a panic", func(t *testing.T) {
		h := carillon.HandlerFunc(func(_ context.Context, x *carillon.Execution) error {
			if x.Attempt == 1 {
				panic("oh no")
			}
			return nil
		})
		run(t, h, func(t *testing.T, env *carillontest.Env) {
			id := env.Submit(carillon.Job{Name: "work", Retry: &carillon.Retry{Delays: []time.Duration{time.Second}}})
			env.Advance(time.Second)
			runs := env.RequireRunsAt("work", 0, time.Second)
			assert.EqualError(t, runs[0].Err, "panic: oh no")
			assert.NoError(t, runs[1].Err)
			assert.Contains(t, env.Job(id).Attempts[0].Error, "TestRetries", "the stack is the handler's")
		})
	})
}

func TestCronForAMonth(t *testing.T) {
	run(t, fine, func(t *testing.T, env *carillontest.Env) {
		require.NoError(t, env.Scheduler.Schedule(t.Context(), carillon.Schedule{
			Name: "hourly", Spec: carillon.Cron("30 * * * *"), Job: carillon.Job{Name: "work"},
		}))
		env.Advance(31 * day)
		first := time.Date(2000, 1, 1, 0, 30, 0, 0, time.UTC)
		for i, r := range env.RequireRuns("work", 31*24) {
			want := first.Add(time.Duration(i) * time.Hour)
			require.True(t, r.At.Equal(want), "%v, want %v", r.At, want)
			require.True(t, r.Tick.Equal(want), "%v, want %v", r.Tick, want)
		}
	})
}

func TestCronAcrossAChangeOfClocks(t *testing.T) {
	run(t, fine, func(t *testing.T, env *carillontest.Env) {
		env.AdvanceTo(time.Date(2000, 3, 24, 0, 0, 0, 0, time.UTC))
		require.NoError(t, env.Scheduler.Schedule(t.Context(), carillon.Schedule{
			Name: "morning", Spec: carillon.Cron("0 9 * * *"), TimeZone: "Europe/Berlin", Job: carillon.Job{Name: "work"},
		}))
		env.Advance(4 * day)
		var hours []int
		for _, r := range env.RequireRuns("work", 4) {
			hours = append(hours, r.At.UTC().Hour())
		}
		assert.Equal(t, []int{8, 8, 7, 7}, hours)
	})
}

func TestEvery(t *testing.T) {
	run(t, fine, func(t *testing.T, env *carillontest.Env) {
		env.Advance(100 * time.Millisecond)
		require.NoError(t, env.Scheduler.Schedule(t.Context(), carillon.Schedule{
			Name: "often", Spec: carillon.Every(90 * time.Second), Job: carillon.Job{Name: "work"},
		}))
		env.Advance(5 * time.Minute)
		const first = 90*time.Second + 100*time.Millisecond
		env.RequireRunsAt("work", first, first+90*time.Second, first+180*time.Second)
	})
}

func TestExpiresAt(t *testing.T) {
	carillontest.Test(t, carillon.Config{}, func(t *testing.T, env *carillontest.Env) {
		require.NoError(t, env.Scheduler.Handle("work", fine))
		late := env.Submit(carillon.Job{Name: "work", ExpiresAt: time.Now().Add(time.Hour)})
		good := env.Submit(carillon.Job{Name: "work", ExpiresAt: time.Now().Add(time.Hour + time.Millisecond)})
		env.Advance(time.Hour)
		env.Start()
		env.RequireState(late, carillon.StateExpired)
		env.RequireState(good, carillon.StateSucceeded)
		env.RequireRunsAt("work", 0)
	})
}

func TestRetentionPasses(t *testing.T) {
	run(t, fine, func(t *testing.T, env *carillontest.Env) {
		id := env.Submit(carillon.Job{Name: "work", Retain: 3 * day})
		other := env.Submit(carillon.Job{Name: "work"})
		env.Advance(time.Hour - time.Millisecond)
		env.RequireState(other, carillon.StateSucceeded)
		env.Advance(time.Millisecond)
		env.RequireGone(other)
		env.Advance(3*day - time.Hour - time.Millisecond)
		env.RequireState(id, carillon.StateSucceeded)
		env.Advance(time.Millisecond)
		env.RequireGone(id)
		assert.Empty(t, env.State(id))
		assert.Empty(t, env.Jobs(carillon.Filter{}))
	})
}

func TestUniqueFor(t *testing.T) {
	run(t, fine, func(t *testing.T, env *carillontest.Env) {
		job := carillon.Job{Name: "work", Unique: carillon.Unique{Key: "digest of ada", For: day}}
		first := env.Submit(job)
		env.Advance(day - time.Millisecond)
		assert.Equal(t, first, env.Submit(job))
		env.Advance(time.Millisecond)
		assert.NotEqual(t, first, env.Submit(job))
		env.Advance(0)
		env.RequireRunsAt("work", 0, day)
	})
}

func TestLeaseLapses(t *testing.T) {
	carillontest.Test(t, carillon.Config{LeaseTTL: time.Minute}, func(t *testing.T, env *carillontest.Env) {
		ctx := t.Context()
		holder := env.Instance(carillon.Config{LeaseTTL: time.Minute})
		held, err := holder.Lock(ctx, "door")
		require.NoError(t, err)
		env.Advance(time.Hour)
		_, err = env.Scheduler.TryLock(ctx, "door")
		require.ErrorIs(t, err, carillon.ErrLocked, "it is renewed")

		require.NoError(t, holder.Shutdown(ctx)) // nobody renews it any more
		began := time.Now()
		next, err := env.Scheduler.Lock(ctx, "door")
		require.NoError(t, err)
		assert.LessOrEqual(t, time.Since(began), time.Minute+time.Millisecond)
		assert.Greater(t, time.Since(began), 30*time.Second)
		assert.Greater(t, next.Token(), held.Token())
		assert.ErrorIs(t, context.Cause(held.Context()), carillon.ErrLeaseLost)
		// It is left to the end of the test.
	})
}

func TestTwoInstances(t *testing.T) {
	carillontest.Test(t, carillon.Config{Concurrency: 1}, func(t *testing.T, env *carillontest.Env) {
		slow := carillon.HandlerFunc(func(_ context.Context, _ *carillon.Execution) error {
			time.Sleep(time.Minute)
			return nil
		})
		other, producer := env.Instance(carillon.Config{Concurrency: 1}), env.Instance(carillon.Config{})
		require.NoError(t, env.Scheduler.Handle("work", slow))
		require.NoError(t, other.Handle("work", slow))
		env.Start(env.Scheduler, other)
		for range 4 {
			_, err := producer.Submit(t.Context(), carillon.Job{Name: "work"})
			require.NoError(t, err)
		}
		env.Advance(30 * time.Second)
		for _, r := range env.RequireRuns("work", 2) {
			assert.False(t, r.Done)
		}
		env.Advance(time.Hour)
		env.RequireRunsAt("work", 0, 0, time.Minute, time.Minute)
	})
}

func TestTheOtherInstanceTakesOverOnTime(t *testing.T) {
	for i := range 6 { // who owns the segment is random
		stop := i % 2
		carillontest.Test(t, carillon.Config{}, func(t *testing.T, env *carillontest.Env) {
			instances := []*carillon.Scheduler{env.Scheduler, env.Instance(carillon.Config{})}
			for _, s := range instances {
				require.NoError(t, s.Handle("work", fine))
			}
			env.Start(instances...)
			env.Submit(carillon.Job{Name: "work", Delay: 90 * time.Second})
			require.NoError(t, instances[1-stop].Schedule(t.Context(), carillon.Schedule{
				Name: "hourly", Spec: carillon.Cron("@hourly"), Job: carillon.Job{Name: "work"},
			}))
			env.Advance(30 * time.Second)
			require.NoError(t, instances[stop].Shutdown(t.Context()))
			env.Advance(2*time.Hour - 30*time.Second)
			env.RequireRunsAt("work", 90*time.Second, time.Hour, 2*time.Hour)
		})
	}
}

func TestTimeout(t *testing.T) {
	sleeper := carillon.Func(func(ctx context.Context, nap time.Duration) error {
		select {
		case <-time.After(nap):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	run(t, sleeper, func(t *testing.T, env *carillontest.Env) {
		once := &carillon.Retry{MaxAttempts: 1}
		good := env.Submit(carillon.Job{Name: "work", Args: time.Hour, Timeout: time.Hour + 1, Retry: once})
		late := env.Submit(carillon.Job{Name: "work", Args: 2 * time.Hour, Timeout: time.Hour, Retry: once})
		env.Advance(59 * time.Minute)
		env.RequireState(good, carillon.StateRunning)
		env.RequireState(late, carillon.StateRunning)
		env.Advance(time.Minute)
		env.RequireState(good, carillon.StateSucceeded)
		job := env.RequireState(late, carillon.StateFailed)
		assert.Contains(t, job.Attempts[0].Error, carillon.ErrTimeout.Error())
		for _, r := range env.RequireRunsAt("work", 0, 0) {
			assert.Equal(t, time.Hour, r.Took)
		}
	})
}

func TestMutexAndQueues(t *testing.T) {
	carillontest.Test(t, carillon.Config{Queues: map[string]int{"a": 0, "b": 0}}, func(t *testing.T, env *carillontest.Env) {
		require.NoError(t, env.Scheduler.Handle("work", carillon.HandlerFunc(func(context.Context, *carillon.Execution) error {
			time.Sleep(time.Hour)
			return nil
		})))
		env.Start()
		for _, queue := range []string{"a", "b", "a"} {
			env.Submit(carillon.Job{Name: "work", Queue: queue, Mutex: "account of ada"})
		}
		env.Advance(day)
		env.RequireRunsAt("work", 0, time.Hour, 2*time.Hour)
	})
}

func TestCancelAndPause(t *testing.T) {
	untilStopped := carillon.HandlerFunc(func(ctx context.Context, _ *carillon.Execution) error {
		<-ctx.Done()
		return context.Cause(ctx)
	})
	run(t, untilStopped, func(t *testing.T, env *carillontest.Env) {
		ctx := t.Context()
		id := env.Submit(carillon.Job{Name: "work"})
		env.Advance(time.Hour)
		require.NoError(t, env.Scheduler.Cancel(ctx, id))
		env.Advance(0)
		env.RequireState(id, carillon.StateCancelled)
		assert.ErrorIs(t, env.RequireRuns("work", 1)[0].Err, carillon.ErrCancelled)

		require.NoError(t, env.Scheduler.PauseQueue(ctx, "default"))
		env.Advance(0)
		id = env.Submit(carillon.Job{Name: "work"})
		env.Advance(30 * day)
		env.RequireState(id, carillon.StateQueued)
		require.NoError(t, env.Scheduler.ResumeQueue(ctx, "default"))
		env.Advance(0)
		env.RequireState(id, carillon.StateRunning)
		env.RequireRunsAt("work", 0, 30*day+time.Hour)
	})
}

func TestJobsOfJobs(t *testing.T) {
	carillontest.Test(t, carillon.Config{}, func(t *testing.T, env *carillontest.Env) {
		require.NoError(t, env.Scheduler.Handle("step", carillon.Func(func(ctx context.Context, n int) error {
			if n == 0 {
				return nil
			}
			_, err := env.Scheduler.Submit(ctx, carillon.Job{Name: "step", Args: n - 1, Delay: time.Duration(n) * time.Minute})
			return err
		})))
		env.Start()
		env.Submit(carillon.Job{Name: "step", Args: 3})
		env.Advance(time.Hour)
		env.RequireRunsAt("step", 0, 3*time.Minute, 5*time.Minute, 6*time.Minute)
	})
}

func TestManyJobs(t *testing.T) {
	run(t, fine, func(t *testing.T, env *carillontest.Env) {
		jobs := make([]carillon.Job, 500)
		for i := range jobs {
			jobs[i] = carillon.Job{Name: "work", ID: fmt.Sprint("job ", i), Delay: time.Duration(i%5) * time.Hour}
		}
		_, err := env.Scheduler.SubmitMany(t.Context(), jobs)
		require.NoError(t, err)
		env.Advance(4 * time.Hour)
		perHour := map[time.Duration]int{}
		for _, r := range env.RequireRuns("", 500) {
			perHour[r.Offset]++
		}
		assert.Equal(t, map[time.Duration]int{0: 100, time.Hour: 100, 2 * time.Hour: 100, 3 * time.Hour: 100, 4 * time.Hour: 100}, perHour)
	})
}

func TestSegments(t *testing.T) {
	carillontest.Test(t, carillon.Config{Segments: 8}, func(t *testing.T, env *carillontest.Env) {
		require.NoError(t, env.Scheduler.Handle("work", fine))
		require.NoError(t, env.Scheduler.Handle("tick", fine))
		env.Start()
		var want []time.Duration
		for i := range 20 {
			delay := time.Duration(i) * time.Minute
			env.Submit(carillon.Job{Name: "work", Delay: delay, Unique: carillon.Unique{Key: fmt.Sprint(i)}, Mutex: fmt.Sprint(i % 3)})
			want = append(want, delay)
		}
		for i := range 4 {
			require.NoError(t, env.Scheduler.Schedule(t.Context(), carillon.Schedule{
				Name: fmt.Sprint("every ", i), Spec: carillon.Every(6 * time.Hour), Job: carillon.Job{Name: "tick", Mutex: "one"},
			}))
		}
		env.Advance(day)
		env.RequireRunsAt("work", want...)
		for i, r := range env.RequireRuns("tick", 16) {
			assert.Equal(t, time.Duration(1+i/4)*6*time.Hour, r.Offset)
		}
	})
}

func TestSchedulerOfTheTestsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := carillontest.New(t, carillon.Config{Namespace: "shop"})
		s, err := carillon.New(env.Redis(), carillon.Config{Namespace: "shop", LeaseTTL: time.Hour})
		require.NoError(t, err)
		require.NoError(t, s.Use(env.Record))
		require.NoError(t, s.Handle("work", fine))
		ended := make(chan error, 1)
		ctx, cancel := context.WithCancel(env.Context())
		go func() { ended <- s.Run(ctx) }()
		env.Submit(carillon.Job{Name: "work", Delay: 30 * day})
		env.Advance(31 * day)
		assert.Equal(t, time.Date(2000, 1, 31, 0, 0, 0, 0, time.UTC), env.RequireRuns("work", 1)[0].At.UTC())
		cancel()
		require.NoError(t, <-ended)
	})
}

func TestTheEnd(t *testing.T) {
	t.Run("waits for running handlers", func(t *testing.T) {
		var ended atomic.Int64
		run(t, carillon.HandlerFunc(func(ctx context.Context, _ *carillon.Execution) error {
			<-ctx.Done()
			ended.Add(1)
			return ctx.Err()
		}), func(_ *testing.T, env *carillontest.Env) {
			for range 3 {
				env.Submit(carillon.Job{Name: "work"})
			}
			env.Submit(carillon.Job{Name: "work", Delay: time.Hour})
			env.Advance(time.Second)
		})
		assert.EqualValues(t, 3, ended.Load())
	})
	t.Run("waits for handlers that ignore their context", func(t *testing.T) {
		var ended atomic.Int64
		run(t, carillon.HandlerFunc(func(context.Context, *carillon.Execution) error {
			time.Sleep(5 * time.Hour)
			ended.Add(1)
			return nil
		}), func(_ *testing.T, env *carillontest.Env) {
			env.Submit(carillon.Job{Name: "work"})
			env.Advance(time.Second)
		})
		assert.EqualValues(t, 1, ended.Load())
	})
	t.Run("comes when nothing was started", func(t *testing.T) {
		carillontest.Test(t, carillon.Config{}, func(_ *testing.T, env *carillontest.Env) { env.Advance(day) })
		carillontest.Test(t, carillon.Config{}, func(_ *testing.T, env *carillontest.Env) { env.Submit(carillon.Job{Name: "x"}) })
	})
	t.Run("comes during an Await", func(t *testing.T) {
		run(t, fine, func(t *testing.T, env *carillontest.Env) {
			id := env.Submit(carillon.Job{Name: "work", Delay: day})
			go func() { _, _ = env.Scheduler.Await(env.Context(), id) }()
			env.Advance(time.Hour)
		})
	})
}

// Nobody waits for a connection: go-redis shares the timers of those who do, and
// one that belongs to another bubble ends the process.
func TestManyLocksInSeveralBubbles(t *testing.T) {
	for range 3 {
		carillontest.Test(t, carillon.Config{}, func(t *testing.T, env *carillontest.Env) {
			env.Start()
			var held atomic.Int64
			var all sync.WaitGroup
			for i := range 200 {
				all.Go(func() {
					l, err := env.Scheduler.TryLock(t.Context(), fmt.Sprint(i))
					if err == nil && l.Release(t.Context()) == nil {
						held.Add(1)
					}
				})
			}
			all.Wait()
			assert.EqualValues(t, 200, held.Load())
		})
	}
}

package carillon_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
)

func TestEveryAfter(t *testing.T) {
	t.Parallel()
	t.Run("counts from the end of the run", func(t *testing.T) {
		inTime(t, carillon.Config{}, func(w *world) {
			w.Start(w.another(carillon.Config{}))
			w.begin(carillon.Schedule{Name: "s", Spec: carillon.EveryAfter(time.Minute), Job: carillon.Job{Args: 25 * time.Second}})
			assert.Equal(w.t, w.at(time.Minute).UTC(), w.info("s").Next.UTC())
			w.Advance(70 * time.Second)
			assert.Zero(w.t, w.info("s").Next, "it depends on the run")
			assert.Len(w.t, w.info("s").Running, 1)
			w.Advance(5 * time.Minute)
			assert.Equal(w.t, seconds(60, 145, 230, 315), w.ran())
			assert.Equal(w.t, w.ran(), w.started())
			assert.Equal(w.t, []string{"1m0s fired", "2m25s fired", "3m50s fired", "5m15s fired"}, w.ledger("s"))
		})
	})
	t.Run("with retries, from a start to an end", func(t *testing.T) {
		inTime(t, carillon.Config{}, func(w *world) {
			w.Start()
			w.began = time.Now()
			w.store(carillon.Schedule{
				Name: "s", Spec: carillon.EveryAfter(time.Minute), Start: w.at(10 * time.Second), End: w.at(150 * time.Second),
				Job: carillon.Job{Args: -time.Second, Retry: &carillon.Retry{MaxAttempts: 2, Delays: seconds(5)}},
			})
			w.Advance(time.Hour)
			assert.Equal(w.t, seconds(10, 16, 77, 83, 144, 150), w.started())
			assert.Zero(w.t, w.info("s").Next, "it has ended")
		})
	})
	t.Run("and so often", func(t *testing.T) {
		inTime(t, carillon.Config{}, func(w *world) {
			w.begin(carillon.Schedule{Name: "s", Spec: carillon.EveryAfter(time.Minute), MaxRuns: 2})
			w.Advance(time.Hour)
			assert.Equal(w.t, seconds(60, 120), w.ran())
			assert.Equal(w.t, 2, w.info("s").Runs)
		})
	})
}

func TestJitterIsTheSameEachTime(t *testing.T) {
	inTime(t, carillon.Config{}, func(w *world) {
		w.Start(w.another(carillon.Config{}))
		w.begin()
		for _, name := range []string{"a", "b"} {
			w.store(carillon.Schedule{Name: name, Spec: carillon.Every(time.Minute).Aligned(), Jitter: 40 * time.Second})
		}
		w.Advance(21 * time.Minute)
		delays := map[string][]time.Duration{}
		distinct := map[time.Duration]bool{}
		for _, r := range w.Runs("tick") {
			name, _, _ := strings.Cut(r.ID, "~")
			d := r.At.Sub(r.Tick)
			assert.GreaterOrEqual(w.t, d, time.Duration(0))
			assert.LessOrEqual(w.t, d, 40*time.Second)
			delays[name] = append(delays[name], d)
			distinct[d] = true
		}
		assert.GreaterOrEqual(w.t, len(delays["a"]), 20)
		assert.NotEqual(w.t, delays["a"][:20], delays["b"][:20], "schedules are spread")
		assert.Greater(w.t, len(distinct), 30)
		for _, l := range w.lines("a") {
			assert.Equal(w.t, l.At.Sub(l.Tick), l.Late, "jitter shows as late")
		}

		// The same name and ticks get the same delays in another life.
		require.NoError(w.t, w.Scheduler.Unschedule(w.t.Context(), "a"))
		next, err := w.Scheduler.Explain(w.t.Context(), "b", w.at(30*time.Minute))
		require.NoError(w.t, err)
		again, err := w.another(carillon.Config{}).Explain(w.t.Context(), "b", w.at(30*time.Minute))
		require.NoError(w.t, err)
		assert.Equal(w.t, next, again)
		assert.Contains(w.t, next, "It is planned: it will be fired at 2000-01-01 00:30:")
	})
}

func TestJitterNeverPassesTheNextTick(t *testing.T) {
	inTime(t, carillon.Config{}, func(w *world) {
		w.begin(carillon.Schedule{Name: "s", Spec: carillon.Every(10 * time.Second), Jitter: time.Hour})
		w.Advance(5 * time.Minute)
		runs := w.Runs("tick")
		require.GreaterOrEqual(w.t, len(runs), 29)
		for _, r := range runs {
			assert.Less(w.t, r.At.Sub(r.Tick), 10*time.Second)
			assert.GreaterOrEqual(w.t, r.At.Sub(r.Tick), time.Duration(0))
		}
	})
}

func TestPauseAfterFailures(t *testing.T) {
	inTime(t, carillon.Config{}, func(w *world) {
		failing := carillon.Job{Args: -time.Second, Retry: &carillon.Retry{MaxAttempts: 2, Delays: seconds(1)}}
		w.begin(carillon.Schedule{Name: "s", Spec: carillon.Every(10 * time.Second), PauseAfter: 3, Job: failing})
		w.Advance(23 * time.Second)
		assert.Equal(w.t, 2, w.info("s").Failures)
		assert.Nil(w.t, w.info("s").Paused)
		w.Advance(40 * time.Second)
		info := w.info("s")
		require.NotNil(w.t, info.Paused)
		assert.Equal(w.t, "3 runs in a row have failed", info.Paused.Reason)
		assert.Empty(w.t, info.Paused.Actor, "nobody did it")
		assert.True(w.t, info.Paused.At.Equal(w.at(33*time.Second)))
		assert.Equal(w.t, 3, info.Failures)
		w.RequireRuns("tick", 6)

		require.NoError(w.t, w.Scheduler.ResumeSchedule(w.t.Context(), "s"))
		assert.Zero(w.t, w.info("s").Failures)
		w.Advance(20 * time.Second)
		assert.Equal(w.t, []string{"10s fired", "20s fired", "30s fired", "40s..1m0s skipped", "1m10s fired", "1m20s fired"}, w.ledger("s"))
	})
}

func TestASuccessBetweenFailuresCounts(t *testing.T) {
	inTime(t, carillon.Config{}, func(w *world) {
		n := 0
		require.NoError(w.t, w.Scheduler.Handle("tick2", carillon.Func(func(context.Context, struct{}) error {
			n++
			if n%3 == 0 {
				return nil
			}
			return errBoom
		})))
		w.begin()
		require.NoError(w.t, w.Scheduler.Schedule(w.t.Context(), carillon.Schedule{
			Name: "s", Spec: carillon.Every(10 * time.Second), PauseAfter: 3,
			Job: carillon.Job{Name: "tick2", Retry: &carillon.Retry{MaxAttempts: 1}},
		}))
		w.Advance(100 * time.Second)
		assert.Nil(w.t, w.info("s").Paused)
		w.RequireRuns("tick2", 10)
	})
}

func TestPauseSchedule(t *testing.T) {
	inTime(t, carillon.Config{Version: "v7"}, func(w *world) {
		ctx := w.t.Context()
		w.Start(w.another(carillon.Config{}))
		w.begin(carillon.Schedule{Name: "s", Spec: carillon.Every(10 * time.Second), Misfire: carillon.FireAll})
		w.Advance(15 * time.Second)
		require.NoError(w.t, w.Scheduler.PauseSchedule(carillon.WithActor(ctx, "ada"), "s", "the bank is closed"))
		w.Advance(30 * time.Second)
		assert.Equal(w.t, &carillon.Pause{At: w.at(15 * time.Second), Actor: "ada", Reason: "the bank is closed"}, w.info("s").Paused)
		assert.Equal(w.t, seconds(10), w.ran())
		assert.Contains(w.t, w.explain("s", 20*time.Second), "paused since 2000-01-01 00:00:15 UTC by ada (the bank is closed)")

		w.store(carillon.Schedule{Name: "s", Spec: carillon.Every(10 * time.Second), Misfire: carillon.FireLast})
		require.NotNil(w.t, w.info("s").Paused, "an edit does not end a pause")
		require.NoError(w.t, w.Scheduler.PauseSchedule(ctx, "s", ""))
		assert.Equal(w.t, &carillon.Pause{At: w.at(45 * time.Second), Actor: "v7"}, w.info("s").Paused, "by this program")

		require.NoError(w.t, w.Scheduler.ResumeSchedule(ctx, "s"))
		require.NoError(w.t, w.Scheduler.ResumeSchedule(ctx, "s"), "again, it changes nothing")
		assert.Nil(w.t, w.info("s").Paused)
		w.Advance(20 * time.Second)
		assert.Equal(w.t, seconds(10, 55, 65), w.ran())
		for _, err := range []error{
			w.Scheduler.PauseSchedule(ctx, "nobody", ""), w.Scheduler.ResumeSchedule(ctx, "nobody"),
		} {
			assert.ErrorIs(w.t, err, carillon.ErrNotFound)
		}
		assert.ErrorIs(w.t, w.Scheduler.PauseSchedule(ctx, "s", strings.Repeat("x", 501)), carillon.ErrInvalid)
	})
}

func TestTicksOfAPauseAreRecorded(t *testing.T) {
	inTime(t, carillon.Config{}, func(w *world) {
		ctx := w.t.Context()
		w.begin(carillon.Schedule{Name: "s", Spec: carillon.Every(10 * time.Second), Overlap: carillon.BufferAll, Job: carillon.Job{Args: 15 * time.Second}})
		w.Advance(22 * time.Second)
		require.NoError(w.t, w.Scheduler.PauseSchedule(ctx, "s", ""))
		w.Advance(40 * time.Second)
		assert.Equal(w.t, []string{"10s fired", "20s waiting"}, w.ledger("s"))
		w.RequireRuns("tick", 1)
		require.NoError(w.t, w.Scheduler.ResumeSchedule(ctx, "s"))
		w.Advance(20 * time.Second)
		assert.Equal(w.t, []string{"10s fired", "20s fired", "30s..1m0s skipped", "1m10s fired", "1m20s waiting"}, w.ledger("s"))
		assert.Equal(w.t, seconds(10, 62, 77), w.started(), "what waited goes on")
		assert.Equal(w.t, "It did not run: the schedule was paused.", w.explain("s", 40*time.Second))
		w.assertOneOutcome("s", 10*time.Second, 8)
	})
}

func TestGroups(t *testing.T) {
	inTime(t, carillon.Config{Segments: 8}, func(w *world) {
		ctx := w.t.Context()
		w.begin()
		sched := func(name, group string) carillon.Schedule {
			return carillon.Schedule{Name: name, Group: group, Spec: carillon.Every(10 * time.Second)}
		}
		members := func(group string) (names []string) {
			infos, err := w.Scheduler.SchedulesOf(ctx, group)
			require.NoError(w.t, err)
			for _, i := range infos {
				names = append(names, i.Name)
				assert.Equal(w.t, group, i.Group)
			}
			return names
		}
		for _, name := range []string{"c", "a", "b"} {
			w.store(sched(name, "g"))
		}
		w.store(sched("d", "h"))
		w.store(sched("e", ""))
		assert.Equal(w.t, []string{"a", "b", "c"}, members("g"))
		assert.Equal(w.t, []string{"d"}, members("h"))

		require.NoError(w.t, w.Scheduler.PauseGroup(carillon.WithActor(ctx, "ada"), "g", "moving house"))
		w.store(sched("late", "g"))
		w.store(sched("e", "g")) // joins
		w.store(sched("b", "h")) // leaves, and stays paused
		want := &carillon.Pause{At: w.began, Actor: "ada", Reason: "moving house"}
		for _, name := range []string{"a", "b", "c", "e", "late"} {
			assert.Equal(w.t, want, w.info(name).Paused, name)
		}
		assert.Nil(w.t, w.info("d").Paused)
		assert.Equal(w.t, []string{"a", "c", "e", "late"}, members("g"), "paused ones are listed")
		assert.Equal(w.t, []string{"b", "d"}, members("h"))
		w.Advance(35 * time.Second)
		w.RequireRuns("tick", 3)

		require.NoError(w.t, w.Scheduler.ResumeGroup(ctx, "g"))
		w.store(sched("later", "g"))
		for _, name := range []string{"a", "c", "e", "late", "later"} {
			assert.Nil(w.t, w.info(name).Paused, name)
		}
		assert.NotNil(w.t, w.info("b").Paused)
		require.NoError(w.t, w.Scheduler.Unschedule(ctx, "a"))
		assert.Equal(w.t, []string{"c", "e", "late", "later"}, members("g"))
		assert.Empty(w.t, members("nobody is in it"))
	})
}

func TestTrigger(t *testing.T) {
	inTime(t, carillon.Config{}, func(w *world) {
		ctx := w.t.Context()
		w.begin(carillon.Schedule{Name: "s", Spec: carillon.Every(time.Hour), Overlap: carillon.Skip, MaxRuns: 5, Job: carillon.Job{Args: time.Minute}})
		w.Advance(time.Hour + 10*time.Second) // one is running
		before := w.info("s")
		first, err := w.Scheduler.Trigger(ctx, "s", 2*time.Minute)
		require.NoError(w.t, err)
		second, err := w.Scheduler.Trigger(ctx, "s", nil)
		require.NoError(w.t, err)
		assert.NotEqual(w.t, first.ID, second.ID, "in the same millisecond")
		w.Advance(0)
		runs := w.RequireRuns("tick", 3)
		assert.Equal(w.t, map[string]string{first.ID: "120000000000", second.ID: "60000000000"},
			map[string]string{runs[1].ID: string(runs[1].Args), runs[2].ID: string(runs[2].Args)})
		after := w.info("s")
		assert.Equal(w.t, before, after, "the plan does not move")
		assert.Equal(w.t, "s", w.Job(first.ID).Schedule)
		assert.True(w.t, w.Job(first.ID).Tick.Equal(w.at(time.Hour+10*time.Second)))
		w.Advance(time.Hour)
		assert.Equal(w.t, w.at(2*time.Hour).UTC(), w.info("s").Last.UTC(), "it is not in the way of the plan")
		assert.Contains(w.t, w.explain("s", time.Hour+10*time.Second), "It was run by hand")

		require.NoError(w.t, w.Scheduler.PauseSchedule(ctx, "s", ""))
		third, err := w.Scheduler.Trigger(ctx, "s", nil)
		require.NoError(w.t, err)
		assert.Equal(w.t, carillon.StateSucceeded, w.Await(third.ID, time.Hour).State, "in a pause, too")
		_, err = w.Scheduler.Trigger(ctx, "nobody", nil)
		assert.ErrorIs(w.t, err, carillon.ErrNotFound)
		_, err = w.Scheduler.Trigger(ctx, "s", func() {})
		assert.ErrorIs(w.t, err, carillon.ErrInvalid)
	})
}

func TestTriggerElsewhere(t *testing.T) {
	t.Run("with a mutex or a unique key, and shards", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			var c ticks
			s := p.run(t, c.handlers())
			for _, job := range []carillon.Job{{}, {Mutex: "m"}, {Unique: carillon.Unique{Key: "u"}}} {
				name := "s" + job.Mutex + job.Unique.Key
				plan(t, s, carillon.Schedule{Name: name, Spec: carillon.Every(time.Hour), Job: job})
				r, err := s.Trigger(t.Context(), name, "other")
				require.NoError(t, err)
				x := c.wait(t, name, 1)[0]
				assert.Equal(t, r.ID, x.ID)
				assert.JSONEq(t, `"other"`, string(x.Args))
			}
			plan(t, s, carillon.Schedule{Name: "sharded", Spec: carillon.Every(time.Hour), Sharding: carillon.Sharding{Shards: 3}})
			_, err := s.Trigger(t.Context(), "sharded", nil)
			require.NoError(t, err)
			assert.Len(t, c.wait(t, "sharded", 3), 3)
		})
	})
	t.Run("not at all without an instance for a broadcast", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			s := p.new(t, nil)
			plan(t, s, carillon.Schedule{Name: "all", Spec: carillon.Every(time.Hour), Sharding: carillon.Sharding{Broadcast: true}})
			_, err := s.Trigger(t.Context(), "all", nil)
			assert.ErrorIs(t, err, carillon.ErrState)
		})
	})
}

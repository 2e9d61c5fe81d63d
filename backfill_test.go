package carillon_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/faulthook"
)

func TestBackfill(t *testing.T) {
	t.Parallel()
	// A tick each minute; at 7m30s the ticks from 3m to 6m run again, 20 s each.
	cases := map[string]struct {
		overlap  carillon.Overlap
		interval time.Duration
		ran      []time.Duration
		started  []float64 // seconds after the wish
	}{
		"all at once":         {ran: each(time.Minute, 6)[2:], started: []float64{0, 0, 0, 0}},
		"at intervals":        {interval: 5 * time.Second, ran: each(time.Minute, 6)[2:], started: []float64{0, 5, 10, 15}},
		"one after the other": {overlap: carillon.BufferAll, ran: each(time.Minute, 6)[2:], started: []float64{0, 20, 40, 60}},
		"one after the other, at intervals": {
			overlap: carillon.BufferOne, interval: 25 * time.Second, ran: each(time.Minute, 6)[2:], started: []float64{0, 25, 50, 75},
		},
		"those that find no other": {
			overlap: carillon.Skip, interval: 15 * time.Second, ran: []time.Duration{3 * time.Minute, 5 * time.Minute}, started: []float64{0, 30},
		},
		"the last one": {
			overlap: carillon.Replace, interval: 5 * time.Second, ran: each(time.Minute, 6)[2:], started: []float64{0, 5, 10, 15},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			inTime(t, carillon.Config{Concurrency: 20, Segments: 4}, func(w *world) {
				ctx := w.t.Context()
				w.Start(w.another(carillon.Config{}))
				w.begin(carillon.Schedule{
					Name: "s", Spec: carillon.Every(time.Minute), Overlap: carillon.Skip, MaxRuns: 7, Job: carillon.Job{Args: 20 * time.Second},
				})
				w.Advance(7*time.Minute + 30*time.Second)
				w.RequireRuns("tick", 7)
				require.NoError(w.t, w.Scheduler.Backfill(ctx, "s", carillon.Backfill{
					From: w.at(3*time.Minute - 59*time.Second), To: w.at(6 * time.Minute), Overlap: c.overlap, Interval: c.interval,
				}))
				if last := len(c.started) - 1; c.started[last] > 0 { // all at once can be over by now
					assert.Equal(w.t, 1, w.info("s").Backfills)
				}
				w.Advance(2 * time.Minute)
				assert.Equal(w.t, 0, w.info("s").Backfills)
				assert.Equal(w.t, 7, w.info("s").Runs, "they do not count")
				var started []time.Duration
				for _, at := range w.started()[7:] {
					started = append(started, at-7*time.Minute-30*time.Second)
				}
				assert.Equal(w.t, seconds(c.started...), started)
				assert.ElementsMatch(w.t, c.ran, w.ran()[7:])
				if c.overlap == carillon.Replace {
					for _, r := range w.Runs("tick")[7:10] {
						assert.Equal(w.t, 5*time.Second, r.Took, "not before the next one may begin")
						assert.ErrorIs(w.t, r.Err, carillon.ErrCancelled)
					}
				}
				replayed := map[time.Duration]bool{}
				for _, d := range c.ran {
					replayed[d] = true
				}
				for i, line := range w.lines("s") {
					tick := line.Tick.Sub(w.began)
					assert.Equal(w.t, time.Duration(i+1)*time.Minute, tick)
					want := carillon.TickFired
					if replayed[tick] {
						want = carillon.TickReplayed
						assert.Contains(w.t, w.explain("s", tick), "It was run by a backfill")
					}
					assert.Equal(w.t, want, line.Outcome, "%v", tick)
					job := w.Job(line.JobID)
					assert.True(w.t, job.Tick.Equal(line.Tick))
				}
			})
		})
	}
}

func TestBackfillBesideThePlan(t *testing.T) {
	inTime(t, carillon.Config{}, func(w *world) {
		ctx := w.t.Context()
		w.begin(carillon.Schedule{Name: "s", Spec: carillon.Every(time.Minute), Overlap: carillon.Skip, Job: carillon.Job{Args: 50 * time.Second}})
		w.Advance(3*time.Minute + 10*time.Second)
		require.NoError(w.t, w.Scheduler.Backfill(ctx, "s", carillon.Backfill{From: w.began, To: w.at(3 * time.Minute), Overlap: carillon.BufferAll}))
		w.Advance(20 * time.Second)
		require.NoError(w.t, w.Scheduler.PauseSchedule(ctx, "s", ""))
		w.Advance(10 * time.Minute)
		w.RequireRuns("tick", 4)
		require.NoError(w.t, w.Scheduler.ResumeSchedule(ctx, "s"))
		w.Advance(2 * time.Minute)
		assert.Equal(w.t, seconds(60, 120, 180, 60, 120, 840, 180, 900), w.ran(), "a pause holds it up, the plan goes on beside it")

		require.NoError(w.t, w.Scheduler.Backfill(ctx, "s", carillon.Backfill{From: w.began, To: w.at(10 * time.Minute), Overlap: carillon.BufferAll}))
		w.Advance(0)
		w.store(carillon.Schedule{Name: "s", Spec: carillon.Every(time.Hour)})
		assert.Zero(w.t, w.info("s").Backfills, "an edit ends it")
		n := len(w.Runs("tick"))
		w.Advance(10 * time.Minute)
		w.RequireRuns("tick", n)
	})
}

// A backfill of more runs than can be watched begins one when another has ended.
func TestALargeBackfillLosesNothing(t *testing.T) {
	inTime(t, carillon.Config{Concurrency: 300}, func(w *world) {
		const ticks = 250 // of the plan's own and of these, 200 are watched
		ctx := w.t.Context()
		require.NoError(w.t, w.Scheduler.Handle("then", carillon.HandlerFunc(nap)))
		w.Advance(day)
		w.begin(carillon.Schedule{
			Name: "s", Spec: carillon.Every(time.Minute).Aligned(), Start: w.began, Overlap: carillon.Skip, Job: carillon.Job{Args: 5 * time.Minute},
			Sharding: carillon.Sharding{Then: &carillon.Job{Name: "then"}},
		})
		require.NoError(w.t, w.Scheduler.Backfill(ctx, "s", carillon.Backfill{From: w.began.Add(-ticks * time.Minute), To: w.began.Add(-time.Minute)}))
		backfilled := func(job string) map[time.Duration]int {
			runs := map[time.Duration]int{}
			for _, r := range w.Runs(job) {
				if r.Tick.Before(w.began) {
					runs[r.Tick.Sub(w.began)]++
				}
			}
			return runs
		}
		w.Advance(30 * time.Second)
		assert.Len(w.t, backfilled("tick"), 100, "the others wait")
		w.Advance(30 * time.Minute)
		once := map[time.Duration]int{}
		for n := 1; n <= ticks; n++ {
			once[time.Duration(-n)*time.Minute] = 1
		}
		assert.Equal(w.t, once, backfilled("tick"))
		assert.Equal(w.t, once, backfilled("then"))
		assert.Zero(w.t, w.info("s").Backfills)
	})
}

func TestBackfillIsRefused(t *testing.T) {
	inTime(t, carillon.Config{}, func(w *world) {
		w.AdvanceTo(time.Now().Add(day))
		w.begin(carillon.Schedule{Name: "s", Spec: carillon.Cron("* * * * *")}, carillon.Schedule{Name: "after", Spec: carillon.EveryAfter(time.Minute)})
		now := time.Now()
		past := carillon.Backfill{From: now.Add(-time.Hour), To: now}
		for name, c := range map[string]struct {
			of   string
			b    carillon.Backfill
			want error
		}{
			"no range":            {"s", carillon.Backfill{}, carillon.ErrInvalid},
			"backwards":           {"s", carillon.Backfill{From: now, To: now.Add(-time.Hour)}, carillon.ErrInvalid},
			"the future":          {"s", carillon.Backfill{From: now, To: now.Add(time.Hour)}, carillon.ErrInvalid},
			"an unknown overlap":  {"s", carillon.Backfill{From: past.From, To: now, Overlap: 9}, carillon.ErrInvalid},
			"a negative interval": {"s", carillon.Backfill{From: past.From, To: now, Interval: -1}, carillon.ErrInvalid},
			"no fixed ticks":      {"after", past, carillon.ErrInvalid},
			"no schedule":         {"nobody", past, carillon.ErrNotFound},
		} {
			assert.ErrorIs(w.t, w.Scheduler.Backfill(w.t.Context(), c.of, c.b), c.want, name)
		}
		past.Overlap, past.Interval = carillon.BufferAll, day
		for range 20 {
			require.NoError(w.t, w.Scheduler.Backfill(w.t.Context(), "s", past))
		}
		assert.ErrorIs(w.t, w.Scheduler.Backfill(w.t.Context(), "s", past), carillon.ErrState, "too many")
	})
}

// Whatever reply is lost, what was asked for once is done once.
func TestLostReplies(t *testing.T) {
	now := time.Now()
	tasks := map[string]struct {
		do   func(t *testing.T, s *carillon.Scheduler) error
		runs int
	}{
		"trigger": {func(t *testing.T, s *carillon.Scheduler) error {
			r, err := s.Trigger(t.Context(), "s", nil)
			if err == nil {
				get(t, s, r.ID)
			}
			return err
		}, 1},
		"backfill": {func(t *testing.T, s *carillon.Scheduler) error {
			return s.Backfill(t.Context(), "s", carillon.Backfill{From: now.Add(-3*time.Hour + time.Minute), To: now})
		}, 3},
		"pause": {func(t *testing.T, s *carillon.Scheduler) error {
			return s.PauseSchedule(t.Context(), "s", "why")
		}, 0},
		"schedule": {func(t *testing.T, s *carillon.Scheduler) error {
			return s.Schedule(t.Context(), carillon.Schedule{Name: "s", Spec: carillon.Every(2 * time.Hour), Job: carillon.Job{Name: "tick"}})
		}, 0},
	}
	for name, task := range tasks {
		for _, fault := range []faulthook.Fault{faulthook.Before, faulthook.After} {
			for where, mutex := range map[string]string{"miniredis": "", "redis-16-segments": "m"} {
				t.Run(fmt.Sprint(name, " ", fault), func(t *testing.T) {
					placesIn(t, func(t *testing.T, p *place) {
						var c ticks
						for k := 1; ; k++ {
							here := &place{rdb: p.rdb, namespace: fmt.Sprintf("%s-%d", p.namespace, k), segments: p.segments, real: p.real}
							producer := here.new(t, nil)
							plan(t, producer, carillon.Schedule{
								Name: "s", Spec: carillon.Every(time.Hour).Aligned(), Job: carillon.Job{Mutex: mutex},
							})
							hook := &faulthook.Hook{At: k, Fault: fault}
							s := here.over(t, here.hooked(t, hook), nil)
							require.NoError(t, task.do(t, s), "%s", hook.Fired())
							if hook.Fired() == "" {
								assert.Greater(t, k, 2)
								break
							}
							runner := here.run(t, c.handlers())
							eventually(t, "all is done", func() bool {
								n, err := runner.Counts(t.Context())
								require.NoError(t, err)
								info := planned(t, runner, "s")
								return info.Backfills == 0 && n.Succeeded >= task.runs && n.Waiting+n.Queued+n.Running == 0
							})
							n, err := runner.Counts(t.Context())
							require.NoError(t, err)
							assert.Equal(t, task.runs, n.Succeeded, "%s", hook.Fired())
							info := planned(t, runner, "s")
							assert.Equal(t, name == "pause", info.Paused != nil)
							versions, err := runner.Versions(t.Context(), "s")
							require.NoError(t, err)
							want := 1
							if name == "schedule" {
								want = 2
							}
							assert.Len(t, versions, want, "%s", hook.Fired())
							assert.EqualValues(t, want, info.Generation)
							shutdown(t, runner)
						}
					}, where)
				})
			}
		}
	}
}

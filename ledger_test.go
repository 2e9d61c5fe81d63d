package carillon_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
)

// Each tick has exactly one outcome, whatever the policies are, also when nobody
// ran for a while.
func TestEveryTickHasOneOutcome(t *testing.T) {
	t.Parallel()
	for misfire := carillon.FireOnce; misfire <= carillon.FireAll; misfire++ {
		for overlap := carillon.Allow; overlap <= carillon.Replace; overlap++ {
			if (int(misfire)+int(overlap))%2 > 0 {
				continue // each with every other one
			}
			t.Run(fmt.Sprint(misfire, overlap), func(t *testing.T) {
				inTime(t, carillon.Config{Segments: 4}, func(w *world) {
					sched := carillon.Schedule{
						Name: "s", Spec: carillon.Every(10 * time.Second), Misfire: misfire, Overlap: overlap, BufferMax: 2, ReplayMax: 5,
						Jitter: 3 * time.Second, Job: carillon.Job{Args: 17 * time.Second},
					}
					if overlap == carillon.Skip {
						sched.Job.Mutex = "somewhere else"
					}
					w.begin(sched)
					w.Advance(75 * time.Second)
					shutdown(w.t, w.Scheduler)
					w.Advance(60 * time.Second)
					w.Scheduler = w.another(carillon.Config{})
					w.Start(w.Scheduler, w.another(carillon.Config{}))
					w.AdvanceTo(w.at(3 * time.Minute))
					require.NoError(w.t, w.Scheduler.PauseSchedule(w.t.Context(), "s", ""))
					w.Advance(45 * time.Second)
					require.NoError(w.t, w.Scheduler.ResumeSchedule(w.t.Context(), "s"))
					w.Advance(time.Minute)
					passed := int(w.Elapsed()/(10*time.Second)) - 1 // the last one may be delayed by its jitter
					w.assertOneOutcome("s", 10*time.Second, passed)
				})
			})
		}
	}
}

func TestLate(t *testing.T) {
	inTime(t, carillon.Config{}, func(w *world) {
		w.store(carillon.Schedule{Name: "s", Spec: carillon.Every(time.Minute), Misfire: carillon.FireAll})
		w.began = time.Now()
		w.Advance(150*time.Second + 250*time.Millisecond)
		w.Start()
		w.Advance(30 * time.Second)
		var late []time.Duration
		for _, l := range w.lines("s") {
			late = append(late, l.Late)
			assert.True(w.t, l.At.Equal(l.Tick.Add(l.Late)))
			assert.Zero(w.t, l.From)
			assert.Empty(w.t, l.Reason)
		}
		assert.Equal(w.t, seconds(90.25, 30.25, 0), late)
	})
}

func TestLedgerRange(t *testing.T) {
	inTime(t, carillon.Config{}, func(w *world) {
		ctx := w.t.Context()
		w.begin(carillon.Schedule{Name: "s", Spec: carillon.Every(time.Second)})
		w.Advance(250 * time.Second)
		lines := w.lines("s")
		assert.GreaterOrEqual(w.t, len(lines), 200)
		assert.LessOrEqual(w.t, len(lines), 210, "it is bounded")
		assert.True(w.t, lines[len(lines)-1].Tick.Equal(w.at(250*time.Second)), "the latest are kept")
		got, err := w.Scheduler.Ledger(ctx, "s", w.at(200*time.Second), w.at(203*time.Second))
		require.NoError(w.t, err)
		var ticks []time.Duration
		for _, l := range got {
			ticks = append(ticks, l.Tick.Sub(w.began))
		}
		assert.Equal(w.t, seconds(200, 201, 202, 203), ticks, "both ends included")
		assert.Equal(w.t, "Nothing is recorded about it any more: the ledger keeps 200 lines of 30 days.", w.explain("s", 2*time.Second))
		got, err = w.Scheduler.Ledger(ctx, "nobody", time.Time{}, time.Time{})
		require.NoError(w.t, err)
		assert.Empty(w.t, got)
	})
}

func TestExplain(t *testing.T) {
	t.Parallel()
	minute := carillon.Every(time.Minute)
	slow := carillon.Job{Args: 100 * time.Second}
	const late = 10*time.Minute + 30*time.Second
	cases := map[string]struct {
		sched carillon.Schedule
		away  bool // nobody runs until 10m30s; otherwise that time passes
		then  func(w *world) error
		at    time.Duration
		want  string
	}{
		"fired":                    {at: time.Minute, want: "It was fired 0s late, at 2000-01-01 00:01:00 UTC, as job s~1~946684860000."},
		"late":                     {away: true, at: time.Minute, want: "It was fired 9m30s late, at 2000-01-01 00:10:30 UTC, as job s~1~946684860000."},
		"merged":                   {away: true, at: 5 * time.Minute, want: "It did not run by itself: it was merged with the missed tick 2000-01-01 00:01:00 UTC, which ran for all of them."},
		"no tick among the merged": {away: true, at: 5*time.Minute + time.Second, want: "No tick is planned then; the one before is 2000-01-01 00:05:00 UTC; the next one is 2000-01-01 00:06:00 UTC."},
		"missed": {
			sched: carillon.Schedule{Misfire: carillon.SkipMissed}, away: true, at: 5 * time.Minute,
			want: "It did not run: it was missed: no instance fired it in time, and the misfire policy leaves it out.",
		},
		"beyond the bounds": {
			sched: carillon.Schedule{Misfire: carillon.FireAll, ReplayMax: 2}, away: true, at: 5 * time.Minute,
			want: "It did not run: it was missed, and is beyond the bounds of what is made up for.",
		},
		"overlapped": {
			sched: carillon.Schedule{Overlap: carillon.Skip, Job: slow}, at: 2 * time.Minute,
			want: "It did not run: the run of 2000-01-01 00:01:00 UTC was unfinished.",
		},
		"waiting": {
			sched: carillon.Schedule{Overlap: carillon.BufferOne, Job: carillon.Job{Args: time.Hour}}, at: 2 * time.Minute,
			want: "It waits for the end of a run.",
		},
		"no room": {
			sched: carillon.Schedule{Overlap: carillon.BufferOne, Job: carillon.Job{Args: time.Hour}}, at: 3 * time.Minute,
			want: "It did not run: a run was unfinished, and no further tick may wait.",
		},
		"replaced": {
			sched: carillon.Schedule{Overlap: carillon.Replace, Job: carillon.Job{Name: "deaf"}}, at: 2 * time.Minute,
			want: "It did not run: while it waited for the end of a run, the tick 2000-01-01 00:03:00 UTC took its place.",
		},
		"dropped": {
			sched: carillon.Schedule{
				Overlap: carillon.BufferOne, DropOnFailure: true, Job: carillon.Job{Args: -100 * time.Second, Retry: &carillon.Retry{MaxAttempts: 1}},
			},
			at: 2 * time.Minute, want: "It did not run: the run it waited for failed.",
		},
		"paused": {
			then: func(w *world) error { return w.Scheduler.PauseSchedule(w.t.Context(), "s", "") },
			at:   11 * time.Minute, want: "It does not run: the schedule is paused since 2000-01-01 00:10:30 UTC.",
		},
		"changed while it waited": {
			sched: carillon.Schedule{Overlap: carillon.BufferOne, Job: carillon.Job{Args: time.Hour}},
			then: func(w *world) error {
				return w.Scheduler.Schedule(w.t.Context(), carillon.Schedule{Name: "s", Spec: minute, Job: carillon.Job{Name: "tick"}})
			},
			at: 2 * time.Minute, want: "It did not run: the schedule was changed or deleted before it ran.",
		},
		"deleted while it waited": {
			sched: carillon.Schedule{Overlap: carillon.BufferOne, Job: carillon.Job{Args: time.Hour}},
			then:  func(w *world) error { return w.Scheduler.Unschedule(w.t.Context(), "s") },
			at:    2 * time.Minute, want: "It did not run: the schedule was changed or deleted before it ran.",
		},
		"before the generation": {
			sched: carillon.Schedule{Spec: carillon.Every(time.Hour)},
			then: func(w *world) error {
				return w.Scheduler.Schedule(w.t.Context(), carillon.Schedule{Name: "s", Spec: carillon.Cron("* * * * *"), Job: carillon.Job{Name: "tick"}})
			},
			at: 2 * time.Minute, want: "It was before generation 2 was stored, at 2000-01-01 00:10:30 UTC, and nothing is recorded about it.",
		},
		"planned":  {at: 11 * time.Minute, want: "It is planned: it will be fired at 2000-01-01 00:11:00 UTC."},
		"far away": {at: 24 * time.Hour, want: "It is planned: it will be fired at 2000-01-02 00:00:00 UTC."},
		"no tick": {
			at: late, want: "No tick is planned then; the one before is 2000-01-01 00:10:00 UTC; the next one is 2000-01-01 00:11:00 UTC.",
		},
		"enough runs": {
			sched: carillon.Schedule{MaxRuns: 2}, at: 3 * time.Minute, want: "It does not run: the schedule has run 2 times, which is its MaxRuns.",
		},
		"after the last": {
			sched: carillon.Schedule{Spec: carillon.At(time.Date(2000, 1, 1, 0, 5, 0, 0, time.UTC))}, at: 6 * time.Minute,
			want: "No tick is planned then; the one before is 2000-01-01 00:05:00 UTC.",
		},
		"a fixed delay": {
			sched: carillon.Schedule{Spec: carillon.EveryAfter(time.Minute)}, at: 11 * time.Minute,
			want: "It is planned: the pause after the last run ends then.",
		},
		"a fixed delay, another time": {
			sched: carillon.Schedule{Spec: carillon.EveryAfter(time.Minute)}, at: time.Hour,
			want: "Nothing is recorded about that time; the next tick depends on the end of a run.",
		},
		"excluded": {
			sched: carillon.Schedule{Spec: carillon.Cron("* * * * *"), Calendar: "cal"}, at: 3 * time.Minute,
			want: "It did not run: the calendar excludes it.",
		},
		"excluded in the future": {
			sched: carillon.Schedule{Spec: carillon.Cron("* * * * *"), Calendar: "cal"}, at: day + 3*time.Minute,
			want: "It is not planned: the calendar cal excludes it.",
		},
		"nobody for a broadcast": {
			sched: carillon.Schedule{Job: carillon.Job{Name: "nobody's"}, Sharding: carillon.Sharding{Broadcast: true}}, at: time.Minute,
			want: "It did not run: no instance that was alive had the handler.",
		},
		"by hand": {
			then: func(w *world) error {
				r, err := w.Scheduler.Trigger(w.t.Context(), "s", nil)
				assert.Contains(w.t, w.explain("s", late), "It was run by hand, as job "+r.ID+".")
				return err
			},
			at: late, want: "",
		},
		"unscheduled": {
			then: func(w *world) error { return w.Scheduler.Unschedule(w.t.Context(), "s") },
			at:   11 * time.Minute, want: "There is no schedule s, and nothing is recorded about that time.",
		},
		"unscheduled, but recorded": {
			then: func(w *world) error { return w.Scheduler.Unschedule(w.t.Context(), "s") },
			at:   time.Minute, want: "It was fired 0s late, at 2000-01-01 00:01:00 UTC, as job s~1~946684860000.",
		},
		"due, and nobody is there": {
			then: func(w *world) error {
				err := w.Scheduler.Shutdown(w.t.Context())
				w.Scheduler = w.another(carillon.Config{})
				w.Advance(time.Minute)
				return err
			},
			at: 11 * time.Minute, want: "It is due and was not fired yet: no instance has come to it. Instances lists those that run.",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			inTime(t, carillon.Config{}, func(w *world) {
				require.NoError(w.t, w.Scheduler.Handle("deaf", carillon.Func(func(_ context.Context, _ struct{}) error {
					<-time.After(2 * time.Hour)
					return nil
				})))
				w.calendar(carillon.Calendar{Name: "cal", Exclude: carillon.DaySet{
					Dates: []string{"2000-01-02"}, Times: []string{"00:02-00:05"},
				}})
				c.sched.Name = "s"
				if c.sched.Spec.String() == (carillon.Spec{}).String() {
					c.sched.Spec = minute
				}
				if c.sched.Job.Name == "" {
					c.sched.Job.Name = "tick"
				}
				w.began = time.Now()
				require.NoError(w.t, w.Scheduler.Schedule(w.t.Context(), c.sched))
				if !c.away {
					w.Start()
				}
				w.Advance(late)
				if c.away {
					w.Start()
				}
				if c.then != nil {
					require.NoError(w.t, c.then(w))
				}
				if got := w.explain("s", c.at); c.want != "" {
					assert.Equal(w.t, c.want, got)
				}
			})
		})
	}
}

// A range that was passed over stays explained when a backfill has run its ticks,
// or only some of them.
func TestExplainBeforeALineInside(t *testing.T) {
	inTime(t, carillon.Config{}, func(w *world) {
		w.begin(carillon.Schedule{Name: "s", Spec: carillon.Every(time.Minute)})
		require.NoError(w.t, w.Scheduler.PauseSchedule(w.t.Context(), "s", ""))
		w.Advance(10*time.Minute + 30*time.Second)
		require.NoError(w.t, w.Scheduler.ResumeSchedule(w.t.Context(), "s"))
		missed := "It did not run: the schedule was paused."
		assert.Equal(w.t, missed, w.explain("s", 2*time.Minute))
		for _, at := range []time.Duration{5 * time.Minute, 10 * time.Minute} {
			require.NoError(w.t, w.Scheduler.Backfill(w.t.Context(), "s", carillon.Backfill{From: w.at(at), To: w.at(at)}))
			w.Advance(time.Second)
		}
		for m := time.Minute; m <= 10*time.Minute; m += time.Minute {
			if m == 5*time.Minute || m == 10*time.Minute {
				assert.Contains(w.t, w.explain("s", m), "It was run by a backfill")
				continue
			}
			assert.Equal(w.t, missed, w.explain("s", m), m)
		}
		assert.Contains(w.t, w.explain("s", 2*time.Minute+time.Second), "No tick is planned then")
	})
}

// The ID of a line is that of the job, wherever that lives, and whatever the
// schedule becomes.
func TestLedgerNamesTheJob(t *testing.T) {
	inTime(t, carillon.Config{Segments: 7}, func(w *world) {
		w.Start(w.another(carillon.Config{}), w.another(carillon.Config{}))
		w.began = time.Now()
		all := []carillon.Schedule{
			{Name: "plain"},
			{Name: "mutexed", Job: carillon.Job{Mutex: "door"}},
			{Name: "unique", Job: carillon.Job{Unique: carillon.Unique{Key: "key"}}},
			{Name: "sharded", Job: carillon.Job{Mutex: "gate"}, Sharding: carillon.Sharding{Shards: 3}},
			{Name: "broadcast 1", Sharding: carillon.Sharding{Broadcast: true}},
			{Name: "broadcast 2", Sharding: carillon.Sharding{Broadcast: true}},
		}
		for i := range all {
			all[i].Spec = carillon.Every(time.Minute)
			w.store(all[i])
		}
		w.Advance(time.Minute + time.Second)
		for _, sched := range all {
			require.NoError(w.t, w.Scheduler.Backfill(w.t.Context(), sched.Name, carillon.Backfill{From: w.at(0), To: w.at(time.Minute)}))
		}
		w.Advance(time.Minute)
		for _, sched := range all {
			_, err := w.Scheduler.Trigger(w.t.Context(), sched.Name, nil)
			require.NoError(w.t, err)
			sched.Job.Mutex, sched.Job.Unique, sched.Job.Queue, sched.Sharding = "another", carillon.Unique{}, "other", carillon.Sharding{}
			w.store(sched)
			require.NoError(w.t, w.Scheduler.Unschedule(w.t.Context(), sched.Name))
		}
		for _, sched := range all {
			lines := w.lines(sched.Name)
			assert.Len(w.t, lines, 3, sched.Name)
			for _, l := range lines {
				job, err := w.Scheduler.Get(w.t.Context(), l.JobID)
				require.NoError(w.t, err, l)
				assert.Equal(w.t, sched.Name, job.Schedule)
				assert.True(w.t, l.Tick.Equal(job.Tick))
			}
		}
	})
}

// A tick whose job could not be created was not fired, says the ledger.
func TestExplainARefusedJob(t *testing.T) {
	inTime(t, carillon.Config{Segments: 4}, func(w *world) {
		w.begin()
		_, err := w.Scheduler.Submit(w.t.Context(), carillon.Job{Name: "tick", Queue: "nobody's", Unique: carillon.Unique{Key: "held"}})
		require.NoError(w.t, err)
		w.store(carillon.Schedule{Name: "unique", Spec: carillon.Every(time.Minute), Job: carillon.Job{Unique: carillon.Unique{Key: "held"}}})
		w.Advance(time.Minute + time.Second)
		line := w.lines("unique")[0]
		assert.Equal(w.t, carillon.TickSkipped, line.Outcome)
		assert.Empty(w.t, line.JobID)
		assert.Equal(w.t, "It did not run: its job could not be created: its unique key was held, or its ID or a key it needs is not ours.",
			w.explain("unique", time.Minute))
	})
}

// What was due and not fired when a schedule is changed is in the ledger, by the
// plan it was of.
func TestExplainBeforeAnEdit(t *testing.T) {
	inTime(t, carillon.Config{}, func(w *world) {
		w.store(carillon.Schedule{Name: "s", Spec: carillon.Every(time.Minute)})
		w.store(carillon.Schedule{Name: "paused", Spec: carillon.Every(time.Minute)})
		w.began = time.Now()
		require.NoError(w.t, w.Scheduler.PauseSchedule(w.t.Context(), "paused", ""))
		w.Advance(3*time.Minute + 30*time.Second)
		w.store(carillon.Schedule{Name: "s", Spec: carillon.Every(7 * time.Second)})
		w.store(carillon.Schedule{Name: "paused", Spec: carillon.Every(7 * time.Second)})
		assert.Equal(w.t, []string{"1m0s..3m0s skipped"}, w.ledger("s"))
		assert.Equal(w.t, "It did not run: the schedule was changed or deleted before it ran.", w.explain("s", 2*time.Minute))
		assert.Equal(w.t, "It did not run: the schedule was paused.", w.explain("paused", 2*time.Minute))
		assert.Contains(w.t, w.explain("s", 2*time.Minute+time.Second), "No tick is planned then; the one before is 2000-01-01 00:02:00 UTC")
		w.store(carillon.Schedule{Name: "s", Spec: carillon.Every(time.Hour)})
		assert.Equal(w.t, []string{"1m0s..3m0s skipped"}, w.ledger("s"), "nothing was due")
		w.Advance(time.Hour)
		w.store(carillon.Schedule{Name: "s", Spec: carillon.Every(7 * time.Second)})
		assert.Equal(w.t, []string{"1m0s..3m0s skipped", "1h3m30s skipped"}, w.ledger("s"))
	})
}

package carillon_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
)

func (w *world) calendar(c carillon.Calendar) {
	w.t.Helper()
	require.NoError(w.t, w.Scheduler.PutCalendar(w.t.Context(), c))
}

func TestCalendar(t *testing.T) {
	t.Parallel()
	// 2000-01-01 is a Saturday. The schedule fires each day at 10:00 in Shanghai,
	// which is 02:00 UTC.
	cases := map[string]struct {
		calendars []carillon.Calendar // the last one is used
		excluded  carillon.OnExcluded
		spec      carillon.Spec
		ran       []string // ticks of two weeks
		ledger    string   // the first line that is not "fired"
	}{
		"dates and ranges are skipped": {
			calendars: []carillon.Calendar{{Exclude: carillon.DaySet{Dates: []string{"2000-01-03/2000-01-11", "2000-01-13"}}}},
			ran:       []string{"01-01", "01-02", "01-12", "01-14"},
			ledger:    "50h0m0s..242h0m0s skipped",
		},
		"weekends, but not a make-up day": {
			calendars: []carillon.Calendar{{
				Exclude: carillon.DaySet{Weekdays: []time.Weekday{time.Saturday, time.Sunday}}, Include: carillon.DaySet{Dates: []string{"2000-01-08"}},
			}},
			ran:    []string{"01-03", "01-04", "01-05", "01-06", "01-07", "01-08", "01-10", "01-11", "01-12", "01-13", "01-14"},
			ledger: "2h0m0s..26h0m0s skipped",
		},
		"include wins over a base": {
			calendars: []carillon.Calendar{
				{Exclude: carillon.DaySet{Yearly: []string{"01-01", "01-03"}}},
				{Exclude: carillon.DaySet{Dates: []string{"2000-01-05/2000-01-14"}}, Include: carillon.DaySet{Dates: []string{"2000-01-03", "2000-01-14"}}},
			},
			ran:    []string{"01-02", "01-03", "01-04", "01-14"},
			ledger: "2h0m0s skipped",
		},
		"moved to the next day": {
			calendars: []carillon.Calendar{{Exclude: carillon.DaySet{Dates: []string{"2000-01-03/2000-01-06", "2000-01-08/2000-01-13"}}}},
			excluded:  carillon.MoveNext, spec: carillon.Weeks(1, time.Wednesday).At("10:00"),
			ran: []string{"01-07", "01-14"},
		},
		"moved to the day before": {
			calendars: []carillon.Calendar{{Exclude: carillon.DaySet{Dates: []string{"2000-01-03/2000-01-06", "2000-01-08/2000-01-13"}}}},
			excluded:  carillon.MovePrevious, spec: carillon.Weeks(1, time.Wednesday).At("10:00"),
			ran: []string{"01-02", "01-07"},
		},
		"times of the day": {
			calendars: []carillon.Calendar{{Exclude: carillon.DaySet{Times: []string{"09:00-10:00"}}}},
			ran: []string{"01-01", "01-02", "01-03", "01-04", "01-05", "01-06", "01-07", "01-08", "01-09", "01-10", "01-11", "01-12", "01-13",
				"01-14"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			inTime(t, carillon.Config{Segments: 2}, func(w *world) {
				for i, cal := range c.calendars {
					cal.Name = fmt.Sprint("cal", i)
					if i > 0 {
						cal.Base = []string{fmt.Sprint("cal", i-1)}
					}
					w.calendar(cal)
				}
				if c.excluded == carillon.SkipExcluded {
					c.spec = carillon.Cron("0 10 * * *")
				}
				w.begin(carillon.Schedule{
					Name: "s", Spec: c.spec, TimeZone: "Asia/Shanghai",
					Calendar: fmt.Sprint("cal", len(c.calendars)-1), OnExcluded: c.excluded,
				})
				foretold, err := w.Scheduler.NextTicks(w.t.Context(), "s", len(c.ran))
				require.NoError(w.t, err)
				w.Advance(14*day - time.Hour)
				var got, said []string
				for i, r := range w.Runs("tick") {
					got = append(got, r.At.In(time.FixedZone("", 8*3600)).Format("01-02"))
					assert.Equal(w.t, "10:00", r.At.In(time.FixedZone("", 8*3600)).Format("15:04"))
					if i < len(foretold) {
						said = append(said, foretold[i].In(time.FixedZone("", 8*3600)).Format("01-02"))
					}
				}
				assert.Equal(w.t, c.ran, got)
				assert.Equal(w.t, c.ran, said, "NextTicks")
				for _, line := range w.ledger("s") {
					var at, outcome string
					_, _ = fmt.Sscan(line, &at, &outcome)
					if outcome != "fired" {
						assert.Equal(w.t, c.ledger, line)
						break
					}
				}
				if c.ledger != "" {
					skipped := w.lines("s")[0]
					for _, l := range w.lines("s") {
						if l.Outcome == carillon.TickSkipped {
							skipped = l
							break
						}
					}
					assert.Equal(w.t, "the calendar excludes it", skipped.Reason)
					assert.Contains(w.t, w.explain("s", skipped.Tick.Sub(w.began)), "the calendar excludes it")
				}
			})
		})
	}
}

func TestCalendarChanges(t *testing.T) {
	t.Parallel()
	t.Run("move the plans of all schedules at once", func(t *testing.T) {
		inTime(t, carillon.Config{Segments: 8}, func(w *world) {
			w.calendar(carillon.Calendar{Name: "base", Exclude: carillon.DaySet{Yearly: []string{"12-25"}}})
			w.calendar(carillon.Calendar{Name: "cal", Base: []string{"base"}})
			w.Start(w.another(carillon.Config{}))
			w.begin()
			for i := range 5 {
				w.store(carillon.Schedule{Name: fmt.Sprint(i), Spec: carillon.Cron("0 12 * * *"), Calendar: "cal"})
			}
			next := func() (out []string) {
				for i := range 5 {
					out = append(out, w.info(fmt.Sprint(i)).Next.UTC().Format("01-02"))
				}
				return out
			}
			assert.Equal(w.t, []string{"01-01", "01-01", "01-01", "01-01", "01-01"}, next())
			w.calendar(carillon.Calendar{Name: "base", Exclude: carillon.DaySet{Dates: []string{"2000-01-01/2000-01-02"}}})
			assert.Equal(w.t, []string{"01-03", "01-03", "01-03", "01-03", "01-03"}, next(), "also through a base")
			w.Advance(day)
			w.RequireRuns("tick", 0)
			w.calendar(carillon.Calendar{Name: "cal"})
			assert.Equal(w.t, []string{"01-02", "01-02", "01-02", "01-02", "01-02"}, next(), "and back")
			for i := range 5 {
				assert.EqualValues(w.t, 1, w.info(fmt.Sprint(i)).Generation, "it is the same definition")
			}
			w.Advance(day)
			w.RequireRuns("tick", 5)
		})
	})

	t.Run("while a tick is near", func(t *testing.T) {
		inTime(t, carillon.Config{}, func(w *world) {
			w.calendar(carillon.Calendar{Name: "cal"})
			w.Start(w.another(carillon.Config{}))
			w.begin(carillon.Schedule{Name: "s", Spec: carillon.Every(time.Minute), Calendar: "cal"})
			for i := range 10 { // 5 ms before a tick, or after it
				w.Advance(time.Minute - 5*time.Millisecond)
				c := carillon.Calendar{Name: "cal"}
				if i%2 == 0 {
					c.Exclude.Dates = []string{"2000-01-01"}
				}
				w.calendar(c)
				w.Advance(5 * time.Millisecond)
			}
			assert.Equal(w.t, seconds(120, 240, 360, 480, 600), w.ran(), "each by what held at its time")
		})
	})

	t.Run("let a missed tick run only where it may", func(t *testing.T) {
		inTime(t, carillon.Config{}, func(w *world) {
			w.calendar(carillon.Calendar{Name: "cal"})
			w.store(carillon.Schedule{Name: "s", Spec: carillon.Cron("0 * * * *"), Calendar: "cal", Misfire: carillon.FireAll})
			w.Advance(3*day + time.Minute)
			w.calendar(carillon.Calendar{Name: "cal", Exclude: carillon.DaySet{Dates: []string{"2000-01-01", "2000-01-03"}}})
			w.Start()
			w.Advance(0)
			for _, r := range w.RequireRuns("tick", 24+1) {
				assert.Contains(w.t, []string{"02", "04"}, r.Tick.UTC().Format("02"))
			}
		})
	})
}

func TestCalendarIsRefused(t *testing.T) {
	everything := carillon.DaySet{Weekdays: []time.Weekday{0, 1, 2, 3, 4, 5, 6}}
	inTime(t, carillon.Config{}, func(w *world) {
		ctx := w.t.Context()
		w.calendar(carillon.Calendar{Name: "a"})
		w.calendar(carillon.Calendar{Name: "b", Base: []string{"a"}})
		w.calendar(carillon.Calendar{Name: "c", Base: []string{"b"}})
		w.calendar(carillon.Calendar{Name: "workdays", Exclude: carillon.DaySet{Weekdays: []time.Weekday{1, 2, 3, 4, 5}}})
		for name, c := range map[string]carillon.Calendar{
			"itself":                {Name: "a", Base: []string{"a"}},
			"a cycle":               {Name: "a", Base: []string{"c"}},
			"an unknown base":       {Name: "a", Base: []string{"nobody"}},
			"no name":               {},
			"no date":               {Name: "a", Exclude: carillon.DaySet{Dates: []string{"2000-02-30"}}},
			"no range":              {Name: "a", Exclude: carillon.DaySet{Dates: []string{"2000-02-03/2000-02-01"}}},
			"no time":               {Name: "a", Exclude: carillon.DaySet{Times: []string{"25:00-26:00"}}},
			"no weekday":            {Name: "a", Exclude: carillon.DaySet{Weekdays: []time.Weekday{7}}},
			"everything":            {Name: "a", Exclude: everything},
			"no zone":               {Name: "a", TimeZone: "Nowhere/City"},
			"everything, by a base": {Name: "b", Base: []string{"workdays"}, Exclude: carillon.DaySet{Weekdays: []time.Weekday{0, 6}}},
		} {
			assert.ErrorIs(w.t, w.Scheduler.PutCalendar(ctx, c), carillon.ErrInvalid, name)
		}
		got, err := w.Scheduler.GetCalendar(ctx, "a")
		require.NoError(w.t, err)
		assert.Equal(w.t, &carillon.Calendar{Name: "a"}, got, "nothing of it was stored")
		names, err := w.Scheduler.Calendars(ctx)
		require.NoError(w.t, err)
		assert.Equal(w.t, []string{"a", "b", "c", "workdays"}, names)

		for _, sched := range []carillon.Schedule{
			{Name: "s", Spec: carillon.Every(time.Minute), Calendar: "nobody", Job: carillon.Job{Name: "tick"}},
			{Name: "s", Spec: carillon.Every(time.Minute), OnExcluded: carillon.MoveNext, Job: carillon.Job{Name: "tick"}},
		} {
			assert.Error(w.t, w.Scheduler.Schedule(ctx, sched))
		}
		_, err = w.Scheduler.GetSchedule(ctx, "s")
		assert.ErrorIs(w.t, err, carillon.ErrNotFound)
	})
}

func TestDropCalendar(t *testing.T) {
	inTime(t, carillon.Config{Segments: 8}, func(w *world) {
		ctx := w.t.Context()
		drop := w.Scheduler.DropCalendar
		w.begin()
		w.calendar(carillon.Calendar{Name: "a"})
		w.calendar(carillon.Calendar{Name: "b", Base: []string{"a"}})
		w.store(carillon.Schedule{Name: "s", Spec: carillon.Every(time.Minute), Calendar: "b"})
		assert.ErrorIs(w.t, drop(ctx, "a"), carillon.ErrState)
		err := drop(ctx, "b")
		assert.ErrorIs(w.t, err, carillon.ErrState)
		assert.ErrorContains(w.t, err, "s uses the calendar")
		w.Advance(time.Minute)
		w.RequireRuns("tick", 1)

		w.store(carillon.Schedule{Name: "s", Spec: carillon.Every(time.Minute)})
		require.NoError(w.t, drop(ctx, "b"))
		require.NoError(w.t, drop(ctx, "a"), "nobody uses it any more")
		assert.ErrorIs(w.t, drop(ctx, "a"), carillon.ErrNotFound)
		names, err := w.Scheduler.Calendars(ctx)
		require.NoError(w.t, err)
		assert.Empty(w.t, names)
		w.calendar(carillon.Calendar{Name: "a"})
		w.store(carillon.Schedule{Name: "s", Spec: carillon.Every(time.Minute), Calendar: "a"})
		require.NoError(w.t, w.Scheduler.Unschedule(ctx, "s"))
		require.NoError(w.t, drop(ctx, "a"), "its schedule is gone")
	})
}

// Without its calendar a schedule does not fire as if there were none.
func TestMissingCalendar(t *testing.T) {
	fastPlaces(t, func(t *testing.T, p *place) {
		var c ticks
		var log logbook
		s := p.run(t, c.handlers(), logTo(&log))
		require.NoError(t, s.PutCalendar(t.Context(), carillon.Calendar{Name: "cal"}))
		plan(t, s, carillon.Schedule{Name: "s", Spec: carillon.Every(200 * time.Millisecond), Calendar: "cal"})
		plan(t, s, carillon.Schedule{Name: "other", Spec: carillon.Every(200 * time.Millisecond)})
		c.wait(t, "s", 1)
		calendars := keyLike(t, p.rdb, p.namespace, "}:cal")
		stored := p.rdb.HGet(t.Context(), calendars, "cal").Val()
		require.NotEmpty(t, stored)
		require.NoError(t, p.rdb.HDel(t.Context(), calendars, "cal").Err())
		eventually(t, "it is parked", func() bool { return planned(t, s, "s").Problem != "" })
		assert.Contains(t, planned(t, s, "s").Problem, `calendar "cal"`)
		eventually(t, "that is said", func() bool { return log.count("a schedule cannot be used") == 1 })
		n := len(c.of("s"))
		c.wait(t, "other", len(c.of("other"))+3)
		assert.Len(t, c.of("s"), n)
		text, err := s.Explain(t.Context(), "s", time.Now().Add(time.Minute))
		require.NoError(t, err)
		assert.Contains(t, text, "The schedule cannot be used")

		require.NoError(t, s.PutCalendar(t.Context(), carillon.Calendar{Name: "cal"}))
		plan(t, s, carillon.Schedule{Name: "s", Spec: carillon.Every(200 * time.Millisecond), Calendar: "cal"})
		c.wait(t, "s", n+1)
	})
}

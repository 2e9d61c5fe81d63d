package carillon_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
)

func TestSpecFiresAtItsTimes(t *testing.T) {
	t.Parallel()
	date := func(s string) time.Time {
		at, err := time.Parse("2006-01-02 15:04:05", s)
		require.NoError(t, err)
		return at
	}
	weekdays := []time.Weekday{time.Monday, time.Tuesday, time.Wednesday, time.Thursday, time.Friday}
	cases := map[string]struct {
		sched carillon.Schedule
		from  string // UTC
		lasts time.Duration
		want  []string
		n     int // or how many
	}{
		"an interval": {
			sched: carillon.Schedule{Spec: carillon.Every(90 * time.Second)}, from: "2000-01-01 00:00:10", lasts: 5 * time.Minute,
			want: []string{"2000-01-01 00:01:40 Z", "2000-01-01 00:03:10 Z", "2000-01-01 00:04:40 Z"},
		},
		"an interval from a start": {
			sched: carillon.Schedule{Spec: carillon.Every(time.Hour), Start: date("2000-01-01 05:00:00")}, from: "2000-01-01 00:00:10", lasts: 7 * time.Hour,
			want: []string{"2000-01-01 05:00:00 Z", "2000-01-01 06:00:00 Z", "2000-01-01 07:00:00 Z"},
		},
		"an interval whose start has passed": {
			sched: carillon.Schedule{Spec: carillon.Every(7 * time.Hour), Start: date("2000-01-01 05:00:00")}, from: "2000-01-02 00:00:10", lasts: 12 * time.Hour,
			want: []string{"2000-01-02 02:00:00 Z", "2000-01-02 09:00:00 Z"},
		},
		"an aligned interval": {
			sched: carillon.Schedule{Spec: carillon.Every(20 * time.Minute).Aligned()}, from: "2000-01-01 00:07:10", lasts: time.Hour,
			want: []string{"2000-01-01 00:20:00 Z", "2000-01-01 00:40:00 Z", "2000-01-01 01:00:00 Z"},
		},
		"instants": {
			sched: carillon.Schedule{Spec: carillon.At(date("2000-01-03 00:00:00"), date("1999-01-01 00:00:00"), date("2000-01-02 00:00:00").Add(1500*time.Millisecond))},
			from:  "2000-01-01 00:00:00", lasts: 4 * day,
			want: []string{"2000-01-02 00:00:01 Z", "2000-01-03 00:00:00 Z"},
		},
		"cron over a gap": {
			sched: carillon.Schedule{Spec: carillon.Cron("30 2 * * *"), TimeZone: "Europe/Berlin"}, from: "2000-03-25 00:00:00", lasts: 3 * day,
			want: []string{"2000-03-25 02:30:00 +01", "2000-03-26 03:00:00 +02", "2000-03-27 02:30:00 +02"},
		},
		"cron over a gap that is skipped": {
			sched: carillon.Schedule{Spec: carillon.Cron("30 2 * * *"), TimeZone: "Europe/Berlin", ClockChange: carillon.ClockChange{Gap: carillon.GapSkip}},
			from:  "2000-03-25 00:00:00", lasts: 3 * day,
			want: []string{"2000-03-25 02:30:00 +01", "2000-03-27 02:30:00 +02"},
		},
		"cron over an hour that is repeated": {
			sched: carillon.Schedule{Spec: carillon.Cron("30 2 * * *"), TimeZone: "Europe/Berlin"}, from: "2000-10-28 12:00:00", lasts: 2 * day,
			want: []string{"2000-10-29 02:30:00 +02", "2000-10-30 02:30:00 +01"},
		},
		"cron the second time": {
			sched: carillon.Schedule{Spec: carillon.Cron("30 2 * * *"), TimeZone: "Europe/Berlin", ClockChange: carillon.ClockChange{Repeat: carillon.RepeatLast}},
			from:  "2000-10-28 12:00:00", lasts: 2 * day,
			want: []string{"2000-10-29 02:30:00 +01", "2000-10-30 02:30:00 +01"},
		},
		"cron both times": {
			sched: carillon.Schedule{Spec: carillon.Cron("30 2 * * *"), TimeZone: "Europe/Berlin", ClockChange: carillon.ClockChange{Repeat: carillon.RepeatBoth}},
			from:  "2000-10-28 12:00:00", lasts: 2 * day,
			want: []string{"2000-10-29 02:30:00 +02", "2000-10-29 02:30:00 +01", "2000-10-30 02:30:00 +01"},
		},
		"cron that follows the time that passes": {
			sched: carillon.Schedule{Spec: carillon.Cron("CRON_TZ=Europe/Berlin */40 * * * *")}, from: "2000-03-26 00:00:00", lasts: 2 * time.Hour,
			want: []string{"2000-03-26 01:40:00 +01", "2000-03-26 03:00:00 +02", "2000-03-26 03:40:00 +02", "2000-03-26 04:00:00 +02"},
		},
		"cron on both days": {
			sched: carillon.Schedule{Spec: carillon.Cron("0 0 13 * FRI").BothDays()}, from: "2000-10-05 00:00:00", lasts: 40 * day,
			want: []string{"2000-10-13 00:00:00 Z"},
		},
		"cron with seconds and years": {
			sched: carillon.Schedule{Spec: carillon.Cron("15 30 9 L 2 * 2001")}, from: "2001-02-27 00:00:00", lasts: 33 * day,
			want: []string{"2001-02-28 09:30:15 Z"},
		},
		"cron for two weeks": {
			sched: carillon.Schedule{Spec: carillon.Cron("0 9-17 * * MON-FRI"), TimeZone: "Europe/Berlin"}, from: "2000-03-20 00:00:00", lasts: 14 * day,
			n: 10 * 9,
		},
		"days": {
			sched: carillon.Schedule{Spec: carillon.Days(2).At("09:15")}, from: "2000-01-01 10:00:00", lasts: 5 * day,
			want: []string{"2000-01-03 09:15:00 Z", "2000-01-05 09:15:00 Z"},
		},
		"days at midnight": {
			sched: carillon.Schedule{Spec: carillon.Days(1), TimeZone: "Europe/Berlin"}, from: "2000-03-25 00:00:00", lasts: 2 * day,
			want: []string{"2000-03-26 00:00:00 +01", "2000-03-27 00:00:00 +02"},
		},
		"weeks": {
			sched: carillon.Schedule{Spec: carillon.Weeks(2, time.Monday, time.Friday).At("09:00")}, from: "2000-01-01 00:00:00", lasts: 30 * day,
			want: []string{"2000-01-10 09:00:00 Z", "2000-01-14 09:00:00 Z", "2000-01-24 09:00:00 Z", "2000-01-28 09:00:00 Z"},
		},
		"months": {
			sched: carillon.Schedule{Spec: carillon.Months(1, 31)}, from: "2000-01-30 00:00:00", lasts: 62 * day,
			want: []string{"2000-01-31 00:00:00 Z", "2000-02-29 00:00:00 Z", "2000-03-31 00:00:00 Z"},
		},
		"months that are long enough": {
			sched: carillon.Schedule{Spec: carillon.Months(1, 31).MonthEnd(carillon.SkipMonth)}, from: "2000-01-30 00:00:00", lasts: 62 * day,
			want: []string{"2000-01-31 00:00:00 Z", "2000-03-31 00:00:00 Z"},
		},
		"months or the day after": {
			sched: carillon.Schedule{Spec: carillon.Months(1, 31).MonthEnd(carillon.NextMonth)}, from: "2000-01-30 00:00:00", lasts: 62 * day,
			want: []string{"2000-01-31 00:00:00 Z", "2000-03-01 00:00:00 Z", "2000-03-31 00:00:00 Z"},
		},
		"the day before the last of every second month": {
			sched: carillon.Schedule{Spec: carillon.Months(2, -2).At("23:59:59")}, from: "2000-02-28 00:00:00", lasts: 62 * day,
			want: []string{"2000-02-28 23:59:59 Z", "2000-04-29 23:59:59 Z"},
		},
		"quarters": {
			sched: carillon.Schedule{Spec: carillon.Quarters(1, 15).At("06:00")}, from: "2000-04-14 00:00:00", lasts: 93 * day,
			want: []string{"2000-04-15 06:00:00 Z", "2000-07-15 06:00:00 Z"},
		},
		"the end of every second quarter": {
			sched: carillon.Schedule{Spec: carillon.Quarters(2, -1), Start: date("2000-01-01 00:00:00")}, from: "2000-06-29 00:00:00", lasts: 94 * day,
			want: []string{"2000-09-30 00:00:00 Z"},
		},
		"years": {
			sched: carillon.Schedule{Spec: carillon.Years(1, time.February, 29), Start: date("2000-01-01 00:00:00")}, from: "2001-02-26 00:00:00", lasts: 5 * day,
			want: []string{"2001-02-28 00:00:00 Z"},
		},
		"a window": {
			sched: carillon.Schedule{Spec: carillon.Window(40*time.Minute, "09:00", "10:20", weekdays...), TimeZone: "Europe/Berlin"},
			from:  "2000-03-24 08:30:00", lasts: 4 * day,
			want: []string{
				"2000-03-24 09:40:00 +01", "2000-03-24 10:20:00 +01",
				"2000-03-27 09:00:00 +02", "2000-03-27 09:40:00 +02", "2000-03-27 10:20:00 +02",
				"2000-03-28 09:00:00 +02", "2000-03-28 09:40:00 +02", "2000-03-28 10:20:00 +02",
			},
		},
		"a window over midnight": {
			sched: carillon.Schedule{Spec: carillon.Window(time.Hour, "23:00", "01:30", time.Saturday)}, from: "2000-01-01 12:00:00", lasts: 3 * day,
			want: []string{"2000-01-01 23:00:00 Z", "2000-01-02 00:00:00 Z", "2000-01-02 01:00:00 Z"},
		},
		"between two bounds, both included": {
			sched: carillon.Schedule{Spec: carillon.Cron("0 * * * *"), Start: date("2000-01-01 03:00:00"), End: date("2000-01-01 05:00:00")},
			from:  "2000-01-01 00:00:00", lasts: day,
			want: []string{"2000-01-01 03:00:00 Z", "2000-01-01 04:00:00 Z", "2000-01-01 05:00:00 Z"},
		},
		"so many times": {
			sched: carillon.Schedule{Spec: carillon.Every(time.Hour), MaxRuns: 2}, from: "2000-01-01 00:00:00", lasts: day,
			want: []string{"2000-01-01 01:00:00 Z", "2000-01-01 02:00:00 Z"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			data, err := json.Marshal(c.sched.Spec)
			require.NoError(t, err)
			var back carillon.Spec
			require.NoError(t, json.Unmarshal(data, &back))
			assert.Equal(t, c.sched.Spec, back, "%s", data)
			assert.NotEmpty(t, back.String())
			inTime(t, carillon.Config{}, func(w *world) {
				w.AdvanceTo(date(c.from))
				t := w.t
				c.sched.Name, c.sched.Job.Name = "s", "tick"
				w.begin(c.sched)
				n := max(c.n, len(c.want))
				foretold, err := w.Scheduler.NextTicks(t.Context(), "s", n)
				require.NoError(t, err)
				offline, err := c.sched.Ticks(time.Now())
				require.NoError(t, err)
				w.Advance(c.lasts)
				var got, without []time.Time
				for _, r := range w.RequireRuns("tick", n) {
					assert.True(t, r.At.Equal(r.Tick), "on time: %v", r)
					got = append(got, r.Tick)
				}
				loc := time.UTC
				if c.sched.TimeZone != "" || name == "cron that follows the time that passes" {
					loc, err = time.LoadLocation("Europe/Berlin")
					require.NoError(t, err)
				}
				if c.want != nil {
					assert.Equal(t, c.want, stamps(got, loc))
				}
				assert.Equal(t, stamps(got, loc), stamps(foretold, loc), "NextTicks")
				for tick := range offline {
					if len(without) == n {
						break
					}
					without = append(without, tick)
				}
				assert.Equal(t, stamps(got, loc), stamps(without, loc), "Ticks")
			})
		})
	}
}

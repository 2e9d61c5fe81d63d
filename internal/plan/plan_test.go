package plan

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/zone"
	"github.com/carillon-go/carillon/internal/zonetest"
)

// local reads a date, with or without a time, as a clock in loc shows it; a Z at
// the end is UTC.
func local(t testing.TB, text string, loc *time.Location) time.Time {
	t.Helper()
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at
	}
	layout := "2006-01-02 15:04:05"[:len(text)]
	at, err := time.ParseInLocation(layout, text, loc)
	require.NoError(t, err)
	return at
}

// build makes a plan that has to be valid.
func build(t testing.TB, s Spec, o Options) *Plan {
	t.Helper()
	p, errs := New(s, o)
	require.Empty(t, errs)
	return p
}

// compile makes a calendar without bases that has to be valid.
func compile(t testing.TB, c Calendar) *Excluder {
	t.Helper()
	c.Name = "test"
	e, err := Compile(c, nil)
	require.NoError(t, err)
	return e
}

var weekend = []time.Weekday{time.Saturday, time.Sunday}

func TestTicks(t *testing.T) {
	t.Parallel()
	const day, week, month, quarter, year = UnitDay, UnitWeek, UnitMonth, UnitQuarter, UnitYear
	mon, wed, fri := time.Monday, time.Wednesday, time.Friday
	for name, c := range map[string]struct {
		spec                     Spec
		zone, anchor, start, end string
		after                    string // empty: the anchor
		rules                    zone.Rules
		exclude                  Rules
		move                     Move
		want                     []string
	}{
		"every, from the anchor": {
			spec: Spec{Every: 90_000}, anchor: "2026-01-01T00:00:00.123Z", end: "2026-01-01T00:03:00.123Z",
			want: []string{"Thu 2026-01-01 00:01:30.123 +0000", "Thu 2026-01-01 00:03:00.123 +0000", "none"},
		},
		"every, from a start in the future": {
			spec: Spec{Every: 100}, anchor: "2026-01-01", start: "2026-01-02",
			want: []string{"Fri 2026-01-02 00:00:00 +0000", "Fri 2026-01-02 00:00:00.1 +0000"},
		},
		"every, from a start in the past": {
			spec: Spec{Every: 3_600_000}, anchor: "2026-01-01 12:30", start: "2025-12-31 00:10",
			want: []string{"Thu 2026-01-01 13:10:00 +0000"},
		},
		"every, aligned": {
			spec: Spec{Every: 7 * 60_000, Aligned: true}, anchor: "1970-01-01 00:00:30",
			want: []string{"Thu 1970-01-01 00:07:00 +0000", "Thu 1970-01-01 00:14:00 +0000"},
		},
		"after is not known beforehand": {spec: Spec{After: 1000}, anchor: "2026-01-01", want: []string{"none"}},
		"at, in any order and twice": {
			spec: Spec{At: []int64{3000, 1000, 3000, 2000}}, anchor: "1970-01-01 00:00:01",
			want: []string{"Thu 1970-01-01 00:00:02 +0000", "Thu 1970-01-01 00:00:03 +0000", "none"},
		},
		"days": {
			spec: Spec{Interval: &Interval{N: 3, Unit: day, Time: "09:30:15"}}, zone: "Europe/Berlin", anchor: "2026-03-27 09:00",
			want: []string{"Fri 2026-03-27 09:30:15 +0100", "Mon 2026-03-30 09:30:15 +0200", "Thu 2026-04-02 09:30:15 +0200"},
		},
		"days count from the start": {
			spec: Spec{Interval: &Interval{N: 3, Unit: day, Time: "09:00"}}, anchor: "2026-03-20", start: "2026-03-27 10:00",
			want: []string{"Mon 2026-03-30 09:00:00 +0000"},
		},
		"days before the anchor, for a backfill": {
			spec: Spec{Interval: &Interval{N: 3, Unit: day}}, anchor: "2026-03-27", after: "2026-03-20",
			want: []string{"Sat 2026-03-21 00:00:00 +0000", "Tue 2026-03-24 00:00:00 +0000", "Fri 2026-03-27 00:00:00 +0000"},
		},
		"weeks begin on Monday": {
			spec: Spec{Interval: &Interval{N: 2, Unit: week, Weekdays: []time.Weekday{time.Sunday, mon, mon}}}, anchor: "2026-11-18",
			want: []string{"Sun 2026-11-22 00:00:00 +0000", "Mon 2026-11-30 00:00:00 +0000", "Sun 2026-12-06 00:00:00 +0000"},
		},
		"weeks on the weekday of the anchor, a local one": {
			spec: Spec{Interval: &Interval{N: 1, Unit: week, Time: "12:00"}}, zone: "Asia/Tokyo", anchor: "2026-11-18T20:00:00Z",
			want: []string{"Thu 2026-11-19 12:00:00 +0900", "Thu 2026-11-26 12:00:00 +0900"},
		},
		"months, last day of shorter ones": {
			spec: Spec{Interval: &Interval{N: 1, Unit: month, Day: 31}}, anchor: "2028-01-15",
			want: []string{"Mon 2028-01-31 00:00:00 +0000", "Tue 2028-02-29 00:00:00 +0000", "Fri 2028-03-31 00:00:00 +0000", "Sun 2028-04-30 00:00:00 +0000"},
		},
		"months, not the shorter ones": {
			spec: Spec{Interval: &Interval{N: 1, Unit: month, Day: 30, MonthEnd: MonthEndSkip}}, anchor: "2027-01-15",
			want: []string{"Sat 2027-01-30 00:00:00 +0000", "Tue 2027-03-30 00:00:00 +0000"},
		},
		"months, the day after shorter ones": {
			spec: Spec{Interval: &Interval{N: 1, Unit: month, Day: 30, MonthEnd: MonthEndNext}}, anchor: "2027-02-15",
			want: []string{"Mon 2027-03-01 00:00:00 +0000", "Tue 2027-03-30 00:00:00 +0000"},
		},
		"months, from the end": {
			spec: Spec{Interval: &Interval{N: 13, Unit: month, Day: -2}}, anchor: "2027-01-15",
			want: []string{"Sat 2027-01-30 00:00:00 +0000", "Mon 2028-02-28 00:00:00 +0000"},
		},
		"months on the day of the anchor": {
			spec: Spec{Interval: &Interval{N: 1, Unit: month}}, anchor: "2026-12-31",
			want: []string{"Sun 2027-01-31 00:00:00 +0000", "Sun 2027-02-28 00:00:00 +0000", "Wed 2027-03-31 00:00:00 +0000"},
		},
		"quarters": {
			spec: Spec{Interval: &Interval{N: 1, Unit: quarter, Day: 5}}, anchor: "2026-11-15",
			want: []string{"Tue 2027-01-05 00:00:00 +0000", "Mon 2027-04-05 00:00:00 +0000"},
		},
		"quarters, the last day": {
			spec: Spec{Interval: &Interval{N: 2, Unit: quarter, Day: -1}}, anchor: "2026-11-15",
			want: []string{"Thu 2026-12-31 00:00:00 +0000", "Wed 2027-06-30 00:00:00 +0000"},
		},
		"quarters, the day of the anchor in its quarter": {
			spec: Spec{Interval: &Interval{N: 1, Unit: quarter}}, anchor: "2026-11-30",
			want: []string{"Sun 2027-02-28 00:00:00 +0000", "Sun 2027-05-30 00:00:00 +0000"},
		},
		"years": {
			spec: Spec{Interval: &Interval{N: 2, Unit: year, Month: time.March, Day: 1}}, anchor: "2026-11-15",
			want: []string{"Wed 2028-03-01 00:00:00 +0000", "Fri 2030-03-01 00:00:00 +0000"},
		},
		"leap years only": {
			spec: Spec{Interval: &Interval{N: 1, Unit: year, Month: time.February, Day: 29, MonthEnd: MonthEndSkip}}, anchor: "2097-01-01",
			want: []string{"Fri 2104-02-29 00:00:00 +0000"},
		},
		"years end with 2199": {
			spec: Spec{Interval: &Interval{N: 100, Unit: year, Month: 1, Day: 1}}, anchor: "1999-01-01", after: "1999-06-01",
			want: []string{"Thu 2099-01-01 00:00:00 +0000", "Tue 2199-01-01 00:00:00 +0000", "none"},
		},
		"interval, shifted out of a gap": {
			spec: Spec{Interval: &Interval{N: 1, Unit: day, Time: "02:30"}}, zone: "America/New_York", anchor: "2026-03-07 03:00",
			want: []string{"Sun 2026-03-08 03:00:00 -0400", "Mon 2026-03-09 02:30:00 -0400"},
		},
		"interval, skipped in a gap": {
			spec: Spec{Interval: &Interval{N: 1, Unit: day, Time: "02:30"}}, zone: "America/New_York", anchor: "2026-03-07 03:00",
			rules: zone.Rules{Gap: zone.GapSkip}, want: []string{"Mon 2026-03-09 02:30:00 -0400"},
		},
		"interval, the last of repeated times": {
			spec: Spec{Interval: &Interval{N: 1, Unit: day, Time: "01:30"}}, zone: "America/New_York", anchor: "2026-10-31 03:00",
			rules: zone.Rules{Repeat: zone.RepeatLast}, want: []string{"Sun 2026-11-01 01:30:00 -0500", "Mon 2026-11-02 01:30:00 -0500"},
		},
		"interval, both repeated times": {
			spec: Spec{Interval: &Interval{N: 1, Unit: day, Time: "01:30"}}, zone: "America/New_York", anchor: "2026-10-31 03:00",
			rules: zone.Rules{Repeat: zone.RepeatBoth},
			want:  []string{"Sun 2026-11-01 01:30:00 -0400", "Sun 2026-11-01 01:30:00 -0500", "Mon 2026-11-02 01:30:00 -0500"},
		},
		"interval, a day that the zone skipped is the next": {
			spec: Spec{Interval: &Interval{N: 2, Unit: day, Time: "07:00"}}, zone: "Pacific/Apia", anchor: "2011-12-26 12:00",
			want: []string{"Wed 2011-12-28 07:00:00 -1000", "Sat 2011-12-31 00:00:00 +1400", "Sun 2012-01-01 07:00:00 +1400"},
		},
		"window": {
			spec: Spec{Window: &Window{Every: 50 * 60_000, From: "09:00", To: "10:40", Weekdays: []time.Weekday{wed, fri}}}, anchor: "2026-11-17",
			want: []string{
				"Wed 2026-11-18 09:00:00 +0000", "Wed 2026-11-18 09:50:00 +0000", "Wed 2026-11-18 10:40:00 +0000",
				"Fri 2026-11-20 09:00:00 +0000",
			},
		},
		"window over midnight, of the day on which it began": {
			spec: Spec{Window: &Window{Every: 3_600_000, From: "22:30", To: "00:45", Weekdays: []time.Weekday{fri}}}, anchor: "2026-11-18",
			want: []string{
				"Fri 2026-11-20 22:30:00 +0000", "Fri 2026-11-20 23:30:00 +0000", "Sat 2026-11-21 00:30:00 +0000",
				"Fri 2026-11-27 22:30:00 +0000",
			},
		},
		"window with a gap": {
			spec: Spec{Window: &Window{Every: 45 * 60_000, From: "01:00", To: "04:00"}}, zone: "America/New_York", anchor: "2026-03-08",
			rules: zone.Rules{Repeat: zone.RepeatLast},
			want:  []string{"Sun 2026-03-08 01:00:00 -0500", "Sun 2026-03-08 01:45:00 -0500", "Sun 2026-03-08 03:15:00 -0400", "Sun 2026-03-08 04:00:00 -0400", "Mon 2026-03-09 01:00:00 -0400"},
		},
		"window with a repeated hour": {
			spec: Spec{Window: &Window{Every: 45 * 60_000, From: "01:00", To: "02:30"}}, zone: "America/New_York", anchor: "2026-11-01",
			want: []string{"Sun 2026-11-01 01:00:00 -0400", "Sun 2026-11-01 01:45:00 -0400", "Sun 2026-11-01 01:00:00 -0500", "Sun 2026-11-01 01:45:00 -0500", "Sun 2026-11-01 02:30:00 -0500"},
		},
		"skip": {
			spec: Spec{Interval: &Interval{N: 1, Unit: day}}, anchor: "2026-11-19 12:00", exclude: Rules{Weekdays: weekend},
			want: []string{"Fri 2026-11-20 00:00:00 +0000", "Mon 2026-11-23 00:00:00 +0000"},
		},
		"moved to the next day, where one is": {
			spec: Spec{Interval: &Interval{N: 1, Unit: day, Time: "08:00"}}, anchor: "2026-11-20 12:00", exclude: Rules{Weekdays: weekend}, move: Next,
			want: []string{"Mon 2026-11-23 08:00:00 +0000", "Tue 2026-11-24 08:00:00 +0000"},
		},
		"moved to the next day": {
			spec: Spec{Interval: &Interval{N: 1, Unit: month, Day: 1, Time: "08:00"}}, anchor: "2026-10-20", exclude: Rules{Weekdays: weekend, Dates: []string{"2026-11-02"}}, move: Next,
			want: []string{"Tue 2026-11-03 08:00:00 +0000", "Tue 2026-12-01 08:00:00 +0000"},
		},
		"moved to the day before": {
			spec: Spec{Interval: &Interval{N: 1, Unit: month, Day: -1, Time: "08:00"}}, anchor: "2026-10-20", exclude: Rules{Weekdays: weekend}, move: Previous,
			want: []string{"Fri 2026-10-30 08:00:00 +0000", "Mon 2026-11-30 08:00:00 +0000"},
		},
		"moved into an excluded time": {
			spec: Spec{At: []int64{45000_000}}, anchor: "1970-01-01", exclude: Rules{Dates: []string{"1970-01-01"}, Times: []string{"12:00-12:30"}}, move: Next,
			want: []string{"Fri 1970-01-02 12:30:00 +0000", "none"},
		},
		"a day that the zone skipped takes nothing": {
			spec: Spec{Interval: &Interval{N: 1, Unit: year, Month: 12, Day: 29, Time: "08:00"}}, zone: "Pacific/Apia", anchor: "2011-12-25",
			exclude: Rules{Dates: []string{"2011-12-29"}}, move: Next, want: []string{"Sat 2011-12-31 08:00:00 +1400"},
		},
		"the first of the next month, later that day": {
			spec: Spec{Interval: &Interval{N: 1, Unit: month, Day: 30, Time: "09:00", MonthEnd: MonthEndNext}}, anchor: "2027-01-15", after: "2027-03-01 08:00",
			want: []string{"Mon 2027-03-01 09:00:00 +0000"},
		},
		// In St. John's the clock went from Sunday, 00:01, back to Saturday, 23:01.
		"window where a day comes back": {
			spec: Spec{Window: &Window{Every: 30 * 60_000, From: "23:00", To: "00:30"}}, zone: "America/St_Johns", anchor: "2010-11-06",
			want: []string{
				"Sat 2010-11-06 00:30:00 -0230", "Sat 2010-11-06 23:00:00 -0230", "Sat 2010-11-06 23:30:00 -0230",
				"Sun 2010-11-07 00:00:00 -0230", "Sat 2010-11-06 23:30:00 -0330", "Sun 2010-11-07 00:00:00 -0330", "Sun 2010-11-07 00:30:00 -0330",
			},
		},
		"window of a day that comes back": {
			spec: Spec{Window: &Window{Every: 30 * 60_000, From: "23:00", To: "23:30"}}, zone: "America/St_Johns", anchor: "2010-11-06", after: "2010-11-07T02:30:30Z",
			want: []string{"Sat 2010-11-06 23:30:00 -0330", "Sun 2010-11-07 23:00:00 -0330"},
		},
		"moved to a day that comes back": {
			spec: Spec{Cron: "30 23 5 11 *"}, zone: "America/St_Johns", anchor: "2010-11-05", after: "2010-11-07T02:30:30Z",
			exclude: Rules{Dates: []string{"2010-11-05"}}, move: Next, rules: zone.Rules{Repeat: zone.RepeatLast},
			want: []string{"Sat 2010-11-06 23:30:00 -0330", "Sat 2011-11-05 23:30:00 -0230"},
		},
		"moved behind the first tick of the next day": {
			spec: Spec{At: []int64{1289008800000, 1289097000000}}, zone: "America/St_Johns", anchor: "2010-11-05",
			exclude: Rules{Dates: []string{"2010-11-05"}}, move: Next, rules: zone.Rules{Repeat: zone.RepeatLast},
			want: []string{"Sun 2010-11-07 00:00:00 -0230", "Sat 2010-11-06 23:30:00 -0330", "none"},
		},
		"excluded times with a gap": {
			spec: Spec{Every: 15 * 60_000, Aligned: true}, zone: "America/New_York", anchor: "2026-03-08 01:15", exclude: Rules{Times: []string{"01:30-04:00"}},
			want: []string{"Sun 2026-03-08 04:00:00 -0400"},
		},
		"an excluded day with a gap": {
			spec: Spec{Cron: "0 * * * *"}, zone: "America/New_York", anchor: "2026-03-08", exclude: Rules{Dates: []string{"2026-03-08"}},
			want: []string{"Mon 2026-03-09 00:00:00 -0400"},
		},
		"an excluded day with a repeated hour": {
			spec: Spec{Cron: "0 * * * *"}, zone: "America/New_York", anchor: "2026-11-01", exclude: Rules{Dates: []string{"2026-11-01"}},
			want: []string{"Mon 2026-11-02 00:00:00 -0500"},
		},
		"moved into a gap": {
			spec: Spec{Cron: "10,50 2 7 3 *"}, zone: "America/New_York", anchor: "2026-03-01", exclude: Rules{Dates: []string{"2026-03-07"}}, move: Next,
			want: []string{"Sun 2026-03-08 03:00:00 -0400", "Sun 2027-03-07 02:10:00 -0500"},
		},
		"moved into a gap, where there is nothing": {
			spec: Spec{Cron: "10 2 7 3 *"}, zone: "America/New_York", anchor: "2026-03-01", exclude: Rules{Dates: []string{"2026-03-07"}}, move: Next,
			rules: zone.Rules{Gap: zone.GapSkip}, want: []string{"Sun 2027-03-07 02:10:00 -0500"},
		},
		"moved into a gap over midnight": {
			spec: Spec{Cron: "45 23 5 5 *"}, zone: "Asia/Pyongyang", anchor: "2018-05-01", exclude: Rules{Dates: []string{"2018-05-05"}}, move: Previous,
			want: []string{"Sun 2019-05-05 23:45:00 +0900"}, // the clock went from Friday, 23:30, to the excluded Saturday
		},
		"moved to a repeated time": {
			spec: Spec{Cron: "30 1 31 10 *"}, zone: "America/New_York", anchor: "2026-10-01", exclude: Rules{Weekdays: []time.Weekday{time.Saturday}}, move: Next,
			rules: zone.Rules{Repeat: zone.RepeatBoth}, want: []string{"Sun 2026-11-01 01:30:00 -0400", "Sun 2026-11-01 01:30:00 -0500", "Sun 2027-10-31 01:30:00 -0400"},
		},
		"repeated times moved are one": {
			spec: Spec{Cron: "30 1 1 11 *"}, zone: "America/New_York", anchor: "2026-10-01", exclude: Rules{Weekdays: weekend}, move: Previous,
			rules: zone.Rules{Repeat: zone.RepeatBoth}, want: []string{"Fri 2026-10-30 01:30:00 -0400", "Mon 2027-11-01 01:30:00 -0400"},
		},
		"cron until its years are over": {
			spec: Spec{Cron: "0 0 12 31 12 ? 2026-2027"}, anchor: "2026-10-01",
			want: []string{"Thu 2026-12-31 12:00:00 +0000", "Fri 2027-12-31 12:00:00 +0000", "none"},
		},
		"a window until the end of 2199": {
			spec: Spec{Window: &Window{Every: 1000, From: "23:59:59", To: "00:00:05"}}, anchor: "2026-10-01", after: "2199-12-31 23:59:58",
			want: []string{"Tue 2199-12-31 23:59:59 +0000", "none"},
		},
		"a tick before Start is not moved behind it": {
			spec: Spec{Interval: &Interval{N: 1, Unit: month, Day: 21}}, anchor: "2026-11-20", start: "2026-11-22", exclude: Rules{Weekdays: weekend}, move: Next,
			want: []string{"Mon 2026-12-21 00:00:00 +0000"},
		},
		"a tick is not moved behind End": {
			spec: Spec{Interval: &Interval{N: 1, Unit: month, Day: 21}}, anchor: "2026-10-20", end: "2026-11-21 12:00", exclude: Rules{Weekdays: weekend}, move: Next,
			want: []string{"Wed 2026-10-21 00:00:00 +0000", "none"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := Options{Zone: time.UTC, Rules: c.rules, Excluded: c.move}
			if c.zone != "" {
				o.Zone = zonetest.Load(t, c.zone)
			}
			o.Anchor = local(t, c.anchor, o.Zone)
			if c.start != "" {
				o.Start = local(t, c.start, o.Zone)
			}
			if c.end != "" {
				o.End = local(t, c.end, o.Zone)
			}
			if !c.exclude.IsZero() {
				o.Calendar = compile(t, Calendar{Exclude: c.exclude})
			}
			after := o.Anchor
			if c.after != "" {
				after = local(t, c.after, o.Zone)
			}
			p := build(t, c.spec, o)
			var got []string
			for range c.want {
				if after, _ = p.Next(after); after.IsZero() {
					got = append(got, "none")
					break
				}
				got = append(got, after.Format("Mon 2006-01-02 15:04:05.999 -0700"))
			}
			assert.Equal(t, c.want, got)
		})
	}
}

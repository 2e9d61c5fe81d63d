package difftest

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/icalendar"
	"github.com/carillon-go/carillon/internal/plan"
	"github.com/carillon-go/carillon/internal/zonetest"
)

// TestRFCExamples takes the examples of RFC 5545, section 3.8.5.3, with the dates that it gives for them. They begin at
// 09:00 in New York, which changes its clock on 26 October 1997. Examples that count weeks or days of the year, or days of
// a set, cannot be said.
func TestRFCExamples(t *testing.T) {
	t.Parallel()
	crontab := func(expr string) plan.Spec { return plan.Spec{Cron: expr} }
	both := func(expr string) plan.Spec { return plan.Spec{Cron: expr, Both: true} }
	every := func(n int, unit string, weekdays ...time.Weekday) plan.Spec {
		return plan.Spec{Interval: &plan.Interval{N: n, Unit: unit, Weekdays: weekdays, Time: "09:00"}}
	}
	monthly := func(n, day int) plan.Spec {
		return plan.Spec{Interval: &plan.Interval{N: n, Unit: plan.UnitMonth, Day: day, Time: "09:00"}}
	}
	const september2 = "1997-09-02"
	tests := []struct {
		name, start string
		spec        plan.Spec
		want        string
	}{
		{"daily for 10 occurrences", september2, every(1, plan.UnitDay), "1997 Sep 2 3 4 5 6 7 8 9 10 11"},
		{"every other day", september2, every(2, plan.UnitDay), "1997 Sep 2 4 6 8 10 12 14 16 18 20 22 24 26 28 30 Oct 2 4 6 8 10 12 14 16 18 20 22 24 26 28 30 Nov 1"},
		{"every 10 days", september2, every(10, plan.UnitDay), "1997 Sep 2 12 22 Oct 2 12"},
		{"every day in January", "1998-01-01", crontab("0 9 * 1 *"), "1998 Jan 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 1999 Jan 1"},
		{"weekly for 10 occurrences", september2, every(1, plan.UnitWeek), "1997 Sep 2 9 16 23 30 Oct 7 14 21 28 Nov 4"},
		{"every other week", september2, every(2, plan.UnitWeek), "1997 Sep 2 16 30 Oct 14 28 Nov 11 25 Dec 9 23 1998 Jan 6 20 Feb 3 17"},
		{"weekly on Tuesday and Thursday", september2, every(1, plan.UnitWeek, time.Tuesday, time.Thursday), "1997 Sep 2 4 9 11 16 18 23 25 30 Oct 2"},
		{
			"every other week on Monday, Wednesday and Friday", "1997-09-01", every(2, plan.UnitWeek, time.Monday, time.Wednesday, time.Friday),
			"1997 Sep 1 3 5 15 17 19 29 Oct 1 3 13 15 17 27 29 31 Nov 10 12 14 24 26 28 Dec 8 10 12 22",
		},
		{"every other week on Tuesday and Thursday", september2, every(2, plan.UnitWeek, time.Tuesday, time.Thursday), "1997 Sep 2 4 16 18 30 Oct 2 14 16"},
		{"weeks begin on Monday", "1997-08-05", every(2, plan.UnitWeek, time.Tuesday, time.Sunday), "1997 Aug 5 10 19 24"},
		{"monthly on the first Friday", "1997-09-05", crontab("0 9 * * FRI#1"), "1997 Sep 5 Oct 3 Nov 7 Dec 5 1998 Jan 2 Feb 6 Mar 6 Apr 3 May 1 Jun 5"},
		{"every other month on the first and last Sunday", "1997-09-07", crontab("0 9 * 1-11/2 SUN#1,SUNL"), "1997 Sep 7 28 Nov 2 30 1998 Jan 4 25 Mar 1 29 May 3 31"},
		{"monthly on the third-to-the-last day, as cron", "1997-09-28", crontab("0 9 L-2 * *"), "1997 Sep 28 Oct 29 Nov 28 Dec 29 1998 Jan 29 Feb 26"},
		{"monthly on the third-to-the-last day", "1997-09-28", monthly(1, -3), "1997 Sep 28 Oct 29 Nov 28 Dec 29 1998 Jan 29 Feb 26"},
		{"monthly on the 2nd and 15th", september2, crontab("0 9 2,15 * *"), "1997 Sep 2 15 Oct 2 15 Nov 2 15 Dec 2 15 1998 Jan 2 15"},
		{"monthly on the first and last day", "1997-09-30", crontab("0 9 1,L * *"), "1997 Sep 30 Oct 1 31 Nov 1 30 Dec 1 31 1998 Jan 1 31 Feb 1"},
		{"every 18 months on the 10th", "1997-09-10", monthly(18, 10), "1997 Sep 10 1999 Mar 10"},
		{"every Tuesday, every other month", september2, crontab("0 9 * 1-11/2 TUE"), "1997 Sep 2 9 16 23 30 Nov 4 11 18 25 1998 Jan 6 13 20 27 Mar 3 10 17 24 31"},
		{"yearly in June and July", "1997-06-10", crontab("0 9 10 6,7 *"), "1997 Jun 10 Jul 10 1998 Jun 10 Jul 10 1999 Jun 10 Jul 10 2000 Jun 10 Jul 10 2001 Jun 10 Jul 10"},
		{"every other year in January, February and March", "1997-03-10", crontab("0 0 9 10 1-3 * 1997/2"), "1997 Mar 10 1999 Jan 10 Feb 10 Mar 10 2001 Jan 10 Feb 10 Mar 10 2003 Jan 10 Feb 10 Mar 10"},
		{"every Thursday in March", "1997-03-13", crontab("0 9 * 3 THU"), "1997 Mar 13 20 27 1998 Mar 5 12 19 26 1999 Mar 4 11 18 25"},
		{"every Thursday, but only during June, July and August", "1997-06-05", crontab("0 9 * JUN-AUG THU"), "1997 Jun 5 12 19 26 Jul 3 10 17 24 31 Aug 7 14 21 28 1998 Jun 4 11 18 25 Jul 2 9 16 23 30 Aug 6 13 20 27"},
		{"every Friday the 13th", "1998-02-13", both("0 9 13 * FRI"), "1998 Feb 13 Mar 13 Nov 13 1999 Aug 13 2000 Oct 13"},
		{"the first Saturday that follows the first Sunday", "1997-09-13", both("0 9 7-13 * SAT"), "1997 Sep 13 Oct 11 Nov 8 Dec 13 1998 Jan 10 Feb 7 Mar 7 Apr 11 May 9 Jun 13"},
		{"the day of US presidential elections", "1996-11-05", both("0 0 9 2-8 11 TUE 1996/4"), "1996 Nov 5 2000 Nov 7 2004 Nov 2"},
		{"a day that February does not have is left out", "2007-01-15", crontab("0 9 15,30 * *"), "2007 Jan 15 30 Feb 15 Mar 15 30"},
	}
	newYork := zonetest.Load(t, "America/New_York")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			start, err := time.ParseInLocation("2006-01-02 15:04", tt.start+" 09:00", newYork)
			require.NoError(t, err)
			p, errs := plan.New(tt.spec, plan.Options{Zone: newYork, Start: start})
			require.Empty(t, errs)
			at := start.Add(-time.Millisecond)
			for _, want := range published(t, tt.want) {
				at, _ = p.Next(at)
				assert.Equal(t, want+"T09:00", at.Format("2006-01-02T15:04"))
			}
		})
	}
}

// published reads years, months and days.
func published(t *testing.T, text string) []string {
	t.Helper()
	var year, month string
	var dates []string
	for word := range strings.FieldsSeq(text) {
		switch {
		case len(word) == 4:
			year = word
		case len(word) == 3:
			month = word
		default:
			date, err := time.Parse("2006 Jan 2", year+" "+month+" "+word)
			require.NoError(t, err)
			dates = append(dates, date.Format(time.DateOnly))
		}
	}
	return dates
}

// TestRFCTimes takes the examples of RFC 5545 that repeat within a day.
func TestRFCTimes(t *testing.T) {
	t.Parallel()
	newYork := zonetest.Load(t, "America/New_York")
	window := func(every time.Duration, from, to string) plan.Spec {
		return plan.Spec{Window: &plan.Window{Every: every.Milliseconds(), From: from, To: to}}
	}
	tests := []struct {
		name string
		spec plan.Spec
		want string
	}{
		{"every 3 hours from 09:00 to 17:00", window(3*time.Hour, "09:00", "17:00"), "2T09:00 2T12:00 2T15:00 3T09:00"},
		{"every 3 hours from 09:00 to 17:00, as cron", plan.Spec{Cron: "0 9-17/3 * * *"}, "2T09:00 2T12:00 2T15:00 3T09:00"},
		{"every 15 minutes", plan.Spec{Every: (15 * time.Minute).Milliseconds()}, "2T09:00 2T09:15 2T09:30 2T09:45 2T10:00 2T10:15"},
		{"every hour and a half", plan.Spec{Every: (90 * time.Minute).Milliseconds()}, "2T09:00 2T10:30 2T12:00 2T13:30"},
		{
			"every 20 minutes from 9:00 to 16:40", window(20*time.Minute, "09:00", "16:40"),
			"2T09:00 2T09:20 2T09:40 2T10:00 2T10:20 2T10:40 2T11:00 2T11:20 2T11:40 2T12:00 2T12:20 2T12:40 2T13:00 2T13:20 2T13:40 2T14:00 " +
				"2T14:20 2T14:40 2T15:00 2T15:20 2T15:40 2T16:00 2T16:20 2T16:40 3T09:00",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			start := time.Date(1997, time.September, 2, 9, 0, 0, 0, newYork)
			p, errs := plan.New(tt.spec, plan.Options{Zone: newYork, Start: start})
			require.Empty(t, errs)
			at := start.Add(-time.Millisecond)
			for want := range strings.FieldsSeq(tt.want) {
				at, _ = p.Next(at)
				assert.Equal(t, want, at.Format("2T15:04"))
			}
		})
	}
}

// federal returns the days on which the US federal government has a holiday, by the rules of the Office of Personnel
// Management (5 U.S.C. 6103): counted here day by day, without any recurrence rules.
func federal(year int) []string {
	var days []string
	nth := func(month time.Month, weekday time.Weekday, n int) {
		date := time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
		for date.Weekday() != weekday {
			date = date.AddDate(0, 0, 1)
		}
		days = append(days, date.AddDate(0, 0, 7*(n-1)).Format(time.DateOnly))
	}
	fixed := func(year int, month time.Month, day int) {
		date := time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
		switch date.Weekday() {
		case time.Saturday:
			date = date.AddDate(0, 0, -1)
		case time.Sunday:
			date = date.AddDate(0, 0, 1)
		default:
		}
		days = append(days, date.Format(time.DateOnly))
	}
	fixed(year, time.January, 1)
	fixed(year+1, time.January, 1) // may be observed on 31 December
	nth(time.January, time.Monday, 3)
	nth(time.February, time.Monday, 3)
	memorial := time.Date(year, time.June, 0, 0, 0, 0, 0, time.UTC)
	for memorial.Weekday() != time.Monday {
		memorial = memorial.AddDate(0, 0, -1)
	}
	days = append(days, memorial.Format(time.DateOnly))
	if year >= 2021 {
		fixed(year, time.June, 19)
	}
	fixed(year, time.July, 4)
	nth(time.September, time.Monday, 1)
	nth(time.October, time.Monday, 2)
	fixed(year, time.November, 11)
	nth(time.November, time.Thursday, 4)
	fixed(year, time.December, 25)
	slices.Sort(days)
	return slices.DeleteFunc(days, func(day string) bool { return day[:4] != time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC).Format("2006") })
}

func load(t *testing.T, file string, year int, keep func(icalendar.Event) bool) []string {
	t.Helper()
	data, err := os.ReadFile("../icalendar/testdata/" + file)
	require.NoError(t, err)
	days, err := icalendar.Dates(bytes.NewReader(data),
		time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(year, 12, 31, 0, 0, 0, 0, time.UTC), keep)
	require.NoError(t, err)
	return days
}

// TestFederalHolidays compares three ways to the same days of a century: rules of iCalendar, cron expressions, and OPM's.
func TestFederalHolidays(t *testing.T) {
	t.Parallel()
	var plans []*plan.Plan
	for _, expr := range []string{
		"0 0 1 1 MON-FRI", "0 0 31 12 FRI", "0 0 2 1 MON", // New Year's Day, or when it is observed
		"0 0 * 1 MON#3", "0 0 * 2 MON#3", "0 0 * 5 MONL",
		"0 0 0 19 6 MON-FRI 2021/1", "0 0 0 18 6 FRI 2021/1", "0 0 0 20 6 MON 2021/1",
		"0 0 4 7 MON-FRI", "0 0 3 7 FRI", "0 0 5 7 MON",
		"0 0 * 9 MON#1", "0 0 * 10 MON#2",
		"0 0 11 11 MON-FRI", "0 0 10 11 FRI", "0 0 12 11 MON",
		"0 0 * 11 THU#4",
		"0 0 25 12 MON-FRI", "0 0 24 12 FRI", "0 0 26 12 MON",
	} {
		p, errs := plan.New(plan.Spec{Cron: expr, Both: true}, plan.Options{Anchor: earliest})
		require.Empty(t, errs)
		plans = append(plans, p)
	}
	for year := 1990; year < 2100; year++ {
		want := federal(year)
		assert.Equal(t, want, load(t, "us-federal.ics", year, nil), year)
		var byCron []string
		first := time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
		for _, p := range plans {
			_, ticks, _ := p.Between(first.Add(-1), first.AddDate(1, 0, 0).Add(-1), 10)
			for _, tick := range ticks {
				byCron = append(byCron, tick.Format(time.DateOnly))
			}
		}
		slices.Sort(byCron)
		assert.Equal(t, want, byCron, year)
	}
}

// TestFederalWorkdays runs a daily job on workdays only, by a calendar that has been imported.
func TestFederalWorkdays(t *testing.T) {
	t.Parallel()
	const year = 2027
	calendar, err := plan.Compile(plan.Calendar{
		Name:    "us",
		Exclude: plan.Rules{Dates: load(t, "us-federal.ics", year, nil), Weekdays: []time.Weekday{time.Saturday, time.Sunday}},
	}, nil)
	require.NoError(t, err)
	washington := zonetest.Load(t, "America/New_York")
	p, errs := plan.New(plan.Spec{Cron: "0 9 * * *"}, plan.Options{Zone: washington, Calendar: calendar, Anchor: earliest})
	require.Empty(t, errs)
	var want []string
	for day := time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC); day.Year() == year; day = day.AddDate(0, 0, 1) {
		if isWorkday(day) && !slices.Contains(federal(year), day.Format(time.DateOnly)) {
			want = append(want, day.Format(time.DateOnly)+"T09:00")
		}
	}
	require.Len(t, want, 249)
	assert.Equal(t, want, ticksOf(p, time.Date(year, 1, 1, 0, 0, 0, 0, washington), time.Date(year+1, 1, 1, 0, 0, 0, 0, washington)))
}

func isWorkday(day time.Time) bool {
	return day.Weekday() != time.Saturday && day.Weekday() != time.Sunday
}

func ticksOf(p *plan.Plan, from, to time.Time) []string {
	var all []string
	for at, _ := p.Next(from.Add(-1)); at.Before(to); at, _ = p.Next(at) {
		all = append(all, at.Format("2006-01-02T15:04"))
	}
	return all
}

// TestStateCouncil runs a job on the workdays of China around the National Day of 2026, with the Saturday and the Sunday
// that make up for it, and moves the 1st of the month to the next workday.
func TestStateCouncil(t *testing.T) {
	t.Parallel()
	calendar, err := plan.Compile(plan.Calendar{
		Name: "cn",
		Exclude: plan.Rules{
			Dates:    load(t, "china.ics", 2026, func(e icalendar.Event) bool { return strings.Contains(e.Summary, "休") }),
			Weekdays: []time.Weekday{time.Saturday, time.Sunday},
		},
		Include: plan.Rules{Dates: load(t, "china.ics", 2026, func(e icalendar.Event) bool { return strings.Contains(e.Summary, "班") })},
	}, nil)
	require.NoError(t, err)
	shanghai := zonetest.Load(t, "Asia/Shanghai")
	p, errs := plan.New(plan.Spec{Cron: "0 9 * * *"}, plan.Options{Zone: shanghai, Calendar: calendar, Anchor: earliest})
	require.Empty(t, errs)
	var want []string
	for day := range strings.FieldsSeq("09-17 09-18 09-20 09-21 09-22 09-23 09-24 09-28 09-29 09-30 10-08 10-09 10-10 10-12 10-13") {
		want = append(want, "2026-"+day+"T09:00")
	}
	assert.Equal(t, want, ticksOf(p, time.Date(2026, 9, 17, 0, 0, 0, 0, shanghai), time.Date(2026, 10, 14, 0, 0, 0, 0, shanghai)))

	monthly := plan.Spec{Interval: &plan.Interval{N: 1, Unit: plan.UnitMonth, Day: 1, Time: "09:00"}}
	p, errs = plan.New(monthly, plan.Options{Zone: shanghai, Calendar: calendar, Excluded: plan.Next, Anchor: earliest})
	require.Empty(t, errs)
	assert.Equal(t, []string{
		"2026-01-04T09:00", "2026-02-02T09:00", "2026-03-02T09:00", "2026-04-01T09:00", "2026-05-06T09:00", "2026-06-01T09:00",
		"2026-07-01T09:00", "2026-08-03T09:00", "2026-09-01T09:00", "2026-10-08T09:00", "2026-11-02T09:00", "2026-12-01T09:00",
	}, ticksOf(p, time.Date(2026, 1, 1, 0, 0, 0, 0, shanghai), time.Date(2027, 1, 1, 0, 0, 0, 0, shanghai)))
}

// TestBankHolidays compares the bank holidays of England that do not depend on Easter, with those that were moved for
// jubilees and anniversaries, with the lists that GOV.UK has published.
func TestBankHolidays(t *testing.T) {
	t.Parallel()
	const file = `BEGIN:VCALENDAR
VERSION:2.0
BEGIN:VEVENT
UID:early-may
DTSTART;VALUE=DATE:19780501
RRULE:FREQ=YEARLY;BYMONTH=5;BYDAY=1MO
EXDATE;VALUE=DATE:19950501,20200504
RDATE;VALUE=DATE:19950508,20200508
END:VEVENT
BEGIN:VEVENT
UID:spring
DTSTART;VALUE=DATE:19710531
RRULE:FREQ=YEARLY;BYMONTH=5;BYDAY=-1MO
EXDATE;VALUE=DATE:20020527,20120528
RDATE;VALUE=DATE:20020604,20120604
END:VEVENT
BEGIN:VEVENT
UID:spring
RECURRENCE-ID;VALUE=DATE:20220530
DTSTART;VALUE=DATE:20220602
END:VEVENT
BEGIN:VEVENT
UID:summer
DTSTART;VALUE=DATE:19710830
RRULE:FREQ=YEARLY;BYMONTH=8;BYDAY=-1MO
END:VEVENT
END:VCALENDAR
`
	days, err := icalendar.Dates(strings.NewReader(file),
		time.Date(2019, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2027, 12, 31, 0, 0, 0, 0, time.UTC), nil)
	require.NoError(t, err)
	assert.Equal(t, strings.Fields(`2019-05-06 2019-05-27 2019-08-26 2020-05-08 2020-05-25 2020-08-31 2021-05-03 2021-05-31 2021-08-30
		2022-05-02 2022-06-02 2022-08-29 2023-05-01 2023-05-29 2023-08-28 2024-05-06 2024-05-27 2024-08-26
		2025-05-05 2025-05-26 2025-08-25 2026-05-04 2026-05-25 2026-08-31 2027-05-03 2027-05-31 2027-08-30`), days)

	// And where nothing was moved, by the day of the month: the first Monday is among the first seven days.
	for year := 2028; year < 2100; year++ {
		first := time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
		days, err := icalendar.Dates(strings.NewReader(file), first, first.AddDate(1, 0, -1), nil)
		require.NoError(t, err)
		var want []string
		for day := first; day.Year() == year; day = day.AddDate(0, 0, 1) {
			lastWeek := day.AddDate(0, 0, 7).Month() != day.Month()
			if day.Weekday() == time.Monday && (day.Month() == time.May && (day.Day() <= 7 || lastWeek) || day.Month() == time.August && lastWeek) {
				want = append(want, day.Format(time.DateOnly))
			}
		}
		assert.Equal(t, want, days, year)
	}
}

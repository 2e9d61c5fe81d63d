package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// String returns the spec in words, without the time zone.
func (s Spec) String() string {
	switch {
	case s.Cron != "":
		schedule, err := s.parse()
		if err != nil {
			return "cron " + s.Cron
		}
		return schedule.String()
	case s.Every > 0 && s.Aligned:
		return "every " + length(s.Every) + ", aligned to 1970-01-01 00:00 UTC"
	case s.Every > 0:
		return "every " + length(s.Every)
	case s.After > 0:
		return counted(s.After) + " after the end of the last run"
	case len(s.At) == 1:
		return "at " + instant(s.At[0])
	case len(s.At) > 1:
		return fmt.Sprintf("at %d instants from %s to %s", len(s.At), instant(slices.Min(s.At)), instant(slices.Max(s.At)))
	case s.Interval != nil:
		return s.Interval.String()
	case s.Window != nil:
		return s.Window.String()
	}
	return "never"
}

// String returns the interval in words.
func (i Interval) String() string {
	words := "every " + i.Unit
	if i.N != 1 {
		words = fmt.Sprintf("every %d %ss", i.N, i.Unit)
	}
	const its = " of its start"
	switch {
	case i.Unit == UnitWeek && len(i.Weekdays) > 0:
		words += " on " + weekdaysInWords(i.Weekdays)
	case i.Unit == UnitWeek:
		words += " on the weekday" + its
	case i.Unit == UnitDay:
	case i.Day == 0 && i.Month != 0:
		words += " in " + i.Month.String() + " on the day" + its
	case i.Day == 0:
		words += " on the day" + its
	case i.Unit == UnitYear && i.Month == 0:
		words += " on " + dayInWords(i.Day) + " of the month" + its
	case i.Unit == UnitYear:
		words += " on " + dayInWords(i.Day) + " of " + i.Month.String()
	default:
		words += " on " + dayInWords(i.Day)
	}
	switch {
	case i.Day != 0 && i.Day <= 28:
	case i.MonthEnd == MonthEndSkip:
		words += ", not in shorter months,"
	case i.MonthEnd == MonthEndNext:
		words += ", in shorter months on the first of the next,"
	}
	at := i.Time
	if at == "" {
		at = "00:00"
	}
	return words + " at " + at
}

// String returns the window in words.
func (w Window) String() string {
	words := fmt.Sprintf("every %s from %s to %s", length(w.Every), w.From, w.To)
	if len(w.Weekdays) > 0 {
		words += " on " + weekdaysInWords(w.Weekdays)
	}
	return words
}

func dayInWords(n int) string {
	switch {
	case n > 0:
		return fmt.Sprintf("day %d", n)
	case n == -1:
		return "the last day"
	case n == -2:
		return "the last day but one"
	default:
		return fmt.Sprintf("the last day but %d", -n-1)
	}
}

func weekdaysInWords(all []time.Weekday) string {
	days := slices.Clone(all)
	slices.SortFunc(days, func(a, b time.Weekday) int { return sinceMonday(a) - sinceMonday(b) })
	days = slices.Compact(days)
	if n := len(days); n > 2 && sinceMonday(days[n-1])-sinceMonday(days[0]) == n-1 {
		return days[0].String() + " to " + days[n-1].String()
	}
	names := make([]string, len(days))
	for i, weekday := range days {
		names[i] = weekday.String()
	}
	if n := len(names); n > 2 {
		names = []string{strings.Join(names[:n-1], ", "), names[n-1]}
	}
	return strings.Join(names, " and ")
}

// units are what lengths are told in.
var units = []struct {
	name string
	ms   int64
}{
	{"day", dayMS}, {"hour", 3_600_000}, {"minute", 60_000}, {"second", 1000}, {"millisecond", 1},
}

// counted tells a length in the largest unit of which it is a multiple.
func counted(ms int64) string {
	unit := units[0]
	for _, smaller := range units[1:] {
		if ms%unit.ms == 0 {
			break
		}
		unit = smaller
	}
	if ms == unit.ms {
		return "1 " + unit.name
	}
	return fmt.Sprintf("%d %ss", ms/unit.ms, unit.name)
}

// length tells a length after "every".
func length(ms int64) string { return strings.TrimPrefix(counted(ms), "1 ") }

func instant(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339Nano) }

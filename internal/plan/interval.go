package plan

import (
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/zone"
)

// interval is an [Interval] made ready. Its periods, the units of the calendar,
// are numbered so that the anchor is in one whose number is a multiple of n.
type interval struct {
	n        int
	unit     string
	origin   int // the period of the anchor, by the count of index
	weekdays []time.Weekday
	month    int // within the year or quarter, from 0
	dom      int // negative: from the end
	monthEnd string
	second   int // of the day
	zone     *time.Location
	rules    zone.Rules
}

func newInterval(spec Interval, anchor time.Time, zone *time.Location, rules zone.Rules) interval {
	year, month, dom := anchor.In(zone).Date()
	i := interval{
		n: spec.N, unit: spec.Unit, weekdays: slices.Clone(spec.Weekdays), dom: spec.Day,
		monthEnd: spec.MonthEnd, zone: zone, rules: rules,
	}
	if spec.Time != "" {
		ms, _ := timeOfDay(spec.Time) // validated
		i.second = int(ms / 1000)
	}
	first := dayOf(year, month, dom)
	i.origin = i.index(first)
	if len(i.weekdays) == 0 {
		i.weekdays = []time.Weekday{first.weekday()}
	}
	slices.SortFunc(i.weekdays, func(a, b time.Weekday) int { return sinceMonday(a) - sinceMonday(b) })
	if i.dom == 0 {
		i.dom = dom
	}
	switch {
	case spec.Unit == UnitYear && spec.Month != 0:
		i.month = int(spec.Month) - 1
	case spec.Unit == UnitYear:
		i.month = int(month) - 1
	case spec.Unit == UnitQuarter && spec.Day == 0:
		i.month = (int(month) - 1) % 3
	case spec.Unit == UnitQuarter && spec.Day < 0:
		i.month = 2
	}
	return i
}

func (i interval) next(after int64) int64 {
	// A clock set back over midnight shows the day before again, and that may have
	// the tick of the month before, which has no such day.
	d, _ := localTime(after, i.zone)
	period := i.index(d - 2)
	period -= int(floorMod(int64(period-i.origin), int64(i.n)))
	for ; i.first(period) < horizon/dayMS; period += i.n {
		for _, d := range i.days(period) {
			year, month, dom := d.date()
			for _, tick := range i.rules.Resolve(year, month, dom, i.second, i.zone) {
				if ms := tick.UnixMilli(); ms > after {
					return ms
				}
			}
		}
	}
	return never
}

// index numbers the period of a day.
func (i interval) index(d day) int {
	year, month, _ := d.date()
	months := 12*year + int(month) - 1
	switch i.unit {
	case UnitDay:
		return int(d)
	case UnitWeek:
		return int(floorDiv(int64(d-monday), 7))
	case UnitMonth:
		return months
	case UnitQuarter:
		return months / 3
	default:
		return year
	}
}

// monday is the first one since 1970-01-01.
const monday day = 4

// first returns the first day of a period.
func (i interval) first(period int) day {
	switch i.unit {
	case UnitDay:
		return day(period)
	case UnitWeek:
		return monday + day(7*period)
	case UnitMonth:
		return dayOf(0, time.Month(period+1), 1)
	case UnitQuarter:
		return dayOf(0, time.Month(3*period+1), 1)
	default:
		return dayOf(period, time.January, 1)
	}
}

// days returns the days of a period that have a tick, ascending.
func (i interval) days(period int) []day {
	switch i.unit {
	case UnitDay:
		return []day{i.first(period)}
	case UnitWeek:
		days := make([]day, len(i.weekdays))
		for k, weekday := range i.weekdays {
			days[k] = i.first(period) + day(sinceMonday(weekday))
		}
		return days
	default:
		return i.inMonth(i.first(period))
	}
}

// inMonth returns the day in the month within the period that begins at first, if
// there is one.
func (i interval) inMonth(first day) []day {
	year, month, _ := first.date()
	month += time.Month(i.month)
	begin, end := dayOf(year, month, 1), dayOf(year, month+1, 1)
	if i.dom < 0 {
		return []day{end + day(i.dom)}
	}
	d := begin + day(i.dom) - 1
	switch {
	case d < end:
		return []day{d}
	case i.monthEnd == MonthEndSkip:
		return nil
	case i.monthEnd == MonthEndNext:
		return []day{end}
	default:
		return []day{end - 1}
	}
}

func sinceMonday(weekday time.Weekday) int { return (int(weekday) + 6) % 7 }

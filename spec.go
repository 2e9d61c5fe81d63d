package carillon

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/carillon-go/carillon/internal/plan"
)

// Spec plans the ticks of a [Schedule]. It is a value: it is made by [Cron],
// [Every], [EveryAfter], [At], [Days], [Weeks], [Months], [Quarters], [Years] or
// [Window], refined by its methods, printed in words by String, and read back
// from its JSON. A mistake in the arguments is reported by Scheduler.Schedule.
type Spec struct {
	plan    plan.Spec
	problem string // a method that does not fit the kind
}

// Cron plans by a cron expression: five fields (minute, hour, day of month,
// month, day of week), six (seconds first) or seven (years last), or a macro such
// as @hourly. Fields take names, lists, ranges, which may wrap (FRI-MON), and
// steps. A day of the month can be L, L-n, LW or nW, a day of the week n#k or nL. A
// day that matches either of the day fields is planned when both are restricted;
// see [Spec.BothDays]. CRON_TZ=Zone in front sets the time zone.
func Cron(expression string) Spec { return Spec{plan: plan.Spec{Cron: expression}} }

// BothDays makes a Cron spec plan only days that match both the day of the month
// and the day of the week.
func (s Spec) BothDays() Spec {
	if s.plan.Cron == "" {
		return s.misused("BothDays", "Cron")
	}
	s.plan.Both = true
	return s
}

// Every plans a tick each interval: counted from Schedule.Start, which is the
// first one, or else from the moment the schedule is stored. At least 100 ms;
// the resolution is 1 ms.
func Every(interval time.Duration) Spec {
	ms, odd := wholeMS(interval)
	return Spec{plan: plan.Spec{Every: ms}, problem: odd}
}

// Aligned makes an Every spec plan the multiples of its interval since
// 1970-01-01T00:00:00Z, whenever it was stored.
func (s Spec) Aligned() Spec {
	if s.plan.Every == 0 {
		return s.misused("Aligned", "Every")
	}
	s.plan.Aligned = true
	return s
}

// EveryAfter plans each tick so long after the end of the run before. The first
// one is at Schedule.Start, or so long after the schedule was stored. At least
// 100 ms.
func EveryAfter(pause time.Duration) Spec {
	ms, odd := wholeMS(pause)
	return Spec{plan: plan.Spec{After: ms}, problem: odd}
}

// At plans single instants, at most 1,000. Those in the past are left out.
func At(instants ...time.Time) Spec {
	s := Spec{plan: plan.Spec{At: make([]int64, 0, len(instants))}}
	for _, t := range instants {
		if err := validTime("Spec", t); err != nil || t.IsZero() {
			s.problem = "an instant is not between the years 1970 and 2200"
		}
		s.plan.At = append(s.plan.At, ceilMilli(t).UnixMilli())
	}
	return s
}

// Days plans every n-th day at midnight, or at the time of day of [Spec.At], from
// the day of Schedule.Start, or else of the day on which the schedule is stored.
func Days(n int) Spec { return interval(plan.Interval{N: n, Unit: "day"}) }

// Weeks plans the given weekdays of every n-th week, counted as [Days] does. Weeks
// begin on Monday. Without weekdays it is that of the first day.
func Weeks(n int, weekdays ...time.Weekday) Spec {
	return interval(plan.Interval{N: n, Unit: "week", Weekdays: weekdays})
}

// Months plans a day of every n-th month, counted as [Days] does: 1 to 31, -1 for
// the last one, -2 for the one before, 0 for that of the first day. See
// [Spec.MonthEnd] for months that are too short.
func Months(n, day int) Spec { return interval(plan.Interval{N: n, Unit: "month", Day: day}) }

// Quarters plans a day of the first month of every n-th quarter of the year, or
// with -1 the last one of the quarter; see [Months].
func Quarters(n, day int) Spec { return interval(plan.Interval{N: n, Unit: "quarter", Day: day}) }

// Years plans a day of every n-th year; see [Months]. Month 0 is that of the first
// day.
func Years(n int, month time.Month, day int) Spec {
	return interval(plan.Interval{N: n, Unit: "year", Month: month, Day: day})
}

func interval(i plan.Interval) Spec { return Spec{plan: plan.Spec{Interval: &i}} }

// At sets the time of day of a spec in days, weeks, months, quarters or years, as
// "15:04" or "15:04:05" in the schedule's time zone.
func (s Spec) At(timeOfDay string) Spec {
	if s.plan.Interval == nil {
		return s.misused("At", "Days, Weeks, Months, Quarters and Years")
	}
	i := *s.plan.Interval
	i.Time = timeOfDay
	s.plan.Interval = &i
	return s
}

// MonthEnd says what a spec does in a month that does not have its day.
type MonthEnd string

// The rules for short months.
const (
	LastDay   MonthEnd = ""     // the last day of that month
	SkipMonth MonthEnd = "skip" // no tick
	NextMonth MonthEnd = "next" // the first day of the month after
)

// MonthEnd sets the rule for months that are too short; the default is LastDay.
func (s Spec) MonthEnd(rule MonthEnd) Spec {
	if s.plan.Interval == nil {
		return s.misused("MonthEnd", "Months, Quarters and Years")
	}
	i := *s.plan.Interval
	i.MonthEnd = string(rule)
	s.plan.Interval = &i
	return s
}

// Window plans a tick each interval between two local times of day, both
// included, on the given weekdays, or on all. from is the first tick; to may be
// the earlier one, then the window lasts over midnight and belongs to the day on
// which it opens.
func Window(interval time.Duration, from, to string, weekdays ...time.Weekday) Spec {
	ms, odd := wholeMS(interval)
	return Spec{plan: plan.Spec{Window: &plan.Window{Every: ms, From: from, To: to, Weekdays: weekdays}}, problem: odd}
}

// wholeMS reports a duration with a fraction of a millisecond as a problem.
func wholeMS(d time.Duration) (ms int64, problem string) {
	if d%time.Millisecond != 0 {
		problem = fmt.Sprintf("every %v is not a whole number of milliseconds", d)
	}
	return d.Milliseconds(), problem
}

// local reports whether the spec plans local times.
func (s Spec) local() bool {
	return s.plan.Cron != "" || s.plan.Interval != nil || s.plan.Window != nil
}

func (s Spec) misused(method, kinds string) Spec {
	s.problem = method + " is for " + kinds
	return s
}

// String returns the spec in words.
func (s Spec) String() string { return s.plan.String() }

// MarshalJSON encodes the spec; UnmarshalJSON reads it back.
func (s Spec) MarshalJSON() ([]byte, error) {
	if s.problem != "" {
		return nil, invalid("Spec", "%s", s.problem)
	}
	return json.Marshal(s.plan)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (s *Spec) UnmarshalJSON(data []byte) error {
	*s = Spec{}
	return json.Unmarshal(data, &s.plan)
}

// ClockChange says what happens to local times when clocks are changed, for Cron
// and for specs in days and longer. Cron expressions whose minute or hour field
// begins with '*', and Window, follow the time that passes instead: nothing where
// the clock jumps forward, and all of an hour that comes twice.
type ClockChange struct {
	Gap    Gap
	Repeat Repeat
}

// Gap is for a local time that does not exist.
type Gap int

// The rules for gaps.
const (
	GapShift Gap = iota // the tick is at the first instant after the gap
	GapSkip             // there is no tick
)

// Repeat is for a local time that comes twice.
type Repeat int

// The rules for repeated times.
const (
	RepeatFirst Repeat = iota // the tick is at the first of them
	RepeatLast
	RepeatBoth
)

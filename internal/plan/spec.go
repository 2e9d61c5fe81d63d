package plan

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/carillon-go/carillon/internal/cron"
)

// Limits of a spec.
const (
	minEvery = 100 * time.Millisecond
	maxEvery = 100 * 365 * 24 * time.Hour
	maxAt    = 1000
	maxN     = 1000
)

// Spec says when a schedule has ticks. Exactly one kind is set: Cron, Every,
// After, At, Interval or Window. Lengths and instants are in milliseconds, the
// latter since 1970-01-01T00:00Z.
type Spec struct {
	Cron     string    `json:"cron,omitempty"`
	Both     bool      `json:"both,omitempty"`    // of Cron: a day has to match both day fields, not either
	Every    int64     `json:"everyMs,omitempty"` // counted from the start of the plan, or from its anchor
	Aligned  bool      `json:"aligned,omitempty"` // of Every: the multiples since 1970-01-01T00:00Z
	After    int64     `json:"afterMs,omitempty"` // from the end of a run to the next; its ticks are not known beforehand
	At       []int64   `json:"atMs,omitempty"`
	Interval *Interval `json:"interval,omitempty"`
	Window   *Window   `json:"window,omitempty"`
}

// The units of an [Interval].
const (
	UnitDay     = "day"
	UnitWeek    = "week" // begins on Monday
	UnitMonth   = "month"
	UnitQuarter = "quarter" // begins in January, April, July or October
	UnitYear    = "year"
)

// What becomes of a day that a month does not have.
const (
	MonthEndLast = ""     // the last day of that month
	MonthEndSkip = "skip" // that month has none
	MonthEndNext = "next" // the first day of the month after
)

// Interval has a tick every N units of the calendar, counted from the unit in
// which the plan starts or was stored, the anchor. What is left out is as in the
// anchor, except for Time.
type Interval struct {
	N        int            `json:"n"` // 1 to 1000
	Unit     string         `json:"unit"`
	Weekdays []time.Weekday `json:"weekdays,omitempty"` // of a week
	// Day is that of the month, and of the first month of a quarter: 1 to 31, or
	// -1 for the last of the month or quarter, -2 for the last but one, to -28.
	Day      int        `json:"day,omitempty"`
	Month    time.Month `json:"month,omitempty"`    // of a year
	Time     string     `json:"time,omitempty"`     // 15:04 or 15:04:05, empty for midnight
	MonthEnd string     `json:"monthEnd,omitempty"` // one of the constants
}

// Window has a tick at From and then every so many milliseconds until To, which
// is included, as a clock on the wall shows them: times that a clock change skips
// do not exist, and those it repeats come twice. To before From is past midnight;
// such a window belongs to the weekday on which it began.
type Window struct {
	Every    int64          `json:"everyMs"`
	From     string         `json:"from"` // 15:04 or 15:04:05
	To       string         `json:"to"`
	Weekdays []time.Weekday `json:"weekdays,omitempty"` // empty for all
}

// Validate returns everything that is wrong with the spec, each error beginning
// with the field.
func (s Spec) Validate() []error {
	var p problems
	s.check(&p)
	return p
}

// check adds what is wrong to the problems, and returns what it parsed.
func (s Spec) check(p *problems) (schedule cron.Schedule) {
	switch kinds := s.kinds(); {
	case len(kinds) == 0 && s.At != nil:
		p.add("At", "is an empty list, so it never fires")
	case len(kinds) == 0:
		p.add("Spec", "is empty, so it never fires; expected one of Cron, Every, After, At, Interval and Window")
	case len(kinds) > 1:
		p.add("Spec", "has %s; expected exactly one", strings.Join(kinds, " and "))
	}
	if s.Cron != "" {
		var err error
		if schedule, err = s.parse(); err != nil {
			p.add("Cron", "%w", err)
		}
	} else if s.Both {
		p.add("Both", "is about the day fields of Cron, which is empty")
	}
	if s.Every != 0 {
		p.length("Every", s.Every, maxEvery)
	} else if s.Aligned {
		p.add("Aligned", "is about Every, which is 0")
	}
	if s.After != 0 {
		p.length("After", s.After, maxEvery)
	}
	if len(s.At) > maxAt {
		p.add("At", "has %d instants, at most %d are allowed", len(s.At), maxAt)
	}
	for i, at := range s.At[:min(len(s.At), maxAt)] {
		p.instant(fmt.Sprintf("At[%d]", i), time.UnixMilli(at))
	}
	if s.Interval != nil {
		s.Interval.check(p)
	}
	if s.Window != nil {
		s.Window.check(p)
	}
	return schedule
}

// kinds names the kinds that are set.
func (s Spec) kinds() (kinds []string) {
	for _, kind := range []struct {
		name string
		set  bool
	}{
		{"Cron", s.Cron != ""}, {"Every", s.Every != 0}, {"After", s.After != 0},
		{"At", len(s.At) > 0}, {"Interval", s.Interval != nil}, {"Window", s.Window != nil},
	} {
		if kind.set {
			kinds = append(kinds, kind.name)
		}
	}
	return kinds
}

func (s Spec) parse() (cron.Schedule, error) { return cron.Parse(s.Cron, s.Both) }

func (i Interval) check(p *problems) {
	if i.N < 1 || i.N > maxN {
		p.add("Interval.N", "%d is not between 1 and %d", i.N, maxN)
	}
	hasDay := i.Unit == UnitMonth || i.Unit == UnitQuarter || i.Unit == UnitYear
	switch i.Unit {
	case UnitDay, UnitWeek, UnitMonth, UnitQuarter, UnitYear:
	default:
		p.add("Interval.Unit", "%q is not %s, %s, %s, %s or %s", clip(i.Unit), UnitDay, UnitWeek, UnitMonth, UnitQuarter, UnitYear)
		hasDay = true // whatever was meant
	}
	if len(i.Weekdays) > 0 && i.Unit != UnitWeek {
		p.add("Interval.Weekdays", "are for the unit %s", UnitWeek)
	}
	p.weekdays("Interval.Weekdays", i.Weekdays)
	switch {
	case !hasDay && i.Day != 0:
		p.add("Interval.Day", "is for the units %s, %s and %s", UnitMonth, UnitQuarter, UnitYear)
	case i.Day < -28 || i.Day > 31:
		p.add("Interval.Day", "%d is not between 1 and 31, nor between -1 for the last day and -28", i.Day)
	}
	switch {
	case i.Month != 0 && i.Unit != UnitYear:
		p.add("Interval.Month", "is for the unit %s", UnitYear)
	case i.Month < 0 || i.Month > 12:
		p.add("Interval.Month", "%d is not between 1 and 12", i.Month)
	}
	if i.Time != "" {
		p.timeOfDay("Interval.Time", i.Time)
	}
	switch i.MonthEnd {
	case MonthEndLast:
	case MonthEndSkip, MonthEndNext:
		if !hasDay {
			p.add("Interval.MonthEnd", "is for the units %s, %s and %s", UnitMonth, UnitQuarter, UnitYear)
		}
	default:
		p.add("Interval.MonthEnd", "%q is not empty, %s or %s", clip(i.MonthEnd), MonthEndSkip, MonthEndNext)
	}
}

func (w Window) check(p *problems) {
	p.length("Window.Every", w.Every, 24*time.Hour)
	from, fromOK := p.timeOfDay("Window.From", w.From)
	to, toOK := p.timeOfDay("Window.To", w.To)
	if fromOK && toOK && from == to {
		p.add("Window.To", "%s equals From; expected another time, for a whole day 00:00 to 23:59:59", w.To)
	}
	p.weekdays("Window.Weekdays", w.Weekdays)
}

// problems collects what is wrong with a value.
type problems []error

func (p *problems) add(field, format string, args ...any) {
	*p = append(*p, fmt.Errorf(field+": "+format, args...))
}

func (p *problems) length(field string, ms int64, most time.Duration) {
	if ms < minEvery.Milliseconds() || ms > most.Milliseconds() {
		p.add(field, "%d ms is not between %v and %v", ms, minEvery, most)
	}
}

func (p *problems) instant(field string, at time.Time) {
	if at.IsZero() {
		p.add(field, "is the zero time")
	} else if ms := at.UnixMilli(); ms < 0 || ms >= horizon {
		p.add(field, "%s is not in the years 1970 to 2199", at.UTC().Format(time.RFC3339))
	}
}

func (p *problems) weekdays(field string, weekdays []time.Weekday) {
	for i, weekday := range weekdays {
		if weekday < time.Sunday || weekday > time.Saturday {
			p.add(fmt.Sprintf("%s[%d]", field, i), "%d is not between 0 (Sunday) and 6 (Saturday)", weekday)
		}
	}
}

func (p *problems) timeOfDay(field, text string) (ms int64, ok bool) {
	ms, err := timeOfDay(text)
	if err != nil {
		p.add(field, "%w", err)
	}
	return ms, err == nil
}

// timeOfDay reads 15:04 or 15:04:05 as milliseconds since midnight.
func timeOfDay(text string) (ms int64, err error) {
	for _, layout := range []string{"15:04", time.TimeOnly} {
		// Parse alone would take 9:04, and fractions of a second.
		if at, err := time.Parse(layout, text); err == nil && len(text) == len(layout) {
			return at.Sub(time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)).Milliseconds(), nil
		}
	}
	return 0, fmt.Errorf("%q is not a time of day as 09:00 or 09:00:30", clip(text))
}

// clip keeps the text of a user in an error short.
func clip(text string) string {
	if len(text) > 64 {
		return text[:64] + "…"
	}
	return text
}

// join makes one error of problems, nil of none.
func (p problems) join() error { return errors.Join(p...) }

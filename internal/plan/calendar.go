package plan

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/carillon-go/carillon/internal/zone"
)

// Limits of a calendar.
const (
	maxName      = 150
	maxBases     = 32
	maxCalendars = 100 // of which one is made, with the bases of its bases
	maxDates     = 10_000
	maxYearly    = 366
	maxTimes     = 100
)

// Calendar takes days and times of the day away from plans.
//
// A day is excluded if Exclude or a calendar of Base says so, unless Include says
// that it is not; the same goes, apart from that, for the times of the day. So an
// included Saturday is a day like any other: it has the lunch break that Times
// exclude on all days.
type Calendar struct {
	Name string `json:"name"`
	// TimeZone is that of Times; empty means that of the schedule. Days are always
	// those of the schedule's zone.
	TimeZone string   `json:"tz,omitempty"`
	Base     []string `json:"base,omitempty"` // names of calendars
	Exclude  Rules    `json:"exclude,omitzero"`
	Include  Rules    `json:"include,omitzero"`
}

// Rules select days, and times of every day.
type Rules struct {
	Dates    []string       `json:"dates,omitempty"`  // 2026-10-01, or 2026-10-01/2026-10-07 with both ends
	Yearly   []string       `json:"yearly,omitempty"` // 12-25
	Weekdays []time.Weekday `json:"weekdays,omitempty"`
	// Times are 12:00-13:30, without the end, which may be 24:00. From a later to
	// an earlier time is past midnight.
	Times []string `json:"times,omitempty"`
}

// IsZero reports whether the rules select nothing. JSON leaves them out then, also
// when a list is empty instead of nil, so that equal calendars are stored alike.
func (r Rules) IsZero() bool {
	return len(r.Dates)+len(r.Yearly)+len(r.Weekdays)+len(r.Times) == 0
}

// Validate returns everything that is wrong with the calendar itself, each error
// beginning with the field. What is wrong with its bases is found by [Compile].
func (c Calendar) Validate() []error {
	var p problems
	if c.Name == "" || len(c.Name) > maxName {
		p.add("Name", "has %d bytes, expected 1 to %d", len(c.Name), maxName)
	}
	if c.TimeZone != "" {
		if _, err := zone.Load(c.TimeZone); err != nil {
			p.add("TimeZone", "%w", err)
		}
	}
	p.count("Base", len(c.Base), maxBases)
	for i, name := range c.Base {
		if name == "" {
			p.add(fmt.Sprintf("Base[%d]", i), "is empty; expected the name of a calendar")
		}
	}
	c.Exclude.compile("Exclude", &p)
	c.Include.compile("Include", &p)
	return p
}

func (p *problems) count(field string, n, most int) {
	if n > most {
		p.add(field, "has %d entries, at most %d are allowed", n, most)
	}
}

// compile makes rules quick to ask, and adds to the problems what it could not
// read.
func (r Rules) compile(field string, p *problems) ruleSet {
	set := ruleSet{yearly: make(map[monthDay]bool, len(r.Yearly))}
	p.count(field+".Dates", len(r.Dates), maxDates)
	for i, text := range r.Dates {
		dates, err := parseDates(text)
		if err != nil {
			p.add(fmt.Sprintf("%s.Dates[%d]", field, i), "%w", err)
		}
		set.dates = append(set.dates, dates)
	}
	p.count(field+".Yearly", len(r.Yearly), maxYearly)
	for i, text := range r.Yearly {
		// A leap year, so that 02-29 is a date.
		at, err := time.Parse(time.DateOnly, "2000-"+text)
		if err != nil {
			p.add(fmt.Sprintf("%s.Yearly[%d]", field, i), "%q is not a day of the year as 12-25", clip(text))
		}
		set.yearly[monthDay{at.Month(), at.Day()}] = true
	}
	p.weekdays(field+".Weekdays", r.Weekdays)
	set.weekdays = weekdaySet(r.Weekdays)
	p.count(field+".Times", len(r.Times), maxTimes)
	for i, text := range r.Times {
		times, err := parseTimes(text)
		if err != nil {
			p.add(fmt.Sprintf("%s.Times[%d]", field, i), "%w", err)
		}
		set.times = append(set.times, times)
	}
	set.sort()
	return set
}

func parseDates(text string) (r dayRange, err error) {
	from, to, isRange := strings.Cut(text, "/")
	if !isRange {
		to = from
	}
	for i, half := range []string{from, to} {
		at, err := time.Parse(time.DateOnly, half)
		if err != nil {
			return r, fmt.Errorf("%q is not a date as 2026-10-01 or 2026-10-01/2026-10-07", clip(text))
		}
		if at.Year() < 1970 || at.Year() > 2199 {
			return r, fmt.Errorf("%q is not in the years 1970 to 2199", clip(text))
		}
		*[]*day{&r.from, &r.to}[i] = dayOf(at.Date())
	}
	if r.to < r.from {
		return r, fmt.Errorf("%q ends before it begins", clip(text))
	}
	return r, nil
}

func parseTimes(text string) (r timeRange, err error) {
	from, to, ok := strings.Cut(text, "-")
	if r.from, err = timeOfDay(from); err != nil {
		ok = false
	}
	if r.to, err = timeOfDay(to); to == "24:00" {
		r.to = dayMS
	} else if err != nil {
		ok = false
	}
	if !ok {
		return r, fmt.Errorf("%q is not a range of times as 12:00-13:30 or 18:00-24:00", clip(text))
	}
	if r.from == r.to {
		return r, fmt.Errorf("%s is empty; expected two times, for a whole day 00:00-24:00", strconv.Quote(text))
	}
	return r, nil
}

// Compile makes a calendar ready for plans. base finds a calendar by its name, nil
// if there is none. Calendars that are each other's bases are refused, and one
// that leaves nothing.
func Compile(c Calendar, base func(name string) (*Calendar, error)) (*Excluder, error) {
	m := compiler{find: base, index: map[string]int{}}
	if _, err := m.add(c, nil); err != nil {
		return nil, err
	}
	if !m.made.leavesDay() {
		return nil, fmt.Errorf("calendar %q: excludes every day; expected that some day is left", c.Name)
	}
	if !m.made.leavesTime() {
		return nil, fmt.Errorf("calendar %q: Times exclude all of every day; expected that some time is left", c.Name)
	}
	return &m.made, nil
}

// compiler makes a calendar and its bases ready, each once.
type compiler struct {
	find  func(name string) (*Calendar, error)
	made  Excluder
	index map[string]int // of a calendar in made, underWay before it is there
}

const underWay = -1

// add makes a calendar that those of path need, and returns its index.
func (m *compiler) add(c Calendar, path []string) (int, error) {
	fail := func(format string, args ...any) (int, error) {
		return 0, fmt.Errorf("calendar %q: %w", clip(c.Name), fmt.Errorf(format, args...))
	}
	if errs := problems(c.Validate()); errs != nil {
		return fail("%w", errs.join())
	}
	path = append(path, c.Name)
	m.index[c.Name] = underWay
	if len(m.index) > maxCalendars {
		return fail("is one more than the %d calendars that %q may have as bases of bases", maxCalendars-1, path[0])
	}
	n := node{
		exclude: c.Exclude.compile("Exclude", new(problems)),
		include: c.Include.compile("Include", new(problems)),
	}
	n.cuts = cuts(n.exclude.times, n.include.times)
	if c.TimeZone != "" {
		loc, err := zone.Load(c.TimeZone)
		if err != nil {
			return fail("TimeZone: %w", err)
		}
		n.zone = loc
	}
	for i, name := range c.Base {
		made, seen := m.index[name]
		switch {
		case !seen:
			found, err := m.find(name)
			if err != nil {
				return fail("Base[%d]: %q: %w", i, clip(name), err)
			}
			if found == nil {
				return fail("Base[%d]: there is no calendar %q", i, clip(name))
			}
			base := *found
			base.Name = name // the one it was asked for by
			if made, err = m.add(base, path); err != nil {
				return 0, err
			}
		case made == underWay:
			return fail("Base[%d]: is a cycle: %s", i, strings.Join(append(path, name), " → "))
		}
		n.bases = append(n.bases, made)
	}
	m.made.nodes = append(m.made.nodes, n)
	m.index[c.Name] = len(m.made.nodes) - 1
	return m.index[c.Name], nil
}

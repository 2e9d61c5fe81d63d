package plan

import (
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/cron"
	"github.com/carillon-go/carillon/internal/zone"
)

// Options of a plan besides its [Spec].
type Options struct {
	Zone       *time.Location // nil: that which the cron expression names, or UTC
	Rules      zone.Rules
	Start, End time.Time // no tick before and after; zero: no bound
	Anchor     time.Time // when the schedule was stored; what is counted is counted from Start, else from here
	Calendar   *Excluder // nil: none
	Excluded   Move
}

// Plan computes ticks. It is immutable.
type Plan struct {
	candidates source // before the calendar takes away
	start, end int64
	calendar   *Excluder
	zone       *time.Location
}

// Span is a range of time by its first and last instant; the zero Span is empty.
type Span struct{ First, Last time.Time }

// New makes a spec ready. It returns everything that is wrong with it and with the
// options, each error beginning with the field, also that nothing is ever planned
// from the anchor on.
func New(s Spec, o Options) (*Plan, []error) {
	var p problems
	schedule := s.check(&p)
	o.Zone = chooseZone(o.Zone, schedule.Zone(), &p)
	end := int64(horizon - 1)
	if !o.Start.IsZero() {
		p.instant("Start", o.Start)
	}
	if !o.End.IsZero() {
		p.instant("End", o.End)
		end = o.End.UnixMilli()
	}
	if !o.End.IsZero() && o.End.Before(o.Start) {
		p.add("End", "%s is before Start, %s", stamp(o.End), stamp(o.Start))
	}
	if o.Excluded < Skip || o.Excluded > Previous {
		p.add("OnExcluded", "%d is not Skip, Next or Previous", o.Excluded)
	}
	if len(p) > 0 {
		return nil, p
	}
	raw := newSource(s, schedule, o)
	plan := &Plan{start: ceilMilli(o.Start), end: end, calendar: o.Calendar, zone: o.Zone}
	plan.candidates = bounded{raw, plan.start, plan.end}
	if o.Calendar != nil && o.Excluded != Skip {
		plan.candidates = moved{plan.candidates, o.Calendar, o.Excluded == Previous, o.Zone, o.Rules}
	}
	if s.After == 0 {
		plan.checkFires(raw, max(ceilMilli(o.Anchor), plan.start)-1, &p)
	}
	if len(p) > 0 {
		return nil, p
	}
	return plan, nil
}

// chooseZone returns the zone of the options or that which a cron expression names.
func chooseZone(loc *time.Location, name string, p *problems) *time.Location {
	if loc == nil {
		loc = time.UTC
	}
	if loc == time.Local {
		p.add("TimeZone", "Local differs between machines; expected an IANA name such as Europe/Berlin, or UTC")
	}
	switch {
	case name == "" || name == loc.String():
	case loc.String() != "UTC":
		p.add("Cron", "names the time zone %q, but TimeZone is %q; expected one of them", name, loc)
	default:
		var err error
		if loc, err = zone.Load(name); err != nil {
			p.add("Cron", "%w", err)
		}
	}
	return loc
}

// newSource returns the ticks of a valid spec without bounds and calendar.
func newSource(s Spec, schedule cron.Schedule, o Options) source {
	origin, first := o.Start, ceilMilli(o.Start)
	if origin.IsZero() {
		origin = o.Anchor
		first = ceilMilli(o.Anchor) + s.Every
	}
	switch {
	case s.Cron != "":
		return crontab{schedule, o.Zone, o.Rules}
	case s.Every > 0 && s.Aligned:
		return every{0, s.Every}
	case s.Every > 0:
		return every{first, s.Every}
	case s.Interval != nil:
		return newInterval(*s.Interval, origin, o.Zone, o.Rules)
	case s.Window != nil:
		return newWindow(*s.Window, o.Zone)
	case len(s.At) > 0:
		return at(slices.Compact(slices.Sorted(slices.Values(s.At))))
	default:
		return none{}
	}
}

// checkFires adds to the problems why there is no tick after an instant, if so.
func (p *Plan) checkFires(raw source, after int64, problems *problems) {
	if p.next(after) != never {
		return
	}
	switch first := raw.next(after); {
	case first >= horizon:
		problems.add("Spec", "never fires after %s", stamp(time.UnixMilli(after+1)))
	case first > p.end:
		problems.add("End", "%s is before the first tick, %s, so it never fires",
			stamp(time.UnixMilli(p.end)), stamp(time.UnixMilli(first)))
	default:
		problems.add("Calendar", "excludes every tick from the first, %s, on, so it never fires", stamp(time.UnixMilli(first)))
	}
}

// Next returns the first tick strictly after an instant, zero when there is none,
// and of the ticks that the calendar took away before it the first and the last.
// When a calendar excludes 5 years, or 100 ticks in no less, there is none.
func (p *Plan) Next(after time.Time) (tick time.Time, skipped Span) {
	found, first, until := p.search(floorMilli(after))
	if first < until {
		step := p.candidates.next(first) - first
		last, _ := lastTick(p.candidates, first-1, until, step)
		skipped = Span{p.time(first), p.time(last)}
	}
	return p.time(found), skipped
}

// Between returns the earliest tick in (after, until] and the last n ones, oldest
// first; more says that there are ticks before last[0], of which first is the
// earliest. It takes about as long for ticks of years as for those of a minute.
func (p *Plan) Between(after, until time.Time, n int) (first time.Time, last []time.Time, more bool) {
	from, to := floorMilli(after), floorMilli(until)
	earliest := p.next(from)
	if earliest > to {
		return time.Time{}, nil, false
	}
	before, reach := to+1, int64(1)
	for range n {
		tick, ok := lastTick(p, from, before, reach)
		if !ok {
			break
		}
		before, reach = tick, before-tick
		last = append(last, p.time(tick))
	}
	slices.Reverse(last)
	return p.time(earliest), last, earliest < before
}

// Planned reports whether an instant is a tick.
func (p *Plan) Planned(at time.Time) bool {
	tick := floorMilli(at)
	return at.Equal(time.UnixMilli(tick)) && p.next(tick-1) == tick
}

// Open returns the first instant from one on that Start, End and the calendar
// allow, zero when there is none: it is for the ticks of After, which are not
// known beforehand.
func (p *Plan) Open(at time.Time) time.Time {
	from := max(ceilMilli(at), p.start)
	if p.calendar != nil {
		limit := from + patience*dayMS
		if from = p.calendar.open(from, limit, p.zone); from >= limit {
			from = never
		}
	}
	if from > p.end {
		from = never
	}
	return p.time(from)
}

// next makes a plan a source.
func (p *Plan) next(after int64) int64 {
	tick, _, _ := p.search(after)
	return tick
}

// search returns the first tick after an instant, the first candidate for it, and
// up to where the calendar takes all candidates away: to the tick, if there is one.
func (p *Plan) search(after int64) (tick, first, until int64) {
	first = p.candidates.next(max(after, p.start-1))
	for tick, tries := first, 1; tick <= p.end; tries++ {
		if p.calendar == nil {
			return tick, first, tick
		}
		if tries > 100 && tick > after+patience*dayMS {
			return never, first, tick
		}
		limit := tick + patience*dayMS
		open := p.calendar.open(tick, limit, p.zone)
		if open == tick {
			return tick, first, tick
		}
		if open >= limit {
			return never, first, open
		}
		tick = p.candidates.next(open - 1)
	}
	return never, first, p.end + 1
}

// time returns an instant as the clock of the plan shows it, zero for never.
func (p *Plan) time(at int64) time.Time {
	if at == never {
		return time.Time{}
	}
	return time.UnixMilli(at).In(p.zone)
}

// floorMilli and ceilMilli round to milliseconds. What lies outside the years in
// which there are ticks is just outside.
func floorMilli(t time.Time) int64 { return min(max(t.UnixMilli(), -1), horizon) }

func ceilMilli(t time.Time) int64 {
	return min(max(t.Add(time.Millisecond-1).UnixMilli(), 0), horizon)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

package plan

import (
	"slices"
	"time"
)

// Excluder is a calendar made ready by [Compile]. It is immutable.
type Excluder struct {
	// The calendar comes last, and each after its bases. So one pass answers, also
	// where many calendars share bases that share bases.
	nodes []node
}

// A node is one calendar.
type node struct {
	zone             *time.Location // of the times; nil is that of the plan
	exclude, include ruleSet
	cuts             []int64 // the times of the day at which a range of times begins or ends
	bases            []int   // indices of nodes
}

type (
	dayRange  struct{ from, to day }   // with to
	timeRange struct{ from, to int64 } // without to; to before from is past midnight
	monthDay  struct {
		month time.Month
		day   int
	}
	weekdays uint8 // a bit for each
)

// A ruleSet is what [Rules] select.
type ruleSet struct {
	dates    []dayRange // ascending, without overlaps
	yearly   map[monthDay]bool
	weekdays weekdays
	times    []timeRange
}

func weekdaySet(all []time.Weekday) (set weekdays) {
	for _, weekday := range all {
		set |= 1 << weekday
	}
	return set
}

func (w weekdays) has(weekday time.Weekday) bool { return w&(1<<weekday) != 0 }

// sort makes the dates fit for a binary search.
func (r *ruleSet) sort() {
	slices.SortFunc(r.dates, func(a, b dayRange) int { return int(a.from - b.from) })
	var merged []dayRange
	for _, next := range r.dates {
		if n := len(merged); n > 0 && next.from <= merged[n-1].to {
			merged[n-1].to = max(merged[n-1].to, next.to)
			continue
		}
		merged = append(merged, next)
	}
	r.dates = merged
}

func (r *ruleSet) hasDay(d day) bool {
	if r.weekdays.has(d.weekday()) {
		return true
	}
	if len(r.yearly) > 0 {
		if _, month, dom := d.date(); r.yearly[monthDay{month, dom}] {
			return true
		}
	}
	i, _ := slices.BinarySearchFunc(r.dates, d, func(r dayRange, d day) int { return int(r.to - d) })
	return i < len(r.dates) && r.dates[i].from <= d
}

func (r *ruleSet) hasTime(ms int64) bool {
	return slices.ContainsFunc(r.times, func(t timeRange) bool {
		if t.from < t.to {
			return t.from <= ms && ms < t.to
		}
		return t.from <= ms || ms < t.to
	})
}

// cuts returns the times of the day between which nothing changes.
func cuts(sets ...[]timeRange) (all []int64) {
	for _, set := range sets {
		for _, t := range set {
			all = append(all, t.from, t.to)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// verdicts are those of the nodes, for one question.
type verdicts [maxCalendars]bool

// decide notes the verdict of the i-th node; included and excluded are what its
// own rules say.
func (e *Excluder) decide(v *verdicts, i int, included, excluded bool) {
	v[i] = !included && (excluded || slices.ContainsFunc(e.nodes[i].bases, func(b int) bool { return v[b] }))
}

// excludesDay reports whether a day is taken away.
func (e *Excluder) excludesDay(d day) bool {
	var v verdicts
	for i := range e.nodes {
		n := &e.nodes[i]
		e.decide(&v, i, n.include.hasDay(d), n.exclude.hasDay(d))
	}
	return v[len(e.nodes)-1]
}

// excludesTime reports whether the time of the day at an instant is taken away in
// a plan with the zone loc, and until when that surely stays so.
func (e *Excluder) excludesTime(at int64, loc *time.Location) (excluded bool, until int64) {
	var v verdicts
	until = never
	for i := range e.nodes {
		n := &e.nodes[i]
		if len(n.cuts) == 0 {
			e.decide(&v, i, false, false)
			continue
		}
		zone := loc
		if n.zone != nil {
			zone = n.zone
		}
		_, ms := localTime(at, zone)
		cut := int64(dayMS)
		if i, _ := slices.BinarySearch(n.cuts, ms+1); i < len(n.cuts) {
			cut = n.cuts[i]
		}
		until = min(until, at+cut-ms, change(at, zone))
		e.decide(&v, i, n.include.hasTime(ms), n.exclude.hasTime(ms))
	}
	return v[len(e.nodes)-1], until
}

// open returns the first instant from at on that is not excluded in a plan with
// the zone loc; if there is none before limit, limit or a later one.
func (e *Excluder) open(at, limit int64, loc *time.Location) int64 {
	for at < limit {
		d, ms := localTime(at, loc)
		if e.excludesDay(d) {
			at = min(at+dayMS-ms, change(at, loc))
			continue
		}
		excluded, until := e.excludesTime(at, loc)
		if !excluded {
			break
		}
		at = until
	}
	return at
}

// leavesDay reports whether any day is not excluded.
func (e *Excluder) leavesDay() bool {
	for d := day(0); d < horizon/dayMS; d++ {
		if !e.excludesDay(d) {
			return true
		}
	}
	return false
}

// leavesTime reports whether any time of a day is not excluded. The calendars may
// have zones of their own, so the answer could differ between days when clocks
// were changed in some of them; a plan finds out what is left in the end.
func (e *Excluder) leavesTime() bool {
	for _, start := range []time.Time{
		time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC), time.Date(2026, 7, 15, 0, 0, 0, 0, time.UTC),
	} {
		for at, end := start.UnixMilli(), start.AddDate(0, 0, 2).UnixMilli(); at < end; {
			excluded, until := e.excludesTime(at, time.UTC)
			if !excluded {
				return true
			}
			at = until
		}
	}
	return false
}

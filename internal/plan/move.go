package plan

import (
	"time"

	"github.com/carillon-go/carillon/internal/zone"
)

// Move is what becomes of a tick on a day that a calendar excludes.
type Move int

// The moves. A tick that is moved has the local time that it had, by the rules for
// clock changes of the plan; several that arrive at the same instant are one.
const (
	Skip     Move = iota // it is dropped
	Next                 // it is moved to the next day that is not excluded
	Previous             // it is moved to the day before that is not excluded
)

// patience is how many days in a row may be excluded.
const patience = 5 * 366

// moved has the ticks of a source, those of excluded days on the days to which
// they are moved. Ticks are not gathered but sought where they would come from,
// so a tick every 100 ms costs no more than one a day.
type moved struct {
	source
	calendar *Excluder
	back     bool // to the day before
	zone     *time.Location
	rules    zone.Rules
}

// A group is an open day and the excluded ones whose ticks are moved to it.
type group struct {
	to, lo, hi day // lo ≤ to ≤ hi
}

func (m moved) next(after int64) int64 {
	// A clock that is set back over midnight shows a day again after the next one has
	// begun, and a gap over midnight moves ticks to the day after.
	today, _ := localTime(after, m.zone)
	d := today - 1
	best := int64(never)
	for {
		g, ok := m.group(d)
		if ok {
			best = min(best, m.landed(g, after))
		} else if !m.back {
			return best
		}
		rest := begins(g.hi+1, m.zone)
		if best < rest || rest >= horizon {
			return best
		}
		tick := m.source.next(rest - 1)
		if tick == never {
			return best
		}
		following, _ := localTime(tick, m.zone)
		d = max(following, g.hi+1)
	}
}

// group returns the group of a day; ok is false if there is no open day for it.
func (m moved) group(d day) (g group, ok bool) {
	g = group{d, d, d}
	if m.back {
		for ok = m.open(g.lo); !ok && d-g.lo < patience; ok = m.open(g.lo) {
			g.lo--
		}
		g.to = g.lo
		for g.hi-d < patience && !m.open(g.hi+1) {
			g.hi++
		}
		return g, ok
	}
	for ok = m.open(g.hi); !ok && g.hi-d < patience; ok = m.open(g.hi) {
		g.hi++
	}
	g.to = g.hi
	for d-g.lo < patience && !m.open(g.lo-1) {
		g.lo--
	}
	return g, ok
}

// open reports whether ticks may be on a day: the calendar leaves it, and the zone
// did not skip it.
func (m moved) open(d day) bool {
	return !m.calendar.excludesDay(d) && len(spans(d, m.zone)) > 0
}

// landed returns the first tick of a group after an instant.
func (m moved) landed(g group, after int64) int64 {
	best := int64(never)
	for _, s := range spans(g.to, m.zone) {
		if tick := m.source.next(max(after, s.at-1)); tick < s.end() {
			best = min(best, tick)
		}
	}
	if g.lo == g.hi {
		return best
	}
	targets := resolve(g.to, m.rules, m.zone)
	for d := g.lo; d <= g.hi; {
		if d != g.to {
			for _, s := range spans(d, m.zone) {
				best = min(best, m.fromSpan(s, targets, after))
			}
		}
		tick := m.source.next(begins(d+1, m.zone) - 1)
		if tick == never {
			break
		}
		following, _ := localTime(tick, m.zone)
		d = max(following, d+1)
	}
	return best
}

// fromSpan returns the first instant after one at which a tick of an excluded day
// arrives, of those within one span.
func (m moved) fromSpan(from span, targets []mapping, after int64) int64 {
	best := int64(never)
	for _, to := range targets {
		lo, hi := max(from.lo, to.lo), min(from.hi, to.hi)
		if to.still {
			if to.at > after && m.source.next(from.instant(lo)-1) < from.instant(hi) && lo < hi {
				best = min(best, to.at)
			}
			continue
		}
		lo = max(lo, to.local(after)+1)
		if lo >= hi {
			continue
		}
		if tick := m.source.next(from.instant(lo) - 1); tick < from.instant(hi) {
			best = min(best, to.instant(from.local(tick)))
		}
	}
	return best
}

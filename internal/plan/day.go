package plan

import (
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/zone"
)

// Instants are milliseconds since 1970-01-01T00:00Z.
const (
	dayMS   = 24 * 60 * 60 * 1000
	horizon = 7258118400000 // 2200-01-01T00:00Z: no tick is planned from then on
	never   = 1 << 62       // instead of an instant; after all of them
)

// A day of the calendar, counted from 1970-01-01. Which instants belong to it
// depends on the zone.
type day int

func dayOf(year int, month time.Month, dom int) day {
	return day(floorDiv(time.Date(year, month, dom, 0, 0, 0, 0, time.UTC).Unix(), dayMS/1000))
}

func (d day) date() (year int, month time.Month, dom int) {
	return time.Unix(int64(d)*dayMS/1000, 0).UTC().Date()
}

func (d day) weekday() time.Weekday { return time.Weekday(floorMod(int64(d)+int64(time.Thursday), 7)) }

// localTime tells the day and the millisecond of the day that a clock shows.
func localTime(at int64, loc *time.Location) (day, int64) {
	local := at + 1000*zone.Offset(time.UnixMilli(at).In(loc))
	return day(floorDiv(local, dayMS)), floorMod(local, dayMS)
}

// change returns the first instant after one at which the clock is changed.
func change(at int64, loc *time.Location) int64 {
	if end := zone.Change(time.UnixMilli(at).In(loc)); !end.IsZero() {
		return end.UnixMilli()
	}
	return never
}

// A span is a part of a local day in which the clock runs evenly: it shows the
// milliseconds of the day from lo to hi (excluded), beginning at the instant at.
type span struct{ lo, hi, at int64 }

func (s span) instant(local int64) int64 { return s.at + local - s.lo }
func (s span) local(at int64) int64      { return s.lo + at - s.at }
func (s span) end() int64                { return s.instant(s.hi) }

// spans returns the parts of a day in the order of time: none of a day that the
// zone skipped, two or more of one on which the clock was changed. Where it was
// set back over midnight, the parts of two days alternate.
func spans(d day, loc *time.Location) (parts []span) {
	midnight := int64(d) * dayMS
	reach := zone.Reach.Milliseconds()
	for at := midnight - reach; at < midnight+dayMS+reach; {
		offset, until := 1000*zone.Offset(time.UnixMilli(at).In(loc)), change(at, loc)
		lo := max(at+offset-midnight, 0)
		hi := min(until+offset-midnight, dayMS)
		if lo < hi {
			parts = append(parts, span{lo, hi, midnight + lo - offset})
		}
		at = until
	}
	return parts
}

// begins returns the first instant of a day, or of the next one if the zone
// skipped it.
func begins(d day, loc *time.Location) int64 {
	for {
		if parts := spans(d, loc); len(parts) > 0 {
			return parts[0].at
		}
		d++
	}
}

// resolve maps the local times of a day to instants by the rules for clock
// changes, as spans. A span without a length in instants, one that is still,
// is a gap: all its times are the one instant after it.
func resolve(d day, rules zone.Rules, loc *time.Location) (all []mapping) {
	parts := spans(d, loc)
	cuts := []int64{0, dayMS}
	for _, s := range parts {
		cuts = append(cuts, s.lo, s.hi)
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	for i, lo := range cuts[:len(cuts)-1] {
		hi := cuts[i+1]
		var shown []span
		for _, s := range parts {
			if s.lo <= lo && hi <= s.hi {
				shown = append(shown, span{lo, hi, s.instant(lo)})
			}
		}
		switch {
		case len(shown) == 0 && rules.Gap == zone.GapShift:
			all = append(all, mapping{span{lo, hi, afterGap(parts, hi)}, true})
		case len(shown) > 1 && rules.Repeat == zone.RepeatFirst:
			shown = shown[:1]
		case len(shown) > 1 && rules.Repeat == zone.RepeatLast:
			shown = shown[len(shown)-1:]
		}
		for _, s := range shown {
			all = append(all, mapping{s, false})
		}
	}
	return all
}

// A mapping is a span of local times and where they are.
type mapping struct {
	span
	still bool // all of them are its first instant
}

// afterGap returns the instant at which the clock shows a time again after the
// gap that ends at hi.
func afterGap(parts []span, hi int64) int64 {
	for _, s := range parts {
		if s.lo == hi {
			return s.at
		}
	}
	return parts[len(parts)-1].end() // the gap reaches into the next day
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func floorMod(a, b int64) int64 { return a - b*floorDiv(a, b) }

package cron

import (
	"math"
	"time"

	"github.com/carillon-go/carillon/internal/zone"
)

// Years 1 to 9999, in seconds since 1970.
const (
	minSecond = -62135596800
	maxSecond = 253402300799
)

// Next returns the first instant strictly after the given one at which a clock
// in loc (nil is UTC) shows a time the expression selects, and the zero time
// when there is none: its years are over, or by the rules the clock of the zone
// does not show the time, at least for 400 years. Only the years 1 to 9999 are
// searched.
//
// The rules say what becomes of times that a clock change skips or repeats.
// Times that are shifted out of one gap are a single instant. An expression
// whose minute or hour field begins with * follows elapsed time whatever the
// rules, as in ISC cron: a time fires as often as the clock shows it, never for
// a skipped hour and twice in a repeated one.
func (s Schedule) Next(after time.Time, loc *time.Location, r zone.Rules) time.Time {
	first := after.Unix()
	if s == (Schedule{}) || first < minSecond || first > maxSecond {
		return time.Time{}
	}
	first++
	if loc == nil {
		loc = time.UTC
	}
	if s.elapsed {
		r = zone.Rules{Gap: zone.GapSkip, Repeat: zone.RepeatBoth}
	}
	const reach = int64(zone.Reach / time.Second)
	at := time.Unix(first-reach, 0).In(loc) // every change before is of no matter any more
	limit := min(max(after.UTC().Year(), s.years.first(0))+400, 9999)

	// Go through the stretches of time with a constant offset. In each a clock of
	// UTC that is set to the local time shows what the local one does, so there is
	// only the question of which part of a stretch, by the rules, counts.
	for before := zone.Offset(at); ; {
		start, end, offset := at.Unix(), int64(math.MaxInt64), zone.Offset(at)
		from := max(start, first)
		if offset > before && r.Gap == zone.GapShift && start >= first {
			if shown, found := s.search(start+before, limit); found && shown < start+offset {
				return at
			}
		}
		if offset < before && r.Repeat == zone.RepeatFirst {
			from = max(from, start+before-offset)
		}
		until := end
		change := zone.Change(at)
		if !change.IsZero() {
			end = change.Unix()
			until = end
			if next := zone.Offset(change); next < offset && r.Repeat == zone.RepeatLast {
				until -= offset - next
			}
		}
		shown, found := s.search(from+offset, limit)
		if found && shown-offset < until {
			return time.Unix(shown-offset, 0).In(loc)
		}
		if end == math.MaxInt64 {
			return time.Time{}
		}
		at, before = change, offset
		if end < from+reach {
			continue // the change may repeat times before from
		}
		if !found {
			return time.Time{}
		}
		if far := shown - offset - reach; far > end {
			at = time.Unix(far, 0).In(loc) // nothing is selected up to there
			before = zone.Offset(at)
		}
	}
}

// search returns the first selected time that is not before the given one, both
// on a clock without changes, in seconds since 1970. It looks up to the end of
// the year limit.
func (s *Schedule) search(from int64, limit int) (int64, bool) {
	y, m, day := time.Unix(from, 0).UTC().Date()
	midnight := date(y, m, day)
	if sec, found := s.clock(int(from - midnight)); found && y <= limit && s.selects(y, m, day) {
		return midnight + int64(sec), true
	}
	for day++; ; day, m = 1, m+1 {
		nextYear, nextMonth, found := s.nextMonth(y, m)
		if !found || nextYear > limit {
			return 0, false
		}
		if nextYear != y || nextMonth != m {
			y, m, day = nextYear, nextMonth, 1
		}
		if day, found := s.days.of(y, m).from(day); found {
			sec, _ := s.clock(0)
			return date(y, m, day) + int64(sec), true
		}
	}
}

// nextMonth returns the first selected month that is not before the given one.
func (s *Schedule) nextMonth(y int, m time.Month) (int, time.Month, bool) {
	next, found := s.month.from(int(m))
	if !found {
		y++
	}
	selected, more := s.years.next(y)
	if !found || selected != y {
		next, _ = s.month.from(1)
	}
	return selected, time.Month(next), more
}

// selects reports whether the expression selects a day.
func (s *Schedule) selects(y int, m time.Month, day int) bool {
	selected, _ := s.years.next(y)
	return selected == y && s.month.has(int(m)) && s.days.of(y, m).has(day)
}

func date(year int, month time.Month, day int) int64 {
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Unix()
}

// clock returns the first selected second of the day that is not before from.
func (s *Schedule) clock(from int) (int, bool) {
	h, m, sec := from/3600, from/60%60, from%60
	if s.hour.has(h) {
		if s.minute.has(m) {
			if sec, found := s.second.from(sec); found {
				return h*3600 + m*60 + sec, true
			}
		}
		if m, found := s.minute.from(m + 1); found {
			sec, _ = s.second.from(0)
			return h*3600 + m*60 + sec, true
		}
	}
	h, found := s.hour.from(h + 1)
	m, _ = s.minute.from(0)
	sec, _ = s.second.from(0)
	return h*3600 + m*60 + sec, found
}

// Seconds returns the seconds of a local day that the expression selects,
// ascending, before any rules of clock changes; nil when it does not select the
// day. There may be 86,400.
func (s Schedule) Seconds(year int, month time.Month, day int) []int {
	if day < 1 || day > 31 || !s.selects(year, month, day) {
		return nil
	}
	seconds := make([]int, 0, s.hour.len()*s.minute.len()*s.second.len())
	for h := range s.hour.all() {
		for m := range s.minute.all() {
			for sec := range s.second.all() {
				seconds = append(seconds, h*3600+m*60+sec)
			}
		}
	}
	return seconds
}

package difftest

import (
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/zone"
)

// The two readings of local times that the others have.
var (
	// wallClock fires whenever the clock on the wall shows a selected time.
	wallClock = zone.Rules{Gap: zone.GapSkip, Repeat: zone.RepeatBoth}
	// once is our default, and the intent of Paul Vixie's and the ISC's cron: each selected time of a day once.
	once = zone.Rules{}
)

// next is the definition of what an expression means, put down without care for speed: go from day to day of the
// calendar, and see at which instants the clock shows the selected times of a day that is selected. It gives up, with
// false, when no day of 60 years has one.
func (e expr) next(after time.Time, loc *time.Location, rules zone.Rules) (time.Time, bool) {
	if e.elapsed() {
		rules = wallClock
	}
	var seconds []int // of a selected day, which most are not
	y, m, d := after.In(loc).Date()
	var found time.Time
	for n := -2; n < 60*366; n++ {
		date := time.Date(y, m, d+n, 0, 0, 0, 0, time.UTC)
		// No clock was ever changed by more than a day, so what comes two days later is later.
		if !found.IsZero() && date.Sub(found) > 72*time.Hour {
			break
		}
		if !e.selects(date) {
			continue
		}
		if seconds == nil {
			seconds = e.seconds()
		}
		z := look(date, loc)
		for _, s := range seconds {
			shown := date.Add(time.Duration(s) * time.Second)
			if !found.IsZero() && shown.Sub(found) > 48*time.Hour {
				break
			}
			if shown.Before(after.Add(-48 * time.Hour)) {
				continue
			}
			for _, at := range z.instants(shown, rules) {
				if at.After(after) && (found.IsZero() || at.Before(found)) {
					found = at
				}
			}
		}
	}
	return found, !found.IsZero()
}

// seconds lists the selected seconds of a day.
func (e expr) seconds() []int {
	secondsOf := e.fields[second]
	if len(secondsOf) == 0 {
		secondsOf = field{{kind: single}}
	}
	var all []int
	for h := range 24 {
		if !e.fields[hour].matches(hour, h) {
			continue
		}
		for m := range 60 {
			if !e.fields[minute].matches(minute, m) {
				continue
			}
			for s := range 60 {
				if secondsOf.matches(second, s) {
					all = append(all, h*3600+m*60+s)
				}
			}
		}
	}
	return all
}

// around is what one sees of a clock around a day.
type around struct {
	loc     *time.Location
	offsets []int64 // all that it has
	changes []change
}

// change is a clock change: at an instant, the clock goes from one offset to another.
type change struct {
	at       time.Time
	from, to int64
}

// look looks at the clock every hour from two days before a date to three days after.
func look(date time.Time, loc *time.Location) around {
	a := around{loc: loc}
	offset := func(t time.Time) int64 { return zone.Offset(t.In(loc)) }
	previous := date.Add(-48 * time.Hour)
	a.offsets = append(a.offsets, offset(previous))
	for h := -47; h <= 72; h++ {
		at := date.Add(time.Duration(h) * time.Hour)
		if from, to := offset(previous), offset(at); from != to {
			low, high := previous.Unix(), at.Unix()
			for high-low > 1 {
				if middle := (low + high) / 2; offset(time.Unix(middle, 0)) == from {
					low = middle
				} else {
					high = middle
				}
			}
			a.changes = append(a.changes, change{time.Unix(high, 0), from, to})
			if !slices.Contains(a.offsets, to) {
				a.offsets = append(a.offsets, to)
			}
		}
		previous = at
	}
	return a
}

// instants returns the instants that a local time means.
func (a around) instants(shown time.Time, rules zone.Rules) []time.Time {
	var all []time.Time
	for _, offset := range a.offsets {
		at := time.Unix(shown.Unix()-offset, 0).In(a.loc)
		if zone.Offset(at) == offset {
			all = append(all, at)
		}
	}
	slices.SortFunc(all, time.Time.Compare)
	if len(all) == 0 && rules.Gap == zone.GapShift {
		for _, c := range a.changes {
			if local := shown.Unix(); c.at.Unix()+c.from <= local && local < c.at.Unix()+c.to {
				return []time.Time{c.at.In(a.loc)}
			}
		}
	}
	if len(all) > 1 && rules.Repeat == zone.RepeatFirst {
		all = all[:1]
	}
	if len(all) > 1 && rules.Repeat == zone.RepeatLast {
		all = all[len(all)-1:]
	}
	return all
}

// shows tells whether the clock of t shows a time that the expression selects.
func (e expr) shows(t time.Time) bool {
	secondsOf := e.fields[second]
	if len(secondsOf) == 0 {
		secondsOf = field{{kind: single}}
	}
	y, m, d := t.Date()
	return t.Nanosecond() == 0 && secondsOf.matches(second, t.Second()) && e.fields[minute].matches(minute, t.Minute()) &&
		e.fields[hour].matches(hour, t.Hour()) && e.selects(time.Date(y, m, d, 0, 0, 0, 0, time.UTC))
}

// changesNear tells whether the clock of t is changed within a day or so.
func changesNear(t time.Time) bool {
	const reach = 26 * time.Hour
	at := zone.Offset(t)
	for h := -reach; h <= reach; h += time.Hour {
		if zone.Offset(t.Add(h)) != at {
			return true
		}
	}
	return false
}

// Package zone says what a local time means where a clock change skips or
// repeats it.
package zone

import (
	"errors"
	"fmt"
	"time"
)

// Gap is what becomes of a local time that a clock change skips.
type Gap int

// The rules for skipped times.
const (
	GapShift Gap = iota // it is the first instant after the gap
	GapSkip             // it does not exist
)

// Repeat is what becomes of a local time that a clock change repeats.
type Repeat int

// The rules for repeated times.
const (
	RepeatFirst Repeat = iota // it is the first of the instants
	RepeatLast                // it is the last of the instants
	RepeatBoth                // it is each of the instants
)

// Rules are applied where a clock changes; elsewhere a local time is one
// instant anyway. The zero value shifts out of gaps and takes the first of
// repeated times.
type Rules struct {
	Gap    Gap    `json:"gap,omitempty"`
	Repeat Repeat `json:"repeat,omitempty"`
}

// Reach is farther than the distance from a local time, taken at any offset its
// zone has around it, to each of its instants and to the end of a gap it falls
// in: no clock was ever changed by more than a day.
const Reach = 48 * time.Hour

// Resolve returns the instants (0, 1 or 2, ascending) at which a clock in loc
// shows the local date and second of the day, by the rules. A nil loc is UTC.
func (r Rules) Resolve(year int, month time.Month, day, second int, loc *time.Location) []time.Time {
	if loc == nil {
		loc = time.UTC
	}
	shown := time.Date(year, month, day, 0, 0, second, 0, time.UTC).Unix()
	// One of the instants, or off by the length of a gap.
	near := time.Date(year, month, day, 0, 0, second, 0, loc)
	var instants []time.Time
	var gap time.Time // the end of the gap, if there is one
	for at := near.Add(-Reach); ; {
		offset, end := Offset(at), Change(at)
		last := end.IsZero()
		if t := time.Unix(shown-offset, 0).In(loc); !t.Before(at) && (last || t.Before(end)) {
			instants = append(instants, t)
		}
		if last || end.After(near.Add(Reach)) {
			break
		}
		if s := end.Unix(); gap.IsZero() && s+offset <= shown && shown < s+Offset(end) {
			gap = end
		}
		at = end
	}
	switch {
	case len(instants) == 0 && r.Gap == GapShift && !gap.IsZero():
		return []time.Time{gap}
	case len(instants) > 1 && r.Repeat == RepeatFirst:
		return instants[:1]
	case len(instants) > 1 && r.Repeat == RepeatLast:
		return instants[len(instants)-1:]
	}
	return instants
}

// Offset returns by how many seconds the clock of t is ahead of UTC.
func Offset(t time.Time) int64 {
	_, seconds := t.Zone()
	return int64(seconds)
}

// Change returns the first instant after t at which the clock of t changes its
// offset, and the zero time when it does not before the year 10000.
func Change(t time.Time) time.Time {
	offset := Offset(t)
	for t.Year() < 10000 {
		_, end := t.ZoneBounds()
		if end.IsZero() {
			break
		}
		if !end.After(t) {
			// Beyond a zone's table of transitions Go 1.26 takes every year for 365
			// days: 31 December of a leap year lies after its own span.
			end = t.UTC().Truncate(24 * time.Hour).Add(24 * time.Hour).In(t.Location())
		}
		if Offset(end) != offset {
			return end
		}
		t = end // the end of a year, or of a name such as EST
	}
	return time.Time{}
}

// ErrUnknown is for a name that this machine's database does not have; another
// one's may.
var ErrUnknown = errors.New("unknown time zone")

// Load finds a zone by its IANA name. Unlike [time.LoadLocation] it takes
// neither an empty name nor Local, which mean another zone on each machine, and
// says when it is not the name that is missing but the database.
func Load(name string) (*time.Location, error) {
	return load(name, time.LoadLocation)
}

func load(name string, find func(string) (*time.Location, error)) (*time.Location, error) {
	switch name {
	case "":
		return nil, errors.New("the name of the time zone is empty; expected an IANA name such as Europe/Berlin, or UTC")
	case "Local":
		return nil, errors.New("the time zone Local differs between machines; expected an IANA name such as Europe/Berlin, or UTC")
	}
	loc, err := find(name)
	if err == nil {
		return loc, nil
	}
	if _, missing := find("Europe/London"); missing != nil {
		return nil, fmt.Errorf("%w: no time zone database, so %q cannot be looked up: install tzdata, set ZONEINFO, or import time/tzdata", ErrUnknown, name)
	}
	return nil, fmt.Errorf("%w %q; expected an IANA name such as Europe/Berlin, or UTC", ErrUnknown, name)
}

// Package icalendar reads the days of a calendar of Carillon from iCalendar files (RFC 5545), such as the public holidays
// that governments and calendar services publish as .ics.
//
// [Dates] returns the days that the events of a file touch, for the dates that a calendar excludes or includes:
//
//   - an all-day event touches the days from DTSTART to the day before DTEND;
//   - a timed event touches the days that a clock in its own time zone shows, whatever the zone of the schedule;
//   - recurrences (RRULE, RDATE, EXDATE, RECURRENCE-ID) are expanded, and the durations of the occurrences of one event
//     are equal on the clock, so that a whole day stays one when the clock changes within it;
//   - events that are cancelled are left out, and so is everything that is no event.
//
// What the package does not understand is an error that names the line and the event, never a day less than there is:
// EXRULE, RANGE=THISANDFUTURE, and rules that repeat within a day (FREQ=HOURLY and below).
//
// It is a module of its own because it needs a library for recurrences, which programs without iCalendar files do not.
package icalendar

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// Limits of [Dates]. Real files have a few hundred lines; the limits keep one that was made to harm from being read for
// ever.
const (
	maxBytes      = 16 << 20
	maxDays       = 100_000
	maxRecurring  = 10_000    // events with rules in a file
	maxSteps      = 2_000_000 // occurrences, and days of occurrences, looked at
	maxDepth      = 16        // components within components
	maxInterval   = 10_000
	maxTimesOfDay = 100  // of one rule
	minYear       = 1601 // some programs let what has always been begin there
)

const (
	dayFormat  = "2006-01-02"
	secondsDay = 24 * 60 * 60
)

// Event is one occurrence of an event of a file, as [Dates] shows it to its filter.
type Event struct {
	UID        string
	Summary    string
	Categories []string
	AllDay     bool
	Start      time.Time // in the zone of the event; midnight UTC when AllDay
	End        time.Time // the first instant after the event
}

// Dates returns the days, as 2006-01-02, ascending and each once, that events of an iCalendar file touch: from the day of
// from to the day of to, both included, whatever their times of day and zones. Only the occurrences that keep accepts
// count; a nil keep accepts all. A file that has both days off and make-up working days is read once for each kind.
//
// A file may have at most 16 MiB, and 100,000 days may come of it.
func Dates(r io.Reader, from, to time.Time, keep func(Event) bool) ([]string, error) {
	days := span{midnight(from), midnight(to)}
	if days.last.Before(days.first) {
		return nil, fmt.Errorf("icalendar: to, %s, is before from, %s",
			days.last.Format(dayFormat), days.first.Format(dayFormat))
	}
	data, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("icalendar: %w", err)
	}
	if len(data) > maxBytes {
		return nil, fmt.Errorf("icalendar: the file has more than %d bytes; split it", maxBytes)
	}
	components, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("icalendar: %w", err)
	}
	c := collector{span: days, keep: keep, days: map[time.Time]bool{}}
	if err := c.collect(components); err != nil {
		return nil, fmt.Errorf("icalendar: %w", err)
	}
	list := make([]string, 0, len(c.days))
	for day := range c.days {
		list = append(list, day.Format(dayFormat))
	}
	slices.Sort(list)
	return list, nil
}

// midnight returns the local date of t as a time in UTC. All dates and times of events are kept this way, as what a clock
// in the zone of the event shows: there, no clock change can get in the way.
func midnight(t time.Time) time.Time {
	year, month, day := t.Date()
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}

// A span is the days from first to last.
type span struct{ first, last time.Time }

// collector gathers the days of events.
type collector struct {
	span
	keep  func(Event) bool
	days  map[time.Time]bool
	steps int
}

func (c *collector) collect(components []component) error {
	var events []*event
	recurring := 0
	for _, comp := range components {
		e, err := newEvent(comp)
		if err != nil {
			return comp.wrap(err)
		}
		if len(e.rules) > 0 {
			recurring++
		}
		if recurring > maxRecurring {
			return comp.wrap(fmt.Errorf("more than %d events with an RRULE; split the file", maxRecurring))
		}
		events = append(events, e)
	}
	if err := replaceOccurrences(events); err != nil {
		return err
	}
	for _, e := range events {
		if e.cancelled {
			continue
		}
		if err := e.occurrences(c.last, c.add); err != nil {
			return e.wrap(err)
		}
	}
	return nil
}

// add takes the days that an occurrence touches.
func (c *collector) add(e *event, start, end time.Time) error {
	if err := c.step(); err != nil {
		return err
	}
	first, last := midnight(start), midnight(start)
	if end.After(start) {
		last = midnight(end.Add(-1))
	}
	if last.Before(c.first) || first.After(c.last) || c.keep != nil && !c.keep(e.show(start, end)) {
		return nil
	}
	if first.Before(c.first) {
		first = c.first
	}
	for day := first; !day.After(last) && !day.After(c.last); day = day.AddDate(0, 0, 1) {
		if err := c.step(); err != nil {
			return err
		}
		c.days[day] = true
		if len(c.days) > maxDays {
			return fmt.Errorf("more than %d days; ask for fewer years", maxDays)
		}
	}
	return nil
}

func (c *collector) step() error {
	if c.steps++; c.steps > maxSteps {
		return fmt.Errorf("more than %d occurrences and days to look at; split the file", maxSteps)
	}
	return nil
}

package icalendar

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// moment is a date or a time as a clock shows it.
type moment struct {
	wall time.Time // kept in UTC, whatever the zone
	date bool
	zone string // TZID; UTC; or empty, when the file leaves the zone to the reader
}

// event is a VEVENT with its values understood.
type event struct {
	component
	id         string
	summary    string
	categories []string
	cancelled  bool
	start      moment
	seconds    int64 // how long it takes, on the clock
	rules      []property
	dates      []period // RDATE
	except     exceptions
	replaces   *moment // RECURRENCE-ID
}

// period is an occurrence that RDATE names.
type period struct {
	start   time.Time
	seconds int64
}

// exceptions are the occurrences that do not take place.
type exceptions struct {
	times map[time.Time]bool
	days  map[time.Time]bool
}

func newEvent(c component) (*event, error) {
	e := &event{component: c, id: c.uid(), except: exceptions{map[time.Time]bool{}, map[time.Time]bool{}}}
	if err := e.readStart(); err != nil {
		return nil, err
	}
	if err := e.readLength(); err != nil {
		return nil, err
	}
	for _, p := range c.properties {
		var err error
		switch p.name {
		case "SUMMARY":
			e.summary = strings.TrimSpace(unescape.Replace(p.value))
		case "CATEGORIES":
			e.categories = append(e.categories, texts(p.value)...)
		case "STATUS":
			e.cancelled = strings.EqualFold(strings.TrimSpace(p.value), "CANCELLED")
		case "RRULE":
			e.rules = append(e.rules, p)
		case "EXRULE":
			err = errors.New("exception rules were abandoned with RFC 5545 and are not understood")
		case "RDATE":
			err = e.readDates(p)
		case "EXDATE":
			err = e.readExceptions(p)
		case "RECURRENCE-ID":
			err = e.readReplaced(p)
		}
		if err != nil {
			return nil, p.wrap(err)
		}
	}
	return e, nil
}

func (e *event) readStart() error {
	p, found, err := e.get("DTSTART")
	if err != nil {
		return err
	}
	if !found {
		return errors.New("no DTSTART")
	}
	if e.start, err = p.moment(p.value); err != nil {
		return p.wrap(err)
	}
	return nil
}

// readLength reads DTEND or DURATION. Without both, an all-day event takes one day and a timed one no time.
func (e *event) readLength() error {
	end, hasEnd, err := e.get("DTEND")
	if err != nil {
		return err
	}
	duration, hasDuration, err := e.get("DURATION")
	if err != nil {
		return err
	}
	switch {
	case hasEnd && hasDuration:
		return duration.wrap(errors.New("an event has either a DTEND or a DURATION"))
	case hasEnd:
		if e.seconds, err = e.secondsUntil(end, end.value, e.start.wall); err != nil {
			return end.wrap(err)
		}
	case hasDuration:
		if e.seconds, err = parseDuration(duration.value); err != nil {
			return duration.wrap(err)
		}
		if e.start.date && e.seconds%secondsDay != 0 {
			return duration.wrap(fmt.Errorf("%s is not a number of days, as an all-day event needs", duration.value))
		}
	}
	if e.start.date && e.seconds == 0 { // nor DTEND = DTSTART, which some programs write
		e.seconds = secondsDay
	}
	return nil
}

// secondsUntil returns how long an occurrence that begins at start takes until the moment that text gives.
func (e *event) secondsUntil(p property, text string, start time.Time) (int64, error) {
	end, err := p.moment(text)
	if err != nil {
		return 0, err
	}
	if end.date != e.start.date {
		return 0, errors.New("DTSTART and the end have to be both dates or both times")
	}
	wall, err := end.in(e.start.zone)
	if err != nil {
		return 0, err
	}
	seconds := wall.Unix() - start.Unix()
	if seconds < 0 {
		return 0, fmt.Errorf("%s is before the start", text)
	}
	return seconds, nil
}

func (e *event) readDates(p property) error {
	for text := range strings.SplitSeq(p.value, ",") {
		begin, end, isPeriod := strings.Cut(text, "/")
		m, err := p.moment(begin)
		if err != nil {
			return err
		}
		start, err := m.in(e.start.zone)
		if err != nil {
			return err
		}
		if m.date && !e.start.date { // the event's own time on that day
			start = start.Add(e.start.wall.Sub(midnight(e.start.wall)))
		} else if e.start.date {
			start = midnight(start)
		}
		seconds := e.seconds
		if isPeriod && strings.HasPrefix(strings.ToUpper(end), "P") {
			seconds, err = parseDuration(end)
		} else if isPeriod {
			seconds, err = e.secondsUntil(p, end, start)
		}
		if err != nil {
			return err
		}
		e.dates = append(e.dates, period{start, seconds})
	}
	return nil
}

func (e *event) readExceptions(p property) error {
	for text := range strings.SplitSeq(p.value, ",") {
		m, err := p.moment(text)
		if err != nil {
			return err
		}
		if err := e.except.add(m, e.start); err != nil {
			return err
		}
	}
	return nil
}

// add takes m out of the occurrences of an event that starts at start. A date stands for all occurrences of that day.
func (x exceptions) add(m, start moment) error {
	wall, err := m.in(start.zone)
	if err != nil {
		return err
	}
	if m.date || start.date {
		x.days[midnight(wall)] = true
	} else {
		x.times[wall] = true
	}
	return nil
}

func (x exceptions) has(start time.Time) bool {
	return x.times[start] || x.days[midnight(start)]
}

func (e *event) readReplaced(p property) error {
	if p.params["RANGE"] != "" {
		return errors.New("RANGE is not understood; have the calendar program export the events one by one")
	}
	if e.id == "" {
		return errors.New("an event without a UID cannot replace an occurrence")
	}
	m, err := p.moment(p.value)
	e.replaces = &m
	return err
}

// replaceOccurrences takes the occurrences for which there is an event of their own, which may be cancelled, out of the
// event that they belong to.
func replaceOccurrences(events []*event) error {
	masters := map[string][]*event{}
	for _, e := range events {
		if e.replaces == nil {
			masters[e.id] = append(masters[e.id], e)
		}
	}
	for _, e := range events {
		if e.replaces == nil {
			continue
		}
		for _, master := range masters[e.id] {
			if err := master.except.add(*e.replaces, master.start); err != nil {
				return e.wrap(fmt.Errorf("RECURRENCE-ID: %w", err))
			}
		}
	}
	return nil
}

// show returns what the user's filter sees of an occurrence.
func (e *event) show(start, end time.Time) Event {
	if zone, err := location(e.start.zone); err == nil {
		start, end = inZone(start, zone), inZone(end, zone)
	}
	return Event{
		UID: e.id, Summary: e.summary, Categories: slices.Clone(e.categories), AllDay: e.start.date, Start: start, End: end,
	}
}

// moment understands a DATE or DATE-TIME. Its form decides, since many files leave VALUE=DATE out.
func (p property) moment(text string) (moment, error) {
	text = strings.ToUpper(strings.TrimSpace(text))
	local, utc := strings.CutSuffix(text, "Z")
	m := moment{zone: p.params["TZID"]}
	var err error
	if m.wall, err = time.Parse("20060102", text); err == nil {
		m.date, m.zone = true, ""
	} else if m.wall, err = time.Parse("20060102T150405", local); err != nil {
		return moment{}, fmt.Errorf("%.20q is neither a date, as 20261001, nor a time, as 20261001T090000", text)
	} else if utc {
		m.zone = "UTC"
	}
	if m.wall.Year() < minYear { // also keeps the zero time, which means now to the library, from it
		return moment{}, fmt.Errorf("%.20q is before %d", text, minYear)
	}
	return m, nil
}

// in returns what a clock in another zone shows at that moment. Dates are the same everywhere.
func (m moment) in(zone string) (time.Time, error) {
	if m.date || m.zone == zone {
		return m.wall, nil
	}
	from, err := location(m.zone)
	if err != nil {
		return time.Time{}, err
	}
	to, err := location(zone)
	if err != nil {
		return time.Time{}, err
	}
	return inZone(inZone(m.wall, from).In(to), time.UTC), nil
}

// inZone returns the time at which a clock in zone shows what t's shows.
func inZone(t time.Time, zone *time.Location) time.Time {
	year, month, day := t.Date()
	return time.Date(year, month, day, t.Hour(), t.Minute(), t.Second(), 0, zone)
}

// location finds the zone of a TZID. Files may use names of their own, which matters only where moments of different
// zones meet. Some prefix a name, as in /example.org/Europe/Berlin.
func location(tzid string) (*time.Location, error) {
	if tzid == "" {
		return time.UTC, nil
	}
	parts := strings.Split(tzid, "/")
	for n := min(len(parts), 3); n > 0; n-- {
		name := strings.Join(parts[len(parts)-n:], "/")
		if name == "" || name == "Local" {
			continue
		}
		if loc, err := time.LoadLocation(name); err == nil {
			return loc, nil
		}
	}
	return nil, fmt.Errorf("time zone %q is unknown here, so that its times cannot be compared with those of another zone; "+
		"expected a name of the IANA database", tzid)
}

var durationPattern = regexp.MustCompile(`^\+?P(?:(\d{1,9})W)?(?:(\d{1,9})D)?(?:T(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,9})S)?)?$`)

func parseDuration(text string) (seconds int64, err error) {
	match := durationPattern.FindStringSubmatch(strings.ToUpper(strings.TrimSpace(text)))
	if match == nil {
		return 0, fmt.Errorf("%.20q is not a positive duration, as P1D or PT1H30M", text)
	}
	for i, unit := range []int64{7 * secondsDay, secondsDay, 3600, 60, 1} {
		if match[i+1] == "" {
			continue
		}
		n, err := strconv.ParseInt(match[i+1], 10, 64)
		if err != nil {
			return 0, err
		}
		seconds += n * unit
	}
	return seconds, nil
}

package icalendar

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/teambition/rrule-go"
)

// farFuture is when rules without an UNTIL end. The library would take 292 years, which are over before our time when an
// event begins in the year 1601, as some do.
var farFuture = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// occurrences calls add with start and end of each occurrence that begins up to a day, until one fails.
func (e *event) occurrences(last time.Time, add func(e *event, start, end time.Time) error) error {
	limit := last.AddDate(0, 0, 1)
	visit := func(start time.Time, seconds int64) error {
		if !start.Before(limit) || e.except.has(start) {
			return nil
		}
		return add(e, start, time.Unix(start.Unix()+seconds, 0).UTC())
	}
	for _, p := range e.dates {
		if err := visit(p.start, p.seconds); err != nil {
			return err
		}
	}
	if len(e.rules) == 0 {
		return visit(e.start.wall, e.seconds)
	}
	for _, p := range e.rules {
		if err := e.expand(p, limit, visit); err != nil {
			return p.wrap(err)
		}
	}
	return nil
}

// expand calls visit for what a rule selects before limit. As RFC 5545 leaves undefined what a DTSTART means that its own
// rule does not select, it is no occurrence.
func (e *event) expand(p property, limit time.Time, visit func(start time.Time, seconds int64) error) (err error) {
	// None is known to get past the checks, but the library indexes its tables with numbers of the file.
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("not understood: %v", reason)
		}
	}()
	option, err := e.parseRule(p.value)
	if err != nil {
		return err
	}
	if !option.Dtstart.Before(limit) {
		return nil
	}
	rule, err := rrule.NewRRule(*option)
	if err != nil {
		return err
	}
	next := rule.Iterator()
	start, ok := next()
	if !ok {
		return never(*option)
	}
	for ; ok && start.Before(limit); start, ok = next() {
		if err := visit(start, e.seconds); err != nil {
			return err
		}
	}
	return nil
}

// never tells whether a rule that selected nothing selects nothing even without its end.
func never(option rrule.ROption) error {
	option.Until = farFuture
	rule, err := rrule.NewRRule(option)
	if err != nil {
		return err
	}
	if _, ok := rule.Iterator()(); !ok {
		return errors.New("never happens")
	}
	return nil
}

// parseRule returns a rule on the clock of the event, with everything refused that would take the library for ever.
func (e *event) parseRule(text string) (*rrule.ROption, error) {
	text = strings.ToUpper(strings.TrimRight(strings.TrimSpace(text), ";"))
	option, err := rrule.StrToROption(text)
	if err != nil {
		return nil, err
	}
	option.Dtstart = e.start.wall
	switch times := max(1, len(option.Byhour)) * max(1, len(option.Byminute)) * max(1, len(option.Bysecond)); {
	case option.Freq > rrule.DAILY:
		return nil, fmt.Errorf("FREQ=%s; expected YEARLY, MONTHLY, WEEKLY or DAILY", option.Freq)
	case len(option.Byeaster) > 0:
		return nil, errors.New("BYEASTER is not of RFC 5545")
	case option.Interval > maxInterval:
		return nil, fmt.Errorf("INTERVAL=%d; at most %d is allowed", option.Interval, maxInterval)
	case times > maxTimesOfDay:
		return nil, fmt.Errorf("%d times a day; at most %d are allowed", times, maxTimesOfDay)
	}
	if err := checkWeekdays(option); err != nil {
		return nil, err
	}
	if option.Until.IsZero() {
		option.Until = farFuture
		return option, nil
	}
	return option, e.moveUntil(option, text)
}

// checkWeekdays checks the numbers of BYDAY, as 3 in 3MO: the library panics on what no month has.
func checkWeekdays(option *rrule.ROption) error {
	limit := 53
	if option.Freq == rrule.MONTHLY || len(option.Bymonth) > 0 {
		limit = 5
	}
	for _, day := range option.Byweekday {
		n := max(day.N(), -day.N())
		switch {
		case n == 0:
		case option.Freq > rrule.MONTHLY, len(option.Byweekno) > 0:
			return fmt.Errorf("BYDAY=%s: a number has no meaning with FREQ=%s or BYWEEKNO", day, option.Freq)
		case n > limit:
			return fmt.Errorf("BYDAY=%s: the number may be %d at most, in a month", day, limit)
		}
	}
	return nil
}

// moveUntil brings UNTIL, which is in UTC, to the clock of the event. One that is a date holds to the end of that day.
func (e *event) moveUntil(option *rrule.ROption, rule string) error {
	_, text, _ := strings.Cut(rule, "UNTIL=")
	text, _, _ = strings.Cut(text, ";")
	until, err := property{params: map[string]string{"TZID": e.start.zone}}.moment(text)
	if err != nil {
		return fmt.Errorf("UNTIL: %w", err)
	}
	if option.Until, err = until.in(e.start.zone); err != nil {
		return fmt.Errorf("UNTIL: %w", err)
	}
	if until.date {
		option.Until = option.Until.Add(secondsDay*time.Second - 1)
	}
	return nil
}

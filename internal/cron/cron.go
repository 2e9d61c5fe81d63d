// Package cron is a guarded front to robfig/cron v3, which is unmaintained:
// its parser panics on some input and accepts expressions that mean nothing,
// and its search goes astray around clock changes. Here every expression is
// checked field by field before robfig sees it, and robfig searches only in
// UTC, where there are no clock changes; this package maps the result to the
// time zone.
package cron

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

const (
	maxLen  = 256
	starBit = 1 << 63 // robfig's mark in a bit set for a field written as "*"
)

// macros are those of robfig that [Parse] lets through.
var macros = strings.Fields("@hourly @daily @midnight @weekly @monthly @yearly @annually")

// field describes one position of an expression.
type field struct {
	name     string
	min, max int
	names    []string // names[i] stands for min+i; nil when there are none
	hint     string   // added when a value is above max
}

// fields are in the order of the six-field form; five fields omit the first.
var fields = []field{
	{name: "second", max: 59},
	{name: "minute", max: 59},
	{name: "hour", max: 23},
	{name: "day of month", min: 1, max: 31},
	{name: "month", min: 1, max: 12, names: strings.Fields("jan feb mar apr may jun jul aug sep oct nov dec")},
	{name: "day of week", max: 6, names: strings.Fields("sun mon tue wed thu fri sat"), hint: " (Sunday is 0)"},
}

// Schedule is a parsed cron expression. It is an immutable value, safe for
// concurrent use. The zero Schedule never fires.
type Schedule struct {
	spec cron.SpecSchedule // its Location is always UTC, see Next
}

// Parse reads a cron expression: five fields (minute, hour, day of month,
// month, day of week), six with leading seconds, or one of the macros @hourly,
// @daily, @midnight, @weekly, @monthly, @yearly and @annually.
//
// A field is a comma-separated list of *, ?, N, N-M, or one of these followed
// by a step: */S, N-M/S, and N/S for "from N to the end". Months and days of
// the week have English three-letter names in either case; Sunday is 0. When
// both day fields are restricted, a day matching either one fires; a day field
// containing * or ? without a step above 1 is not restricted.
//
// Refused are @every and a TZ= prefix, which have better places in a job spec,
// and every expression that would never fire. The error names the field, its
// position counted from 1, and what was expected there.
func Parse(expr string) (Schedule, error) {
	// Not echoed: the text may be huge.
	if len(expr) > maxLen {
		return Schedule{}, fmt.Errorf("cron: expression has %d bytes, at most %d are allowed", len(expr), maxLen)
	}
	s, err := parse(expr)
	if err != nil {
		return Schedule{}, fmt.Errorf("cron %q: %w", expr, err)
	}
	return s, nil
}

func parse(expr string) (Schedule, error) {
	for i := range len(expr) {
		if c := expr[i]; c < ' ' || c > '~' {
			return Schedule{}, fmt.Errorf("byte 0x%02x at offset %d: only printable ASCII is allowed, with spaces between fields", c, i)
		}
	}
	texts := strings.Fields(expr)
	if len(texts) == 0 {
		return Schedule{}, errors.New("empty; expected five or six fields or a macro")
	}
	var err error
	first := strings.ToUpper(texts[0])
	switch {
	case strings.HasPrefix(first, "TZ="), strings.HasPrefix(first, "CRON_TZ="):
		err = errors.New("a time zone prefix is not allowed; set the TimeZone field of the schedule")
	case strings.HasPrefix(first, "@EVERY"):
		err = errors.New("@every is not cron; use an Every spec")
	case strings.HasPrefix(first, "@"):
		if len(texts) > 1 || !slices.Contains(macros, texts[0]) {
			err = errors.New("unknown macro; expected one of " + strings.Join(macros, ", "))
		}
	default:
		err = checkFields(texts)
	}
	if err != nil {
		return Schedule{}, err
	}
	spec, err := robfigParse(strings.Join(texts, " "))
	if err != nil {
		return Schedule{}, err
	}
	// An empty set makes Next search five years, minute by minute or even
	// second by second, which takes seconds of CPU. So look before calling it.
	for i, set := range []uint64{spec.Second, spec.Minute, spec.Hour, spec.Dom, spec.Month, spec.Dow} {
		if set&^starBit == 0 {
			return Schedule{}, fmt.Errorf("%s: no value selected", fields[i].name)
		}
	}
	s := Schedule{spec}
	// Starts six years apart, each looking to the end of the fifth year after it,
	// cover the 28 years in which every date meets every weekday.
	for year := 2000; year <= 2024; year += 6 {
		if !s.Next(time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC), time.UTC).IsZero() {
			return s, nil
		}
	}
	// Only the days can clash: every other combination of fields occurs daily.
	n := len(texts)
	return Schedule{}, fmt.Errorf("never fires: no selected month (field %d) has a selected day (field %d)", n-1, n-2)
}

// checkFields checks what robfig is too lenient or too vague about.
func checkFields(texts []string) error {
	if n := len(texts); n != 5 && n != 6 {
		return fmt.Errorf("has %d fields; expected 5 (minute, hour, day of month, month, day of week) or 6 with leading seconds", n)
	}
	for i, text := range texts {
		f := fields[i+len(fields)-len(texts)]
		if err := f.check(text); err != nil {
			return fmt.Errorf("field %d, %s: %w", i+1, f.name, err)
		}
	}
	return nil
}

// check reports the first thing wrong with the text of a field.
func (f field) check(text string) error {
	for item := range strings.SplitSeq(text, ",") {
		if item == "" {
			return fmt.Errorf("empty item in list %q", text)
		}
		span, step, hasStep := strings.Cut(item, "/")
		if hasStep {
			// robfig takes a step beyond the field as "the first value only",
			// which is never what */90 was meant to say.
			if _, err := (field{min: 1, max: f.max}).number(step); err != nil {
				return fmt.Errorf("step: %w", err)
			}
		}
		if span == "*" || span == "?" {
			continue
		}
		from, to, isRange := strings.Cut(span, "-")
		if !isRange {
			to = from
		}
		low, err := f.number(from)
		if err != nil {
			return err
		}
		high, err := f.number(to)
		if err != nil {
			return err
		}
		if low > high {
			return fmt.Errorf("range %s runs backwards", span)
		}
	}
	return nil
}

// number reads one value, a number or a name, within the bounds of the field.
func (f field) number(text string) (int, error) {
	for i, name := range f.names {
		if strings.EqualFold(text, name) {
			return f.min + i, nil
		}
	}
	// ParseUint, unlike robfig's Atoi, takes no sign.
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		expected := fmt.Sprintf("a number from %d to %d", f.min, f.max)
		if f.names != nil {
			expected += fmt.Sprintf(" or a name from %s to %s", f.names[0], f.names[len(f.names)-1])
		}
		return 0, fmt.Errorf("%q is not %s", text, expected)
	}
	switch {
	case int(n) < f.min:
		return 0, fmt.Errorf("%d is below %d", n, f.min)
	case int(n) > f.max:
		return 0, fmt.Errorf("%d is above %d%s", n, f.max, f.hint)
	}
	return int(n), nil
}

// robfigParse turns robfig's panics into errors. None is known to be reachable
// past the checks above, but the expression comes from users and must never
// take the process down.
func robfigParse(expr string) (spec cron.SpecSchedule, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("not understood: %v", p)
		}
	}()
	parsed, err := cron.NewParser(cron.SecondOptional | cron.Minute | cron.Hour |
		cron.Dom | cron.Month | cron.Dow | cron.Descriptor).Parse(expr)
	if err != nil {
		return spec, err
	}
	p, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return spec, fmt.Errorf("not understood: unexpected %T", parsed)
	}
	spec = *p
	spec.Location = time.UTC
	return spec, nil
}

// Next returns the first instant strictly after the given one at which a clock
// in loc (nil is UTC) shows a time the expression selects, and the zero time
// when there is none until the end of the fifth calendar year after it. That
// happens to 29 February around the year 2100, and to instants outside the
// years 1 to 9999; a caller must not loop until the result is in the future.
//
// When the clock is set forward, times it never shows do not fire that day;
// when it is set back, times it shows twice fire twice.
func (s Schedule) Next(after time.Time, loc *time.Location) time.Time {
	if s.spec.Location == nil || after.Before(time.Time{}) {
		return time.Time{}
	}
	if loc == nil {
		loc = time.UTC
	}
	// Let loose in a zone, robfig returns wrong days and misses right ones where
	// midnight is skipped or the clock moves by half an hour. So go through the
	// spans of constant offset, and in each let robfig search a UTC clock that
	// shows the local time. The variable at is the earliest instant still allowed.
	at := after.Add(1).In(loc)
	limit := min(at.Year()+5, 9999)
	for at.Year() <= limit {
		_, seconds := at.Zone()
		offset := time.Duration(seconds) * time.Second
		_, end := at.ZoneBounds() // zero when the offset stays for good
		if !end.IsZero() && !end.After(at) {
			// Beyond a zone's table of transitions (2037 for most) Go 1.26 takes every
			// year for 365 days: 31 December of a leap year lies after its own span.
			end = at.UTC().Truncate(24 * time.Hour).Add(24 * time.Hour)
		}
		if shown := s.spec.Next(at.UTC().Add(offset - 1)); !shown.IsZero() {
			next := shown.Add(-offset).In(loc)
			if end.IsZero() || next.Before(end) {
				if !next.After(after) || next.Year() > limit {
					break
				}
				return next
			}
		}
		if end.IsZero() {
			break
		}
		at = end.In(loc)
	}
	return time.Time{}
}

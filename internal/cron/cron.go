// Package cron reads cron expressions and finds the instants they mean.
//
// What robfig/cron v3 understands it parses, guarded: it is unmaintained,
// panics on some input and accepts expressions that mean nothing, so every
// field is checked before robfig sees it. What robfig does not know, such as
// the last day of a month, years and ranges that wrap, is read here. Its search
// goes astray around clock changes, so there is one of our own.
package cron

import (
	"errors"
	"fmt"
	"strings"

	"github.com/robfig/cron/v3"

	"github.com/carillon-go/carillon/internal/zone"
)

const maxLen = 256

// macros are the words that stand for five fields.
var macros = map[string]string{
	"@hourly":   "0 * * * *",
	"@daily":    "0 0 * * *",
	"@midnight": "0 0 * * *",
	"@weekly":   "0 0 * * 0",
	"@monthly":  "0 0 1 * *",
	"@yearly":   "0 0 1 1 *",
	"@annually": "0 0 1 1 *",
}

// notCron are words of other crons that have a better place here.
var notCron = map[string]string{
	"@every":  "@every is not cron; use an Every spec",
	"@reboot": "@reboot has no meaning for a schedule of many machines; enqueue the job when the program starts",
}

// Schedule is a parsed cron expression. It is an immutable value, safe for
// concurrent use; equal values fire at the same times. The zero Schedule never
// fires.
type Schedule struct {
	second, minute, hour, month set
	days                        days
	years                       years
	elapsed                     bool // the minute or hour field begins with *
	zone                        string
}

// Parse reads a cron expression of five fields (minute, hour, day of month,
// month, day of week), of six with leading seconds, of seven with years
// (1970-2199) at the end too, or one of the macros @hourly, @daily, @midnight,
// @weekly, @monthly, @yearly and @annually. CRON_TZ=Zone or TZ=Zone may come
// first, see [Schedule.Zone].
//
// A field is a comma-separated list of *, N, N-M, or one of these followed by a
// step: */S, N-M/S, and N/S for "from N to the end". The day fields may say ?
// for *. Months and days of the week have English three-letter names in either
// case; Sunday is 0 or 7. Ranges wrap, except those of years: FRI-MON, 22-2.
//
// A day of the month may also be L, the last day; L-N, N days before it; NW,
// the weekday (Monday to Friday) of the same month nearest to day N, if there
// is such a day; LW, the last weekday. A day of the week may also be N#K, the
// Kth N of the month, or NL, the last N of the month: FRI#2, FRIL.
//
// When both day fields are restricted, a day matching either one fires, or with
// both only a day matching both. A day field containing * or ? without a step
// above 1 is not restricted.
//
// An expression that never fires, such as one for 30 February, is refused. The
// error names the field, its number counted from 1, the offset in the
// expression, and what was expected there.
func Parse(expr string, both bool) (Schedule, error) {
	// Not echoed: the text may be huge.
	if len(expr) > maxLen {
		return Schedule{}, fmt.Errorf("cron: expression has %d bytes, at most %d are allowed", len(expr), maxLen)
	}
	s, err := parse(expr, both)
	if err != nil {
		return Schedule{}, fmt.Errorf("cron %q: %w", expr, err)
	}
	return s, nil
}

// A word of an expression, and where it begins.
type word struct {
	text   string
	offset int
}

// split takes a text apart at each of the separators, keeping empty words.
func split(w word, separator string) []word {
	var words []word
	offset := w.offset
	for text := range strings.SplitSeq(w.text, separator) {
		words = append(words, word{text, offset})
		offset += len(text) + len(separator)
	}
	return words
}

func parse(expr string, both bool) (Schedule, error) {
	for i := range len(expr) {
		if c := expr[i]; c < ' ' || c > '~' {
			return Schedule{}, fmt.Errorf("byte 0x%02x at offset %d: only printable ASCII is allowed, with spaces between fields", c, i)
		}
	}
	var words []word
	for _, w := range split(word{text: expr}, " ") {
		if w.text != "" {
			words = append(words, w)
		}
	}
	var zoneName string
	if len(words) > 0 {
		var err error
		if zoneName, err = readZone(words[0]); err != nil {
			return Schedule{}, err
		}
		if zoneName != "" {
			words = words[1:]
		}
	}
	if len(words) == 0 {
		return Schedule{}, errors.New("empty; expected five to seven fields or a macro")
	}
	if strings.HasPrefix(words[0].text, "@") {
		fields, err := macro(words)
		if err != nil {
			return Schedule{}, err
		}
		words = split(word{text: fields}, " ")
	}
	s, err := parseFields(words, both)
	if err != nil {
		return Schedule{}, err
	}
	s.zone = zoneName
	return s, nil
}

// readZone reads a CRON_TZ= or TZ= prefix, and gives "" when there is none.
func readZone(w word) (string, error) {
	prefix, name, found := strings.Cut(w.text, "=")
	if !found || prefix != "TZ" && prefix != "CRON_TZ" {
		return "", nil
	}
	if _, err := zone.Load(name); err != nil {
		return "", fmt.Errorf("%s at offset %d: %w", prefix, w.offset, err)
	}
	return name, nil
}

// macro gives the fields that a macro stands for.
func macro(words []word) (string, error) {
	first := words[0]
	if reason, known := notCron[strings.ToLower(first.text)]; known {
		return "", fmt.Errorf("at offset %d: %s", first.offset, reason)
	}
	fields, known := macros[first.text]
	if !known {
		return "", fmt.Errorf("at offset %d: unknown macro %s; expected @hourly, @daily, @midnight, @weekly, @monthly, @yearly or @annually",
			first.offset, first.text)
	}
	if len(words) > 1 {
		return "", fmt.Errorf("at offset %d: nothing may follow %s", words[1].offset, first.text)
	}
	return fields, nil
}

func parseFields(words []word, both bool) (Schedule, error) {
	n := len(words)
	if n < 5 || n > 7 {
		return Schedule{}, fmt.Errorf("has %d fields; expected 5 (minute, hour, day of month, month, day of week), "+
			"6 with leading seconds, or 7 with years at the end", n)
	}
	number := func(field int) int { return field + min(n, 6) - 5 } // field number in this expression
	var plain [year]string                                         // what robfig reads
	plain[second] = "0"
	var s Schedule
	for i, w := range words {
		which := i + 6 - min(n, 6)
		f := fields[which]
		var list []string
		for _, item := range split(w, ",") {
			text, err := s.read(which, item.text)
			if err != nil {
				return Schedule{}, fmt.Errorf("field %d (%s) at offset %d: %w", i+1, f.name, item.offset, err)
			}
			if text != "" {
				list = append(list, text)
			}
		}
		if which < year {
			plain[which] = strings.Join(list, ",")
		}
	}
	if err := s.readPlain(plain); err != nil {
		return Schedule{}, err
	}
	if n == 7 && free(words[6].text) {
		s.years = years{} // not just those that can be named
	}
	s.elapsed = plain[minute][0] == '*' || plain[hour][0] == '*'
	s.days.either = !both && !free(plain[monthDay]) && !free(plain[weekday])
	// The calendar repeats after 400 years.
	if _, found := s.search(date(s.years.first(2000), 1, 1), 2400); !found {
		months := fmt.Sprintf("month (field %d)", number(month))
		if n == 7 {
			months += " of a selected year (field 7)"
		}
		return Schedule{}, fmt.Errorf("never fires: no selected %s has a day that is selected by day of month (field %d) and day of week (field %d)",
			months, number(monthDay), number(weekday))
	}
	return s, nil
}

// readPlain lets robfig read all but what read has taken for itself.
func (s *Schedule) readPlain(plain [year]string) error {
	texts := plain
	for i, text := range texts {
		if text == "" { // a day field without plain items
			texts[i] = "1"
		}
	}
	spec, err := robfigParse(strings.Join(texts[:], " "))
	if err != nil {
		return err
	}
	const star = 1 << 63 // robfig's mark for *
	sets := [year]*set{&s.second, &s.minute, &s.hour, &s.days.month, &s.month, &s.days.week}
	for i, bits := range [year]uint64{spec.Second, spec.Minute, spec.Hour, spec.Dom, spec.Month, spec.Dow} {
		if plain[i] != "" {
			*sets[i] = set(bits &^ star)
		}
	}
	return nil
}

// robfigParse turns robfig's panics into errors. None is known to be reachable
// past our checks, but the expression comes from users and must never take the
// process down.
func robfigParse(expr string) (spec *cron.SpecSchedule, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("not understood: %v", p)
		}
	}()
	parsed, err := cron.NewParser(cron.Second | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow).Parse(expr)
	if err != nil {
		return nil, err
	}
	spec, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return nil, fmt.Errorf("not understood: unexpected %T", parsed)
	}
	return spec, nil
}

// Zone returns the name of the zone that the expression begins with, and ""
// when it names none. It is a zone that [time.LoadLocation] knows. Next does
// not look at it: its caller decides between this zone and others.
func (s Schedule) Zone() string { return s.zone }

package icalendar

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// property is a content line of an event.
type property struct {
	line   int // where it begins in the file, from 1
	name   string
	params map[string]string // of a parameter with several values, the first
	value  string
}

// wrap names the property and its line in an error.
func (p property) wrap(err error) error {
	return fmt.Errorf("line %d: %s: %w", p.line, p.name, err)
}

// component is a VEVENT.
type component struct {
	line       int
	properties []property
}

// get returns the property of that name, which may be there once.
func (c component) get(name string) (p property, found bool, err error) {
	for _, candidate := range c.properties {
		if candidate.name != name {
			continue
		}
		if found {
			return p, true, candidate.wrap(fmt.Errorf("there is another one in line %d", p.line))
		}
		p, found = candidate, true
	}
	return p, found, nil
}

func (c component) uid() string {
	for _, p := range c.properties {
		if p.name == "UID" {
			return p.value
		}
	}
	return ""
}

// wrap names the event in an error.
func (c component) wrap(err error) error {
	return fmt.Errorf("event %q of line %d: %w", c.uid(), c.line, err)
}

// known are the properties of events that decide about days; the rest is not looked into.
var known = strings.Fields("UID SUMMARY CATEGORIES STATUS DTSTART DTEND DURATION RRULE RDATE EXDATE EXRULE RECURRENCE-ID")

// parse returns the events of a file. The libraries there are lose the line numbers, and one panics on a line that ends
// in a parameter.
func parse(data []byte) ([]component, error) {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return nil, errors.New("the file is UTF-16; save it as UTF-8")
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	type open struct {
		name string
		line int
	}
	var events []component
	var stack []open
	calendars := 0
	for number, text := range unfold(data) {
		fail := func(format string, args ...any) error {
			return fmt.Errorf("line %d: "+format, append([]any{number}, args...)...)
		}
		if !utf8.Valid(text) {
			return nil, fail("not UTF-8")
		}
		p, err := parseLine(string(text))
		if err != nil {
			return nil, fail("%w", err)
		}
		p.line = number
		switch {
		case p.name == "BEGIN":
			name := strings.ToUpper(strings.TrimSpace(p.value))
			switch {
			case len(stack) == 0 && name != "VCALENDAR":
				return nil, fail("BEGIN:%.20s, expected BEGIN:VCALENDAR", name)
			case len(stack) == maxDepth:
				return nil, fail("more than %d components within each other", maxDepth)
			case len(stack) == 0:
				calendars++
			case len(stack) == 1 && name == "VEVENT":
				events = append(events, component{line: number})
			}
			stack = append(stack, open{name, number})
		case len(stack) == 0:
			return nil, fail("%.20q, expected BEGIN:VCALENDAR", text)
		case p.name == "END":
			last := stack[len(stack)-1]
			if name := strings.ToUpper(strings.TrimSpace(p.value)); name != last.name {
				return nil, fail("END:%.20s, expected END:%.20s, which began in line %d", name, last.name, last.line)
			}
			stack = stack[:len(stack)-1]
		case len(stack) == 2 && stack[1].name == "VEVENT" && slices.Contains(known, p.name):
			e := &events[len(events)-1]
			e.properties = append(e.properties, p)
		}
	}
	if len(stack) > 0 {
		last := stack[len(stack)-1]
		return nil, fmt.Errorf("the file ends within the %.20s that began in line %d; it is not whole", last.name, last.line)
	}
	if calendars == 0 {
		return nil, errors.New("no VCALENDAR; it is not an iCalendar file")
	}
	return events, nil
}

// unfold yields the content lines with the number of their first line. Long ones are folded: a line that begins with
// white space continues the one before, and may do so within a character.
func unfold(data []byte) func(yield func(int, []byte) bool) {
	return func(yield func(int, []byte) bool) {
		var text []byte
		start, number := 0, 0
		for line := range bytes.Lines(data) {
			number++
			line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
			if len(line) > 0 && (line[0] == ' ' || line[0] == '\t') && start > 0 {
				text = append(text, line[1:]...)
				continue
			}
			if len(text) > 0 && !yield(start, text) {
				return
			}
			text, start = slices.Clone(line), number
		}
		if len(text) > 0 {
			yield(start, text)
		}
	}
}

// parseLine splits NAME;PARAM=value,"value":value.
func parseLine(text string) (property, error) {
	p := property{}
	end := strings.IndexAny(text, ";:")
	if end <= 0 {
		return p, fmt.Errorf("%.20q has no name followed by a colon", text)
	}
	p.name = strings.ToUpper(text[:end])
	if strings.ContainsFunc(p.name, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return p, fmt.Errorf("%.20q is not a name", p.name)
	}
	for rest := text[end:]; ; {
		if value, ok := strings.CutPrefix(rest, ":"); ok {
			p.value = value
			return p, nil
		}
		name, after, ok := strings.Cut(rest[1:], "=")
		if !ok {
			return p, fmt.Errorf("%s: a parameter without a value", p.name)
		}
		var value string
		if value, rest, ok = cutParam(after); !ok {
			return p, fmt.Errorf("%s: the parameter %.20s does not end", p.name, name)
		}
		if p.params == nil {
			p.params = map[string]string{}
		}
		p.params[strings.ToUpper(name)] = value
	}
}

// cutParam cuts the values of a parameter from text; rest begins with the semicolon or colon that follows.
func cutParam(text string) (first, rest string, ok bool) {
	quoted := false
	for i, c := range text {
		switch {
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ';' || c == ':'):
			first, _, _ = strings.Cut(text[:i], ",")
			if inner, isQuoted := strings.CutPrefix(text[:i], `"`); isQuoted {
				first, _, _ = strings.Cut(inner, `"`)
			}
			return first, text[i:], true
		}
	}
	return "", "", false
}

var unescape = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\N`, "\n", `\;`, `;`, `\,`, `,`)

// texts splits a list of texts at the commas that are not escaped.
func texts(value string) []string {
	var list []string
	start, escaped := 0, false
	for i, c := range value {
		switch {
		case escaped:
			escaped = false
		case c == '\\':
			escaped = true
		case c == ',':
			list = append(list, strings.TrimSpace(unescape.Replace(value[start:i])))
			start = i + 1
		}
	}
	return append(list, strings.TrimSpace(unescape.Replace(value[start:])))
}

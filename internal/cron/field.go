package cron

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The fields of an expression, in the order of the form that has them all.
const (
	second = iota
	minute
	hour
	monthDay
	month
	weekday
	year
)

const (
	minYear = 1970
	maxYear = 2199
)

// field describes a position of an expression.
type field struct {
	name     string
	min, max int
	size     int      // how many values there are: days of the week have two for Sunday
	names    []string // names[i] stands for min+i; nil when there are none
	also     string   // what is expected besides numbers and names
}

var (
	monthNames = strings.Fields("jan feb mar apr may jun jul aug sep oct nov dec")
	dayNames   = strings.Fields("sun mon tue wed thu fri sat")
)

var fields = [...]field{
	second:   {name: "second", max: 59, size: 60},
	minute:   {name: "minute", max: 59, size: 60},
	hour:     {name: "hour", max: 23, size: 24},
	monthDay: {name: "day of month", min: 1, max: 31, size: 31, also: ", L, L-3, LW or 15W"},
	month:    {name: "month", min: 1, max: 12, size: 12, names: monthNames},
	weekday:  {name: "day of week", max: 7, size: 7, names: dayNames, also: ", FRIL or FRI#2"},
	year:     {name: "year", min: minYear, max: maxYear, size: maxYear - minYear + 1},
}

// read reads one item of the list in a field. It keeps what robfig does not
// know and returns "", or returns what robfig has to read.
func (s *Schedule) read(which int, item string) (string, error) {
	f := fields[which]
	switch which {
	case monthDay:
		if known, err := s.days.readMonthDay(strings.ToUpper(item)); known || err != nil {
			return "", err
		}
	case weekday:
		if known, err := s.days.readWeekday(strings.ToUpper(item)); known || err != nil {
			return "", err
		}
	}
	values, text, err := f.item(item, which == monthDay || which == weekday)
	if err != nil {
		return "", err
	}
	if which == year {
		for _, y := range values {
			s.years.add(y)
		}
	}
	return text, nil
}

// item reads *, N or N-M, with or without a step. It returns the values and a
// text for them that robfig reads.
func (f field) item(text string, day bool) (values []int, plain string, err error) {
	if text == "" {
		return nil, "", errors.New("empty item in a list")
	}
	span, stepText, hasStep := strings.Cut(text, "/")
	from, to, isRange := strings.Cut(span, "-")
	low, high, step := f.min, f.min+f.size-1, 1
	if hasStep {
		// A step beyond the field would select the first value only, which is
		// never what */90 was meant to say.
		steps := field{min: 1, max: min(high, f.size)}
		if step, err = steps.number(stepText); err != nil {
			return nil, "", fmt.Errorf("step: %w", err)
		}
	}
	switch {
	case span == "*", span == "?" && day:
		return f.values(low, high, step), text, nil
	case span == "?":
		return nil, "", errors.New("? is for day of month and day of week only; expected *")
	}
	if low, err = f.number(from); err != nil {
		return nil, "", err
	}
	switch {
	case isRange:
		if high, err = f.number(to); err != nil {
			return nil, "", err
		}
	case !hasStep:
		high = low
	}
	if low <= high && high < f.min+f.size {
		return f.values(low, high, step), text, nil
	}
	if f.min == minYear {
		return nil, "", fmt.Errorf("range %s runs backwards", span)
	}
	if low == f.min+f.size { // Sunday as 7
		if low == high {
			high = f.min
		}
		low = f.min
	}
	if high < low {
		high += f.size
	}
	values = f.values(low, high, step)
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = strconv.Itoa(v)
	}
	return values, strings.Join(texts, ","), nil
}

// values counts from low to high, which may be beyond the end of the field.
func (f field) values(low, high, step int) []int {
	var values []int
	for v := low; v <= high; v += step {
		values = append(values, f.min+(v-f.min)%f.size)
	}
	return values
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
		return 0, fmt.Errorf("%q is not %s%s", text, expected, f.also)
	}
	switch {
	case int(n) < f.min:
		return 0, fmt.Errorf("%d is below %d", n, f.min)
	case int(n) > f.max:
		return 0, fmt.Errorf("%d is above %d", n, f.max)
	}
	return int(n), nil
}

// free reports whether a field of days or years restricts nothing.
func free(list string) bool {
	return slices.ContainsFunc(strings.Split(list, ","), func(item string) bool {
		span, step, hasStep := strings.Cut(item, "/")
		n, err := strconv.Atoi(step)
		return (span == "*" || span == "?") && (!hasStep || err == nil && n == 1)
	})
}

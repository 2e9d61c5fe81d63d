package cron

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxTimes is how many times of day are listed one by one.
const maxTimes = 6

// String says in words when the schedule fires, such as "at 03:00 on the last
// Friday of the month". Expressions that mean the same are said alike.
func (s Schedule) String() string {
	if s == (Schedule{}) {
		return "never"
	}
	months := list(runs(s.month, month, func(m int) string { return time.Month(m).String() }))
	day, _ := s.days.month.from(1)
	text := s.timeWords()
	switch days := s.days.words(); {
	case s.month.len() == 1 && days == fmt.Sprintf("on day %d of the month", day):
		text += fmt.Sprintf(" on %d %s", day, months)
		months = ""
	case days != "":
		text += " " + days
	case strings.HasPrefix(text, "at ") && !strings.Contains(text, "every "):
		text += " every day"
	}
	if months != "" && !s.month.full(month) {
		text += " in " + months
	}
	if s.years != (years{}) {
		text += " in " + s.years.words()
	}
	if s.zone != "" {
		text += " (" + s.zone + ")"
	}
	return text
}

// timeWords says at which times of a day.
func (s *Schedule) timeWords() string {
	const first set = 1
	var times []string
	if s.second.len() == 1 && s.hour.len()*s.minute.len() <= maxTimes {
		for h := range s.hour.all() {
			for m := range s.minute.all() {
				times = append(times, s.clockWords(h, m))
			}
		}
		return "at " + list(times)
	}
	low, high := ends(s.hour, hour)
	if s.second == first && s.minute == first {
		step, even := progression(s.hour, hour)
		switch {
		case even && low == 0:
			return every(step, "hour")
		case even:
			return every(step, "hour") + " from " + s.clockWords(low, 0)
		case len(runs(s.hour, hour, strconv.Itoa)) == 1:
			return fmt.Sprintf("every hour from %s to %s", s.clockWords(low, 0), s.clockWords(high, 0))
		}
	}
	text := ""
	goesOn := false // what was said last is said of all that comes next
	for which, values := range []set{s.second, s.minute, s.hour} {
		name := fields[which].name
		step, even := progression(values, which)
		switch {
		case text == "" && which < hour && values == first: // on the minute, on the hour
			continue
		case text == "" && even:
			text = every(step, name)
		case text == "":
			text = "at " + named(name, values, which)
		case even && step == 1 && goesOn:
		case even && step == 1:
			text += " of every " + name
		case even:
			text += fmt.Sprintf(" of every %s %s", ordinal(step), name)
		default:
			text += " of " + named(name, values, which)
		}
		if low, _ := values.from(0); even && low != 0 {
			text += fmt.Sprintf(" from %s %d", name, low)
		}
		goesOn = even
	}
	return text
}

func (s *Schedule) clockWords(h, m int) string {
	if sec, _ := s.second.from(0); sec != 0 {
		return fmt.Sprintf("%02d:%02d:%02d", h, m, sec)
	}
	return fmt.Sprintf("%02d:%02d", h, m)
}

func every(step int, name string) string {
	if step == 1 {
		return "every " + name
	}
	return fmt.Sprintf("every %d %ss", step, name)
}

// named says "hour 9" or "hours 9 to 17".
func named(name string, values set, which int) string {
	if values.len() > 1 {
		name += "s"
	}
	return name + " " + list(runs(values, which, strconv.Itoa))
}

// progression reports whether the values of a field go through all of it in
// equal steps, at least three of them, of a length that divides the field.
func progression(values set, which int) (step int, even bool) {
	low, _ := values.from(0)
	size, n := fields[which].size, values.len()
	if n < 3 || size%n != 0 {
		return 0, false
	}
	step = size / n
	for v := low; v < size; v += step {
		if !values.has(v) {
			return 0, false
		}
	}
	return step, low < step
}

// runs says the values of a field, those that follow each other as "1 to 5".
// Runs of hours, months and days of the week go on over the end of the field.
func runs(values set, which int, say func(int) string) []string {
	f := fields[which]
	var out []string
	for _, run := range spans(values, which) {
		low, n := run[0], run[1]
		high := f.min + (low-f.min+n-1)%f.size
		switch n {
		case 1:
			out = append(out, say(low))
		case 2:
			out = append(out, say(low), say(high))
		default:
			out = append(out, say(low)+" to "+say(high))
		}
	}
	return out
}

// ends returns the first value of the first run, and its last one.
func ends(values set, which int) (low, high int) {
	run := spans(values, which)[0]
	return run[0], (run[0] + run[1] - 1) % fields[which].size
}

// spans returns the first value and the length of each run.
func spans(values set, which int) (out [][2]int) {
	f := fields[which]
	for v := range values.all() {
		if last := len(out) - 1; last >= 0 && out[last][0]+out[last][1] == v {
			out[last][1]++
		} else {
			out = append(out, [2]int{v, 1})
		}
	}
	cyclic := which == hour || which == month || which == weekday
	if last := len(out) - 1; cyclic && last > 0 && out[0][0] == f.min && out[last][0]+out[last][1] == f.min+f.size {
		out[last][1] += out[0][1]
		out = append(out[last:], out[1:last]...)
	}
	return out
}

// words says on which days, and "" for every day.
func (d *days) words() string {
	var byMonth, byWeek []string
	free := d.month.full(monthDay)
	if !free {
		byMonth = d.monthWords()
	}
	if !d.week.full(weekday) {
		byWeek = d.weekWords()
	}
	switch {
	case d.either && (free || d.week.full(weekday)): // one of them has every day
		return ""
	case len(byMonth) == 0 && len(byWeek) == 0:
		return ""
	case len(byMonth) == 0:
		return "on " + alternatives(byWeek)
	case len(byWeek) == 0:
		return "on " + alternatives(byMonth)
	case d.either:
		return "on " + alternatives(append(byMonth, byWeek...))
	}
	return "on " + alternatives(byMonth) + " if it is " + alternatives(byWeek)
}

func (d *days) monthWords() (out []string) {
	if step := d.step(); step > 0 {
		low, _ := d.month.from(1)
		out = append(out, fmt.Sprintf("every %s day of the month from day %d", ordinal(step), low))
	} else if d.month != 0 {
		out = append(out, named("day", d.month, monthDay)+" of the month")
	}
	for n := range d.nearest.all() {
		text := fmt.Sprintf("the weekday nearest to day %d of the month", n)
		if n == 0 {
			text = "the last weekday of the month"
		}
		out = append(out, text)
	}
	for n := range d.last.all() {
		text := "the last day of the month"
		switch {
		case n == 1:
			text = "the day before " + text
		case n > 1:
			text = fmt.Sprintf("the %s day before %s", ordinal(n), text)
		}
		out = append(out, text)
	}
	return out
}

// step returns the step of days of the month such as */2, and 0 for others.
func (d *days) step() int {
	const few = 4
	low, _ := d.month.from(1)
	next, _ := d.month.from(low + 1)
	step := next - low
	if d.month.len() < few || step < 2 {
		return 0
	}
	var all set
	for v := low; v <= fields[monthDay].max; v += step {
		all |= 1 << v
	}
	if d.month != all {
		return 0
	}
	return step
}

func (d *days) weekWords() (out []string) {
	day := func(n int) string { return time.Weekday(n).String() }
	if d.week != 0 {
		out = append(out, list(runs(d.week, weekday, day)))
	}
	for _, k := range []int{1, 2, 3, 4, 5, 0} {
		which := "last"
		if k > 0 {
			which = ordinal(k)
		}
		for n := range d.nth[k].all() {
			out = append(out, fmt.Sprintf("the %s %s of the month", which, day(n)))
		}
	}
	return out
}

func (y *years) words() string {
	var out []string
	for v, more := y.next(minYear); more; v, more = y.next(v + 1) {
		end := v
		for next, more := y.next(end + 1); more && next == end+1; next, more = y.next(end + 1) {
			end = next
		}
		if end > v {
			out = append(out, fmt.Sprintf("%d to %d", v, end))
		} else {
			out = append(out, strconv.Itoa(v))
		}
		v = end
	}
	return list(out)
}

// list says "a, b and c".
func list(items []string) string { return join(items, " and ") }

// alternatives says "a, b or c".
func alternatives(items []string) string { return join(items, " or ") }

func join(items []string, last string) string {
	n := len(items) - 1
	if n < 1 {
		return strings.Join(items, "")
	}
	return strings.Join(items[:n], ", ") + last + items[n]
}

func ordinal(n int) string {
	switch {
	case n%10 == 1 && n != 11:
		return fmt.Sprintf("%dst", n)
	case n%10 == 2 && n != 12:
		return fmt.Sprintf("%dnd", n)
	case n%10 == 3 && n != 13:
		return fmt.Sprintf("%drd", n)
	}
	return fmt.Sprintf("%dth", n)
}

package difftest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
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
	fieldCount
)

// Kinds of items.
const (
	star    = iota // *, with a step or without
	single         // a, or a/step: from there to the end
	between        // a-b, or a-b/step
	last           // L, or L-a
	lastWeekday
	nearest // aW: the weekday nearest to day a
	nth     // a#b
	lastOf  // aL: the last weekday a of the month
)

// item is one element of the list in a field.
type item struct {
	kind, a, b int
	step       int    // 0: none
	sign       string // of star: * or ?
	named      bool   // a and b are written as names
}

type field []item

// expr is a cron expression by its parts, from which both its text and its meaning are made; so the meaning owes nothing
// to a parser.
type expr struct {
	fields [fieldCount]field // no seconds or years: as if not written
	both   bool
}

// limits are the least and the greatest value of each field; 7 for Sunday comes on top.
var limits = [fieldCount][2]int{{0, 59}, {0, 59}, {0, 23}, {1, 31}, {1, 12}, {0, 6}, {1970, 2199}}

var (
	monthNames = strings.Fields("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC")
	dayNames   = strings.Fields("SUN MON TUE WED THU FRI SAT")
)

// dialect is how an implementation writes expressions.
type dialect struct {
	seconds  bool // the field of seconds is always there
	both     bool // seconds and years come together
	firstDay int  // the number of Sunday
	lastOf   string
}

var carillonDialect = dialect{lastOf: "%sL"}

// text writes the expression in a dialect.
func (e expr) text(d dialect) string {
	var texts []string
	for which, f := range e.fields {
		switch {
		case len(f) > 0:
			texts = append(texts, f.text(which, d))
		case which == second && (d.seconds || len(e.fields[year]) > 0):
			texts = append(texts, "0")
		case which == year && d.both && len(e.fields[second]) > 0:
			texts = append(texts, "*")
		}
	}
	return strings.Join(texts, " ")
}

func (e expr) String() string {
	if e.both {
		return e.text(carillonDialect) + " (both)"
	}
	return e.text(carillonDialect)
}

func (f field) text(which int, d dialect) string {
	var items []string
	for _, i := range f {
		items = append(items, i.text(which, d))
	}
	return strings.Join(items, ",")
}

func (i item) text(which int, d dialect) string {
	value := func(v int) string {
		switch {
		case i.named && which == month:
			return monthNames[v-1]
		case i.named && which == weekday:
			return dayNames[v]
		case which == weekday && d.firstDay != 0:
			return fmt.Sprint(v%7 + d.firstDay)
		}
		return fmt.Sprint(v)
	}
	var text string
	switch i.kind {
	case star:
		text = i.sign
	case single:
		text = value(i.a)
	case between:
		text = value(i.a) + "-" + value(i.b)
	case last:
		text = "L"
		if i.a > 0 {
			text = fmt.Sprintf("L-%d", i.a)
		}
	case lastWeekday:
		text = "LW"
	case nearest:
		text = fmt.Sprintf("%dW", i.a)
	case nth:
		text = fmt.Sprintf("%s#%d", value(i.a), i.b)
	case lastOf:
		text = fmt.Sprintf(d.lastOf, value(i.a))
	}
	if i.step > 0 {
		text += fmt.Sprintf("/%d", i.step)
	}
	return text
}

// matches tells whether a number is selected by one of the items that are about numbers.
func (f field) matches(which, v int) bool {
	low, high := limits[which][0], limits[which][1]
	size := high - low + 1
	return slices.ContainsFunc(f, func(i item) bool {
		first, final := low, high
		switch i.kind {
		case single:
			first = i.a
			if i.step == 0 {
				final = i.a
			}
		case between:
			first, final = i.a, i.b
		case star:
		default:
			return false
		}
		if first > high && final > high { // Sunday as 7, alone
			final = low
		}
		if first > high {
			first = low
		}
		if final < first {
			final += size
		}
		for n := first; n <= final; n += max(i.step, 1) {
			if low+(n-low)%size == v {
				return true
			}
		}
		return false
	})
}

// wraps tells whether the item is a range over the end of its field. To 7, for Sunday, is none.
func (i item) wraps() bool { return i.kind == between && i.a > i.b }

func (e expr) has(has func(which int, i item) bool) bool {
	for which, f := range e.fields {
		if slices.ContainsFunc(f, func(i item) bool { return has(which, i) }) {
			return true
		}
	}
	return false
}

// free tells whether a day field restricts nothing, by the rule that a * is in it.
func (f field) free() bool {
	return slices.ContainsFunc(f, func(i item) bool { return i.kind == star && i.step <= 1 })
}

func (e expr) twoDayFields() bool { return !e.fields[monthDay].free() && !e.fields[weekday].free() }

// elapsed tells whether the expression follows elapsed time.
func (e expr) elapsed() bool {
	return e.fields[minute][0].kind == star || e.fields[hour][0].kind == star
}

// selects tells whether a date, in UTC, is selected.
func (e expr) selects(date time.Time) bool {
	if f := e.fields[year]; len(f) > 0 && !f.free() && !f.matches(year, date.Year()) {
		return false
	}
	if !e.fields[month].matches(month, int(date.Month())) {
		return false
	}
	byMonth, byWeek := e.fields[monthDay].selectsDay(date), e.fields[weekday].selectsWeekday(date)
	if e.both || !e.twoDayFields() {
		return byMonth && byWeek
	}
	return byMonth || byWeek
}

func (f field) selectsDay(date time.Time) bool {
	day, length := date.Day(), lastDay(date)
	workday := func(d int) bool {
		w := date.AddDate(0, 0, d-day).Weekday()
		return w != time.Saturday && w != time.Sunday
	}
	return f.matches(monthDay, day) || slices.ContainsFunc(f, func(i item) bool {
		switch i.kind {
		case last:
			return day == length-i.a
		case lastWeekday:
			for d := length; ; d-- {
				if workday(d) {
					return d == day
				}
			}
		case nearest:
			for _, distance := range []int{0, -1, 1, -2, 2} {
				if d := i.a + distance; i.a <= length && d >= 1 && d <= length && workday(d) {
					return d == day
				}
			}
		}
		return false
	})
}

func (f field) selectsWeekday(date time.Time) bool {
	w := int(date.Weekday())
	return f.matches(weekday, w) || slices.ContainsFunc(f, func(i item) bool {
		return i.kind == nth && i.a%7 == w && (date.Day()+6)/7 == i.b ||
			i.kind == lastOf && i.a%7 == w && date.Day() > lastDay(date)-7
	})
}

// lastDay takes a date in UTC.
func lastDay(date time.Time) int { return date.AddDate(0, 1, -date.Day()).Day() }

// drawExpr draws an expression that a user may write, and that Carillon understands.
func drawExpr(r *rand.Rand) expr {
	var e expr
	every := field{{kind: star, sign: "*"}}
	pick := func(p float64, which int) field {
		if r.Float64() < p {
			return drawNumbers(r, which)
		}
		return every
	}
	if r.IntN(5) == 0 {
		e.fields[second] = pick(0.9, second)
	}
	e.fields[minute] = pick(0.9, minute)
	e.fields[hour] = pick(0.75, hour)
	e.fields[monthDay] = drawDays(r)
	e.fields[month] = pick(0.25, month)
	e.fields[weekday] = drawWeekdays(r)
	if r.IntN(12) == 0 {
		e.fields[year] = pick(0.9, year)
	}
	e.both = e.twoDayFields() && r.IntN(4) == 0
	return e
}

// drawNumbers draws a list of numbers and ranges. Hours of the night are frequent, as that is when clocks are changed.
func drawNumbers(r *rand.Rand, which int) field {
	low, high := limits[which][0], limits[which][1]
	value := func() int {
		switch {
		case which == hour && r.IntN(2) == 0:
			return r.IntN(4)
		case which <= minute && r.IntN(3) == 0:
			return 30 * r.IntN(2)
		case which == weekday:
			return r.IntN(8)
		case which == year:
			return 1990 + r.IntN(100)
		}
		return low + r.IntN(high-low+1)
	}
	step := func() int {
		if which == year {
			return 1 + r.IntN(8)
		}
		return 1 + r.IntN(min(high, 1+r.IntN(20)))
	}
	count := 1
	if r.IntN(3) == 0 {
		count = 2 + r.IntN(3)
	}
	var f field
	for range count {
		i := item{named: (which == month || which == weekday) && r.IntN(2) == 0}
		switch n := r.IntN(20); {
		case n < 8:
			i.kind, i.a = single, value()
		case n < 12:
			i.kind, i.a, i.b = between, value(), value()
		case n < 14:
			i.kind, i.a, i.b, i.step = between, value(), value(), step()
		case n < 16:
			i.kind, i.a, i.step = single, value(), step()
		case n < 19:
			i.kind, i.sign, i.step = star, "*", step()
		default:
			i.kind, i.sign = star, "*"
		}
		if i.wraps() && (which == year || r.IntN(8) > 0) {
			i.a, i.b = i.b, i.a
		}
		if which == weekday && i.named {
			i.a, i.b = i.a%7, i.b%7
		}
		f = append(f, i)
	}
	return f
}

func drawDays(r *rand.Rand) field {
	switch n := r.IntN(20); {
	case n < 9:
		return field{{kind: star, sign: []string{"*", "*", "?"}[r.IntN(3)]}}
	case n < 15:
		return drawNumbers(r, monthDay)
	}
	f := field{drawDay(r)}
	if r.IntN(4) == 0 {
		f = append(f, drawDay(r))
	}
	if r.IntN(4) == 0 {
		f = append(f, drawNumbers(r, monthDay)...)
	}
	return f
}

func drawDay(r *rand.Rand) item {
	switch r.IntN(4) {
	case 0:
		return item{kind: last}
	case 1:
		return item{kind: last, a: 1 + r.IntN(30)}
	case 2:
		return item{kind: lastWeekday}
	}
	return item{kind: nearest, a: 1 + r.IntN(31)}
}

func drawWeekdays(r *rand.Rand) field {
	switch n := r.IntN(20); {
	case n < 10:
		return field{{kind: star, sign: []string{"*", "*", "?"}[r.IntN(3)]}}
	case n < 16:
		return drawNumbers(r, weekday)
	}
	f := field{}
	for range 1 + r.IntN(5)/4 {
		i := item{kind: nth, a: r.IntN(8), b: 1 + r.IntN(5)}
		if r.IntN(2) == 0 {
			i.a, i.named = i.a%7, true
		}
		if r.IntN(2) == 0 {
			i.kind, i.b = lastOf, 0
		}
		f = append(f, i)
	}
	if r.IntN(4) == 0 {
		f = append(f, drawNumbers(r, weekday)...)
	}
	return f
}

// simpler returns expressions that have less in one field.
func (e expr) simpler() []expr {
	var all []expr
	with := func(which int, f field) {
		simpler := e
		simpler.fields[which] = f
		all = append(all, simpler)
	}
	for which, f := range e.fields {
		if len(f) > 0 && (which == second || which == year) {
			with(which, nil)
		}
		every := item{kind: star, sign: "*"}
		if len(f) == 1 && f[0] == every {
			continue
		}
		if len(f) > 0 {
			with(which, field{every})
		}
		for n, i := range f {
			if len(f) > 1 {
				with(which, slices.Delete(slices.Clone(f), n, n+1))
			}
			if i.step > 0 {
				i.step = 0
				with(which, slices.Replace(slices.Clone(f), n, n+1, i))
			}
		}
	}
	if e.both {
		simpler := e
		simpler.both = false
		all = append(all, simpler)
	}
	return all
}

// fires tells whether a day is selected in the years that can be named.
func (e expr) fires() bool {
	for date := earliest; date.Year() <= limits[year][1]; date = date.AddDate(0, 0, 1) {
		if e.selects(date) {
			return true
		}
	}
	return false
}

package cron

import (
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"strings"
	"time"
)

// A set of small numbers.
type set uint64

func (s set) has(v int) bool { return s>>v&1 != 0 }

// from returns the first number that is not below v.
func (s set) from(v int) (int, bool) {
	s = s >> v << v
	return bits.TrailingZeros64(uint64(s)), s != 0
}

func (s set) all() iter.Seq[int] {
	return func(yield func(int) bool) {
		for ; s != 0; s &= s - 1 {
			if !yield(bits.TrailingZeros64(uint64(s))) {
				return
			}
		}
	}
}

func (s set) len() int { return bits.OnesCount64(uint64(s)) }

// full reports whether s has every value of a field.
func (s set) full(which int) bool { return s.len() == fields[which].size }

// years is a set of years; the zero value has all there are.
type years [4]uint64

func (y *years) add(v int) { y[(v-minYear)/64] |= 1 << ((v - minYear) % 64) }

// next returns the first year that is not below v.
func (y *years) next(v int) (int, bool) {
	if *y == (years{}) {
		return v, true
	}
	for v = max(v, minYear); v <= maxYear; v++ {
		if y[(v-minYear)/64]>>((v-minYear)%64)&1 != 0 {
			return v, true
		}
	}
	return 0, false
}

// first returns the first year, or otherwise when there is none.
func (y *years) first(otherwise int) int {
	if *y == (years{}) {
		return otherwise
	}
	v, _ := y.next(minYear)
	return v
}

// days are the rules of both day fields.
type days struct {
	month   set    // days of the month
	last    set    // n: n days before the last one
	nearest set    // n: the weekday nearest to day n; 0: to the last day
	week    set    // days of the week
	nth     [6]set // k: the kth of these days of the week in the month; 0: the last
	either  bool   // one of the fields is enough
}

// lastDays is the field N of L-N.
var lastDays = field{min: 1, max: 30}

// readMonthDay reads what only a day of the month can be.
func (d *days) readMonthDay(item string) (known bool, err error) {
	number, isNearest := strings.CutSuffix(item, "W")
	before, isBefore := strings.CutPrefix(item, "L-")
	switch {
	case item == "L":
		d.last |= 1
	case item == "LW":
		d.nearest |= 1
	case isBefore:
		n, err := lastDays.number(before)
		if err != nil {
			return false, fmt.Errorf("days before the last one: %w", err)
		}
		d.last |= 1 << n
	case isNearest:
		n, err := fields[monthDay].number(number)
		if err != nil {
			return false, fmt.Errorf("weekday nearest to a day: %w", err)
		}
		d.nearest |= 1 << n
	default:
		return false, nil
	}
	return true, nil
}

// readWeekday reads what only a day of the week can be.
func (d *days) readWeekday(item string) (known bool, err error) {
	day, kth, isNth := strings.Cut(item, "#")
	last, isLast := strings.CutSuffix(item, "L")
	k := 0
	switch {
	case item == "L":
		return false, errors.New("expected a day of the week before L: FRIL is the last Friday of the month")
	case isNth:
		if k, err = (field{min: 1, max: 5}).number(kth); err != nil {
			return false, fmt.Errorf("after #: %w", err)
		}
	case isLast:
		day = last
	default:
		return false, nil
	}
	n, err := fields[weekday].number(day)
	if err != nil {
		return false, err
	}
	d.nth[k] |= 1 << (n % 7)
	return true, nil
}

// of returns the selected days of a month.
func (d *days) of(year int, month time.Month) set {
	first := int(time.Date(year, month, 1, 0, 0, 0, 0, time.UTC).Weekday())
	length := daysIn(year, month)
	weekdayOf := func(day int) int { return (first + day - 1) % 7 }

	byMonth := d.month
	for n := range d.last.all() {
		if n < length {
			byMonth |= 1 << (length - n)
		}
	}
	for n := range d.nearest.all() {
		if n == 0 {
			n = length
		}
		if n <= length {
			byMonth |= 1 << nearest(n, length, weekdayOf(n))
		}
	}

	byWeek := set(0)
	const weekly = 1 | 1<<7 | 1<<14 | 1<<21 | 1<<28
	for n := range d.week.all() {
		byWeek |= weekly << (1 + (n-first+7)%7)
	}
	for k, weekdays := range d.nth {
		for n := range weekdays.all() {
			if k == 0 {
				byWeek |= 1 << (length - (weekdayOf(length)-n+7)%7)
			} else {
				byWeek |= 1 << (1 + (n-first+7)%7 + 7*(k-1))
			}
		}
	}

	selected := byMonth & byWeek
	if d.either {
		selected = byMonth | byWeek
	}
	return selected & (1<<(length+1) - 2)
}

// nearest returns the day of Monday to Friday that is nearest to a day of a
// month with the given length, without leaving the month.
func nearest(day, length, weekday int) int {
	switch {
	case weekday == 6 && day == 1:
		return 3
	case weekday == 6:
		return day - 1
	case weekday == 0 && day == length:
		return day - 2
	case weekday == 0:
		return day + 1
	}
	return day
}

func daysIn(year int, month time.Month) int {
	return time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

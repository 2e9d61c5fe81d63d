package cron

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/carillon-go/carillon/internal/zone"
	"github.com/carillon-go/carillon/internal/zonetest"
)

// A plan is a cron expression together with what it means, put together item by
// item, so that the meaning owes nothing to the parser.
type plan struct {
	expr    string
	both    bool
	elapsed bool
	second  func(int) bool
	minute  func(int) bool
	hour    func(int) bool
	day     func(time.Time) bool
}

func (p plan) has(t time.Time) bool {
	return p.second(t.Second()) && p.minute(t.Minute()) && p.hour(t.Hour()) && p.day(t)
}

// drawNumbers draws a field of numbers from low to low+size-1.
func drawNumbers(t *rapid.T, name string, low, size int, names []string) (string, func(int) bool) {
	number := rapid.IntRange(low, low+size-1)
	say := func(v int) string {
		if names != nil && rapid.Bool().Draw(t, name+" by name") {
			return strings.ToUpper(names[v-low])
		}
		if size == 7 && v == 0 && rapid.Bool().Draw(t, "Sunday is 7") {
			return "7"
		}
		return fmt.Sprint(v)
	}
	sayRange := func(a, b int) string {
		if from := say(a); a == b {
			return from + "-" + from // 0-7 is the week, 0-0 and 7-7 are Sunday
		}
		return say(a) + "-" + say(b)
	}
	var texts []string
	var all []func(int) bool
	for range rapid.IntRange(1, 3).Draw(t, name+" items") {
		a, b := number.Draw(t, name), number.Draw(t, name)
		step := rapid.IntRange(1, min(low+size-1, size)).Draw(t, name+" step")
		stepped := func(first, last int) func(int) bool {
			return func(v int) bool {
				distance := (v - first + size) % size
				return distance <= (last-first+size)%size && distance%step == 0
			}
		}
		switch rapid.IntRange(0, 4).Draw(t, name+" form") {
		case 0:
			texts, all = append(texts, say(a)), append(all, func(v int) bool { return v == a })
		case 1:
			texts = append(texts, sayRange(a, b))
			all = append(all, func(v int) bool { return (v-a+size)%size <= (b-a+size)%size })
		case 2:
			texts, all = append(texts, fmt.Sprintf("%s/%d", sayRange(a, b), step)), append(all, stepped(a, b))
		case 3:
			texts, all = append(texts, fmt.Sprintf("%s/%d", say(a), step)), append(all, stepped(a, low+size-1))
		case 4:
			texts, all = append(texts, fmt.Sprintf("*/%d", step)), append(all, stepped(low, low+size-1))
		}
	}
	return strings.Join(texts, ","), either(all)
}

func either[T any](all []func(T) bool) func(T) bool {
	return func(v T) bool {
		for _, has := range all {
			if has(v) {
				return true
			}
		}
		return false
	}
}

func isWeekday(t time.Time) bool { return t.Weekday() != time.Saturday && t.Weekday() != time.Sunday }

// drawMonthDay draws a day of the month that is not just a number.
func drawMonthDay(t *rapid.T) (string, func(time.Time) bool) {
	n := rapid.IntRange(1, 30).Draw(t, "n")
	switch rapid.IntRange(0, 3).Draw(t, "month day form") {
	case 0:
		return "L", func(d time.Time) bool { return d.AddDate(0, 0, 1).Month() != d.Month() }
	case 1:
		return fmt.Sprintf("L-%d", n), func(d time.Time) bool {
			end := d.AddDate(0, 0, n)
			return end.Month() == d.Month() && end.AddDate(0, 0, 1).Month() != d.Month()
		}
	case 2:
		return "LW", func(d time.Time) bool {
			for later := d.AddDate(0, 0, 1); later.Month() == d.Month(); later = later.AddDate(0, 0, 1) {
				if isWeekday(later) {
					return false
				}
			}
			return isWeekday(d)
		}
	}
	return fmt.Sprintf("%dW", n), func(d time.Time) bool {
		target := time.Date(d.Year(), d.Month(), n, 0, 0, 0, 0, time.UTC)
		for _, distance := range []int{0, -1, 1, -2, 2} {
			found := target.AddDate(0, 0, distance)
			if target.Month() == d.Month() && found.Month() == d.Month() && isWeekday(found) {
				return found.Day() == d.Day()
			}
		}
		return false
	}
}

// drawDays draws the three fields of days.
func drawDays(t *rapid.T) (monthDays, months, weekdays string, both bool, day func(time.Time) bool) {
	monthDays, months, weekdays = "*", "*", "*"
	always := func(time.Time) bool { return true }
	byMonthDay, byMonth, byWeekday := always, always, always
	if rapid.Bool().Draw(t, "days of month") {
		text, has := drawNumbers(t, "day", 1, 31, nil)
		monthDays, byMonthDay = text, func(d time.Time) bool { return has(d.Day()) }
		if rapid.Bool().Draw(t, "special day") {
			special, isSpecial := drawMonthDay(t)
			if rapid.Bool().Draw(t, "only") {
				monthDays, byMonthDay = special, isSpecial
			} else {
				monthDays, byMonthDay = special+","+text, either([]func(time.Time) bool{isSpecial, byMonthDay})
			}
		}
	}
	if rapid.Bool().Draw(t, "months") {
		text, has := drawNumbers(t, "month", 1, 12, monthNames)
		months, byMonth = text, func(d time.Time) bool { return has(int(d.Month())) }
	}
	switch rapid.IntRange(0, 3).Draw(t, "days of week") {
	case 0:
		weekdays = "?"
	case 1:
		text, has := drawNumbers(t, "weekday", 0, 7, dayNames)
		weekdays, byWeekday = text, func(d time.Time) bool { return has(int(d.Weekday())) }
	case 2:
		n, k := rapid.IntRange(0, 6).Draw(t, "weekday"), rapid.IntRange(1, 5).Draw(t, "k")
		weekdays = fmt.Sprintf("%d#%d", n, k)
		byWeekday = func(d time.Time) bool { return int(d.Weekday()) == n && (d.Day()+6)/7 == k }
	case 3:
		n := rapid.IntRange(0, 6).Draw(t, "weekday")
		weekdays = dayNames[n] + "L"
		byWeekday = func(d time.Time) bool { return int(d.Weekday()) == n && d.AddDate(0, 0, 7).Month() != d.Month() }
	}
	both = rapid.Bool().Draw(t, "both")
	unrestricted := func(text string) bool {
		for item := range strings.SplitSeq(text, ",") {
			if item == "*" || item == "?" || item == "*/1" {
				return true
			}
		}
		return false
	}
	if both || unrestricted(monthDays) || unrestricted(weekdays) {
		return monthDays, months, weekdays, both, func(d time.Time) bool { return byMonth(d) && byMonthDay(d) && byWeekday(d) }
	}
	return monthDays, months, weekdays, both, func(d time.Time) bool { return byMonth(d) && (byMonthDay(d) || byWeekday(d)) }
}

func drawPlan(t *rapid.T) plan {
	var p plan
	seconds, minutes, hours := "0", "*", "*"
	always := func(int) bool { return true }
	p.second, p.minute, p.hour = func(v int) bool { return v == 0 }, always, always
	if rapid.Bool().Draw(t, "minutes") {
		minutes, p.minute = drawNumbers(t, "minute", 0, 60, nil)
	}
	if rapid.Bool().Draw(t, "hours") {
		hours, p.hour = drawNumbers(t, "hour", 0, 24, nil)
	}
	if rapid.IntRange(0, 4).Draw(t, "seconds") == 0 {
		seconds, p.second = drawNumbers(t, "second", 0, 60, nil)
	}
	p.elapsed = minutes[0] == '*' || hours[0] == '*'
	monthDays, months, weekdays, both, day := drawDays(t)
	p.both, p.day = both, day
	p.expr = strings.Join([]string{seconds, minutes, hours, monthDays, months, weekdays}, " ")
	return p
}

// shown reads the clock of t as if it were in UTC.
func shown(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, time.UTC)
}

// ticks walks the clock of loc step by step and tells which instants are ticks.
// All offsets there have to be multiples of the step. It looks for repeated
// times so far around.
func (p plan) ticks(from, to time.Time, around, step time.Duration, loc *time.Location, r zone.Rules) []time.Time {
	first, last := map[int64]time.Time{}, map[int64]time.Time{}
	for at := from.Add(-around); at.Before(to.Add(around)); at = at.Add(step) {
		local := shown(at.In(loc)).Unix()
		if _, known := first[local]; !known {
			first[local] = at
		}
		last[local] = at
	}
	isTick := func(at time.Time) bool {
		local := shown(at.In(loc))
		if p.has(local) {
			switch {
			case p.elapsed, r.Repeat == zone.RepeatBoth:
				return true
			case r.Repeat == zone.RepeatFirst && first[local.Unix()].Equal(at):
				return true
			case r.Repeat == zone.RepeatLast && last[local.Unix()].Equal(at):
				return true
			}
		}
		if p.elapsed || r.Gap == zone.GapSkip {
			return false
		}
		for skipped := shown(at.Add(-step).In(loc)).Add(step); skipped.Before(local); skipped = skipped.Add(step) {
			if p.has(skipped) {
				return true
			}
		}
		return false
	}
	var all []time.Time
	for at := from; at.Before(to); at = at.Add(step) {
		if isTick(at) {
			all = append(all, at)
		}
	}
	return all
}

// TestNextAgainstClock compares with clocks that are read step by step around
// the changes of all zones.
func TestNextAgainstClock(t *testing.T) {
	t.Parallel()
	names := zonetest.Names(t)
	rapid.Check(t, func(t *rapid.T) {
		p := drawPlan(t)
		r := zone.Rules{Gap: zone.Gap(rapid.IntRange(0, 1).Draw(t, "gap")), Repeat: zone.Repeat(rapid.IntRange(0, 2).Draw(t, "repeat"))}
		name := rapid.SampledFrom(names).Draw(t, "zone")
		loc, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		// Offsets are of whole minutes since 1972; before, seconds have to be walked.
		year, step, reach := rapid.IntRange(1973, 2100).Draw(t, "year"), time.Minute, 48*time.Hour
		if rapid.IntRange(0, 9).Draw(t, "old") == 0 {
			year, reach = rapid.IntRange(1880, 1960).Draw(t, "old year"), 2*time.Hour
		}
		if year < 1973 || strings.Fields(p.expr)[0] != "0" {
			step, reach = time.Second, 2*time.Hour
		}
		middle := time.Date(year, time.Month(rapid.IntRange(1, 12).Draw(t, "month")), 15, 0, 0, 0, 0, time.UTC).In(loc)
		var changed time.Duration
		if change := zone.Change(middle); !change.IsZero() {
			middle = change
			changed = time.Duration(zone.Offset(change)-zone.Offset(change.Add(-1))) * time.Second
		}
		from, to := middle.Add(-reach).UTC(), middle.Add(reach).UTC()
		s, err := Parse(p.expr, p.both)
		if err != nil {
			if !strings.Contains(err.Error(), "never fires") {
				t.Fatal(err)
			}
			return // see TestDaysAgainstCalendar
		}
		at := from.Add(-time.Nanosecond)
		for _, want := range p.ticks(from, to, changed.Abs(), step, loc, r) {
			next := s.Next(at, loc, r)
			if !next.Equal(want) {
				t.Fatalf("%s %q %+v: after %v: got %v, want %v", name, p.expr, r, at.In(loc), next, want.In(loc))
			}
			at = next
		}
		if next := s.Next(at, loc, r); !next.IsZero() && next.Before(to) {
			t.Fatalf("%s %q %+v: after %v: got %v, want none up to %v", name, p.expr, r, at.In(loc), next, to.In(loc))
		}
	})
}

// TestDaysAgainstCalendar compares with a calendar that is read day by day.
func TestDaysAgainstCalendar(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		monthDays, months, weekdays, both, has := drawDays(t)
		years, inYear := "*", func(int) bool { return true }
		if rapid.Bool().Draw(t, "years") {
			first := rapid.IntRange(1970, 2199).Draw(t, "first year")
			final := rapid.IntRange(first, 2199).Draw(t, "last year")
			step := rapid.IntRange(1, 9).Draw(t, "step of years")
			years = fmt.Sprintf("%d-%d/%d", first, final, step)
			inYear = func(y int) bool { return y >= first && y <= final && (y-first)%step == 0 }
		}
		expr := fmt.Sprintf("0 0 0 %s %s %s %s", monthDays, months, weekdays, years)
		s, err := Parse(expr, both)
		from := time.Date(rapid.IntRange(1960, 2200).Draw(t, "from"), 1, 1, 0, 0, 0, 0, time.UTC)
		to := from.AddDate(10, 0, 0)
		if err != nil {
			from, to = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2370, 1, 1, 0, 0, 0, 0, time.UTC)
		}
		next := s.Next(from.Add(-1), nil, zone.Rules{})
		for day := from; day.Before(to); day = day.AddDate(0, 0, 1) {
			want := inYear(day.Year()) && has(day)
			if err != nil && want {
				t.Fatalf("%v, but %v", err, day)
			}
			if got := next.Equal(day); got != want {
				t.Fatalf("%q on %v: want %v, next is %v", expr, day, want, next)
			}
			if seconds := s.Seconds(day.Date()); (len(seconds) == 1) != want {
				t.Fatalf("%q on %v: seconds %v", expr, day, seconds)
			}
			if want {
				next = s.Next(day, nil, zone.Rules{})
			}
		}
	})
}

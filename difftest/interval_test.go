package difftest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/teambition/rrule-go"

	"github.com/carillon-go/carillon/internal/plan"
	"github.com/carillon-go/carillon/internal/zone"
)

const fullIntervals, shortIntervals = 100_000, 5_000

// recurrence is an interval in the words of RFC 5545.
type recurrence struct {
	start time.Time // the clock's, as if in UTC
	rule  string
	shift int // days to add; a month without the day that comes of it has the first of the next one
}

// TestIntervals holds intervals of the calendar against the recurrences of RFC 5545, as rrule-go expands them.
func TestIntervals(t *testing.T) {
	t.Parallel()
	seed, cases := uint64(time.Now().UnixNano()), fullIntervals
	if testing.Short() {
		seed, cases = 1, shortIntervals
	}
	seed = setting(t, "DIFFTEST_SEED", seed)
	z := loadZones(t)
	random := rand.New(rand.NewPCG(seed, 0))
	skipped := 0
	var example string
	for range cases / chain {
		spec := drawInterval(random)
		loc, anchor := z.draw(random)
		rules := zone.Rules{Gap: zone.Gap(random.IntN(2)), Repeat: zone.Repeat(random.IntN(3))}
		p, errs := plan.New(plan.Spec{Interval: &spec}, plan.Options{Zone: loc, Rules: rules, Anchor: anchor})
		r := inRFC(spec, anchor)
		want := r.ticks(t, anchor, loc, rules, chain)
		if len(errs) > 0 {
			if len(want) > 0 {
				t.Fatalf("DIFFTEST_SEED=%d: %+v from %s: %v, but %s has %s", seed, spec, anchor, errs, r.rule, want[0])
			}
			continue
		}
		after := anchor
		for _, tick := range want {
			if next, _ := p.Next(after); !next.Equal(tick) {
				t.Fatalf("DIFFTEST_SEED=%d: %+v with %+v in %s from %s, after %s: %s, they %s: RRULE:%s",
					seed, spec, rules, loc, stamp(anchor), stamp(after), stamp(next), stamp(tick), r.rule)
			}
			after = tick
		}
		// By RFC 5545, a skipped time is what a clock would show that had not been changed yet.
		for _, tick := range want {
			if rules == once && changesNear(tick) {
				shown := shownBy(tick)
				if h, m, s := shown.Clock(); fmt.Sprintf("%02d:%02d:%02d", h, m, s) != spec.Time {
					skipped++
					example = fmt.Sprintf("every %d %ss at %s in %s: %s", spec.N, spec.Unit, spec.Time, loc, stamp(tick))
				}
			}
		}
	}
	fmt.Printf("difftest: %d ticks of intervals, %d differences in 1 class (DIFFTEST_SEED=%d)\n%7d  %s\n         e.g. %s\n         %s\n",
		cases, skipped, seed, skipped, &ofRFC, example, ofRFC.reason)
}

// ofRFC is the class of what we do otherwise than RFC 5545 whatever is set.
var ofRFC = class{
	"RFC 5545", "shifts a skipped time by the length of the gap",
	"It is shifted to the first instant after the gap, as with cron expressions, so that the job is as little late as possible.", nil,
}

func shownBy(t time.Time) time.Time { return time.Unix(t.Unix()+zone.Offset(t), 0).UTC() }

func drawInterval(r *rand.Rand) plan.Interval {
	units := []string{plan.UnitDay, plan.UnitWeek, plan.UnitMonth, plan.UnitMonth, plan.UnitQuarter, plan.UnitYear}
	i := plan.Interval{
		N: 1 + r.IntN([]int{1, 4, 60}[r.IntN(3)]), Unit: units[r.IntN(len(units))],
		Time: fmt.Sprintf("%02d:%02d:%02d", r.IntN(4)+r.IntN(2)*r.IntN(20), 15*r.IntN(4), r.IntN(2)*r.IntN(60)),
	}
	switch i.Unit {
	case plan.UnitDay:
	case plan.UnitWeek:
		for day := range 7 {
			if r.IntN(4) == 0 {
				i.Weekdays = append(i.Weekdays, time.Weekday(day))
			}
		}
	default:
		i.MonthEnd = []string{plan.MonthEndLast, plan.MonthEndSkip, plan.MonthEndNext}[r.IntN(3)]
		switch r.IntN(4) {
		case 0:
			i.Day = -1 - r.IntN(28)
		case 1, 2:
			i.Day = 1 + r.IntN(31)
		}
		if i.Unit == plan.UnitYear {
			i.Month = time.Month(r.IntN(13))
		}
	}
	return i
}

var rfcDays = strings.Fields("SU MO TU WE TH FR SA")

// inRFC says an interval in the words of RFC 5545.
func inRFC(i plan.Interval, anchor time.Time) recurrence {
	at, _ := time.Parse(time.TimeOnly, i.Time)
	year, month, day := anchor.Date()
	start := func(month time.Month, day int) time.Time {
		return time.Date(year, month, day, at.Hour(), at.Minute(), at.Second(), 0, time.UTC)
	}
	dom := i.Day
	if dom == 0 {
		dom = day
	}
	switch i.Unit {
	case plan.UnitDay:
		return recurrence{start(month, day), fmt.Sprintf("FREQ=DAILY;INTERVAL=%d", i.N), 0}
	case plan.UnitWeek:
		var days []string
		for _, weekday := range i.Weekdays {
			days = append(days, rfcDays[weekday])
		}
		if len(days) == 0 {
			days = []string{rfcDays[anchor.Weekday()]}
		}
		return recurrence{start(month, day), fmt.Sprintf("FREQ=WEEKLY;INTERVAL=%d;WKST=MO;BYDAY=%s", i.N, strings.Join(days, ",")), 0}
	case plan.UnitMonth:
		// From the month before in the count, whose day may be the first of the anchor's month.
		return byMonthDay(start(month-time.Month(i.N), 1), fmt.Sprintf("FREQ=MONTHLY;INTERVAL=%d", i.N), dom, i.MonthEnd)
	case plan.UnitQuarter:
		begin := month - (month-1)%3
		switch {
		case i.Day == 0:
			begin = month
		case i.Day < 0:
			begin += 2
		}
		return byMonthDay(start(begin, 1), fmt.Sprintf("FREQ=MONTHLY;INTERVAL=%d", 3*i.N), dom, i.MonthEnd)
	default:
		if i.Month != 0 {
			month = i.Month
		}
		return byMonthDay(start(time.January, 1), fmt.Sprintf("FREQ=YEARLY;INTERVAL=%d;BYMONTH=%d", i.N, month), dom, i.MonthEnd)
	}
}

// byMonthDay adds the day of the month to a rule. RFC 5545 leaves months out that do not have it; the last day of such a
// month is the last of those from the 28th on, and the first of the next one has to be counted.
func byMonthDay(start time.Time, rule string, dom int, monthEnd string) recurrence {
	switch {
	case dom <= 28 || monthEnd == plan.MonthEndSkip:
		return recurrence{start, fmt.Sprintf("%s;BYMONTHDAY=%d", rule, dom), 0}
	case monthEnd == plan.MonthEndNext:
		return recurrence{start, rule + ";BYMONTHDAY=1", dom - 1}
	}
	days := []string{"28", "29", "30", "31"}[:dom-27]
	return recurrence{start, rule + ";BYMONTHDAY=" + strings.Join(days, ",") + ";BYSETPOS=-1", 0}
}

// ticks returns the first n instants after one, without those after 2199.
func (r recurrence) ticks(t *testing.T, after time.Time, loc *time.Location, rules zone.Rules, n int) []time.Time {
	t.Helper()
	option, err := rrule.StrToROption(r.rule)
	if err != nil {
		t.Fatal(err)
	}
	option.Dtstart = r.start
	option.Until = time.Date(2199, 12, 31, 23, 59, 59, 0, time.UTC)
	rule, err := rrule.NewRRule(*option)
	if err != nil {
		t.Fatal(err)
	}
	var all []time.Time
	next := rule.Iterator()
	// Two more, since where a day is skipped an instant can be that of several times.
	for shown, ok := next(); ok && len(all) < n+2; shown, ok = next() {
		if r.shift > 0 {
			day := shown.AddDate(0, 0, r.shift)
			if day.Month() != shown.Month() {
				day = shown.AddDate(0, 1, 0)
			}
			shown = day
		}
		y, m, d := shown.Date()
		for _, at := range look(time.Date(y, m, d, 0, 0, 0, 0, time.UTC), loc).instants(shown, rules) {
			if at.After(after) && at.UTC().Year() < 2200 {
				all = append(all, at)
			}
		}
	}
	slices.SortFunc(all, time.Time.Compare)
	all = slices.CompactFunc(all, time.Time.Equal)
	return all[:min(len(all), n)]
}

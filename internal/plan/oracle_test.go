package plan

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/carillon-go/carillon/internal/zone"
	"github.com/carillon-go/carillon/internal/zonetest"
)

// The oracles here know no arithmetic of calendars beyond that of package time:
// they walk minute by minute, or day by day, and look.

// zones have changes of half an hour, at and over midnight, and by a day.
var zones = []string{
	"UTC", "America/New_York", "Europe/London", "Asia/Shanghai", "America/Sao_Paulo", "America/St_Johns",
	"Australia/Lord_Howe", "Pacific/Apia", "Asia/Pyongyang", "Africa/Casablanca", "Asia/Amman", "Pacific/Kwajalein",
}

func drawZone(t testing.TB, r *rapid.T) *time.Location {
	t.Helper()
	return zonetest.Load(t, rapid.SampledFrom(zones).Draw(r, "zone"))
}

// drawInstant draws an instant, more often than not near a change of the clock.
func drawInstant(t *rapid.T, loc *time.Location) time.Time {
	at := time.Unix(rapid.Int64Range(300_000_000, 2_500_000_000).Draw(t, "instant"), 0).In(loc)
	if change := zone.Change(at); !change.IsZero() && rapid.IntRange(0, 3).Draw(t, "near a change") > 0 {
		at = change.Add(time.Duration(rapid.IntRange(-3*24*60, 24*60).Draw(t, "from it")) * time.Minute)
	}
	return at
}

func drawRules(t *rapid.T) zone.Rules {
	return zone.Rules{
		Gap:    rapid.SampledFrom([]zone.Gap{zone.GapShift, zone.GapSkip}).Draw(t, "gap"),
		Repeat: rapid.SampledFrom([]zone.Repeat{zone.RepeatFirst, zone.RepeatLast, zone.RepeatBoth}).Draw(t, "repeat"),
	}
}

func drawWeekdays(t *rapid.T) []time.Weekday {
	return rapid.SliceOfN(rapid.SampledFrom([]time.Weekday{0, 1, 2, 3, 4, 5, 6}), 0, 4).Draw(t, "weekdays")
}

func drawTimeOfDay(t *rapid.T, label string) string {
	minute := rapid.IntRange(0, 24*60-1).Draw(t, label)
	return fmt.Sprintf("%02d:%02d", minute/60, minute%60)
}

func minutes(t testing.TB, text string) int {
	t.Helper()
	at, err := time.Parse("15:04", text)
	require.NoError(t, err)
	return at.Hour()*60 + at.Minute()
}

// chain lists the ticks in (after, until] that Next gives one after the other.
func chain(p *Plan, after, until time.Time) (all []time.Time) {
	for {
		tick, _ := p.Next(after)
		if tick.IsZero() || tick.After(until) {
			return all
		}
		if !tick.After(after) {
			return append(all, tick, time.Time{}) // not monotone, which no oracle expects
		}
		all = append(all, tick)
		after = tick
	}
}

func texts(all []time.Time) []string {
	out := []string{}
	for _, t := range all {
		out = append(out, t.Format("Mon 2006-01-02 15:04:05.999 -0700"))
	}
	return out
}

func TestWindowAgainstClock(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		loc := drawZone(t, r)
		w := Window{
			Every: 60_000 * rapid.Int64Range(1, 300).Draw(r, "minutes"),
			From:  drawTimeOfDay(r, "from"), To: drawTimeOfDay(r, "to"),
			Weekdays: drawWeekdays(r),
		}
		if w.From == w.To {
			r.Skip("refused")
		}
		after := drawInstant(r, loc).Truncate(time.Minute)
		until := after.Add(3 * 24 * time.Hour)
		p := build(t, Spec{Window: &w}, Options{Zone: loc, Anchor: time.Unix(0, 0)})

		from, to, step := minutes(t, w.From), minutes(t, w.To), int(w.Every/60_000)
		on := func(weekday time.Weekday) bool { return len(w.Weekdays) == 0 || slices.Contains(w.Weekdays, weekday) }
		var want []time.Time
		for at := after.Add(time.Minute); !at.After(until); at = at.Add(time.Minute) {
			minute := at.Hour()*60 + at.Minute()
			today := on(at.Weekday()) && from <= minute && (minute <= to || to < from) && (minute-from)%step == 0
			yesterday := on((at.Weekday()+6)%7) && to < from && minute <= to && (minute+24*60-from)%step == 0
			if today || yesterday {
				want = append(want, at)
			}
		}
		require.Equal(r, texts(want), texts(chain(p, after, until)))
	})
}

// hasTick tells by definition whether an interval has a tick on a civil day,
// which is given as midnight UTC.
func (i Interval) hasTick(anchor, day time.Time) bool {
	days := func(t time.Time) int { return int(t.Unix() / 86400) }
	monday := func(t time.Time) time.Time { return t.AddDate(0, 0, -((int(t.Weekday()) + 6) % 7)) }
	switch i.Unit {
	case UnitDay:
		return (days(day)-days(anchor))%i.N == 0
	case UnitWeek:
		weekdays := i.Weekdays
		if len(weekdays) == 0 {
			weekdays = []time.Weekday{anchor.Weekday()}
		}
		return (days(monday(day))-days(monday(anchor)))/7%i.N == 0 && slices.Contains(weekdays, day.Weekday())
	}
	// Of which month could it be the tick? Of its own, or of the one before.
	for _, first := range []time.Time{
		time.Date(day.Year(), day.Month(), 1, 0, 0, 0, 0, time.UTC), time.Date(day.Year(), day.Month()-1, 1, 0, 0, 0, 0, time.UTC),
	} {
		apart := (first.Year()-anchor.Year())*12 + int(first.Month()) - int(anchor.Month())
		var selected bool
		switch i.Unit {
		case UnitMonth:
			selected = apart%i.N == 0
		case UnitQuarter:
			quarters := (first.Year()-anchor.Year())*4 + (int(first.Month())-1)/3 - (int(anchor.Month())-1)/3
			position := (int(first.Month()) - 1) % 3
			want := 0
			if i.Day == 0 {
				want = (int(anchor.Month()) - 1) % 3
			} else if i.Day < 0 {
				want = 2
			}
			selected = quarters%i.N == 0 && position == want
		case UnitYear:
			month := i.Month
			if month == 0 {
				month = anchor.Month()
			}
			selected = (first.Year()-anchor.Year())%i.N == 0 && first.Month() == month
		}
		if !selected {
			continue
		}
		dom := i.Day
		if dom == 0 {
			dom = anchor.Day()
		}
		next := first.AddDate(0, 1, 0)
		target := first.AddDate(0, 0, dom-1)
		if dom < 0 {
			target = next.AddDate(0, 0, dom)
		} else if !target.Before(next) {
			switch i.MonthEnd {
			case MonthEndLast:
				target = next.AddDate(0, 0, -1)
			case MonthEndNext:
				target = next
			case MonthEndSkip:
				continue
			}
		}
		if target.Equal(day) {
			return true
		}
	}
	return false
}

func drawInterval(t *rapid.T) Interval {
	i := Interval{
		N:    rapid.IntRange(1, 5).Draw(t, "n"),
		Unit: rapid.SampledFrom([]string{UnitDay, UnitWeek, UnitMonth, UnitQuarter, UnitYear}).Draw(t, "unit"),
		Time: drawTimeOfDay(t, "time"),
	}
	switch i.Unit {
	case UnitWeek:
		i.Weekdays = drawWeekdays(t)
	case UnitYear:
		i.Month = time.Month(rapid.IntRange(0, 12).Draw(t, "month"))
		fallthrough
	case UnitMonth, UnitQuarter:
		i.Day = rapid.OneOf(rapid.IntRange(-28, 31), rapid.IntRange(28, 31)).Draw(t, "day")
		i.MonthEnd = rapid.SampledFrom([]string{MonthEndLast, MonthEndSkip, MonthEndNext}).Draw(t, "month end")
	}
	return i
}

func TestIntervalAgainstDays(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		loc, rules, i := drawZone(t, r), drawRules(r), drawInterval(r)
		anchor := drawInstant(r, loc)
		p, errs := New(Spec{Interval: &i}, Options{Zone: loc, Rules: rules, Anchor: anchor})
		if len(errs) > 0 {
			r.Skip(errs) // 30 February
		}
		year, month, dom := anchor.Date()
		origin := time.Date(year, month, dom, 0, 0, 0, 0, time.UTC)
		before := rapid.IntRange(-300, 3000).Draw(r, "days after the anchor")
		after := anchor.AddDate(0, 0, before)
		until := after.AddDate(0, 0, 500)
		second := minutes(t, i.Time) * 60
		var want []time.Time
		for day := origin.AddDate(0, 0, before-3); day.Before(until.AddDate(0, 0, 3)); day = day.AddDate(0, 0, 1) {
			if i.hasTick(origin, day) {
				want = append(want, rules.Resolve(day.Year(), day.Month(), day.Day(), second, loc)...)
			}
		}
		want = slices.DeleteFunc(want, func(at time.Time) bool { return !at.After(after) || at.After(until) })
		want = slices.CompactFunc(want, time.Time.Equal)
		require.Equal(r, texts(want), texts(chain(p, after, until)))
	})
}

// zonesOfTimes are loaded once, as oracles ask for them often.
var zonesOfTimes = sync.OnceValue(func() map[string]*time.Location {
	all := map[string]*time.Location{}
	for _, name := range []string{"Asia/Kolkata", "America/New_York"} {
		all[name], _ = time.LoadLocation(name)
	}
	return all
})

// excludesNaively tells by the texts of a calendar and its bases what it says of
// a moment: of the day in the zone of the plan, of the time in the zone of Times.
func excludesNaively(c Calendar, all map[string]Calendar, at time.Time) (theDay, theTime bool) {
	here := at
	if c.TimeZone != "" {
		here = at.In(zonesOfTimes()[c.TimeZone])
	}
	day := func(r Rules) bool {
		date := at.Format("2006-01-02")
		return slices.Contains(r.Weekdays, at.Weekday()) || slices.Contains(r.Yearly, date[5:]) ||
			slices.ContainsFunc(r.Dates, func(text string) bool {
				from, to, isRange := strings.Cut(text, "/")
				return from == date || isRange && from <= date && date <= to
			})
	}
	clock := func(r Rules) bool {
		now := here.Format("15:04:05.999")
		return slices.ContainsFunc(r.Times, func(text string) bool {
			from, to, _ := strings.Cut(text, "-")
			if from < to {
				return from <= now && now[:5] < to
			}
			return from <= now || now[:5] < to
		})
	}
	theDay, theTime = day(c.Exclude), clock(c.Exclude)
	for _, name := range c.Base {
		d, clk := excludesNaively(all[name], all, at)
		theDay, theTime = theDay || d, theTime || clk
	}
	return theDay && !day(c.Include), theTime && !clock(c.Include)
}

func drawDay(t *rapid.T, near time.Time) string {
	return near.AddDate(0, 0, rapid.IntRange(-15, 15).Draw(t, "day")).Format("2006-01-02")
}

func drawCalendarRules(t *rapid.T, near time.Time, some bool) (r Rules) {
	for range rapid.IntRange(0, 3).Draw(t, "dates") {
		from, to := drawDay(t, near), drawDay(t, near)
		switch {
		case from < to && from[:7] == to[:7]:
			r.Dates = append(r.Dates, from+"/"+to)
		default:
			r.Dates = append(r.Dates, from)
		}
	}
	for range rapid.IntRange(0, 2).Draw(t, "yearly") {
		r.Yearly = append(r.Yearly, drawDay(t, near)[5:])
	}
	r.Weekdays = drawWeekdays(t)
	if some && rapid.Bool().Draw(t, "has times") {
		from, to := drawTimeOfDay(t, "from"), drawTimeOfDay(t, "to")
		if from != to {
			r.Times = append(r.Times, from+"-"+to)
		}
	}
	return r
}

// drawCalendars draws a calendar and its bases.
func drawCalendars(t *rapid.T, near time.Time) (Calendar, map[string]Calendar) {
	all := map[string]Calendar{}
	var names []string
	for i := range rapid.IntRange(1, 4).Draw(t, "calendars") {
		c := Calendar{
			Name:     fmt.Sprint("c", i),
			TimeZone: rapid.SampledFrom([]string{"", "", "Asia/Kolkata", "America/New_York"}).Draw(t, "zone of times"),
			Exclude:  drawCalendarRules(t, near, true),
			Include:  drawCalendarRules(t, near, true),
		}
		if len(names) > 0 {
			c.Base = rapid.SliceOfNDistinct(rapid.SampledFrom(names), 0, 2, rapid.ID[string]).Draw(t, "bases")
		}
		all[c.Name] = c
		names = append(names, c.Name)
	}
	return all[names[len(names)-1]], all
}

func drawExcluder(t *rapid.T, near time.Time) (*Excluder, func(time.Time) (bool, bool)) {
	top, all := drawCalendars(t, near)
	e, err := Compile(top, func(name string) (*Calendar, error) {
		c, ok := all[name]
		if !ok {
			return nil, nil
		}
		return &c, nil
	})
	if err != nil {
		t.Skip(err) // excludes everything
	}
	return e, func(at time.Time) (bool, bool) { return excludesNaively(top, all, at) }
}

// drawSpec draws a spec whose ticks an oracle can list.
func drawSpec(t *rapid.T, near time.Time) Spec {
	switch rapid.SampledFrom([]string{"every", "at", "interval", "window", "cron"}).Draw(t, "kind") {
	case "every":
		return Spec{Every: 1000 * rapid.Int64Range(1500, 200_000).Draw(t, "seconds"), Aligned: rapid.Bool().Draw(t, "aligned")}
	case "at":
		var s Spec
		for range rapid.IntRange(1, 20).Draw(t, "instants") {
			s.At = append(s.At, near.UnixMilli()+1000*rapid.Int64Range(1, 20*24*3600).Draw(t, "at"))
		}
		return s
	case "interval":
		i := drawInterval(t)
		i.Unit, i.Day, i.Month, i.MonthEnd, i.Weekdays = UnitDay, 0, 0, "", nil
		return Spec{Interval: &i}
	case "window":
		return Spec{Window: &Window{
			Every: 60_000 * rapid.Int64Range(5, 700).Draw(t, "minutes"), From: drawTimeOfDay(t, "from"), To: "23:59:30",
			Weekdays: drawWeekdays(t),
		}}
	default:
		return Spec{Cron: rapid.SampledFrom([]string{
			"*/20 * * * *", "30 1,2 * * *", "0 0 * * *", "15 9-17 * * MON-FRI", "5 0 L * *", "30 23 * * *",
		}).Draw(t, "cron")}
	}
}

func TestCalendarAgainstTexts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		loc, rules := drawZone(t, r), drawRules(r)
		anchor := drawInstant(r, loc)
		e, excludes := drawExcluder(r, anchor)
		spec := drawSpec(r, anchor)
		move := rapid.SampledFrom([]Move{Skip, Next, Previous}).Draw(r, "move")
		raw := build(t, spec, Options{Zone: loc, Rules: rules, Anchor: anchor})
		p, errs := New(spec, Options{Zone: loc, Rules: rules, Anchor: anchor, Calendar: e, Excluded: move})
		if len(errs) > 0 {
			r.Skip(errs) // nothing is left
		}
		after, until := anchor.AddDate(0, 0, 2), anchor.AddDate(0, 0, 9)
		for run, d := 0, -40; d < 50; d++ {
			if run++; run > 30 {
				r.Skip("ticks come from farther than is looked here")
			}
			if day, _ := excludes(after.AddDate(0, 0, d)); !day {
				run = 0
			}
		}

		var want, dropped []time.Time
		for _, tick := range chain(raw, after.AddDate(0, 0, -40), until.AddDate(0, 0, 40)) {
			landings := []time.Time{tick}
			if d, _ := excludes(tick); d && move != Skip {
				landings = landNaively(tick, move, rules, excludes)
			}
			for _, at := range landings {
				if !at.After(after) || at.After(until) {
					continue
				}
				if d, clock := excludes(at); d || clock {
					dropped = append(dropped, at)
				} else {
					want = append(want, at)
				}
			}
		}
		for _, list := range []*[]time.Time{&want, &dropped} {
			slices.SortFunc(*list, time.Time.Compare)
			*list = slices.CompactFunc(*list, time.Time.Equal)
		}
		require.Equal(r, texts(want), texts(chain(p, after, until)))

		// What was dropped before the first tick is reported with it.
		tick, skipped := p.Next(after)
		if tick.IsZero() || tick.After(until) {
			return
		}
		dropped = slices.DeleteFunc(dropped, func(at time.Time) bool { return at.After(tick) })
		if len(dropped) == 0 {
			require.Zero(r, skipped)
			return
		}
		require.Equal(r, texts([]time.Time{dropped[0], dropped[len(dropped)-1]}), texts([]time.Time{skipped.First, skipped.Last}))
	})
}

// landNaively tries day after day.
func landNaively(tick time.Time, move Move, rules zone.Rules, excludes func(time.Time) (bool, bool)) []time.Time {
	step := 1
	if move == Previous {
		step = -1
	}
	loc := tick.Location()
	year, month, dom := tick.Date()
	hour, minute, second := tick.Clock()
	for d := step; d != 60*step; d += step {
		// Some moment at which the clock shows that day.
		noon := time.Date(year, month, dom+d, 12, 0, 0, 0, loc)
		if want := time.Date(year, month, dom+d, 0, 0, 0, 0, time.UTC); noon.Day() != want.Day() {
			continue // the zone skipped it
		}
		if day, _ := excludes(noon); !day {
			return rules.Resolve(year, month, dom+d, hour*3600+minute*60+second, loc)
		}
	}
	return nil
}

func TestBetweenAndPlannedAgreeWithNext(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		loc := drawZone(t, r)
		anchor := drawInstant(r, loc)
		e, _ := drawExcluder(r, anchor)
		spec := drawSpec(r, anchor)
		p, errs := New(spec, Options{
			Zone: loc, Rules: drawRules(r), Anchor: anchor, Calendar: e,
			Excluded: rapid.SampledFrom([]Move{Skip, Next, Previous}).Draw(r, "move"),
		})
		if len(errs) > 0 {
			r.Skip(errs)
		}
		after := anchor.Add(time.Duration(rapid.Int64Range(-1e14, 1e15).Draw(r, "after")))
		until := after.Add(time.Duration(rapid.Int64Range(0, 1e15).Draw(r, "until")))
		n := rapid.IntRange(0, 30).Draw(r, "n")
		all := chain(p, after, until)
		first, last, more := p.Between(after, until, n)
		if len(all) == 0 {
			require.True(r, first.IsZero() && len(last) == 0 && !more)
		} else {
			require.Equal(r, texts(all[:1]), texts([]time.Time{first}))
			require.Equal(r, texts(all[max(0, len(all)-n):]), texts(last))
			require.Equal(r, len(all) > n, more)
		}
		for _, tick := range all[:min(len(all), 20)] {
			require.True(r, p.Planned(tick))
			require.False(r, p.Planned(tick.Add(1)))
		}
		at := after.Add(until.Sub(after) / 2).Truncate(time.Minute)
		next, _ := p.Next(at.Add(-1))
		require.Equal(r, next.Equal(at), p.Planned(at))
	})
}

func TestLastTick(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		ticks := at(rapid.SliceOfDistinct(rapid.Int64Range(0, 60), rapid.ID[int64]).Draw(r, "ticks"))
		slices.Sort(ticks)
		after := rapid.Int64Range(-1, 60).Draw(r, "after")
		before := rapid.Int64Range(0, 70).Draw(r, "before")
		want, found := int64(0), false
		for _, tick := range ticks {
			if after < tick && tick < before {
				want, found = tick, true
			}
		}
		got, ok := lastTick(ticks, after, before, rapid.Int64Range(0, 100).Draw(r, "reach"))
		require.Equal(r, found, ok)
		require.Equal(r, want, got)
	})
}

func TestBetweenIsBounded(t *testing.T) {
	t.Parallel()
	anchor := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	holidays := compile(t, Calendar{Exclude: Rules{Weekdays: weekend, Times: []string{"18:00-08:00"}}})
	for name, c := range map[string]struct {
		spec Spec
		o    Options
		last string
	}{
		"100 ms over ten years":             {Spec{Every: 100}, Options{}, "2036-01-01 00:00:00"},
		"cron every second":                 {Spec{Cron: "* * * * * *"}, Options{}, "2036-01-01 00:00:00"},
		"cron bursts":                       {Spec{Cron: "* * 3 1 2 *"}, Options{}, "2035-02-01 03:59:59"},
		"100 ms with a calendar":            {Spec{Every: 100}, Options{Calendar: holidays}, "2035-12-31 17:59:59.9"},
		"100 ms moved":                      {Spec{Every: 100}, Options{Calendar: holidays, Excluded: Next}, "2035-12-31 17:59:59.9"},
		"a window that ended ten years ago": {Spec{Window: &Window{Every: 100, From: "09:00", To: "17:00"}}, Options{End: anchor.AddDate(0, 0, 1)}, "2026-01-01 17:00:00"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.o.Anchor = anchor
			p := build(t, c.spec, c.o)
			calls := &counting{source: p.candidates}
			p.candidates = calls
			_, last, more := p.Between(anchor, anchor.AddDate(10, 0, 0), 100)
			assert.Len(t, last, 100)
			assert.True(t, more)
			assert.Equal(t, c.last, last[99].Format("2006-01-02 15:04:05.999"))
			assert.Less(t, calls.n, 2000)
		})
	}
}

// counting counts how often a source is asked.
type counting struct {
	source
	n int
}

func (c *counting) next(after int64) int64 {
	c.n++
	return c.source.next(after)
}

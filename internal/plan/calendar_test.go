package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/carillon-go/carillon/internal/zonetest"
)

// china is 2026 as the State Council published it on 4 November 2025.
var china = Calendar{
	Name: "cn-2026",
	Exclude: Rules{
		Weekdays: weekend,
		Dates: []string{
			"2026-01-01/2026-01-03", "2026-02-15/2026-02-23", "2026-04-04/2026-04-06", "2026-05-01/2026-05-05",
			"2026-06-19/2026-06-21", "2026-09-25/2026-09-27", "2026-10-01/2026-10-07",
		},
	},
	Include: Rules{Dates: []string{
		"2026-01-04", "2026-02-14", "2026-02-28", "2026-05-09", "2026-09-20", "2026-10-10",
	}},
}

func TestChineseHolidays(t *testing.T) {
	t.Parallel()
	e := compile(t, china)
	shanghai := zonetest.Load(t, "Asia/Shanghai")
	eve := time.Date(2025, 12, 31, 23, 0, 0, 0, shanghai)
	daily := Spec{Interval: &Interval{N: 1, Unit: UnitDay, Time: "08:30"}}
	p := build(t, daily, Options{Zone: shanghai, Anchor: eve, Calendar: e})

	// 365 days, less 104 of weekends and 13 statutory holidays.
	assert.Len(t, chain(p, eve, eve.AddDate(1, 0, 0)), 248)

	var days []string
	for _, tick := range chain(p, time.Date(2026, 9, 18, 0, 0, 0, 0, shanghai), time.Date(2026, 10, 12, 0, 0, 0, 0, shanghai)) {
		days = append(days, tick.Format("Mon 01-02"))
	}
	assert.Equal(t, strings.Split(
		"Fri 09-18,Sun 09-20,Mon 09-21,Tue 09-22,Wed 09-23,Thu 09-24,Mon 09-28,Tue 09-29,Wed 09-30,Thu 10-08,Fri 10-09,Sat 10-10", ","), days)

	tick, skipped := p.Next(time.Date(2026, 9, 30, 12, 0, 0, 0, shanghai))
	assert.Equal(t, "2026-10-08T08:30:00+08:00", tick.Format(time.RFC3339))
	assert.Equal(t, "2026-10-01T08:30:00+08:00", skipped.First.Format(time.RFC3339))
	assert.Equal(t, "2026-10-07T08:30:00+08:00", skipped.Last.Format(time.RFC3339))
}

// among finds calendars in a list.
func among(all ...Calendar) func(string) (*Calendar, error) {
	return func(name string) (*Calendar, error) {
		for _, c := range all {
			if c.Name == name {
				return &c, nil
			}
		}
		return nil, nil
	}
}

func TestCompileRefuses(t *testing.T) {
	t.Parallel()
	all := []time.Weekday{0, 1, 2, 3, 4, 5, 6}
	cal := func(name string, bases ...string) Calendar { return Calendar{Name: name, Base: bases} }
	broken := func(string) (*Calendar, error) { return nil, errors.New("no connection") }
	for name, c := range map[string]struct {
		calendar Calendar
		base     func(string) (*Calendar, error)
		want     string
	}{
		"an unknown base":    {cal("a", "b"), among(), `calendar "a": Base[0]: there is no calendar "b"`},
		"a base not to read": {cal("a", "b"), broken, `calendar "a": Base[0]: "b": no connection`},
		"itself":             {cal("a", "a"), among(), `calendar "a": Base[0]: is a cycle: a → a`},
		"a cycle":            {cal("a", "x", "b"), among(cal("x"), cal("b", "c"), cal("c", "x", "a")), `calendar "c": Base[1]: is a cycle: a → b → c → a`},
		"a cycle of bases":   {cal("a", "b"), among(cal("b", "c"), cal("c", "b")), `calendar "c": Base[0]: is a cycle: a → b → c → b`},
		"a corrupted base":   {cal("a", "b"), among(Calendar{Name: "b", TimeZone: "Mars/Phobos"}), `calendar "b": TimeZone: unknown time zone "Mars/Phobos"`},
		"a cycle under another name": {
			cal("a", "b"), func(string) (*Calendar, error) { return &Calendar{Name: "x", Base: []string{"b"}}, nil },
			`calendar "b": Base[0]: is a cycle: a → b → b`,
		},
		"every day": {Calendar{Name: "a", Exclude: Rules{Weekdays: all}}, nil, `calendar "a": excludes every day; expected that some day is left`},
		"every day, by dates": {
			Calendar{Name: "a", Exclude: Rules{Dates: []string{"1970-01-01/2100-12-31", "2050-01-01/2199-12-31"}}}, nil,
			`calendar "a": excludes every day`,
		},
		"every day, with its base": {
			Calendar{Name: "a", Base: []string{"b"}, Exclude: Rules{Weekdays: all[:3]}}, among(Calendar{Name: "b", Exclude: Rules{Weekdays: all[3:]}}),
			`calendar "a": excludes every day`,
		},
		"all times": {
			Calendar{Name: "a", Exclude: Rules{Times: []string{"08:00-24:00", "23:00-08:00"}}}, nil,
			`calendar "a": Times exclude all of every day; expected that some time is left`,
		},
		"all times, in two zones": {
			Calendar{Name: "a", Base: []string{"b"}, TimeZone: "Asia/Kolkata", Exclude: Rules{Times: []string{"05:30-17:30"}}},
			among(Calendar{Name: "b", Exclude: Rules{Times: []string{"12:00-24:00"}}}), `calendar "a": Times exclude all`,
		},
	} {
		_, err := Compile(c.calendar, c.base)
		assert.ErrorContains(t, err, c.want, name)
	}
}

func TestManyBases(t *testing.T) {
	t.Parallel()
	// 2 calendars on each of 49 floors, both on both of the floor below: 2^48 ways down.
	var all []Calendar
	for floor := range 49 {
		for _, side := range []string{"left", "right"} {
			c := Calendar{Name: fmt.Sprint(side, floor)}
			if floor > 0 {
				c.Base = []string{fmt.Sprint("left", floor-1), fmt.Sprint("right", floor-1)}
			} else {
				c.Exclude.Weekdays = weekend
			}
			all = append(all, c)
		}
	}
	e, err := Compile(all[96], among(all...))
	require.NoError(t, err)
	assert.True(t, e.excludesDay(dayOf(2026, 11, 21)))
	assert.False(t, e.excludesDay(dayOf(2026, 11, 20)))

	all = append(all, Calendar{Name: "top", Base: []string{"left48", "right48"}}, Calendar{Name: "over", Base: []string{"top"}})
	_, err = Compile(all[99], among(all...))
	assert.NoError(t, err, "100 calendars")
	_, err = Compile(Calendar{Name: "more", Base: []string{"over"}}, among(all...))
	assert.ErrorContains(t, err, `is one more than the 99 calendars that "more" may have as bases of bases`)
}

func TestInclude(t *testing.T) {
	t.Parallel()
	base := Calendar{
		Name:    "base",
		Exclude: Rules{Weekdays: weekend, Yearly: []string{"02-29", "12-25"}, Times: []string{"12:00-13:30", "22:00-06:00"}},
		Include: Rules{Dates: []string{"2026-11-21"}},
	}
	other := Calendar{Name: "other", Exclude: Rules{Dates: []string{"2026-11-20/2026-11-21"}}}
	top := Calendar{
		Name: "top", Base: []string{"base", "other"},
		Exclude: Rules{Dates: []string{"2026-11-18"}},
		Include: Rules{Dates: []string{"2026-11-18", "2026-11-20", "2026-12-25"}, Times: []string{"13:00-14:00"}},
	}
	e, err := Compile(top, among(base, other))
	require.NoError(t, err)
	for text, want := range map[string]bool{
		"2026-11-18 10:00": false, // its own Include beats its Exclude
		"2026-11-20 10:00": false, // and its base's
		"2026-11-21 10:00": true,  // what one base includes another may exclude
		"2026-11-22 10:00": true,  // inherited
		"2026-12-25 10:00": false,
		"2027-12-25 10:00": true, // yearly
		"2028-02-29 10:00": true,
		"2026-11-23 11:59": false,
		"2026-11-23 12:00": true, // times are inherited
		"2026-11-23 13:00": false,
		"2026-11-23 13:30": false, // without the end
		"2026-11-23 22:00": true,  // over midnight
		"2026-11-23 05:59": true,
		"2026-11-23 06:00": false,
		"2026-11-20 12:00": true, // an included day has its lunch break
		"2026-11-22 13:00": true, // included times are no working day
	} {
		at := local(t, text, time.UTC).UnixMilli()
		assert.Equal(t, want, e.open(at, at+1, time.UTC) != at, text)
	}
}

func TestTimesOfACalendarHaveItsZone(t *testing.T) {
	t.Parallel()
	// Trade in New York, from a plan in Tokyo, whose Saturday begins on Friday there.
	e := compile(t, Calendar{
		TimeZone: "America/New_York",
		Exclude:  Rules{Weekdays: []time.Weekday{time.Sunday}, Times: []string{"16:00-09:30"}},
	})
	tokyo := zonetest.Load(t, "Asia/Tokyo")
	anchor := time.Date(2026, 11, 20, 0, 0, 0, 0, tokyo)
	p := build(t, Spec{Every: 3_600_000}, Options{Zone: tokyo, Start: anchor, Anchor: anchor, Calendar: e})
	tick, _ := p.Next(anchor.Add(6 * time.Hour))
	assert.Equal(t, "2026-11-21T00:00:00+09:00", tick.Format(time.RFC3339), "09:30 there is 23:30 here")
	tick, _ = p.Next(time.Date(2026, 11, 21, 23, 59, 0, 0, tokyo))
	assert.Equal(t, "2026-11-23T00:00:00+09:00", tick.Format(time.RFC3339), "Sunday is that of Tokyo")
}

func TestCalendarValidate(t *testing.T) {
	t.Parallel()
	c := Calendar{
		TimeZone: "Local",
		Base:     make([]string, 33),
		Exclude: Rules{
			Dates:    []string{"2026-10-01", "2026-13-01", "2026-10-07/2026-10-01", "1969-12-31"},
			Yearly:   []string{"02-29", "2-29", "02-30"},
			Weekdays: []time.Weekday{7},
			Times:    []string{"12:00-13:00", "12:00", "24:00-13:00", "12:00-12:00"},
		},
		Include: Rules{Dates: []string{"tomorrow"}, Yearly: make([]string, 367)},
	}
	c.Base[0] = "x"
	var got []string
	for _, err := range c.Validate() {
		if text := err.Error(); !strings.HasPrefix(text, "Base[") && !strings.HasPrefix(text, "Include.Yearly[") {
			got = append(got, text)
		}
	}
	assert.Equal(t, []string{
		"Name: has 0 bytes, expected 1 to 150",
		"TimeZone: the time zone Local differs between machines; expected an IANA name such as Europe/Berlin, or UTC",
		"Base: has 33 entries, at most 32 are allowed",
		`Exclude.Dates[1]: "2026-13-01" is not a date as 2026-10-01 or 2026-10-01/2026-10-07`,
		`Exclude.Dates[2]: "2026-10-07/2026-10-01" ends before it begins`,
		`Exclude.Dates[3]: "1969-12-31" is not in the years 1970 to 2199`,
		`Exclude.Yearly[1]: "2-29" is not a day of the year as 12-25`,
		`Exclude.Yearly[2]: "02-30" is not a day of the year as 12-25`,
		`Exclude.Weekdays[0]: 7 is not between 0 (Sunday) and 6 (Saturday)`,
		`Exclude.Times[1]: "12:00" is not a range of times as 12:00-13:30 or 18:00-24:00`,
		`Exclude.Times[2]: "24:00-13:00" is not a range of times as 12:00-13:30 or 18:00-24:00`,
		`Exclude.Times[3]: "12:00-12:00" is empty; expected two times, for a whole day 00:00-24:00`,
		`Include.Dates[0]: "tomorrow" is not a date as 2026-10-01 or 2026-10-01/2026-10-07`,
		"Include.Yearly: has 367 entries, at most 366 are allowed",
	}, got)
	assert.ErrorContains(t, c.Validate()[3], "Base[1]: is empty; expected the name of a calendar")
}

func TestCalendarAsJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		want, _ := drawCalendars(r, time.Unix(1_800_000_000, 0))
		text, err := json.Marshal(want)
		require.NoError(r, err)
		var got Calendar
		require.NoError(r, json.Unmarshal(text, &got))
		again, err := json.Marshal(got)
		require.NoError(r, err)
		require.JSONEq(r, string(text), string(again))
		require.Equal(r, len(want.Exclude.Times)+len(want.Include.Dates), len(got.Exclude.Times)+len(got.Include.Dates))
	})
	text, err := json.Marshal(Calendar{Name: "a", TimeZone: "UTC", Base: []string{"b"}, Include: Rules{
		Dates: []string{"2026-10-10"}, Yearly: []string{"12-25"}, Weekdays: weekend, Times: []string{"12:00-13:00"},
	}})
	require.NoError(t, err)
	assert.JSONEq(t, `{"name":"a","tz":"UTC","base":["b"],"include":{"dates":["2026-10-10"],"yearly":["12-25"],"weekdays":[6,0],"times":["12:00-13:00"]}}`, string(text))
}

func TestPatience(t *testing.T) {
	t.Parallel()
	anchor := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	years := Spec{Interval: &Interval{N: 1, Unit: UnitYear, Month: 3, Day: 1}}
	daily := Spec{Interval: &Interval{N: 1, Unit: UnitDay}}
	next := func(s Spec, c Rules, move Move) string {
		p := build(t, s, Options{Anchor: anchor, Calendar: compile(t, Calendar{Exclude: c}), Excluded: move})
		tick, _ := p.Next(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))
		return tick.Format(time.DateOnly)
	}
	assert.Equal(t, "2031-07-01", next(daily, Rules{Dates: []string{"2027-01-01/2031-06-30"}}, Skip))
	assert.Equal(t, "2031-07-01", next(daily, Rules{Dates: []string{"2027-01-01/2031-06-30"}}, Next))
	assert.Equal(t, "0001-01-01", next(daily, Rules{Dates: []string{"2027-01-01/2033-06-30"}}, Skip))
	assert.Equal(t, "0001-01-01", next(daily, Rules{Dates: []string{"2027-01-01/2033-06-30"}}, Next))
	var firsts []string // of March in 9 years in a row
	for year := 2027; year < 2036; year++ {
		firsts = append(firsts, fmt.Sprintf("%d-03-01", year))
	}
	assert.Equal(t, "2036-03-01", next(years, Rules{Dates: firsts}, Skip), "few ticks are worth a longer look")
}

func TestOpen(t *testing.T) {
	t.Parallel()
	anchor := time.Date(2026, 11, 20, 17, 0, 0, 0, time.UTC)
	o := Options{
		Anchor: anchor, Start: anchor, End: anchor.AddDate(0, 0, 9),
		Calendar: compile(t, Calendar{Exclude: Rules{Weekdays: weekend, Times: []string{"18:00-08:00"}}}),
	}
	p := build(t, Spec{After: 1000}, o)
	for text, want := range map[string]string{
		"2026-11-01T00:00:00Z":     "2026-11-20T17:00:00Z",     // Start
		"2026-11-20T17:59:59.999Z": "2026-11-20T17:59:59.999Z", // allowed
		"2026-11-20T18:00:00Z":     "2026-11-23T08:00:00Z",     // the weekend, and the night
		"2026-11-28T00:00:00Z":     "0001-01-01T00:00:00Z",     // End comes first
	} {
		assert.Equal(t, want, p.Open(local(t, text, time.UTC)).Format(time.RFC3339Nano), text)
	}
	o.End, o.Calendar = time.Time{}, compile(t, Calendar{Exclude: Rules{Dates: []string{"2026-12-01/2032-01-01"}}})
	assert.Zero(t, build(t, Spec{After: 1000}, o).Open(anchor.AddDate(0, 0, 15)), "too long a holiday")
	o.Calendar = nil
	assert.Equal(t, anchor.Add(3*time.Hour), build(t, Spec{After: 1000}, o).Open(anchor.Add(3*time.Hour)))
}

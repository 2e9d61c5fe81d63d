package plan

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/carillon-go/carillon/internal/zonetest"
)

func errorTexts(errs []error) []string {
	out := []string{}
	for _, err := range errs {
		out = append(out, err.Error())
	}
	return out
}

func TestValidate(t *testing.T) {
	t.Parallel()
	const times = ` is not a time of day as 09:00 or 09:00:30`
	for name, c := range map[string]struct {
		spec Spec
		want []string
	}{
		"nothing":        {Spec{}, []string{"Spec: is empty, so it never fires; expected one of Cron, Every, After, At, Interval and Window"}},
		"an empty list":  {Spec{At: []int64{}}, []string{"At: is an empty list, so it never fires"}},
		"two kinds":      {Spec{Cron: "@daily", Every: 1000}, []string{"Spec: has Cron and Every; expected exactly one"}},
		"both":           {Spec{Every: 1000, Both: true}, []string{"Both: is about the day fields of Cron, which is empty"}},
		"aligned":        {Spec{After: 1000, Aligned: true}, []string{"Aligned: is about Every, which is 0"}},
		"short":          {Spec{Every: 99}, []string{"Every: 99 ms is not between 100ms and 876000h0m0s"}},
		"negative":       {Spec{After: -1}, []string{"After: -1 ms is not between 100ms and 876000h0m0s"}},
		"long":           {Spec{Every: 100*365*dayMS + 1}, []string{"Every: 3153600000001 ms is not between 100ms and 876000h0m0s"}},
		"instants":       {Spec{At: make([]int64, 1001)}, []string{"At: has 1001 instants, at most 1000 are allowed"}},
		"zero time":      {Spec{At: []int64{0, time.Time{}.UnixMilli()}}, []string{"At[1]: is the zero time"}},
		"too late":       {Spec{At: []int64{horizon}}, []string{"At[0]: 2200-01-01T00:00:00Z is not in the years 1970 to 2199"}},
		"too early":      {Spec{At: []int64{-1}}, []string{"At[0]: 1969-12-31T23:59:59Z is not in the years 1970 to 2199"}},
		"empty interval": {Spec{Interval: &Interval{}}, []string{"Interval.N: 0 is not between 1 and 1000", `Interval.Unit: "" is not day, week, month, quarter or year`}},
		"interval of days": {
			Spec{Interval: &Interval{N: 1001, Unit: UnitDay, Day: 1, Month: 1, MonthEnd: MonthEndSkip, Weekdays: weekend, Time: "9:00"}},
			[]string{
				"Interval.N: 1001 is not between 1 and 1000", "Interval.Weekdays: are for the unit week",
				"Interval.Day: is for the units month, quarter and year", "Interval.Month: is for the unit year",
				`Interval.Time: "9:00"` + times, "Interval.MonthEnd: is for the units month, quarter and year",
			},
		},
		"interval of years": {
			Spec{Interval: &Interval{N: 1, Unit: UnitYear, Day: -29, Month: 13, MonthEnd: "first", Time: "24:00"}},
			[]string{
				"Interval.Day: -29 is not between 1 and 31, nor between -1 for the last day and -28",
				"Interval.Month: 13 is not between 1 and 12", `Interval.Time: "24:00"` + times,
				`Interval.MonthEnd: "first" is not empty, skip or next`,
			},
		},
		"weekdays": {
			Spec{Interval: &Interval{N: 1, Unit: UnitWeek, Weekdays: []time.Weekday{6, 7, -1}}},
			[]string{"Interval.Weekdays[1]: 7 is not between 0 (Sunday) and 6 (Saturday)", "Interval.Weekdays[2]: -1 is not between 0 (Sunday) and 6 (Saturday)"},
		},
		"empty window": {
			Spec{Window: &Window{}},
			[]string{"Window.Every: 0 ms is not between 100ms and 24h0m0s", `Window.From: ""` + times, `Window.To: ""` + times},
		},
		"window of nothing": {
			Spec{Window: &Window{Every: 1000, From: "09:00", To: "09:00:00"}},
			[]string{"Window.To: 09:00:00 equals From; expected another time, for a whole day 00:00 to 23:59:59"},
		},
		"window with fractions": {
			Spec{Window: &Window{Every: dayMS + 1, From: "09:00:00.5", To: "noon", Weekdays: []time.Weekday{9}}},
			[]string{
				"Window.Every: 86400001 ms is not between 100ms and 24h0m0s", `Window.From: "09:00:00.5"` + times, `Window.To: "noon"` + times,
				"Window.Weekdays[0]: 9 is not between 0 (Sunday) and 6 (Saturday)",
			},
		},
		"no kind is wrong": {Spec{Every: 100}, nil},
		"a long text": {
			Spec{Interval: &Interval{N: 1, Unit: UnitDay, Time: strings.Repeat("9", 100)}},
			[]string{`Interval.Time: "` + strings.Repeat("9", 64) + `…"` + times},
		},
	} {
		assert.Equal(t, append([]string{}, c.want...), errorTexts(c.spec.Validate()), name)
	}
	errs := Spec{Cron: "61 * * * *"}.Validate()
	require.Len(t, errs, 1)
	assert.ErrorContains(t, errs[0], "Cron: ")
	assert.ErrorContains(t, errs[0], "61")
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	anchor := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	berlin := zonetest.Load(t, "Europe/Berlin")
	weekdays := compile(t, Calendar{Exclude: Rules{Weekdays: weekend}})
	days := Spec{Interval: &Interval{N: 1, Unit: UnitDay}}
	for name, c := range map[string]struct {
		spec Spec
		o    Options
		want string
	}{
		"an invalid spec":     {Spec{Every: 1}, Options{}, "Every: 1 ms is not between 100ms and 876000h0m0s"},
		"a zone without name": {days, Options{Zone: time.Local}, "TimeZone: Local differs between machines; expected an IANA name such as Europe/Berlin, or UTC"},
		"two zones":           {Spec{Cron: "CRON_TZ=Asia/Tokyo 0 3 * * *"}, Options{Zone: berlin}, `Cron: names the time zone "Asia/Tokyo", but TimeZone is "Europe/Berlin"; expected one of them`},
		"End before Start":    {days, Options{Start: anchor, End: anchor.Add(-1)}, "End: 2026-11-21T11:59:59Z is before Start, 2026-11-21T12:00:00Z"},
		"a strange Start":     {days, Options{Start: time.Unix(-1, 0)}, "Start: 1969-12-31T23:59:59Z is not in the years 1970 to 2199"},
		"a strange End":       {days, Options{End: time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)}, "End: 2200-01-01T00:00:00Z is not in the years 1970 to 2199"},
		"a strange move":      {days, Options{Excluded: 3}, "OnExcluded: 3 is not Skip, Next or Previous"},
		"only the past":       {Spec{At: []int64{anchor.UnixMilli() - 1}}, Options{}, "Spec: never fires after 2026-11-21T12:00:00Z"},
		"30 February":         {Spec{Interval: &Interval{N: 1, Unit: UnitYear, Month: 2, Day: 30, MonthEnd: MonthEndSkip}}, Options{}, "Spec: never fires after 2026-11-21T12:00:00Z"},
		"the 31st, but only of Februaries": {
			Spec{Interval: &Interval{N: 12, Unit: UnitMonth, Day: 31, MonthEnd: MonthEndSkip}},
			Options{Start: time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)}, "Spec: never fires after 2026-11-21T12:00:00Z",
		},
		"End before the first tick": {days, Options{End: anchor.Add(time.Hour)}, "End: 2026-11-21T13:00:00Z is before the first tick, 2026-11-22T00:00:00Z, so it never fires"},
		"a calendar without them": {
			Spec{Cron: "0 3 * * SAT"}, Options{Calendar: weekdays},
			"Calendar: excludes every tick from the first, 2026-11-28T03:00:00Z, on, so it never fires",
		},
	} {
		c.o.Anchor = anchor
		p, errs := New(c.spec, c.o)
		assert.Nil(t, p, name)
		assert.Equal(t, []string{c.want}, errorTexts(errs), name)
	}
}

func TestZoneOfCron(t *testing.T) {
	t.Parallel()
	anchor := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	tokyo := zonetest.Load(t, "Asia/Tokyo")
	for _, c := range []struct {
		expr string
		zone *time.Location
	}{
		{"CRON_TZ=Asia/Tokyo 0 3 * * *", nil},
		{"CRON_TZ=Asia/Tokyo 0 3 * * *", time.UTC},
		{"CRON_TZ=Asia/Tokyo 0 3 * * *", tokyo},
		{"0 3 * * *", tokyo},
	} {
		tick, _ := build(t, Spec{Cron: c.expr}, Options{Zone: c.zone, Anchor: anchor}).Next(anchor)
		assert.Equal(t, "2026-11-22T03:00:00+09:00", tick.Format(time.RFC3339), c.expr)
	}
}

func TestWords(t *testing.T) {
	t.Parallel()
	const day, week, month, quarter, year = UnitDay, UnitWeek, UnitMonth, UnitQuarter, UnitYear
	workdays := []time.Weekday{5, 4, 3, 2, 1, 1}
	for _, c := range []struct {
		spec Spec
		want string
	}{
		{Spec{}, "never"},
		{Spec{Cron: "0 3 * * FRIL"}, "at 03:00 on the last Friday of the month"},
		{Spec{Cron: "nonsense"}, "cron nonsense"},
		{Spec{Every: 60_000}, "every minute"},
		{Spec{Every: 90_000}, "every 90 seconds"},
		{Spec{Every: 3 * dayMS}, "every 3 days"},
		{Spec{Every: 1500, Aligned: true}, "every 1500 milliseconds, aligned to 1970-01-01 00:00 UTC"},
		{Spec{After: 3_600_000}, "1 hour after the end of the last run"},
		{Spec{At: []int64{1500}}, "at 1970-01-01T00:00:01.5Z"},
		{Spec{At: []int64{2000, 1000}}, "at 2 instants from 1970-01-01T00:00:01Z to 1970-01-01T00:00:02Z"},
		{Spec{Interval: &Interval{N: 1, Unit: day}}, "every day at 00:00"},
		{Spec{Interval: &Interval{N: 2, Unit: week, Weekdays: weekend, Time: "09:30"}}, "every 2 weeks on Saturday and Sunday at 09:30"},
		{Spec{Interval: &Interval{N: 1, Unit: week, Weekdays: workdays, Time: "09:30"}}, "every week on Monday to Friday at 09:30"},
		{Spec{Interval: &Interval{N: 1, Unit: week, Weekdays: []time.Weekday{5, 1, 3}}}, "every week on Monday, Wednesday and Friday at 00:00"},
		{Spec{Interval: &Interval{N: 1, Unit: week}}, "every week on the weekday of its start at 00:00"},
		{Spec{Interval: &Interval{N: 3, Unit: month, Day: 15, Time: "08:00:30"}}, "every 3 months on day 15 at 08:00:30"},
		{Spec{Interval: &Interval{N: 1, Unit: month, Day: -1}}, "every month on the last day at 00:00"},
		{Spec{Interval: &Interval{N: 1, Unit: month}}, "every month on the day of its start at 00:00"},
		{Spec{Interval: &Interval{N: 1, Unit: month, Day: 31, MonthEnd: MonthEndSkip}}, "every month on day 31, not in shorter months, at 00:00"},
		{Spec{Interval: &Interval{N: 1, Unit: month, Day: 31, MonthEnd: MonthEndNext}}, "every month on day 31, in shorter months on the first of the next, at 00:00"},
		{Spec{Interval: &Interval{N: 1, Unit: quarter, Day: -2}}, "every quarter on the last day but one at 00:00"},
		{Spec{Interval: &Interval{N: 1, Unit: year, Month: 3, Day: -3}}, "every year on the last day but 2 of March at 00:00"},
		{Spec{Interval: &Interval{N: 5, Unit: year, Day: 2}}, "every 5 years on day 2 of the month of its start at 00:00"},
		{Spec{Interval: &Interval{N: 1, Unit: year, Month: 5}}, "every year in May on the day of its start at 00:00"},
		{Spec{Interval: &Interval{N: 1, Unit: year}}, "every year on the day of its start at 00:00"},
		{Spec{Window: &Window{Every: 300_000, From: "09:00", To: "17:30"}}, "every 5 minutes from 09:00 to 17:30"},
		{Spec{Window: &Window{Every: 1000, From: "22:00", To: "02:00", Weekdays: []time.Weekday{5}}}, "every second from 22:00 to 02:00 on Friday"},
	} {
		assert.Equal(t, c.want, c.spec.String())
	}
}

func TestSpecAsJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		want := drawSpec(r, time.Unix(1_800_000_000, 0))
		if rapid.Bool().Draw(r, "any interval") {
			i := drawInterval(r)
			want.Interval = &i
		}
		text, err := json.Marshal(want)
		require.NoError(r, err)
		var got Spec
		require.NoError(r, json.Unmarshal(text, &got))
		require.Equal(r, errorTexts(want.Validate()), errorTexts(got.Validate()))
		require.Equal(r, want.String(), got.String())
		again, err := json.Marshal(got)
		require.NoError(r, err)
		require.JSONEq(r, string(text), string(again))
	})
	text, err := json.Marshal(Spec{
		Window: &Window{Every: 60_000, From: "09:00", To: "17:00", Weekdays: []time.Weekday{1}},
	})
	require.NoError(t, err)
	assert.JSONEq(t, `{"window":{"everyMs":60000,"from":"09:00","to":"17:00","weekdays":[1]}}`, string(text))
}

package cron

import (
	"math"
	"strings"
	"sync"
	"testing"
	"time"
	_ "time/tzdata" // the zones under test must not depend on the machine

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	require.NoError(t, err)
	return loc
}

func TestParseAccepts(t *testing.T) {
	after := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC) // a Monday
	for expr, want := range map[string]string{
		"* * * * *":                             "2024-01-01 00:01:00",
		"* * * * * *":                           "2024-01-01 00:00:01",
		"30 15 10 * * *":                        "2024-01-01 10:15:30",
		"  5   4  *  * * ":                      "2024-01-01 04:05:00",
		"*/15 * * * *":                          "2024-01-01 00:15:00",
		"50/5 * * * *":                          "2024-01-01 00:50:00",
		"10-20/3,40 12 * * *":                   "2024-01-01 12:10:00",
		"0 9 * * MON-fri":                       "2024-01-01 09:00:00",
		"0 9 ? FEB ?":                           "2024-02-01 09:00:00",
		"0 0 13 * 5":                            "2024-01-05 00:00:00", // either day
		"0 0 30 2 1":                            "2024-02-05 00:00:00", // the weekday saves it
		"0 0 29 2 *":                            "2024-02-29 00:00:00",
		"59 59 23 31 12 *":                      "2024-12-31 23:59:59",
		"0 0 30,31 2,3 *":                       "2024-03-30 00:00:00",
		"@hourly":                               "2024-01-01 01:00:00",
		"@daily":                                "2024-01-02 00:00:00",
		"@midnight":                             "2024-01-02 00:00:00",
		"@weekly":                               "2024-01-07 00:00:00",
		"@monthly":                              "2024-02-01 00:00:00",
		"@yearly":                               "2025-01-01 00:00:00",
		" @annually ":                           "2025-01-01 00:00:00",
		strings.Repeat("0,", 123) + "0 * * * *": "2024-01-01 01:00:00", // 255 bytes
	} {
		s, err := Parse(expr)
		if assert.NoError(t, err, "%q", expr) {
			assert.Equal(t, want, s.Next(after, time.UTC).Format(time.DateTime), "%q", expr)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for expr, want := range map[string]string{
		"61 * * * *":                            `cron "61 * * * *": field 1, minute: 61 is above 59`,
		"60 * * * * *":                          `field 1, second: 60 is above 59`,
		"0 0 24 * * *":                          `field 3, hour: 24 is above 23`,
		"0 0 0 * *":                             `field 3, day of month: 0 is below 1`,
		"0 0 * 13 *":                            `field 4, month: 13 is above 12`,
		"0 0 * * 7":                             `field 5, day of week: 7 is above 6 (Sunday is 0)`,
		"0 0 * foo *":                           `field 4, month: "foo" is not a number from 1 to 12 or a name from jan to dec`,
		"x * * * *":                             `field 1, minute: "x" is not a number from 0 to 59`,
		"+5 * * * *":                            `field 1, minute: "+5" is not a number`,
		"-5 * * * *":                            `field 1, minute: "" is not a number`,
		"*-5 * * * *":                           `field 1, minute: "*" is not a number`,
		"1-2-3 * * * *":                         `field 1, minute: "2-3" is not a number`,
		"0 0 * * FRI-MON":                       `field 5, day of week: range FRI-MON runs backwards`,
		"0 0 * * 5L":                            `"5L" is not a number`,
		"0 0 L * *":                             `"L" is not a number`,
		", * * * *":                             `field 1, minute: empty item in list ","`,
		"1,,2 * * * *":                          `field 1, minute: empty item in list "1,,2"`,
		"1, * * * *":                            `empty item`,
		", , , , , ,":                           `field 1, second: empty item`,
		"*/0 * * * *":                           `field 1, minute: step: 0 is below 1`,
		"*/90 * * * *":                          `field 1, minute: step: 90 is above 59`,
		"*/ * * * *":                            `field 1, minute: step: "" is not a number from 1 to 59`,
		"*/1/2 * * * *":                         `step: "1/2" is not a number`,
		"/5 * * * *":                            `field 1, minute: "" is not a number`,
		"0 */18446744073709551617 * * *":        `field 2, hour: step: "18446744073709551617" is not a number from 1 to 23`,
		"0 0 30 2 *":                            `never fires: no selected month (field 4) has a selected day (field 3)`,
		"0 0 0 30,31 2 *":                       `never fires: no selected month (field 5) has a selected day (field 4)`,
		"* * * 31 4,6 */1":                      `never fires`,
		"":                                      `cron "": empty`,
		"   ":                                   `empty`,
		"* * * *":                               `has 4 fields; expected 5 (minute, hour, day of month, month, day of week) or 6 with leading seconds`,
		"* * * * * * *":                         `has 7 fields`,
		"TZ=UTC":                                `TimeZone field`,
		"TZ=0":                                  `TimeZone field`,
		"CRON_TZ=":                              `TimeZone field`,
		"TZ=UTC * * * * *":                      `TimeZone field`,
		" cron_tz=UTC 0 0 * * *":                `TimeZone field`,
		"@every 1h":                             `use an Every spec`,
		"@every":                                `use an Every spec`,
		"@reboot":                               `unknown macro; expected one of @hourly, @daily`,
		"@":                                     `unknown macro`,
		"@daily,":                               `unknown macro`,
		"@daily * * * *":                        `unknown macro`,
		"0\t0 * * *":                            `byte 0x09 at offset 1: only printable ASCII is allowed`,
		"0 0 * * *\x00":                         `byte 0x00 at offset 9`,
		"٣ * * * *":                             `only printable ASCII`,
		strings.Repeat("0,", 124) + "0 * * * *": `cron: expression has 257 bytes, at most 256 are allowed`,
	} {
		s, err := Parse(expr)
		assert.ErrorContains(t, err, want, "%q", expr)
		assert.Zero(t, s, "%q", expr)
	}
}

// TestRobfigParsePanics shows that the guard works, as no input gets that far.
func TestRobfigParsePanics(t *testing.T) {
	_, err := robfigParse("TZ=UTC")
	assert.ErrorContains(t, err, "not understood")
	_, err = robfigParse("@every 1h")
	assert.ErrorContains(t, err, "not understood")
}

// shows reports whether the clock of t is at a time s selects, by the fields.
func (s Schedule) shows(t time.Time) bool {
	has := func(set uint64, v int) bool { return set&(1<<v) != 0 }
	dom, dow := has(s.spec.Dom, t.Day()), has(s.spec.Dow, int(t.Weekday()))
	day := dom || dow
	if (s.spec.Dom|s.spec.Dow)&starBit != 0 {
		day = dom && dow
	}
	return day && has(s.spec.Month, int(t.Month())) && has(s.spec.Hour, t.Hour()) &&
		has(s.spec.Minute, t.Minute()) && has(s.spec.Second, t.Second())
}

// TestNextAgainstClock walks through clock changes of every odd kind minute by
// minute and compares each instant with what Next says.
func TestNextAgainstClock(t *testing.T) {
	exprs := []string{
		"* * * * *", "*/30 * * * *", "0 * * * *", "0 0 * * *", "30 1 * * *", "30 2 * * *", "0 3 * * *",
		"0 5 * * 6", "0 10 * * *", "@weekly", "@monthly", "0 5 5 9 *", "15 0 1 * 1", "45 23 31 12 *",
	}
	for _, c := range []struct {
		zone, from string
		days       int
	}{
		{"America/New_York", "2024-03-08", 5},
		{"America/New_York", "2024-11-01", 5},
		{"America/Sao_Paulo", "2018-11-01", 12},  // midnight skipped
		{"America/Sao_Paulo", "2018-02-14", 7},   // midnight twice
		{"America/Asuncion", "2023-09-28", 12},   // midnight of the 1st skipped
		{"Australia/Lord_Howe", "2025-04-04", 5}, // back by half an hour
		{"Australia/Lord_Howe", "2025-10-03", 5}, // forward by half an hour
		{"Antarctica/Troll", "2025-03-28", 5},    // by two hours
		{"Pacific/Apia", "2011-12-28", 6},        // 30 December skipped
		{"Africa/Casablanca", "2025-02-21", 4},   // back for Ramadan
		{"Africa/Casablanca", "2025-04-04", 4},
		{"Asia/Kathmandu", "1985-12-30", 5},   // by 15 minutes
		{"America/New_York", "2040-12-29", 5}, // ZoneBounds is wrong here
		{"Australia/Sydney", "2048-12-29", 5},
		{"UTC", "2024-02-27", 5},
	} {
		loc := zone(t, c.zone)
		from, err := time.ParseInLocation(time.DateOnly, c.from, loc)
		require.NoError(t, err)
		for _, expr := range exprs {
			s, err := Parse(expr)
			require.NoError(t, err)
			next := s.Next(from.Add(-1), loc)
			for at, end := from, from.AddDate(0, 0, c.days); at.Before(end); at = at.Add(time.Minute) {
				if s.shows(at) != at.Equal(next) {
					t.Fatalf("%s %q: at %v, next is %v", c.zone, expr, at, next)
				}
				if at.Equal(next) {
					next = s.Next(at, loc)
				}
			}
		}
	}
}

func TestNextEdges(t *testing.T) {
	s, err := Parse("* * * * * *")
	require.NoError(t, err)
	now := time.Now()
	assert.Equal(t, now.Truncate(time.Second).Add(time.Second).UTC(), s.Next(now, nil), "nil is UTC, no monotonic reading")
	at := time.Date(2024, 5, 1, 0, 0, 0, 1, time.UTC)
	assert.Equal(t, at.Add(1e9-1), s.Next(at, time.UTC), "up to the next second")
	assert.Equal(t, at.Add(1e9-1), s.Next(at.Add(-1), time.UTC), "strictly after")

	// An offset with seconds, where truncating to minutes would go wrong.
	loc := time.FixedZone("LMT", 1172)
	m, err := Parse("7 3 * * *")
	require.NoError(t, err)
	assert.Equal(t, "03:07:00 LMT", m.Next(at, loc).Format("15:04:05 MST"))

	assert.Zero(t, Schedule{}.Next(at, time.UTC))
	leap, err := Parse("0 0 29 2 *")
	require.NoError(t, err)
	assert.Zero(t, leap.Next(time.Date(2096, 3, 1, 0, 0, 0, 0, time.UTC), zone(t, "Europe/Berlin")))
	assert.Equal(t, 2104, leap.Next(time.Date(2099, 3, 1, 0, 0, 0, 0, time.UTC), zone(t, "Europe/Berlin")).Year())
	for _, after := range []time.Time{
		time.Date(0, 6, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(math.MaxInt64, 0), time.Unix(math.MinInt64, 0),
		time.Unix(1<<62, 0), time.Unix(-1<<62, 0),
	} {
		assert.Zero(t, s.Next(after, time.UTC), "%v", after)
		assert.Zero(t, s.Next(after, zone(t, "Europe/Berlin")), "%v", after)
	}
	assert.Equal(t, time.Time{}.Add(time.Second), s.Next(time.Time{}, time.UTC), "the zero time is an instant like any other")
}

func TestNextConcurrently(t *testing.T) {
	s, err := Parse("0 9 * * 1")
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for at := time.Unix(0, 0); at.Year() < 1972; {
				next := s.Next(at, time.UTC)
				assert.True(t, next.After(at))
				at = next
			}
		})
	}
	wg.Wait()
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"* * * * *", "0 0 29 2 *", "59 59 23 31 12 6", "*/5 1-3,7/2 ? jan-mar mon", "@daily", "@every 1s", "TZ=0",
		", * * * *", "0 0 30 2 *", "*/99999999999999999999 * * * *", "0 0 0 31 2,4 */1", "\x00", "1-2-3/4/5 * * * *",
	} {
		f.Add(seed, int64(1733000000))
	}
	zones := []*time.Location{time.UTC}
	for _, name := range []string{"America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia"} {
		zones = append(zones, zone(f, name))
	}
	const slow = time.Second // usually microseconds, but fuzz workers share CPUs
	f.Fuzz(func(t *testing.T, expr string, sec int64) {
		start := time.Now()
		s, err := Parse(expr)
		if d := time.Since(start); d > slow {
			t.Fatalf("%q took %v to parse", expr, d)
		}
		if err != nil {
			return
		}
		for _, loc := range zones {
			// Any instant at all, and one folded into the years 1970 to 2090,
			// where every accepted expression fires.
			s.Next(time.Unix(sec, 0), loc)
			after := time.Unix(int64(uint64(sec)%3786912000), 0)
			start := time.Now()
			next := s.Next(after, loc)
			if d := time.Since(start); d > slow {
				t.Fatalf("%q took %v from %v in %v", expr, d, after, loc)
			}
			if next.IsZero() {
				// Only a time the clock skips may fail to come in five years.
				if loc == time.UTC {
					t.Fatalf("%q has none after %v", expr, after)
				}
				continue
			}
			if !next.After(after) || !s.shows(next) || next.Location() != loc {
				t.Fatalf("%q: %v after %v in %v", expr, next, after, loc)
			}
		}
	})
}

func BenchmarkNext(b *testing.B) {
	loc := zone(b, "America/New_York")
	after := time.Date(2024, 6, 1, 12, 0, 0, 0, loc)
	for _, expr := range []string{"*/5 * * * *", "0 9 * * 1", "0 0 29 2 *"} {
		s, err := Parse(expr)
		require.NoError(b, err)
		b.Run(expr, func(b *testing.B) {
			for b.Loop() {
				s.Next(after, loc)
			}
		})
	}
}

package cron

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/zone"
	"github.com/carillon-go/carillon/internal/zonetest"
)

func parsed(t testing.TB, expr string, both bool) Schedule {
	t.Helper()
	s, err := Parse(expr, both)
	require.NoError(t, err)
	return s
}

// upcoming returns the next n times on a clock of UTC, dates only at midnight.
func upcoming(s Schedule, after time.Time, n int) string {
	var out []string
	for range n {
		if after = s.Next(after, nil, zone.Rules{}); after.IsZero() {
			out = append(out, "never")
			break
		}
		out = append(out, strings.TrimSuffix(after.Format(time.DateTime), " 00:00:00"))
	}
	return strings.Join(out, ", ")
}

func TestParseAccepts(t *testing.T) {
	t.Parallel()
	after := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC) // a Monday
	for expr, want := range map[string]string{
		"* * * * *":                             "2024-01-01 00:01:00",
		"* * * * * *":                           "2024-01-01 00:00:01",
		"30 15 10 * * *":                        "2024-01-01 10:15:30",
		"  5   4  *  * * ":                      "2024-01-01 04:05:00",
		"*/15 * * * *":                          "2024-01-01 00:15:00, 2024-01-01 00:30:00",
		"50/5 * * * *":                          "2024-01-01 00:50:00, 2024-01-01 00:55:00, 2024-01-01 01:50:00",
		"10-20/3,40 12 * * *":                   "2024-01-01 12:10:00, 2024-01-01 12:13:00, 2024-01-01 12:16:00, 2024-01-01 12:19:00, 2024-01-01 12:40:00",
		"0 9 * * MON-fri":                       "2024-01-01 09:00:00",
		"0 9 ? FEB ?":                           "2024-02-01 09:00:00",
		"0 0 30 2 1":                            "2024-02-05", // the weekday saves it
		"0 0 29 2 *":                            "2024-02-29, 2028-02-29",
		"59 59 23 31 12 *":                      "2024-12-31 23:59:59",
		"0 0 30,31 2,3 *":                       "2024-03-30, 2024-03-31, 2025-03-30",
		"@hourly":                               "2024-01-01 01:00:00, 2024-01-01 02:00:00",
		"@daily":                                "2024-01-02, 2024-01-03",
		"@midnight":                             "2024-01-02, 2024-01-03",
		"@weekly":                               "2024-01-07, 2024-01-14",
		"@monthly":                              "2024-02-01, 2024-03-01",
		"@yearly":                               "2025-01-01, 2026-01-01",
		" @annually ":                           "2025-01-01, 2026-01-01",
		strings.Repeat("0,", 123) + "0 * * * *": "2024-01-01 01:00:00", // 255 bytes

		// Sunday has two numbers.
		"0 0 * * 0":   "2024-01-07, 2024-01-14",
		"0 0 * * 7":   "2024-01-07, 2024-01-14",
		"0 0 * * 7-7": "2024-01-07, 2024-01-14",
		"0 0 * * 5-7": "2024-01-05, 2024-01-06, 2024-01-07, 2024-01-12",
		"0 0 * * 7-1": "2024-01-07, 2024-01-08, 2024-01-14",
		"0 0 * * 0-7": "2024-01-02, 2024-01-03, 2024-01-04, 2024-01-05, 2024-01-06, 2024-01-07, 2024-01-08",
		"0 0 * * 7/3": "2024-01-03, 2024-01-06, 2024-01-07",
		"0 0 * * 7#1": "2024-01-07, 2024-02-04",
		"0 0 * * 7L":  "2024-01-28, 2024-02-25",

		// Ranges wrap.
		"0 0 * * FRI-MON":     "2024-01-05, 2024-01-06, 2024-01-07, 2024-01-08, 2024-01-12",
		"0 0 * * FRI-MON/2":   "2024-01-05, 2024-01-07, 2024-01-12",
		"0 22-2 * * *":        "2024-01-01 01:00:00, 2024-01-01 02:00:00, 2024-01-01 22:00:00, 2024-01-01 23:00:00, 2024-01-02",
		"0 22-3/2 * * *":      "2024-01-01 02:00:00, 2024-01-01 22:00:00, 2024-01-02, 2024-01-02 02:00:00",
		"58-1 5 * * *":        "2024-01-01 05:00:00, 2024-01-01 05:01:00, 2024-01-01 05:58:00, 2024-01-01 05:59:00, 2024-01-02 05:00:00",
		"50-10/15 0 0 * * *":  "2024-01-01 00:00:05, 2024-01-01 00:00:50, 2024-01-02 00:00:05",
		"0 0 1 NOV-feb *":     "2024-02-01, 2024-11-01, 2024-12-01, 2025-01-01, 2025-02-01, 2025-11-01",
		"0 0 1 OCT-APR/3 *":   "2024-04-01, 2024-10-01, 2025-01-01, 2025-04-01",
		"0 0 30-2 1-3 *":      "2024-01-02, 2024-01-30, 2024-01-31, 2024-02-01, 2024-02-02, 2024-03-01",
		"0 0 25-5/4 * *":      "2024-01-02, 2024-01-25, 2024-01-29, 2024-02-02",
		"0 0 * * sat-sun,WED": "2024-01-03, 2024-01-06, 2024-01-07, 2024-01-10",

		// Days of the month.
		"0 0 L * *":       "2024-01-31, 2024-02-29, 2024-03-31, 2024-04-30",
		"0 0 l 2 *":       "2024-02-29, 2025-02-28",
		"0 0 L-1 2 *":     "2024-02-28, 2025-02-27",
		"0 0 L-30 * *":    "2024-03-01, 2024-05-01, 2024-07-01, 2024-08-01",
		"0 0 L-28 2 *":    "2024-02-01, 2028-02-01",
		"0 0 LW * *":      "2024-01-31, 2024-02-29, 2024-03-29, 2024-04-30, 2024-05-31, 2024-06-28",
		"0 0 15W * *":     "2024-01-15, 2024-02-15, 2024-03-15, 2024-04-15, 2024-05-15, 2024-06-14, 2024-07-15, 2024-08-15, 2024-09-16",
		"0 0 1W 6-9 *":    "2024-06-03, 2024-07-01, 2024-08-01, 2024-09-02", // 1 June is a Saturday
		"0 0 30W 6 *":     "2024-06-28, 2025-06-30",                         // 30 June is a Sunday
		"0 0 31W 2-5 *":   "2024-03-29, 2024-05-31, 2025-03-31",             // no 31st, no weekday
		"0 0 29w 2 *":     "2024-02-29, 2028-02-29",
		"0 0 1,L,L-2 * *": "2024-01-29, 2024-01-31, 2024-02-01, 2024-02-27, 2024-02-29",
		"0 0 10W,20W 1 *": "2024-01-10, 2024-01-19, 2025-01-10",

		// Days of the week.
		"0 0 * * 5L":                            "2024-01-26, 2024-02-23, 2024-03-29",
		"0 0 * * FRIL":                          "2024-01-26, 2024-02-23, 2024-03-29",
		"0 0 * * fri#2":                         "2024-01-12, 2024-02-09",
		"0 0 * * 1#1,3#3":                       "2024-01-17, 2024-02-05, 2024-02-21",
		"0 0 * * 4#5":                           "2024-02-29, 2024-05-30, 2024-08-29",
		"0 0 * 2 4#5":                           "2024-02-29, 2052-02-29",
		"0 0 ? * TUE,MONL":                      "2024-01-02, 2024-01-09, 2024-01-16, 2024-01-23, 2024-01-29, 2024-01-30",
		"0 0 L * FRIL":                          "2024-01-26, 2024-01-31, 2024-02-23, 2024-02-29", // either
		"0 0 0 ? * 6#1 */2":                     "2024-01-06, 2024-02-03",
		"0 0 *,L 1 *":                           "2024-01-02, 2024-01-03",
		"0 0 13 * 5":                            "2024-01-05, 2024-01-12, 2024-01-13", // either
		"0 0 */2 * 1":                           "2024-01-03, 2024-01-05, 2024-01-07, 2024-01-08, 2024-01-09",
		"0 0 */1 * 1":                           "2024-01-08, 2024-01-15", // every day is not a restriction
		"0 0 ?/1 * 1":                           "2024-01-08, 2024-01-15",
		"0 0 1 * 1-5,*":                         "2024-02-01, 2024-03-01",
		"0 0 13 * 1,0-6/1":                      "2024-01-02, 2024-01-03", // all days, but by a restriction
		"0 0 0 1 1 ? 2030":                      "2030-01-01, never",
		"0 0 0 1 1 * 1999":                      "never",
		"0 0 0 1 1 * 2000/25":                   "2025-01-01, 2050-01-01, 2075-01-01, 2100-01-01",
		"0 0 0 1 1 * *":                         "2025-01-01, 2026-01-01",
		"0 0 12 29 2 * 2024-2199/4,1970":        "2024-02-29 12:00:00, 2028-02-29 12:00:00",
		"59 59 23 31 12 ? 2026-2027,2199":       "2026-12-31 23:59:59, 2027-12-31 23:59:59, 2199-12-31 23:59:59, never",
		"0 0 0 1 1,7 * 2025,2199":               "2025-01-01, 2025-07-01, 2199-01-01, 2199-07-01, never",
		"CRON_TZ=Asia/Tokyo 0 9 * * *":          "2024-01-01 09:00:00", // which is for the caller to use
		"TZ=America/Argentina/Ushuaia @monthly": "2024-02-01",
	} {
		s, err := Parse(expr, false)
		if assert.NoError(t, err, "%q", expr) {
			assert.Equal(t, want, upcoming(s, after, strings.Count(want, ", ")+1), "%q", expr)
		}
	}
}

func TestBothDays(t *testing.T) {
	t.Parallel()
	after := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	for expr, want := range map[string]string{
		"0 0 13 * FRI":      "2024-09-13, 2024-12-13, 2025-06-13",
		"0 0 */2 * 1":       "2024-01-15, 2024-01-29, 2024-02-05",
		"0 0 * * 1":         "2024-01-08, 2024-01-15",
		"0 0 13 * ?":        "2024-01-13, 2024-02-13",
		"0 0 L * FRIL":      "2024-05-31, 2025-01-31",
		"0 0 25-31 12 FRIL": "2024-12-27, 2025-12-26",
		"0 0 15W * MON-FRI": "2024-01-15, 2024-02-15",
		"0 0 29 2 1":        "2044-02-29, 2072-02-29, 2112-02-29", // 40 years over 2100
	} {
		assert.Equal(t, want, upcoming(parsed(t, expr, true), after, strings.Count(want, ", ")+1), "%q", expr)
	}
	for _, expr := range []string{"0 0 30 2 1", "0 0 1 * 5#5", "0 0 15W * SUN", "0 0 1 * FRIL"} {
		_, err := Parse(expr, false)
		assert.NoError(t, err, "%q", expr)
		_, err = Parse(expr, true)
		assert.ErrorContains(t, err, "never fires", "%q", expr)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for expr, want := range map[string]string{
		"61 * * * *":                            `cron "61 * * * *": field 1 (minute) at offset 0: 61 is above 59`,
		"60 * * * * *":                          `field 1 (second) at offset 0: 60 is above 59`,
		"0  0 24 * * *":                         `field 3 (hour) at offset 5: 24 is above 23`,
		"0 0 0 * *":                             `field 3 (day of month) at offset 4: 0 is below 1`,
		"0 0 * 13 *":                            `field 4 (month) at offset 6: 13 is above 12`,
		"0 0 * * 8":                             `field 5 (day of week) at offset 8: 8 is above 7`,
		"0 0 * foo *":                           `field 4 (month) at offset 6: "foo" is not a number from 1 to 12 or a name from jan to dec`,
		"0 0 * * 1,2,mo":                        `field 5 (day of week) at offset 12: "mo" is not a number from 0 to 7 or a name from sun to sat, FRIL or FRI#2`,
		"x * * * *":                             `field 1 (minute) at offset 0: "x" is not a number from 0 to 59`,
		"+5 * * * *":                            `field 1 (minute) at offset 0: "+5" is not a number`,
		"-5 * * * *":                            `field 1 (minute) at offset 0: "" is not a number`,
		"*-5 * * * *":                           `field 1 (minute) at offset 0: "*" is not a number`,
		"1-2-3 * * * *":                         `field 1 (minute) at offset 0: "2-3" is not a number`,
		", * * * *":                             `field 1 (minute) at offset 0: empty item in a list`,
		"1,,2 * * * *":                          `field 1 (minute) at offset 2: empty item`,
		"1, * * * *":                            `offset 2: empty item`,
		", , , , , ,":                           `field 1 (second) at offset 0: empty item`,
		"*/0 * * * *":                           `field 1 (minute) at offset 0: step: 0 is below 1`,
		"*/90 * * * *":                          `field 1 (minute) at offset 0: step: 90 is above 59`,
		"*/ * * * *":                            `field 1 (minute) at offset 0: step: "" is not a number from 1 to 59`,
		"*/1/2 * * * *":                         `step: "1/2" is not a number`,
		"0 0 * * */7":                           `step: 7 is above 6`,
		"0 0 0 1 1 * */231":                     `step: 231 is above 230`,
		"/5 * * * *":                            `field 1 (minute) at offset 0: "" is not a number`,
		"0 */18446744073709551617 * * *":        `field 2 (hour) at offset 2: step: "18446744073709551617" is not a number from 1 to 23`,
		"? * * * *":                             `field 1 (minute) at offset 0: ? is for day of month and day of week only; expected *`,
		"0 0 * ?/2 *":                           `field 4 (month) at offset 6: ? is for day`,
		"0 0 ?-3 * *":                           `field 3 (day of month) at offset 4: "?" is not a number`,
		"0 0 L/2 * *":                           `field 3 (day of month) at offset 4: "L" is not a number from 1 to 31, L, L-3, LW or 15W`,
		"0 0 1-L * *":                           `"L" is not a number from 1 to 31`,
		"0 0 L-0 * *":                           `days before the last one: 0 is below 1`,
		"0 0 1,L-31 * *":                        `field 3 (day of month) at offset 6: days before the last one: 31 is above 30`,
		"0 0 32W * *":                           `weekday nearest to a day: 32 is above 31`,
		"0 0 1-15W * *":                         `weekday nearest to a day: "1-15" is not a number from 1 to 31`,
		"0 0 W * *":                             `weekday nearest to a day: "" is not a number`,
		"0 0 * * L":                             `field 5 (day of week) at offset 8: expected a day of the week before L: FRIL is`,
		"0 0 * * 8L":                            `8 is above 7`,
		"0 0 * * 1#6":                           `field 5 (day of week) at offset 8: after #: 6 is above 5`,
		"0 0 * * 1#0":                           `after #: 0 is below 1`,
		"0 0 * * #2":                            `"" is not a number from 0 to 7`,
		"0 0 * * FRI#2L":                        `after #: "2L" is not a number from 1 to 5`,
		"0 0 * * MON-FRIL":                      `"MON-FRI" is not a number`,
		"0 L * * *":                             `field 2 (hour) at offset 2: "L" is not a number from 0 to 23`,
		"0 0 0 1 1 * 1969":                      `field 7 (year) at offset 12: 1969 is below 1970`,
		"0 0 0 1 1 * 2200":                      `field 7 (year) at offset 12: 2200 is above 2199`,
		"0 0 0 1 1 * 2030-2026":                 `field 7 (year) at offset 12: range 2030-2026 runs backwards`,
		"0 0 0 1 1 * ?":                         `field 7 (year) at offset 12: ? is for day`,
		"0 0 30 2 *":                            `never fires: no selected month (field 4) has a day that is selected by day of month (field 3) and day of week (field 5)`,
		"0 0 0 30,31 2 *":                       `never fires: no selected month (field 5) has a day that is selected by day of month (field 4)`,
		"0 0 0 29 2 * 2025-2027":                `never fires: no selected month (field 5) of a selected year (field 7) has a day`,
		"* * * 31 4,6 */1":                      `never fires`,
		"0 0 L-30 2,4 *":                        `never fires`,
		"0 0 31W 4 *":                           `never fires`,
		"0 0 0 ? 2 3#5 2024":                    `never fires`,
		"":                                      `cron "": empty; expected five to seven fields or a macro`,
		"   ":                                   `empty`,
		"* * * *":                               `has 4 fields; expected 5 (minute, hour, day of month, month, day of week), 6 with leading seconds, or 7 with years at the end`,
		"* * * * * * * *":                       `has 8 fields`,
		"TZ=":                                   `TZ at offset 0: the name of the time zone is empty`,
		"TZ=UTC":                                `empty; expected five`,
		" CRON_TZ=Local * * * * *":              `CRON_TZ at offset 1: the time zone Local differs`,
		"CRON_TZ=Mars/Olymp * * * * *":          `CRON_TZ at offset 0: unknown time zone "Mars/Olymp"; expected an IANA name`,
		"CRON_TZ=UTC * 25 * * *":                `field 2 (hour) at offset 14: 25 is above 23`,
		"cron_tz=UTC 0 0 * * *":                 `field 1 (second) at offset 0: "cron_tz=UTC" is not a number`,
		"TZ=UTC TZ=UTC * * * * *":               `field 1 (second) at offset 7: "TZ=UTC" is not a number`,
		"@every 1h":                             `at offset 0: @every is not cron; use an Every spec`,
		"TZ=UTC @every":                         `at offset 7: @every is not cron`,
		"@reboot":                               `@reboot has no meaning for a schedule of many machines; enqueue the job when the program starts`,
		"@":                                     `unknown macro @; expected @hourly, @daily`,
		"@daily,":                               `unknown macro @daily,;`,
		"@Daily":                                `unknown macro @Daily`,
		"@daily * * * *":                        `at offset 7: nothing may follow @daily`,
		"0\t0 * * *":                            `byte 0x09 at offset 1: only printable ASCII is allowed`,
		"0 0 * * *\x00":                         `byte 0x00 at offset 9`,
		"٣ * * * *":                             `only printable ASCII`,
		strings.Repeat("0,", 124) + "0 * * * *": `cron: expression has 257 bytes, at most 256 are allowed`,
	} {
		s, err := Parse(expr, false)
		assert.ErrorContains(t, err, want, "%q", expr)
		assert.Zero(t, s, "%q", expr)
	}
}

// TestRobfigParsePanics shows that the guard works, as no input gets that far.
func TestRobfigParsePanics(t *testing.T) {
	t.Parallel()
	_, err := robfigParse("TZ=UTC")
	assert.ErrorContains(t, err, "not understood")
}

func TestZone(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "Europe/Berlin", parsed(t, "CRON_TZ=Europe/Berlin 0 9 * * *", false).Zone())
	assert.Equal(t, "UTC", parsed(t, "  TZ=UTC   @daily", false).Zone())
	assert.Empty(t, parsed(t, "0 9 * * *", false).Zone())
}

func TestSeconds(t *testing.T) {
	t.Parallel()
	s := parsed(t, "5,10 0,30 1,23 * 2 MON 2024-2026", false)
	assert.Equal(t, []int{3605, 3610, 5405, 5410, 82805, 82810, 84605, 84610}, s.Seconds(2024, 2, 5))
	for _, day := range []time.Time{
		time.Date(2024, 2, 6, 0, 0, 0, 0, time.UTC), time.Date(2024, 3, 4, 0, 0, 0, 0, time.UTC), time.Date(2027, 2, 1, 0, 0, 0, 0, time.UTC),
	} {
		assert.Nil(t, s.Seconds(day.Date()))
	}
	all := parsed(t, "* * * * * *", false).Seconds(2024, 2, 29)
	require.Len(t, all, 86400)
	assert.Equal(t, 86399, all[86399])
	for _, day := range []int{-1, 0, 30, 32, 64} {
		assert.Nil(t, parsed(t, "* * * * * *", false).Seconds(2024, 2, day))
	}
	assert.Nil(t, Schedule{}.Seconds(2024, 2, 1))
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"* * * * *", "0 0 29 2 *", "59 59 23 31 12 6", "*/5 1-3,7/2 ? jan-mar mon", "@daily", "@every 1s", "TZ=0", "TZ=UTC @weekly",
		", * * * *", "0 0 30 2 *", "*/99999999999999999999 * * * *", "0 0 0 31 2,4 */1", "\x00", "1-2-3/4/5 * * * *",
		"0 0 0 L,L-3,LW,15W * FRIL,1#5 2024-2199/3", "58-2/3 22-4 25-5/2 NOV-FEB FRI-MON/2", "0 30 2 8-14 3 SUN 2024",
	} {
		f.Add(seed, int64(1733000000), false, 0)
		f.Add(seed, int64(-2000000000), true, 5)
	}
	zones := []*time.Location{time.UTC}
	for _, name := range []string{"America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia"} {
		zones = append(zones, zonetest.Load(f, name))
	}
	const slow = time.Second // usually microseconds, but fuzz workers share CPUs
	f.Fuzz(func(t *testing.T, expr string, sec int64, both bool, rules int) {
		start := time.Now()
		s, err := Parse(expr, both)
		if err != nil {
			assert.Zero(t, s)
			return
		}
		r := zone.Rules{Gap: zone.Gap(rules & 1), Repeat: zone.Repeat(uint(rules) >> 1 % 3)}
		assert.NotEqual(t, "never", s.String())
		for _, loc := range zones {
			// Any instant at all, and one folded into the years 1970 to 2090.
			s.Next(time.Unix(sec, 0), loc, r)
			after := time.Unix(int64(uint64(sec)%3786912000), 0)
			next := s.Next(after, loc, r)
			if next.IsZero() {
				if loc == time.UTC && s.years == (years{}) {
					t.Fatalf("%q has none after %v", expr, after)
				}
				continue
			}
			if !next.After(after) || next.Location() != loc {
				t.Fatalf("%q: %v after %v in %v", expr, next, after, loc)
			}
			if again := s.Next(next.Add(-1), loc, r); !again.Equal(next) {
				t.Fatalf("%q in %v: %v is not after the instant before it, but %v", expr, loc, next, again)
			}
		}
		if d := time.Since(start); d > slow {
			t.Fatalf("%q took %v", expr, d)
		}
	})
}

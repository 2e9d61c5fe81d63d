package icalendar_test

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/icalendar"
)

func day(text string) time.Time {
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		panic(err)
	}
	return t
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	require.NoError(t, err)
	return data
}

// dates expands the days of a year, as "01-01 01-19".
func dates(year, days string) []string {
	var list []string
	for d := range strings.FieldsSeq(days) {
		list = append(list, year+"-"+d)
	}
	return list
}

func TestPublishedCalendars(t *testing.T) {
	t.Parallel()
	rest := func(e icalendar.Event) bool { return strings.Contains(e.Summary, "休") }
	work := func(e icalendar.Event) bool {
		return e.Categories[0] == "调休,上班" && e.Categories[1] == "工作日"
	}
	tests := []struct {
		name, file, year string
		keep             func(icalendar.Event) bool
		want             string
	}{
		{
			"the rules of the US federal holidays give what OPM published", "us-federal.ics", "2026", nil,
			"01-01 01-19 02-16 05-25 06-19 07-03 09-07 10-12 11-11 11-26 12-25",
		},
		{
			"a New Year's Day on a Saturday is observed in the old year", "us-federal.ics", "2021", nil,
			"01-01 01-18 02-15 05-31 06-18 07-05 09-06 10-11 11-11 11-25 12-24 12-31",
		},
		{
			"Juneteenth has been a holiday since 2021", "us-federal.ics", "2020", nil,
			"01-01 01-20 02-17 05-25 07-03 09-07 10-12 11-11 11-26 12-25",
		},
		{
			"folded lines with CRLF", "england.ics", "2027", nil,
			"01-01 03-26 03-29 05-03 05-31 08-30 12-27 12-28",
		},
		{
			"days off of the State Council, several days long, with a BOM and LF", "china.ics", "2026", rest,
			"01-01 01-02 01-03 02-15 02-16 02-17 02-18 02-19 02-20 02-21 02-22 02-23 04-04 04-05 04-06 " +
				"05-01 05-02 05-03 05-04 05-05 06-19 06-20 06-21 09-25 09-26 09-27 " +
				"10-01 10-02 10-03 10-04 10-05 10-06 10-07",
		},
		{
			"make-up workdays of the State Council, by category", "china.ics", "2026", work,
			"01-04 02-14 02-28 05-09 09-20 10-10",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := icalendar.Dates(bytes.NewReader(read(t, tt.file)), day(tt.year+"-01-01"), day(tt.year+"-12-31"), tt.keep)
			require.NoError(t, err)
			assert.Equal(t, dates(tt.year, tt.want), got)
		})
	}
}

// calendar makes a file of one event.
func calendar(lines ...string) string {
	return "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nUID:x@y\r\n" + strings.Join(lines, "\r\n") + "\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
}

// and begins another event.
const and = "END:VEVENT\r\nBEGIN:VEVENT\r\nUID:x@y"

func TestDates(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		lines []string
		want  string // of 2026
	}{
		{"DTEND is the day after", []string{"DTSTART;VALUE=DATE:20260101", "DTEND;VALUE=DATE:20260104"}, "01-01 01-02 01-03"},
		{"without an end, one day", []string{"DTSTART;VALUE=DATE:20260101"}, "01-01"},
		{"DTEND = DTSTART, one day", []string{"DTSTART;VALUE=DATE:20260101", "DTEND;VALUE=DATE:20260101"}, "01-01"},
		{"VALUE=DATE left out", []string{"dtstart:20260101"}, "01-01"},
		{"a duration of days", []string{"DTSTART;VALUE=DATE:20260101", "DURATION:P1W"}, "01-01 01-02 01-03 01-04 01-05 01-06 01-07"},
		{"only days from ... to", []string{"DTSTART;VALUE=DATE:20251230", "DTEND;VALUE=DATE:20260102"}, "01-01"},
		{"... to", []string{"DTSTART;VALUE=DATE:20261231", "DTEND;VALUE=DATE:20270105"}, "12-31"},

		{"a time touches its day", []string{"DTSTART:20260101T235959"}, "01-01"},
		{"over midnight, two days", []string{"DTSTART:20260101T220000", "DTEND:20260102T000001"}, "01-01 01-02"},
		{"until midnight, one day", []string{"DTSTART:20260101T220000", "DTEND:20260102T000000"}, "01-01"},
		{"a duration of hours", []string{"DTSTART:20260101T220000", "DURATION:PT2H1S"}, "01-01 01-02"},
		{"days of the zone of the event", []string{"DTSTART;TZID=Asia/Shanghai:20260101T000000", "DURATION:P1D"}, "01-01"},
		{"end in another zone", []string{"DTSTART;TZID=Asia/Shanghai:20260101T120000", "DTEND;TZID=America/New_York:20260102T030000"}, "01-01 01-02"},
		{"UTC", []string{"DTSTART:20260101T233000Z", "DTEND:20260102T003000Z"}, "01-01 01-02"},
		{"a zone with a prefix", []string{"DTSTART;TZID=\"/example.org/20250101/Europe/Berlin\":20260101T000000", "DTEND:20260101T230000Z"}, "01-01"},
		{"a zone of the file alone", []string{"DTSTART;TZID=China Standard Time:20260101T090000", "DTEND;TZID=China Standard Time:20260102T180000"}, "01-01 01-02"},
		{"a whole day when the clock changes", []string{"DTSTART;TZID=Europe/Berlin:20250101T000000", "DTEND;TZID=Europe/Berlin:20250102T000000", "RRULE:FREQ=YEARLY;BYMONTH=3;BYDAY=-1SU"}, "03-29"},

		{"COUNT", []string{"DTSTART;VALUE=DATE:20260101", "RRULE:FREQ=DAILY;COUNT=3"}, "01-01 01-02 01-03"},
		{"UNTIL a day", []string{"DTSTART:20260101T090000", "RRULE:FREQ=DAILY;UNTIL=20260103"}, "01-01 01-02 01-03"},
		{"UNTIL in UTC", []string{"DTSTART;TZID=America/New_York:20260101T200000", "RRULE:FREQ=DAILY;UNTIL=20260103T010000Z"}, "01-01 01-02"},
		{"several days each time", []string{"DTSTART;VALUE=DATE:20260101", "DTEND;VALUE=DATE:20260103", "RRULE:FREQ=WEEKLY;COUNT=2;"}, "01-01 01-02 01-08 01-09"},
		{"since the year 1601", []string{"DTSTART;VALUE=DATE:16010101", "RRULE:FREQ=YEARLY"}, "01-01"},
		{"two rules", []string{"DTSTART;VALUE=DATE:20260101", "RRULE:FREQ=YEARLY", "RRULE:FREQ=YEARLY;BYMONTH=5;BYMONTHDAY=1"}, "01-01 05-01"},
		{"29 February not in 2026", []string{"DTSTART;VALUE=DATE:20240229", "RRULE:FREQ=YEARLY"}, ""},
		{"RDATE", []string{"DTSTART;VALUE=DATE:20260101", "RDATE;VALUE=DATE:20260301,20260401"}, "01-01 03-01 04-01"},
		{"RDATE with periods", []string{"DTSTART:20260101T090000", "RDATE;VALUE=PERIOD:20260301T230000/PT2H,20260401T230000/20260402T010000"}, "01-01 03-01 03-02 04-01 04-02"},
		{"EXDATE", []string{"DTSTART;VALUE=DATE:20260101", "RRULE:FREQ=DAILY;COUNT=4", "EXDATE;VALUE=DATE:20260102,20260103"}, "01-01 01-04"},
		{"EXDATE in UTC", []string{"DTSTART;TZID=America/New_York:20260101T200000", "RRULE:FREQ=DAILY;COUNT=3", "EXDATE:20260103T010000Z"}, "01-01 01-03"},
		{"EXDATE of a day for times", []string{"DTSTART:20260101T090000", "RRULE:FREQ=DAILY;COUNT=3", "EXDATE;VALUE=DATE:20260102"}, "01-01 01-03"},
		{"an EXDATE of another time is of none", []string{"DTSTART:20260101T090000", "RRULE:FREQ=DAILY;COUNT=2", "EXDATE:20260102T100000"}, "01-01 01-02"},
		{
			"an occurrence that moved",
			[]string{"DTSTART;VALUE=DATE:20260101", "RRULE:FREQ=YEARLY", and, "RECURRENCE-ID;VALUE=DATE:20260101", "DTSTART;VALUE=DATE:20260105"}, "01-05",
		},
		{
			"an occurrence that was cancelled",
			[]string{"DTSTART:20260101T090000Z", "RRULE:FREQ=DAILY;COUNT=3", and, "RECURRENCE-ID;TZID=Europe/Berlin:20260102T100000", "DTSTART:20260102T090000Z", "STATUS:CANCELLED"}, "01-01 01-03",
		},
		{"a cancelled event", []string{"DTSTART;VALUE=DATE:20260101", "STATUS:cancelled"}, ""},
		{"an alarm has a duration of its own", []string{"DTSTART;VALUE=DATE:20260101", "BEGIN:VALARM", "DURATION:P2D", "DTSTART:20270101T000000", "END:VALARM"}, "01-01"},
		{"folded within a property, with a tab", []string{"DTSTART;VALUE=DA", "\tTE:202601", " 01"}, "01-01"},
		{"blank lines, and what is not known", []string{"", "DTSTART;VALUE=DATE:20260101", "X-A;B=\"c:d;e\",f:g", ""}, "01-01"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := icalendar.Dates(strings.NewReader(calendar(tt.lines...)), day("2026-01-01"), day("2026-12-31"), nil)
			require.NoError(t, err)
			if tt.want == "" {
				assert.Empty(t, got)
				return
			}
			assert.Equal(t, dates("2026", tt.want), got)
		})
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, file, want string
	}{
		{"an empty file", "", "no VCALENDAR"},
		{"a page of the web", "<!DOCTYPE html>\n", "line 1: \"<!DOCTYPE html>\" has no name followed by a colon"},
		{"another format", "BEGIN:VCARD\r\nEND:VCARD\r\n", "line 1: BEGIN:VCARD, expected BEGIN:VCALENDAR"},
		{"UTF-16", "\xff\xfeB\x00", "UTF-16"},
		{"Latin-1", calendar("SUMMARY:F\xfcr"), "line 4: not UTF-8"},
		{"half a file", "BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART:20260101\n", "ends within the VEVENT that began in line 2"},
		{"crossed components", "BEGIN:VCALENDAR\nBEGIN:VEVENT\nEND:VCALENDAR\n", "line 3: END:VCALENDAR, expected END:VEVENT"},
		{"too deep", "BEGIN:VCALENDAR\n" + strings.Repeat("BEGIN:X\n", 20), "line 17: more than 16 components"},
		{"a parameter without an end", calendar("DTSTART;TZID=\"a:20260101"), "line 4: DTSTART: the parameter TZID does not end"},
		{"no start", calendar("SUMMARY:a"), `event "x@y" of line 2: no DTSTART`},
		{"two starts", calendar("DTSTART:20260101", "DTSTART:20260102"), "line 5: DTSTART: there is another one in line 4"},
		{"no date", calendar("DTSTART:2026-01-01"), `event "x@y" of line 2: line 4: DTSTART: "2026-01-01" is neither a date`},
		{"no day of a month", calendar("DTSTART:20260230"), "neither a date"},
		{"before the calendar", calendar("DTSTART:00010101T000000"), `"00010101T000000" is before 1601`},
		{"end before start", calendar("DTSTART:20260102", "DTEND:20260101"), "line 5: DTEND: 20260101 is before the start"},
		{"a date and a time", calendar("DTSTART:20260102", "DTEND:20260103T000000"), "both dates or both times"},
		{"end and duration", calendar("DTSTART:20260102", "DTEND:20260103", "DURATION:P1D"), "line 6: DURATION"},
		{"a negative duration", calendar("DTSTART:20260102", "DURATION:-P1D"), "not a positive duration"},
		{"half an all-day", calendar("DTSTART:20260102", "DURATION:PT12H"), "not a number of days"},
		{"zones that cannot be compared", calendar("DTSTART;TZID=China Standard Time:20260101T000000", "DTEND:20260101T000000Z"), `time zone "China Standard Time" is unknown`},
		{"the zone of the machine", calendar("DTSTART;TZID=Local:20260101T000000", "DTEND:20260101T000000Z"), `"Local" is unknown`},
		{"exception rules", calendar("DTSTART:20260101", "EXRULE:FREQ=DAILY"), "line 5: EXRULE"},
		{"this and future", calendar("DTSTART:20260101", "RECURRENCE-ID;RANGE=THISANDFUTURE:20260101"), "RANGE is not understood"},
		{"hourly", calendar("DTSTART:20260101T000000", "RRULE:FREQ=HOURLY"), "FREQ=HOURLY; expected"},
		{"no frequency", calendar("DTSTART:20260101", "RRULE:COUNT=1"), "line 5: RRULE: RRULE property FREQ is required"},
		{"a rule for never", calendar("DTSTART:20260101", "RRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"), "line 5: RRULE: never happens"},
		{"a Monday that no month has", calendar("DTSTART:20260101", "RRULE:FREQ=MONTHLY;BYDAY=19MO"), "BYDAY=+19MO: the number may be 5 at most"},
		{"the third Monday of a day", calendar("DTSTART:20260101", "RRULE:FREQ=DAILY;BYDAY=3MO"), "BYDAY=+3MO: a number has no meaning with FREQ=DAILY"},
		{"an interval for ever", calendar("DTSTART:20260101", "RRULE:FREQ=YEARLY;INTERVAL=9223372036854775807"), "at most 10000"},
		{"a rule of seconds", calendar("DTSTART:20260101", "RRULE:FREQ=DAILY;BYSECOND=0"+strings.Repeat(",1", 100)), "101 times a day; at most 100"},
		{"an UNTIL that is none", calendar("DTSTART:20260101", "RRULE:FREQ=DAILY;UNTIL=soon"), "RRULE"},
		{"too many occurrences", calendar("DTSTART:16010101", strings.Repeat("RRULE:FREQ=DAILY\n", 13)), "more than 2000000 occurrences"},
		{"too large", strings.Repeat(" ", 16<<20+1), "more than 16777216 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := icalendar.Dates(strings.NewReader(tt.file), day("2026-01-01"), day("2026-12-31"), nil)
			require.ErrorContains(t, err, tt.want)
			assert.True(t, strings.HasPrefix(err.Error(), "icalendar: "))
			assert.Empty(t, got)
		})
	}
}

func TestLimitOfDays(t *testing.T) {
	t.Parallel()
	file := calendar("DTSTART:16010101", "DTEND:99991231")
	_, err := icalendar.Dates(strings.NewReader(file), day("0001-01-01"), day("9999-12-31"), nil)
	require.ErrorContains(t, err, "more than 100000 days; ask for fewer years")
	_, err = icalendar.Dates(strings.NewReader(file), day("2026-01-02"), day("2026-01-01"), nil)
	require.ErrorContains(t, err, "to, 2026-01-01, is before from, 2026-01-02")
}

func TestKeepSeesOccurrences(t *testing.T) {
	t.Parallel()
	file := calendar("SUMMARY:a\\, b\\nc", "CATEGORIES:d,e", "CATEGORIES:f\\,g",
		"DTSTART;TZID=Europe/Berlin:20260328T090000", "DTEND;TZID=Europe/Berlin:20260328T100000", "RRULE:FREQ=DAILY;COUNT=2")
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	var seen []icalendar.Event
	got, err := icalendar.Dates(strings.NewReader(file), day("2026-03-01"), day("2026-03-31"), func(e icalendar.Event) bool {
		seen = append(seen, e)
		return e.Start.Day() == 29
	})
	require.NoError(t, err)
	assert.Equal(t, []string{"2026-03-29"}, got)
	require.Len(t, seen, 2)
	for i, e := range seen {
		start := time.Date(2026, 3, 28+i, 9, 0, 0, 0, berlin) // 9 o'clock before and after the clock change
		assert.Equal(t, icalendar.Event{
			UID: "x@y", Summary: "a, b\nc", Categories: []string{"d", "e", "f,g"}, Start: start, End: start.Add(time.Hour),
		}, e)
	}
}

// A file with days off and make-up workdays becomes the two halves of a calendar.
func ExampleDates() {
	file, err := os.ReadFile("testdata/china.ics")
	if err != nil {
		log.Fatal(err)
	}
	from := time.Date(2026, time.September, 1, 0, 0, 0, 0, time.UTC)
	to := time.Date(2026, time.October, 31, 0, 0, 0, 0, time.UTC)
	for _, kind := range []string{"休", "班"} {
		days, err := icalendar.Dates(bytes.NewReader(file), from, to, func(e icalendar.Event) bool {
			return strings.Contains(e.Summary, kind)
		})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(kind, days)
	}
	// Output:
	// 休 [2026-09-25 2026-09-26 2026-09-27 2026-10-01 2026-10-02 2026-10-03 2026-10-04 2026-10-05 2026-10-06 2026-10-07]
	// 班 [2026-09-20 2026-10-10]
}

// Whatever the file, the days lie between from and to, ascending and each once.
func FuzzDates(f *testing.F) {
	for _, name := range []string{"us-federal.ics", "china.ics", "england.ics"} {
		data, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(calendar("DTSTART:20260101T090000Z", "DTEND;TZID=Asia/Tokyo:20260101T190000", "RRULE:FREQ=MONTHLY;BYSETPOS=-1;BYWEEKNO=53",
		"RDATE;VALUE=PERIOD:20260301T230000/PT2H", "EXDATE:20260102", and, "RECURRENCE-ID:20260101", "DTSTART:20260102", "DURATION:P1W2D")))
	from, to := day("2020-01-01"), day("2030-12-31")
	f.Fuzz(func(t *testing.T, data []byte) {
		days, err := icalendar.Dates(bytes.NewReader(data), from, to, func(e icalendar.Event) bool { return !e.End.Before(e.Start) })
		if err != nil {
			assert.Empty(t, days)
		}
		previous := ""
		for _, text := range days {
			d := day(text)
			assert.False(t, d.Before(from) || d.After(to), text)
			assert.Less(t, previous, text)
			previous = text
		}
	})
}

// Whatever the rule, the checks before the library let nothing pass that makes it panic.
func FuzzRule(f *testing.F) {
	for _, rule := range []string{
		"FREQ=YEARLY;BYMONTH=1;BYDAY=+3MO", "FREQ=MONTHLY;INTERVAL=12;BYDAY=MO;BYSETPOS=2", "FREQ=YEARLY;BYWEEKNO=-1,53;BYDAY=SU;WKST=SU",
		"FREQ=YEARLY;BYYEARDAY=-366,1;BYDAY=-53FR", "FREQ=WEEKLY;INTERVAL=2;BYDAY=TU;BYSETPOS=-366", "FREQ=DAILY;BYHOUR=9;UNTIL=20300101",
		"FREQ=MONTHLY;BYMONTHDAY=-31,29;BYDAY=-5TH;COUNT=9",
	} {
		f.Add(rule)
	}
	f.Fuzz(func(t *testing.T, rule string) {
		file := calendar("DTSTART;VALUE=DATE:20190101", "RRULE:"+rule)
		_, err := icalendar.Dates(strings.NewReader(file), day("2020-01-01"), day("2030-12-31"), nil)
		if err != nil {
			assert.NotContains(t, err.Error(), "not understood")
		}
	})
}

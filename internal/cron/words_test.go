package cron

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"
)

func TestString(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		expr string
		both bool
		want string
	}{
		{"* * * * *", false, "every minute"},
		{"*/5 * * * *", false, "every 5 minutes"},
		{"2-59/5 * * * *", false, "every 5 minutes from minute 2"},
		{"* * * * * *", false, "every second"},
		{"*/10 * * * * *", false, "every 10 seconds"},
		{"*/10 5 * * * *", false, "every 10 seconds of minute 5 of every hour"},
		{"*/10 * 9 * * *", false, "every 10 seconds of hour 9"},
		{"15 * * * * *", false, "at second 15 of every minute"},
		{"15 */5 * * * *", false, "at second 15 of every 5th minute"},
		{"15 * 9 * * *", false, "at second 15 of every minute of hour 9"},
		{"* 5 * * * *", false, "every second of minute 5 of every hour"},
		{"* 5 9 * * *", false, "every second of minute 5 of hour 9"},
		{"0 * * * *", false, "every hour"},
		{"0 */2 * * *", false, "every 2 hours"},
		{"0 1/2 * * *", false, "every 2 hours from 01:00"},
		{"30 * * * *", false, "at minute 30 of every hour"},
		{"30 */2 * * *", false, "at minute 30 of every 2nd hour"},
		{"30 1/2 * * *", false, "at minute 30 of every 2nd hour from hour 1"},
		{"0 9-17 * * *", false, "every hour from 09:00 to 17:00"},
		{"0 22-4 * * *", false, "every hour from 22:00 to 04:00"},
		{"*/5 9-17 * * MON-FRI", false, "every 5 minutes of hours 9 to 17 on Monday to Friday"},
		{"*/5 9 * * *", false, "every 5 minutes of hour 9"},
		{"*/5 */2 * * *", false, "every 5 minutes of every 2nd hour"},
		{"*/7 1 * * *", false, "at minutes 0, 7, 14, 21, 28, 35, 42, 49 and 56 of hour 1 every day"},
		{"0 3 * * *", false, "at 03:00 every day"},
		{"0 9,17 * * *", false, "at 09:00 and 17:00 every day"},
		{"0 3 * * FRIL", false, "at 03:00 on the last Friday of the month"},
		{"0 3 L * *", false, "at 03:00 on the last day of the month"},
		{"0 3 L-3 * *", false, "at 03:00 on the 3rd day before the last day of the month"},
		{"0 3 L-1 * *", false, "at 03:00 on the day before the last day of the month"},
		{"0 3 LW * *", false, "at 03:00 on the last weekday of the month"},
		{"0 3 15W * *", false, "at 03:00 on the weekday nearest to day 15 of the month"},
		{"0 3 1,15 * *", false, "at 03:00 on days 1 and 15 of the month"},
		{"0 3 13 * FRI", false, "at 03:00 on day 13 of the month or Friday"},
		{"0 3 13 * FRI", true, "at 03:00 on day 13 of the month if it is Friday"},
		{"0 3 1-7 * MON", false, "at 03:00 on days 1 to 7 of the month or Monday"},
		{"0 3 1-7 * MON", true, "at 03:00 on days 1 to 7 of the month if it is Monday"},
		{"0 22-2 * * *", false, "at 00:00, 01:00, 02:00, 22:00 and 23:00 every day"},
		{"0 0 * * FRI-MON", false, "at 00:00 on Friday to Monday"},
		{"0 0 * * SAT,SUN", false, "at 00:00 on Saturday and Sunday"},
		{"0 0 1 NOV-FEB *", false, "at 00:00 on day 1 of the month in November to February"},
		{"0 0 25 12 *", false, "at 00:00 on 25 December"},
		{"0 0 1-5 12 *", false, "at 00:00 on days 1 to 5 of the month in December"},
		{"@yearly", false, "at 00:00 on 1 January"},
		{"@hourly", false, "every hour"},
		{"@weekly", false, "at 00:00 on Sunday"},
		{"0 0 0 1 1 ? 2026-2030,2040", false, "at 00:00 on 1 January in 2026 to 2030 and 2040"},
		{"0 0 0 * * ? 2026", false, "at 00:00 every day in 2026"},
		{"TZ=Europe/Berlin 0 9 * * 1#1,3#3", false, "at 09:00 on the 1st Monday of the month or the 3rd Wednesday of the month (Europe/Berlin)"},
		{"30 30 9,17 * * *", false, "at 09:30:30 and 17:30:30 every day"},
		{"0 */7 * * *", false, "at 00:00, 07:00, 14:00 and 21:00 every day"},
		{"0 0 */2 * *", false, "at 00:00 on every 2nd day of the month from day 1"},
		{"0 0 2/3 * *", false, "at 00:00 on every 3rd day of the month from day 2"},
		{"0 0 28/2 * *", false, "at 00:00 on days 28 and 30 of the month"},
		{"1,2,3,10 * * * *", false, "at minutes 1 to 3 and 10 of every hour"},
		{"0 0 31W 2,4,5 *", false, "at 00:00 on the weekday nearest to day 31 of the month in February, April and May"},
		{"0 30 9 1-7 * MON 2026", false, "at 09:30 on days 1 to 7 of the month or Monday in 2026"},
		{"0 30 9 1-7 * MON 2026", true, "at 09:30 on days 1 to 7 of the month if it is Monday in 2026"},
		{"0,30 9-17 * * *", false, "at minutes 0 and 30 of hours 9 to 17 every day"},
		{"5 0,1 1-10,L-2 1-3 *", false, "at 00:05 and 01:05 on days 1 to 10 of the month or the 2nd day before the last day of the month in January to March"},
		{"* 2 * * *", false, "every minute of hour 2"},
		{"10 10 0,1,2,3,4,5,8 * * *", false, "at second 10 of minute 10 of hours 0 to 5 and 8 every day"},
		{"0 0 1-31 * 1", false, "at 00:00 every day"},
		{"0 0 1-31 * 1", true, "at 00:00 on Monday"},
		{"0 0 * 6-8 *", false, "at 00:00 every day in June to August"},
		{"0 0 * * MON,WED-FRI,TUE#5,MONL", false, "at 00:00 on Monday and Wednesday to Friday, the 5th Tuesday of the month or the last Monday of the month"},
		{"0-9,30 * * * * *", false, "at seconds 0 to 9 and 30 of every minute"},
		{"0 12,*/1 * * *", false, "every hour"},
		{"0 0 */2 * 1", false, "at 00:00 on every 2nd day of the month from day 1 or Monday"},
		{"0 0 */2 * 1", true, "at 00:00 on every 2nd day of the month from day 1 if it is Monday"},
		{"30 * 1-4 * *", false, "at minute 30 of every hour on days 1 to 4 of the month"},
	} {
		assert.Equal(t, c.want, parsed(t, c.expr, c.both).String(), "%s", c.expr)
	}
	assert.Equal(t, "never", Schedule{}.String())
}

// TestStringTellsApart changes one value of a field, which has to be heard.
func TestStringTellsApart(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := drawPlan(t)
		s, err := Parse(p.expr, p.both)
		if err != nil {
			return // it never fires
		}
		other := s
		which := rapid.SampledFrom([]int{second, minute, hour, month}).Draw(t, "field")
		changed := map[int]*set{second: &other.second, minute: &other.minute, hour: &other.hour, month: &other.month}[which]
		*changed ^= 1 << rapid.IntRange(fields[which].min, fields[which].max).Draw(t, "value")
		if *changed != 0 && s.String() == other.String() {
			t.Fatalf("%q without or with another %s is %q too", p.expr, fields[which].name, s)
		}
	})
}

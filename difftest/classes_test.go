package difftest

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/carillon-go/carillon/internal/zone"
)

// class is a way in which another implementation answers differently, and why we answer as we do.
type class struct {
	oracle string
	name   string // what they do, as in the document
	reason string
	has    func(d difference) bool
}

func (c class) String() string { return c.oracle + " " + c.name }

// Reasons that several classes share.
const (
	spelledOut = "It is in common use, and an expression should say what is meant; we read it."
	silently   = "An expression that fires never, or always, should be refused or do what it says; we do what it says."
	wallBug    = "No local time is selected there; a clock that is read second by second shows ours."
	onceADay   = "A job with a fixed time of the day runs once a day, whatever the clock does."
)

// classes are tried in this order: what they refuse, what they read otherwise, how far they look, and then what they make
// of clock changes.
var classes = slices.Concat(wordClasses, clockClasses)

var wordClasses = []class{
	{"cronexpr", "refuses L-n", spelledOut, refusing(beforeLast, "syntax error in day-of-month")},
	{"cronexpr", "reads a range that wraps as nothing, then panics, never returns, or fires at other times", silently, reading(func(_ int, i item) bool { return i.wraps() })},
	{
		"cronexpr", "ends a range of weekdays that ends with Sunday on Saturday", "FRI-SUN has Sunday in it, and SUN-SUN is Sunday.",
		reading(func(which int, i item) bool { return which == weekday && i.kind == between && i.b%7 == 0 }),
	},
	{
		"cronexpr", "takes */1 in a day field for a restriction, so that the other field restricts nothing",
		"*/1 is *. (*/2 does restrict, for both.)",
		reading(func(which int, i item) bool {
			return (which == monthDay || which == weekday) && i.kind == star && i.step == 1
		}),
	},
	{
		"cronexpr", "ends with the year 2099", "So do its tables; ours go to 2199 where years are named, and on where not.",
		func(d difference) bool { return d.theirs.IsZero() && d.err == nil && d.ours.Year() > 2099 },
	},

	{"gronx", "does not know L-n", spelledOut, reading(beforeLast)},
	{"gronx", "does not know LW", spelledOut, reading(func(_ int, i item) bool { return i.kind == lastWeekday })},
	{"gronx", "does not know ranges that wrap", spelledOut, reading(sundayFirst)},
	{
		"gronx", "wants both day fields to match when one begins with */n",
		"It is a quirk of Paul Vixie's cron. Here both restrict, and then a day that matches either fires; set both days to have both.",
		func(d difference) bool {
			return d.expr.twoDayFields() && (d.expr.fields[monthDay][0].kind == star || d.expr.fields[weekday][0].kind == star)
		},
	},
	{
		"gronx", "takes a list with * in a day field for a restriction", "A list with * in it restricts nothing.",
		func(d difference) bool {
			return slices.ContainsFunc([]field{d.expr.fields[monthDay], d.expr.fields[weekday]}, func(f field) bool { return len(f) > 1 && f.free() })
		},
	},
	{
		"gronx", "counts the steps of years from 0", "All fields count from their first value, 1970 for years, as in Quartz.",
		reading(func(which int, i item) bool { return which == year && i.kind == star && i.step > 1 }),
	},
	{
		"gronx", "ends year/n with that year", "As in all fields, N/S is from N to the end.",
		reading(func(which int, i item) bool { return which == year && i.kind == single && i.step > 0 }),
	},
	{
		"gronx", "gives up after 500 steps", "There is a tick, and a search by days and months finds it in microseconds.",
		func(d difference) bool { return d.refused("tried so hard") },
	},

	{
		"go-quartz", "refuses to have both day fields", "Unix crontabs have both, in force since 1979; one of them is not enough to say every Friday and the first.",
		func(d difference) bool { return d.refused("day field set twice") },
	},
	{"go-quartz", "refuses ranges that wrap", spelledOut, refusing(sundayFirst, "fill step values", "fill range values")},
	{"go-quartz", "refuses * within a list", spelledOut, refusing(func(_ int, i item) bool { return i.kind == star }, "unknown literal *", "unknown literal ?")},
	{
		"go-quartz", "refuses L, W and # within a list", spelledOut,
		refusing(func(_ int, i item) bool { return i.kind >= last }, "unknown literal", "invalid", "fill range values"),
	},
	{
		"go-quartz", "has 1 to 7 for Sunday to Saturday", "Unix has 0 to 6, and 7 for Sunday too. The comparison adds one, which does not do for a range to 7.",
		reading(func(which int, i item) bool {
			return which == weekday && !i.named && i.kind == between && (i.a == 7 || i.b == 7)
		}),
	},
	{
		"go-quartz", "fires once on a day of nW or LW, and gives a month without day n its last workday",
		"The day has all times that the expression selects, and a month that has no 31st has no workday nearest to it.",
		reading(func(_ int, i item) bool { return i.kind == nearest || i.kind == lastWeekday }),
	},
	{
		"go-quartz", "leaves out months that have a fifth such weekday", "They have one.",
		func(d difference) bool {
			return d.expr.has(func(_ int, i item) bool { return i.kind == nth && i.b == 5 }) && (d.theirs.IsZero() || d.theirs.After(d.ours))
		},
	},
	{
		"go-quartz", "takes L-n for a day of another month when the month is too short", "A month of 30 days has no 30th day before its last.",
		reading(func(_ int, i item) bool { return i.kind == last && i.a >= 28 }),
	},
	{
		"go-quartz", "leaves out selected days at the beginning of a month", "They are selected.",
		func(d difference) bool {
			return d.later() && !d.near() && d.ours.Day() <= 7 && d.ours.Sub(d.after) >= time.Hour
		},
	},
	{
		"go-quartz", "goes on after the last selected day", "The day after is not selected.",
		func(d difference) bool {
			y, m, day := d.theirs.Date()
			return d.err == nil && !d.theirs.IsZero() && !d.expr.selects(time.Date(y, m, day, 0, 0, 0, 0, time.UTC))
		},
	},

	{
		"go-cron", "refuses Thursday by name", "The H is not a hash here.",
		refusing(func(which int, i item) bool { return which == weekday && i.named }, "h expressions require hash option"),
	},
	{
		"go-cron", "refuses steps that select the first value only", "5-8/6 says what it selects. Steps above the size of a field are refused here too.",
		func(d difference) bool { return d.refused("must be less than range size") },
	},
	{
		"go-cron", "refuses * in lists and steps of years", spelledOut,
		refusing(func(which int, i item) bool { return which == year && i.kind == star }, "failed to parse int", "does not appear to be a year"),
	},
	{
		"go-cron", "has an eighth day of the week, so that 4/3 has Sunday in it", "Seven days after Sunday it is Sunday; steps end with Saturday, or go on over the end of a range that wraps.",
		reading(func(which int, i item) bool { return which == weekday && i.step > 0 && (i.kind == single || i.a > i.b) }),
	},
	{
		"go-cron", "takes year/n for that year alone", "As in all fields, N/S is from N to the end.",
		reading(func(which int, i item) bool { return which == year && i.kind == single && i.step > 0 }),
	},
}

var clockClasses = []class{
	{
		"cronexpr", "never returns when a month begins in a gap, a day is skipped, or more than the hour after midnight is repeated", "There is a tick.",
		func(d difference) bool { return errors.Is(d.err, errHangs) },
	},
	{
		"cronexpr", "fires at times that are not selected where the clock skips or repeats midnight", wallBug,
		func(d difference) bool { return d.near() && d.err == nil && d.shape(d.theirs) >= gapEnd },
	},
	{
		"cronexpr", "answers an instant before the one it was asked after", "The next tick is a later one.",
		func(d difference) bool {
			return d.near() && d.err == nil && !d.theirs.IsZero() && !d.theirs.After(d.after)
		},
	},
	{
		"cronexpr", "leaves out selected times next to a change of less than an hour, or at midnight",
		"The clock shows them.", func(d difference) bool { return d.near() && d.later() },
	},

	{
		"gronx", "fires in one of the two passes of a repeated hour", "Asked for all times that the clock shows, ours gives both passes; by default, the first.",
		func(d difference) bool {
			return d.near() && d.err == nil && (d.shape(d.ours) == firstPass || d.shape(d.ours) == secondPass)
		},
	},
	{
		"gronx", "answers the very instant it was asked after, or an earlier one", "The next tick is a later one.",
		func(d difference) bool { return d.err == nil && !d.theirs.After(d.after) && !d.theirs.IsZero() },
	},
	{
		"gronx", "miscounts the days of a month in which the clock skips midnight", "It has as many days as others, so L, nW and nL are where they always are.",
		func(d difference) bool { return d.specialDays() && d.monthSkipsMidnight() },
	},
	{
		"gronx", "goes astray where the clock skips midnight", wallBug,
		func(d difference) bool { return d.near() || d.midnight() },
	},

	{
		"go-quartz", "shifts a skipped time by the length of the gap, or before it",
		"It is shifted to the first instant after the gap, as ISC cron does, so that the job is as little late as possible. By what Go's time.Date returns, it would be early in some zones.",
		func(d difference) bool {
			return d.near() && d.err == nil && d.shape(d.ours) == gapEnd && !d.theirs.IsZero()
		},
	},
	{
		"go-quartz", "shifts times out of a gap when minutes or hours are *", "Such expressions follow elapsed time: no time is lost that would have to be made up for.",
		func(d difference) bool {
			return d.near() && d.err == nil && d.expr.elapsed() && d.shape(d.theirs) >= gapEnd
		},
	},
	{
		"go-quartz", "gives up in a repeated hour", "There is a tick.",
		func(d difference) bool { return d.near() && d.err == nil && d.theirs.IsZero() },
	},
	{
		"go-quartz", "leaves out the second pass of a repeated hour when minutes or hours are *", "Such expressions follow elapsed time: an hour without ticks would be a gap.",
		func(d difference) bool { return d.near() && d.later() && d.shape(d.ours) == secondPass },
	},
	{
		"go-quartz", "takes the second pass of a repeated hour in some zones", "It is the first for all zones, and can be set.",
		func(d difference) bool { return d.near() && d.later() && d.shape(d.ours) == firstPass },
	},
	{
		"go-quartz", "fires in the second pass of a repeated hour, too", onceADay,
		func(d difference) bool { return d.near() && d.err == nil && d.shape(d.theirs) == secondPass },
	},
	{
		"go-quartz", "goes astray around clock changes", wallBug,
		func(d difference) bool { return d.near() || d.midnight() },
	},

	{
		"go-cron", "never returns when a day is skipped", "There is a tick.",
		func(d difference) bool { return errors.Is(d.err, errHangs) },
	},
	{
		"go-cron", "keeps the minute of a skipped time", "The first instant after the gap is when the time would have been; a job that is due at 02:30 has been due for half an hour at 03:30.",
		func(d difference) bool { return d.near() && d.shape(d.ours) == gapEnd && d.shape(d.theirs) >= gapEnd },
	},
	{
		"go-cron", "loses skipped times, unless the gap is an hour and does not begin at midnight", onceADay,
		func(d difference) bool { return d.near() && d.shape(d.ours) == gapEnd },
	},
	{
		"go-cron", "makes up for skipped times when minutes or hours are *", "Such expressions follow elapsed time: no time is lost that would have to be made up for.",
		func(d difference) bool { return d.near() && d.expr.elapsed() && d.shape(d.theirs) >= gapEnd },
	},
	{
		"go-cron", "fires in both passes of a repeated hour", onceADay,
		func(d difference) bool { return d.near() && d.shape(d.theirs) == secondPass },
	},
	{
		"go-cron", "leaves out times where the clock differs from UTC by a part of a minute", "The clock shows them.",
		func(d difference) bool { return zone.Offset(d.after)%60 != 0 },
	},
	{
		"go-cron", "miscounts the days of a month in which the clock skips midnight", "It has as many days as others, so L and L-n are where they always are.",
		func(d difference) bool { return d.specialDays() && d.monthSkipsMidnight() },
	},
	{
		"go-cron", "goes astray where the clock skips midnight", wallBug,
		func(d difference) bool { return d.near() || d.midnight() },
	},
}

func beforeLast(_ int, i item) bool { return i.kind == last && i.a > 0 }

// sundayFirst is about ranges that wrap for those to whom Sunday comes before Monday only.
func sundayFirst(which int, i item) bool {
	if which == weekday && i.kind == between {
		return i.a%7 > i.b%7 || i.a == 7
	}
	return i.wraps()
}

// refused tells whether they gave an error with one of the texts.
func (d difference) refused(texts ...string) bool {
	return d.err != nil && slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(d.err.Error(), text) })
}

// refusing is about expressions with such an item that they refuse.
func refusing(has func(which int, i item) bool, texts ...string) func(d difference) bool {
	return func(d difference) bool { return d.expr.has(has) && d.refused(texts...) }
}

// reading is about expressions with such an item, whatever comes of it.
func reading(has func(which int, i item) bool) func(d difference) bool {
	return func(d difference) bool { return d.expr.has(has) }
}

// classify returns the class of a difference, nil when there is none, and whether it is of the words of the expression
// rather than of the clock.
func classify(d difference) (c *class, ofWords bool) {
	for i := range classes {
		if c := &classes[i]; c.oracle == d.oracle.name && c.has(d) {
			return c, i < len(wordClasses)
		}
	}
	return nil, false
}

// near tells whether the clock is changed within a day or so of the instant asked for or of one of the answers.
func (d difference) near() bool {
	return changesNear(d.after) || !d.ours.IsZero() && changesNear(d.ours) || !d.theirs.IsZero() && changesNear(d.theirs)
}

// later tells whether they find a selected time, later than ours.
func (d difference) later() bool {
	return d.err == nil && (d.theirs.IsZero() || d.theirs.After(d.ours) && d.shape(d.theirs) < gapEnd)
}

// midnight tells whether the clock skips midnight on the way, on which some set out from the beginning of the year.
func (d difference) midnight() bool {
	return d.onTheWay(time.Date(d.after.Year(), 1, 1, 0, 0, 0, 0, d.after.Location()).AddDate(0, 0, -1), func(at time.Time, forward int64) bool {
		into := int64(at.Hour()*3600 + at.Minute()*60 + at.Second())
		return forward > 0 && into <= forward
	})
}

// specialDays tells whether the expression has L, W or #.
func (d difference) specialDays() bool {
	return d.expr.has(func(_ int, i item) bool { return i.kind >= last })
}

// monthSkipsMidnight tells whether midnight is skipped on a day of the month of one of the answers.
func (d difference) monthSkipsMidnight() bool {
	return slices.ContainsFunc([]time.Time{d.ours, d.theirs}, func(t time.Time) bool {
		date := time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
		for ; !t.IsZero() && date.Month() == t.Month(); date = date.AddDate(0, 0, 1) {
			if len(look(date, t.Location()).instants(date, wallClock)) == 0 {
				return true
			}
		}
		return false
	})
}

// shape is what an answer is by the clock.
type shape int

const (
	plain shape = iota
	firstPass
	secondPass
	gapEnd // not selected, as all that follow: the first instant after a gap
	astray
)

func (d difference) shape(t time.Time) shape {
	if t.IsZero() {
		return plain
	}
	y, m, day := t.Date()
	z := look(time.Date(y, m, day, 0, 0, 0, 0, time.UTC), t.Location())
	if !d.expr.shows(t) {
		for _, c := range z.changes {
			if c.at.Equal(t) && c.to > c.from {
				return gapEnd
			}
		}
		return astray
	}
	all := z.instants(time.Unix(t.Unix()+zone.Offset(t), 0).UTC(), wallClock)
	switch {
	case len(all) < 2:
		return plain
	case all[0].Equal(t):
		return firstPass
	}
	return secondPass
}

package difftest

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/adhocore/gronx"
	"github.com/hashicorp/cronexpr"
	netresearch "github.com/netresearch/go-cron"
	"github.com/reugn/go-quartz/quartz"

	"github.com/carillon-go/carillon/internal/zone"
)

// nextFunc returns the first instant after one, zero if there is none, and why it does not know.
type nextFunc func(after time.Time) (time.Time, error)

// sure makes a nextFunc of a search that always ends.
func sure(next func(time.Time) time.Time) nextFunc {
	return func(after time.Time) (time.Time, error) { return next(after), nil }
}

// oracle is another implementation.
type oracle struct {
	name    string
	rules   zone.Rules // which of our readings of local times it has
	kin     bool       // descends from robfig/cron, which parses the plain part of our expressions
	slow    bool       // asked less often; has to come last
	both    bool       // can be told that a day has to match both day fields
	dialect dialect
	hangs   func(d difference) bool // must not be asked
	compile func(text string, both bool, loc *time.Location) (nextFunc, error)
}

// oracles: cronexpr, gronx and go-quartz were written independently of each other and of robfig/cron; go-cron
// descends from it but has ISC cron's rules for clock changes.
var oracles = []oracle{
	{
		name: "cronexpr", rules: wallClock, hangs: func(d difference) bool {
			return losesMidnight(d) || d.expr.has(func(_ int, i item) bool { return i.wraps() })
		},
		dialect: dialect{both: true, lastOf: "%sL"}, // with 6 fields, it takes years for the sixth
		compile: func(text string, _ bool, _ *time.Location) (nextFunc, error) {
			e, err := cronexpr.Parse(text)
			if err != nil {
				return nil, err
			}
			return sure(e.Next), nil
		},
	},
	{
		name: "go-quartz", rules: once,
		dialect: dialect{seconds: true, firstDay: 1, lastOf: "%sL"},
		compile: func(text string, _ bool, loc *time.Location) (nextFunc, error) {
			trigger, err := quartz.NewCronTriggerWithLoc(text, loc)
			if err != nil {
				return nil, err
			}
			return func(after time.Time) (time.Time, error) {
				next, err := trigger.NextFireTime(after.UnixNano())
				if errors.Is(err, quartz.ErrTriggerExpired) {
					return time.Time{}, nil
				}
				return time.Unix(0, next).In(loc), err
			}, nil
		},
	},
	{
		name: "go-cron", rules: once, kin: true, both: true, hangs: skipsDay,
		dialect: dialect{seconds: true, lastOf: "%s#L"},
		compile: func(text string, both bool, loc *time.Location) (nextFunc, error) {
			parser := netresearchEither
			if both {
				parser = netresearchBoth
			}
			s, err := parser.Parse(text)
			if err != nil {
				return nil, err
			}
			spec, ok := s.(*netresearch.SpecSchedule)
			if !ok {
				return nil, fmt.Errorf("unexpected %T", s)
			}
			spec.Location = loc
			return sure(spec.Next), nil
		},
	},
	{
		name: "gronx", rules: wallClock, slow: true,
		dialect: dialect{seconds: true, lastOf: "%sL"},
		compile: func(text string, _ bool, _ *time.Location) (nextFunc, error) {
			if _, err := gronx.New().IsDue(text, time.Unix(0, 0)); err != nil {
				return nil, err
			}
			return func(after time.Time) (time.Time, error) {
				next, err := gronx.NextTickAfter(text, after, false)
				if err != nil && strings.HasPrefix(err.Error(), "unreachable year") {
					return time.Time{}, nil
				}
				return next, err
			}, nil
		},
	},
}

const netresearchFields = netresearch.Second | netresearch.Minute | netresearch.Hour | netresearch.Dom |
	netresearch.Month | netresearch.Dow | netresearch.YearOptional | netresearch.Extended

var (
	netresearchBoth   = netresearch.MustNewParser(netresearchFields).WithMaxSearchYears(300)
	netresearchEither = netresearch.MustNewParser(netresearchFields | netresearch.DowOrDom).WithMaxSearchYears(300)
)

// skipsDay tells whether the zone skips a whole day on the way to our answer, as those that moved over the date line have.
func skipsDay(d difference) bool {
	return d.onTheWay(d.after, func(_ time.Time, gap int64) bool { return gap > 12*3600 })
}

// losesMidnight tells whether the zone skips the midnight with which a month begins, or a whole day, or repeats a midnight
// with more than the hour after it, from two days before to our answer.
func losesMidnight(d difference) bool {
	return d.onTheWay(d.after.Add(-48*time.Hour), func(at time.Time, forward int64) bool {
		const hour, day = 3600, 24 * 3600
		into := int64(at.Hour()*hour + at.Minute()*60 + at.Second())
		return at.Day() == 1 && 0 < into && into <= forward || forward > day/2 ||
			into-forward > day || into == 0 && forward < -hour
	})
}

// onTheWay tells whether there is such a clock change, by its instant and how far it is set forward, between an instant and
// two days after the answers.
func (d difference) onTheWay(from time.Time, is func(at time.Time, forward int64) bool) bool {
	end := d.ours
	if end.IsZero() || d.theirs.After(end) {
		end = d.theirs
	}
	if end.IsZero() {
		end = latest
	}
	for at := from; ; {
		change := zone.Change(at)
		if change.IsZero() || change.After(end.Add(48*time.Hour)) {
			return false
		}
		if is(change, zone.Offset(change)-zone.Offset(at)) {
			return true
		}
		at = change
	}
}

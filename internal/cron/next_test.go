package cron

import (
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/zone"
	"github.com/carillon-go/carillon/internal/zonetest"
)

var (
	skip = zone.Rules{Gap: zone.GapSkip}
	last = zone.Rules{Repeat: zone.RepeatLast}
	both = zone.Rules{Repeat: zone.RepeatBoth}
)

func TestNextAtClockChanges(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		zone, day, expr string
		rules           zone.Rules
		want            []string // the ticks of this local day
	}{
		// Half past two does not exist, or twice.
		{"America/New_York", "2024-03-10", "30 2 * * *", zone.Rules{}, []string{"03:00:00 EDT"}},
		{"America/New_York", "2024-03-10", "30 2 * * *", skip, nil},
		{"America/New_York", "2024-11-03", "30 1 * * *", zone.Rules{}, []string{"01:30:00 EDT"}},
		{"America/New_York", "2024-11-03", "30 1 * * *", last, []string{"01:30:00 EST"}},
		{"America/New_York", "2024-11-03", "30 1 * * *", both, []string{"01:30:00 EDT", "01:30:00 EST"}},
		{"America/New_York", "2024-11-03", "0,30 1 * * *", both, []string{"01:00:00 EDT", "01:30:00 EDT", "01:00:00 EST", "01:30:00 EST"}},

		// Several times of a gap are one tick, and one with what is planned for its end.
		{"America/New_York", "2024-03-10", "0,15,30 2,3 * * *", zone.Rules{}, []string{"03:00:00 EDT", "03:15:00 EDT", "03:30:00 EDT"}},
		{"America/New_York", "2024-03-10", "0,15,30 2,3 * * *", skip, []string{"03:00:00 EDT", "03:15:00 EDT", "03:30:00 EDT"}},
		{"America/New_York", "2024-03-10", "10,20 1-2 * * *", zone.Rules{}, []string{"01:10:00 EST", "01:20:00 EST", "03:00:00 EDT"}},

		// Elapsed time: every rule is the same.
		{"America/New_York", "2024-03-10", "30 * * 3 SUN#2", last, []string{
			"00:30:00 EST", "01:30:00 EST", "03:30:00 EDT", "04:30:00 EDT", "05:30:00 EDT", "06:30:00 EDT", "07:30:00 EDT", "08:30:00 EDT",
			"09:30:00 EDT", "10:30:00 EDT", "11:30:00 EDT", "12:30:00 EDT", "13:30:00 EDT", "14:30:00 EDT", "15:30:00 EDT", "16:30:00 EDT",
			"17:30:00 EDT", "18:30:00 EDT", "19:30:00 EDT", "20:30:00 EDT", "21:30:00 EDT", "22:30:00 EDT", "23:30:00 EDT",
		}},
		{"America/New_York", "2024-03-10", "*/30 2 * * *", zone.Rules{}, nil},
		{"America/New_York", "2024-11-03", "*/30 1 * * *", zone.Rules{}, []string{"01:00:00 EDT", "01:30:00 EDT", "01:00:00 EST", "01:30:00 EST"}},
		{"America/New_York", "2024-11-03", "0-59/30 1 * * *", zone.Rules{}, []string{"01:00:00 EDT", "01:30:00 EDT"}},
		{"America/New_York", "2024-11-03", "0 */23 * * *", last, []string{"00:00:00 EDT", "23:00:00 EST"}},

		// Midnight is skipped, or comes twice.
		{"America/Sao_Paulo", "2018-11-04", "@daily", zone.Rules{}, []string{"01:00:00 -02"}},
		{"America/Sao_Paulo", "2018-11-04", "@daily", skip, nil},
		{"America/Sao_Paulo", "2018-02-17", "30 23 * * *", both, []string{"23:30:00 -02", "23:30:00 -03"}},
		{"America/St_Johns", "2010-11-06", "30 23 * * *", last, []string{"23:30:00 NST"}},
		{"America/St_Johns", "2010-11-07", "0 0 * * *", zone.Rules{}, []string{"00:00:00 NDT"}},
		{"America/St_Johns", "2010-11-07", "0 0 * * *", last, []string{"00:00:00 NST"}},

		// Half an hour, two hours, and the 30 December that Samoa never had.
		{"Australia/Lord_Howe", "2025-10-05", "15 2 * * *", zone.Rules{}, []string{"02:30:00 +11"}},
		{"Australia/Lord_Howe", "2025-04-06", "29,30 1 * * *", last, []string{"01:29:00 +11", "01:30:00 +1030"}},
		{"Antarctica/Troll", "2025-03-30", "0 1,2 * * *", zone.Rules{}, []string{"03:00:00 +02"}},
		{"Pacific/Apia", "2011-12-31", "0 9 30 * *", zone.Rules{}, []string{"00:00:00 +14"}},
		{"Pacific/Apia", "2011-12-31", "0 9 30,31 * *", skip, []string{"09:00:00 +14"}},

		// Beyond the table of changes, with 31 December of a leap year.
		{"America/New_York", "2048-03-08", "30 2 * * *", zone.Rules{}, []string{"03:00:00 EDT"}},
		{"America/New_York", "2040-12-31", "30 2,23 * * *", zone.Rules{}, []string{"02:30:00 EST", "23:30:00 EST"}},
	} {
		loc := zonetest.Load(t, c.zone)
		noon, err := time.ParseInLocation("2006-01-02 15", c.day+" 12", loc) // there may be no midnight
		require.NoError(t, err)
		s := parsed(t, c.expr, false)
		var got []string
		for at := noon.Add(-24 * time.Hour); ; {
			if at = s.Next(at, loc, c.rules); at.After(noon.Add(24 * time.Hour)) {
				break
			}
			if at.Format(time.DateOnly) == c.day {
				got = append(got, at.Format("15:04:05 MST"))
			}
		}
		assert.Equal(t, c.want, got, "%s %s %s %v", c.zone, c.day, c.expr, c.rules)
	}
}

func TestNextEdges(t *testing.T) {
	t.Parallel()
	s := parsed(t, "* * * * * *", false)
	now := time.Now()
	assert.Equal(t, now.Truncate(time.Second).Add(time.Second).UTC(), s.Next(now, nil, zone.Rules{}), "nil is UTC, no monotonic reading")
	at := time.Date(2024, 5, 1, 0, 0, 0, 1, time.UTC)
	assert.Equal(t, at.Add(1e9-1), s.Next(at, time.UTC, zone.Rules{}), "up to the next second")
	assert.Equal(t, at.Add(-1), s.Next(at.Add(-2), time.UTC, zone.Rules{}), "strictly after")
	assert.Equal(t, at.Add(1e9-1), s.Next(at.Add(-1), time.UTC, zone.Rules{}), "strictly after")

	// An offset with seconds, where truncating to minutes would go wrong.
	lmt := time.FixedZone("LMT", 1172)
	assert.Equal(t, "03:07:00 LMT", parsed(t, "7 3 * * *", false).Next(at, lmt, zone.Rules{}).Format("15:04:05 MST"))

	assert.Zero(t, Schedule{}.Next(at, time.UTC, zone.Rules{}))
	berlin := zonetest.Load(t, "Europe/Berlin")
	leap := parsed(t, "0 0 29 2 *", false)
	assert.Equal(t, "2104-02-29 00:00:00 +0100 CET", leap.Next(time.Date(2096, 3, 1, 0, 0, 0, 0, time.UTC), berlin, zone.Rules{}).String())
	for _, after := range []time.Time{
		time.Date(0, 6, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(math.MaxInt64, 0), time.Unix(math.MinInt64, 0),
		time.Unix(1<<62, 0), time.Unix(-1<<62, 0),
	} {
		assert.Zero(t, s.Next(after, time.UTC, zone.Rules{}), "%v", after)
		assert.Zero(t, s.Next(after, berlin, zone.Rules{}), "%v", after)
	}
	assert.Equal(t, time.Time{}.Add(time.Second), s.Next(time.Time{}, time.UTC, zone.Rules{}), "the zero time is an instant like any other")
	assert.Equal(t, 2199, parsed(t, "0 0 0 1 1 * 2199", false).Next(time.Time{}, berlin, zone.Rules{}).Year())

	// A time that is skipped every year.
	newYork := zonetest.Load(t, "America/New_York")
	gap := parsed(t, "30 2 * 3 SUN#2", false)
	assert.Equal(t, "2024-03-10 03:00:00 -0400 EDT", gap.Next(time.Date(2023, 5, 1, 0, 0, 0, 0, time.UTC), newYork, zone.Rules{}).String())
	assert.Zero(t, gap.Next(time.Date(2023, 5, 1, 0, 0, 0, 0, time.UTC), newYork, skip))

	// The last tick there is may be in a repeated hour that has begun already.
	once := parsed(t, "0 30 1 3 11 * 2024", false)
	half := time.Date(2024, 11, 3, 1, 45, 0, 0, newYork)
	assert.Equal(t, "2024-11-03 01:30:00 -0500 EST", once.Next(half, newYork, last).String())
	assert.Zero(t, once.Next(half, newYork, zone.Rules{}))
}

func TestNextConcurrently(t *testing.T) {
	t.Parallel()
	s := parsed(t, "0 9 * * 1", false)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for at := time.Unix(0, 0); at.Year() < 1972; {
				next := s.Next(at, time.UTC, zone.Rules{})
				if !assert.True(t, next.After(at)) {
					return
				}
				at = next
			}
		})
	}
	wg.Wait()
}

func BenchmarkNext(b *testing.B) {
	loc := zonetest.Load(b, "America/New_York")
	after := time.Date(2036, 6, 1, 12, 0, 0, 0, loc)
	for _, expr := range []string{"*/5 * * * *", "30 2 * * *", "0 9 * * 1", "@yearly", "0 0 29 2 *", "0 0 29 2 1#5", "0 0 L-3,15W * FRI#5", "0 0 0 1 1 * 2199"} {
		s := parsed(b, expr, false)
		b.Run(expr, func(b *testing.B) {
			for b.Loop() {
				s.Next(after, loc, zone.Rules{})
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	for _, expr := range []string{"*/5 9-17 * * MON-FRI", "0 0 30 2 *"} {
		b.Run(expr, func(b *testing.B) {
			for b.Loop() {
				_, _ = Parse(expr, false)
			}
		})
	}
}

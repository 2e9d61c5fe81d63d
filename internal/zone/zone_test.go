package zone

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/carillon-go/carillon/internal/zonetest"
)

// resolve takes a local time as text and gives the instants as RFC 3339.
func resolve(t *testing.T, r Rules, zone, local string) []string {
	t.Helper()
	at, err := time.Parse(time.DateTime, local)
	require.NoError(t, err)
	out := []string{}
	for _, t := range r.Resolve(at.Year(), at.Month(), at.Day(), at.Hour()*3600+at.Minute()*60+at.Second(), zonetest.Load(t, zone)) {
		out = append(out, t.Format(time.RFC3339))
	}
	return out
}

func TestResolveGaps(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ zone, local, shifted string }{
		{"America/New_York", "2024-03-10 02:00:00", "2024-03-10T03:00:00-04:00"},
		{"America/New_York", "2024-03-10 02:59:59", "2024-03-10T03:00:00-04:00"},
		{"Australia/Lord_Howe", "2025-10-05 02:15:00", "2025-10-05T02:30:00+11:00"}, // half an hour
		{"Antarctica/Troll", "2025-03-30 01:30:00", "2025-03-30T03:00:00+02:00"},    // two hours
		{"Pacific/Apia", "2011-12-30 00:00:00", "2011-12-31T00:00:00+14:00"},        // a day
		{"Pacific/Apia", "2011-12-30 23:59:59", "2011-12-31T00:00:00+14:00"},
		{"Pacific/Kwajalein", "1993-08-21 12:00:00", "1993-08-22T00:00:00+12:00"},
		{"America/Sao_Paulo", "2018-11-04 00:30:00", "2018-11-04T01:00:00-02:00"}, // midnight
		{"Africa/Cairo", "2024-04-26 00:00:00", "2024-04-26T01:00:00+03:00"},
		{"Asia/Beirut", "2024-03-31 00:59:59", "2024-03-31T01:00:00+03:00"},
		{"Europe/Amsterdam", "1937-07-01 00:00:10", "1937-07-01T00:00:28+01:20"}, // 28 seconds
		{"America/New_York", "2048-03-08 02:30:00", "2048-03-08T03:00:00-04:00"}, // past the table
	} {
		name := c.zone + " " + c.local
		assert.Equal(t, []string{c.shifted}, resolve(t, Rules{}, c.zone, c.local), name)
		assert.Equal(t, []string{c.shifted}, resolve(t, Rules{Repeat: RepeatBoth}, c.zone, c.local), name)
		assert.Empty(t, resolve(t, Rules{Gap: GapSkip}, c.zone, c.local), name)
	}
}

func TestResolveRepeats(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ zone, local, first, last string }{
		{"America/New_York", "2024-11-03 01:00:00", "2024-11-03T01:00:00-04:00", "2024-11-03T01:00:00-05:00"},
		{"America/New_York", "2024-11-03 01:59:59", "2024-11-03T01:59:59-04:00", "2024-11-03T01:59:59-05:00"},
		{"Australia/Lord_Howe", "2025-04-06 01:45:00", "2025-04-06T01:45:00+11:00", "2025-04-06T01:45:00+10:30"},
		{"America/Sao_Paulo", "2018-02-17 23:30:00", "2018-02-17T23:30:00-02:00", "2018-02-17T23:30:00-03:00"},
		{"Africa/Cairo", "2024-10-31 23:00:00", "2024-10-31T23:00:00+03:00", "2024-10-31T23:00:00+02:00"},
		{"America/St_Johns", "2010-11-07 00:00:30", "2010-11-07T00:00:30-02:30", "2010-11-07T00:00:30-03:30"}, // over midnight
		{"Pacific/Kwajalein", "1969-09-30 12:00:00", "1969-09-30T12:00:00+11:00", "1969-09-30T12:00:00-12:00"},
		{"America/New_York", "2048-11-01 01:30:00", "2048-11-01T01:30:00-04:00", "2048-11-01T01:30:00-05:00"},
	} {
		name := c.zone + " " + c.local
		assert.Equal(t, []string{c.first}, resolve(t, Rules{}, c.zone, c.local), name)
		assert.Equal(t, []string{c.last}, resolve(t, Rules{Gap: GapSkip, Repeat: RepeatLast}, c.zone, c.local), name)
		assert.Equal(t, []string{c.first, c.last}, resolve(t, Rules{Repeat: RepeatBoth}, c.zone, c.local), name)
	}
}

func TestResolvePlain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ zone, local, want string }{
		{"UTC", "2024-02-29 23:59:59", "2024-02-29T23:59:59Z"},
		{"America/New_York", "2024-03-10 01:59:59", "2024-03-10T01:59:59-05:00"},
		{"America/New_York", "2024-03-10 03:00:00", "2024-03-10T03:00:00-04:00"},
		{"America/New_York", "2024-11-03 02:00:00", "2024-11-03T02:00:00-05:00"},
		{"America/New_York", "2040-12-31 12:00:00", "2040-12-31T12:00:00-05:00"}, // ZoneBounds is wrong here
		{"Australia/Sydney", "2048-12-31 23:00:00", "2048-12-31T23:00:00+11:00"},
		{"Pacific/Apia", "2011-12-31 00:00:00", "2011-12-31T00:00:00+14:00"},
	} {
		for _, r := range []Rules{{}, {GapSkip, RepeatLast}, {GapSkip, RepeatBoth}} {
			assert.Equal(t, []string{c.want}, resolve(t, r, c.zone, c.local), "%s %s", c.zone, c.local)
		}
	}
	assert.Equal(t, []time.Time{time.Unix(86399, 0).UTC()}, Rules{}.Resolve(1970, 1, 1, 86399, nil), "nil is UTC")
	far := time.FixedZone("far", 100*3600)
	assert.Equal(t, []time.Time{time.Date(2024, 1, 1, 0, 0, 7, 0, far)}, Rules{}.Resolve(2024, 1, 1, 7, far))
}

// shows reads the clock of t as if it were in UTC.
func shows(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, time.UTC)
}

// oracle finds what Resolve must, by reading clocks only: it tries every offset
// that is seen around the time, and looks for the step over it when none fits.
func oracle(local time.Time, loc *time.Location) (instants []time.Time, gap time.Time) {
	seen := map[int64]bool{}
	const step = 20 * time.Minute
	from, to := local.Add(-72*time.Hour), local.Add(72*time.Hour)
	for at := from; at.Before(to); at = at.Add(step) {
		seen[shows(at.In(loc)).Unix()-at.Unix()] = true
	}
	for offset := range seen {
		if t := local.Add(-time.Duration(offset) * time.Second).In(loc); shows(t).Equal(local) {
			instants = append(instants, t)
		}
	}
	if len(instants) == 2 && instants[1].Before(instants[0]) {
		instants[0], instants[1] = instants[1], instants[0]
	}
	if len(instants) > 0 {
		return instants, gap
	}
	for at := from; at.Before(to); at = at.Add(step) {
		if shows(at.In(loc)).Before(local) && shows(at.Add(step).In(loc)).After(local) {
			for !shows(at.In(loc)).After(local) {
				at = at.Add(time.Second)
			}
			return nil, at.In(loc)
		}
	}
	return nil, gap
}

// TestResolveEveryZone compares the edges of the clock changes of every zone
// with the oracle, a few changes of each zone a run.
func TestResolveEveryZone(t *testing.T) {
	t.Parallel()
	names := zonetest.Names(t)
	check := func(t rapid.TB, local time.Time, loc *time.Location) {
		resolve := func(r Rules) []time.Time {
			return r.Resolve(local.Year(), local.Month(), local.Day(), int(local.Sub(local.Truncate(24*time.Hour)).Seconds()), loc)
		}
		instants, gap := oracle(local, loc)
		for _, both := range []Rules{{GapShift, RepeatBoth}, {GapSkip, RepeatBoth}} {
			want := instants
			if len(instants) == 0 && both.Gap == GapShift {
				want = []time.Time{gap}
			}
			if got := resolve(both); !assert.ObjectsAreEqual(want, got) && len(want)+len(got) > 0 {
				t.Fatalf("%v in %v: want %v, got %v", local, loc, want, got)
			}
		}
		if len(instants) > 0 {
			if got := resolve(Rules{}); len(got) != 1 || !got[0].Equal(instants[0]) {
				t.Fatalf("first of %v in %v: %v", local, loc, got)
			}
			if got := resolve(Rules{Repeat: RepeatLast}); len(got) != 1 || !got[0].Equal(instants[len(instants)-1]) {
				t.Fatalf("last of %v in %v: %v", local, loc, got)
			}
		}
	}
	changes := 0
	rapid.Check(t, func(t *rapid.T) {
		for range 5 {
			loc, err := time.LoadLocation(rapid.SampledFrom(names).Draw(t, "zone"))
			if err != nil {
				t.Fatal(err)
			}
			year := rapid.IntRange(1840, 2100).Draw(t, "year")
			at := time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC).In(loc)
			end := Change(at)
			if end.IsZero() {
				continue
			}
			changes++
			before, after := shows(end.Add(-time.Second)).Add(time.Second), shows(end)
			inside := time.Duration(rapid.Int64Range(-100000, 100000).Draw(t, "seconds")) * time.Second
			for _, local := range []time.Time{
				before.Add(-time.Second), before, before.Add(time.Second), after.Add(-time.Second), after, after.Add(time.Second),
				before.Add(after.Sub(before) / 2).Truncate(time.Second), before.Add(inside),
			} {
				check(t, local, loc)
			}
		}
	})
	assert.Positive(t, changes)
}

// TestChange compares with clocks read every hour.
func TestChange(t *testing.T) {
	t.Parallel()
	names := zonetest.Names(t)
	rapid.Check(t, func(t *rapid.T) {
		loc, err := time.LoadLocation(rapid.SampledFrom(names).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		from := time.Unix(rapid.Int64Range(-4e9, 4.2e9).Draw(t, "from"), 0).In(loc)
		change := Change(from)
		if !change.IsZero() && (!change.After(from) || Offset(change) == Offset(change.Add(-1))) {
			t.Fatalf("%v is no change after %v", change, from)
		}
		for at := from; at.Before(from.AddDate(1, 0, 0)) && (change.IsZero() || at.Before(change)); at = at.Add(time.Hour) {
			if Offset(at) != Offset(from) {
				t.Fatalf("after %v the change before %v was missed, got %v", from, at, change)
			}
		}
	})
	loc := zonetest.Load(t, "America/New_York")
	assert.Equal(t, "2041-03-10T03:00:00-04:00", Change(time.Date(2040, 12, 31, 12, 0, 0, 0, loc)).Format(time.RFC3339))
	assert.Zero(t, Change(time.Unix(0, 0).UTC()))
}

func TestLoad(t *testing.T) {
	t.Parallel()
	loc, err := Load("Europe/Berlin")
	require.NoError(t, err)
	assert.Equal(t, "Europe/Berlin", loc.String())
	for name, want := range map[string]string{
		"":            "empty; expected an IANA name",
		"Local":       "differs between machines",
		"Mars/Olymp":  `unknown time zone "Mars/Olymp"; expected an IANA name such as Europe/Berlin`,
		"../etc/motd": `unknown time zone "../etc/motd"`,
	} {
		_, err := Load(name)
		assert.ErrorContains(t, err, want, name)
	}
	_, err = load("Europe/Berlin", func(string) (*time.Location, error) { return nil, errors.New("not found") })
	assert.ErrorContains(t, err, "no time zone database")
	assert.ErrorContains(t, err, "import time/tzdata")
}

func BenchmarkResolve(b *testing.B) {
	loc := zonetest.Load(b, "America/New_York")
	for b.Loop() {
		Rules{}.Resolve(2026, 6, 1, 12*3600, loc)
	}
}

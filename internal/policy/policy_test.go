package policy_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/carillon-go/carillon/internal/policy"
)

// grid has a tick at each whole period, but for those a calendar took away.
type grid struct {
	every time.Duration
	until time.Time
	holes map[int64]bool // by ms
}

func (g grid) Next(after time.Time) (tick, first, last time.Time) {
	for tick = after.Truncate(g.every).Add(g.every); g.holes[tick.UnixMilli()]; tick = tick.Add(g.every) {
		if first.IsZero() {
			first = tick
		}
		last = tick
	}
	if !g.until.IsZero() && tick.After(g.until) {
		tick = time.Time{}
	}
	return tick, first, last
}

func (g grid) Between(after, until time.Time, n int) (first time.Time, last []time.Time, more bool) {
	for t, _, _ := g.Next(after); !t.IsZero() && !t.After(until); t, _, _ = g.Next(t) {
		if first.IsZero() {
			first = t
		}
		last = append(last, t)
	}
	if len(last) > n {
		return first, last[len(last)-n:], true
	}
	return first, last, false
}

func (g grid) Open(at time.Time) time.Time {
	if !g.until.IsZero() && at.After(g.until) {
		return time.Time{}
	}
	return at
}

func at(seconds float64) time.Time { return time.UnixMilli(int64(seconds * 1000)) }

// said lists records as tick:outcome.
func said(records []policy.Record) []string {
	var out []string
	for _, r := range records {
		text := fmt.Sprintf("%v:%c", float64(r.Tick.UnixMilli())/1000, r.Outcome)
		if r.Why != 0 {
			text += string(r.Why)
		}
		if !r.From.IsZero() {
			text = fmt.Sprintf("%v-", float64(r.From.UnixMilli())/1000) + text
		}
		out = append(out, text)
	}
	return out
}

func ticks(fires []policy.Fire) []float64 {
	var out []float64
	for _, f := range fires {
		out = append(out, float64(f.Tick.UnixMilli())/1000)
	}
	return out
}

func TestMisfire(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rules policy.Rules
		now   float64
		fired []float64
		said  []string
		next  float64
	}{
		"on time":                  {policy.Rules{}, 10, []float64{10}, []string{"10:f"}, 20},
		"late within the limit":    {policy.Rules{MisfireAfter: 30 * time.Second}, 35, []float64{10, 20, 30}, []string{"10:f", "20:f", "30:f"}, 40},
		"once":                     {policy.Rules{MisfireAfter: time.Second}, 55, []float64{10}, []string{"10:f", "20-50:m"}, 60},
		"once, and one on time":    {policy.Rules{MisfireAfter: 6 * time.Second}, 55, []float64{10, 50}, []string{"10:f", "20-40:m", "50:f"}, 60},
		"skip":                     {policy.Rules{Misfire: policy.SkipMissed, MisfireAfter: time.Second}, 55, nil, []string{"10-50:sm"}, 60},
		"skip a single one":        {policy.Rules{Misfire: policy.SkipMissed, MisfireAfter: time.Second}, 15, nil, []string{"10:sm"}, 20},
		"last":                     {policy.Rules{Misfire: policy.FireLast, MisfireAfter: time.Second}, 55, []float64{50}, []string{"10-40:sm", "50:f"}, 60},
		"all":                      {policy.Rules{Misfire: policy.FireAll, MisfireAfter: time.Second, ReplayMax: 10}, 55, []float64{10, 20, 30, 40, 50}, []string{"10:f", "20:f", "30:f", "40:f", "50:f"}, 60},
		"all, bounded by count":    {policy.Rules{Misfire: policy.FireAll, MisfireAfter: time.Second, ReplayMax: 2}, 55, []float64{40, 50}, []string{"10-30:sa", "40:f", "50:f"}, 60},
		"all, bounded by age":      {policy.Rules{Misfire: policy.FireAll, MisfireAfter: time.Second, ReplayMax: 9, ReplayAge: 20 * time.Second}, 55, []float64{40, 50}, []string{"10-30:sa", "40:f", "50:f"}, 60},
		"all, every one too old":   {policy.Rules{Misfire: policy.FireAll, MisfireAfter: time.Second, ReplayMax: 9, ReplayAge: 2 * time.Second}, 55, nil, []string{"10-50:sa"}, 60},
		"runs are counted":         {policy.Rules{MisfireAfter: time.Minute, MaxRuns: 2}, 55, []float64{10, 20}, []string{"10:f", "20:f"}, 0},
		"too early":                {policy.Rules{}, 9.999, nil, nil, 10},
		"all, no more than wanted": {policy.Rules{Misfire: policy.FireAll, MisfireAfter: time.Second, ReplayMax: 10, MaxRuns: 3}, 55, []float64{10, 20, 30}, []string{"10:f", "20:f", "30:f"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := policy.Decide(&c.rules, grid{every: 10 * time.Second}, policy.Input{Now: at(c.now), Next: at(10), Generation: 1})
			assert.Equal(t, c.fired, ticks(d.Fire))
			assert.Equal(t, c.said, said(d.Record))
			if c.next == 0 {
				assert.Zero(t, d.Next)
				assert.Zero(t, d.Look)
			} else {
				assert.Equal(t, at(c.next), d.Next)
				assert.Equal(t, at(c.next), d.Look)
			}
		})
	}
}

// Ticks are not merged with one that is left out itself.
func TestMissedDuringARun(t *testing.T) {
	t.Parallel()
	for overlap, want := range map[policy.Overlap][]string{
		policy.Skip:      {"20:so", "30-50:so"},
		policy.BufferOne: {"20:w", "30-50:m"},
	} {
		w := newWorld(policy.Rules{Overlap: overlap, MisfireAfter: time.Second})
		w.decide(at(10))
		assert.Equal(t, want, said(w.decide(at(55)).Record), overlap)
		if overlap == policy.BufferOne { // the one that waits leaves no room
			assert.Equal(t, []string{"60:sb", "70-90:sb"}, said(w.decide(at(95)).Record))
		}
	}
}

func TestManyAreReplayedInSteps(t *testing.T) {
	t.Parallel()
	r := policy.Rules{Misfire: policy.FireAll, MisfireAfter: time.Second, ReplayMax: 250}
	in := policy.Input{Now: at(10_005), Next: at(10)}
	var fired []float64
	for steps := 0; ; steps++ {
		require.Less(t, steps, 10)
		d := policy.Decide(&r, grid{every: 10 * time.Second}, in)
		fired = append(fired, ticks(d.Fire)...)
		in.Next, in.State = d.Next, d.State
		if d.Look.After(in.Now) {
			break
		}
	}
	assert.Len(t, fired, 250)
	assert.True(t, slices.IsSorted(fired))
	assert.InDelta(t, 7510, fired[0], 0)
}

// world runs a schedule as the keeper does.
type world struct {
	rules  policy.Rules
	plan   grid
	in     policy.Input
	ended  map[string]policy.End
	ledger map[int64]policy.Record // by tick
	fired  []policy.Fire
	cancel map[int64]bool
}

func (w *world) take(d policy.Decision) {
	w.in.State, w.in.Next = d.State, d.Next
	w.fired = append(w.fired, d.Fire...)
	for _, r := range d.Record {
		w.ledger[r.Tick.UnixMilli()] = r
	}
	for _, r := range d.Cancel {
		w.cancel[r.Tick] = true
	}
}

func key(r policy.Run) string { return fmt.Sprint(r.Tick, r.Kind) }

func (w *world) decide(now time.Time) policy.Decision {
	w.in.Now = now
	w.in.Ends = nil
	for _, r := range w.in.State.Open {
		w.in.Ends = append(w.in.Ends, w.ended[key(r)])
	}
	d := policy.Decide(&w.rules, w.plan, w.in)
	w.take(d)
	return d
}

func newWorld(r policy.Rules) *world {
	return &world{
		rules: r, plan: grid{every: 10 * time.Second}, in: policy.Input{Next: at(10), Generation: 1},
		ended: map[string]policy.End{}, ledger: map[int64]policy.Record{}, cancel: map[int64]bool{},
	}
}

// end ends the run of a tick.
func (w *world) end(tick, now float64, good bool) {
	for _, r := range w.in.State.Open {
		if r.Tick == at(tick).UnixMilli() && r.Kind == "" {
			w.ended[key(r)] = policy.End{Shards: true, Done: true, Good: good, Failed: !good, At: at(now)}
		}
	}
}

func TestOverlap(t *testing.T) {
	t.Parallel()
	run := func(r policy.Rules) (*world, []string) {
		r.MisfireAfter = time.Minute
		w := newWorld(r)
		var out []string
		for now := 10.0; now <= 40; now += 10 {
			out = append(out, said(w.decide(at(now)).Record)...)
		}
		w.end(10, 41, true)
		out = append(out, said(w.decide(at(41)).Record)...)
		w.end(20, 42, true)
		out = append(out, said(w.decide(at(42)).Record)...)
		return w, out
	}
	_, got := run(policy.Rules{})
	assert.Equal(t, []string{"10:f", "20:f", "30:f", "40:f"}, got)
	_, got = run(policy.Rules{Overlap: policy.Skip})
	assert.Equal(t, []string{"10:f", "20:so", "30:so", "40:so"}, got)
	_, got = run(policy.Rules{Overlap: policy.BufferOne})
	assert.Equal(t, []string{"10:f", "20:w", "30:sb", "40:sb", "20:f"}, got)
	_, got = run(policy.Rules{Overlap: policy.BufferAll, BufferMax: 2})
	assert.Equal(t, []string{"10:f", "20:w", "30:w", "40:sb", "20:f", "30:f"}, got)
	w, got := run(policy.Rules{Overlap: policy.Replace})
	assert.Equal(t, []string{"10:f", "20:w", "20:sr", "30:w", "30:sr", "40:w", "40:f"}, got)
	assert.True(t, w.cancel[at(10).UnixMilli()])
}

func TestReplaceAsksAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(policy.Rules{Overlap: policy.Replace, MisfireAfter: time.Minute})
	w.decide(at(10))
	assert.Len(t, w.decide(at(20)).Cancel, 1)
	assert.Len(t, w.decide(at(21)).Cancel, 1, "whoever was to cancel it may have crashed")
}

func TestBufferedAfterAFailure(t *testing.T) {
	t.Parallel()
	for drop, want := range map[bool][]string{false: {"20:f"}, true: {"20:sf", "30:sf"}} {
		w := newWorld(policy.Rules{Overlap: policy.BufferAll, BufferMax: 9, DropOnFailure: drop, MisfireAfter: time.Minute})
		for now := 10.0; now <= 30; now += 10 {
			w.decide(at(now))
		}
		w.end(10, 31, false)
		assert.Equal(t, want, said(w.decide(at(31)).Record))
	}
}

func TestPausedAfterFailures(t *testing.T) {
	t.Parallel()
	w := newWorld(policy.Rules{PauseAfter: 2, MisfireAfter: time.Minute})
	for i, good := range []bool{false, true, false, false} {
		tick := float64(10 * (i + 1))
		require.Nil(t, w.in.State.Pause)
		w.decide(at(tick))
		w.end(tick, tick+1, good)
		w.decide(at(tick + 1))
	}
	require.NotNil(t, w.in.State.Pause)
	assert.Equal(t, "2 runs in a row have failed", w.in.State.Pause.Reason)
	d := w.decide(at(75))
	assert.Empty(t, d.Fire)
	assert.Zero(t, d.Look)
	w.in.Now = at(85)
	d = policy.Resume(&w.rules, w.plan, w.in)
	w.take(d)
	assert.Equal(t, []string{"50-80:sp"}, said(d.Record))
	assert.Equal(t, at(90), d.Next)
	assert.Zero(t, d.State.Failures)
}

func TestFixedDelay(t *testing.T) {
	t.Parallel()
	w := newWorld(policy.Rules{After: 7 * time.Second})
	w.plan.until = at(40)
	d := w.decide(at(10))
	assert.Equal(t, []float64{10}, ticks(d.Fire))
	assert.Zero(t, d.Next, "it depends on the end of the run")
	assert.Equal(t, at(11), d.Look)
	w.end(10, 15.5, true)
	d = w.decide(at(16))
	assert.Equal(t, at(22.5), d.Next)
	d = w.decide(at(23))
	assert.Equal(t, []float64{22.5}, ticks(d.Fire))
	w.end(22.5, 39, false)
	assert.Zero(t, w.decide(at(39)).Next, "it would be after the end")
}

func TestThen(t *testing.T) {
	t.Parallel()
	w := newWorld(policy.Rules{Then: true, Shards: 3, Overlap: policy.Skip, MisfireAfter: time.Minute})
	w.decide(at(10))
	run := w.in.State.Open[0]
	assert.Equal(t, 3, run.Shards)
	assert.Empty(t, w.decide(at(11)).Then)
	w.ended[key(run)] = policy.End{Shards: true}
	d := w.decide(at(12))
	require.Len(t, d.Then, 1)
	assert.Empty(t, w.decide(at(13)).Then, "once")
	assert.Equal(t, []string{"20:so"}, said(w.decide(at(20)).Record), "the further job belongs to the run")
	w.ended[key(run)] = policy.End{Shards: true, Done: true, Good: true}
	assert.Equal(t, []string{"30:f"}, said(w.decide(at(30)).Record))
}

func TestCalendarIsRecordedWhenTimeComesToIt(t *testing.T) {
	t.Parallel()
	w := newWorld(policy.Rules{MisfireAfter: time.Minute})
	w.plan.holes = map[int64]bool{at(20).UnixMilli(): true, at(30).UnixMilli(): true}
	assert.Equal(t, []string{"10:f"}, said(w.decide(at(10)).Record))
	assert.Equal(t, at(40), w.in.Next)
	assert.Empty(t, w.decide(at(35)).Record)
	assert.Equal(t, []string{"20-30:sc", "40:f"}, said(w.decide(at(40)).Record))
	w.plan.holes[at(50).UnixMilli()] = true // the calendar changes under the plan
	assert.Empty(t, w.decide(at(50)).Fire)
	assert.Equal(t, at(60), w.in.Next)
}

func TestBackfill(t *testing.T) {
	t.Parallel()
	ask := policy.Backfill{Key: "1", Next: at(100).UnixMilli(), To: at(140).UnixMilli(), Every: 2000, At: at(1005).UnixMilli()}
	w := newWorld(policy.Rules{})
	w.in.Next, w.in.Now = at(2000), at(1005)
	w.take(policy.Refill(&w.rules, w.plan, w.in, ask))
	var got []string
	for now := 1005.0; now < 1020; now++ {
		for _, f := range w.decide(at(now)).Fire {
			got = append(got, fmt.Sprint(now, ticks([]policy.Fire{f})[0], f.Kind))
		}
	}
	assert.Equal(t, []string{"1005 100r1", "1007 110r1", "1009 120r1", "1011 130r1", "1013 140r1"}, got)
	assert.Empty(t, w.in.State.Backfills)
	assert.Equal(t, policy.Replayed, w.ledger[at(120).UnixMilli()].Outcome)
	assert.Equal(t, at(2000), w.in.Next, "the plan stays where it is")

	ask.Key, ask.Overlap, ask.Every = "2", policy.BufferAll, 0
	w.in.Now = at(1005)
	w.take(policy.Refill(&w.rules, w.plan, w.in, ask))
	assert.Len(t, w.decide(at(1006)).Fire, 1)
	assert.Empty(t, w.decide(at(1007)).Fire, "one after the other")
	w.ended[key(w.in.State.Open[0])] = policy.End{Shards: true, Done: true, Failed: true}
	assert.Equal(t, []float64{110}, ticks(w.decide(at(1008)).Fire))
}

func TestJitter(t *testing.T) {
	t.Parallel()
	r := policy.Rules{Name: "a", Jitter: time.Minute}
	p := grid{every: 10 * time.Second}
	seen := map[time.Duration]bool{}
	for i := 1; i <= 100; i++ {
		tick := at(float64(10 * i))
		when := r.At(p, tick)
		assert.Equal(t, when, r.At(p, tick), "the same each time")
		assert.False(t, when.Before(tick))
		assert.True(t, when.Before(tick.Add(10*time.Second)), "before the next tick")
		seen[when.Sub(tick)] = true
	}
	assert.Greater(t, len(seen), 90)
}

func TestRecordsAreReadBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		ms := func(name string) time.Time {
			if n := rapid.Int64Range(0, 1<<42).Draw(t, name); n > 0 {
				return time.UnixMilli(n)
			}
			return time.Time{}
		}
		r := policy.Record{
			Tick: ms("tick"), From: ms("from"), At: ms("at"), Into: ms("into"),
			Outcome: rapid.SampledFrom([]policy.Outcome{policy.Fired, policy.Skipped, policy.Merged}).Draw(t, "outcome"),
			Why:     rapid.SampledFrom([]policy.Why{0, policy.Missed, policy.Paused}).Draw(t, "why"),
			Kind:    rapid.SampledFrom([]string{"", "m1", "r12"}).Draw(t, "kind"), Sharded: rapid.Bool().Draw(t, "sharded"), Generation: rapid.Int64Range(0, 99).Draw(t, "generation"),
			Home: rapid.SampledFrom([]string{"", "~0", "~1z"}).Draw(t, "home"),
		}
		back, err := policy.ParseRecord(r.Tick, r.String())
		require.NoError(t, err)
		assert.Equal(t, r, back)
	})
}

// Whatever happens, every tick has one outcome at the end, no tick fires twice
// or early, and runs overlap only where they may.
func TestEveryTickHasOneOutcome(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := policy.Rules{
			Name:    "x",
			Misfire: policy.Misfire(rapid.IntRange(0, 3).Draw(t, "misfire")), Overlap: policy.Overlap(rapid.IntRange(0, 4).Draw(t, "overlap")),
			MisfireAfter: time.Duration(rapid.IntRange(0, 30).Draw(t, "threshold")) * time.Second,
			ReplayMax:    rapid.IntRange(1, 5).Draw(t, "replay"), BufferMax: rapid.IntRange(1, 3).Draw(t, "buffer"),
			DropOnFailure: rapid.Bool().Draw(t, "drop"), PauseAfter: rapid.IntRange(0, 3).Draw(t, "pause after"),
			Jitter: time.Duration(rapid.IntRange(0, 15).Draw(t, "jitter")) * time.Second,
		}
		w := newWorld(r)
		w.plan.holes = map[int64]bool{}
		for i := range rapid.IntRange(0, 3).Draw(t, "holes") {
			w.plan.holes[at(float64(10*rapid.IntRange(2, 40).Draw(t, fmt.Sprint("hole", i)))).UnixMilli()] = true
		}
		now := 10.0
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			now += rapid.Float64Range(0.001, 40).Draw(t, "wait")
			if len(w.in.State.Open) > 0 && rapid.Bool().Draw(t, "a run ends") {
				i := rapid.IntRange(0, len(w.in.State.Open)-1).Draw(t, "which")
				good := rapid.Bool().Draw(t, "good")
				w.ended[key(w.in.State.Open[i])] = policy.End{Shards: true, Done: true, Good: good, Failed: !good, At: at(now)}
			}
			if w.in.State.Pause != nil && rapid.Bool().Draw(t, "resume") {
				w.in.Now = at(now)
				w.take(policy.Resume(&w.rules, w.plan, w.in))
			}
			for n := 0; ; n++ {
				if n > 50 {
					t.Fatal("it never ends")
				}
				d := w.decide(at(now))
				for _, f := range d.Fire {
					if w.rules.At(w.plan, f.Tick).After(at(now)) {
						t.Fatalf("%v was fired at %v", f.Tick, at(now))
					}
				}
				open := 0
				for _, run := range w.in.State.Open {
					if run.Kind == "" {
						open++
					}
				}
				if open > 1 && r.Overlap != policy.Allow {
					t.Fatalf("%d runs at once", open)
				}
				if d.Look.IsZero() || d.Look.After(at(now)) {
					break
				}
			}
		}
		fired := map[int64]int{}
		for _, f := range w.fired {
			fired[f.Tick.UnixMilli()]++
		}
		waiting := map[int64]bool{}
		for _, b := range w.in.State.Buffer {
			waiting[b] = true
		}
		end := w.in.Next
		for ms := at(10).UnixMilli(); ms < end.UnixMilli(); ms += 10_000 {
			if w.plan.holes[ms] && (len(w.in.State.Passed) == 2 && ms >= w.in.State.Passed[0]) {
				continue // its time comes with the next tick
			}
			var of []string
			for _, rec := range w.ledger {
				from := rec.From
				if from.IsZero() {
					from = rec.Tick
				}
				if !w.plan.holes[ms] && rec.Why == policy.Excluded {
					continue // a range of a calendar's days
				}
				if from.UnixMilli() <= ms && ms <= rec.Tick.UnixMilli() {
					of = append(of, rec.String())
					if (rec.Outcome == policy.Fired) != (fired[ms] == 1) || fired[ms] > 1 {
						t.Fatalf("tick %d: fired %d times, recorded as %v", ms, fired[ms], rec)
					}
					if (rec.Outcome == policy.Waiting) != waiting[ms] {
						t.Fatalf("tick %d: %v, but the buffer is %v", ms, rec, w.in.State.Buffer)
					}
				}
			}
			if len(of) != 1 && !w.plan.holes[ms] {
				t.Fatalf("tick %d has the outcomes %q of %v", ms, of, w.ledger)
			}
		}
	})
}

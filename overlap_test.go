package carillon_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
)

func TestOverlap(t *testing.T) {
	t.Parallel()
	// A tick every 10 s whose run takes 24 s, so that none ends at a tick; looked at after 65 s.
	cases := map[string]struct {
		sched   carillon.Schedule
		ran     []float64 // ticks
		started []float64 // when, if not at the ticks
		ledger  []string
	}{
		"allow": {
			ran:    []float64{10, 20, 30, 40, 50, 60},
			ledger: []string{"10s fired", "20s fired", "30s fired", "40s fired", "50s fired", "1m0s fired"},
		},
		"skip": {
			sched:  carillon.Schedule{Overlap: carillon.Skip},
			ran:    []float64{10, 40},
			ledger: []string{"10s fired", "20s skipped", "30s skipped", "40s fired", "50s skipped", "1m0s skipped"},
		},
		"buffer one": {
			sched: carillon.Schedule{Overlap: carillon.BufferOne},
			ran:   []float64{10, 20, 40}, started: []float64{10, 34, 58},
			ledger: []string{"10s fired", "20s fired", "30s skipped", "40s fired", "50s skipped", "1m0s waiting"},
		},
		"buffer all": {
			sched: carillon.Schedule{Overlap: carillon.BufferAll},
			ran:   []float64{10, 20, 30}, started: []float64{10, 34, 58},
			ledger: []string{"10s fired", "20s fired", "30s fired", "40s waiting", "50s waiting", "1m0s waiting"},
		},
		"buffer two": {
			sched: carillon.Schedule{Overlap: carillon.BufferAll, BufferMax: 2},
			ran:   []float64{10, 20, 30}, started: []float64{10, 34, 58},
			ledger: []string{"10s fired", "20s fired", "30s fired", "40s waiting", "50s skipped", "1m0s waiting"},
		},
		"replace": {
			sched:  carillon.Schedule{Overlap: carillon.Replace},
			ran:    []float64{10, 20, 30, 40, 50, 60},
			ledger: []string{"10s fired", "20s fired", "30s fired", "40s fired", "50s fired", "1m0s fired"},
		},
		"skip during retries": {
			sched:   carillon.Schedule{Overlap: carillon.Skip, Job: carillon.Job{Args: -time.Second, Retry: &carillon.Retry{MaxAttempts: 3, Delays: seconds(9, 9)}}},
			ran:     []float64{10, 10, 10, 40, 40, 40},
			started: []float64{10, 20, 30, 40, 50, 60},
			ledger:  []string{"10s fired", "20s skipped", "30s skipped", "40s fired", "50s skipped", "1m0s skipped"},
		},
		"those that wait run after a failure": {
			sched: carillon.Schedule{Overlap: carillon.BufferAll, Job: carillon.Job{Args: -24 * time.Second, Retry: &carillon.Retry{MaxAttempts: 1}}},
			ran:   []float64{10, 20, 30}, started: []float64{10, 34, 58},
			ledger: []string{"10s fired", "20s fired", "30s fired", "40s waiting", "50s waiting", "1m0s waiting"},
		},
		"unless they are dropped": {
			sched: carillon.Schedule{
				Overlap: carillon.BufferAll, DropOnFailure: true, Job: carillon.Job{Args: -24 * time.Second, Retry: &carillon.Retry{MaxAttempts: 1}},
			},
			ran:    []float64{10, 40},
			ledger: []string{"10s fired", "20s skipped", "30s skipped", "40s fired", "50s skipped", "1m0s skipped"},
		},
		"success drops nothing": {
			sched: carillon.Schedule{Overlap: carillon.BufferOne, DropOnFailure: true},
			ran:   []float64{10, 20, 40}, started: []float64{10, 34, 58},
			ledger: []string{"10s fired", "20s fired", "30s skipped", "40s fired", "50s skipped", "1m0s waiting"},
		},
	}
	for name, c := range cases {
		for _, mutex := range []string{"", "somewhere else"} {
			c := c // each changes its own
			t.Run(name+" "+mutex, func(t *testing.T) {
				inTime(t, carillon.Config{Segments: 16}, func(w *world) {
					c.sched.Name, c.sched.Spec = "s", carillon.Every(10*time.Second)
					if c.sched.Job.Mutex = mutex; mutex != "" && c.sched.Overlap == carillon.Allow {
						return
					}
					if c.sched.Job.Args == nil {
						c.sched.Job.Args = 24 * time.Second
					}
					w.Start(w.another(carillon.Config{}))
					w.begin(c.sched)
					w.Advance(65 * time.Second)
					assert.Equal(w.t, seconds(c.ran...), w.ran())
					if c.started == nil {
						c.started = c.ran
					}
					assert.Equal(w.t, seconds(c.started...), w.started())
					w.assertOneOutcome("s", 10*time.Second, 6)
					assert.Equal(w.t, c.ledger, w.ledger("s"))
					if c.sched.Overlap == carillon.Replace {
						for _, r := range w.Runs("tick")[:5] {
							assert.Equal(w.t, 10*time.Second, r.Took)
							require.ErrorIs(w.t, r.Err, carillon.ErrCancelled)
							job := w.RequireState(r.ID, carillon.StateCancelled)
							assert.Contains(w.t, job.Reason, "replaced by a later tick")
						}
					}
					require.NoError(w.t, w.Scheduler.Unschedule(w.t.Context(), "s"))
				})
			})
		}
	}
}

// On real servers, too, what follows the end of a run comes when that has ended. That
// it comes at once is for virtual time to show, where nothing is late by itself.
func TestOverlapOnServers(t *testing.T) {
	for _, overlap := range []carillon.Overlap{carillon.Skip, carillon.BufferOne, carillon.BufferAll, carillon.Replace} {
		for _, mutex := range []string{"", "m"} {
			t.Run(fmt.Sprint(overlap, mutex), func(t *testing.T) {
				places := fastPlaces
				if overlap == carillon.Replace || overlap == carillon.BufferAll {
					places = eachPlace
				}
				places(t, func(t *testing.T, p *place) { overlaps(t, p, overlap, mutex) })
			})
		}
	}
}

func overlaps(t *testing.T, p *place, overlap carillon.Overlap, mutex string) {
	const every = 300 * time.Millisecond
	g := newGate()
	s := p.run(t, handlers{"tick": g.run})
	p.run(t, handlers{"tick": g.run})
	plan(t, s, carillon.Schedule{
		Name: "s", Spec: carillon.Every(every), Overlap: overlap, BufferMax: 2, MisfireAfter: time.Hour, Job: carillon.Job{Mutex: mutex},
	})
	first := g.next(t)
	tick := func(n int) time.Time { return first.Tick.Add(time.Duration(n) * every) }
	outcomes := func() map[int]carillon.TickOutcome {
		lines, err := s.Ledger(t.Context(), "s", time.Time{}, time.Time{})
		require.NoError(t, err)
		out := map[int]carillon.TickOutcome{}
		for _, l := range lines {
			n := int(l.Tick.Sub(first.Tick) / every)
			assert.NotContains(t, out, n)
			out[n] = l.Outcome
		}
		return out
	}
	if overlap == carillon.Replace {
		for before := first.Tick; before.Before(tick(3)); {
			assert.ErrorIs(t, receive(t, g.stopped, "the run is cancelled"), carillon.ErrCancelled)
			next := g.next(t).Tick
			assert.True(t, next.After(before), "each replaces the one before, or what had not begun yet")
			assert.Zero(t, next.Sub(before)%every)
			before = next
		}
		require.NoError(t, s.PauseSchedule(t.Context(), "s", ""))
		g.open()
		return
	}
	eventually(t, "four ticks pass", func() bool { return len(outcomes()) >= 5 })
	require.NoError(t, s.PauseSchedule(t.Context(), "s", "so that the times are sure"))
	got := outcomes()
	want := map[carillon.Overlap][]carillon.TickOutcome{
		carillon.Skip:      {carillon.TickFired, carillon.TickSkipped, carillon.TickSkipped, carillon.TickSkipped},
		carillon.BufferOne: {carillon.TickFired, carillon.TickWaiting, carillon.TickSkipped, carillon.TickSkipped},
		carillon.BufferAll: {carillon.TickFired, carillon.TickWaiting, carillon.TickWaiting, carillon.TickSkipped},
	}[overlap]
	for n, outcome := range want {
		assert.Equal(t, outcome, got[n], "tick %d", n)
	}
	assert.Empty(t, g.started, "nothing runs beside")
	require.NoError(t, s.ResumeSchedule(t.Context(), "s"))
	for n := range want {
		if want[n] != carillon.TickWaiting {
			continue
		}
		g.pass <- nil
		assert.Equal(t, tick(n), g.next(t).Tick)
	}
	require.NoError(t, s.Unschedule(context.WithoutCancel(t.Context()), "s"))
	g.open()
}

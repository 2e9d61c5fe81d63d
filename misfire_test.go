package carillon_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/carillon-go/carillon"
)

func TestMisfire(t *testing.T) {
	t.Parallel()
	// A tick every 10 s; from 25 s to 97 s nobody runs.
	cases := map[string]struct {
		sched  carillon.Schedule
		ran    []float64 // ticks up to 100 s, in this order
		ledger []string
	}{
		"one run, for all": {
			ran:    []float64{10, 20, 30, 100},
			ledger: []string{"10s fired", "20s fired", "30s fired", "40s..1m30s merged", "1m40s fired"},
		},
		"none": {
			sched:  carillon.Schedule{Misfire: carillon.SkipMissed},
			ran:    []float64{10, 20, 100},
			ledger: []string{"10s fired", "20s fired", "30s..1m30s skipped", "1m40s fired"},
		},
		"the last one": {
			sched:  carillon.Schedule{Misfire: carillon.FireLast},
			ran:    []float64{10, 20, 90, 100},
			ledger: []string{"10s fired", "20s fired", "30s..1m20s skipped", "1m30s fired", "1m40s fired"},
		},
		"all": {
			sched: carillon.Schedule{Misfire: carillon.FireAll},
			ran:   []float64{10, 20, 30, 40, 50, 60, 70, 80, 90, 100},
			ledger: []string{"10s fired", "20s fired", "30s fired", "40s fired", "50s fired", "1m0s fired", "1m10s fired", "1m20s fired",
				"1m30s fired", "1m40s fired"},
		},
		"all within a number": {
			sched:  carillon.Schedule{Misfire: carillon.FireAll, ReplayMax: 3},
			ran:    []float64{10, 20, 70, 80, 90, 100},
			ledger: []string{"10s fired", "20s fired", "30s..1m0s skipped", "1m10s fired", "1m20s fired", "1m30s fired", "1m40s fired"},
		},
		"all within an age": {
			sched:  carillon.Schedule{Misfire: carillon.FireAll, ReplayAge: 37 * time.Second},
			ran:    []float64{10, 20, 60, 70, 80, 90, 100},
			ledger: []string{"10s fired", "20s fired", "30s..50s skipped", "1m0s fired", "1m10s fired", "1m20s fired", "1m30s fired", "1m40s fired"},
		},
		"all within a number and an age": {
			sched:  carillon.Schedule{Misfire: carillon.FireAll, ReplayMax: 2, ReplayAge: 37 * time.Second},
			ran:    []float64{10, 20, 80, 90, 100},
			ledger: []string{"10s fired", "20s fired", "30s..1m10s skipped", "1m20s fired", "1m30s fired", "1m40s fired"},
		},
		"what is late by less is not missed": {
			sched:  carillon.Schedule{Misfire: carillon.SkipMissed, MisfireAfter: 30 * time.Second},
			ran:    []float64{10, 20, 70, 80, 90, 100},
			ledger: []string{"10s fired", "20s fired", "30s..1m0s skipped", "1m10s fired", "1m20s fired", "1m30s fired", "1m40s fired"},
		},
		"all, but one after the other": {
			sched: carillon.Schedule{
				Misfire: carillon.FireAll, Overlap: carillon.BufferAll, BufferMax: 3, Job: carillon.Job{Args: time.Second},
			},
			ran: []float64{10, 20, 30, 40, 50, 60},
			ledger: []string{"10s fired", "20s fired", "30s fired", "40s fired", "50s fired", "1m0s fired", "1m10s skipped", "1m20s skipped",
				"1m30s skipped", "1m40s waiting"},
		},
		"and an end of the runs": {
			sched:  carillon.Schedule{Misfire: carillon.FireAll, MaxRuns: 4},
			ran:    []float64{10, 20, 30, 40},
			ledger: []string{"10s fired", "20s fired", "30s fired", "40s fired"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			inTime(t, carillon.Config{Concurrency: 1}, func(w *world) { // so that the order shows
				c.sched.Name, c.sched.Spec = "s", carillon.Every(10*time.Second)
				w.begin(c.sched)
				w.Advance(25 * time.Second)
				shutdown(w.t, w.Scheduler)
				w.AdvanceTo(w.at(97 * time.Second))
				again := w.another(carillon.Config{Concurrency: 1})
				w.Start(again)
				w.Scheduler = again
				w.Advance(3 * time.Second)
				assert.Equal(w.t, seconds(c.ran...), w.ran())
				assert.Equal(w.t, c.ledger, w.ledger("s"))
				if c.sched.MaxRuns == 0 {
					w.assertOneOutcome("s", 10*time.Second, 10)
				}
				for _, l := range w.lines("s") {
					if l.Outcome == carillon.TickFired {
						assert.Equal(w.t, l.At.Sub(l.Tick), l.Late)
						assert.True(w.t, l.Tick.Equal(w.Job(l.JobID).Tick))
					}
				}
			})
		})
	}
}

func TestManyMissedTicks(t *testing.T) {
	inTime(t, carillon.Config{Concurrency: 1}, func(w *world) {
		w.began = time.Now()
		w.store(carillon.Schedule{Name: "s", Spec: carillon.Every(time.Second), Misfire: carillon.FireAll, ReplayMax: 350})
		w.Advance(day)
		began := w.began
		w.begin()
		w.began = began
		w.Advance(0)
		var want []time.Duration
		for i := 86_395 - 349; i <= 86_400; i++ {
			want = append(want, time.Duration(i)*time.Second)
		}
		assert.Equal(w.t, want, w.ran(), "more than one step takes, and 5 that are not missed yet")
	})
}

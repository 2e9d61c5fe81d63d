package carillon_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/carillontest"
)

const day = 24 * time.Hour

// nap is a handler that takes as long as its arguments say. If that is negative
// it fails afterwards.
func nap(ctx context.Context, x *carillon.Execution) error {
	var d time.Duration
	if err := json.Unmarshal(x.Args, &d); err != nil {
		return err
	}
	select {
	case <-time.After(d.Abs()):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if d < 0 {
		return errBoom
	}
	return nil
}

// world is a bubble of virtual time in which schedules run nap.
type world struct {
	*carillontest.Env
	t     *testing.T
	began time.Time
}

// inTime runs a test in virtual time, in parallel with others. Nothing is started.
func inTime(t *testing.T, config carillon.Config, f func(w *world)) {
	t.Helper()
	t.Parallel()
	if config.Concurrency == 0 {
		config.Concurrency = 50
	}
	carillontest.Test(t, config, func(t *testing.T, env *carillontest.Env) {
		w := &world{Env: env, t: t, began: time.Now()}
		require.NoError(t, env.Scheduler.Handle("tick", carillon.HandlerFunc(nap)))
		f(w)
	})
}

// another is one more instance that can run ticks.
func (w *world) another(config carillon.Config) *carillon.Scheduler {
	w.t.Helper()
	if config.Concurrency == 0 {
		config.Concurrency = 50
	}
	s := w.Instance(config)
	require.NoError(w.t, s.Handle("tick", carillon.HandlerFunc(nap)))
	return s
}

// begin starts the scheduler and stores schedules.
func (w *world) begin(all ...carillon.Schedule) {
	w.t.Helper()
	w.Start()
	w.began = time.Now()
	for _, sched := range all {
		w.store(sched)
	}
}

func (w *world) store(sched carillon.Schedule) {
	w.t.Helper()
	plan(w.t, w.Scheduler, sched)
}

func (w *world) at(d time.Duration) time.Time { return w.began.Add(d) }

func (w *world) info(name string) *carillon.ScheduleInfo {
	w.t.Helper()
	return planned(w.t, w.Scheduler, name)
}

func (w *world) lines(name string) []carillon.TickInfo {
	w.t.Helper()
	lines, err := w.Scheduler.Ledger(w.t.Context(), name, time.Time{}, time.Time{})
	require.NoError(w.t, err)
	return lines
}

// ledger writes a schedule's ledger briefly, with times since the beginning.
func (w *world) ledger(name string) []string {
	w.t.Helper()
	var out []string
	for _, l := range w.lines(name) {
		s := l.Tick.Sub(w.began).String()
		if !l.From.IsZero() {
			s = l.From.Sub(w.began).String() + ".." + s
		}
		out = append(out, s+" "+string(l.Outcome))
	}
	return out
}

// ran lists the ticks of the runs of a schedule in the order in which they began.
func (w *world) ran() []time.Duration {
	var out []time.Duration
	for _, r := range w.Runs("tick") {
		out = append(out, r.Tick.Sub(w.began))
	}
	return out
}

// started lists when the runs began.
func (w *world) started() []time.Duration {
	var out []time.Duration
	for _, r := range w.Runs("tick") {
		out = append(out, r.At.Sub(w.began))
	}
	return out
}

func (w *world) explain(name string, at time.Duration) string {
	w.t.Helper()
	text, err := w.Scheduler.Explain(w.t.Context(), name, w.at(at))
	require.NoError(w.t, err)
	return text
}

// assertOneOutcome checks the ledger, whatever the policies are: each tick that
// has passed has one line, and it says "fired" if and only if it ran.
func (w *world) assertOneOutcome(name string, interval time.Duration, n int) {
	w.t.Helper()
	lines := w.lines(name)
	var fired []time.Time
	for _, r := range w.Runs("tick") {
		if r.Attempt == 1 {
			fired = append(fired, r.Tick)
		}
	}
	for i := 1; i <= n; i++ {
		tick := w.at(time.Duration(i) * interval)
		var of []carillon.TickInfo
		for _, l := range lines {
			from := l.From
			if from.IsZero() {
				from = l.Tick
			}
			if !tick.Before(from) && !tick.After(l.Tick) {
				of = append(of, l)
			}
		}
		if !assert.Len(w.t, of, 1, "tick %d", i) {
			continue
		}
		runs := 0
		for _, f := range fired {
			if f.Equal(tick) {
				runs++
			}
		}
		want := 0
		if of[0].Outcome == carillon.TickFired {
			if want = 1; runs == 0 { // replaced before it began
				assert.Equal(w.t, carillon.StateCancelled, w.State(of[0].JobID))
				want = 0
			}
			assert.NotEmpty(w.t, of[0].JobID)
			assert.Equal(w.t, of[0].At.Sub(tick), of[0].Late)
		} else if of[0].Outcome != carillon.TickWaiting {
			assert.NotEmpty(w.t, of[0].Reason, "tick %d", i)
		}
		assert.Equal(w.t, want, runs, "tick %d is %s and ran %d times", i, of[0].Outcome, runs)
	}
}

func seconds(n ...float64) []time.Duration {
	out := make([]time.Duration, 0, len(n))
	for _, s := range n {
		out = append(out, time.Duration(s*float64(time.Second)))
	}
	return out
}

func each(interval time.Duration, n int) []time.Duration {
	var out []time.Duration
	for i := 1; i <= n; i++ {
		out = append(out, time.Duration(i)*interval)
	}
	return out
}

// stamps writes times of a zone.
func stamps(all []time.Time, loc *time.Location) []string {
	out := make([]string, 0, len(all))
	for _, t := range all {
		out = append(out, t.In(loc).Format("2006-01-02 15:04:05 Z07"))
	}
	return slices.Clip(out)
}

package faults_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/proctest"
	"github.com/carillon-go/carillon/internal/redistest"
)

// longer is how long a row lasts: in the full tier for longer.
func longer(quick, long time.Duration) time.Duration {
	if full {
		return long
	}
	return quick
}

// dense puts schedules of all kinds that let every tick run, however late.
func (k *clockwork) dense() {
	k.t.Helper()
	put := func(name string, spec carillon.Spec, planned []time.Time) {
		k.put(carillon.Schedule{
			Name: name, Spec: spec, Job: carillon.Job{Name: "work"}, Misfire: carillon.FireAll, ReplayMax: 10_000,
		}, planned)
	}
	for i, d := range []time.Duration{200 * time.Millisecond, 330 * time.Millisecond} {
		spec, planned := k.every(d)
		put(fmt.Sprintf("every-%d", i), spec, planned)
	}
	spec, planned := k.aligned(250 * time.Millisecond)
	put("aligned", spec, planned)
	spec, planned = k.cron("* * * * * *")
	put("cron", spec, planned)
	spec, planned = k.at(700 * time.Millisecond)
	put("at", spec, planned)
	k.began()
}

// G2: five schedulers whose clocks are up to 30 s off, in both directions. Each
// becomes the one that fires, because the one before it is killed. Each tick has
// one job.
func TestG2_SkewedClocks(t *testing.T) {
	t.Parallel()
	if !canSkew {
		t.Skip("the wall clock of a process can be set on linux/amd64 only")
	}
	c := newCrew(t, redistest.Shared(t))
	skew := map[int]time.Duration{}
	for _, d := range []time.Duration{-30 * time.Second, -15 * time.Second, 0, 15 * time.Second, 30 * time.Second} {
		skew[c.worker(func(a *workerArgs) { a.Skew = d }).PID()] = d
		c.fault(1)
	}
	lasts := longer(5*time.Second, time.Minute)
	k := c.clockwork(c.producer, lasts)
	k.dense()
	c.passes(k.start.Sub(c.now()))
	var led []time.Duration
	for {
		var owner *proctest.Process
		c.eventually("somebody fires", func() bool {
			pid := c.promoter()
			i := slices.IndexFunc(c.workers, func(p *proctest.Process) bool { return p.PID() == pid && !p.Exited() })
			if i >= 0 {
				owner = c.workers[i]
			}
			return i >= 0
		})
		led = append(led, skew[owner.PID()])
		if len(led) == len(skew) {
			break
		}
		c.passes(lasts / 10)
		c.kill(owner)
	}
	k.over()
	m, _ := k.match(60)
	t.Logf("G2: clocks off by %v fired in turn: %s", led, told(m))
	assert.Equal(t, m.Planned, m.Fired, "each tick has a job")
	assert.ElementsMatch(t, led, []time.Duration{-30 * time.Second, -15 * time.Second, 0, 15 * time.Second, 30 * time.Second})
	assert.Less(t, m.LateAt(100), 10*time.Second, "the clocks are off by more")
	c.finish(0)
}

// G3: the scheduler that fires is frozen just before it tells Redis what it has
// decided, for longer than its lease. Others fire; when it wakes, its step is
// refused.
func TestG3_LateLeader(t *testing.T) {
	t.Parallel()
	c := newCrew(t, redistest.Shared(t))
	for range 3 {
		c.worker(func(a *workerArgs) { a.Freeze = 6 })
	}
	k := c.clockwork(c.producer, longer(5*time.Second, time.Minute))
	k.dense()
	frozen := func(l proctest.Line) bool { return l.Event == "freezing" }
	done := make(chan struct{})
	var waker sync.WaitGroup
	wake := func() { // those that have slept for two leases
		woken := map[proctest.Line]bool{}
		for {
			for _, l := range c.lines(frozen) {
				i := slices.IndexFunc(c.workers, func(p *proctest.Process) bool { return p.PID() == l.PID })
				if woken[l] || proctest.Uptime()-l.At < 2*c.lease {
					continue
				}
				woken[l] = true
				if assert.NoError(t, c.workers[i].Thaw()) {
					c.fault(1)
				}
			}
			if isClosed(done) && len(woken) == len(c.lines(frozen)) {
				return
			}
			_ = wait(t.Context(), 20*time.Millisecond)
		}
	}
	waker.Go(wake)
	k.over()
	close(done)
	waker.Wait()
	m, _ := k.match(60)
	late := c.lines(func(l proctest.Line) bool { return l.Event == "came late" })
	refused := len(slices.DeleteFunc(slices.Clone(late), func(l proctest.Line) bool { return l.Note != "true" }))
	t.Logf("G3: leaders were frozen %d times for two leases, %d of their %d late turns were refused: %s", len(c.lines(frozen)), refused, len(late), told(m))
	assert.Equal(t, m.Planned, m.Fired, "each tick has a job")
	assert.GreaterOrEqual(t, refused, 2, "no late turn met the turn of another one")
	c.finish(0)
}

// G4: nobody is there for a while. What becomes of the ticks that were missed is
// exactly what each policy says, by the jobs as by the ledger.
func TestG4_DownOverManyTicks(t *testing.T) {
	t.Parallel()
	const every, after = 200 * time.Millisecond, 500 * time.Millisecond
	c := newCrew(t, redistest.Shared(t))
	down := longer(3*time.Second, 20*time.Second)
	workers := []*proctest.Process{c.worker(), c.worker()}
	k := c.clockwork(c.producer, down+5*time.Second)
	policies := map[string]carillon.Schedule{
		"once": {Misfire: carillon.FireOnce},
		"none": {Misfire: carillon.SkipMissed},
		"last": {Misfire: carillon.FireLast},
		"all":  {Misfire: carillon.FireAll, ReplayMax: 1000},
		"few":  {Misfire: carillon.FireAll, ReplayMax: 3},
		"new":  {Misfire: carillon.FireAll, ReplayAge: 1500 * time.Millisecond},
	}
	for name, sched := range policies {
		spec, planned := k.every(every)
		sched.Name, sched.Spec, sched.MisfireAfter, sched.Job = name, spec, after, carillon.Job{Name: "work"}
		k.put(sched, planned)
		sched.Name, sched.Overlap, sched.Job.Name = name+" apart", carillon.BufferAll, "nap"
		sched.BufferMax = 1000
		spec, planned = k.every(2 * every)
		sched.Spec = spec
		k.put(sched, planned)
	}
	k.began()
	c.passes(k.start.Add(time.Second).Sub(c.now()))
	for _, p := range workers {
		c.kill(p)
	}
	killed := c.now()
	c.passes(down)
	c.worker()
	k.over()
	m, _ := k.match(200)
	t.Logf("G4: all down for %v: %s", down, told(m))
	for _, p := range k.plans {
		name := p.Schedule.Name
		if p.Schedule.Overlap != carillon.Allow {
			continue // the matcher has looked at these
		}
		ran := map[time.Time]bool{}
		before := k.start
		for _, j := range p.Jobs {
			ran[j.Tick.UTC()] = true
			if !j.SubmittedAt.After(killed) && j.Tick.After(before) {
				before = j.Tick
			}
		}
		// When the misfire was dealt with: as the lines say that speak of its first tick.
		var missed []time.Time
		var decided time.Time
		for _, tick := range p.Planned {
			if !tick.After(before) {
				continue
			}
			for _, l := range p.Ledger {
				if decided.IsZero() && (l.Tick.Equal(tick) || !l.From.IsZero() && !l.From.After(tick) && !l.Tick.Before(tick)) {
					decided = l.At
				}
			}
			if !tick.After(decided.Add(-after)) {
				missed = append(missed, tick)
			}
		}
		require.Greater(t, len(missed), int(down/every)/2, name)
		var want, got []time.Time
		switch last := len(missed) - 1; name {
		case "once":
			want = missed[:1]
		case "last":
			want = missed[last:]
		case "all":
			want = missed
		case "few":
			want = missed[last-2:]
		case "new":
			old := decided.Add(-p.Schedule.ReplayAge)
			missed = slices.DeleteFunc(missed, func(tick time.Time) bool { return tick.Equal(old) }) // the ledger has whole ms
			want = slices.DeleteFunc(slices.Clone(missed), func(tick time.Time) bool { return tick.Before(old) })
			require.NotEmpty(t, want)
		}
		for _, tick := range missed {
			if ran[tick.UTC()] {
				got = append(got, tick)
			}
		}
		assert.Equal(t, want, got, "%s: of %d missed ticks", name, len(missed))
		t.Logf("G4: %s: %d missed, %d made up for", name, len(missed), len(got))
	}
	c.finish(0)
}

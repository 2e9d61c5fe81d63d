package faults_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/robfig/cron/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/verify"
)

// clockwork has the schedules of a world, and their ticks, which nobody learnt
// from the engine.
type clockwork struct {
	*world
	admin  *carillon.Scheduler
	start  time.Time // of all schedules, by Redis' clock
	end    time.Time
	plans  []*verify.Timetable
	stored sync.WaitGroup
	after  map[string]time.Duration // of those whose ticks follow the ends of runs
	mu     sync.Mutex
	ledger map[string]map[int64]carillon.TickInfo
	halt   func()
}

// clockwork makes one whose schedules begin in a moment and last so long. It
// reads their ledgers all the time, because these keep the last lines only.
func (w *world) clockwork(s *carillon.Scheduler, lasts time.Duration) *clockwork {
	w.t.Helper()
	k := &clockwork{world: w, admin: s, ledger: map[string]map[int64]carillon.TickInfo{}, after: map[string]time.Duration{}}
	k.start = w.now().Add(4 * time.Second).Truncate(time.Millisecond)
	k.end = k.start.Add(lasts)
	w.queue.Made(scheduled)
	ctx, cancel := context.WithCancel(w.t.Context())
	var work sync.WaitGroup
	work.Go(func() {
		for wait(ctx, 500*time.Millisecond) == nil {
			_ = k.read(ctx) // and again in a moment
		}
	})
	k.halt = func() {
		cancel()
		work.Wait()
	}
	w.t.Cleanup(k.halt)
	return k
}

// put begins to store a schedule whose ticks are given. All of them are stored side
// by side, for a busy machine is slow to answer each; began waits for them.
func (k *clockwork) put(sched carillon.Schedule, planned []time.Time) {
	k.t.Helper()
	sched.Start, sched.End = k.start, k.end
	k.stored.Go(func() { assert.NoError(k.t, k.admin.Schedule(k.t.Context(), sched)) })
	require.True(k.t, len(planned) > 0 || k.after[sched.Name] > 0)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.plans = append(k.plans, &verify.Timetable{Schedule: sched, Planned: planned})
}

// putAfter stores a schedule whose ticks come so long after the end of the run
// before; no two may overlap.
func (k *clockwork) putAfter(sched carillon.Schedule, pause time.Duration) {
	k.t.Helper()
	k.after[sched.Name] = pause
	sched.Spec, sched.Overlap = carillon.EveryAfter(pause), carillon.Skip
	k.put(sched, nil)
}

// following plans by the ends of jobs.
func (k *clockwork) following(pause time.Duration, jobs []*carillon.JobInfo) (planned []time.Time) {
	ended := map[time.Time]time.Time{}
	for _, j := range jobs {
		ended[j.Tick.UTC()] = j.FinishedAt
	}
	for t := k.start; !t.After(k.end); {
		planned = append(planned, t)
		end, ok := ended[t.UTC()]
		if !ok {
			break // it is missing
		}
		t = end.Add(pause)
	}
	return planned
}

// began checks that all schedules were there before the first tick.
func (k *clockwork) began() {
	k.t.Helper()
	k.stored.Wait()
	require.False(k.t, k.t.Failed())
	require.True(k.t, k.now().Before(k.start), "the machine is too busy: schedules were stored after their start")
}

// every plans by fixed arithmetic: from the start.
func (k *clockwork) every(d time.Duration) (spec carillon.Spec, planned []time.Time) {
	for t := k.start; !t.After(k.end); t = t.Add(d) {
		planned = append(planned, t)
	}
	return carillon.Every(d), planned
}

// aligned plans by fixed arithmetic: the multiples since the epoch.
func (k *clockwork) aligned(d time.Duration) (spec carillon.Spec, planned []time.Time) {
	ms := d.Milliseconds()
	for n := (k.start.UnixMilli() + ms - 1) / ms * ms; n <= k.end.UnixMilli(); n += ms {
		planned = append(planned, time.UnixMilli(n))
	}
	return carillon.Every(d).Aligned(), planned
}

// cron plans by robfig's reading of an expression with seconds.
func (k *clockwork) cron(expr string) (spec carillon.Spec, planned []time.Time) {
	k.t.Helper()
	s, err := cron.NewParser(cron.Second | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow).Parse(expr)
	require.NoError(k.t, err)
	for t := s.Next(k.start.UTC().Add(-time.Nanosecond)); !t.After(k.end); t = s.Next(t) {
		planned = append(planned, t)
	}
	return carillon.Cron(expr), planned
}

// at plans every d, and some instants are given twice.
func (k *clockwork) at(d time.Duration) (spec carillon.Spec, planned []time.Time) {
	for t := k.start.Add(d); !t.After(k.end) && len(planned) < 900; t = t.Add(d) {
		planned = append(planned, t)
	}
	return carillon.At(append(slices.Clone(planned), planned[:min(3, len(planned))]...)...), planned
}

// read takes in what the ledgers say.
func (k *clockwork) read(ctx context.Context) error {
	k.mu.Lock()
	plans := slices.Clone(k.plans)
	k.mu.Unlock()
	for _, p := range plans {
		name := p.Schedule.Name
		lines, err := k.observer.Ledger(ctx, name, time.Time{}, time.Time{})
		if err != nil {
			return err
		}
		k.mu.Lock()
		if k.ledger[name] == nil {
			k.ledger[name] = map[int64]carillon.TickInfo{}
		}
		for _, l := range lines {
			k.ledger[name][l.Tick.UnixMilli()] = l
		}
		k.mu.Unlock()
	}
	return nil
}

// over waits until no schedule has anything left to do, and all jobs are final.
func (k *clockwork) over() {
	k.t.Helper()
	k.passes(k.end.Sub(k.now()))
	for _, p := range k.plans {
		k.eventually(p.Schedule.Name+" is over", func() bool { return quiet(k.t.Context(), k.observer, p.Schedule.Name) })
	}
	k.eventually("the jobs are done", func() bool {
		jobs, err := listed(k.t.Context(), k.observer)
		return err == nil && !slices.ContainsFunc(jobs, func(j *carillon.JobInfo) bool { return !j.State.Final() })
	})
}

// quiet reports whether a schedule has nothing left to do.
func quiet(ctx context.Context, s *carillon.Scheduler, name string) bool {
	info, err := s.GetSchedule(ctx, name)
	return err == nil && info.Next.IsZero() && len(info.Running)+len(info.Waiting)+info.Backfills == 0
}

// match judges all schedules, when all is over, and deletes them. atLeast is how
// many ticks there must have been.
func (k *clockwork) match(atLeast int) (all verify.Match, each []verify.Match) {
	k.t.Helper()
	k.halt()
	require.NoError(k.t, k.read(k.t.Context()))
	jobs, err := listed(k.t.Context(), k.observer)
	require.NoError(k.t, err)
	of := map[string][]*carillon.JobInfo{}
	for _, j := range jobs {
		of[j.Schedule] = append(of[j.Schedule], j)
	}
	for _, p := range k.plans {
		p.Jobs = of[p.Schedule.Name]
		if pause := k.after[p.Schedule.Name]; pause > 0 {
			p.Planned = k.following(pause, p.Jobs)
		}
		for _, l := range k.ledger[p.Schedule.Name] {
			p.Ledger = append(p.Ledger, l)
		}
		m := p.Match()
		each = append(each, m)
		all.Add(m)
		require.NoError(k.t, k.admin.Unschedule(k.t.Context(), p.Schedule.Name))
	}
	tally.Add(verify.Sum{Ticks: all.Planned, Missing: len(all.Missing), Extra: len(all.Extra)})
	assert.Empty(k.t, some(all.Missing), "missing")
	assert.Empty(k.t, some(all.Extra), "extra")
	assert.Empty(k.t, some(all.Wrong), "against the policies")
	assert.GreaterOrEqual(k.t, all.Planned, atLeast, "too few ticks")
	return all, each
}

// told is a match in one line.
func told(m verify.Match) string {
	return fmt.Sprintf("%d schedules, %d ticks: %d fired, %d merged, %d skipped, %d missing, %d extra; late by %v (p50), %v (p99), %v",
		m.Schedules, m.Planned, m.Fired, m.Merged, m.Skipped, len(m.Missing), len(m.Extra), m.LateAt(50), m.LateAt(99), m.LateAt(100))
}

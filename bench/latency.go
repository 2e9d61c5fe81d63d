package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

var latencyScenarios = []scenario{
	{name: "pickup", quick: 1, run: pickup, only: []string{ours, "asynq", "asynq-eager", "gocraft", "river"}},
	{name: "lateness", quick: 1, run: lateness, only: []string{ours, "asynq", "asynq-eager", "gocraft", "river"}},
	{name: "burst", run: burst, only: []string{ours, "asynq", "asynq-eager", "gocraft", "river"}},
}

// pickup measures the time from the submission to the start of the handler of a
// system that has nothing to do. Several systems are measured side by side, each
// on a server of its own, because one that polls takes a second for each job.
func pickup(t *trial) error {
	systems, window := 10, 10*time.Second
	if t.size != full {
		window = 4 * time.Second
	}
	if t.size == tiny {
		systems, window = 2, 200*time.Millisecond
	}
	queues := make([]queue, systems)
	for i := range queues {
		var err error
		if queues[i], _, err = t.open(); err != nil {
			return err
		}
	}
	var took durations
	end := time.Now().Add(window)
	err := spread(systems, systems, func(i int) error {
		q := queues[i]
		started := make(chan time.Time, 1)
		stop, err := q.start(t.ctx, work{instances: 1, do: func(int, []byte) error { started <- time.Now(); return nil }})
		if err != nil {
			return err
		}
		for n := 0; err == nil && (n < 3 || time.Now().Before(end)); n++ {
			<-time.After(rand.N(time.Second)) // at no certain moment between two polls
			begun := time.Now()
			if err = q.submit(t.ctx, job{payload: payload(standardPayload, time.Time{})}); err != nil {
				break
			}
			select {
			case at := <-started:
				if n > 0 { // the first one makes connections
					took.add(at.Sub(begun))
				}
			case <-t.ctx.Done():
				err = t.ctx.Err()
			}
		}
		return errors.Join(err, stop())
	})
	if err == nil {
		took.report(t, "pickup")
	}
	return err
}

// lateness measures how long after their time delayed jobs start that are due at
// various moments.
func lateness(t *trial) error {
	q, _, err := t.open()
	if err != nil {
		return err
	}
	n, ahead, window := t.size.of(2000, 500), 6*time.Second, 10*time.Second // River elects a leader first
	switch t.size {
	case quick:
		ahead, window = time.Second, 3*time.Second
	case tiny:
		ahead, window = time.Second, 200*time.Millisecond
	}
	base := time.Now().Add(ahead)
	all := make([]job, n)
	for i := range all {
		due := base.Add(rand.N(window)).Truncate(time.Millisecond)
		all[i] = job{payload(standardPayload, due), due}
	}
	return t.late(q, "lateness", all)
}

// burst measures the same for many jobs that are due at one instant.
func burst(t *trial) error {
	q, _, err := t.open()
	if err != nil {
		return err
	}
	wait := 5 * time.Second
	if t.size == tiny {
		wait = time.Second
	}
	due := time.Now().Add(wait).Truncate(time.Second)
	n := t.size.of(50_000, 20_000)
	return t.late(q, fmt.Sprintf("burst/%d", n), jobs(n, standardPayload, due))
}

// late submits delayed jobs while an instance runs.
func (t *trial) late(q queue, row string, all []job) error {
	done := newTally(len(all))
	var took durations
	stop, err := q.start(t.ctx, work{instances: 1, do: func(_ int, payload []byte) error {
		now := time.Now()
		due, err := dueOf(payload)
		if err != nil {
			return err
		}
		took.add(now.Sub(due))
		done.add()
		return nil
	}})
	if err != nil {
		return err
	}
	first := all[0].at
	for _, j := range all {
		if j.at.Before(first) {
			first = j.at
		}
	}
	if err := q.submitMany(t.ctx, all); err != nil {
		return errors.Join(err, stop())
	}
	if time.Now().After(first) {
		err = errors.New("the first jobs were due before all were submitted")
	}
	if err := errors.Join(err, done.wait(t.ctx), stop()); err != nil {
		return err
	}
	took.report(t, row)
	return nil
}

// durations are measured by several goroutines.
type durations struct {
	mu  sync.Mutex
	all []time.Duration
}

func (d *durations) add(took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, took)
}

// report puts percentiles.
func (d *durations) report(t *trial, row string) {
	slices.Sort(d.all)
	for _, p := range []struct {
		unit string
		q    float64
	}{{"p50 ms", 0.50}, {"p99 ms", 0.99}, {"max ms", 1}} {
		i := min(int(p.q*float64(len(d.all))), len(d.all)-1)
		t.put(row, p.unit, float64(d.all[i].Microseconds())/1000)
	}
}

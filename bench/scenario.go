package main

import (
	"context"
	"errors"
	"slices"
	"time"
)

// scenario is something to be measured.
type scenario struct {
	name  string
	quick int      // rounds in a quick run; 0: it is not part of it
	once  bool     // one round takes long enough
	only  []string // contestants; nil: those of throughput
	run   func(t *trial) error
}

// scenarios in the order of the report.
var scenarios = slices.Concat(submitScenarios, drainScenarios, latencyScenarios, costScenarios, networkScenarios, scheduleScenarios)

// trial is one contestant in one scenario, once.
type trial struct {
	ctx     context.Context
	who     *contestant
	size    size
	put     func(row, unit string, value float64)
	cleanup []func() error
}

// size is how much is done in a trial.
type size int

const (
	full  size = iota
	quick      // enough to see the ratios
	tiny       // enough to see that it works
)

// of picks a number of jobs.
func (s size) of(full, quick int) int { return []int{full, quick, 100}[s] }

// share is how many jobs are done where a rate is measured, which does not depend on it.
func (t *trial) share(full, quick int) int {
	n := t.size.of(full, quick)
	if n > 10_000 {
		n /= max(1, t.who.part)
	}
	return n
}

// patience is how long a trial may take.
const patience = 30 * time.Minute

// run runs the scenario and stops what it has started.
func (t *trial) run(ctx context.Context, s *scenario) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("a trial takes too long"))
	defer cancel()
	t.ctx = ctx
	defer func() {
		for _, f := range slices.Backward(t.cleanup) {
			err = errors.Join(err, f())
		}
	}()
	if p := t.who.postgres; p != nil {
		if err := p.start(ctx); err != nil {
			return err
		}
		t.cleanup = append(t.cleanup, func() error { defer p.stop(); return p.clear(context.WithoutCancel(ctx)) })
	}
	return s.run(t)
}

// redis starts a server for the trial.
func (t *trial) redis(conf ...string) (*redisServer, error) {
	s, err := startRedis(t.ctx, conf...)
	if err == nil {
		t.cleanup = append(t.cleanup, func() error { s.stop(); return nil })
	}
	return s, err
}

// open opens the contestant's queue for the trial, on a server of its own.
func (t *trial) open(conf ...string) (queue, *redisServer, error) {
	s, err := t.redis(conf...)
	if err != nil {
		return nil, nil, err
	}
	q, err := t.openAt(place{redis: []string{s.addr}})
	return q, s, err
}

func (t *trial) openAt(at place) (queue, error) {
	q, err := t.who.open(t.ctx, at)
	if err == nil {
		t.cleanup = append(t.cleanup, q.close)
	}
	return q, err
}

// warm lets connections, scripts and memory be there before the measurement.
func (t *trial) warm(q queue) error {
	n := t.size.of(2000, 1000)
	_, err := t.drain(q, jobs(n, standardPayload, time.Time{}), work{instances: 1}, n)
	return err
}

// drain submits jobs, and then executes as many as there should be.
func (t *trial) drain(q queue, jobs []job, w work, n int) (*tally, error) {
	if err := q.submitMany(t.ctx, jobs); err != nil {
		return nil, err
	}
	done := newTally(n)
	do := w.do
	w.do = func(attempt int, payload []byte) error {
		if do != nil {
			if err := do(attempt, payload); err != nil {
				return err
			}
		}
		done.add()
		return nil
	}
	stop, err := q.start(t.ctx, w)
	if err != nil {
		return nil, err
	}
	return done, errors.Join(done.wait(t.ctx), stop())
}

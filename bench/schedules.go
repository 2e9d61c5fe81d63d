package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/carillon-go/carillon"
)

// The peers keep schedules in the memory of one process, or have none.
var scheduleScenarios = []scenario{
	{name: "schedules", run: func(t *trial) error { return schedules(t, 0) }, only: []string{ours}},
	{name: "schedules-parked", run: func(t *trial) error { return schedules(t, t.size.of(1_000_000, 50_000)) }, only: []string{ours}, once: true},
}

// schedules measures how long after a tick the jobs of many schedules start that
// are due on it, while others wait for tomorrow.
func schedules(t *trial, parked int) error {
	server, err := t.redis()
	if err != nil {
		return err
	}
	q := &carillonQueue{at: place{redis: []string{server.addr}}}
	s, err := q.scheduler(256)
	if err != nil {
		return err
	}
	due := t.size.of(50_000, 10_000)
	done := newTally(due)
	var tick time.Time
	var took durations
	if err := s.Handle("bench", carillon.HandlerFunc(func(context.Context, *carillon.Execution) error {
		took.add(time.Since(tick))
		done.add()
		return nil
	})); err != nil {
		return err
	}
	store := func(kind string, n int, start time.Time) error {
		return spread(64, n, func(i int) error {
			return s.Schedule(t.ctx, carillon.Schedule{
				Name: fmt.Sprint(kind, i), Spec: carillon.Every(day), Start: start, Job: carillon.Job{Name: "bench"},
			})
		})
	}
	row := fmt.Sprintf("schedules/%d", due)
	if parked > 0 {
		row = fmt.Sprintf("%s/parked=%d", row, parked)
		begun := time.Now()
		if err := store("parked", parked, begun.Add(4*day)); err != nil {
			return err
		}
		t.put(row, "schedules stored/s", perSecond(parked, time.Since(begun)))
	}
	const perSchedule = 200 * time.Microsecond // generous
	tick = time.Now().Add(time.Duration(due)*perSchedule + 2*time.Second).Truncate(time.Millisecond)
	if err := store("due", due, tick); err != nil {
		return err
	}
	if time.Now().After(tick) {
		return errors.New("storing the schedules took too long for this machine")
	}
	if err := s.Start(t.ctx); err != nil {
		return err
	}
	if err := errors.Join(done.wait(t.ctx), s.Shutdown(context.WithoutCancel(t.ctx))); err != nil {
		return err
	}
	took.report(t, row)
	return nil
}

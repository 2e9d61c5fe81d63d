package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/verify"
)

// policies is a few ticks of schedules with policies: ticks that are left out,
// wait, and replace others, shards with a job that follows, and jobs that belong
// to other segments than their schedule.
var policies = &scenario{
	name:     "policies",
	segments: 3,
	some:     10,
	handlers: func(*play) handlers {
		return handlers{
			"nothing": work,
			"short":   work,
			"long":    func(ctx context.Context, _ *carillon.Execution) error { return wait(ctx, 60*time.Millisecond) },
			"follow":  follow,
		}
	},
	act: func(p *play) error {
		first := time.Now().Add(time.Second).Truncate(time.Millisecond)
		var stored []string
		for _, pl := range policyPlans {
			sched := pl.Schedule
			var ticks []time.Time
			for i := range pl.ticks {
				ticks = append(ticks, first.Add(time.Duration(i)*20*time.Millisecond))
			}
			sched.Spec = carillon.At(ticks...)
			err := p.repeat(func() error { return p.s.Schedule(p.ctx, sched) })
			if errors.Is(err, carillon.ErrInvalid) { // too busy a machine: its ticks have passed
				continue
			} else if err != nil {
				return err
			}
			stored = append(stored, sched.Name)
			if time.Now().After(first) {
				continue // some of its ticks may have passed
			}
			// This tells, when its process is dead, what was stored.
			if err := p.submit("stored-"+sched.Name, carillon.Job{Name: "nothing", Args: ticks}); err != nil {
				return err
			}
		}
		if err := wait(p.ctx, time.Until(first.Add(200*time.Millisecond))); err != nil {
			return err
		}
		for _, name := range stored {
			for !quiet(p.ctx, p.s, name) {
				if err := wait(p.ctx, 50*time.Millisecond); err != nil {
					return fmt.Errorf("%s is not over: %w", name, err)
				}
			}
		}
		for jobs, err := listed(p.ctx, p.s); err != nil || slices.ContainsFunc(jobs, unfinished); jobs, err = listed(p.ctx, p.s) {
			if err := wait(p.ctx, 50*time.Millisecond); err != nil {
				return fmt.Errorf("jobs are not done: %w", err)
			}
		}
		return nil
	},
	rescued: func(w *world, s *carillon.Scheduler) {
		for _, pl := range policyPlans {
			w.eventually(pl.Name+" is over", func() bool {
				_, err := s.GetSchedule(w.t.Context(), pl.Name)
				return errors.Is(err, carillon.ErrNotFound) || quiet(w.t.Context(), s, pl.Name)
			})
		}
		w.eventually("the jobs are done", func() bool {
			jobs, err := listed(w.t.Context(), s)
			return err == nil && !slices.ContainsFunc(jobs, unfinished)
		})
	},
	check: func(w *world) []string {
		jobs, err := listed(w.t.Context(), w.observer)
		if err != nil {
			return []string{err.Error()}
		}
		var all verify.Match
		var problems []string
		for _, pl := range policyPlans {
			info, err := w.get("stored-" + pl.Name)
			if err != nil {
				continue // its process was killed before
			}
			t := verify.Timetable{Schedule: pl.Schedule}
			if err := json.Unmarshal(info.Args, &t.Planned); err != nil {
				return []string{err.Error()}
			}
			if t.Ledger, err = w.observer.Ledger(w.t.Context(), pl.Name, time.Time{}, time.Time{}); err != nil {
				return []string{err.Error()}
			}
			for _, j := range jobs {
				if j.Schedule != pl.Name {
					continue
				}
				t.Jobs = append(t.Jobs, j)
				if j.State != carillon.StateSucceeded && (pl.Overlap != carillon.Replace || j.State != carillon.StateCancelled) {
					problems = append(problems, fmt.Sprintf("%s is %s", j.ID, j.State))
				}
			}
			all.Add(t.Match())
		}
		tally.Add(verify.Sum{Ticks: all.Planned, Missing: len(all.Missing), Extra: len(all.Extra)})
		return slices.Concat(problems, all.Missing, all.Extra, all.Wrong)
	},
}

// errTooSoon is what follow says of shards that have not ended.
var errTooSoon = errors.New("a shard has not ended")

// follow is the handler of jobs that follow shards.
func follow(ctx context.Context, x *carillon.Execution) error {
	shards, err := x.Shards(ctx)
	for _, s := range shards {
		if s == nil || !s.State.Final() {
			return fmt.Errorf("%w: %+v", errTooSoon, s)
		}
	}
	return err
}

func unfinished(j *carillon.JobInfo) bool { return !j.State.Final() }

// policyPlans are the schedules of the scenario, and how many ticks each has, 20 ms
// apart.
var policyPlans = []struct {
	carillon.Schedule
	ticks int
}{
	{carillon.Schedule{Name: "left out", Overlap: carillon.Skip, Misfire: carillon.FireAll, Job: carillon.Job{Name: "long"}}, 2},
	{carillon.Schedule{Name: "waits", Overlap: carillon.BufferOne, Misfire: carillon.FireAll, Job: carillon.Job{Name: "long"}}, 3},
	{carillon.Schedule{Name: "replaces", Overlap: carillon.Replace, Misfire: carillon.FireAll, Job: carillon.Job{Name: "long"}}, 2},
	{carillon.Schedule{
		Name: "shards", Misfire: carillon.FireAll, Job: carillon.Job{Name: "short"},
		Sharding: carillon.Sharding{Shards: 2, Then: &carillon.Job{Name: "follow"}},
	}, 1},
	{carillon.Schedule{Name: "elsewhere", Misfire: carillon.FireAll, Job: carillon.Job{Name: "short", Mutex: "m"}}, 2},
	{carillon.Schedule{
		Name: "elsewhere, one at a time", Overlap: carillon.BufferAll, Misfire: carillon.FireAll, Job: carillon.Job{Name: "long", Mutex: "n"},
	}, 2},
}

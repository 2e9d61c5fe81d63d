package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"reflect"
	"time"

	"github.com/carillon-go/carillon"
)

// syncer keeps the stored schedules equal to the files.
type syncer struct {
	scheduler *carillon.Scheduler
	source    source
	log       *slog.Logger
}

// run stores what the files say, and again what they say after a change, until
// ctx ends. It reads them every so often, for they are short.
func (s *syncer) run(ctx context.Context, every time.Duration, now table) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	schedules, stored := s.review(now), false
	for {
		if !stored {
			err := s.store(ctx, now, schedules)
			if stored = err == nil; !stored && ctx.Err() == nil {
				s.log.Error("crontab: the schedules could not be stored, and will be tried again", "error", err)
			}
		}
		next := now
		for settled := false; !settled; { // or it is half of what somebody is writing
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			last := next
			next = s.source.load()
			settled = reflect.DeepEqual(next, last)
		}
		if !reflect.DeepEqual(next, now) {
			now = next
			schedules, stored = s.review(now), false
		}
	}
}

// review says what is wrong with the files, and returns the schedules that they
// ask for.
func (s *syncer) review(t table) []carillon.Schedule {
	for _, problem := range t.problems {
		s.log.Warn("crontab: " + problem)
	}
	var all []carillon.Schedule
	for i := range t.entries {
		e := &t.entries[i]
		if e.when == reboot {
			continue
		}
		if _, err := e.task.account(); err != nil {
			s.log.Warn("crontab: a line is left to other instances", "file", e.file, "line", e.line, "reason", err)
		} else {
			all = append(all, e.schedule())
		}
	}
	return all
}

// store stores the schedules, and removes those of lines and files that are
// gone. One that is stored already goes on as it was.
func (s *syncer) store(ctx context.Context, t table, schedules []carillon.Schedule) error {
	for _, one := range schedules {
		err := s.scheduler.Schedule(ctx, one)
		if errors.Is(err, carillon.ErrInvalid) {
			s.log.Warn("crontab: a line is refused", "reason", err)
		} else if err != nil {
			return err
		}
	}
	wanted := map[string]bool{} // also by other instances
	for i := range t.entries {
		wanted[t.entries[i].name()] = true
	}
	stored, err := s.scheduler.Schedules(ctx)
	if err != nil {
		return err
	}
	for _, old := range stored {
		if wanted[old.Name] || !s.source.covers(t, fileOf(old)) {
			continue
		}
		if err := s.scheduler.Unschedule(ctx, old.Name); err != nil && !errors.Is(err, carillon.ErrNotFound) {
			return err
		}
		s.log.Info("crontab: schedule removed", "schedule", old.Name)
	}
	return nil
}

// fileOf is the file from which a schedule came.
func fileOf(s *carillon.ScheduleInfo) string {
	var task Task
	if data, ok := s.Job.Args.(json.RawMessage); ok && json.Unmarshal(data, &task) == nil {
		return task.File
	}
	return "" // damaged, or not ours
}

package carillon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/carillon-go/carillon/internal/plan"
	"github.com/carillon-go/carillon/internal/policy"
)

// Calendar takes days, and times of the day, away from the schedules that name it.
// It is stored in Redis and shared by them; a change moves their plans.
//
// A day is excluded if Exclude says so, or a calendar of Base, unless Include says
// that it is not: so that a make-up workday can be on an excluded Saturday. Times
// of the day are decided in the same way, apart from that.
type Calendar struct {
	// Name identifies the calendar; at most 150 bytes.
	Name string `json:"name"`
	// TimeZone is that of Times; empty means the schedule's. Days are those of the
	// schedule's zone.
	TimeZone string `json:"tz,omitempty"`
	// Base are the names of calendars whose exclusions hold here, too; at most 32.
	Base []string `json:"base,omitempty"`
	// Exclude and Include select days and times.
	Exclude DaySet `json:"exclude,omitzero"`
	Include DaySet `json:"include,omitzero"`
}

// DaySet selects days, and times of every day.
type DaySet struct {
	// Dates are "2026-10-01", or "2026-10-01/2026-10-07" with both ends; at most
	// 10,000.
	Dates []string `json:"dates,omitempty"`
	// Yearly are days of every year: "12-25".
	Yearly []string `json:"yearly,omitempty"`
	// Weekdays of every week.
	Weekdays []time.Weekday `json:"weekdays,omitempty"`
	// Times are "12:00-13:30", without the end, which may be 24:00. From a later to
	// an earlier time is past midnight. At most 100.
	Times []string `json:"times,omitempty"`
}

func (c *Calendar) stored() plan.Calendar {
	return plan.Calendar{Name: c.Name, TimeZone: c.TimeZone, Base: c.Base, Exclude: plan.Rules(c.Exclude), Include: plan.Rules(c.Include)}
}

// basedOn marks, among the users of a calendar, those that are calendars.
const basedOn = "\x00"

// PutCalendar stores a calendar, or replaces the one of the same name, and moves
// the plans of all schedules that use it. When that fails halfway, the error says
// so, and the same call again completes it; a tick that the new calendar excludes
// does not fire in any case. Refused are cycles, bases that do not exist, and a
// calendar that excludes everything.
func (s *Scheduler) PutCalendar(ctx context.Context, c Calendar) error {
	p := c.stored()
	var errs []error
	for _, err := range p.Validate() {
		errs = append(errs, fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	if err := validText("Name", c.Name, maxScheduleBytes); err != nil && c.Name != "" {
		errs = append(errs, err)
	}
	err := errors.Join(errs...)
	if err == nil {
		err = s.putCalendar(ctx, p)
	}
	if err == nil {
		err = s.replan(ctx, c.Name, map[string]bool{})
	}
	return opError("put calendar", clipped(c.Name), err)
}

var errCalendarRace = fmt.Errorf("%w: others change the calendar at the same time", ErrConflict)

func (s *Scheduler) putCalendar(ctx context.Context, c plan.Calendar) error {
	shelf := newShelf(s.store)
	shelf.read[c.Name] = &c
	if _, err := shelf.compiled(ctx, c.Name); err != nil {
		if passing(err) {
			return err
		}
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	data := marshal(c)
	for range 10 {
		old, err := s.store.GetCalendar(ctx, c.Name)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		for _, base := range c.Base {
			if err := s.store.NoteCalendarUse(ctx, base, basedOn+c.Name); err != nil {
				return err
			}
		}
		if done, err := s.store.PutCalendar(ctx, c.Name, data, old); done || err != nil {
			return err
		}
	}
	return errCalendarRace
}

// replan moves the plans of all that use a calendar.
func (s *Scheduler) replan(ctx context.Context, calendar string, seen map[string]bool) error {
	if seen[calendar] {
		return nil
	}
	seen[calendar] = true
	users, err := s.store.CalendarUsers(ctx, calendar)
	if err != nil {
		return err
	}
	var errs []error
	for _, user := range users {
		if name, ok := strings.CutPrefix(user, basedOn); ok {
			errs = append(errs, s.replan(ctx, name, seen))
			continue
		}
		_, err := s.step(ctx, user, nil, func(p *program, in policy.Input) (policy.Decision, error) {
			if p.definition.Calendar == "" {
				return policy.Decision{}, errUnchanged
			}
			return policy.Replan(&p.rules, p, in), nil
		})
		if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrState) {
			errs = append(errs, fmt.Errorf("schedule %s: %w", clipped(user), err))
		}
	}
	return errors.Join(errs...)
}

// GetCalendar returns a stored calendar, or [ErrNotFound].
func (s *Scheduler) GetCalendar(ctx context.Context, name string) (*Calendar, error) {
	err := validText("Name", name, maxScheduleBytes)
	var data []byte
	if err == nil {
		data, err = s.store.GetCalendar(ctx, name)
	}
	var c Calendar
	if err == nil && json.Unmarshal(data, &c) != nil {
		err = ErrDamaged
	}
	if err != nil {
		return nil, opError("get calendar", clipped(name), err)
	}
	return &c, nil
}

// Calendars returns the names of all stored calendars, sorted.
func (s *Scheduler) Calendars(ctx context.Context) ([]string, error) {
	names, err := s.store.Calendars(ctx)
	slices.Sort(names)
	return names, opError("list calendars", "", err)
}

// DropCalendar deletes a calendar. It is refused with [ErrState] while a schedule
// or another calendar uses it; [ErrNotFound] means that there was none.
func (s *Scheduler) DropCalendar(ctx context.Context, name string) error {
	err := validText("Name", name, maxScheduleBytes)
	for tries := 0; err == nil; tries++ {
		var done bool
		if done, err = s.dropCalendar(ctx, name); done {
			return nil
		}
		if err == nil && tries == 10 {
			err = errCalendarRace
		}
	}
	return opError("drop calendar", clipped(name), err)
}

func (s *Scheduler) dropCalendar(ctx context.Context, name string) (bool, error) {
	data, err := s.store.GetCalendar(ctx, name)
	if err != nil {
		return false, err
	}
	users, err := s.store.CalendarUsers(ctx, name)
	if err != nil {
		return false, err
	}
	for _, user := range users {
		uses, err := s.uses(ctx, user, name)
		if err != nil {
			return false, err
		}
		if uses {
			return false, fmt.Errorf("%w: %s uses the calendar", ErrState, strings.Replace(clipped(user), basedOn, "calendar ", 1))
		}
	}
	return s.store.DropCalendar(ctx, name, data, users...)
}

// uses reports whether a schedule or a calendar that noted a use still has it.
func (s *Scheduler) uses(ctx context.Context, user, calendar string) (bool, error) {
	if name, ok := strings.CutPrefix(user, basedOn); ok {
		c, err := s.GetCalendar(ctx, name)
		if errors.Is(err, ErrNotFound) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		return slices.Contains(c.Base, calendar), nil
	}
	stored, err := s.store.GetSchedule(ctx, user)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	d := s.vault.read(stored)
	return d == nil || d.Calendar == calendar, nil
}

package carillon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/carillon-go/carillon/store"
)

// ScheduleInfo is what is known about a stored schedule.
type ScheduleInfo struct {
	// Schedule is the definition, with the job's arguments as JSON. Only its Name is
	// set when Problem says that it cannot be read.
	Schedule
	Generation int64       // counts the definitions the name has had
	Next       time.Time   // next tick; zero when there is none, or when it depends on the end of a run
	Last       time.Time   // last tick that was fired; zero when there is none
	Paused     *Pause      // nil: it is not paused
	Running    []time.Time // ticks whose runs are unfinished, where a policy depends on that
	Waiting    []time.Time // ticks that wait for the end of a run
	Runs       int         // in this generation; counted for MaxRuns only
	Failures   int         // failed runs in a row; counted for PauseAfter only
	Backfills  int         // that are not done
	Problem    string      // why it does not fire, if its data cannot be used
}

// Pause says since when a schedule is paused, by whom, and why. An automatic
// pause has no actor.
type Pause struct {
	At     time.Time
	Actor  string
	Reason string
}

// GetSchedule returns a stored schedule, or [ErrNotFound].
func (s *Scheduler) GetSchedule(ctx context.Context, name string) (*ScheduleInfo, error) {
	stored, err := s.stored(ctx, name)
	if err != nil {
		return nil, opError("get schedule", clipped(name), err)
	}
	return s.scheduleInfo(stored), nil
}

// stored reads a schedule whose name a caller gave.
func (s *Scheduler) stored(ctx context.Context, name string) (*store.Schedule, error) {
	if err := validText("Name", name, maxScheduleBytes); err != nil {
		return nil, err
	}
	return s.store.GetSchedule(ctx, name)
}

func (s *Scheduler) scheduleInfo(stored *store.Schedule) *ScheduleInfo {
	info := &ScheduleInfo{
		Schedule: Schedule{Name: stored.Name}, Generation: stored.Generation, Next: stored.Next, Last: stored.Last, Problem: stored.Parked,
	}
	state, _ := readState(stored.State)
	if p := state.Pause; p != nil {
		info.Paused = &Pause{At: time.UnixMilli(p.At), Actor: p.Actor, Reason: p.Reason}
	}
	for _, run := range state.Open {
		info.Running = append(info.Running, time.UnixMilli(run.Tick))
	}
	for _, tick := range state.Buffer {
		info.Waiting = append(info.Waiting, time.UnixMilli(tick))
	}
	info.Runs, info.Failures, info.Backfills = state.Runs, state.Failures, len(state.Backfills)
	d, err := s.vault.definition(stored.Name, stored.Definition)
	if err == nil {
		err = errors.Join(d.validate()...)
	}
	if err != nil {
		info.Problem = err.Error()
		return info
	}
	info.Schedule = d.schedule(stored.Name)
	return info
}

// Schedules returns all stored schedules, in the order of their names: also those
// that are paused, that have a Problem, or that have ended, whose Next is zero.
// Unschedule removes one from the list.
func (s *Scheduler) Schedules(ctx context.Context) ([]*ScheduleInfo, error) {
	names, err := s.store.Schedules(ctx)
	if err != nil {
		return nil, opError("list schedules", "", err)
	}
	return s.infosOf(ctx, names)
}

// SchedulesOf returns the schedules of a group, in the order of their names.
func (s *Scheduler) SchedulesOf(ctx context.Context, group string) ([]*ScheduleInfo, error) {
	names, err := s.members(ctx, group)
	if err != nil {
		return nil, opError("list schedules", clipped(group), err)
	}
	infos, err := s.infosOf(ctx, names)
	return slices.DeleteFunc(infos, func(i *ScheduleInfo) bool { return i.Problem == "" && i.Group != group }), err
}

func (s *Scheduler) infosOf(ctx context.Context, names []string) ([]*ScheduleInfo, error) {
	slices.Sort(names)
	all, errs := s.store.GetSchedules(ctx, names)
	var out []*ScheduleInfo
	var failed []error
	for i, err := range errs {
		switch {
		case err == nil:
			out = append(out, s.scheduleInfo(all[i]))
		case errors.Is(err, ErrNotFound): // deleted meanwhile
		case errors.Is(err, ErrDamaged):
			out = append(out, &ScheduleInfo{Schedule: Schedule{Name: names[i]}, Problem: err.Error()})
		default:
			failed = append(failed, err)
		}
	}
	return out, opError("list schedules", "", store.Distinct(failed))
}

// NextTicks returns the next n ticks of a stored schedule, at most 1,000, fewer
// when it ends before. Ticks that depend on the end of a run are not known. Jitter
// is left out.
func (s *Scheduler) NextTicks(ctx context.Context, name string, n int) ([]time.Time, error) {
	if n < 0 || n > maxNextTicks {
		return nil, opError("next ticks", clipped(name), invalid("n", "%d is not between 0 and %d", n, maxNextTicks))
	}
	stored, err := s.stored(ctx, name)
	if err != nil {
		return nil, opError("next ticks", clipped(name), err)
	}
	p, err := s.programOf(ctx, stored)
	if err != nil {
		return nil, opError("next ticks", clipped(name), err)
	}
	left := n
	if p.MaxRuns > 0 {
		state, _ := readState(stored.State)
		left = min(left, p.MaxRuns-state.Runs)
	}
	var out []time.Time
	for tick := stored.Next; left > 0 && !tick.IsZero(); left-- {
		out = append(out, tick)
		tick, _, _ = p.Next(tick)
	}
	return out, nil
}

const maxNextTicks = 1000

// programOf compiles a stored schedule.
func (s *Scheduler) programOf(ctx context.Context, stored *store.Schedule) (*program, error) {
	d, err := s.vault.definition(stored.Name, stored.Definition)
	if err != nil {
		return nil, err
	}
	return s.compile(ctx, stored.Name, d, newShelf(s.store))
}

// ScheduleVersion is a definition that a schedule has or had.
type ScheduleVersion struct {
	Generation int64
	At         time.Time // when it was stored
	Actor      string    // by whom: see [WithActor]
	Schedule   Schedule  // with the job's arguments as JSON
	Problem    string    // why the definition cannot be read, if so
}

// versionMeta is what is stored beside a definition.
type versionMeta struct {
	At    int64  `json:"at"`
	Actor string `json:"by,omitempty"`
	Why   string `json:"why,omitempty"`
}

// versionOf returns the version of a generation, nil if it is not kept any more.
func versionOf(versions []store.Version, generation int64) *store.Version {
	for i := range versions {
		if versions[i].Generation == generation {
			return &versions[i]
		}
	}
	return nil
}

// Versions returns the last 20 definitions of a schedule, oldest first; the last
// one is in force. They outlive the schedule for as long as its ledger.
func (s *Scheduler) Versions(ctx context.Context, name string) ([]ScheduleVersion, error) {
	err := validText("Name", name, maxScheduleBytes)
	var stored []store.Version
	if err == nil {
		stored, err = s.store.Versions(ctx, name)
	}
	if err != nil {
		return nil, opError("versions", clipped(name), err)
	}
	var out []ScheduleVersion
	for _, v := range stored {
		var meta versionMeta
		_ = json.Unmarshal(v.Meta, &meta) // damaged, it shows as empty
		one := ScheduleVersion{Generation: v.Generation, At: time.UnixMilli(meta.At), Actor: meta.Actor, Schedule: Schedule{Name: name}}
		if d, err := s.vault.definition(name, v.Definition); err != nil {
			one.Problem = err.Error()
		} else {
			one.Schedule = d.schedule(name)
		}
		out = append(out, one)
	}
	return out, nil
}

// Diff lists the fields in which v differs from an earlier version, as
// "field: before -> after". Of arguments and headers it only says that they differ.
func (v ScheduleVersion) Diff(before ScheduleVersion) []string {
	fields := func(s Schedule) map[string]json.RawMessage {
		out := map[string]json.RawMessage{}
		flatten(out, "", marshal(s))
		return out
	}
	now, then := fields(v.Schedule), fields(before.Schedule)
	var out []string
	for _, name := range slices.Sorted(maps.Keys(joined(now, then))) {
		a, b := then[name], now[name]
		if bytes.Equal(a, b) {
			continue
		}
		if strings.Contains(strings.ToLower(name), "args") || strings.Contains(strings.ToLower(name), "headers") {
			out = append(out, name+" differ")
			continue
		}
		out = append(out, fmt.Sprintf("%s: %s -> %s", name, orNone(a), orNone(b)))
	}
	return out
}

// flatten lists the leaves of a JSON object by their paths.
func flatten(into map[string]json.RawMessage, path string, data json.RawMessage) {
	var object map[string]json.RawMessage
	leaf := strings.HasSuffix(strings.ToLower(path), "args")
	if leaf || json.Unmarshal(data, &object) != nil || object == nil {
		if !slices.Contains([]string{"null", `""`, "0", "false", `"0001-01-01T00:00:00Z"`}, string(data)) {
			into[path] = data
		}
		return
	}
	for name, value := range object {
		at := name
		if path != "" {
			at = path + "." + name
		}
		flatten(into, at, value)
	}
}

func joined(a, b map[string]json.RawMessage) map[string]json.RawMessage {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

func orNone(data json.RawMessage) string {
	if data == nil {
		return "none"
	}
	return string(data)
}

// Rollback stores an earlier definition of a schedule again, as a new generation.
// Programs that declare another one the schedule has had do not replace it; one
// it never had does.
func (s *Scheduler) Rollback(ctx context.Context, name string, generation int64) error {
	err := validText("Name", name, maxScheduleBytes)
	var versions []store.Version
	if err == nil {
		versions, err = s.store.Versions(ctx, name)
	}
	if err == nil {
		err = fmt.Errorf("generation %d: %w", generation, ErrNotFound)
		if v := versionOf(versions, generation); v != nil {
			var d *definition
			if d, err = s.vault.definition(name, v.Definition); err == nil {
				err = s.put(ctx, name, d, restored)
			}
		}
	}
	return opError("rollback", clipped(name), err)
}

// reseal stores the same definition under the current key, if it was under
// another one. The plan goes on.
func (s *Scheduler) reseal(ctx context.Context, old *store.Schedule, d *definition) error {
	if s.vault.ring == nil {
		return nil
	}
	fresh := *d
	if was := s.vault.read(old); was != nil {
		fresh.AnchorMS, fresh.Version = was.AnchorMS, was.Version
	}
	locked := marshal(s.vault.lock(fresh, old.Name))
	if bytes.Equal(locked, old.Definition) {
		return nil
	}
	versions, err := s.store.Versions(ctx, old.Name)
	if err != nil {
		return err
	}
	var meta []byte // who stored it, and when, stays
	if v := versionOf(versions, old.Generation); v != nil {
		meta = v.Meta
	}
	_, _, err = s.store.PutSchedule(ctx, store.Put{Name: old.Name, Meta: meta, Group: d.Group, Old: old, Definition: locked, Same: true})
	return err
}

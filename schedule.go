package carillon

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/carillon-go/carillon/internal/policy"
	"github.com/carillon-go/carillon/store"
)

// Schedule creates jobs at its planned times, the ticks. It is stored in Redis
// under its name and outlives all instances. The zero value of each field but
// Name, Spec and Job is the documented default. docs/schedules.md has the rules
// in full.
type Schedule struct {
	// Name identifies the schedule; at most 150 bytes, without '~'.
	Name string
	// Group is a name under which schedules are listed, paused and resumed
	// together; at most 100 bytes.
	Group string
	// Spec plans the ticks.
	Spec Spec
	// TimeZone is the IANA name of the zone in which local times are read: those of
	// Cron, of specs in days and longer, of Window, and of calendars. Empty means UTC.
	TimeZone string
	// ClockChange says what happens to local times when clocks are changed.
	ClockChange ClockChange
	// Calendar is the name of a stored [Calendar], which takes ticks away.
	// OnExcluded says what happens to those.
	Calendar   string
	OnExcluded OnExcluded
	// Start and End bound the ticks, both included. Zero: no bound.
	Start, End time.Time
	// MaxRuns ends the schedule after so many runs of one generation. 0: no bound.
	MaxRuns int
	// Jitter delays each tick by up to so much, but never to the next tick. The
	// delay is made of the schedule's name and the tick, so it is always the same.
	Jitter time.Duration
	// Job is what a tick creates. It can have neither ID nor RunAt; each tick's
	// job gets an ID made of schedule, generation and tick, so one tick never
	// creates two. With Delay it starts so much later than the tick was fired.
	Job Job
	// Sharding makes a tick create several jobs.
	Sharding Sharding

	// Misfire says what happens to ticks that were not fired MisfireAfter their
	// time, because no instance ran or Redis was away. 0 means 5 s.
	Misfire      Misfire
	MisfireAfter time.Duration
	// ReplayMax and ReplayAge bound what FireAll makes up for: so many of the
	// latest ticks, 0 means 100, at most 10,000; and none that are older, 0 means
	// any.
	ReplayMax int
	ReplayAge time.Duration

	// Overlap says what happens to a tick that comes while a run is unfinished: a
	// job of an earlier tick, its shards, or its Then. Retries belong to the run.
	Overlap Overlap
	// BufferMax bounds how many ticks BufferAll lets wait. 0 means 100; at most
	// 1,000.
	BufferMax int
	// DropOnFailure leaves waiting ticks out when the run they wait for fails.
	// Otherwise they run.
	DropOnFailure bool
	// PauseAfter pauses the schedule when so many runs in a row have failed. 0:
	// never.
	PauseAfter int
}

// Misfire is a policy for ticks that were missed.
type Misfire int

// The policies for missed ticks.
const (
	FireOnce   Misfire = iota // one run for all of them, which has the first one's tick
	SkipMissed                // none
	FireLast                  // one run, for the last one
	FireAll                   // a run for each, oldest first, within ReplayMax and ReplayAge
)

// Overlap is a policy for ticks that come while a run is unfinished, anywhere.
type Overlap int

// The policies for ticks during a run.
const (
	Allow     Overlap = iota // it runs beside; a Mutex on the job keeps them apart
	Skip                     // it is left out
	BufferOne                // one waits for the end of the run, further ones are left out
	BufferAll                // up to BufferMax wait
	Replace                  // the run is cancelled, and the tick runs when it has ended
)

// OnExcluded is a policy for ticks that a calendar takes away.
type OnExcluded int

// The policies for excluded ticks.
const (
	SkipExcluded OnExcluded = iota // they are left out
	MoveNext                       // they move to the same time of the next day that is not excluded
	MovePrevious                   // they move to the previous one
)

// Sharding makes each tick create several jobs, its shards, which any instances
// take; a shard whose instance is lost goes to another one as any job does. The
// handler finds its share in Execution.Shard.
type Sharding struct {
	// Shards is how many jobs a tick creates, at most 1,000. 0 means one for each
	// of Params, or one that is no shard.
	Shards int
	// Params has a parameter for each shard, or is empty. At most 1,000 bytes each.
	Params []string
	// Broadcast makes a tick create one job for each instance that is alive and has
	// the handler, which runs there and nowhere else. Shards and Params are empty
	// then.
	Broadcast bool
	// Then is created once all shards have ended, whatever their outcome.
	// Execution.Shards has these. It can be set without shards, too.
	Then *Job
}

// Limits of schedules.
const (
	maxScheduleBytes = 150 // leaves room for the rest of a job's ID
	maxGroupBytes    = 100
	maxShards        = 1000
	maxParamBytes    = 1000
	maxReplay        = 10_000
	maxBuffer        = 1000
	maxCount         = 1_000_000_000
	maxTickBytes     = 64 << 20 // of the arguments of all shards, which travel in one command

	defaultMisfireAfter = 5 * time.Second
	defaultReplay       = 100
	defaultBuffer       = 100
)

// validate checks what can be checked without looking at the plan.
func (sched *Schedule) validate() (errs []error) {
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	add(validText("Name", sched.Name, maxScheduleBytes))
	if strings.Contains(sched.Name, "~") {
		add(invalid("Name", "must not contain '~'"))
	}
	if sched.Group != "" {
		add(validText("Group", sched.Group, maxGroupBytes))
	}
	if sched.Calendar != "" {
		add(validText("Calendar", sched.Calendar, maxScheduleBytes))
	} else if sched.OnExcluded != SkipExcluded {
		add(invalid("OnExcluded", "is set without a Calendar"))
	}
	if sched.TimeZone != "" && sched.Calendar == "" && !sched.Spec.local() {
		add(invalid("TimeZone", "has no meaning for this Spec, which plans no local times; leave it empty"))
	}
	if sched.Spec.problem != "" {
		add(invalid("Spec", "%s", sched.Spec.problem))
	}
	add(validTime("Start", sched.Start))
	add(validTime("End", sched.End))
	if !sched.Start.IsZero() && !sched.End.IsZero() && sched.End.Before(sched.Start) {
		add(invalid("End", "%s is before Start, %s", sched.End.Format(time.RFC3339), sched.Start.Format(time.RFC3339)))
	}
	add(validDuration("Jitter", sched.Jitter))
	add(validDuration("MisfireAfter", sched.MisfireAfter))
	add(validDuration("ReplayAge", sched.ReplayAge))
	for _, n := range []struct {
		field      string
		value, max int
	}{
		{"MaxRuns", sched.MaxRuns, maxCount}, {"ReplayMax", sched.ReplayMax, maxReplay}, {"BufferMax", sched.BufferMax, maxBuffer},
		{"PauseAfter", sched.PauseAfter, maxCount}, {"Sharding.Shards", sched.Sharding.Shards, maxShards},
		{"Misfire", int(sched.Misfire), int(FireAll)}, {"Overlap", int(sched.Overlap), int(Replace)},
		{"OnExcluded", int(sched.OnExcluded), int(MovePrevious)},
		{"ClockChange.Gap", int(sched.ClockChange.Gap), int(GapSkip)}, {"ClockChange.Repeat", int(sched.ClockChange.Repeat), int(RepeatBoth)},
	} {
		if n.value < 0 || n.value > n.max {
			add(invalid(n.field, "%d is not between 0 and %d", n.value, n.max))
		}
	}
	errs = append(errs, sched.Sharding.validate(&sched.Job)...)
	return append(errs, validTemplate("Job", &sched.Job)...)
}

func (sh *Sharding) validate(job *Job) (errs []error) {
	add := func(field, format string, args ...any) {
		errs = append(errs, invalid("Sharding."+field, format, args...))
	}
	if len(sh.Params) > maxShards {
		add("Params", "%d are more than %d", len(sh.Params), maxShards)
	}
	if sh.Shards > 0 && len(sh.Params) > 0 && len(sh.Params) != sh.Shards {
		add("Params", "%d parameters for %d shards", len(sh.Params), sh.Shards)
	}
	for i, p := range sh.Params {
		if len(p) > maxParamBytes {
			add(fmt.Sprintf("Params[%d]", i), "%d bytes are more than %d", len(p), maxParamBytes)
		}
	}
	if sh.Broadcast && (sh.Shards > 0 || len(sh.Params) > 0) {
		add("Broadcast", "has one job for each instance; leave Shards and Params empty")
	}
	if (sh.Broadcast || sh.jobs() > 1) && job.Unique.Key != "" {
		add("Shards", "the jobs of a tick cannot share a unique key; leave Job.Unique empty")
	}
	if sh.Broadcast && job.Mutex != "" {
		add("Broadcast", "the jobs run on all instances; leave Job.Mutex empty")
	}
	if sh.Then != nil {
		if sh.Then.Mutex != "" || sh.Then.Unique.Key != "" {
			add("Then", "cannot have a Mutex or a unique key; leave them empty")
		}
		errs = append(errs, validTemplate("Sharding.Then", sh.Then)...)
	}
	return errs
}

// jobs is how many jobs a tick creates; 0 when it depends on the instances.
func (sh *Sharding) jobs() int {
	if sh.Broadcast {
		return 0
	}
	return max(1, sh.Shards, len(sh.Params))
}

// validTemplate checks a job that is created again and again.
func validTemplate(field string, job *Job) (errs []error) {
	for _, err := range job.validate() {
		errs = append(errs, fmt.Errorf("%s: %w", field, err))
	}
	if job.ID != "" {
		errs = append(errs, invalid(field+".ID", "each tick's job has an ID of its own; leave it empty"))
	}
	if !job.RunAt.IsZero() || !job.ExpiresAt.IsZero() {
		errs = append(errs, invalid(field, "RunAt and ExpiresAt are instants, which cannot repeat; leave them zero"))
	}
	return errs
}

// Schedule stores a schedule, or replaces the one of the same name. Every
// instance may do so at its start: a definition equal to the stored one changes
// nothing, and the plan goes on where it was. Another definition is a new
// generation, which starts from now; once Schedule has returned, an older one
// fires no more. Run must be called somewhere for it to fire.
//
// While two releases of a service run side by side, the older one must not put
// its definition back. So one that the schedule has had before is not stored as
// long as an instance that runs stands by the present one, or when that was set by
// [Scheduler.Rollback]; both sides log that they disagree, and an instance that
// runs asks again every minute.
func (s *Scheduler) Schedule(ctx context.Context, sched Schedule) error {
	d, err := s.define(&sched)
	if err == nil {
		s.stands.declare(sched.Name, d)
		err = s.put(ctx, sched.Name, d, declared)
	}
	return opError("schedule", clipped(sched.Name), err)
}

// Why a definition is stored.
const (
	declared = "declared" // by a program, which says the same each time it starts
	restored = "restored" // by somebody, from an earlier generation
)

// maxTries bounds how often a change is tried. Each try takes two round trips, in
// which others can change the schedule, or fire it.
const maxTries = 50

var errRace = fmt.Errorf("%w: others change the schedule at the same time", ErrConflict)

// put stores a definition as the newest generation, unless it is that already.
func (s *Scheduler) put(ctx context.Context, name string, d *definition, why string) error {
	var asked int64 // the generation that others were asked about
	for tries := range maxTries {
		now, err := s.store.Now(ctx)
		if err != nil {
			return err
		}
		now = now.Truncate(time.Millisecond)
		old, err := s.store.GetSchedule(ctx, name)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		was := s.vault.read(old)
		if was != nil && was.equal(d) && old.Parked == "" {
			s.stands.settled(name, d)
			return s.reseal(ctx, old, d)
		}
		if was != nil && !was.equal(d) && why == declared && asked != old.Generation {
			if superseded, err := s.superseded(ctx, old, d); superseded || err != nil {
				return err
			}
			asked = old.Generation
			continue // asking takes its time
		}
		done, err := s.replace(ctx, name, d, old, was, now, why)
		if err != nil {
			return err
		}
		if done {
			s.stands.settled(name, d)
			return nil
		}
		pause(ctx, rand.N(time.Duration(tries+1)*time.Millisecond)) // not in step with the others
	}
	return errRace
}

// replace makes d the generation after old, if that is still the newest.
func (s *Scheduler) replace(ctx context.Context, name string, d *definition, old *store.Schedule, was *definition, now time.Time, why string) (bool, error) {
	fresh := *d
	fresh.AnchorMS = now.UnixMilli()
	p, err := s.compile(ctx, name, &fresh, newShelf(s.store))
	if err != nil {
		return false, err
	}
	in := policy.Input{Now: now, Next: p.firstAfter(now)}
	if old != nil {
		in.State, _ = readState(old.State)
	}
	mark, err := s.groupMark(ctx, d.Group)
	if err != nil {
		return false, err
	}
	if in.State.Pause == nil && mark != nil && (was == nil || was.Group != d.Group) {
		in.State.Pause = mark
	}
	next := policy.First(&p.rules, p, in, s.dueOf(ctx, old))
	if next.Next.IsZero() && len(next.State.Open) == 0 {
		return false, invalid("Spec", "%v never fires after now", Spec{plan: d.Spec})
	}
	put := store.Put{
		Name: name, Old: old, Definition: marshal(s.vault.lock(fresh, name)), Next: next.Next, Look: next.Look,
		State: stateOf(next.State), Meta: marshal(versionMeta{At: now.UnixMilli(), Actor: s.actor(ctx), Why: why}), Group: d.Group,
	}
	for _, r := range next.Record {
		put.Ledger = append(put.Ledger, lineOf(r, old.Generation))
	}
	if d.Calendar != "" { // before it is used, so that nobody drops it meanwhile
		if err := s.store.NoteCalendarUse(ctx, d.Calendar, name); err != nil {
			return false, err
		}
	}
	generation, done, err := s.store.PutSchedule(ctx, put)
	if err == nil && done && mark == nil && d.Group != "" { // the group may have been paused meanwhile
		if mark, err = s.groupMark(ctx, d.Group); err == nil && mark != nil && in.State.Pause == nil {
			err = s.PauseSchedule(ctx, name, mark.Reason)
		}
	}
	if err == nil && done {
		s.log.Info("carillon: schedule stored", "schedule", name, "generation", generation, "spec", d.Spec.String(), "next", next.Next)
	}
	return done, err
}

// dueOf tells where the plan of a stored schedule stands, if it can be used.
func (s *Scheduler) dueOf(ctx context.Context, stored *store.Schedule) *policy.Due {
	if stored == nil || stored.Parked != "" {
		return nil
	}
	p, err := s.programOf(ctx, stored)
	if err != nil {
		return nil
	}
	return &policy.Due{Plan: p, Next: stored.Next}
}

// Unschedule deletes a schedule. Jobs it has created stay. [ErrNotFound] means
// that there was none.
func (s *Scheduler) Unschedule(ctx context.Context, name string) error {
	err := validText("Name", name, maxScheduleBytes)
	if err == nil {
		s.stands.forswear(name)
		err = s.store.DropSchedule(ctx, name)
	}
	return opError("unschedule", name, err)
}

func clipped(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

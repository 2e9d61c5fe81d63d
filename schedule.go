package carillon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/carillon-go/carillon/internal/cron"
	"github.com/carillon-go/carillon/store"
)

// Schedule creates a job at each of its planned times, the ticks. It is stored
// in Redis under its name and outlives all instances.
type Schedule struct {
	// Name identifies the schedule; at most 150 bytes, without '~'.
	Name string
	// Spec plans the ticks.
	Spec Spec
	// TimeZone is the IANA name of the zone in which a Cron spec is read. Empty
	// means UTC.
	TimeZone string
	// Job is what a tick creates. It can have neither ID nor RunAt; each tick's
	// job gets an ID made of schedule, generation and tick, so one tick never
	// creates two. With Delay it starts so much later than the tick was fired.
	Job Job
	// Misfire says what happens to ticks that passed while no instance ran.
	Misfire Misfire
	// Overlap says what happens when the job of the tick before is unfinished.
	Overlap Overlap
}

// Misfire is a policy for ticks that were missed.
type Misfire int

// FireOnce creates one job for the earliest missed tick and goes on with the
// next tick in the future. It is the default, and so far the only policy.
const FireOnce Misfire = 0

// Overlap is a policy for ticks that come while the last job is unfinished.
type Overlap int

// Allow creates the job in any case. It is the default, and so far the only
// policy; a Mutex on the job keeps runs apart.
const Allow Overlap = 0

// Spec plans the ticks of a [Schedule]. It is a value made by [Cron], [Every] or
// [At]; a mistake in their arguments is reported by Scheduler.Schedule.
type Spec struct {
	cron  string
	every time.Duration
	at    []time.Time
}

// Cron plans by a cron expression with five fields (minute, hour, day of month,
// month, day of week), six fields (seconds first), or a macro such as @hourly.
// When both day fields are restricted, a day that matches either is planned. A
// local time that a clock change skips is skipped; one that it repeats is
// planned twice.
func Cron(expression string) Spec { return Spec{cron: expression} }

// Every plans a tick each interval, counted from the moment the schedule is
// stored. At least 100 ms; the resolution is 1 ms.
func Every(interval time.Duration) Spec { return Spec{every: interval} }

// At plans single instants, at most 1,000. Those in the past are left out.
func At(instants ...time.Time) Spec { return Spec{at: instants} }

// String returns the spec in words.
func (s Spec) String() string {
	switch {
	case s.cron != "":
		return "cron " + s.cron
	case s.every != 0:
		return "every " + s.every.String()
	case len(s.at) == 1:
		return "at " + s.at[0].UTC().Format(time.RFC3339Nano)
	case len(s.at) > 1:
		return fmt.Sprintf("at %d instants", len(s.at))
	}
	return "never"
}

// Limits of schedules.
const (
	maxScheduleBytes = 150 // leaves room for the rest of a job's ID
	minEvery         = 100 * time.Millisecond
	maxInstants      = 1000
)

// planner computes ticks.
type planner struct {
	spec Spec
	cron cron.Schedule
	zone *time.Location
}

func newPlanner(s Spec, zone string) (*planner, []error) {
	p := &planner{spec: s, zone: time.UTC}
	var errs []error
	kinds := 0
	if s.cron != "" {
		kinds++
		parsed, err := cron.Parse(s.cron)
		if err != nil {
			errs = append(errs, invalid("Spec", "%v", err))
		}
		p.cron = parsed
	}
	if s.every != 0 {
		kinds++
		if s.every < minEvery || s.every > maxDelay {
			errs = append(errs, invalid("Spec", "every %v is not between %v and %v", s.every, minEvery, maxDelay))
		} else if s.every%time.Millisecond != 0 {
			errs = append(errs, invalid("Spec", "every %v is not a whole number of milliseconds", s.every))
		}
	}
	if len(s.at) > 0 {
		kinds++
		if len(s.at) > maxInstants {
			errs = append(errs, invalid("Spec", "%d instants are more than %d", len(s.at), maxInstants))
		}
		for _, t := range s.at {
			if t.IsZero() {
				errs = append(errs, invalid("Spec", "an instant is the zero time"))
				break
			} else if err := validTime("Spec", t); err != nil {
				errs = append(errs, err)
				break
			}
		}
	}
	if kinds == 0 {
		errs = append(errs, invalid("Spec", "is empty, so it never fires; use Cron, Every or At"))
	}
	if zone != "" {
		loc, err := time.LoadLocation(zone)
		if err != nil || zone == "Local" {
			errs = append(errs, invalid("TimeZone", "%q is not a known IANA time zone", clipped(zone)))
		} else {
			p.zone = loc
		}
		if s.cron == "" {
			errs = append(errs, invalid("TimeZone", "has a meaning for Cron only"))
		}
	}
	return p, errs
}

// next returns the first tick after an instant. anchor is a tick, or the moment
// the schedule was stored. Zero: there is none.
func (p *planner) next(anchor, after time.Time) time.Time {
	switch {
	case p.spec.cron != "":
		return p.cron.Next(after, p.zone)
	case p.spec.every > 0:
		passed := after.Sub(anchor)
		if passed < 0 {
			return anchor
		}
		return after.Add(p.spec.every - passed%p.spec.every)
	}
	for _, t := range slices.SortedFunc(slices.Values(p.spec.at), time.Time.Compare) {
		if t = ceilMilli(t); t.After(after) {
			return t
		}
	}
	return time.Time{}
}

// definition is a schedule as it is stored. A reader ignores fields it does not
// know and leaves a schedule with a higher version to newer releases.
type definition struct {
	Version  int       `json:"v"`
	Cron     string    `json:"cron,omitempty"`
	EveryMS  int64     `json:"everyMs,omitempty"`
	AtMS     []int64   `json:"atMs,omitempty"`
	TimeZone string    `json:"tz,omitempty"`
	Misfire  Misfire   `json:"misfire,omitempty"`
	Overlap  Overlap   `json:"overlap,omitempty"`
	Job      storedJob `json:"job"`
}

// storedJob is a job whose arguments are encoded already.
type storedJob struct {
	Job
	Args   json.RawMessage `json:"args"`
	Sealed []byte          `json:"sealed,omitempty"` // Args and Headers, when they are encrypted
}

const definitionVersion = 1

// Schedule stores a schedule, or replaces the one of the same name. Every
// instance may do so at its start: a definition equal to the stored one changes
// nothing, and the plan goes on where it was. Another definition is a new
// generation, which starts from now. Run must be called somewhere for it to fire.
func (s *Scheduler) Schedule(ctx context.Context, sched Schedule) error {
	p, errs := newPlanner(sched.Spec, sched.TimeZone)
	if err := validText("Name", sched.Name, maxScheduleBytes); err != nil {
		errs = append(errs, err)
	}
	for _, err := range sched.Job.validate() {
		errs = append(errs, fmt.Errorf("Job: %w", err))
	}
	if sched.Job.ID != "" {
		errs = append(errs, invalid("Job.ID", "each tick's job has an ID of its own; leave it empty"))
	}
	if !sched.Job.RunAt.IsZero() || !sched.Job.ExpiresAt.IsZero() {
		errs = append(errs, invalid("Job", "RunAt and ExpiresAt are instants, which cannot repeat; leave them zero"))
	}
	if strings.Contains(sched.Name, "~") {
		errs = append(errs, invalid("Name", "must not contain '~'"))
	}
	if sched.Misfire != FireOnce {
		errs = append(errs, invalid("Misfire", "%d is unknown", sched.Misfire))
	}
	if sched.Overlap != Allow {
		errs = append(errs, invalid("Overlap", "%d is unknown", sched.Overlap))
	}
	args, err := encode("Job.Args", sched.Job.Args, s.config.MaxPayload)
	if err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return &Error{Op: "schedule", Job: clipped(sched.Name), Err: err}
	}
	d := definition{
		Version: definitionVersion, Cron: sched.Spec.cron, EveryMS: sched.Spec.every.Milliseconds(),
		TimeZone: sched.TimeZone, Misfire: sched.Misfire, Overlap: sched.Overlap, Job: storedJob{Job: sched.Job, Args: args},
	}
	d.Job.Job.Args = nil
	for _, t := range sched.Spec.at {
		d.AtMS = append(d.AtMS, ceilMilli(t).UnixMilli())
	}
	data := marshal(s.vault.lock(d, sched.Name))
	now, err := s.store.Now(ctx)
	if err != nil {
		return opError("schedule", sched.Name, err)
	}
	now = now.Truncate(time.Millisecond)
	first := p.next(now, now)
	var same []byte
	if first.IsZero() || s.vault.ring != nil { // otherwise equal definitions are equal bytes, which Redis compares
		old, err := s.store.GetSchedule(ctx, sched.Name)
		if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrDamaged) {
			return opError("schedule", sched.Name, err)
		}
		if err == nil && s.vault.says(old.Definition, d, sched.Name) {
			same = old.Definition
		}
	}
	if first.IsZero() {
		if same != nil {
			return nil // it has fired its last tick before
		}
		return &Error{Op: "schedule", Job: sched.Name, Err: invalid("Spec", "%v never fires after now", sched.Spec)}
	}
	_, changed, err := s.store.PutSchedule(ctx, sched.Name, data, same, first)
	if err == nil && changed {
		s.log.Info("carillon: schedule stored", "schedule", sched.Name, "spec", sched.Spec.String(), "next", first)
	}
	return opError("schedule", sched.Name, err)
}

// Unschedule deletes a schedule. Jobs it has created stay. [ErrNotFound] means
// that there was none.
func (s *Scheduler) Unschedule(ctx context.Context, name string) error {
	err := validText("Name", name, maxScheduleBytes)
	if err == nil {
		err = s.store.DropSchedule(ctx, name)
	}
	return opError("unschedule", name, err)
}

// ScheduleInfo is what is known about a stored schedule.
type ScheduleInfo struct {
	Name       string
	Spec       Spec
	TimeZone   string
	Job        Job
	Misfire    Misfire
	Overlap    Overlap
	Generation int64     // counts the definitions the name has had
	Next       time.Time // next tick; zero when there is none
	Last       time.Time // last tick that was fired; zero when there is none
	Problem    string    // why it does not fire, if its data cannot be used
}

// GetSchedule returns a stored schedule, or [ErrNotFound].
func (s *Scheduler) GetSchedule(ctx context.Context, name string) (*ScheduleInfo, error) {
	if err := validText("Name", name, maxScheduleBytes); err != nil {
		return nil, opError("get schedule", name, err)
	}
	stored, err := s.store.GetSchedule(ctx, name)
	if err != nil {
		return nil, opError("get schedule", name, err)
	}
	info := &ScheduleInfo{
		Name: name, Generation: stored.Generation, Next: stored.Next, Last: stored.Last, Problem: stored.Parked,
	}
	d, p, problem := s.vault.definition(stored)
	if problem == nil {
		info.Spec, info.TimeZone, info.Job, info.Misfire, info.Overlap = p.spec, d.TimeZone, d.Job.Job, d.Misfire, d.Overlap
		info.Job.Args = d.Job.Args
	} else {
		info.Problem = problem.Error()
	}
	return info, nil
}

// Schedules returns the schedules that will fire.
func (s *Scheduler) Schedules(ctx context.Context) ([]*ScheduleInfo, error) {
	names, err := s.store.Schedules(ctx)
	if err != nil {
		return nil, opError("list schedules", "", err)
	}
	var out []*ScheduleInfo
	for _, name := range names {
		info, err := s.GetSchedule(ctx, name)
		if errors.Is(err, ErrNotFound) {
			continue // deleted meanwhile
		}
		if errors.Is(err, ErrDamaged) {
			info, err = &ScheduleInfo{Name: name, Problem: err.Error()}, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, info)
	}
	return out, nil
}

var errNewerSchedule = fmt.Errorf("schedule: %w", store.ErrNewer)

// definition reads a stored schedule.
func (v *vault) definition(stored *store.Schedule) (*definition, *planner, error) {
	var version struct {
		V int `json:"v"`
	}
	var d definition
	err := json.Unmarshal(stored.Definition, &version)
	if err == nil && version.V > definitionVersion {
		return nil, nil, errNewerSchedule
	}
	if err == nil {
		err = json.Unmarshal(stored.Definition, &d)
	}
	if err != nil || d.Version != definitionVersion {
		return nil, nil, errors.New("the stored definition is damaged")
	}
	if err := v.unlock(&d, stored.Name); err != nil {
		return nil, nil, err
	}
	spec := Spec{cron: d.Cron, every: time.Duration(d.EveryMS) * time.Millisecond}
	for _, ms := range d.AtMS {
		spec.at = append(spec.at, time.UnixMilli(ms))
	}
	p, errs := newPlanner(spec, d.TimeZone)
	errs = append(errs, d.Job.validate()...)
	if err := errors.Join(errs...); err != nil {
		return nil, nil, fmt.Errorf("the stored definition cannot be used: %w", err)
	}
	return &d, p, nil
}

// fireBatch is how many schedules one round fires before it looks again.
const fireBatch = 100

// fire creates the jobs of all ticks that have come and returns the next tick
// of the segment; zero when only schedules are left that others must fire.
func (in *instance) fire(ctx context.Context, segment int, now time.Time) (time.Time, error) {
	left := 0 // schedules that stay in their place
	for {
		due, err := in.store.DueSchedules(ctx, segment, left, fireBatch, now)
		if err != nil {
			return time.Time{}, err
		}
		for _, stored := range due {
			moved, err := in.fireOne(ctx, stored, now)
			if err != nil {
				return time.Time{}, err
			}
			if !moved {
				left++
			}
		}
		if len(due) < fireBatch {
			break
		}
	}
	return in.store.NextTick(ctx, segment, now)
}

// fireOne fires one schedule, or takes it out of the plan when it cannot be
// used. It reports false when the schedule stays where it was.
func (in *instance) fireOne(ctx context.Context, stored *store.Schedule, now time.Time) (bool, error) {
	if stored.Parked != "" {
		return in.park(ctx, stored, errors.New(stored.Parked))
	}
	d, p, err := in.scheduler.vault.definition(stored)
	switch {
	case errors.Is(err, ErrDecrypt) && !errors.Is(err, ErrDamaged):
		if in.warned.first("sealed schedule " + stored.Name) {
			in.log.Warn("carillon: this instance cannot read a schedule and leaves it to others", "schedule", stored.Name, "error", err)
		}
		return false, nil
	case errors.Is(err, store.ErrNewer):
		if in.warned.first("newer schedule " + stored.Name) {
			in.log.Warn("carillon: a schedule was stored by a newer release and is left to it", "schedule", stored.Name)
		}
		return false, nil
	case err != nil:
		return in.park(ctx, stored, err)
	case stored.Next.IsZero():
		return in.park(ctx, stored, errors.New("it is in the plan without a next tick"))
	}
	job := d.Job.Job
	job.Args = d.Job.Args
	spec, err := job.spec(maxPayload)
	if err != nil {
		return in.park(ctx, stored, err)
	}
	spec.Schedule, spec.Tick = stored.Name, stored.Next
	sealed := in.scheduler.vault.take(spec)
	following := p.next(stored.Next, later(now, stored.Next))
	id, fired, err := in.store.Fire(ctx, stored, following, spec, sealed)
	switch {
	case errors.Is(err, ErrDamaged), errors.Is(err, ErrConflict):
		if in.warned.lately("tick " + stored.Name) {
			in.log.Error("carillon: the job of a tick could not be created", "schedule", stored.Name, "tick", stored.Next, "error", err)
		}
		return fired, nil
	case err == nil && fired:
		in.log.Debug("carillon: schedule fired", "schedule", stored.Name, "tick", stored.Next, "job", id)
	}
	return true, err
}

func (in *instance) park(ctx context.Context, stored *store.Schedule, reason error) (bool, error) {
	parked, err := in.store.ParkSchedule(ctx, stored.Name, stored.Definition, reason.Error())
	if parked && in.warned.first("schedule "+stored.Name) {
		in.log.Error("carillon: a schedule cannot be used and was taken out of the plan", "schedule", stored.Name, "error", reason)
	}
	return parked, err
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func clipped(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

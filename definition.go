package carillon

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/carillon-go/carillon/internal/cron"
	"github.com/carillon-go/carillon/internal/plan"
	"github.com/carillon-go/carillon/internal/policy"
	"github.com/carillon-go/carillon/internal/zone"
	"github.com/carillon-go/carillon/store"
)

// definition is a schedule as it is stored. A reader ignores fields it does not
// know and leaves a schedule with a higher version to newer releases.
type definition struct {
	Version int `json:"v"`
	plan.Spec
	TimeZone string     `json:"tz,omitempty"`
	Clock    zone.Rules `json:"clock,omitzero"`
	Group    string     `json:"group,omitempty"`
	Calendar string     `json:"calendar,omitempty"`
	Excluded OnExcluded `json:"onExcluded,omitempty"`
	AnchorMS int64      `json:"anchorMs,omitempty"` // when this generation began
	StartMS  int64      `json:"startMs,omitempty"`
	EndMS    int64      `json:"endMs,omitempty"`
	MaxRuns  int        `json:"maxRuns,omitempty"`
	JitterMS int64      `json:"jitterMs,omitempty"`

	Misfire     Misfire `json:"misfire,omitempty"`
	MisfireMS   int64   `json:"misfireAfterMs,omitempty"`
	ReplayMax   int     `json:"replayMax,omitempty"`
	ReplayAgeMS int64   `json:"replayAgeMs,omitempty"`
	Overlap     Overlap `json:"overlap,omitempty"`
	BufferMax   int     `json:"bufferMax,omitempty"`
	Drop        bool    `json:"dropOnFailure,omitempty"`
	PauseAfter  int     `json:"pauseAfter,omitempty"`

	Job       storedJob  `json:"job"`
	Shards    int        `json:"shards,omitempty"`
	Params    []string   `json:"params,omitempty"`
	Broadcast bool       `json:"broadcast,omitempty"`
	Then      *storedJob `json:"then,omitempty"`
}

// storedJob is a job whose arguments are encoded already.
type storedJob struct {
	Job
	Args   json.RawMessage `json:"args"`
	Sealed []byte          `json:"sealed,omitempty"` // Args and Headers, when they are encrypted
}

// definitionVersion 2 has policies, which older releases would not follow.
const definitionVersion = 2

// define makes the stored form of a schedule, or lists what is wrong with it.
func (s *Scheduler) define(sched *Schedule) (*definition, error) {
	errs := sched.validate()
	d := &definition{
		Version: definitionVersion, Spec: sched.Spec.plan, TimeZone: sched.TimeZone,
		Clock: zone.Rules{Gap: zone.Gap(sched.ClockChange.Gap), Repeat: zone.Repeat(sched.ClockChange.Repeat)},
		Group: sched.Group, Calendar: sched.Calendar, Excluded: sched.OnExcluded, MaxRuns: sched.MaxRuns, JitterMS: sched.Jitter.Milliseconds(),
		Misfire: sched.Misfire, MisfireMS: sched.MisfireAfter.Milliseconds(), ReplayMax: sched.ReplayMax, ReplayAgeMS: sched.ReplayAge.Milliseconds(),
		Overlap: sched.Overlap, BufferMax: sched.BufferMax, Drop: sched.DropOnFailure, PauseAfter: sched.PauseAfter,
		Shards: sched.Sharding.Shards, Params: sched.Sharding.Params, Broadcast: sched.Sharding.Broadcast,
	}
	if !sched.Start.IsZero() {
		d.StartMS = ceilMilli(sched.Start).UnixMilli()
	}
	if !sched.End.IsZero() {
		d.EndMS = sched.End.UnixMilli()
	}
	for _, t := range []struct {
		field string
		from  *Job
		to    func(storedJob)
	}{
		{"Job", &sched.Job, func(j storedJob) { d.Job = j }},
		{"Sharding.Then", sched.Sharding.Then, func(j storedJob) { d.Then = &j }},
	} {
		if t.from == nil {
			continue
		}
		args, err := encode(t.field+".Args", t.from.Args, s.config.MaxPayload)
		if err != nil {
			errs = append(errs, err)
		}
		j := storedJob{Job: *t.from, Args: args}
		j.Job.Args = nil
		t.to(j)
	}
	if jobs := max(sched.Sharding.jobs(), 1); jobs*len(d.Job.Args) > maxTickBytes {
		errs = append(errs, invalid("Sharding.Shards", "%d jobs with %d bytes of arguments are more than %d bytes a tick; hand over a reference instead",
			jobs, len(d.Job.Args), maxTickBytes))
	}
	if sched.Spec.problem == "" {
		errs = append(errs, d.validate()...)
	}
	return d, errors.Join(errs...)
}

// validate checks the plan but for its calendar.
func (d *definition) validate() (errs []error) {
	for _, err := range d.Spec.Validate() {
		errs = append(errs, fmt.Errorf("%w: Spec: %w", ErrInvalid, err))
	}
	if _, err := d.location(); err != nil {
		return append(errs, err)
	}
	if c, err := cron.Parse(d.Cron, d.Both); err == nil && d.TimeZone != "" && c.Zone() != "" && c.Zone() != d.TimeZone {
		errs = append(errs, invalid("TimeZone", "is %q, and the expression says %q; set one of them", clipped(d.TimeZone), c.Zone()))
	}
	return errs
}

// location is the zone that TimeZone names; nil: none, so it is that of the cron
// expression, or UTC.
func (d *definition) location() (*time.Location, error) {
	if d.TimeZone == "" {
		return nil, nil //nolint:nilnil // as documented
	}
	loc, err := zone.Load(d.TimeZone)
	if err != nil {
		return nil, fmt.Errorf("%w: TimeZone: %w", ErrInvalid, err)
	}
	return loc, nil
}

// schedule is the definition as its user wrote it.
func (d *definition) schedule(name string) Schedule {
	sched := Schedule{
		Name: name, Group: d.Group, Spec: Spec{plan: d.Spec}, TimeZone: d.TimeZone,
		ClockChange: ClockChange{Gap(d.Clock.Gap), Repeat(d.Clock.Repeat)}, Calendar: d.Calendar, OnExcluded: d.Excluded,
		Start: instant(d.StartMS), End: instant(d.EndMS), MaxRuns: d.MaxRuns, Jitter: millis(d.JitterMS),
		Misfire: d.Misfire, MisfireAfter: millis(d.MisfireMS), ReplayMax: d.ReplayMax, ReplayAge: millis(d.ReplayAgeMS),
		Overlap: d.Overlap, BufferMax: d.BufferMax, DropOnFailure: d.Drop, PauseAfter: d.PauseAfter,
		Job: d.Job.job(), Sharding: Sharding{Shards: d.Shards, Params: d.Params, Broadcast: d.Broadcast},
	}
	if d.Then != nil {
		then := d.Then.job()
		sched.Sharding.Then = &then
	}
	return sched
}

func (j *storedJob) job() Job {
	out := j.Job
	out.Args = j.Args
	return out
}

func instant(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

func millis(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// equal reports whether two definitions say the same.
func (d *definition) equal(other *definition) bool {
	a, b := *d, *other
	a.AnchorMS, b.AnchorMS = 0, 0
	a.Version, b.Version = 0, 0
	return bytes.Equal(marshal(a), marshal(b))
}

var errNewerSchedule = fmt.Errorf("schedule: %w", store.ErrNewer)

// definition reads a stored definition. ErrNewer and ErrDecrypt leave it to others.
func (v *vault) definition(name string, data []byte) (*definition, error) {
	var d definition
	err := json.Unmarshal(data, &d)
	if d.Version > definitionVersion { // also when it has fields of another kind
		return nil, errNewerSchedule
	}
	if err != nil || d.Version < 1 {
		return nil, errors.New("the stored definition is damaged")
	}
	if err := v.unlock(&d, name); err != nil {
		return nil, err
	}
	return &d, nil
}

// read is definition where it does not matter why it cannot be read, and where
// one from before there were keys is as good.
func (v *vault) read(stored *store.Schedule) *definition {
	if stored == nil {
		return nil
	}
	d, err := v.definition(stored.Name, stored.Definition)
	if err != nil && v.ring != nil {
		d, err = (&vault{namespace: v.namespace}).definition(stored.Name, stored.Definition)
	}
	if err != nil {
		return nil
	}
	return d
}

// program is a definition that is ready to be used.
type program struct {
	*definition
	name  string
	plan  *plan.Plan
	rules policy.Rules
	start time.Time
}

// compile makes a program of a stored definition. An error that is not about the
// calendar's loading says that it cannot be used.
func (s *Scheduler) compile(ctx context.Context, name string, d *definition, calendars *shelf) (*program, error) {
	unusable := func(err error) error { return fmt.Errorf("the definition cannot be used: %w", err) }
	loc, err := d.location()
	errs := append(d.Job.validate(), err)
	if d.Then != nil {
		errs = append(errs, d.Then.validate()...)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, unusable(err)
	}
	o := plan.Options{
		Zone: loc, Rules: d.Clock, Start: instant(d.StartMS), End: instant(d.EndMS), Anchor: time.UnixMilli(d.AnchorMS),
		Excluded: plan.Move(d.Excluded),
	}
	if d.Calendar != "" {
		if o.Calendar, err = calendars.compiled(ctx, d.Calendar); err != nil {
			return nil, err
		}
	}
	p := &program{definition: d, name: name, start: o.Start}
	var problems []error
	if p.plan, problems = plan.New(d.Spec, o); len(problems) > 0 {
		return nil, unusable(fmt.Errorf("%w: %w", ErrInvalid, errors.Join(problems...)))
	}
	p.rules = policy.Rules{
		Name: name, Misfire: policy.Misfire(d.Misfire), MisfireAfter: defaultMisfireAfter,
		ReplayMax: defaultReplay, ReplayAge: millis(d.ReplayAgeMS), Overlap: policy.Overlap(d.Overlap), BufferMax: defaultBuffer,
		DropOnFailure: d.Drop, PauseAfter: d.PauseAfter, MaxRuns: d.MaxRuns, Jitter: millis(d.JitterMS),
		After: millis(d.After), Then: d.Then != nil, Shards: max(d.Shards, len(d.Params)), Broadcast: d.Broadcast,
		Affinity: cmp.Or(d.Job.Mutex, d.Job.Unique.Key),
	}
	if d.MisfireMS > 0 {
		p.rules.MisfireAfter = millis(d.MisfireMS)
	}
	if d.ReplayMax > 0 {
		p.rules.ReplayMax = d.ReplayMax
	}
	if d.BufferMax > 0 {
		p.rules.BufferMax = d.BufferMax
	}
	return p, nil
}

// Next is the plan's, as the policies ask for it.
func (p *program) Next(after time.Time) (tick, first, last time.Time) {
	tick, span := p.plan.Next(after)
	return tick, span.First, span.Last
}

// Between is the plan's.
func (p *program) Between(after, until time.Time, n int) (first time.Time, last []time.Time, more bool) {
	return p.plan.Between(after, until, n)
}

// Open is the plan's.
func (p *program) Open(at time.Time) time.Time { return p.plan.Open(at) }

// firstAfter is the first tick of a plan with a fixed delay.
func (p *program) firstAfter(now time.Time) time.Time {
	if p.After == 0 {
		return time.Time{}
	}
	first := p.start
	if first.Before(now) {
		first = now.Add(millis(p.After))
	}
	return p.plan.Open(first)
}

// readState reads what the policies remember. A state that must not be acted on,
// that of a newer release or a damaged one, is empty, and the error says why.
func readState(data []byte) (policy.State, error) {
	var s policy.State
	if len(data) > 0 && json.Unmarshal(data, &s) != nil {
		return policy.State{}, errors.New("its state is damaged")
	}
	if s.Version > policy.StateVersion {
		return policy.State{}, errNewerSchedule
	}
	return s, nil
}

// stateOf encodes a state; that of a schedule whose policies remember nothing is
// empty.
func stateOf(s policy.State) []byte {
	s.Version = 0
	if string(marshal(s)) == "{}" {
		return nil
	}
	s.Version = policy.StateVersion
	return marshal(s)
}

// shelf reads calendars once for a round of work, by any number of goroutines.
type shelf struct {
	store *store.Store
	mu    sync.Mutex
	read  map[string]*plan.Calendar
}

func newShelf(st *store.Store) *shelf {
	return &shelf{store: st, read: make(map[string]*plan.Calendar)}
}

// compiled returns a calendar with those it is based on.
func (s *shelf) compiled(ctx context.Context, name string) (*plan.Excluder, error) {
	c, err := s.get(ctx, name)
	if err != nil {
		return nil, err
	}
	return plan.Compile(*c, func(base string) (*plan.Calendar, error) { return s.get(ctx, base) })
}

func (s *shelf) get(ctx context.Context, name string) (*plan.Calendar, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.read[name]; c != nil {
		return c, nil
	}
	data, err := s.store.GetCalendar(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("calendar %q: %w", clipped(name), err)
	}
	var c plan.Calendar
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("calendar %q: %w", clipped(name), ErrDamaged)
	}
	s.read[name] = &c
	return &c, nil
}

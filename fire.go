package carillon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/carillon-go/carillon/internal/policy"
	"github.com/carillon-go/carillon/internal/zone"
	"github.com/carillon-go/carillon/store"
)

// Jobs are promoted again after so many rounds, or so many schedules.
const (
	fireRounds = 8
	fireMax    = 4000
)

// Turns are taken in batches, of which some are under way: while Redis works on
// one, the next ones are read and decided.
const (
	fireBatch   = 500
	fireBatches = 3
)

// ticker takes the turns of the schedules of a segment: it reads what is due,
// decides, and stores the decision if nobody was faster.
type ticker struct {
	*instance
	segment   int
	now       time.Time
	calendars *shelf
	live      func() ([]InstanceInfo, error)

	mu     sync.Mutex
	stayed int  // schedules that stay in their place
	again  bool // some have more to do at once
	failed []error
}

// fire takes the turns of all schedules whose time has come, and of those that
// are named, and returns when the next one comes; zero when only schedules are
// left that others must fire.
func (in *instance) fire(ctx context.Context, segment int, now time.Time, named []string) (time.Time, error) {
	t := &ticker{
		instance: in, segment: segment, now: now, calendars: newShelf(in.store),
		live: sync.OnceValues(func() ([]InstanceInfo, error) { return in.scheduler.Instances(ctx) }),
	}
	if len(named) > 0 {
		t.each(ctx, named, func(s *store.Schedule) bool { return s.Parked == "" && !s.Look.IsZero() })
		t.stayed = 0
	}
	for round, taken := 0, 0; round < fireRounds && taken < fireMax; round++ {
		due, err := in.store.DueSchedules(ctx, segment, t.stayed, fireMax, now)
		if err != nil {
			return time.Time{}, store.Distinct(append(t.failed, err))
		}
		t.again = false
		t.each(ctx, due, func(*store.Schedule) bool { return true })
		taken += len(due)
		if len(due) < fireMax && !t.again || ctx.Err() != nil {
			next, err := in.store.NextTick(ctx, segment, now)
			return next, store.Distinct(append(t.failed, err))
		}
	}
	return now, store.Distinct(t.failed) // there is other work, too
}

// each takes the turns of those schedules that are wanted.
func (t *ticker) each(ctx context.Context, names []string, wanted func(*store.Schedule) bool) {
	var batches sync.WaitGroup
	free := make(chan struct{}, fireBatches)
	for some := range slices.Chunk(names, fireBatch) {
		free <- struct{}{}
		batches.Go(func() { // ends with ctx at the latest
			defer func() { <-free }()
			read, err := t.store.ReadSchedules(ctx, some)
			if err != nil {
				t.done(len(some), false, err)
				return
			}
			read = slices.DeleteFunc(read, func(s *store.Schedule) bool { return !wanted(s) })
			t.done(t.turns(ctx, read))
		})
	}
	batches.Wait()
}

// done adds up what became of a batch.
func (t *ticker) done(stayed int, again bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stayed += stayed
	t.again = t.again || again
	t.failed = append(t.failed, err)
}

// pending is a turn on its way.
type pending struct {
	stored   *store.Schedule
	program  *program
	state    policy.State // as it was read
	decision policy.Decision
	ids      [][]string // of the jobs of each open run
	cancel   []string
}

// turns takes one turn of each schedule. It tells how many stay in their place,
// and whether any has more to do at once.
func (t *ticker) turns(ctx context.Context, due []*store.Schedule) (stayed int, again bool, err error) {
	var ready []*pending
	var ask []string
	var failed []error
	for _, stored := range due {
		p, moved, err := t.prepare(ctx, stored)
		failed = append(failed, err) // of what it needs, which does not keep the others from theirs
		if p == nil {
			if !moved {
				stayed++
			}
			continue
		}
		for _, run := range p.state.Open {
			ids := t.scheduler.runIDs(stored.Name, run)
			p.ids = append(p.ids, ids)
			ask = append(ask, ids...)
		}
		ready = append(ready, p)
	}
	states, err := t.store.RunStates(ctx, ask)
	if err != nil {
		failed = append(failed, err)
		all := len(ready)
		ready = slices.DeleteFunc(ready, func(p *pending) bool { return len(p.ids) > 0 })
		stayed += all - len(ready)
	}
	turns := make([]store.Turn, 0, len(ready))
	taken := ready[:0]
	for _, p := range ready {
		n := 0
		for _, ids := range p.ids {
			n += len(ids)
		}
		turn, err := t.decide(p, states[:n])
		states = states[n:]
		if err != nil {
			_, err := t.park(ctx, p.stored, err)
			failed = append(failed, err)
			continue
		}
		turns, taken = append(turns, turn), append(taken, p)
		again = again || !p.decision.Look.IsZero() && !p.decision.Look.After(t.now)
	}
	results := t.store.Turns(ctx, t.segment, turns)
	for i, r := range results {
		switch {
		case r.Done:
		case r.Err != nil:
			stayed++
		default:
			again = true // it is another schedule by now
		}
		failed = append(failed, t.taken(ctx, taken[i], r))
	}
	return stayed, again, store.Distinct(failed)
}

// prepare compiles a schedule, or takes it out of the plan when nobody can use it.
// It returns nil when there is nothing to decide, and whether it has moved.
func (t *ticker) prepare(ctx context.Context, stored *store.Schedule) (*pending, bool, error) {
	p := &pending{stored: stored}
	err := t.read(ctx, p)
	switch {
	case err == nil:
		return p, true, nil
	case passing(err):
		return nil, false, err
	case leftToOthers(err):
		if t.warned.first("left " + stored.Name) {
			t.log.Warn("carillon: this instance cannot use a schedule and leaves it to others", "schedule", stored.Name, "error", err)
		}
		return nil, false, nil
	}
	moved, err := t.park(ctx, stored, err)
	return nil, moved, err
}

// leftToOthers tells what another instance may be able to use: one that has the
// key, a newer release, or another time zone database.
func leftToOthers(err error) bool {
	return errors.Is(err, ErrDecrypt) && !errors.Is(err, ErrDamaged) || errors.Is(err, store.ErrNewer) || errors.Is(err, zone.ErrUnknown)
}

// read makes sense of what is stored.
func (t *ticker) read(ctx context.Context, p *pending) error {
	stored := p.stored
	if stored.Parked != "" {
		return errors.New(stored.Parked)
	}
	d, err := t.scheduler.vault.definition(stored.Name, stored.Definition)
	if err == nil {
		p.state, err = readState(stored.State)
	}
	if err != nil {
		return err
	}
	if stored.Next.IsZero() && len(p.state.Open)+len(p.state.Buffer)+len(p.state.Backfills) == 0 {
		return errors.New("it is in the plan without a next tick")
	}
	p.program, err = t.scheduler.compile(ctx, stored.Name, d, t.calendars)
	if err != nil || !d.Broadcast {
		return err
	}
	live, err := t.live()
	p.program.rules.Targets = targets(live, d.Job.Name)
	return err
}

// targets are the instances that can run a broadcast.
func targets(all []InstanceInfo, handler string) []string {
	var out []string
	for _, i := range all {
		if i.Alive && slices.Contains(i.Handlers, handler) {
			out = append(out, i.ID)
		}
	}
	return out
}

// decide makes a turn of what was read.
func (t *ticker) decide(p *pending, states []store.RunState) (store.Turn, error) {
	in := policy.Input{Now: t.now, Generation: p.stored.Generation, Next: p.stored.Next, State: p.state}
	ended := make(map[string]bool)
	for i, run := range in.State.Open {
		n := len(p.ids[i])
		in.Ends = append(in.Ends, endOf(run, states[:n], t.now))
		for j, id := range p.ids[i] {
			ended[id] = !states[j].Ended.IsZero()
		}
		states = states[n:]
	}
	p.decision = policy.Decide(&p.program.rules, p.program, in)
	for _, run := range p.decision.Cancel {
		ids := t.scheduler.runIDs(p.stored.Name, run)
		p.cancel = append(p.cancel, slices.DeleteFunc(ids, func(id string) bool { return ended[id] })...)
	}
	return t.scheduler.turn(p.stored, p.program, p.decision, nil)
}

// strangeAge is how long a job of a run may be unknown because it is still on its
// way to another segment.
const strangeAge = 10 * time.Second

// endOf sums up what is known about the jobs of a run.
func endOf(run policy.Run, states []store.RunState, now time.Time) policy.End {
	end := policy.End{Shards: true, Done: true, Good: true}
	for i, s := range states {
		elsewhere := run.Affinity != "" || len(run.Targets) > 0
		if !s.Known && (!elsewhere || now.Sub(time.UnixMilli(run.At)) > strangeAge) {
			end.Good = false // its retention has passed, or it was never created
			continue
		}
		if !s.Known || s.Ended.IsZero() {
			end.Done = false
			if !run.Then || i < len(states)-1 {
				end.Shards = false
			}
			continue
		}
		end.At = later(end.At, s.Ended)
		end.Failed = end.Failed || s.State == store.Failed
		end.Good = end.Good && s.State == store.Succeeded
	}
	return end
}

// suffix completes the IDs of the jobs of a run.
func suffix(tick time.Time, kind string) string {
	s := strconv.FormatInt(tick.UnixMilli(), 10)
	if kind != "" {
		s += "~" + kind
	}
	return s
}

func shardSuffix(of string, shard int) string { return of + "~s" + strconv.Itoa(shard) }

// thenSuffix marks the job that follows the others of a run.
const thenSuffix = "~b"

// part is one of the jobs of a run.
type part struct {
	suffix string // of its ID
	queue  string // an instance's own; empty: that of the job
	shard  store.Shard
}

// partsOf lists the jobs of a run but its Then.
func partsOf(run policy.Run) []part {
	of := suffix(time.UnixMilli(run.Tick), run.Kind)
	total := max(run.Shards, len(run.Targets))
	if total == 0 {
		return []part{{suffix: of}}
	}
	parts := make([]part, total)
	for i := range parts {
		parts[i] = part{suffix: shardSuffix(of, i), shard: store.Shard{Index: i, Total: total}}
		if len(run.Targets) > 0 {
			parts[i].queue = store.OwnQueue(run.Targets[i])
		}
	}
	return parts
}

// runIDs lists the IDs of a run's jobs, that of its Then last if it was created.
func (s *Scheduler) runIDs(name string, run policy.Run) []string {
	id := func(suffix string, spec *store.Spec) string {
		return s.store.TickJobID(name, run.Generation, suffix, spec)
	}
	var ids []string
	for _, p := range partsOf(run) {
		ids = append(ids, id(p.suffix, &store.Spec{Queue: p.queue, Mutex: run.Affinity}))
	}
	if run.Then {
		of := suffix(time.UnixMilli(run.Tick), run.Kind)
		ids = append(ids, id(of+thenSuffix, &store.Spec{}))
	}
	return ids
}

// turn makes what a decision says storable. args, if not nil, replace those of
// the job.
func (s *Scheduler) turn(stored *store.Schedule, p *program, d policy.Decision, args []byte) (store.Turn, error) {
	t := store.Turn{Schedule: stored, Next: d.Next, Look: d.Look, Last: d.Last, State: stateOf(d.State)}
	watched := func(tick time.Time, kind string) bool {
		return slices.ContainsFunc(d.State.Open, func(r policy.Run) bool { return r.Tick == tick.UnixMilli() && r.Kind == kind })
	}
	fires := d.Fire
	for _, r := range d.Record {
		if r.Outcome == policy.Fired || r.Outcome == policy.Replayed { // each of them has its line, in this order
			f := fires[0]
			fires = fires[1:]
			if f.Kind == "" {
				t.NotBefore = later(t.NotBefore, p.rules.At(p, f.Tick))
			}
			first := len(t.Jobs)
			if err := s.addJobs(&t, p, f, args, watched(f.Tick, f.Kind)); err != nil {
				return t, err
			}
			if len(t.Jobs) == first+1 {
				t.Jobs[first].Line = len(t.Ledger) + 1
			}
			job := t.Jobs[first]
			r.Home = strings.TrimPrefix(
				s.store.TickJobID(p.name, stored.Generation, job.Suffix, job.Spec), store.TickID(p.name, stored.Generation, job.Suffix))
		}
		t.Ledger = append(t.Ledger, lineOf(r, stored.Generation))
	}
	for _, run := range d.Then {
		run.Then = false
		if err := s.addThen(&t, p, run); err != nil {
			return t, err
		}
	}
	return t, nil
}

// lineOf makes a line of the ledger. A range is told apart by the plan it is of.
func lineOf(r policy.Record, generation int64) store.LedgerEntry {
	if !r.From.IsZero() {
		r.Generation = generation
	}
	return store.LedgerEntry{Tick: r.Tick, Text: r.String()}
}

// addJobs adds the jobs of a run to a turn.
func (s *Scheduler) addJobs(t *store.Turn, p *program, f policy.Fire, args []byte, watched bool) error {
	job := p.Job.job()
	if args != nil {
		job.Args = json.RawMessage(args)
	}
	template, err := job.spec(maxPayload)
	if err != nil {
		return err
	}
	template.Schedule, template.Tick = p.name, f.Tick
	sealed := s.vault.take(template)
	for i, part := range partsOf(policy.Run{Tick: f.Tick.UnixMilli(), Kind: f.Kind, Shards: p.rules.Shards, Targets: p.rules.Targets}) {
		spec := *template
		spec.Queue, spec.Shard = cmp.Or(part.queue, spec.Queue), part.shard
		if i < len(p.Params) {
			spec.Shard.Param = p.Params[i]
		}
		t.Jobs = append(t.Jobs, store.TickJob{Suffix: part.suffix, Spec: &spec, Seal: sealed, Watched: watched})
	}
	return nil
}

// addThen adds the job that follows those of a run.
func (s *Scheduler) addThen(t *store.Turn, p *program, run policy.Run) error {
	if p.Then == nil {
		return nil // an edit has removed it
	}
	job := p.Then.job()
	spec, err := job.spec(maxPayload)
	if err != nil {
		return err
	}
	spec.Schedule, spec.Tick, spec.Then = p.name, time.UnixMilli(run.Tick), s.runIDs(p.name, run)
	sealed := s.vault.take(spec)
	t.Jobs = append(t.Jobs, store.TickJob{
		Suffix: suffix(spec.Tick, run.Kind) + thenSuffix, Spec: spec, Seal: sealed, Watched: true, Generation: run.Generation,
	})
	return nil
}

// taken acts on the result of a turn.
func (t *ticker) taken(ctx context.Context, p *pending, r store.TurnResult) error {
	stored := p.stored
	err := r.Err
	if errors.Is(err, ErrDamaged) { // of a foreign key; it is said, and keeps nobody else
		if t.warned.lately("damaged " + stored.Name) {
			t.log.Error("carillon: a schedule meets a key that is not ours", "schedule", stored.Name, "error", err)
		}
		err = nil
	}
	for _, err := range r.Errs {
		if err != nil && t.warned.lately("tick "+stored.Name) {
			t.log.Error("carillon: the job of a tick could not be created", "schedule", stored.Name, "tick", stored.Next, "error", err)
		}
	}
	if !r.Done {
		return err
	}
	for _, id := range p.cancel {
		if _, err := t.store.Cancel(ctx, id, fmt.Sprintf("replaced by a later tick of schedule %s", stored.Name)); err != nil &&
			!errors.Is(err, ErrNotFound) && !errors.Is(err, ErrState) {
			return err // asked again at the next look
		}
	}
	if pause := p.decision.State.Pause; p.state.Pause == nil && pause != nil {
		t.log.Error("carillon: a schedule was paused", "schedule", stored.Name, "reason", pause.Reason)
	}
	if len(r.IDs) > 0 {
		t.log.Debug("carillon: schedule fired", "schedule", stored.Name, "tick", p.decision.Last, "jobs", r.IDs)
	}
	return err
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

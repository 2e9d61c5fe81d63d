package carillon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carillon-go/carillon/internal/policy"
	"github.com/carillon-go/carillon/internal/zone"
	"github.com/carillon-go/carillon/store"
)

// fireBatch is how many schedules one round takes before it looks again, and
// fireRounds how many rounds are made before jobs are promoted again.
const (
	fireBatch  = 500
	fireRounds = 8
)

// ticker takes the turns of the schedules of a segment: it reads what is due,
// decides, and stores the decision if nobody was faster.
type ticker struct {
	*instance
	segment   int
	calendars *shelf
	live      []InstanceInfo // read when a broadcast asks for it
}

// fire takes the turns of all schedules whose time has come, and of those that
// are named, and returns when the next one comes; zero when only schedules are
// left that others must fire.
func (in *instance) fire(ctx context.Context, segment int, now time.Time, named []string) (time.Time, error) {
	t := &ticker{instance: in, segment: segment, calendars: newShelf(in.store)}
	if len(named) > 0 {
		read, errs := in.store.GetSchedules(ctx, named)
		read = slices.DeleteFunc(read, func(s *store.Schedule) bool { return s == nil || s.Look.IsZero() })
		if _, _, err := t.turns(ctx, read, now); err != nil {
			return time.Time{}, errors.Join(append(errs, err)...)
		}
	}
	left := 0 // schedules that stay in their place
	var failed []error
	for range fireRounds {
		due, err := in.store.DueSchedules(ctx, segment, left, fireBatch, now)
		if err != nil {
			return time.Time{}, err
		}
		stayed, again, err := t.turns(ctx, due, now)
		failed = append(failed, err)
		left += stayed
		if len(due) < fireBatch && !again || ctx.Err() != nil {
			next, err := in.store.NextTick(ctx, segment, now)
			return next, store.Distinct(append(failed, err))
		}
	}
	return now, store.Distinct(failed) // there is other work, too
}

// pending is a turn on its way.
type pending struct {
	stored   *store.Schedule
	program  *program
	decision policy.Decision
	ids      [][]string // of the jobs of each open run
	cancel   []string
}

// turns takes one turn of each schedule. It tells how many stay in their place,
// and whether any has more to do at once.
func (t *ticker) turns(ctx context.Context, due []*store.Schedule, now time.Time) (stayed int, again bool, err error) {
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
		for _, run := range readState(stored.State).Open {
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
		turn, err := t.decide(p, states[:n], now)
		states = states[n:]
		if err != nil {
			_, err := t.park(ctx, p.stored, err)
			failed = append(failed, err)
			continue
		}
		turns, taken = append(turns, turn), append(taken, p)
		again = again || !p.decision.Look.IsZero() && !p.decision.Look.After(now)
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
	p, err := t.program(ctx, stored)
	switch {
	case err == nil:
		return &pending{stored: stored, program: p}, true, nil
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

func (t *ticker) program(ctx context.Context, stored *store.Schedule) (*program, error) {
	if stored.Parked != "" {
		return nil, errors.New(stored.Parked)
	}
	d, err := t.scheduler.vault.definition(stored.Name, stored.Definition)
	if err == nil {
		err = checkState(stored.State)
	}
	if err != nil {
		return nil, err
	}
	if state := readState(stored.State); stored.Next.IsZero() && len(state.Open)+len(state.Buffer)+len(state.Backfills) == 0 {
		return nil, errors.New("it is in the plan without a next tick")
	}
	p, err := t.scheduler.compile(ctx, stored.Name, d, t.calendars)
	if err != nil || !p.rules.Broadcast {
		return p, err
	}
	if t.live == nil {
		if t.live, err = t.scheduler.Instances(ctx); err != nil {
			return nil, err
		}
	}
	p.rules.Targets = targets(t.live, d.Job.Name)
	return p, nil
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
func (t *ticker) decide(p *pending, states []store.RunState, now time.Time) (store.Turn, error) {
	in := policy.Input{Now: now, Generation: p.stored.Generation, Next: p.stored.Next, State: readState(p.stored.State)}
	ended := make(map[string]bool)
	for i, run := range in.State.Open {
		n := len(p.ids[i])
		in.Ends = append(in.Ends, endOf(run, states[:n], now))
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

// runIDs lists the IDs of a run's jobs, that of its Then last if it was created.
func (s *Scheduler) runIDs(name string, run policy.Run) []string {
	of := suffix(time.UnixMilli(run.Tick), run.Kind)
	id := func(suffix string, spec *store.Spec) string {
		return s.store.TickJobID(name, run.Generation, suffix, spec)
	}
	var ids []string
	switch {
	case len(run.Targets) > 0:
		for i, instance := range run.Targets {
			ids = append(ids, id(shardSuffix(of, i), &store.Spec{Queue: store.OwnQueue(instance)}))
		}
	case run.Shards > 0:
		for i := range run.Shards {
			ids = append(ids, id(shardSuffix(of, i), &store.Spec{Mutex: run.Affinity}))
		}
	default:
		ids = append(ids, id(of, &store.Spec{Mutex: run.Affinity}))
	}
	if run.Then {
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
	of := suffix(f.Tick, f.Kind)
	add := func(suffix, instance string, shard store.Shard) error {
		spec, err := job.spec(maxPayload)
		if err != nil {
			return err
		}
		spec.Schedule, spec.Tick, spec.Shard = p.name, f.Tick, shard
		if instance != "" {
			spec.Queue = store.OwnQueue(instance)
		}
		sealed := s.vault.take(spec)
		t.Jobs = append(t.Jobs, store.TickJob{Suffix: suffix, Spec: spec, Seal: sealed, Watched: watched})
		return nil
	}
	switch {
	case p.rules.Broadcast:
		for i, instance := range p.rules.Targets {
			if err := add(shardSuffix(of, i), instance, store.Shard{Index: i, Total: len(p.rules.Targets)}); err != nil {
				return err
			}
		}
		return nil
	case p.rules.Shards > 0:
		for i := range p.rules.Shards {
			shard := store.Shard{Index: i, Total: p.rules.Shards}
			if i < len(p.Params) {
				shard.Param = p.Params[i]
			}
			if err := add(shardSuffix(of, i), "", shard); err != nil {
				return err
			}
		}
		return nil
	}
	return add(of, "", store.Shard{})
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
	if before, after := readState(stored.State).Pause, p.decision.State.Pause; before == nil && after != nil {
		t.log.Error("carillon: a schedule was paused", "schedule", stored.Name, "reason", after.Reason)
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

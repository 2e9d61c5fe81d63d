package carillon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/policy"
	"github.com/carillon-go/carillon/store"
)

type actorKey struct{}

// WithActor says on whose behalf the schedules are changed with this context. The
// name is kept with the change.
func WithActor(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// actor is whoever changes a schedule: by the context, else this program.
func (s *Scheduler) actor(ctx context.Context) string {
	if actor, ok := ctx.Value(actorKey{}).(string); ok {
		return clipped(actor)
	}
	return s.config.Version
}

// step changes a schedule by one turn, decided on what is stored, and tries again
// when somebody else changed it meanwhile.
func (s *Scheduler) step(ctx context.Context, name string, args []byte, decide func(*program, policy.Input) (policy.Decision, error)) (store.TurnResult, error) {
	for tries := range maxTries {
		now, err := s.store.Now(ctx)
		if err != nil {
			return store.TurnResult{}, err
		}
		stored, err := s.stored(ctx, name)
		if err != nil {
			return store.TurnResult{}, err
		}
		if stored.Parked != "" {
			return store.TurnResult{}, fmt.Errorf("%w: the schedule cannot be used: %s", ErrState, stored.Parked)
		}
		p, err := s.programOf(ctx, stored)
		if err != nil {
			return store.TurnResult{}, err
		}
		if p.rules.Broadcast {
			all, err := s.Instances(ctx)
			if err != nil {
				return store.TurnResult{}, err
			}
			p.rules.Targets = targets(all, p.Job.Name)
		}
		state, _ := readState(stored.State)
		d, err := decide(p, policy.Input{
			Now: now.Truncate(time.Millisecond), Generation: stored.Generation, Next: stored.Next, State: state,
		})
		if errors.Is(err, errUnchanged) {
			return store.TurnResult{}, nil
		}
		if err != nil {
			return store.TurnResult{}, err
		}
		turn, err := s.turn(stored, p, d, args)
		if err != nil {
			return store.TurnResult{}, err
		}
		r := s.store.TakeTurn(ctx, turn)
		if r.Err != nil || r.Done {
			return r, errors.Join(append(r.Errs, r.Err)...)
		}
		if len(r.IDs) > 0 { // a try whose reply was lost looks like somebody else's
			states, err := s.store.RunStates(ctx, r.IDs[:1])
			if err != nil || states[0].Known {
				return r, err
			}
		}
		pause(ctx, rand.N(time.Duration(tries+1)*time.Millisecond)) // not in step with the others
	}
	return store.TurnResult{}, errRace
}

// errUnchanged ends a step that has nothing to do.
var errUnchanged = errors.New("unchanged")

// PauseSchedule stops a schedule: no tick fires, none of those that wait runs, and
// backfills stand still, until [Scheduler.ResumeSchedule]. Runs that have begun go
// on. The reason and the actor (see [WithActor]) are kept; those of an earlier
// pause are replaced. [ErrNotFound] means that there is no such schedule.
func (s *Scheduler) PauseSchedule(ctx context.Context, name, reason string) error {
	err := validReason(reason)
	if err == nil {
		_, err = s.step(ctx, name, nil, func(p *program, in policy.Input) (policy.Decision, error) {
			return policy.Hold(&p.rules, p, in, policy.Pause{At: in.Now.UnixMilli(), Actor: s.actor(ctx), Reason: reason}), nil
		})
	}
	return opError("pause schedule", clipped(name), err)
}

func validReason(reason string) error {
	if reason == "" {
		return nil
	}
	return validText("reason", reason, maxReasonBytes)
}

const maxReasonBytes = 500

// ResumeSchedule ends a pause. Ticks that passed meanwhile are left out; the
// ledger says so. A schedule that is not paused stays as it is.
func (s *Scheduler) ResumeSchedule(ctx context.Context, name string) error {
	_, err := s.step(ctx, name, nil, func(p *program, in policy.Input) (policy.Decision, error) {
		if in.State.Pause == nil {
			return policy.Decision{}, errUnchanged
		}
		return policy.Resume(&p.rules, p, in), nil
	})
	return opError("resume schedule", clipped(name), err)
}

// PauseGroup pauses all schedules of a group, and those that join it later.
func (s *Scheduler) PauseGroup(ctx context.Context, group, reason string) error {
	err := errors.Join(validText("Group", group, maxGroupBytes), validReason(reason))
	if err == nil {
		var now time.Time
		if now, err = s.store.Now(ctx); err == nil {
			err = s.store.MarkGroup(ctx, group, marshal(policy.Pause{At: now.UnixMilli(), Actor: s.actor(ctx), Reason: reason}))
		}
	}
	if err == nil {
		err = s.eachOf(ctx, group, func(name string) error { return s.PauseSchedule(ctx, name, reason) })
	}
	return opError("pause group", clipped(group), err)
}

// ResumeGroup ends the pause of a group and of all its schedules.
func (s *Scheduler) ResumeGroup(ctx context.Context, group string) error {
	err := validText("Group", group, maxGroupBytes)
	if err == nil {
		err = s.store.MarkGroup(ctx, group, nil)
	}
	if err == nil {
		err = s.eachOf(ctx, group, func(name string) error { return s.ResumeSchedule(ctx, name) })
	}
	return opError("resume group", clipped(group), err)
}

// members lists the schedules of a group, and perhaps some that have left it.
func (s *Scheduler) members(ctx context.Context, group string) ([]string, error) {
	if err := validText("Group", group, maxGroupBytes); err != nil {
		return nil, err
	}
	names, err := s.store.GroupMembers(ctx, group)
	slices.Sort(names)
	return names, err
}

func (s *Scheduler) eachOf(ctx context.Context, group string, do func(name string) error) error {
	infos, err := s.SchedulesOf(ctx, group)
	errs := []error{err}
	for _, info := range infos {
		if info.Problem == "" {
			errs = append(errs, do(info.Name))
		}
	}
	return errors.Join(errs...)
}

// groupMark returns the pause that new members of a group begin with; nil: none.
func (s *Scheduler) groupMark(ctx context.Context, group string) (*policy.Pause, error) {
	if group == "" {
		return nil, nil
	}
	data, err := s.store.GroupMark(ctx, group)
	if err != nil || data == nil {
		return nil, err
	}
	mark := &policy.Pause{Reason: "the group is paused"}
	_ = json.Unmarshal(data, mark) // damaged, it is a pause all the same
	return mark, nil
}

// Trigger runs a schedule's job now, with other arguments if args is not nil. The
// plan does not move, other runs do not matter, and a paused schedule runs, too.
// The receipt has the ID of the job, or of the first shard.
func (s *Scheduler) Trigger(ctx context.Context, name string, args any) (Receipt, error) {
	var data []byte
	if args != nil {
		var err error
		if data, err = encode("args", args, s.config.MaxPayload); err != nil {
			return Receipt{}, opError("trigger", clipped(name), err)
		}
	}
	key := store.NewID()
	r, err := s.step(ctx, name, data, func(p *program, in policy.Input) (policy.Decision, error) {
		if p.rules.Broadcast && len(p.rules.Targets) == 0 {
			return policy.Decision{}, fmt.Errorf("%w: no instance that is alive has the handler", ErrState)
		}
		return policy.ByHand(&p.rules, p, in, key), nil
	})
	if len(r.IDs) == 0 {
		return Receipt{}, opError("trigger", clipped(name), err)
	}
	return Receipt{ID: r.IDs[0]}, opError("trigger", clipped(name), err)
}

// Backfill asks for the runs of a past range.
type Backfill struct {
	// From and To bound the ticks, both included. They must have passed.
	From, To time.Time
	// Overlap says what happens while a run of this backfill is unfinished: with
	// Allow, the default, runs go on beside each other; with Skip their ticks are
	// left out; with BufferAll or BufferOne one begins after the other; with Replace
	// the next one cancels it. Other runs of the schedule do not matter.
	Overlap Overlap
	// Interval is the time between two starts, at least. 0: none.
	Interval time.Duration
}

// maxBackfills bounds how many backfills of a schedule are under way.
const maxBackfills = 20

// Backfill runs all ticks of a past range by the present plan, oldest first, also
// those that ran in their time. It returns when the wish is stored; an edit of the
// schedule ends it. Execution.Tick has the past time.
func (s *Scheduler) Backfill(ctx context.Context, name string, b Backfill) error {
	var errs []error
	if b.From.IsZero() || b.To.IsZero() || b.To.Before(b.From) {
		errs = append(errs, invalid("From, To", "are not a range: both must be set, and From not be after To"))
	}
	errs = append(errs, validTime("From", b.From), validTime("To", b.To), validDuration("Interval", b.Interval))
	if b.Overlap < Allow || b.Overlap > Replace {
		errs = append(errs, invalid("Overlap", "%d is unknown", b.Overlap))
	}
	err := errors.Join(errs...)
	if err == nil {
		key := store.NewID()
		_, err = s.step(ctx, name, nil, func(p *program, in policy.Input) (policy.Decision, error) {
			switch {
			case slices.ContainsFunc(in.State.Backfills, func(b policy.Backfill) bool { return b.Key == key }):
				return policy.Decision{}, errUnchanged // by a try whose reply was lost
			case b.To.After(in.Now):
				return policy.Decision{}, invalid("To", "has not passed")
			case p.After > 0:
				return policy.Decision{}, invalid("Spec", "a schedule with EveryAfter has no ticks that can be made up for")
			case len(in.State.Backfills) >= maxBackfills:
				return policy.Decision{}, fmt.Errorf("%w: %d backfills are under way", ErrState, maxBackfills)
			}
			return policy.Refill(&p.rules, p, in, policy.Backfill{
				Key: key, Next: ceilMilli(b.From).UnixMilli(), To: b.To.UnixMilli(), Overlap: policy.Overlap(b.Overlap),
				Every: b.Interval.Milliseconds(), At: in.Now.UnixMilli(),
			}), nil
		})
	}
	return opError("backfill", clipped(name), err)
}

package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// Schedule is a stored definition and where its plan stands.
type Schedule struct {
	Name       string
	Definition []byte // opaque to the store
	Generation int64
	Next       time.Time // zero: it will not fire again
	Last       time.Time // last tick that was fired; zero: none
	Parked     string    // why it cannot be read, if so
}

func (s *Store) scheduleSegment(name string) int { return hashSegment(name, len(s.segments)) }

// PutSchedule stores a definition whose first tick is next. An equal one leaves
// everything as it is; same, if not nil, is one that says the same in other bytes,
// which definition replaces without changing the plan. It reports the generation
// and whether that changed.
func (s *Store) PutSchedule(ctx context.Context, name string, definition, same []byte, next time.Time) (int64, bool, error) {
	segment := s.scheduleSegment(name)
	k := s.segments[segment]
	reply, err := s.run(ctx, call{
		scriptSchedulePut,
		[]string{k.schedule(name), k.plan()},
		[]any{name, definition, next.UnixMilli(), s.control(), segment, same},
	})
	return number(at(reply, 0)), number(at(reply, 1)) == 1, err
}

// DropSchedule deletes a schedule; jobs it created stay.
func (s *Store) DropSchedule(ctx context.Context, name string) error {
	k := s.segments[s.scheduleSegment(name)]
	reply, again, err := s.runAgain(ctx, call{scriptScheduleDrop, []string{k.schedule(name), k.plan()}, []any{name}})
	if err == nil && number(reply) == 0 && !again {
		err = fmt.Errorf("schedule %s: %w", clip(name, 64), ErrNotFound)
	}
	return err
}

// ParkSchedule takes a schedule whose definition cannot be used out of the plan,
// unless it was replaced meanwhile.
func (s *Store) ParkSchedule(ctx context.Context, name string, definition []byte, reason string) (bool, error) {
	k := s.segments[s.scheduleSegment(name)]
	reply, err := s.run(ctx, call{
		scriptSchedulePark, []string{k.schedule(name), k.plan()},
		[]any{name, clip(reason, maxErrorBytes), definition},
	})
	return number(reply) == 1, err
}

// GetSchedule reads one schedule.
func (s *Store) GetSchedule(ctx context.Context, name string) (*Schedule, error) {
	k := s.segments[s.scheduleSegment(name)]
	record, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (map[string]string, error) {
		return rdb.HGetAll(ctx, k.schedule(name)).Result()
	})
	if err != nil {
		return nil, err
	}
	return decodeSchedule(name, record)
}

func decodeSchedule(name string, record map[string]string) (*Schedule, error) {
	if len(record) == 0 {
		return nil, fmt.Errorf("schedule %s: %w", clip(name, 64), ErrNotFound)
	}
	out := &Schedule{
		Name: name, Definition: []byte(record["d"]), Generation: number(record["g"]), Parked: record["e"],
	}
	if next := record["n"]; next != "" {
		out.Next = millis(next)
	}
	if last := record["l"]; last != "" {
		out.Last = millis(last)
	}
	return out, nil
}

// Schedules lists the names of all schedules that will fire.
func (s *Store) Schedules(ctx context.Context) ([]string, error) {
	var names []string
	for _, k := range s.segments {
		part, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]string, error) {
			return rdb.ZRange(ctx, k.plan(), 0, -1).Result()
		})
		if err != nil {
			return nil, err
		}
		names = append(names, part...)
	}
	return names, nil
}

// DueSchedules returns up to limit schedules of a segment whose tick has come,
// but for the first skip ones. Those that cannot be read have Parked set.
func (s *Store) DueSchedules(ctx context.Context, segment, skip, limit int, now time.Time) ([]*Schedule, error) {
	k := s.segments[segment]
	names, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]string, error) {
		return rdb.ZRangeByScore(ctx, k.plan(), &redis.ZRangeBy{
			Min: "-inf", Max: strconv.FormatInt(now.UnixMilli(), 10), Offset: int64(skip), Count: int64(limit),
		}).Result()
	})
	if err != nil {
		return nil, err
	}
	var due []*Schedule
	for _, name := range names {
		one, err := s.GetSchedule(ctx, name)
		if errors.Is(err, ErrNotFound) || errors.Is(err, ErrDamaged) {
			one = &Schedule{Name: name, Parked: err.Error()}
		} else if err != nil {
			return due, err
		}
		due = append(due, one)
	}
	return due, nil
}

// Fire creates the job of a schedule's next tick and moves it on to following,
// or takes it out of the plan when following is zero. It reports false when
// another instance did so before, or when the schedule was changed meanwhile.
func (s *Store) Fire(ctx context.Context, sched *Schedule, following time.Time, spec *Spec, seal Seal) (id string, fired bool, err error) {
	segment := s.scheduleSegment(sched.Name)
	k := s.segments[segment]
	it := &submission{spec: spec, seal: seal, made: true}
	it.id = fmt.Sprintf("%s~%d~%d", sched.Name, sched.Generation, sched.Next.UnixMilli())
	s.route(it)
	if spec.Mutex == "" && spec.Unique == "" {
		it.segment = segment
		it.id = s.inSegment(it.id, segment)
	}
	it.named()
	// A unique key can have to be healed first, and a crash between must not lose the tick.
	relayed := it.segment != segment || len(it.foreign) > 0 || spec.Unique != ""

	next := ""
	if !following.IsZero() {
		next = strconv.FormatInt(following.UnixMilli(), 10)
	}
	var a argList
	a.key(k.schedule(sched.Name), k.plan(), k.due(), k.wait(), k.grant(), k.tend(), k.relay())
	a.arg(s.control(), segment, sched.Name, sched.Generation, sched.Next.UnixMilli(), next)
	if relayed {
		a.arg(it.data, 0, it.id)
	} else {
		var streams streamSet
		var job argList
		job.accept(k, it, &streams)
		a.key(streams.names...)
		a.key(job.keys...)
		a.arg("", len(streams.names))
		a.arg(job.args...)
	}
	reply, err := s.run(ctx, call{scriptFire, a.keys, a.args})
	if err != nil {
		return it.id, false, err
	}
	switch answer := text(reply); {
	case answer == "-":
		if relayed { // noted by an earlier try, perhaps
			return it.id, false, s.Relay(ctx, segment)
		}
		return it.id, false, nil
	case answer == "r":
		return it.id, true, s.Relay(ctx, segment)
	case answer != "" && answer[0] == 'e':
		return it.id, true, fmt.Errorf("fire: %w: %s", ErrDamaged, answer[1:])
	default:
		it.answer(answer)
		return it.receipt.ID, true, it.err
	}
}

// Relay submits jobs of schedules that belong to other segments than their
// schedule. They were noted when their tick was fired, so a crash between loses
// none, and their IDs are fixed, so none is created twice. One that cannot be
// created is given up, and the error says so.
func (s *Store) Relay(ctx context.Context, segment int) error {
	k := s.segments[segment]
	noted, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (map[string]string, error) {
		return rdb.HGetAll(ctx, k.relay()).Result()
	})
	if err != nil {
		return s.passedOver(err)
	}
	ctx = unpromised(ctx)
	var failed []error
	for id, data := range noted {
		spec, err := decodeSpec([]byte(data))
		if err == nil {
			err = s.submitNow(ctx, NewJob{ID: id, Spec: spec})
		} else if !errors.Is(err, ErrNewer) {
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		switch {
		case errors.Is(err, ErrNewer):
			continue // left to newer instances
		case errors.Is(err, ErrConflict), errors.Is(err, ErrDamaged):
			failed = append(failed, err) // and is given up
		case err != nil:
			failed = append(failed, err) // which does not keep the others from theirs
			continue
		}
		if _, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (int64, error) {
			return rdb.HDel(ctx, k.relay(), id).Result()
		}); err != nil {
			return err
		}
	}
	return Distinct(failed)
}

// NextTick returns the next time after now that a segment's schedules plan, or
// zero. Those that stayed in the plan with an earlier one are left out.
func (s *Store) NextTick(ctx context.Context, segment int, now time.Time) (time.Time, error) {
	k := s.segments[segment]
	head, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]redis.Z, error) {
		return rdb.ZRangeByScoreWithScores(ctx, k.plan(), &redis.ZRangeBy{
			Min: "(" + strconv.FormatInt(now.UnixMilli(), 10), Max: "+inf", Count: 1,
		}).Result()
	})
	if err != nil || len(head) == 0 {
		return time.Time{}, err
	}
	return time.UnixMilli(int64(head[0].Score)), nil
}

package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// Schedule is a stored definition and where its plan stands.
type Schedule struct {
	Name       string
	Group      string // empty: none
	Definition []byte // opaque to the store
	State      []byte // opaque to the store: what the policies remember
	Generation int64
	Next       time.Time // next tick; zero: none
	Look       time.Time // when it is to be looked at, its score in the plan; zero: it is not in the plan
	Last       time.Time // last tick that was fired; zero: none
	Parked     string    // why it cannot be used, if so
}

func (s *Store) scheduleSegment(name string) int { return hashSegment(name, len(s.segments)) }

// Segment tells where a schedule lives.
func (s *Store) Segment(schedule string) int { return s.scheduleSegment(schedule) }

// Put is a definition that is to be stored.
type Put struct {
	Name       string
	Group      string    // empty: none
	Old        *Schedule // as it was read; nil: there must be none
	Definition []byte
	State      []byte // empty: none
	Ledger     []LedgerEntry
	Meta       []byte    // of the version: who stored it, and when; opaque to the store
	Next, Look time.Time // zero: none

	// Same says that Definition says what Old's does, perhaps in other bytes:
	// generation, plan and state stay, and only the generation is compared.
	Same bool
}

// versionsKept is how many definitions of a schedule are remembered.
const versionsKept = 20

// PutSchedule stores a definition as a new generation if the schedule is still
// as it was read. Done false: it is not; read it again.
func (s *Store) PutSchedule(ctx context.Context, p Put) (generation int64, done bool, err error) {
	segment := s.scheduleSegment(p.Name)
	k := s.segments[segment]
	old, generationRead := &Schedule{}, ""
	if p.Old != nil {
		old, generationRead = p.Old, strconv.FormatInt(p.Old.Generation, 10)
	}
	leaves, joins := old.Group != "" && old.Group != p.Group, p.Group != ""
	var a argList
	a.key(k.schedule(p.Name), k.plan(), k.versions(p.Name), k.ledger(p.Name), k.schedules())
	if leaves {
		a.key(k.members(old.Group))
	}
	if joins {
		a.key(k.members(p.Group))
	}
	a.arg(p.Name, generationRead, old.State, stamp(old.Next), flag(p.Same), p.Definition, stamp(p.Next), stamp(p.Look), p.State, p.Group,
		Version{Meta: p.Meta, Definition: p.Definition}.encode(), versionsKept, s.control(), segment, flag(leaves), flag(joins),
		s.options.Ledger.Age.Milliseconds(), s.options.Ledger.Count, len(p.Ledger))
	a.ledger(p.Ledger)
	reply, err := s.run(ctx, call{scriptSchedulePut, a.keys, a.args})
	return number(at(reply, 0)), number(at(reply, 1)) == 1, err
}

// DropSchedule deletes a schedule; jobs it created stay. Its versions and its
// ledger can be read for as long as ledgers last.
func (s *Store) DropSchedule(ctx context.Context, name string) error {
	k := s.segments[s.scheduleSegment(name)]
	for range 10 { // unless its group changes all the time
		group, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (string, error) {
			return rdb.HGet(ctx, k.schedule(name), "gr").Result()
		})
		if err != nil && !errors.Is(err, ErrDamaged) {
			return surelyNot("drop schedule", err)
		}
		keys := []string{k.schedule(name), k.plan(), k.versions(name), k.ledger(name), k.schedules()}
		if group != "" {
			keys = append(keys, k.members(group))
		}
		reply, again, err := s.runAgain(ctx, call{scriptScheduleDrop, keys, []any{name, group, s.options.Ledger.Age.Milliseconds()}})
		switch {
		case err != nil:
			return err
		case number(reply) == 1 || number(reply) == 0 && again:
			return nil
		case number(reply) == 0:
			return fmt.Errorf("schedule %s: %w", clip(name, 64), ErrNotFound)
		}
	}
	return fmt.Errorf("drop schedule %s: %w: its group changes all the time", clip(name, 64), ErrUnavailable)
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
	all, errs := s.GetSchedules(ctx, []string{name})
	return all[0], errs[0]
}

// schedulesRead is how many schedules one pipeline reads.
const schedulesRead = 200

// GetSchedules reads many schedules. Each has its own error.
func (s *Store) GetSchedules(ctx context.Context, names []string) ([]*Schedule, []error) {
	all, errs := make([]*Schedule, 0, len(names)), make([]error, 0, len(names))
	for some := range slices.Chunk(names, schedulesRead) {
		records, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]*redis.MapStringStringCmd, error) {
			cmds := make([]*redis.MapStringStringCmd, len(some))
			_, _ = rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
				for i, name := range some {
					cmds[i] = p.HGetAll(ctx, s.segments[s.scheduleSegment(name)].schedule(name))
				}
				return nil
			})
			return cmds, unanswered(cmds)
		})
		for i, name := range some {
			var one *Schedule
			failed := err
			if failed == nil {
				if failed = records[i].Err(); failed != nil {
					failed = classify(failed, false)
				} else {
					one, failed = decodeSchedule(name, records[i].Val())
				}
			}
			all, errs = append(all, one), append(errs, failed)
		}
	}
	return all, errs
}

// unanswered returns the error of a pipeline that asks for another try, if there
// is one: what the server said of single commands is theirs.
func unanswered[C redis.Cmder](cmds []C) error {
	errs := make([]error, len(cmds))
	for i, c := range cmds {
		errs[i] = c.Err()
	}
	return worst(errs)
}

// decodeSchedule reads a record. What is not as the store writes it parks the
// schedule.
func decodeSchedule(name string, record map[string]string) (*Schedule, error) {
	if len(record) == 0 {
		return nil, fmt.Errorf("schedule %s: %w", clip(name, 64), ErrNotFound)
	}
	out := &Schedule{
		Name: name, Group: record["gr"], Definition: []byte(record["d"]), State: bytesOf(record["x"]), Parked: record["e"],
	}
	var ok bool
	if out.Generation, ok = whole(record["g"]); !ok {
		out.Parked = cmp.Or(out.Parked, "its generation is damaged")
	}
	for field, to := range map[string]*time.Time{"n": &out.Next, "k": &out.Look, "l": &out.Last} {
		ms := record[field]
		if ms == "" {
			continue
		}
		if *to = millis(ms); stamp(*to) != ms {
			out.Parked = cmp.Or(out.Parked, "one of its times is damaged")
		}
	}
	return out, nil
}

// whole reads a generation as scripts do: 0 is none, or something that is not ours.
func whole(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 || len(s) > 15 || strconv.FormatInt(n, 10) != s {
		return 0, false
	}
	return n, true
}

// Schedules lists the names of all schedules, in no order.
func (s *Store) Schedules(ctx context.Context) ([]string, error) {
	var names []string
	for _, k := range s.segments {
		part, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]string, error) {
			return rdb.SMembers(ctx, k.schedules()).Result()
		})
		if err != nil {
			return nil, err
		}
		names = append(names, part...)
	}
	return names, nil
}

// DueSchedules names up to limit schedules of a segment that are to be looked at
// by now, but for the first skip ones.
func (s *Store) DueSchedules(ctx context.Context, segment, skip, limit int, now time.Time) ([]string, error) {
	k := s.segments[segment]
	return read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]string, error) {
		return rdb.ZRangeByScore(ctx, k.plan(), &redis.ZRangeBy{
			Min: "-inf", Max: strconv.FormatInt(now.UnixMilli(), 10), Offset: int64(skip), Count: int64(limit),
		}).Result()
	})
}

// ReadSchedules reads schedules that are in the plan. Those that are not there, or
// damaged, have Parked set.
func (s *Store) ReadSchedules(ctx context.Context, names []string) ([]*Schedule, error) {
	all, errs := s.GetSchedules(ctx, names)
	for i, err := range errs {
		if errors.Is(err, ErrNotFound) || errors.Is(err, ErrDamaged) {
			all[i] = &Schedule{Name: names[i], Parked: err.Error()}
		} else if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// NextTick returns the next time after now at which one of a segment's schedules
// is to be looked at, or zero. Those that stayed in the plan with an earlier one
// are left out.
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

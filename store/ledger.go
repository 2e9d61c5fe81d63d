package store

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Ledger returns what is recorded of the ticks from one instant to another, both
// included, oldest first. Zero times are open ends, and a limit of 0 is none.
// What is older than Options.Ledger says is gone.
func (s *Store) Ledger(ctx context.Context, name string, from, to time.Time, limit int) ([]LedgerEntry, error) {
	now, err := s.Now(ctx)
	if err != nil {
		return nil, err
	}
	if oldest := now.Add(-s.options.Ledger.Age); from.Before(oldest) {
		from = oldest
	}
	found, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]redis.Z, error) {
		return rdb.ZRangeByScoreWithScores(ctx, s.segments[s.scheduleSegment(name)].ledger(name), &redis.ZRangeBy{
			Min: stamp(from), Max: cmp.Or(stamp(to), "+inf"), Count: int64(limit),
		}).Result()
	})
	if err != nil {
		return nil, err
	}
	entries := make([]LedgerEntry, len(found))
	for i, z := range found {
		member, _ := z.Member.(string)
		_, text, _ := strings.Cut(member, " ")
		entries[i] = LedgerEntry{time.UnixMilli(int64(z.Score)), text}
	}
	return entries, nil
}

// Version is a definition that a schedule had.
type Version struct {
	Generation int64
	Meta       []byte
	Definition []byte
}

const (
	tagVersionMeta = iota + 1
	tagVersionDefinition
)

func (v Version) encode() []byte {
	var f fields
	f.bytes(tagVersionMeta, v.Meta)
	f.bytes(tagVersionDefinition, v.Definition)
	return f.buf
}

func decodeVersion(generation, data string) (v Version, ok bool) {
	v.Generation, ok = whole(generation)
	err := eachField(data, func(tag uint64, value string) error {
		switch tag {
		case tagVersionMeta:
			v.Meta = bytesOf(value)
		case tagVersionDefinition:
			v.Definition = []byte(value)
		}
		return nil
	})
	return v, ok && err == nil && data != ""
}

// Versions returns the last 20 definitions of a schedule, oldest first, also of
// one that was deleted not long ago. What cannot be read is left out.
func (s *Store) Versions(ctx context.Context, name string) ([]Version, error) {
	kept, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (map[string]string, error) {
		return rdb.HGetAll(ctx, s.segments[s.scheduleSegment(name)].versions(name)).Result()
	})
	var versions []Version
	for generation, data := range kept {
		if v, ok := decodeVersion(generation, data); ok {
			versions = append(versions, v)
		}
	}
	slices.SortFunc(versions, func(a, b Version) int { return cmp.Compare(a.Generation, b.Generation) })
	return versions, err
}

// RunState is what is known of a job by its ID.
type RunState struct {
	Known bool      // false: it was never created, or it is forgotten, or its record is not ours
	State State     // Queued stands for Running, too
	Ended time.Time // zero while unfinished
}

// RunStates tells of jobs that turns created.
func (s *Store) RunStates(ctx context.Context, ids []string) ([]RunState, error) {
	states := make([]RunState, 0, len(ids))
	for some := range slices.Chunk(ids, maxBatch) {
		places, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]*redis.StringCmd, error) {
			cmds := make([]*redis.StringCmd, len(some))
			_, _ = rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
				for i, id := range some {
					cmds[i] = p.HGet(ctx, s.segments[s.segmentOf(id)].record(id), "p")
				}
				return nil
			})
			return cmds, unanswered(cmds)
		})
		if err != nil {
			return nil, err
		}
		for _, p := range places {
			place := p.Val()
			state := stateOf(place)
			r := RunState{Known: state != "", State: state}
			if state.Final() {
				r.Ended = entryTime(place[1:])
			}
			states = append(states, r)
		}
	}
	return states, nil
}

// watchers is the inbox in which the ends of watched jobs are told.
const watchers = "@"

// Ended returns hints: the IDs of watched jobs that have ended.
func (s *Store) Ended() (hints <-chan string, stop func()) {
	return s.signals.listen(s.segments[0].inbox(watchers))
}

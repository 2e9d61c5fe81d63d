package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// Reclaimed counts what became of a lost instance's work.
type Reclaimed struct {
	Again  int // dispatched anew
	Ended  int // cancelled, or lost too many workers
	Broken int // quarantined
	Alive  bool
}

// nobody is the instance whose work an Audit takes up.
const nobody = ""

// reclaimBatch is how many entries one call takes over.
const reclaimBatch = 200

// Reclaim takes the work of an instance whose lease has lapsed and gives it to
// the others. A job that lost lossLimit workers is failed: it probably kills
// them. The instance's consumers are deleted once nothing is pending for them.
func (s *Store) Reclaim(ctx context.Context, segment int, instance string, lossLimit int, report func(id string, err error)) (Reclaimed, error) {
	var done Reclaimed
	queues, err := s.Queues(ctx)
	if err != nil {
		return done, err
	}
	for _, stream := range append(s.segments[segment].streams(queues), s.ownStreams(segment, instance)...) {
		for {
			entries, err := s.pendingOf(ctx, segment, stream, instance)
			if err != nil || len(entries) == 0 {
				if err != nil {
					return done, err
				}
				break
			}
			progress, err := s.reclaimEntries(ctx, segment, instance, lossLimit, entries, &done, report)
			if err != nil || done.Alive {
				return done, err
			}
			if !progress {
				break
			}
		}
	}
	left, err := s.run(ctx, s.leaveCall(segment, instance, queues, true))
	if err == nil && number(left) == 0 && segment == s.homeOf(instance) {
		err = s.endOwn(ctx, instance, queues, &done, report)
	}
	return done, err
}

// pendingOf lists entries that an instance has not settled.
func (s *Store) pendingOf(ctx context.Context, segment int, stream, instance string) ([]*Entry, error) {
	pending, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]redis.XPendingExt, error) {
		return rdb.XPendingExt(ctx, &redis.XPendingExtArgs{
			Stream: stream, Group: group, Start: "-", End: "+", Count: reclaimBatch, Consumer: instance,
		}).Result()
	})
	if err != nil || len(pending) == 0 {
		if hasReply(err, "NOGROUP") || errors.Is(err, ErrDamaged) {
			err = nil // the stream is gone, or foreign: nothing to take
		}
		return nil, err
	}
	// Entries that were deleted while pending are missing in the range.
	values, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (map[string]string, error) {
		found := make(map[string]string, len(pending))
		messages, err := rdb.XRangeN(ctx, stream, pending[0].ID, pending[len(pending)-1].ID, 10*reclaimBatch).Result()
		for _, m := range messages {
			found[m.ID] = text(m.Values[entryField])
		}
		return found, err
	})
	if err != nil {
		return nil, err
	}
	entries := make([]*Entry, len(pending))
	for i, p := range pending {
		v, ok := values[p.ID]
		if !ok {
			if v, err = s.entryData(ctx, stream, p.ID); err != nil {
				return nil, err
			}
		}
		entries[i] = decodeEntry(segment, stream, p.ID, v)
	}
	return entries, s.complete(ctx, entries)
}

func (s *Store) entryData(ctx context.Context, stream, id string) (string, error) {
	return read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (string, error) {
		m, err := rdb.XRange(ctx, stream, id, id).Result()
		if err != nil || len(m) == 0 {
			return "", err
		}
		return text(m[0].Values[entryField]), nil
	})
}

func (s *Store) reclaimEntries(ctx context.Context, segment int, instance string, lossLimit int, entries []*Entry, done *Reclaimed, report func(string, error)) (progress bool, err error) {
	k := s.segments[segment]
	var streams streamSet
	var jobs argList
	var sent []*Entry
	for _, e := range entries {
		if e.Unusable() {
			if s.Quarantine(ctx, e) {
				report(e.ID, e.Err)
				done.Broken++
				progress = true
			}
			continue
		}
		spec := e.Spec
		ttl := ""
		if spec.Retain > 0 {
			ttl = text(ceilMillis(spec.Retain))
		}
		sent = append(sent, e)
		jobs.arg(e.ID, e.entry, streams.of(e.stream), spec.Name, spec.Queue, ttl,
			ref{spec.Priority, spec.Queue, spec.Mutex, e.ID}.String(), leftReason(spec.Queue))
		jobs.key(k.record(e.ID))
		jobs.claims(k, s.localSpec(segment, spec))
	}
	if len(sent) == 0 {
		return progress, nil
	}
	var a argList
	a.key(k.workers(), k.due(), k.wait(), k.grant(), k.cancels(), k.awaited(), k.history(Failed), k.history(Cancelled), k.events(), k.taken())
	a.key(streams.names...)
	a.key(jobs.keys...)
	a.arg(instance, lossLimit, s.inboxPrefix(), s.ttl(Failed), s.ttl(Cancelled), len(streams.names), len(sent))
	a.arg(jobs.args...)
	reply, err := s.run(ctx, call{scriptReclaim, a.keys, a.args})
	if err != nil {
		return progress, err
	}
	if number(reply) == -1 {
		done.Alive = true
		return false, nil
	}
	for i, code := range list(at(reply, 0)) {
		switch number(code) {
		case 1:
			done.Again++
		case 2, 3:
			done.Ended++
		case -2:
			done.Broken++
			report(sent[i].ID, fmt.Errorf("the record is damaged or gone: %w", ErrDamaged))
		default:
			continue
		}
		progress = true
	}
	for _, name := range texts(at(reply, 1)) {
		if err := s.grant(ctx, segment, name, report); err != nil {
			return progress, err
		}
	}
	return progress, nil
}

// Strays lists consumers that hold entries though no instance of that name has
// a lease, as after an instance was declared dead, read once more and died.
func (s *Store) Strays(ctx context.Context, segment int, idle time.Duration) ([]string, error) {
	k := s.segments[segment]
	queues, err := s.Queues(ctx)
	if err != nil {
		return nil, err
	}
	leased, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]string, error) {
		return rdb.ZRange(ctx, k.workers(), 0, -1).Result()
	})
	if err != nil {
		return nil, err
	}
	known := make(map[string]bool, len(leased))
	for _, instance := range leased {
		known[instance] = true
	}
	var strays []string
	for _, stream := range k.streams(queues) {
		consumers, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]redis.XInfoConsumer, error) {
			return rdb.XInfoConsumers(ctx, stream, group).Result()
		})
		if err != nil {
			continue // no stream or no group yet
		}
		for _, c := range consumers {
			if !known[c.Name] && c.Idle >= idle {
				known[c.Name] = true
				strays = append(strays, c.Name)
			}
		}
	}
	orphans, err := s.orphans(ctx, segment, known, idle)
	return append(strays, orphans...), err
}

// Queues lists the queues that were ever used in the namespace, as far as Redis
// or this process knows: a failover may have lost the last ones.
func (s *Store) Queues(ctx context.Context) ([]string, error) {
	queues, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]string, error) {
		return rdb.SMembers(ctx, s.segments[0].queues()).Result()
	})
	err = s.passedOver(err)
	s.queuesKnown.Range(func(q, _ any) bool {
		if name, ok := q.(string); ok && !slices.Contains(queues, name) {
			queues = append(queues, name)
		}
		return true
	})
	return queues, err
}

package store

import (
	"context"
	"errors"
	"strings"

	"github.com/redis/go-redis/v9"
)

// A key that names a holder can be left behind when the holder's data was
// damaged or deleted by somebody else, for then nobody knows any more what the
// job held. Whoever runs into such a key looks at its holder and frees it.

// healUnique frees a unique key whose holder does not live. It reports whether
// it did, so that the submission can be tried again.
func (s *Store) healUnique(ctx context.Context, segment int, name, holder string) bool {
	k := s.segments[segment]
	reply, err := s.run(ctx, call{
		scriptFreeUnique, []string{k.unique(name), k.record(holder)}, []any{holder},
	})
	return err == nil && number(reply) == 1
}

// free frees what an answer of lib/accept says is taken, if its holder has no
// right to it any more. It reports whether the job can be submitted again.
func (s *Store) free(ctx context.Context, it *submission, answer string) bool {
	if holder, taken := strings.CutPrefix(answer, "u"); taken {
		return s.freeUnique(ctx, it, holder)
	}
	held, taken := strings.CutPrefix(answer, "l")
	if !taken {
		return false
	}
	segment, _, id, err := parseHolder(held)
	if err != nil {
		return false
	}
	ended, err := s.claimEnded(ctx, 'l', it.locator, held)
	if err != nil || !ended {
		return false
	}
	_, err = s.run(ctx, call{scriptUnclaim, []string{it.locator}, []any{segment, id}})
	return err == nil
}

// freeUnique frees the unique key of a job that was refused, if its holder has
// no right to it any more, wherever that holder lives.
func (s *Store) freeUnique(ctx context.Context, it *submission, holder string) bool {
	segment, _, id, err := parseHolder(holder)
	if err != nil {
		return s.healUnique(ctx, it.segment, it.spec.Unique, holder)
	}
	key := s.segments[it.segment].unique(it.spec.Unique)
	ended, err := s.claimEnded(ctx, 'u', key, holder)
	if err != nil || !ended {
		return false
	}
	_, err = s.run(ctx, call{scriptUnclaim, []string{key}, []any{segment, id}})
	return err == nil // also when another has it by now: then the answer names a stale holder
}

// healBatch is how many mutexes one pass looks at.
const healBatch = 100

// HealMutexes frees mutexes of a segment for which jobs wait though their
// holder does not run. A pass begins where the one before ended, as next says;
// the first one with "".
func (s *Store) HealMutexes(ctx context.Context, segment int, from string) (freed int, next string, err error) {
	k := s.segments[segment]
	if from == "" {
		from = "-"
	}
	for range healBatch {
		waiters, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]string, error) {
			return rdb.ZRangeByLex(ctx, k.wait(), &redis.ZRangeBy{Min: from, Max: "+", Count: 1}).Result()
		})
		if err != nil || len(waiters) == 0 {
			return freed, "", s.passedOver(err)
		}
		escaped, _, _ := strings.Cut(waiters[0], ":")
		from = "(" + escaped + ";" // behind all who wait for this mutex
		name, ok := unescape(escaped)
		if !ok {
			continue
		}
		holder, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (string, error) {
			return rdb.HGet(ctx, k.mutex(name), "h").Result()
		})
		if err != nil && !errors.Is(err, ErrDamaged) {
			return freed, from, err
		}
		if holder == "" {
			continue
		}
		reply, err := s.run(ctx, call{
			scriptFreeMutex,
			[]string{k.mutex(name), k.record(holder), k.wait(), k.grant()},
			[]any{escaped, holder},
		})
		if err != nil {
			return freed, from, err
		}
		if number(reply) == 1 {
			freed++
		}
	}
	return freed, from, nil
}

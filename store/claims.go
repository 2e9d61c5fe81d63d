package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// A job lives in the segment of its affinity: its mutex, else its unique key,
// else its ID. A key of the job whose own segment is another one is foreign to
// it, and a script cannot touch both. Then the foreign key holds a claim, which
// names the job, and the two segments agree by this protocol:
//
//  1. Set the claim, unless it is set (claim.lua).
//  2. If another job holds it, look at that job's record. A record that was
//     never written is marked void, so that its submission, which may still be
//     under way, will be refused (void.lua). A claim whose job is void, or final
//     and past its period, is replaced by compare-and-set.
//  3. Submit the job. Its segment notes the claim in tend.
//
// A crash after 1 leaves a claim that step 2 of the next submission sees
// through, and that lapses by itself. While the job lives the owner of its
// segment renews the claim from tend, and gives it back when the job is done.

const (
	claimTTL    = 48 * time.Hour
	tendEvery   = time.Hour
	voidTTL     = time.Hour
	claimBudget = 30 * time.Second // from claim to submit; far below voidTTL
)

// foreignClaim is a key of a job in a segment that is not the job's.
type foreignClaim struct {
	kind    byte // 'u' unique key, 'l' locator of the ID
	name    string
	segment int
}

func (s *Store) claimKey(c foreignClaim) string {
	k := s.segments[c.segment]
	if c.kind == 'u' {
		return k.unique(c.name)
	}
	return k.locator(c.name)
}

// segmentOf tells where a job's record is, or where its locator would be. IDs
// that were made for a job with affinity carry their segment.
func (s *Store) segmentOf(id string) int {
	if i := strings.LastIndexByte(id, '~'); i >= 0 {
		if n, err := strconv.ParseUint(id[i+1:], 36, 16); err == nil && int(n) < len(s.segments) {
			return int(n)
		}
	}
	return hashSegment(id, len(s.segments))
}

// inSegment completes an ID that is made here, so that it leads to its segment.
func (s *Store) inSegment(id string, segment int) string {
	if len(s.segments) == 1 {
		return id
	}
	return id + "~" + strconv.FormatUint(uint64(segment), 36) //nolint:gosec // a segment is not negative
}

// route finds a job's segment and its foreign claims.
func (s *Store) route(it *submission) {
	spec := it.spec
	it.local = spec
	affinity := spec.Mutex
	if affinity == "" {
		affinity = spec.Unique
	}
	if affinity == "" || len(s.segments) == 1 {
		it.segment = s.segmentOf(it.id)
		return
	}
	it.segment = hashSegment(affinity, len(s.segments))
	if it.made {
		it.id = s.inSegment(it.id, it.segment)
	} else if home := s.segmentOf(it.id); home != it.segment {
		it.foreign = append(it.foreign, foreignClaim{'l', it.id, home})
	}
	it.local = s.localSpec(it.segment, spec)
	if it.local != spec {
		it.foreign = append(it.foreign, foreignClaim{'u', spec.Unique, hashSegment(spec.Unique, len(s.segments))})
	}
}

// localSpec is spec without the unique key when that is foreign to segment.
func (s *Store) localSpec(segment int, spec *Spec) *Spec {
	if spec.Unique == "" || hashSegment(spec.Unique, len(s.segments)) == segment {
		return spec
	}
	local := *spec
	local.Unique = ""
	return &local
}

// submitClaimed submits one job with foreign claims.
func (s *Store) submitClaimed(ctx context.Context, it *submission) {
	ctx, cancel := context.WithTimeout(ctx, claimBudget)
	defer cancel()
	for range 3 {
		it.again, it.err = false, nil
		var taken []foreignClaim
		holder := ""
		for _, c := range it.foreign {
			if holder, it.err = s.claim(ctx, it, c); holder != "" || it.err != nil {
				break
			}
			taken = append(taken, c)
		}
		if holder == "" && it.err == nil {
			s.submitBatch(ctx, []*submission{it})
		}
		if holder != "" {
			it.receipt = Receipt{ID: holder, Duplicate: true}
		}
		if it.err == nil && !it.receipt.Duplicate || errors.Is(it.err, ErrUncertain) {
			return
		}
		if it.receipt.ID != it.id || it.err != nil {
			for _, c := range taken { // not stored: give back what was taken
				_, _ = s.run(ctx, call{scriptUnclaim, []string{s.claimKey(c)}, []any{s.holder(it, c)}})
			}
		}
		if !it.again {
			return
		}
	}
}

// foreignMark begins a claim's value. The value of a unique key whose job lives
// in the key's own segment is the job's ID, which has no control characters.
const foreignMark = "\x01"

// holder is a claim's value: where the job is and how long the claim outlives it.
func (s *Store) holder(it *submission, c foreignClaim) string {
	keep := int64(0)
	if c.kind == 'u' {
		keep = it.spec.UniqueFor.Milliseconds()
	}
	return foreignMark + strconv.Itoa(it.segment) + ":" + strconv.FormatInt(keep, 10) + ":" + it.id
}

func parseHolder(v string) (segment int, keep time.Duration, id string, err error) {
	rest, foreign := strings.CutPrefix(v, foreignMark)
	part := strings.SplitN(rest, ":", 3)
	if !foreign || len(part) != 3 || part[2] == "" {
		return 0, 0, "", fmt.Errorf("claim: %w", ErrDamaged)
	}
	n, err1 := strconv.ParseUint(part[0], 10, 16)
	ms, err2 := strconv.ParseUint(part[1], 10, 43)
	if err1 != nil || err2 != nil {
		return 0, 0, "", fmt.Errorf("claim: %w", ErrDamaged)
	}
	return int(n), time.Duration(ms) * time.Millisecond, part[2], nil //nolint:gosec // both have few bits
}

// claim takes one foreign key, or answers which job holds it.
func (s *Store) claim(ctx context.Context, it *submission, c foreignClaim) (string, error) {
	mine, replace := s.holder(it, c), ""
	for range 10 {
		reply, err := s.run(ctx, call{scriptClaim, []string{s.claimKey(c)}, []any{mine, replace, claimTTL.Milliseconds()}})
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrUnavailable, err) // the job itself was not sent
		}
		held := text(reply)
		if held == "" {
			return "", nil
		}
		if c.kind == 'u' && !strings.HasPrefix(held, foreignMark) {
			if !s.healUnique(ctx, c.segment, c.name, held) {
				return held, nil // a job of the key's own segment, which gives it back itself
			}
			continue
		}
		segment, keep, id, err := parseHolder(held)
		if err != nil || segment >= len(s.segments) {
			return "", fmt.Errorf("claim: %w", ErrDamaged)
		}
		gone, err := s.claimEnded(ctx, c.kind, segment, keep, id)
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if !gone {
			if c.kind == 'l' {
				return "", fmt.Errorf("%w: %s", ErrConflict, clip(id, 64))
			}
			return id, nil
		}
		replace = held
	}
	return "", fmt.Errorf("claim: %w: the key changes hands all the time", ErrUnavailable)
}

// claimEnded tells whether a holder's hold is over, and makes sure that it is
// when its job was never stored.
func (s *Store) claimEnded(ctx context.Context, kind byte, segment int, keep time.Duration, id string) (bool, error) {
	record := s.segments[segment].record(id)
	reply, err := s.run(ctx, call{scriptVoid, []string{record}, []any{voidTTL.Milliseconds()}})
	if err != nil {
		return false, err
	}
	place := text(reply)
	if place == "v" {
		return true, nil
	}
	if kind == 'l' || !stateOf(place).Final() {
		return false, nil
	}
	if keep == 0 {
		return true, nil
	}
	now, err := s.Now(ctx)
	if err != nil {
		return false, err
	}
	submitted, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (string, error) {
		return rdb.HGet(ctx, record, "s").Result()
	})
	return err == nil && !millis(submitted).Add(keep).After(now), err
}

// tend adds a job's foreign claims to its segment's list of claims to renew.
func (a *argList) tend(it *submission) {
	a.arg(len(it.foreign))
	for _, c := range it.foreign {
		a.arg(string(c.kind) + ":" + escape(c.name) + ":" + it.id)
	}
}

// Tend renews the claims of jobs that live and gives back those of jobs that
// are done. It returns how many it looked at.
func (s *Store) Tend(ctx context.Context, segment int) (int, error) {
	k := s.segments[segment]
	now, err := s.Now(ctx)
	if err != nil {
		return 0, err
	}
	members, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]string, error) {
		return rdb.ZRangeByScore(ctx, k.tend(), &redis.ZRangeBy{
			Min: "-inf", Max: strconv.FormatInt(now.UnixMilli(), 10), Count: 100,
		}).Result()
	})
	if err != nil {
		return 0, err
	}
	for _, m := range members {
		if err := s.tendOne(ctx, segment, m, now); err != nil {
			return 0, err
		}
	}
	return len(members), nil
}

func (s *Store) tendOne(ctx context.Context, segment int, member string, now time.Time) error {
	k := s.segments[segment]
	part := strings.SplitN(member, ":", 3)
	name, ok := "", false
	if len(part) == 3 {
		name, ok = unescape(part[1])
	}
	drop := func(ctx context.Context, rdb redis.UniversalClient) (int64, error) {
		return rdb.ZRem(ctx, k.tend(), member).Result()
	}
	if !ok || len(part[0]) != 1 {
		_, err := read(ctx, s, drop)
		return err
	}
	c := foreignClaim{part[0][0], name, hashSegment(name, len(s.segments))}
	if c.kind == 'l' {
		c.segment = s.segmentOf(name)
	}
	job, err := s.load(ctx, segment, part[2])
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrDamaged) {
		return err
	}
	it := &submission{id: part[2], segment: segment, spec: &Spec{}}
	alive := err == nil
	if alive {
		it.spec = job.Spec
		if c.kind == 'u' {
			alive = !job.State.Final() || job.SubmittedAt.Add(job.Spec.UniqueFor).After(now)
		}
	}
	if !alive {
		// When the record is gone with the period it named, the claim lapses by itself.
		if _, err := s.run(ctx, call{scriptUnclaim, []string{s.claimKey(c)}, []any{s.holder(it, c)}}); err != nil {
			return err
		}
		_, err = read(ctx, s, drop)
		return err
	}
	if _, err := s.run(ctx, call{scriptClaim, []string{s.claimKey(c)}, []any{s.holder(it, c), "", claimTTL.Milliseconds()}}); err != nil {
		return err
	}
	_, err = read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (int64, error) {
		return rdb.ZAddXX(ctx, k.tend(), redis.Z{Score: float64(now.Add(tendEvery).UnixMilli()), Member: member}).Result()
	})
	return err
}

package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// A job lives in the segment of its affinity: the instance whose own queue it is
// in, its mutex, else its unique key, else its ID. A key of the job whose own segment is another one is foreign to
// it, and a script cannot touch both. Then the foreign key holds a claim, which
// names the job, and the two segments agree by this protocol:
//
//  1. Set the claim, unless it is set (claim.lua).
//  2. If another job holds it, look at that job's record. A record that is not
//     written within a moment is marked void, so that its submission, which may
//     still be under way, will be refused (void.lua). A claim whose job is void,
//     or final and past its period, is replaced by compare-and-set.
//  3. Submit the job. Its segment notes the claim in tend.
//
// A crash after 1 leaves a claim that step 2 of the next submission sees
// through, and that lapses by itself. While the job lives the owner of its
// segment renews the claim from tend, and gives it back when the job is done.

const (
	claimTTL    = 48 * time.Hour
	tendEvery   = time.Hour
	voidTTL     = 2 * time.Minute
	claimBudget = 30 * time.Second       // from claim to submit; far below voidTTL
	claimYouth  = 250 * time.Millisecond // while a claim without a job is left in peace
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

// MadeID reports whether an ID is one that was made for a job with affinity. Its
// submitter may use it again, when the outcome of the first try is uncertain.
func MadeID(id string) bool {
	made, segment, ok := strings.Cut(id, "~")
	if !ok || len(made) != idEncoding.EncodedLen(16) {
		return false
	}
	_, err1 := idEncoding.DecodeString(made)
	_, err2 := strconv.ParseUint(segment, 36, 16)
	return err1 == nil && err2 == nil
}

// route finds a job's segment and its foreign claims.
func (s *Store) route(it *submission) {
	spec := it.spec
	it.local = spec
	affinity := cmp.Or(InstanceOf(spec.Queue), spec.Mutex, spec.Unique)
	if len(s.segments) == 1 {
		return
	}
	home := s.segmentOf(it.id)
	it.segment = home
	if affinity != "" {
		it.segment = hashSegment(affinity, len(s.segments))
	}
	if it.made && affinity != "" {
		it.id = s.inSegment(it.id, it.segment)
	} else if home != it.segment {
		it.foreign = append(it.foreign, foreignClaim{'l', it.id, home})
	} else if !it.made {
		it.locator = s.segments[home].locator(it.id)
	}
	it.local = s.localSpec(it.segment, spec)
	if it.local != spec { // the key is foreign
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
			if holder, it.err = s.claim(ctx, it, c, time.Time{}); holder != "" || it.err != nil {
				break
			}
			taken = append(taken, c)
		}
		if holder == "" && it.err == nil {
			s.submitBatch(ctx, []*submission{it})
		}
		if holder == "" && it.err == nil && it.receipt.ID == it.id {
			if !it.receipt.Duplicate {
				s.extendClaims(ctx, it)
			}
			return
		}
		if holder != "" {
			it.receipt, it.err = s.refuse(ctx, it.id, holder)
		}
		if errors.Is(it.err, ErrUncertain) {
			return // the claims lapse, or are tended by the job's segment
		}
		s.giveBack(ctx, it, taken)
		if !it.again {
			return
		}
		if it.made { // the ID that was given up is spent
			it.id = s.inSegment(NewID(), it.segment)
			it.named()
		}
	}
	it.err = fmt.Errorf("claim: %w: a concurrent submission took the ID's place; try again", ErrUnavailable)
}

// refuse tells whose the unique key is. When that is a job of the same ID, the
// two have other content, for equal ones live in one segment.
func (s *Store) refuse(ctx context.Context, id, holder string) (Receipt, error) {
	if holder == id {
		if _, err := s.Get(ctx, id); err == nil {
			return Receipt{ID: id}, fmt.Errorf("%w: %s", ErrConflict, clip(id, 64))
		}
	}
	return Receipt{ID: holder, Duplicate: true}, nil
}

// giveBack returns the claims of a submission that was refused, except those
// that are by right the stored job's which has the same ID.
func (s *Store) giveBack(ctx context.Context, it *submission, taken []foreignClaim) {
	if len(taken) == 0 {
		return
	}
	stored, err := s.load(ctx, it.segment, it.id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return // nobody knows; what is nobody's lapses
	}
	for _, c := range taken {
		if stored == nil || c.kind == 'u' && stored.Spec.Unique != c.name {
			_ = s.unclaim(ctx, it, c)
		}
	}
}

// extendClaims notes in a unique key's claim how long it outlives its job. The
// record, which knows as well, may be forgotten earlier.
func (s *Store) extendClaims(ctx context.Context, it *submission) {
	if it.spec.UniqueFor == 0 {
		return
	}
	now, err := s.Now(ctx)
	for _, c := range it.foreign {
		if err == nil && c.kind == 'u' {
			_, err = s.claim(ctx, it, c, now.Add(it.spec.UniqueFor)) // if this is lost, Tend does it
		}
	}
}

// foreignMark begins a claim's value. The value of a unique key whose job lives
// in the key's own segment is the job's ID, which has no control characters.
const foreignMark = "\x01"

// parseHolder reads a claim's value: where the job is, and until when at least
// it holds the key.
func parseHolder(v string) (segment int, until time.Time, id string, err error) {
	rest, foreign := strings.CutPrefix(v, foreignMark)
	part := strings.SplitN(rest, ":", 3)
	if !foreign || len(part) != 3 || part[2] == "" {
		return 0, until, "", fmt.Errorf("claim: %w", ErrDamaged)
	}
	n, err1 := strconv.ParseUint(part[0], 10, 16)
	ms, err2 := strconv.ParseUint(part[1], 10, 43)
	if err1 != nil || err2 != nil {
		return 0, until, "", fmt.Errorf("claim: %w", ErrDamaged)
	}
	return int(n), time.UnixMilli(int64(ms)), part[2], nil
}

// claim takes one foreign key, or answers which job holds it.
func (s *Store) claim(ctx context.Context, it *submission, c foreignClaim, until time.Time) (string, error) {
	keys := []string{s.claimKey(c)}
	if c.kind == 'l' {
		keys = append(keys, s.segments[c.segment].record(c.name))
	}
	ms := int64(0)
	if !until.IsZero() {
		ms = until.UnixMilli()
	}
	replace := ""
	for range 10 {
		reply, err := s.run(ctx, call{scriptClaim, keys, []any{it.segment, it.id, ms, replace, claimTTL.Milliseconds()}})
		if err != nil {
			return "", surelyNot("claim", err) // the job itself was not sent
		}
		held := text(reply)
		switch {
		case held == "":
			return "", nil
		case held[0] == '=':
			return s.heldAgain(ctx, it, millis(held[1:]))
		case held == "!":
			return "", fmt.Errorf("%w: %s", ErrConflict, clip(it.id, 64))
		case c.kind == 'u' && !strings.HasPrefix(held, foreignMark):
			if !s.healUnique(ctx, c.segment, c.name, held) {
				return held, nil // a job of the key's own segment, which gives it back itself
			}
			continue
		}
		_, _, id, err := parseHolder(held)
		if err != nil {
			return "", err
		}
		ended, err := s.claimEnded(ctx, c.kind, keys[0], held)
		if err != nil {
			return "", surelyNot("claim", err)
		}
		if !ended {
			if c.kind == 'l' {
				return "", fmt.Errorf("%w: %s", ErrConflict, clip(id, 64))
			}
			return id, nil
		}
		replace = held
	}
	return "", fmt.Errorf("claim: %w: the key changes hands all the time", ErrUnavailable)
}

// heldAgain answers for a claim that names the job already. If it outlives a job
// whose record is forgotten, the job that is submitted now is a second one.
func (s *Store) heldAgain(ctx context.Context, it *submission, until time.Time) (holder string, err error) {
	if until.UnixMilli() == 0 {
		return "", nil
	}
	now, err := s.Now(ctx)
	if err != nil || !until.After(now) {
		return "", err
	}
	place, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (string, error) {
		return rdb.HGet(ctx, s.segments[it.segment].record(it.id), "p").Result()
	})
	if err == nil && stateOf(place) == "" {
		holder = it.id
	}
	return holder, err
}

func (s *Store) unclaim(ctx context.Context, it *submission, c foreignClaim) error {
	_, err := s.run(ctx, call{scriptUnclaim, []string{s.claimKey(c)}, []any{it.segment, it.id}})
	return err
}

// claimEnded tells whether the hold that a claim's value, held, names is over, and
// makes sure that it is when its job was never stored.
func (s *Store) claimEnded(ctx context.Context, kind byte, claim, held string) (bool, error) {
	segment, until, id, err := parseHolder(held)
	if err != nil || segment >= len(s.segments) {
		return false, fmt.Errorf("claim: %w", ErrDamaged)
	}
	now, err := s.Now(ctx)
	if err != nil || until.After(now) {
		return false, err
	}
	if err := s.awaitRecord(ctx, claim, segment, id); err != nil {
		return false, err
	}
	reply, err := s.run(ctx, call{scriptVoid, []string{s.segments[segment].record(id)}, []any{voidTTL.Milliseconds()}})
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
	job, err := s.load(ctx, segment, id)
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrDamaged):
		return true, nil
	case err != nil:
		return false, err
	}
	return !job.SubmittedAt.Add(job.Spec.UniqueFor).After(now), nil
}

// awaitRecord gives the submission of a new claim's holder, which is most
// likely under way, a moment to be done. Otherwise submissions that race for a
// key would all give each other up.
func (s *Store) awaitRecord(ctx context.Context, claim string, segment int, id string) error {
	for wait := time.Millisecond; wait < claimYouth; wait *= 2 {
		place, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (string, error) {
			return rdb.HGet(ctx, s.segments[segment].record(id), "p").Result()
		})
		if err != nil || place != "" {
			return err
		}
		left, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (time.Duration, error) {
			return rdb.PTTL(ctx, claim).Result()
		})
		if err != nil || claimTTL-left > claimYouth {
			return err
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
	return nil
}

// tend adds a job's foreign claims to its segment's list of claims to renew.
func (a *argList) tend(it *submission) {
	a.arg(len(it.foreign))
	for _, c := range it.foreign {
		a.arg(string(c.kind) + ":" + escape(c.name) + ":" + it.id)
	}
}

// tendBatch is how many claims one command lists.
const tendBatch = 100

// Tend renews the claims of jobs that live and gives back those of jobs that
// are done.
func (s *Store) Tend(ctx context.Context, segment int) error {
	ctx = unpromised(ctx)
	k := s.segments[segment]
	for {
		now, err := s.Now(ctx)
		if err != nil {
			return err
		}
		members, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]string, error) {
			return rdb.ZRangeByScore(ctx, k.tend(), &redis.ZRangeBy{
				Min: "-inf", Max: strconv.FormatInt(now.UnixMilli(), 10), Count: tendBatch,
			}).Result()
		})
		if err != nil {
			return s.passedOver(err)
		}
		for _, m := range members {
			if err := s.tendOne(ctx, segment, m, now); err != nil {
				return err
			}
		}
		if len(members) < tendBatch {
			return nil
		}
	}
}

func (s *Store) tendOne(ctx context.Context, segment int, member string, now time.Time) error {
	k := s.segments[segment]
	drop := func(ctx context.Context, rdb redis.UniversalClient) (int64, error) {
		return rdb.ZRem(ctx, k.tend(), member).Result()
	}
	c, id, ok := s.parseTended(member)
	if !ok {
		_, err := read(ctx, s, drop)
		return err
	}
	it := &submission{id: id, segment: segment}
	job, err := s.load(ctx, segment, id)
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrDamaged) {
		return err
	}
	next, until := now.Add(tendEvery), time.Time{}
	alive := err == nil
	if alive && c.kind == 'u' {
		until = job.SubmittedAt.Add(job.Spec.UniqueFor)
		alive = !job.State.Final() || until.After(now)
	}
	if !alive {
		// The claim knows its end also when the record is forgotten.
		held, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (string, error) {
			return rdb.Get(ctx, s.claimKey(c)).Result()
		})
		if err != nil {
			return err
		}
		if home, end, holder, err := parseHolder(held); err == nil && home == segment && holder == id && end.After(now) {
			alive, until = true, end
		}
	}
	if !alive {
		if err := s.unclaim(ctx, it, c); err != nil {
			return err
		}
		_, err = read(ctx, s, drop)
		return err
	}
	if _, err := s.claim(ctx, it, c, until); err != nil && !errors.Is(err, ErrConflict) {
		return err
	}
	_, err = read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (int64, error) {
		return rdb.ZAddXX(ctx, k.tend(), redis.Z{Score: float64(next.UnixMilli()), Member: member}).Result()
	})
	return err
}

// parseTended reads a member of tend: kind, name of the key, ID of the job.
func (s *Store) parseTended(member string) (c foreignClaim, id string, ok bool) {
	part := strings.SplitN(member, ":", 3)
	if len(part) != 3 || part[0] != "u" && part[0] != "l" {
		return c, "", false
	}
	name, ok := unescape(part[1])
	if !ok {
		return c, "", false
	}
	c = foreignClaim{part[0][0], name, hashSegment(name, len(s.segments))}
	if c.kind == 'l' {
		c.segment = s.segmentOf(name)
	}
	return c, part[2], true
}

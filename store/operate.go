package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Cancel ends a job that has not started, or asks the worker that runs it to
// stop. The state is the one the job was in. A final job stays as it is.
func (s *Store) Cancel(ctx context.Context, id, reason string) (State, error) {
	segment, job, err := s.find(ctx, id)
	if err != nil {
		return "", err
	}
	return s.cancelIn(ctx, segment, job, reason)
}

// cancelIn is Cancel for a job that was looked up.
func (s *Store) cancelIn(ctx context.Context, segment int, job *Job, reason string) (State, error) {
	id := job.ID
	k := s.segments[segment]
	spec := job.Spec
	r := ref{spec.Priority, spec.Queue, spec.Mutex, id}
	ttl := s.ttl(Cancelled)
	if spec.Retain > 0 {
		ttl = ceilMillis(spec.Retain)
	}
	var a argList
	a.key(k.record(id), k.due(), k.wait(), k.grant(), k.cancels(), k.awaited(), k.history(Cancelled), k.stream(spec.Queue, spec.Priority), k.taken())
	a.arg(id, clip(reason, maxErrorBytes), s.control(), s.inboxPrefix(), s.ttl(Cancelled), ttl,
		r.String(), escape(spec.Mutex)+":", ":"+r.route(), spec.Name, spec.Queue)
	a.claims(k, s.localSpec(segment, spec))
	reply, err := s.run(ctx, call{scriptCancel, a.keys, a.args})
	if err != nil {
		return "", err
	}
	if number(at(reply, 1)) == 1 {
		_ = s.grant(ctx, segment, escape(spec.Mutex), s.reportDamage) // stays in grant until somebody succeeds
	}
	switch state := text(at(reply, 0)); state {
	case "":
		return "", fmt.Errorf("job %s: %w", clip(id, 64), ErrNotFound)
	case "q":
		return Running, nil
	case "n":
		return Queued, nil
	default:
		return stateOf(state), nil
	}
}

// Revive gives a failed, cancelled or expired job a new life.
func (s *Store) Revive(ctx context.Context, id string) error {
	segment, job, err := s.find(ctx, id)
	if err != nil {
		return err
	}
	if !job.State.Final() || job.State == Succeeded {
		return fmt.Errorf("retry job %s: %w: it is %s", clip(id, 64), ErrState, job.State)
	}
	k := s.segments[segment]
	spec := job.Spec
	var a argList
	it := &submission{id: id, segment: segment, spec: spec, local: s.localSpec(segment, spec)}
	if it.local != spec {
		unique := foreignClaim{'u', spec.Unique, hashSegment(spec.Unique, len(s.segments))}
		it.foreign = append(it.foreign, unique)
		holder, err := s.claim(ctx, it, unique, time.Time{})
		if err != nil {
			return err
		}
		if holder != "" {
			return fmt.Errorf("retry job %s: %w: job %s holds its unique key", clip(id, 64), ErrState, clip(holder, 64))
		}
	}
	a.key(k.record(id), k.due(), k.tend(), k.history(job.State), k.events())
	a.arg(id, job.State.letter(), ref{spec.Priority, spec.Queue, spec.Mutex, id}.String(), s.control(), segment, s.ttl(Failed), spec.Name, spec.Queue)
	a.claims(k, it.local)
	a.tend(it)
	reply, again, err := s.runAgain(ctx, call{scriptRevive, a.keys, a.args})
	for range healLimit {
		holder, taken := strings.CutPrefix(text(reply), "u")
		if err != nil || !taken || !s.freeUnique(ctx, it, holder) {
			break
		}
		reply, again, err = s.runAgain(ctx, call{scriptRevive, a.keys, a.args})
	}
	if err != nil {
		return err
	}
	switch answer := text(reply); {
	case answer == "ok" || answer == "live" && again:
		return nil
	case answer == "":
		return fmt.Errorf("job %s: %w", clip(id, 64), ErrNotFound)
	case answer[0] == 'u':
		it.answer(answer) // which knows the holder
		return fmt.Errorf("retry job %s: %w: job %s holds its unique key", clip(id, 64), ErrState, clip(it.receipt.ID, 64))
	default:
		return fmt.Errorf("retry job %s: %w: it is %s", clip(id, 64), ErrState, answer)
	}
}

// Hurry makes a scheduled or retrying job due now.
func (s *Store) Hurry(ctx context.Context, id string) error {
	segment, job, err := s.find(ctx, id)
	if err != nil {
		return err
	}
	k := s.segments[segment]
	r := ref{job.Spec.Priority, job.Spec.Queue, job.Spec.Mutex, id}
	reply, again, err := s.runAgain(ctx, call{scriptHurry, []string{k.due(), k.record(id)}, []any{r.String(), s.control(), segment}})
	switch {
	case err != nil:
		return err
	case number(reply) == -1:
		return fmt.Errorf("job %s: %w", clip(id, 64), ErrNotFound)
	case number(reply) == 0 && !again:
		return fmt.Errorf("run job %s now: %w: it is %s", clip(id, 64), ErrState, job.State)
	}
	return nil
}

// Pause stops or resumes the reading of a queue by all instances.
func (s *Store) Pause(ctx context.Context, queue string, paused bool) error {
	k := s.segments[0]
	on := 0
	if paused {
		on = 1
	}
	_, err := s.run(ctx, call{scriptPause, []string{k.paused(), k.events()}, []any{queue, on, s.control(), s.ttl(Failed)}})
	return err
}

// Paused lists the queues that are not read.
func (s *Store) Paused(ctx context.Context) ([]string, error) {
	return read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]string, error) {
		return rdb.SMembers(ctx, s.segments[0].paused()).Result()
	})
}

// trimBatch is how many finished jobs one call forgets.
const trimBatch = 500

// Trim forgets finished jobs beyond the retention's count, and history entries
// beyond its age. It returns how many entries went.
func (s *Store) Trim(ctx context.Context, segment int) (int, error) {
	total := 0
	for _, state := range FinalStates {
		bound := s.options.Retention[state]
		limit := max(1, bound.Count/len(s.segments))
		for {
			n, err := s.trim(ctx, segment, state, limit, bound.Age)
			total += n
			if errors.Is(err, ErrDamaged) {
				s.reportDamage("", fmt.Errorf("history of %s: %w", state, err))
				break
			}
			if err != nil {
				return total, err
			}
			if n < trimBatch {
				break
			}
		}
	}
	return total, nil
}

func (s *Store) trim(ctx context.Context, segment int, state State, limit int, age time.Duration) (int, error) {
	k := s.segments[segment]
	history := k.history(state)
	type oldest struct {
		length int64
		head   []redis.XMessage
		now    time.Time
	}
	o, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (oldest, error) {
		var length *redis.IntCmd
		var head *redis.XMessageSliceCmd
		var now *redis.TimeCmd
		_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			length = p.XLen(ctx, history)
			head = p.XRangeN(ctx, history, "-", "+", 1)
			now = p.Time(ctx)
			return nil
		})
		return oldest{length.Val(), head.Val(), now.Val()}, err
	})
	if err != nil || len(o.head) == 0 {
		return 0, err
	}
	beyond := o.length - int64(limit)
	old := o.now.Add(-age)
	if beyond <= 0 && !entryTime(o.head[0].ID).Before(old) {
		return 0, nil
	}
	entries, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]redis.XMessage, error) {
		return rdb.XRangeN(ctx, history, "-", "+", trimBatch).Result()
	})
	if err != nil {
		return 0, err
	}
	var a argList
	a.key(history)
	last := ""
	var ids argList
	for i, e := range entries {
		aged := entryTime(e.ID).Before(old)
		if int64(i) >= beyond && !aged {
			break
		}
		id, _ := e.Values["i"].(string)
		if aged && int64(i) >= beyond {
			id = "" // its record lives as long as its own time to live says
		}
		a.key(k.record(id))
		ids.arg(e.ID)
		last = e.ID
	}
	ms, seq := splitID(last)
	a.arg(state.letter(), strconv.FormatUint(ms, 10)+"-"+strconv.FormatUint(seq+1, 10))
	a.arg(ids.args...)
	_, err = s.run(ctx, call{scriptForget, a.keys, a.args})
	return len(a.keys) - 1, err
}

// find loads a job and tells its segment.
func (s *Store) find(ctx context.Context, id string) (int, *Job, error) {
	segment := s.segmentOf(id)
	job, err := s.load(ctx, segment, id)
	if err == nil || len(s.segments) == 1 || !errors.Is(err, ErrNotFound) {
		return segment, job, err
	}
	claim, lookup := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (string, error) {
		return rdb.Get(ctx, s.segments[segment].locator(id)).Result()
	})
	if lookup != nil {
		return segment, nil, lookup
	}
	if claim == "" {
		return segment, nil, err
	}
	elsewhere, _, _, bad := parseHolder(claim)
	if bad != nil || elsewhere >= len(s.segments) {
		return segment, nil, fmt.Errorf("job %s: locator: %w", clip(id, 64), ErrDamaged)
	}
	job, err = s.load(ctx, elsewhere, id)
	return elsewhere, job, err
}

// load reads a job's record and completes it from the structure it is in.
func (s *Store) load(ctx context.Context, segment int, id string) (*Job, error) {
	jobs, errs, err := s.loadMany(ctx, segment, []string{id})
	if err != nil {
		return nil, err
	}
	return jobs[0], errs[0]
}

func (s *Store) loadMany(ctx context.Context, segment int, ids []string) ([]*Job, []error, error) {
	k := s.segments[segment]
	records, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]*redis.MapStringStringCmd, error) {
		cmds := make([]*redis.MapStringStringCmd, len(ids))
		_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, id := range ids {
				cmds[i] = p.HGetAll(ctx, k.record(id))
			}
			return nil
		})
		if err != nil && judge(err) != final {
			return nil, err
		}
		return cmds, nil
	})
	if err != nil {
		return nil, nil, err
	}
	jobs, errs := make([]*Job, len(ids)), make([]error, len(ids))
	places := make([]string, len(ids))
	for i, id := range ids {
		record, err := records[i].Result()
		if err != nil {
			errs[i] = fmt.Errorf("job %s: %w", clip(id, 64), classify(err, false))
			continue
		}
		places[i] = record["p"]
		jobs[i], errs[i] = decodeJob(id, record)
	}
	moved, err := s.locate(ctx, k, jobs, places)
	if err != nil || len(moved) == 0 {
		return jobs, errs, err
	}
	again := make([]string, len(moved))
	for i, n := range moved {
		again[i] = ids[n]
	}
	newer, failed, err := s.loadMany(ctx, segment, again)
	if err != nil {
		return nil, nil, err
	}
	for i, n := range moved {
		jobs[n], errs[n] = newer[i], failed[i]
	}
	return jobs, errs, nil
}

// locate completes live jobs: when they are due, or which worker has them. It
// returns those that had left the place their records named when it looked there:
// what the record said is old by then, an attempt that ended would be missing.
func (s *Store) locate(ctx context.Context, k keys, jobs []*Job, places []string) (moved []int, err error) {
	type found struct {
		score   *redis.FloatCmd
		pending *redis.XPendingExtCmd
		place   *redis.StringCmd // afterwards
	}
	cmds, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]found, error) {
		cmds := make([]found, len(jobs))
		_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, j := range jobs {
				if j == nil {
					continue
				}
				r := ref{j.Spec.Priority, j.Spec.Queue, j.Spec.Mutex, j.ID}
				switch j.State {
				case Scheduled, Retrying:
					cmds[i].score = p.ZScore(ctx, k.due(), r.String())
				case Queued:
					entry := places[i]
					cmds[i].pending = p.XPendingExt(ctx, &redis.XPendingExtArgs{
						Stream: k.stream(r.queue, r.priority), Group: group, Start: entry, End: entry, Count: 1,
					})
				default:
					continue
				}
				cmds[i].place = p.HGet(ctx, k.record(j.ID), "p")
			}
			return nil
		})
		if err != nil && judge(err) != final {
			return nil, err
		}
		return cmds, nil
	})
	if err != nil {
		return nil, err
	}
	for i, c := range cmds {
		j := jobs[i]
		switch {
		case c.place == nil: // it has no structure to look at
		case c.score != nil && c.score.Err() == nil:
			j.DueAt = time.UnixMilli(int64(c.score.Val()))
		case c.pending != nil && len(c.pending.Val()) == 1:
			p := c.pending.Val()
			j.State = Running
			a := Attempt{Number: j.Count, Instance: p[0].Consumer, Dispatched: entryTime(p[0].ID), Outcome: Underway}
			a.Token, _ = Token(p[0].ID)
			if now, err := s.Now(ctx); err == nil {
				a.Started = now.Add(-p[0].Idle)
			}
			j.Attempts = append(j.Attempts, a)
		case c.place.Val() != places[i] && (c.place.Err() == nil || errors.Is(c.place.Err(), redis.Nil)):
			moved = append(moved, i)
		}
	}
	return moved, nil
}

// Get reads one job.
func (s *Store) Get(ctx context.Context, id string) (*Job, error) {
	_, job, err := s.find(ctx, id)
	return job, err
}

// Describe is what an instance says of itself.
type Describe struct {
	ID        string
	Data      []byte
	Running   int
	ExpiresAt time.Time
}

// Instances lists the instances that are registered.
func (s *Store) Instances(ctx context.Context) ([]Describe, error) {
	k := s.segments[0]
	type registry struct {
		leases []redis.Z
		data   map[string]string
	}
	r, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (registry, error) {
		leases, err := rdb.ZRangeWithScores(ctx, k.workers(), 0, -1).Result()
		if err != nil {
			return registry{}, err
		}
		data, err := rdb.HGetAll(ctx, k.instances()).Result()
		return registry{leases, data}, err
	})
	if err != nil {
		return nil, err
	}
	out := make([]Describe, 0, len(r.leases))
	for _, z := range r.leases {
		id, _ := z.Member.(string)
		running, _ := strconv.Atoi(r.data[id+" running"])
		out = append(out, Describe{
			ID: id, Data: []byte(r.data[id]), Running: running, ExpiresAt: time.UnixMilli(int64(math.Abs(z.Score))),
		})
	}
	return out, nil
}

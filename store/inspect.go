package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Filter selects jobs. Empty fields select all.
type Filter struct {
	States []State
	Queue  string
	Name   string
	Tag    string
}

func (f Filter) matches(j *Job) bool {
	if f.Queue != "" && j.Spec.Queue != f.Queue || f.Name != "" && j.Spec.Name != f.Name {
		return false
	}
	if f.Tag != "" && !slices.Contains(j.Spec.Tags, f.Tag) {
		return false
	}
	return len(f.States) == 0 || slices.Contains(f.States, j.State)
}

const pageSize = 100

// List walks the structures of the states asked for; a tag is looked up in its
// index, which holds unfinished jobs only. A job that changes state meanwhile
// may be missed or seen once more. Jobs whose record is gone or unreadable are
// passed over.
func (s *Store) List(ctx context.Context, f Filter) iter.Seq2[*Job, error] {
	return func(yield func(*Job, error) bool) {
		for segment := range s.segments {
			pages := s.pages(ctx, segment, f)
			for page := range pages {
				for {
					ids, more, err := page(ctx)
					if err != nil {
						yield(nil, err)
						return
					}
					if !s.yieldPage(ctx, segment, ids, f, yield) {
						return
					}
					if !more {
						break
					}
				}
			}
		}
	}
}

func (s *Store) yieldPage(ctx context.Context, segment int, ids []string, f Filter, yield func(*Job, error) bool) bool {
	if len(ids) == 0 {
		return true
	}
	jobs, errs, err := s.loadMany(ctx, segment, ids)
	if err != nil {
		return yield(nil, err)
	}
	for i, j := range jobs {
		if errs[i] != nil || !f.matches(j) {
			continue
		}
		if !yield(j, nil) {
			return false
		}
	}
	return true
}

// pager returns the next IDs of a structure and whether there may be more.
type pager func(context.Context) (ids []string, more bool, err error)

func (s *Store) pages(ctx context.Context, segment int, f Filter) iter.Seq[pager] {
	k := s.segments[segment]
	wants := func(states ...State) bool {
		for _, state := range states {
			if len(f.States) == 0 || slices.Contains(f.States, state) {
				return true
			}
		}
		return false
	}
	return func(yield func(pager) bool) {
		if f.Tag != "" {
			yield(s.setPager(k.tag(f.Tag)))
			return
		}
		if wants(Scheduled, Retrying) && !yield(s.sortedPager(k.due(), parseRef)) {
			return
		}
		if wants(Waiting) && !yield(s.sortedPager(k.wait(), parseWaiter)) {
			return
		}
		if wants(Queued, Running) {
			for p := range s.streamPagers(ctx, k, f.Queue) {
				if !yield(p) {
					return
				}
			}
		}
		for _, state := range FinalStates {
			if wants(state) && !yield(s.historyPager(k.history(state))) {
				return
			}
		}
	}
}

func (s *Store) sortedPager(key string, parse func(string) (ref, error)) pager {
	next := int64(0)
	return func(ctx context.Context) ([]string, bool, error) {
		from := next // a command that was given up may still read it
		members, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]string, error) {
			return rdb.ZRange(ctx, key, from, from+pageSize-1).Result()
		})
		next += pageSize
		var ids []string
		for _, m := range members {
			if r, err := parse(m); err == nil {
				ids = append(ids, r.id)
			}
		}
		return ids, len(members) == pageSize, err
	}
}

func (s *Store) setPager(key string) pager {
	var next uint64
	return func(ctx context.Context) ([]string, bool, error) {
		type page struct {
			ids  []string
			next uint64
		}
		cursor := next // as above
		p, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (page, error) {
			ids, next, err := rdb.SScan(ctx, key, cursor, "", pageSize).Result()
			return page{ids, next}, err
		})
		next = p.next
		return p.ids, next != 0, err
	}
}

func (s *Store) streamPagers(ctx context.Context, k keys, queue string) iter.Seq[pager] {
	return func(yield func(pager) bool) {
		queues := []string{queue}
		if queue == "" {
			failed := func(err error) pager {
				return func(context.Context) ([]string, bool, error) { return nil, false, err }
			}
			var err error
			if queues, err = s.Queues(ctx); err != nil {
				yield(failed(err))
				return
			}
			own, err := s.ownQueues(ctx, k)
			if err != nil {
				yield(failed(err))
				return
			}
			queues = append(queues, own...)
		}
		for _, stream := range k.streams(queues) {
			if !yield(s.rangePager(stream, false)) {
				return
			}
		}
	}
}

func (s *Store) historyPager(key string) pager { return s.rangePager(key, true) }

// rangePager walks a stream, newest first when back is set.
func (s *Store) rangePager(key string, back bool) pager {
	next := "-"
	if back {
		next = "+"
	}
	return func(ctx context.Context) ([]string, bool, error) {
		start := next // as above
		entries, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]redis.XMessage, error) {
			if back {
				return rdb.XRevRangeN(ctx, key, start, "-", pageSize).Result()
			}
			return rdb.XRangeN(ctx, key, start, "+", pageSize).Result()
		})
		if err != nil || len(entries) == 0 {
			return nil, false, err
		}
		var ids []string
		for _, e := range entries {
			id := text(e.Values["i"])
			if !back {
				_, _, id, _, _ = cutEntry(text(e.Values[entryField]))
			}
			if id != "" {
				ids = append(ids, id)
			}
		}
		next = "(" + entries[len(entries)-1].ID
		return ids, len(entries) == pageSize, nil
	}
}

// Counts is how many jobs are in each state; scheduled counts retrying ones too.
type Counts struct {
	States map[State]int
	Queues map[string]QueueCount
}

// QueueCount is how many jobs of a queue workers have, or could take now.
type QueueCount struct {
	Queued  int
	Running int
	Paused  bool
}

// Counts asks the structures for their sizes. It costs the same however many
// jobs there are.
func (s *Store) Counts(ctx context.Context) (Counts, error) {
	c := Counts{States: make(map[State]int), Queues: make(map[string]QueueCount)}
	queues, err := s.Queues(ctx)
	if err != nil {
		return c, err
	}
	paused, err := s.Paused(ctx)
	if err != nil {
		return c, err
	}
	for _, k := range s.segments {
		if err := s.countSegment(ctx, k, queues, &c); err != nil {
			return c, err
		}
	}
	for _, q := range paused {
		count := c.Queues[q]
		count.Paused = true
		c.Queues[q] = count
	}
	return c, nil
}

func (s *Store) countSegment(ctx context.Context, k keys, queues []string, c *Counts) error {
	own, err := s.ownQueues(ctx, k)
	if err != nil {
		return err
	}
	queues = append(slices.Clone(queues), own...)
	type sizes struct {
		due, wait *redis.IntCmd
		history   map[State]*redis.IntCmd
		length    map[string][]*redis.IntCmd
		pending   map[string][]*redis.XPendingCmd
	}
	z, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (sizes, error) {
		z := sizes{
			history: make(map[State]*redis.IntCmd),
			length:  make(map[string][]*redis.IntCmd), pending: make(map[string][]*redis.XPendingCmd),
		}
		_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			z.due, z.wait = p.ZCard(ctx, k.due()), p.ZCard(ctx, k.wait())
			for _, state := range FinalStates {
				z.history[state] = p.XLen(ctx, k.history(state))
			}
			for _, q := range queues {
				for _, stream := range k.streams([]string{q}) {
					z.length[q] = append(z.length[q], p.XLen(ctx, stream))
					z.pending[q] = append(z.pending[q], p.XPending(ctx, stream, group))
				}
			}
			return nil
		})
		if err != nil && judge(err) != final { // NOGROUP: nobody reads this queue yet
			return z, err
		}
		return z, nil
	})
	if err != nil {
		return err
	}
	c.States[Scheduled] += int(z.due.Val())
	c.States[Waiting] += int(z.wait.Val())
	for state, n := range z.history {
		c.States[state] += int(n.Val())
	}
	for _, q := range queues {
		count := c.Queues[q]
		for i, n := range z.length[q] {
			running := 0
			if p := z.pending[q][i].Val(); p != nil {
				running = int(p.Count)
			}
			count.Running += running
			count.Queued += max(0, int(n.Val())-running)
			c.States[Running] += running
			c.States[Queued] += max(0, int(n.Val())-running)
		}
		if InstanceOf(q) == "" {
			c.Queues[q] = count
		}
	}
	return nil
}

// Await asks to be told on the store's inbox when a job is final, and returns
// its state at the time of the call.
func (s *Store) Await(ctx context.Context, id string) (State, error) {
	segment, _, err := s.find(ctx, id)
	if err != nil {
		return "", err
	}
	reply, err := s.run(ctx, call{scriptAwait, []string{s.segments[segment].record(id), s.segments[segment].awaited()}, []any{id, s.inbox}})
	if err != nil {
		return "", err
	}
	place := text(reply)
	if place == "" {
		return "", fmt.Errorf("job %s: %w", clip(id, 64), ErrNotFound)
	}
	return stateOf(place), nil
}

// Server is what the start-up checks found out; empty fields could not be read.
type Server struct {
	Version     string
	Eviction    string // maxmemory-policy
	Persistence string // "aof", "rdb", "none", or "rdb or none" where it cannot be told
}

// Inspect reads what a server says of itself. Denied commands are passed over.
func (s *Store) Inspect(ctx context.Context) (Server, error) {
	var v Server
	info, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (string, error) {
		return rdb.Info(ctx, "server").Result()
	})
	if errors.Is(err, ErrUncertain) || errors.Is(err, ErrUnavailable) && !denied(err) {
		return v, err
	}
	v.Version = infoField(info, "redis_version")
	if policy, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (map[string]string, error) {
		return rdb.ConfigGet(ctx, "maxmemory-policy").Result()
	}); err == nil {
		v.Eviction = policy["maxmemory-policy"]
	}
	if info, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (string, error) {
		return rdb.Info(ctx, "persistence").Result()
	}); err == nil && info != "" {
		switch {
		case infoField(info, "aof_enabled") == "1":
			v.Persistence = "aof"
		case infoField(info, "rdb_last_save_time") != "":
			v.Persistence = s.snapshots(ctx)
		}
	}
	return v, nil
}

// snapshots tells whether a server without append-only file saves snapshots.
func (s *Store) snapshots(ctx context.Context) string {
	save, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (map[string]string, error) {
		return rdb.ConfigGet(ctx, "save").Result()
	})
	switch {
	case err != nil:
		return "rdb or none"
	case save["save"] == "":
		return "none"
	}
	return "rdb"
}

func denied(err error) bool { return hasReply(err, "NOPERM") || hasReply(err, "ERR") }

// TooOld reports whether a version is known and below the oldest supported one, 6.2.
func (v Server) TooOld() bool {
	var major, minor int
	if n, err := fmt.Sscanf(v.Version, "%d.%d", &major, &minor); err != nil || n != 2 {
		return false
	}
	return major < 6 || major == 6 && minor < 2
}

func infoField(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimRight(value, "\r\n")
		}
	}
	return ""
}

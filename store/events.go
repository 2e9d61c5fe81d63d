package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Event is something that happened to a job or a queue.
type Event struct {
	Cursor  string // resume after this event
	Time    time.Time
	Type    string // a final state, or retrying, revived, quarantined, paused, resumed
	ID      string
	Name    string
	Queue   string
	Attempt int
	Error   string
}

// eventBatch is how many events of a stream one command reads.
const eventBatch = 500

// eventBlock is the longest blocking read for events.
const eventBlock = 5 * time.Second

// eventStreams lists what Events reads of a segment: the histories, which hold
// one entry for each finished job, and the stream of everything else.
func (k keys) eventStreams() []string {
	var names []string
	for _, state := range FinalStates {
		names = append(names, k.history(state))
	}
	return append(names, k.events())
}

// Events yields what happens after this call, or after the event that had the
// cursor. It ends with an error when ctx ends. Events of one job come in order.
// Those older than the retention are gone.
func (s *Store) Events(ctx context.Context, cursor string) iter.Seq2[Event, error] {
	start, err := s.positions(ctx, cursor) // now, or what happens before the loop begins would be missed
	return func(yield func(Event, error) bool) {
		if err != nil {
			yield(Event{}, err)
			return
		}
		positions := slices.Clone(start)
		ctx, cancel := context.WithCancel(ctx)
		if !s.beginTails(len(s.eventSets())) {
			cancel()
			yield(Event{}, ErrClosed)
			return
		}
		unbind := context.AfterFunc(s.life, cancel)
		batches := make(chan []streamEntry)
		failed := make(chan error, len(s.segments))
		var readers sync.WaitGroup
		defer readers.Wait()
		defer cancel()
		defer unbind()
		sets, start := s.eventSets(), slices.Clone(positions)
		rdb := s.dial(len(sets))
		hangUp := sync.OnceFunc(func() { _ = rdb.Close() })
		defer hangUp()
		unlink := context.AfterFunc(ctx, hangUp) // interrupts blocked reads
		defer unlink()
		for _, set := range sets {
			readers.Go(func() { // ends with ctx
				defer s.tails.Done()
				if err := s.tail(ctx, rdb, set, start, batches); err != nil {
					failed <- err
				}
			})
		}
		for {
			select {
			case batch := <-batches:
				for _, e := range batch {
					positions[e.stream] = e.id
					event := e.event()
					event.Cursor = encodeCursor(positions)
					if !yield(event, nil) {
						return
					}
				}
			case err := <-failed:
				yield(Event{}, err)
				return
			case <-ctx.Done():
				err := context.Cause(ctx)
				if s.life.Err() != nil {
					err = ErrClosed
				}
				yield(Event{}, err)
				return
			}
		}
	}
}

// beginTails counts readers that Close waits for. It reports false when the
// store is closed.
func (s *Store) beginTails(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.tails.Add(n)
	}
	return !s.closed
}

// eventSets groups streams that can be read in one command, as indexes into
// the list of all.
func (s *Store) eventSets() [][]int {
	per := len(s.segments[0].eventStreams())
	var sets [][]int
	for segment := range s.segments {
		var set []int
		for i := range per {
			set = append(set, segment*per+i)
		}
		if !s.cluster && len(sets) > 0 {
			sets[0] = append(sets[0], set...)
			continue
		}
		sets = append(sets, set)
	}
	return sets
}

type streamEntry struct {
	stream int
	id     string
	values map[string]any
}

func (e streamEntry) event() Event {
	get := func(name string) string { v, _ := e.values[name].(string); return v }
	per := len(FinalStates) + 1
	kind := get("t")
	if lane := e.stream % per; lane < len(FinalStates) {
		kind = string(FinalStates[lane])
	}
	out := Event{
		Time: entryTime(e.id), Type: kind, ID: get("i"), Name: get("n"), Queue: get("q"),
		Attempt: int(number(get("a"))), Error: get("e"),
	}
	if what := get("d"); what != "" { // in a history
		attempt, rest, _ := strings.Cut(what, " ")
		length, rest, _ := strings.Cut(rest, " ")
		if n, err := strconv.Atoi(length); err == nil && n >= 0 && n <= len(rest) {
			out.Attempt, out.Name, out.Queue = int(number(attempt)), rest[:n], rest[n:]
		}
	}
	return out
}

// tail reads a set of streams until ctx ends.
func (s *Store) tail(ctx context.Context, rdb redis.UniversalClient, set []int, start []string, out chan<- []streamEntry) error {
	names := s.allEventStreams()
	args := make([]string, 2*len(set))
	index := make(map[string]int, len(set))
	for i, n := range set {
		args[i], args[len(set)+i] = names[n], start[n]
		index[names[n]] = i
	}
	wait := firstWait
	for ctx.Err() == nil {
		reply, err := rdb.XRead(ctx, &redis.XReadArgs{Streams: args, Count: eventBatch, Block: eventBlock}).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			if judge(err) == final && ctx.Err() == nil {
				return fmt.Errorf("events: %w", classify(err, false))
			}
			_ = sleep(ctx, wait) // the loop looks whether ctx has ended
			wait = min(2*wait, time.Second)
			continue
		}
		wait = firstWait
		var batch []streamEntry
		horizon := "" // what is later has to wait for the rest of a stream that has more
		for _, stream := range reply {
			for _, m := range stream.Messages {
				batch = append(batch, streamEntry{set[index[stream.Stream]], m.ID, m.Values})
			}
			if n := len(stream.Messages); n == eventBatch {
				if last := stream.Messages[n-1].ID; horizon == "" || compareIDs(last, horizon) < 0 {
					horizon = last
				}
			}
		}
		slices.SortStableFunc(batch, func(a, b streamEntry) int { return compareIDs(a.id, b.id) })
		if horizon != "" {
			batch = slices.DeleteFunc(batch, func(e streamEntry) bool { return compareIDs(e.id, horizon) > 0 })
		}
		for _, e := range batch {
			args[len(set)+slices.Index(set, e.stream)] = e.id
		}
		if len(batch) == 0 {
			continue
		}
		select {
		case out <- batch:
		case <-ctx.Done():
		}
	}
	return nil
}

func (s *Store) allEventStreams() []string {
	var names []string
	for _, k := range s.segments {
		names = append(names, k.eventStreams()...)
	}
	return names
}

// positions tells where to start in each stream.
func (s *Store) positions(ctx context.Context, cursor string) ([]string, error) {
	names := s.allEventStreams()
	if cursor != "" {
		p, err := decodeCursor(cursor)
		if err == nil && len(p) != len(names) {
			err = errors.New("it belongs to another namespace")
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCursor, err)
		}
		return p, nil
	}
	return read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]string, error) {
		last := make([]*redis.XMessageSliceCmd, len(names))
		_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, name := range names {
				last[i] = p.XRevRangeN(ctx, name, "+", "-", 1)
			}
			return nil
		})
		at := make([]string, len(names))
		for i, l := range last {
			at[i] = "0-0"
			if m := l.Val(); len(m) == 1 {
				at[i] = m[0].ID
			}
		}
		return at, err
	})
}

// A cursor is the position in every stream, in base 36.
func encodeCursor(positions []string) string {
	var b strings.Builder
	for i, id := range positions {
		if i > 0 {
			b.WriteByte('.')
		}
		ms, seq := splitID(id)
		b.WriteString(strconv.FormatUint(ms, 36))
		b.WriteByte('-')
		b.WriteString(strconv.FormatUint(seq, 36))
	}
	return b.String()
}

func decodeCursor(cursor string) ([]string, error) {
	part := strings.Split(cursor, ".")
	out := make([]string, len(part))
	for i, p := range part {
		ms, seq, ok := strings.Cut(p, "-")
		m, err1 := strconv.ParseUint(ms, 36, 64)
		n, err2 := strconv.ParseUint(seq, 36, 64)
		if !ok || err1 != nil || err2 != nil {
			return nil, fmt.Errorf("%q is not one that an event had", clip(cursor, 64))
		}
		out[i] = strconv.FormatUint(m, 10) + "-" + strconv.FormatUint(n, 10)
	}
	return out, nil
}

func splitID(id string) (ms, seq uint64) {
	a, b, _ := strings.Cut(id, "-")
	ms, _ = strconv.ParseUint(a, 10, 64)
	seq, _ = strconv.ParseUint(b, 10, 64)
	return ms, seq
}

func compareIDs(a, b string) int {
	am, as := splitID(a)
	bm, bs := splitID(b)
	return cmp.Or(cmp.Compare(am, bm), cmp.Compare(as, bs))
}

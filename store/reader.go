package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Reader takes the entries of one queue for an instance, from some segments
// that can be read in one command. Blocking reads have connections of their
// own, in a client that the readers of an instance share. It is for one goroutine,
// except Close.
type Reader struct {
	Queue string

	store    *Store
	instance string
	segments []int
	streams  []string
	of       []int           // segment of each stream
	sharing  int             // streams that share what Wait may take
	turn     int             // rotates who is served first
	alone    alone           // where the last fetches found entries
	foreign  map[string]bool // streams that are not ours
	rdb      redis.UniversalClient
	hangUp   func() error // closes rdb, once
}

// Readers makes the readers of queues: one a queue, or on Redis Cluster one a
// queue and segment. An instance's own queue is in one segment, so it has one.
func (s *Store) Readers(instance string, queues []string) []*Reader {
	var readers []*Reader
	for _, queue := range queues {
		for _, set := range s.readable(queue) {
			r := &Reader{store: s, Queue: queue, instance: instance, segments: set}
			for _, p := range priorities {
				for _, segment := range set {
					r.streams = append(r.streams, s.segments[segment].stream(queue, p))
					r.of = append(r.of, segment)
				}
			}
			r.sharing = len(r.streams)
			readers = append(readers, r)
		}
	}
	// One client, for on Redis Cluster each asks for the slot map all the time.
	rdb := s.dial(len(readers))
	hangUp := sync.OnceValue(rdb.Close)
	for _, r := range readers {
		r.rdb, r.hangUp = rdb, hangUp
	}
	return readers
}

// readable splits the segments that hold a queue into sets that one command reads.
func (s *Store) readable(queue string) [][]int {
	if own := InstanceOf(queue); own != "" {
		return [][]int{{s.homeOf(own)}}
	}
	all := make([]int, len(s.segments))
	for i := range all {
		all[i] = i
	}
	if !s.cluster {
		return [][]int{all}
	}
	return slices.Collect(slices.Chunk(all, 1))
}

// With returns a reader whose [Reader.Wait] takes what is for either of two readers,
// up to n for each; it is not for anything else. It is nil when no command reads both: on
// Redis Cluster, unless they read the same segment.
func (r *Reader) With(other *Reader) *Reader {
	if r.store.cluster && !slices.Equal(r.segments, other.segments) {
		return nil
	}
	return &Reader{
		store: r.store, instance: r.instance, rdb: r.rdb, hangUp: r.hangUp,
		streams: slices.Concat(r.streams, other.streams), of: slices.Concat(r.of, other.of),
		sharing: max(r.sharing, other.sharing),
	}
}

// Reads reports whether an entry came from one of the reader's streams.
func (r *Reader) Reads(e *Entry) bool { return slices.Contains(r.streams, e.stream) }

// Close ends the blocked reads of all readers of the instance, whose contexts have
// ended. Entries that Redis delivered meanwhile stay pending for the instance;
// [Reader.Pending] finds them.
func (r *Reader) Close() error { return r.hangUp() }

// landing is how long a read goes on after the end of its context. What was sent
// is heard of: a server that came to it late would deliver to nobody.
const landing = 50 * time.Millisecond

// landed returns a context that ends with ctx, but not before landing has passed
// since now.
func landed(ctx context.Context) (context.Context, context.CancelFunc) {
	sent := time.Now()
	out, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		_ = sleep(out, landing-time.Since(sent))
		cancel(context.Cause(ctx))
	})
	return out, func() {
		stop()
		cancel(nil)
	}
}

// Wait blocks until entries arrive, and takes them: up to n, shared evenly by the
// streams. After limit, at least 1 ms, it returns nothing. A
// server that then says nothing for as long as the caller's client waits for
// replies, or a second, is gone: go-redis alone would wait 10 s.
func (r *Reader) Wait(ctx context.Context, n int, limit time.Duration) ([]*Entry, error) {
	if patience := r.store.patience(); patience > 0 {
		until, cancel := context.WithTimeout(ctx, limit+max(time.Second, patience))
		defer cancel()
		ctx = until
	}
	return r.xread(ctx, ">", max(1, n/r.sharing), limit)
}

// Pending returns what Redis holds as delivered to the instance: entries whose
// reply was lost are among them.
func (r *Reader) Pending(ctx context.Context) ([]*Entry, error) {
	return r.xread(ctx, "0", 10_000, -1)
}

func (r *Reader) xread(ctx context.Context, from string, count int, block time.Duration) ([]*Entry, error) {
	streams := r.ours()
	if len(streams) == 0 {
		_ = sleep(ctx, max(0, block))
		return nil, r.inspect(ctx)
	}
	args := slices.Clone(streams)
	for range streams {
		args = append(args, from)
	}
	rdb := r.rdb
	if block < 0 { // not for a connection that may be blocked or closed
		var err error
		if rdb, err = r.store.client(); err != nil {
			return nil, err
		}
	}
	ctx, cancel := landed(ctx)
	defer cancel()
	reply, _, err := within(ctx, func() ([]redis.XStream, error) {
		return rdb.XReadGroup(sentOnce(ctx), &redis.XReadGroupArgs{
			Group: group, Consumer: r.instance, Streams: args, Count: int64(count), Block: block,
		}).Result()
	})
	if err != nil {
		if errors.Is(err, redis.Nil) {
			if len(r.foreign) > 0 {
				return nil, r.inspect(ctx)
			}
			return nil, nil
		}
		if hasReply(err, "WRONGTYPE") {
			before := len(r.foreign)
			if inspected := r.inspect(ctx); inspected != nil || len(r.foreign) != before {
				return nil, inspected
			}
		}
		return nil, fmt.Errorf("read: %w", err)
	}
	var entries []*Entry
	for _, stream := range reply {
		segment := r.segmentOf(stream.Stream)
		for _, m := range stream.Messages {
			entries = append(entries, decodeEntry(segment, stream.Stream, m.ID, text(m.Values[entryField])))
		}
	}
	return entries, r.store.complete(ctx, entries)
}

// ours lists the streams that can be read.
func (r *Reader) ours() []string {
	return slices.DeleteFunc(slices.Clone(r.streams), func(name string) bool { return r.foreign[name] })
}

// inspect finds out which of the keys hold something else than a stream. They
// are not read until that is gone.
func (r *Reader) inspect(ctx context.Context) error {
	types, err := read(ctx, r.store, func(ctx context.Context, rdb redis.UniversalClient) ([]*redis.StatusCmd, error) {
		cmds := make([]*redis.StatusCmd, len(r.streams))
		_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, name := range r.streams {
				cmds[i] = p.Type(ctx, name)
			}
			return nil
		})
		return cmds, err
	})
	if err != nil {
		return err
	}
	r.foreign = nil
	for i, name := range r.streams {
		if kind := types[i].Val(); kind != "stream" && kind != "none" {
			if r.foreign == nil {
				r.foreign = make(map[string]bool)
			}
			r.foreign[name] = true
			r.store.reportDamage("", fmt.Errorf("%w: key %s is a %s, not a stream", ErrDamaged, clip(name, 200), kind))
		}
	}
	return nil
}

// segmentOf tells the segment of one of the streams.
func (r *Reader) segmentOf(stream string) int { return r.of[max(0, slices.Index(r.streams, stream))] }

// GroupGone reports whether a read failed because its stream or group is gone.
func GroupGone(err error) bool { return hasReply(err, "NOGROUP") || hasReply(err, "UNBLOCKED") }

// Interrupted reports whether a read failed because its connection was closed.
func Interrupted(err error) bool { return errors.Is(err, redis.ErrClosed) }

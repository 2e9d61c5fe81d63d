package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// With Options.WaitReplicas, what a caller is told to be done was received by
// that many replicas. WAIT speaks of the writes of its own connection only, so
// the scripts, a mark and WAIT travel in one pipeline, to one node. A failover in
// between ends the connection, so WAIT never counts for another primary than
// the one that ran the scripts. The mark is a write in any case: a script that
// finds its work done writes nothing, and WAIT would not wait.

// replicaWait bounds how long a call waits for replicas.
const replicaWait = time.Second

// ErrReplicas comes with [ErrUncertain]: it is done, but too few replicas know.
var ErrReplicas = errors.New("too few replicas confirmed")

// lagging is the error of a call that too few replicas confirmed in time.
type lagging struct {
	got    int64
	asked  int
	within time.Duration
}

func (l *lagging) Error() string {
	return fmt.Sprintf("it is done on the primary, but %d of %d replicas confirmed it within %v, so a failover could undo it; "+
		"check the replicas (Config.WaitReplicas) and call again: submitting under the same ID is safe and waits for them as well",
		l.got, l.asked, l.within.Round(time.Millisecond))
}

func (l *lagging) Is(target error) bool { return target == ErrUncertain || target == ErrReplicas }

// waits reports whether a call is acknowledged only after replicas have it.
func (s *Store) waits(ctx context.Context, c call) bool {
	return s.options.WaitReplicas > 0 && c.script.promised && ctx.Value(nobodyWaits{}) == nil
}

type nobodyWaits struct{}

// unpromised is for what the store does by itself: no caller waits to hear that
// it is done, and it must go on while replicas lag.
func unpromised(ctx context.Context) context.Context {
	return context.WithValue(ctx, nobodyWaits{}, true)
}

// evalPromised is evalAll for calls that wait for replicas.
func (s *Store) evalPromised(ctx context.Context, rdb redis.UniversalClient, calls []call) ([]any, []error) {
	replies, errs := make([]any, len(calls)), make([]error, len(calls))
	parts := make(map[*redis.Client][]int)
	for i, c := range calls {
		node, err := primaryOf(ctx, rdb, c.keys[0])
		if err != nil {
			errs[i] = err
			continue
		}
		parts[node] = append(parts[node], i)
	}
	var nodes sync.WaitGroup
	for node, part := range parts {
		nodes.Go(func() {
			if unknown := s.sendPromised(ctx, node, calls, part, false, replies, errs); len(unknown) > 0 {
				s.sendPromised(ctx, node, calls, unknown, true, replies, errs)
			}
		})
	}
	nodes.Wait()
	if cluster, ok := rdb.(*redis.ClusterClient); ok && worst(errs) != nil {
		cluster.ReloadState(ctx) // the slots may be elsewhere by now
	}
	return replies, errs
}

// primaryOf returns a client of the one server that has a key.
func primaryOf(ctx context.Context, rdb redis.UniversalClient, key string) (*redis.Client, error) {
	switch c := rdb.(type) {
	case *redis.ClusterClient:
		return c.MasterForKey(ctx, key)
	case *redis.Client:
		return c, nil
	}
	return nil, fmt.Errorf("client: %T is not supported", rdb) // New refuses it
}

// sendPromised sends those of calls that part lists, by their digests or by their
// texts, and waits. It returns which of them the server did not know.
func (s *Store) sendPromised(ctx context.Context, node *redis.Client, calls []call, part []int, byText bool, replies []any, errs []error) (unknown []int) {
	patience := s.replicaPatience(ctx, node.Options().ReadTimeout)
	cmds := make([]*redis.Cmd, len(part))
	var mark *redis.Cmd
	var wait *redis.IntCmd
	_, _ = node.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, n := range part {
			cmds[i] = calls[n].on(ctx, p, byText)
		}
		mark = p.Eval(ctx, scriptMark.text, []string{markOf(calls[part[0]].keys[0])})
		wait = redis.NewIntCmd(ctx, "wait", s.options.WaitReplicas, patience.Milliseconds())
		return p.Process(ctx, wait)
	})
	received := s.received(mark.Err(), wait, patience)
	for i, n := range part {
		reply, err := cmds[i].Result()
		switch {
		case hasReply(err, "NOSCRIPT"):
			unknown = append(unknown, n)
		case err == nil, err == redis.Nil: //nolint:errorlint // a nil reply is not an error here
			replies[n], errs[n] = reply, received
		default:
			errs[n] = err
		}
	}
	return unknown
}

// received tells what WAIT said. A server that refuses it leaves the caller as
// uncertain as one whose replicas lag; a lost reply is worth another try.
func (s *Store) received(mark error, wait *redis.IntCmd, patience time.Duration) error {
	n, err := wait.Result()
	if mark != nil {
		err = mark
	}
	var refused redis.Error
	switch {
	case errors.As(err, &refused):
		return fmt.Errorf("%w: %w: %w", ErrUncertain, ErrReplicas, err)
	case err != nil:
		return err
	case n < int64(s.options.WaitReplicas):
		return &lagging{n, s.options.WaitReplicas, patience}
	}
	return nil
}

// replicaPatience keeps WAIT within what the caller and the connection allow. It
// is never 0, by which WAIT means for ever.
func (s *Store) replicaPatience(ctx context.Context, readTimeout time.Duration) time.Duration {
	patience := s.replicaWait
	if readTimeout > 0 {
		patience = min(patience, readTimeout/2)
	}
	if end, ok := ctx.Deadline(); ok {
		patience = min(patience, time.Until(end)/2)
	}
	return max(patience, time.Millisecond)
}

package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Each running instance reads a queue of its own, which nobody else reads: what is
// in it runs there or not at all. The queue is in one segment. The sorted set own
// of that segment tells which instances read one, and which jobs live for whom, so
// that they can be ended when their instance has gone; see docs/adr/0014.

// ownMark begins the name of an instance's own queue. No user can give a queue
// such a name.
const ownMark = "\x00"

// OwnQueue names the queue that an instance alone reads. Its jobs have no mutex,
// whose segment is another one. When the instance leaves, or its lease lapses,
// those that have not ended are cancelled.
func OwnQueue(instance string) string { return ownMark + instance }

// InstanceOf tells whose own queue this is; "" when it is anybody's.
func InstanceOf(queue string) string {
	instance, own := strings.CutPrefix(queue, ownMark)
	if !own {
		return ""
	}
	return instance
}

// leftReason tells why a job of an own queue was cancelled.
func leftReason(queue string) string {
	instance := InstanceOf(queue)
	if instance == "" {
		return ""
	}
	return "instance " + instance + " left before it ran this"
}

// homeOf is the segment of an instance's own queue.
func (s *Store) homeOf(instance string) int { return hashSegment(instance, len(s.segments)) }

// streamsOf lists the streams of queues that an instance reads in a segment, and
// tells whether those of its own queue are among them.
func (s *Store) streamsOf(segment int, instance string, queues []string) (streams []string, own bool) {
	var here []string
	for _, q := range queues {
		if InstanceOf(q) == "" {
			here = append(here, q)
		} else if segment == s.homeOf(instance) {
			here, own = append(here, q), true
		}
	}
	return s.segments[segment].streams(here), own
}

// ownStreams lists the streams of an instance's own queue in a segment.
func (s *Store) ownStreams(segment int, instance string) []string {
	if segment != s.homeOf(instance) {
		return nil
	}
	return s.segments[segment].streams([]string{OwnQueue(instance)})
}

// ownQueues lists the own queues in a segment for which jobs live.
func (s *Store) ownQueues(ctx context.Context, k keys) ([]string, error) {
	members, err := s.ownMembers(ctx, k)
	return ownQueuesOf(members), s.passedOver(err)
}

func ownQueuesOf(members []string) []string {
	var queues []string
	last := ""
	for _, m := range members { // those of an instance are next to each other
		if instance, id, _ := strings.Cut(m, ":"); id != "" && instance != last {
			queues, last = append(queues, OwnQueue(instance)), instance
		}
	}
	return queues
}

func (s *Store) ownMembers(ctx context.Context, k keys) ([]string, error) {
	return read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]string, error) {
		return rdb.ZRange(ctx, k.own(), 0, -1).Result()
	})
}

// endOwn ends the jobs of the own queue of an instance that has left or was
// declared dead, and then takes it out of its segment for good. Nothing is added
// meanwhile: promote looks whether the instance is there.
func (s *Store) endOwn(ctx context.Context, instance string, queues []string, done *Reclaimed, report func(string, error)) error {
	segment := s.homeOf(instance)
	for _, stream := range s.ownStreams(segment, instance) {
		for {
			// In its name, so that what nobody has read is reclaimed like the rest.
			if err := s.readFor(ctx, stream, instance); err != nil {
				return err
			}
			entries, err := s.pendingOf(ctx, segment, stream, instance)
			if err != nil {
				return err
			}
			progress, err := s.reclaimEntries(ctx, segment, instance, 0, entries, done, report)
			if err != nil || done.Alive {
				return err
			}
			if !progress {
				break
			}
		}
	}
	if err := s.endIndexed(ctx, segment, instance); err != nil {
		return err
	}
	_, err := s.run(ctx, s.leaveCall(segment, instance, queues, true))
	return err
}

// readFor delivers what waits in a stream to an instance.
func (s *Store) readFor(ctx context.Context, stream, instance string) error {
	_, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]redis.XStream, error) {
		return rdb.XReadGroup(ctx, &redis.XReadGroupArgs{
			Group: group, Consumer: instance, Streams: []string{stream, ">"}, Count: reclaimBatch, Block: -1,
		}).Result()
	})
	if hasReply(err, "NOGROUP") {
		return nil
	}
	return s.passedOver(err)
}

// endIndexed ends the jobs of an instance's own queue that are planned for later.
func (s *Store) endIndexed(ctx context.Context, segment int, instance string) error {
	k := s.segments[segment]
	members, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]string, error) {
		return rdb.ZRangeByLex(ctx, k.own(), &redis.ZRangeBy{Min: "(" + instance + ":", Max: "(" + instance + ";"}).Result()
	})
	if err != nil {
		return s.passedOver(err)
	}
	for _, m := range members {
		ended, err := s.endLost(ctx, segment, strings.TrimPrefix(m, instance+":"))
		if err != nil {
			return err
		}
		if ended {
			continue
		}
		if _, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (int64, error) {
			return rdb.ZRem(ctx, k.own(), m).Result()
		}); err != nil {
			return err
		}
	}
	return nil
}

// endLost cancels a job whose instance has left. It reports false when there is no
// such job, or when it had ended.
func (s *Store) endLost(ctx context.Context, segment int, id string) (bool, error) {
	job, err := s.load(ctx, segment, id)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrDamaged) {
		return false, nil
	}
	if err != nil || job.State.Final() {
		return false, err
	}
	state, err := s.cancelIn(unpromised(ctx), segment, job, leftReason(job.Spec.Queue))
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return !state.Final(), err
}

// endPlanned ends a job that is due for an instance which does not read its own
// queue.
func (s *Store) endPlanned(ctx context.Context, segment int, member string, report func(string, error)) error {
	r, err := parseRef(member)
	if err != nil {
		return err
	}
	ended, err := s.endLost(ctx, segment, r.id)
	if err == nil && !ended {
		err = s.quarantineRef(ctx, segment, member, fmt.Errorf("no job belongs to the reference: %w", ErrNotFound), report)
	}
	return err
}

// orphans lists instances that are not registered, have not read for so long, and
// left an own queue behind: as when an older release reclaimed them.
func (s *Store) orphans(ctx context.Context, segment int, known map[string]bool, idle time.Duration) ([]string, error) {
	k := s.segments[segment]
	members, err := s.ownMembers(ctx, k)
	if err != nil {
		return nil, s.passedOver(err)
	}
	var orphans []string
	for _, m := range members {
		instance, _, _ := strings.Cut(m, ":")
		if known[instance] {
			continue
		}
		known[instance] = true
		if !s.reads(ctx, k.stream(OwnQueue(instance), DefaultPriority), instance, idle) {
			orphans = append(orphans, instance)
		}
	}
	return orphans, nil
}

// reads tells whether an instance has read a stream lately.
func (s *Store) reads(ctx context.Context, stream, instance string, idle time.Duration) bool {
	consumers, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]redis.XInfoConsumer, error) {
		return rdb.XInfoConsumers(ctx, stream, group).Result()
	})
	if err != nil {
		return judge(err) != final // no stream, or no group
	}
	for _, c := range consumers {
		if c.Name == instance && c.Idle < idle {
			return true
		}
	}
	return false
}

package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// Tick is what a segment needs next.
type Tick struct {
	Now      time.Time
	NextDue  time.Time // zero: nothing is planned
	NextTick time.Time // of a schedule; zero: none
	Lapsed   []string  // instances whose leases have lapsed, oldest first, not all if there are many
	Relay    bool      // jobs of schedules are noted for other segments: see Relay
	Promoted int
}

// promoteBatch is how many jobs one call moves.
const promoteBatch = 500

// promoteBatches bounds one call of Promote, for there is other work to do.
const promoteBatches = 20

// Promote moves every job of a segment that is due to its stream, gives free
// mutexes to those who wait, and tells what comes next. Jobs that cannot be
// promoted are quarantined; report hears of each.
func (s *Store) Promote(ctx context.Context, segment int, report func(id string, err error)) (Tick, error) {
	k := s.segments[segment]
	var t Tick
	var due []string
	idle := 0 // rounds in a row that changed nothing
	for batches := 0; ; batches++ {
		refs := make([]ref, 0, len(due))
		for _, member := range due {
			r, err := parseRef(member)
			if err == nil && r.String() != member { // it would not be found by what is said of it
				err = fmt.Errorf("malformed reference %q", clip(member, 64))
			}
			if err != nil {
				if err := s.quarantineRef(ctx, segment, member, err, report); err != nil {
					return t, err
				}
				continue
			}
			refs = append(refs, r)
		}
		var streams streamSet
		jobs := k.promotions(refs, &streams)
		var a argList
		a.key(k.due(), k.wait(), k.grant(), k.workers(), k.plan(), k.relay(), k.own())
		a.key(streams.names...)
		a.key(jobs.keys...)
		a.arg(len(streams.names))
		a.arg(jobs.args...)
		a.arg(promoteBatch)
		reply, err := s.run(ctx, call{scriptPromote, a.keys, a.args})
		if err != nil {
			return t, err
		}
		bad := texts(at(reply, 6))
		for i := 0; i+1 < len(bad); i += 2 {
			if err := s.quarantineRef(ctx, segment, bad[i], fmt.Errorf("%w: %s", ErrDamaged, bad[i+1]), report); err != nil {
				return t, err
			}
		}
		gone := texts(at(reply, 9))
		for _, member := range gone {
			if err := s.endPlanned(ctx, segment, member, report); err != nil {
				return t, err
			}
		}
		t.Promoted += len(refs) - len(bad)/2 - len(gone)
		t.Now, t.NextDue, t.NextTick = millis(at(reply, 0)), millis(at(reply, 1)), millis(at(reply, 2))
		t.Lapsed, t.Relay = texts(at(reply, 3)), number(at(reply, 8)) == 1
		for _, name := range texts(at(reply, 5)) {
			if err := s.grant(ctx, segment, name, report); errors.Is(err, ErrDamaged) {
				s.reportDamage("", err) // the other mutexes need not wait
			} else if err != nil {
				return t, err
			}
		}
		for _, key := range texts(at(reply, 7)) {
			s.reportDamage("", fmt.Errorf("%w: the type of key %s is foreign", ErrDamaged, clip(key, 200)))
		}
		before := due
		if due = texts(at(reply, 4)); len(due) == 0 || batches == promoteBatches {
			return t, nil // the rest is due now, as NextDue says
		}
		// What was put aside just now is in the reply once more.
		if idle++; len(refs) > len(bad)/2 || !slices.Equal(before, due) {
			idle = 0
		}
		if idle > 2 {
			return t, fmt.Errorf("promote: %w: %d jobs can be neither promoted nor put aside", ErrDamaged, len(due))
		}
	}
}

// promotions lists jobs in the order in which they are due, as promote reads them.
func (k keys) promotions(refs []ref, streams *streamSet) argList {
	streamOf := func(r ref) string { return k.stream(r.queue, r.priority) }
	jobs := argList{keys: make([]string, 0, len(refs)), args: make([]any, 0, 2*len(refs)+8)}
	parts := stretches(refs, func(r ref) bool { return r.mutex == "" && InstanceOf(r.queue) == "" })
	jobs.arg(len(parts))
	for _, part := range parts {
		groups := bundled(part.plain, streamOf)
		jobs.arg(len(groups))
		for _, g := range groups {
			jobs.arg(streams.of(g.key), len(g.items))
			for _, r := range g.items {
				jobs.arg(r.String())
				jobs.key(k.record(r.id))
			}
			for _, r := range g.items {
				jobs.arg(r.id)
			}
		}
		jobs.arg(len(part.others))
		for _, r := range part.others {
			jobs.arg(r.String(), r.id, streams.of(streamOf(r)), escape(r.mutex), r.route(), InstanceOf(r.queue))
			jobs.key(k.record(r.id))
			if r.mutex != "" {
				jobs.key(k.mutex(r.mutex))
			}
		}
	}
	return jobs
}

// grant gives a free mutex to the job that waits longest. name is escaped, as
// scripts return it; report hears of jobs that cannot have it.
func (s *Store) grant(ctx context.Context, segment int, name string, report func(string, error)) error {
	k := s.segments[segment]
	mutex, ok := unescape(name)
	if !ok {
		return fmt.Errorf("mutex %q: %w", clip(name, 64), ErrDamaged)
	}
	waiter := ""
	for {
		var a argList
		a.key(k.wait(), k.grant(), k.mutex(mutex))
		a.arg(name, waiter)
		var r ref
		var err error
		if waiter != "" {
			if r, err = parseWaiter(waiter); err != nil {
				if _, failed := s.quarantine(ctx, segment, outcast{waiter: waiter, reason: err}); failed != nil {
					return failed
				}
				report("", err)
				waiter = ""
				continue
			}
			a.key(k.record(r.id), k.stream(r.queue, r.priority))
		}
		a.arg(r.id)
		reply, err := s.run(ctx, call{scriptGrant, a.keys, a.args})
		if err != nil {
			return err
		}
		answer := text(reply)
		switch {
		case answer == "":
			return nil
		case answer[0] == 'w':
			waiter = answer[1:]
		default:
			reason := fmt.Errorf("%w: %s", ErrDamaged, answer[1:])
			removed, err := s.quarantine(ctx, segment, outcast{
				id: r.id, waiter: waiter, queue: r.queue, priority: r.priority, reason: reason,
			})
			if err != nil {
				return err
			}
			if removed {
				report(r.id, reason)
			}
			waiter = ""
		}
	}
}

// outcast is something that cannot be run: where it is and why.
type outcast struct {
	id       string
	entry    string
	ref      string
	waiter   string
	queue    string
	priority byte
	stream   string
	reason   error
}

// quarantineRef takes a member of due out of the way.
func (s *Store) quarantineRef(ctx context.Context, segment int, member string, reason error, report func(string, error)) error {
	if member == "" { // which says "none" to the script
		_, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (int64, error) {
			return rdb.ZRem(ctx, s.segments[segment].due(), "").Result()
		})
		return err
	}
	o := outcast{ref: member, reason: reason}
	if r, err := parseRef(member); err == nil {
		o.id, o.queue, o.priority = r.id, r.queue, r.priority
	}
	removed, err := s.quarantine(ctx, segment, o)
	if removed {
		report(o.id, reason)
	}
	return err
}

// Quarantine takes an entry out of the way that cannot be run. It reports
// whether the entry was still there.
func (s *Store) Quarantine(ctx context.Context, e *Entry) bool {
	o := outcast{id: e.ID, entry: e.entry, stream: e.stream, reason: e.Err}
	if e.Spec != nil {
		o.queue = e.Spec.Queue
	}
	removed, _ := s.quarantine(ctx, e.Segment, o)
	return removed
}

// quarantine reports whether the outcast was still in its place.
func (s *Store) quarantine(ctx context.Context, segment int, o outcast) (bool, error) {
	k := s.segments[segment]
	if o.stream == "" {
		queue, priority := o.queue, o.priority
		if queue == "" {
			queue, priority = DefaultQueue, DefaultPriority
		}
		o.stream = k.stream(queue, priority)
	}
	name := ""
	spec := &Spec{}
	if o.id != "" { // its claims, as far as they can be read
		if values, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]any, error) {
			return rdb.HMGet(ctx, k.record(o.id), specFields...).Result()
		}); err == nil {
			if decoded, _ := decodeSpec(joined(text(at(values, 0)), text(at(values, 1)))); decoded != nil {
				spec, name = s.localSpec(segment, decoded), decoded.Name
			}
		}
	}
	var a argList
	a.key(k.record(o.id), k.due(), k.wait(), k.grant(), k.cancels(), k.awaited(), o.stream, k.history(Failed), k.events(), k.taken())
	a.arg(o.id, o.entry, o.ref, o.waiter, clip("quarantined: "+o.reason.Error(), maxErrorBytes), s.inboxPrefix(),
		s.ttl(Failed), name, o.queue)
	a.claims(k, spec)
	reply, err := s.run(ctx, call{scriptQuarantine, a.keys, a.args})
	return number(at(reply, 0)) == 1, err
}

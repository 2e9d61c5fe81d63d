package store

import (
	"context"
	"slices"
	"time"
)

// Join registers an instance in every segment and creates the consumer groups
// of the queues it reads; its own queue may be one of them. fresh lists the segments
// that did not know it, or had declared it dead.
func (s *Store) Join(ctx context.Context, instance string, lease time.Duration, description []byte, queues []string) (fresh []int, err error) {
	jobs := make([]NewJob, len(queues))
	for i, q := range queues {
		jobs[i].Spec = &Spec{Queue: q}
	}
	if err := s.announce(ctx, jobs); err != nil {
		return nil, err
	}
	calls := make([]call, len(s.segments))
	for i, k := range s.segments {
		var a argList
		streams, home := s.streamsOf(i, instance, queues)
		a.key(k.workers(), k.instances(), k.taken(), k.own())
		a.key(streams...)
		a.arg(instance, lease.Milliseconds(), description, flag(home), len(streams))
		calls[i] = call{scriptJoin, a.keys, a.args}
	}
	replies, errs := s.runAll(ctx, calls)
	for i, r := range replies {
		if errs[i] == nil && number(at(r, 1)) == 0 {
			fresh = append(fresh, i)
		}
	}
	return fresh, Distinct(errs)
}

// Leave takes an instance out of every segment. What is still pending for it is
// reclaimed by others at once; the jobs of its own queue end here.
func (s *Store) Leave(ctx context.Context, instance string, queues []string) error {
	calls := make([]call, len(s.segments))
	for i := range s.segments {
		calls[i] = s.leaveCall(i, instance, queues, false)
	}
	replies, errs := s.runAll(ctx, calls)
	if home := s.homeOf(instance); errs[home] == nil && number(replies[home]) == 0 {
		errs[home] = s.endOwn(ctx, instance, queues, &Reclaimed{}, s.reportDamage)
	}
	return Distinct(errs)
}

func (s *Store) leaveCall(segment int, instance string, queues []string, lost bool) call {
	k := s.segments[segment]
	var a argList
	own := s.ownStreams(segment, instance)
	streams := k.streams(slices.DeleteFunc(slices.Clone(queues), func(q string) bool { return InstanceOf(q) != "" }))
	a.key(k.workers(), k.instances(), k.own(), k.taken())
	a.key(streams...)
	a.key(own...)
	a.arg(instance, flag(lost), len(streams), len(own))
	return call{scriptLeave, a.keys, a.args}
}

// streams lists the streams of queues in the order in which they are read.
func (k keys) streams(queues []string) []string {
	var names []string
	for _, p := range priorities {
		for _, q := range queues {
			names = append(names, k.stream(q, p))
		}
	}
	return names
}

// Pulse is what a heartbeat told.
type Pulse struct {
	Now       time.Time
	Dead      []int    // segments that had declared the instance dead
	Cancelled []string // IDs of jobs with a cancel request, anywhere
	Paused    []string // queues
	Live      []string // instances with a lease; none when they are those of the last census
	Census    string   // stands for them in the next heartbeat
	Missed    bool     // more is pending for the instance than it knows
}

// Heartbeat extends an instance's leases, each segment with its own error. known
// counts the entries the instance holds, by stream; census is that of the pulse
// which told the live instances last, or "". What a segment that failed would have
// told is missing in the pulse.
func (s *Store) Heartbeat(ctx context.Context, instance string, lease time.Duration, queues []string, running int, known map[string]int, census string) (Pulse, []error) {
	calls := make([]call, len(s.segments))
	shared := slices.DeleteFunc(slices.Clone(queues), func(q string) bool { return InstanceOf(q) != "" })
	for i, k := range s.segments {
		var a argList
		streams := k.streams(shared)
		var lanes []string
		if len(shared) < len(queues) {
			lanes = s.ownStreams(i, instance)
		}
		a.key(k.workers(), k.instances(), k.cancels(), k.paused(), k.own())
		a.key(streams...)
		a.key(lanes...)
		heard := "-"
		if i == 0 {
			heard = census
		}
		a.arg(instance, lease.Milliseconds(), running, heard, len(streams), len(lanes))
		for _, stream := range slices.Concat(streams, lanes) {
			a.arg(known[stream])
		}
		calls[i] = call{scriptHeartbeat, a.keys, a.args}
	}
	replies, errs := s.runAll(ctx, calls)
	var p Pulse
	for i, r := range replies {
		if errs[i] != nil {
			continue
		}
		if number(at(r, 1)) == 0 {
			p.Dead = append(p.Dead, i)
		}
		p.Cancelled = append(p.Cancelled, texts(at(r, 2))...)
		p.Missed = p.Missed || len(list(at(r, 5))) > 0
		if i == 0 {
			p.Now = millis(at(r, 0))
			p.Paused = texts(at(r, 3))
			p.Live = texts(at(r, 4))
			p.Census = text(at(r, 6))
		}
	}
	return p, errs
}

// KnownBy counts entries by stream, for [Store.Heartbeat].
func KnownBy(entries []*Entry) map[string]int {
	known := make(map[string]int)
	for _, e := range entries {
		known[e.stream]++
	}
	return known
}

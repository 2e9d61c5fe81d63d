// Package audit reads every key of a namespace and proves what has to hold
// between them: each live job is in exactly one place, every place points to
// such a job, and whatever does not go away by itself has an owner.
//
// It is written from the key table of package store, not with its code, so that
// a mistake in one of them is seen by the other. It holds for a namespace in
// which nothing moves; [Settle] waits for that.
package audit

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Report is what an audit found.
type Report struct {
	Jobs     int            // records of jobs
	States   map[byte]int   // how many of them are in each kind of place, by its letter; q: in a stream
	Outcomes map[string]int // entries in the histories of final jobs, by job ID
	Findings []string       // what must not be
	Left     []string       // what must be gone when no job lives and no instance runs

	Instances map[string]int // in how many segments each instance is registered
	Strays    []string       // consumers of who is not registered, which instances that run remove in their time
}

// Settle audits until there is nothing to find, or until within has passed, and
// returns the last report. A namespace that somebody works on shows false
// findings, which the next look does not repeat.
func Settle(ctx context.Context, rdb redis.UniversalClient, namespace string, within time.Duration) (*Report, error) {
	for deadline := time.Now().Add(within); ; {
		r, err := Take(ctx, rdb, namespace)
		if err == nil && len(r.Findings) == 0 && len(r.Left) == 0 || time.Now().After(deadline) {
			return r, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return r, ctx.Err()
		}
	}
}

// Take reads the namespace once.
func Take(ctx context.Context, rdb redis.UniversalClient, namespace string) (*Report, error) {
	s := newSnapshot(namespace)
	if err := s.load(ctx, rdb); err != nil {
		return nil, err
	}
	s.auditRecords()
	s.auditDue()
	s.auditStreams()
	s.auditHistories()
	s.auditHolds()
	s.auditInstances()
	s.auditOwn()
	s.auditSchedules()
	s.auditLeft()
	slices.Sort(s.report.Findings)
	slices.Sort(s.report.Left)
	return &s.report, nil
}

func (s *snapshot) find(format string, args ...any) {
	s.report.Findings = append(s.report.Findings, fmt.Sprintf(format, args...))
}

func (s *snapshot) left(format string, args ...any) {
	s.report.Left = append(s.report.Left, fmt.Sprintf(format, args...))
}

// final tells whether a place is the end of a job.
func final(place string) bool { return place != "" && strings.IndexByte("sfcx", place[0]) >= 0 }

// auditRecords: a live job is in the structure its record names, a final one
// passes by itself (invariants 4, 5 and 11).
func (s *snapshot) auditRecords() {
	for _, r := range s.records {
		if r.place == "" {
			s.find("%s: the record has no place", r.key)
			continue
		}
		s.report.States[r.letter()]++
		if r.place[0] == 'v' {
			s.passes(r.key)
			continue
		}
		s.report.Jobs++
		places := s.placesOf[r.at()]
		switch {
		case final(r.place):
			s.passes(r.key)
			if len(places) > 0 {
				s.find("%s: the job is final (%s) and in %v", r.key, r.place, places)
			}
		case len(places) == 0:
			s.find("%s: place %s, and the job is not there", r.key, r.place)
		case len(places) > 1:
			s.find("%s: the job is in %d places: %v", r.key, len(places), places)
		case places[0] != r.place && (places[0] != "d" || r.place != "r"):
			s.find("%s: place %s, and the job is in %s", r.key, r.place, places[0])
		default:
			s.left("%s: the job lives, place %s", r.key, r.place)
		}
	}
}

// auditDue: what is in a structure of live jobs has a record.
func (s *snapshot) auditDue() {
	for at, places := range s.placesOf {
		if s.records[at] == nil {
			s.find("segment %d: job %s is in %v and has no record", at.segment, at.id, places)
		}
	}
}

// auditStreams: a pending entry is an entry of the stream, and some worker has
// it who is known.
func (s *snapshot) auditStreams() {
	for _, q := range s.streams {
		for entry, consumer := range q.pending {
			if _, ok := q.entries[entry]; !ok {
				s.find("%s: entry %s is pending and was deleted", q.key, entry)
			}
			if !s.workers[workerAt{q.segment, consumer}] {
				s.find("%s: entry %s is pending for %s, who is not registered", q.key, entry, consumer)
			}
			s.left("%s: entry %s is pending", q.key, entry)
		}
		for _, consumer := range q.consumers {
			s.left("%s: consumer %s", q.key, consumer)
			if !s.workers[workerAt{q.segment, consumer}] {
				s.report.Strays = append(s.report.Strays, q.key+": "+consumer)
			}
		}
	}
}

// auditHistories: the entry of a job that ended is the one its record names.
func (s *snapshot) auditHistories() {
	for _, h := range s.histories {
		s.passes(h.key)
		for entry, id := range h.entries {
			s.report.Outcomes[id]++
			r := s.records[jobAt{h.segment, id}]
			if r == nil || !final(r.place) {
				continue // the record has passed; a job that lives again is found by its place
			}
			if r.place != h.state+entry {
				s.find("%s: entry %s of job %s, whose place is %s", h.key, entry, id, r.place)
			}
		}
	}
}

// auditHolds: unique keys, mutexes, tags and cancel requests belong to live jobs.
func (s *snapshot) auditHolds() {
	for _, u := range s.uniques {
		if s.ttl[u.key] <= 0 && !s.lives(jobAt{u.segment, u.holder}) {
			s.find("%s: held by %s, which does not live, for ever", u.key, u.holder)
		}
	}
	for _, m := range s.mutexes {
		if m.holder == "" {
			if s.ttl[m.key] <= 0 && !m.awaited {
				s.find("%s: free, nobody waits, and it stays for ever", m.key)
			}
			continue
		}
		r := s.records[jobAt{m.segment, m.holder}]
		if r == nil || r.letter() != 'q' {
			s.find("%s: held by %s, which is not queued or running", m.key, m.holder)
		}
		s.left("%s: held by %s", m.key, m.holder)
	}
	for _, t := range s.tags {
		for _, id := range t.members {
			if !s.lives(jobAt{t.segment, id}) {
				s.find("%s: names %s, which does not live", t.key, id)
			}
		}
	}
	for at := range s.cancels {
		if !s.lives(at) {
			s.find("segment %d: cancel request for %s, which does not live", at.segment, at.id)
		}
		s.left("segment %d: cancel request for %s", at.segment, at.id)
	}
	for _, g := range s.grants {
		s.left("segment %d: mutex %s waits to be granted", g.segment, g.id)
	}
}

// auditInstances: who is described is registered.
func (s *snapshot) auditInstances() {
	for at := range s.described {
		if !s.workers[at] {
			s.find("segment %d: instance %s is described and not registered", at.segment, at.instance)
		}
	}
	for at := range s.reads {
		if !s.workers[at] {
			s.find("segment %d: the own queue of instance %s, which is not registered", at.segment, at.instance)
		}
	}
	for at := range s.workers {
		s.report.Instances[at.instance]++
		s.left("segment %d: instance %s", at.segment, at.instance)
	}
}

// auditOwn: an instance's own queue goes with it, and what is in it is noted.
func (s *snapshot) auditOwn() {
	gone := func(segment int, key string) bool {
		instance := instanceOf(key)
		return instance != "" && !s.reads[workerAt{segment, instance}]
	}
	for _, q := range s.streams {
		if gone(q.segment, q.key) {
			s.find("%s: the stream of an instance that does not read it", q.key)
		}
	}
	for _, key := range s.counted {
		number, _, _ := strings.Cut(strings.TrimPrefix(key, s.prefix), "}:")
		if gone(segmentOf(number), key) {
			s.find("%s: in the books, and its instance does not read it", key)
		}
	}
	for at, instance := range s.placedFor {
		if s.owned[at] != instance {
			s.find("segment %d: job %s is for instance %s, and noted for %q", at.segment, at.id, instance, s.owned[at])
		}
	}
	for at, instance := range s.owned {
		if !s.lives(at) {
			s.find("segment %d: job %s is noted for instance %s and does not live", at.segment, at.id, instance)
		}
	}
}

// auditLeft: keys with an owner that is neither job nor instance.
func (s *snapshot) auditLeft() {
	for _, key := range s.passing {
		s.passes(key)
	}
	for _, key := range s.unknown {
		s.find("%s: not a key of a namespace", key)
	}
}

// lives tells whether a job is neither final nor unknown.
func (s *snapshot) lives(at jobAt) bool {
	r := s.records[at]
	return r != nil && r.place != "" && r.place[0] != 'v' && !final(r.place)
}

// passes finds keys that have to have a time to live and have none.
func (s *snapshot) passes(key string) {
	if s.ttl[key] == -1 {
		s.find("%s: has no time to live", key)
	}
}

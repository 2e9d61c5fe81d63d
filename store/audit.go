package store

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Somebody with access to Redis can delete a stream, some of its entries, its
// group or a consumer. Jobs whose entry nobody will get would be queued for ever.
// An Audit finds them and dispatches them anew, under new tokens. Nothing is
// walked through unless the books do not add up; see docs/adr/0012.

// Audit looks after the streams of one segment, step by step. It is for one
// goroutine.
type Audit struct {
	store   *Store
	segment int
	own     []string // own queues for which jobs lived when the books were last read

	behind  map[string]string // stream -> how far it was walked through
	missing map[string]int64  // stream -> entries whose jobs are looked for
	scan    bool
	cursor  uint64
	again   int
}

// Audit makes the audit of a segment.
func (s *Store) Audit(segment int) *Audit { return &Audit{store: s, segment: segment} }

// One step reads at most this much.
const (
	auditPages = 20
	auditPage  = 100
	scanPage   = 1000
)

// suspect notes that something was found that only somebody else can have done.
// Servers that count entries need no such hint.
func (s *Store) suspect(segment int) { s.suspected[segment].Store(true) }

// Step does a part of the work and reports whether there is more to do now. When
// a round of it is done, it tells how many jobs were dispatched anew.
func (a *Audit) Step(ctx context.Context, report func(id string, err error)) (again int, more bool, err error) {
	if !a.scan && len(a.behind) == 0 {
		if err := a.open(ctx); err != nil {
			return 0, false, a.store.passedOver(err)
		}
	}
	pages := auditPages
	for stream, from := range a.behind {
		for pages > 0 && from != "" {
			if from, err = a.walk(ctx, stream, from, report); err != nil {
				return 0, false, err
			}
			a.behind[stream] = from
			pages--
		}
		if from == "" {
			delete(a.behind, stream)
		}
	}
	for a.scan && pages > 0 {
		if err := a.search(ctx, report); err != nil {
			return 0, false, err
		}
		pages--
	}
	if a.scan || len(a.behind) > 0 {
		return 0, true, nil
	}
	again, a.again = a.again, 0
	return again, false, nil
}

// open reads the books, and decides what has to be looked through.
func (a *Audit) open(ctx context.Context) error {
	suspected := a.store.suspected[a.segment].Swap(false)
	streams, books, err := a.books(ctx, nil)
	if err != nil {
		a.store.suspected[a.segment].CompareAndSwap(false, suspected)
		return err
	}
	a.behind, a.missing = make(map[string]string), make(map[string]int64)
	for i, stream := range streams {
		one := at(books, i)
		missing, length, pending, last := at(one, 0), number(at(one, 1)), number(at(one, 2)), text(at(one, 3))
		if n := number(missing); n != 0 {
			a.missing[stream] = n
			a.scan = true
		}
		if _, counted := missing.(int64); !counted && suspected {
			a.scan = true
		}
		// Where all entries are pending, there are none that the group has passed by.
		if length > 0 && last != "" && (length != pending || suspected) {
			a.behind[stream] = "- " + last
		}
	}
	return nil
}

// books runs the script; missing is what to write off.
func (a *Audit) books(ctx context.Context, missing map[string]int64) (streams []string, books any, err error) {
	s := a.store
	queues, err := s.Queues(ctx)
	if err != nil {
		return nil, nil, err
	}
	k := s.segments[a.segment]
	streams = k.streams(append(queues, a.own...))
	var args argList
	args.key(k.taken(), k.own())
	args.key(streams...)
	args.arg(len(streams))
	for _, stream := range streams {
		args.arg(missing[stream])
	}
	if books, err = s.run(ctx, call{scriptAudit, args.keys, args.args}); err == nil {
		a.own = ownQueuesOf(texts(at(books, len(streams))))
	}
	return streams, books, err
}

// globEscape makes a key a pattern for itself.
var globEscape = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// stranded is a job whose entry may be out of reach.
type stranded struct {
	id, entry, stream string
}

// walk looks at some entries that the group has passed, from "FROM LAST" on, and
// returns where to go on, or "" at the end. What is pending there is being worked on.
func (a *Audit) walk(ctx context.Context, stream, from string, report func(string, error)) (string, error) {
	s := a.store
	start, last, _ := strings.Cut(from, " ")
	entries, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]redis.XMessage, error) {
		return rdb.XRangeN(ctx, stream, start, last, auditPage).Result()
	})
	if err != nil || len(entries) == 0 {
		return "", err
	}
	end := entries[len(entries)-1].ID
	pending, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]redis.XPendingExt, error) {
		return rdb.XPendingExt(ctx, &redis.XPendingExtArgs{
			Stream: stream, Group: group, Start: entries[0].ID, End: end, Count: 10 * auditPage,
		}).Result()
	})
	if err != nil {
		if hasReply(err, "NOGROUP") {
			return "", nil // the next reader makes it
		}
		return "", err
	}
	held := make(map[string]bool, len(pending))
	for _, p := range pending {
		held[p.ID] = true
	}
	var lost []stranded
	for _, m := range entries {
		if held[m.ID] {
			continue
		}
		e := decodeEntry(a.segment, stream, m.ID, text(m.Values[entryField]))
		if e.ID != "" {
			lost = append(lost, stranded{e.ID, m.ID, stream})
			continue
		}
		if e.Err == nil {
			e.Err = ErrDamaged
		}
		if s.Quarantine(ctx, e) {
			report("", e.Err)
		}
	}
	if err := a.dispatch(ctx, lost, report); err != nil {
		return "", err
	}
	if len(entries) < auditPage {
		return "", nil
	}
	return "(" + end + " " + last, nil
}

// search looks at some records of the segment for jobs that should have an entry,
// and when it has seen all of them, writes off what was missing.
func (a *Audit) search(ctx context.Context, report func(string, error)) error {
	s := a.store
	k := s.segments[a.segment]
	type page struct {
		names []string
		next  uint64
	}
	cursor := a.cursor
	p, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (page, error) {
		node, err := primaryOf(ctx, rdb, k.due())
		if err != nil {
			return page{}, err
		}
		names, next, err := node.Scan(ctx, cursor, globEscape.Replace(k.record(""))+"*", scanPage).Result()
		return page{names, next}, err
	})
	if err != nil {
		return err
	}
	places, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]*redis.StringCmd, error) {
		cmds := make([]*redis.StringCmd, len(p.names))
		if len(cmds) == 0 {
			return nil, nil
		}
		_, err := rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for i, name := range p.names {
				cmds[i] = pipe.HGet(ctx, name, "p")
			}
			return nil
		})
		if err != nil && judge(err) != final {
			return nil, err
		}
		return cmds, nil
	})
	if err != nil {
		return err
	}
	var lost []stranded
	for i, place := range places {
		id, ok := unescape(strings.TrimPrefix(p.names[i], k.record("")))
		if ok && stateOf(place.Val()) == Queued {
			lost = append(lost, stranded{id: id, entry: place.Val()})
		}
	}
	for part := range slices.Chunk(lost, auditPage) {
		if err := a.dispatch(ctx, part, report); err != nil {
			return err
		}
	}
	if a.cursor = p.next; p.next != 0 {
		return nil
	}
	if _, _, err := a.books(ctx, a.missing); err != nil {
		return err // the last page is looked at again
	}
	a.scan, a.missing = false, nil
	return nil
}

// dispatch sends those of the jobs to the workers that have no entry in reach.
func (a *Audit) dispatch(ctx context.Context, jobs []stranded, report func(string, error)) error {
	if len(jobs) == 0 {
		return nil
	}
	s := a.store
	k := s.segments[a.segment]
	records, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]*redis.SliceCmd, error) {
		cmds := make([]*redis.SliceCmd, len(jobs))
		_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, j := range jobs {
				cmds[i] = p.HMGet(ctx, k.record(j.id), append([]string{"p"}, specFields...)...)
			}
			return nil
		})
		if err != nil && judge(err) != final {
			return nil, err
		}
		return cmds, nil
	})
	if err != nil {
		return err
	}
	var entries []*Entry
	for i, j := range jobs {
		record := texts(records[i].Val())
		e := &Entry{ID: j.id, Segment: a.segment, entry: j.entry, stream: j.stream}
		switch {
		case len(record) == 3 && record[0] == j.entry:
			e.setSpec(joined(record[1], record[2]))
		case j.stream == "":
			continue // it has moved on
		default:
			e.Err = fmt.Errorf("no job belongs to the entry: %w", ErrNotFound)
		}
		if e.stream == "" && e.Spec != nil {
			e.stream = k.stream(e.Spec.Queue, e.Spec.Priority)
		} else if e.stream == "" {
			e.stream = k.stream("", DefaultPriority) // nobody's: other streams have entries of the same ID
		}
		entries = append(entries, e)
	}
	var done Reclaimed
	_, err = s.reclaimEntries(ctx, a.segment, nobody, 0, entries, &done, report)
	a.again += done.Again + done.Ended
	return err
}

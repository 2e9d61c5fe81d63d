package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// One call carries at most this many jobs or about this many bytes, so that no
// script holds Redis for much longer than a millisecond. A flight of several callers'
// jobs may be split into a few calls.
const (
	maxBatch       = 500
	maxBatchBytes  = 1 << 19
	maxFlightBytes = 8 * maxBatchBytes
)

// inlineLimit is the inline_limit of lib/spec: the spec of a larger job is not in its entry.
const inlineLimit = 4096

// healLimit is how often a submission frees keys that were left behind.
const healLimit = 5

// queueMemory is how long a process remembers that it announced a queue.
const queueMemory = 10 * time.Minute

// NewJob is a job to be stored.
type NewJob struct {
	ID   string // empty: one is made
	Spec *Spec
	Seal Seal // nil: Spec.Args are stored as they are
}

// Seal gives the Args to store for a job, once its ID is known. The same ID gives
// the same bytes.
type Seal func(id string) []byte

// Receipt tells what became of a submitted job.
type Receipt struct {
	ID        string
	Duplicate bool // the job, or one with the same unique key, was there already; ID is its ID
}

// Submit stores jobs. Jobs of concurrent calls travel together. Each job has
// its own error; [ErrConflict] means its ID belongs to a job with other
// content. The receipt carries the ID even when the outcome is uncertain, so
// that the caller can submit the same job again.
func (s *Store) Submit(ctx context.Context, jobs []NewJob) ([]Receipt, []error) {
	receipts, errs := make([]Receipt, len(jobs)), make([]error, len(jobs))
	items := make([]*submission, len(jobs))
	for i, j := range jobs {
		items[i] = s.newSubmission(j)
		receipts[i].ID = items[i].id
	}
	if err := s.announce(ctx, jobs); err != nil {
		for i := range errs {
			errs[i] = err
		}
		return receipts, errs
	}
	local := make([]*submission, 0, len(items))
	for _, it := range items {
		if len(it.foreign) > 0 {
			s.submitClaimed(ctx, it)
		} else {
			local = append(local, it)
		}
	}
	err := s.submits.do(ctx, local)
	for i, it := range items {
		if err != nil && len(it.foreign) == 0 {
			errs[i] = err // it may still be written to
			continue
		}
		receipts[i], errs[i] = it.receipt, it.err
	}
	return receipts, errs
}

// submitNow stores one job that nobody waits for, without company.
func (s *Store) submitNow(ctx context.Context, j NewJob) (Receipt, error) {
	it := s.newSubmission(j)
	if err := s.announce(ctx, []NewJob{j}); err != nil {
		return Receipt{}, err
	}
	if len(it.foreign) > 0 {
		s.submitClaimed(ctx, it)
	} else {
		s.submitBatch(ctx, []*submission{it})
	}
	return it.receipt, it.err
}

// submission is one job on its way.
type submission struct {
	id      string
	made    bool // the ID was made here, so a duplicate is our own repetition
	spec    *Spec
	seal    Seal
	locator string // key that must not exist, if not empty
	local   *Spec  // spec with the claims of its own segment only
	entry   []byte // of its first dispatch
	data    []byte // the encoded spec, with which the entry ends
	segment int
	foreign []foreignClaim

	receipt Receipt
	err     error
	healed  int  // how often a key that was left behind was freed for it
	again   bool // a claim was taken over: begin again
}

func (s *Store) newSubmission(j NewJob) *submission {
	it := &submission{id: j.ID, spec: j.Spec, seal: j.Seal}
	if it.id == "" {
		it.made = true
		it.id = NewID()
	}
	s.route(it)
	it.named()
	return it
}

// named is called when the ID is settled.
func (it *submission) named() {
	it.receipt.ID = it.id
	spec := *it.spec
	if it.seal != nil {
		spec.Args = it.seal(it.id)
	}
	it.entry, it.data = firstEntry(it.id, &spec)
}

// answer turns the script's answer for this job into a receipt or an error.
func (it *submission) answer(a string) {
	switch {
	case a == "":
	case a == "=":
		it.receipt.Duplicate = !it.made
	case a == "!" || a[0] == 'l':
		it.err = fmt.Errorf("%w: %s", ErrConflict, clip(it.id, 64))
	case a == "v":
		it.again = true
		it.err = fmt.Errorf("%w: the ID was given up by a concurrent submission", ErrConflict)
	case a[0] == 'u':
		holder := a[1:]
		if _, _, id, err := parseHolder(holder); err == nil {
			holder = id
		}
		it.receipt = Receipt{ID: holder, Duplicate: true}
	default:
		it.err = fmt.Errorf("%w: %s", ErrDamaged, strings.TrimPrefix(a, "e"))
	}
}

func (it *submission) size() int { return len(it.data) + len(it.id) + 64 }

// submitBatch stores jobs, those of a segment in their order.
func (s *Store) submitBatch(ctx context.Context, batch []*submission) {
	var calls []call
	var parts [][]*submission
	add := func(c call, part []*submission) {
		calls = append(calls, c)
		parts = append(parts, part)
	}
	for segment, items := range bySegment(batch, func(it *submission) int { return it.segment }) {
		k := s.segments[segment]
		for _, part := range chunk(items, (*submission).size) {
			for _, stretch := range stretches(part, (*submission).plain) {
				for _, g := range bundled(stretch.plain, (*submission).lane) {
					add(submitPlainCall(k, g.key, g.items), g.items)
				}
				if len(stretch.others) > 0 {
					add(s.submitCall(segment, stretch.others), stretch.others)
				}
			}
		}
	}
	replies, errs := s.runAll(ctx, calls)
	for i, part := range parts {
		answers := texts(replies[i])
		if calls[i].script == scriptSubmitPlain {
			answers = make([]string, len(part)) // all are accepted, or there is an error
		}
		for j, it := range part {
			switch {
			case errs[i] != nil && !errors.Is(errs[i], ErrReplicas):
				it.err = errs[i]
			case j < len(answers):
				if it.healed < healLimit && s.free(ctx, it, answers[j]) {
					it.healed++
					s.submitBatch(ctx, []*submission{it})
					continue
				}
				it.answer(answers[j])
				if errors.Is(it.err, ErrDamaged) {
					if key := s.foreignFor(ctx, it); key != "" {
						it.err = fmt.Errorf("%s: %w", key, it.err)
					}
				}
				if it.err == nil && errs[i] != nil { // what it was answered is not safe yet
					it.receipt, it.err = Receipt{ID: it.id}, errs[i]
				}
			default:
				it.err = fmt.Errorf("submit: %w: short reply", ErrUncertain)
			}
		}
	}
}

// plain tells whether a job is only to be put into its stream, under an ID that
// nobody can have used.
func (it *submission) plain() bool {
	s := it.spec
	return it.made && it.locator == "" && s.RunAt.IsZero() && s.Delay <= 0 && !s.claims()
}

// lane is a queue and a priority: one stream of each segment.
type lane struct {
	queue    string
	priority byte
}

func (it *submission) lane() lane { return lane{it.spec.Queue, it.spec.Priority} }

// submitPlainCall stores plain jobs of one lane.
func submitPlainCall(k keys, l lane, items []*submission) call {
	a := argList{keys: make([]string, 0, len(items)+1), args: make([]any, 0, len(items)+1)}
	a.key(k.stream(l.queue, l.priority))
	a.arg(len(items[0].entry) - len(items[0].data)) // IDs of plain jobs are equally long
	for _, it := range items {
		a.key(k.record(it.id))
		if head := len(it.entry) - len(it.data); len(it.data) > inlineLimit {
			a.arg(it.entry[:head], it.data)
		} else {
			a.arg(it.entry)
		}
	}
	return call{scriptSubmitPlain, a.keys, a.args}
}

// submitCall stores any jobs.
func (s *Store) submitCall(segment int, items []*submission) call {
	k := s.segments[segment]
	var streams streamSet
	var jobs argList
	for _, it := range items {
		jobs.accept(k, it, &streams)
	}
	var a argList
	a.key(k.due(), k.wait(), k.grant(), k.tend())
	a.key(streams.names...)
	a.arg(s.control(), segment, len(streams.names), len(items))
	a.key(jobs.keys...)
	a.arg(jobs.args...)
	return call{scriptSubmit, a.keys, a.args}
}

// foreignFor finds a key that a job needs and that is not ours, "" if there is none.
func (s *Store) foreignFor(ctx context.Context, it *submission) string {
	return s.foreignAmong(ctx, s.submitCall(it.segment, []*submission{it}).keys)
}

// accept adds one job as lib/accept reads it.
func (a *argList) accept(k keys, it *submission, streams *streamSet) {
	spec := it.spec
	start := int64(0)
	if !spec.RunAt.IsZero() {
		start = max(spec.RunAt.UnixMilli(), 1)
	} else if spec.Delay > 0 {
		start = -ceilMillis(spec.Delay)
	} else if InstanceOf(spec.Queue) != "" {
		start = -1 // promote alone knows whether the instance still reads
	}
	a.key(k.record(it.id))
	a.arg(it.id, it.data, words(int64(streams.of(k.stream(spec.Queue, spec.Priority))), start))
	a.claimsAnd(k, it.local, it.locator)
	if start != 0 || it.local.Mutex != "" {
		r := ref{spec.Priority, spec.Queue, spec.Mutex, it.id}
		a.arg(r.String(), r.route())
	}
	a.tend(it)
}

// announce adds queues to the namespace's list, which is how Counts and the
// reaper know them. A process does so once in a while for each queue.
func (s *Store) announce(ctx context.Context, jobs []NewJob) error {
	var fresh []any
	for _, j := range jobs {
		if InstanceOf(j.Spec.Queue) != "" {
			continue // it goes with its instance
		}
		last, _ := s.queuesKnown.Load(j.Spec.Queue)
		if at, ok := last.(time.Time); ok && time.Since(at) < queueMemory {
			continue
		}
		if !slices.Contains(fresh, any(j.Spec.Queue)) {
			fresh = append(fresh, j.Spec.Queue)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	_, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (int64, error) {
		return rdb.SAdd(ctx, s.segments[0].queues(), fresh...).Result()
	})
	if err != nil {
		return surelyNot("announce queue", err) // the jobs themselves were not sent
	}
	for _, q := range fresh {
		s.queuesKnown.Store(q, time.Now())
	}
	return nil
}

func ceilMillis(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

func (s *Store) control() string { return s.segments[0].control() }

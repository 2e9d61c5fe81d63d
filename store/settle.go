package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// Settlement is the end of one attempt.
type Settlement struct {
	Entry   *Entry
	Outcome Outcome
	Delay   time.Duration // for Retry, Snooze, Decline
	Elapsed time.Duration
	Error   string
	Result  []byte
}

// maxErrorBytes bounds what is kept of an attempt's error.
const maxErrorBytes = 2048

// Settle ends attempts. Each settlement has its own error: [ErrFenced] when the
// token is not the current one, [ErrState] when a job to be expired is not yet
// due to expire, [ErrDamaged] when its record is gone or unreadable. cancelled
// tells for which jobs a cancel request overruled the outcome.
func (s *Store) Settle(ctx context.Context, instance string, batch []Settlement) (cancelled []bool, errs []error) {
	cancelled, errs = make([]bool, len(batch)), make([]error, len(batch))
	order := make([]int, len(batch))
	for i := range order {
		order[i] = i
	}
	var calls []call
	var parts [][]int
	var segments []int
	for segment, items := range bySegment(order, func(i int) int { return batch[i].Entry.Segment }) {
		for _, part := range chunk(items, func(i int) int { return len(batch[i].Result) + min(len(batch[i].Error), maxErrorBytes) + 256 }) {
			c, answered := s.settleCall(segment, instance, batch, part)
			calls = append(calls, c)
			parts = append(parts, answered)
			segments = append(segments, segment)
		}
	}
	replies, failed := s.runAll(ctx, calls)
	for c, part := range parts {
		answers := list(at(replies[c], 0))
		for j, i := range part {
			switch {
			case failed[c] != nil:
				errs[i] = failed[c]
			case j >= len(answers):
				errs[i] = fmt.Errorf("settle: %w: short reply", ErrUncertain)
			default:
				cancelled[i], errs[i] = settled(number(answers[j]))
				if number(answers[j]) == 4 {
					s.suspect(segments[c])
				}
			}
		}
		for _, name := range texts(at(replies[c], 1)) {
			// Best effort: the name stays in grant until somebody succeeds.
			_ = s.grant(ctx, segments[c], name, s.reportDamage)
		}
	}
	return cancelled, errs
}

func settled(code int64) (cancelled bool, err error) {
	switch code {
	case 1, 2, 4:
		return false, nil
	case 3:
		return true, nil
	case -1:
		return false, fmt.Errorf("settle: %w: not yet expired", ErrState)
	case -2:
		return false, fmt.Errorf("settle: %w: the record is gone", ErrDamaged)
	case -3:
		return false, fmt.Errorf("settle: %w: the job failed, for a key that it needs is not ours", ErrDamaged)
	}
	return false, fmt.Errorf("settle: %w", ErrFenced)
}

// settleCall settles a part of a batch. It returns the part in the order of the answers.
func (s *Store) settleCall(segment int, instance string, batch []Settlement, part []int) (call, []int) {
	k := s.segments[segment]
	var streams streamSet
	plain, others := separate(batch, part)
	groups := bundled(plain, func(i int) successes {
		e := batch[i].Entry
		return successes{e.stream, e.Spec.Name, e.Attempt}
	})
	order := make([]int, 0, len(part))
	jobs := argList{keys: make([]string, 0, len(part)), args: make([]any, 0, 4*len(part)+8)}
	jobs.arg(len(groups))
	for _, g := range groups {
		slices.SortStableFunc(g.items, func(i, j int) int { return cmp.Compare(batch[i].Entry.Token, batch[j].Entry.Token) })
		jobs.arg(streams.of(g.key.stream), g.key.name, batch[g.items[0]].Entry.Spec.Queue, g.key.attempt, len(g.items))
		for _, i := range g.items {
			jobs.arg(&batch[i].Entry.ID) // a pointer, for a string in an interface is one more allocation
			jobs.key(k.record(batch[i].Entry.ID))
		}
		for _, i := range g.items {
			jobs.arg(&batch[i].Entry.entry)
		}
		for _, i := range g.items {
			jobs.arg(batch[i].Elapsed.Milliseconds())
		}
		order = append(order, g.items...)
	}
	jobs.arg(len(others))
	for _, i := range others {
		it := batch[i]
		e, spec := it.Entry, it.Entry.Spec
		delay := ceilMillis(it.Delay)
		if it.Outcome == Expire {
			delay = spec.ExpiresAt.UnixMilli()
		}
		ttl := ""
		if spec.Retain > 0 {
			ttl = fmt.Sprint(ceilMillis(spec.Retain))
		}
		planned := ""
		switch it.Outcome {
		case Retry, Snooze, Decline, Release, Cancel:
			planned = ref{spec.Priority, spec.Queue, spec.Mutex, e.ID}.String()
		}
		jobs.arg(e.ID, e.entry, streams.of(e.stream), string(it.Outcome), it.Elapsed.Milliseconds(), delay,
			ttl, clip(it.Error, maxErrorBytes), it.Result, planned, spec.Name, spec.Queue, e.Attempt)
		jobs.key(k.record(e.ID))
		jobs.claims(k, s.localSpec(segment, spec))
	}
	order = append(order, others...)
	var a argList
	a.key(k.due(), k.wait(), k.grant(), k.cancels(), k.awaited())
	for _, state := range FinalStates {
		a.key(k.history(state))
	}
	a.key(k.events(), k.taken())
	a.key(streams.names...)
	a.key(jobs.keys...)
	a.arg(s.control(), segment, s.inboxPrefix(), instance)
	for _, state := range FinalStates {
		a.arg(s.ttl(state))
	}
	a.arg(len(streams.names))
	a.arg(jobs.args...)
	return call{scriptSettle, a.keys, a.args}, order
}

// separate finds the plain successes of a part, which are settled first. Of several
// settlements of one entry the first one counts.
func separate(batch []Settlement, part []int) (plain, others []int) {
	before := make(map[Key]bool)
	for _, i := range part {
		if it := batch[i]; it.plain() && !before[it.Entry.Key()] {
			plain = append(plain, i)
		} else {
			others = append(others, i)
			before[it.Entry.Key()] = true
		}
	}
	return plain, others
}

// successes is what those that are settled together have in common.
type successes struct {
	stream, name string
	attempt      int
}

// plain tells whether nothing but the success itself is to be recorded.
func (it Settlement) plain() bool {
	s := it.Entry.Spec
	return it.Outcome == Succeed && len(it.Result) == 0 && s.Retain == 0 && !s.claims()
}

// ttl is how long, in ms, finished jobs of a state are kept.
func (s *Store) ttl(state State) int64 { return ceilMillis(s.options.Retention[state].Age) }

func (s *Store) inboxPrefix() string { return s.segments[0].inbox("") }

// Note stores the progress or the checkpoint of a running attempt. [ErrFenced]
// means that the attempt is not the current one.
func (s *Store) Note(ctx context.Context, e *Entry, progress bool, data []byte) error {
	field := "k"
	if progress {
		field = "g"
	}
	k := s.segments[e.Segment]
	reply, err := s.run(ctx, call{scriptNote, []string{k.record(e.ID)}, []any{e.entry, field, data}})
	if err == nil && number(reply) != 1 {
		err = fmt.Errorf("note: %w", ErrFenced)
	}
	return err
}

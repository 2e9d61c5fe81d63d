package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Entry is a dispatch that a worker received: one attempt.
type Entry struct {
	ID       string
	Spec     *Spec
	Segment  int
	Attempt  int
	Failures int
	Losses   int
	Token    uint64
	Mutex    uint64 // token of the mutex, when the job has one
	Err      error  // the entry or its record cannot be used: ErrNewer, ErrDamaged, ErrNotFound

	entry  string // ID in the stream
	stream string
	spec   Spec // what Spec points to
}

// Key identifies an entry among all of an instance.
type Key struct{ stream, entry string }

// Key returns the key of the entry.
func (e *Entry) Key() Key { return Key{e.stream, e.entry} }

// Unusable reports whether an entry's error means that it can never run, as
// opposed to one this release must leave to newer ones.
func (e *Entry) Unusable() bool { return e.Err != nil && !errors.Is(e.Err, ErrNewer) }

// entryField is the one field of an entry.
const entryField = "e"

// firstEntry is what dispatch writes for the first attempt of a job that has no
// mutex. The spec is the rest of it.
func firstEntry(id string, spec *Spec) (entry, data []byte) {
	const rest = 40 // bytes, of what most jobs have beside these
	head := make([]byte, 0, len(id)+len(spec.Name)+len(spec.Args)+rest)
	head = append(head, "1 - "...)
	head = strconv.AppendInt(head, int64(len(id)), 10)
	head = append(append(head, ' '), id...)
	entry = appendSpec(head, spec)
	return entry, entry[len(head):]
}

// decodeEntry reads what dispatch wrote into the field of an entry. What cannot be
// read is returned with Err, for the worker to put aside.
func decodeEntry(segment int, stream, entry, data string) *Entry {
	e := &Entry{Segment: segment, entry: entry, stream: stream}
	if e.Token, e.Err = Token(entry); e.Err != nil {
		return e
	}
	if data == "" {
		e.Err = fmt.Errorf("the entry was deleted, or holds no job: %w", ErrNotFound)
		return e
	}
	count, mutex, id, spec, ok := cutEntry(data)
	if !ok {
		e.Err = fmt.Errorf("entry without a job: %w", ErrDamaged)
		return e
	}
	e.ID = id
	if e.Err = e.setCount(count); e.Err != nil {
		return e
	}
	if mutex != "-" {
		var err error
		if e.Mutex, err = strconv.ParseUint(mutex, 10, 63); err != nil {
			e.Err = fmt.Errorf("entry: mutex token: %w", ErrDamaged)
			return e
		}
	}
	if spec != "" {
		e.setSpec(spec)
	}
	return e
}

// cutEntry takes what dispatch wrote apart.
func cutEntry(data string) (count, mutex, id, spec string, ok bool) {
	count, rest, _ := strings.Cut(data, " ")
	mutex, rest, _ = strings.Cut(rest, " ")
	length, rest, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(length)
	if err != nil || n < 1 || n > len(rest) {
		return "", "", "", "", false
	}
	return count, mutex, rest[:n], rest[n:], true
}

// setCount reads "attempt", or "attempt/failures/losses".
func (e *Entry) setCount(count string) error {
	rest, more := count, true
	for _, n := range []*int{&e.Attempt, &e.Failures, &e.Losses} {
		if !more {
			break
		}
		var part string
		part, rest, more = strings.Cut(rest, "/")
		v, err := strconv.Atoi(part)
		if err != nil || v < 0 {
			return fmt.Errorf("entry: attempt %q: %w", clip(count, 40), ErrDamaged)
		}
		*n = v
	}
	if more || e.Attempt == 0 {
		return fmt.Errorf("entry: attempt %q: %w", clip(count, 40), ErrDamaged)
	}
	return nil
}

func (e *Entry) setSpec(data string) {
	err := e.spec.decode(data)
	switch {
	case errors.Is(err, ErrNewer):
		e.Spec, e.Err = &e.spec, err
	case err != nil:
		e.Err = fmt.Errorf("%w: %w", ErrDamaged, err)
	default:
		e.Spec = &e.spec
	}
}

// complete reads the specs that were too large for their entries.
func (s *Store) complete(ctx context.Context, entries []*Entry) error {
	var large []*Entry
	for _, e := range entries {
		if e.Spec == nil && e.Err == nil {
			large = append(large, e)
		}
	}
	if len(large) == 0 {
		return nil
	}
	specs, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]*redis.SliceCmd, error) {
		cmds := make([]*redis.SliceCmd, len(large))
		_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, e := range large {
				cmds[i] = p.HMGet(ctx, s.segments[e.Segment].record(e.ID), specFields...)
			}
			return nil
		})
		if err != nil && judge(err) != final {
			return nil, err
		}
		return cmds, nil
	})
	if err != nil {
		return err // the entries stay pending and are found there
	}
	for i, e := range large {
		values, err := specs[i].Result()
		switch {
		case err != nil:
			e.Err = fmt.Errorf("%w: %w", ErrDamaged, err)
		case values[0] == nil:
			e.Err = fmt.Errorf("the record is gone: %w", ErrNotFound)
		default:
			e.setSpec(joined(text(values[0]), text(values[1])))
		}
	}
	return nil
}

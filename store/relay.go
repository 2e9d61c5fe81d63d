package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/redis/go-redis/v9"
)

// A note in relay is a job that a turn created for another segment. It can have
// two more fields, which are not part of the job: that it is watched, and what the
// ledger says of its tick.

func note(data []byte, watched bool, line string) []byte {
	f := fields{slices.Clip(data)}
	if watched {
		f.num(tagWatched, 1)
	}
	if line != "" {
		f.bytes(tagLine, []byte(line))
	}
	return f.buf
}

// readNote reads a note; older releases wrote none of the further fields.
func readNote(data string) (spec *Spec, watched bool, line string, err error) {
	if spec, err = decodeSpec(data); err != nil {
		return spec, false, "", err
	}
	_ = eachField(data[1:], func(tag uint64, value string) error {
		switch tag {
		case tagWatched:
			watched = true
		case tagLine:
			line = value
		}
		return nil
	})
	return spec, watched, line, nil
}

// Relay submits jobs of schedules that belong to other segments than their
// schedule. They were noted when their tick was fired, so a crash between loses
// none, and their IDs are fixed, so none is created twice. One that cannot be
// created is given up, and the error says so.
func (s *Store) Relay(ctx context.Context, segment int) error {
	failed, err := s.relay(ctx, segment)
	return Distinct(append(slices.Collect(maps.Values(failed)), err))
}

// relay returns the errors of jobs by their ID, and one of its own.
func (s *Store) relay(ctx context.Context, segment int) (map[string]error, error) {
	k := s.segments[segment]
	noted, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (map[string]string, error) {
		return rdb.HGetAll(ctx, k.relay()).Result()
	})
	if err != nil {
		return nil, s.passedOver(err)
	}
	ctx = unpromised(ctx)
	failed := make(map[string]error)
	var done []string
	for id, data := range noted {
		err := s.relayOne(ctx, segment, id, data)
		switch {
		case errors.Is(err, ErrNewer):
			continue // left to newer instances
		case errors.Is(err, ErrConflict), errors.Is(err, ErrDamaged):
			failed[id] = err // and is given up
		case err != nil:
			failed[id] = err // which does not keep the others from theirs
			continue
		}
		done = append(done, id)
	}
	for some := range slices.Chunk(done, maxBatch) {
		if _, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (int64, error) {
			return rdb.HDel(ctx, k.relay(), some...).Result()
		}); err != nil {
			return failed, err
		}
	}
	return failed, nil
}

// relayOne submits a noted job. When this ends half way the note is still there:
// the job is answered to be there already, and it is watched then. One that is not
// created is not fired by the ledger either; that correction can be lost.
func (s *Store) relayOne(ctx context.Context, segment int, id, data string) error {
	spec, watched, line, err := readNote(data)
	if err != nil {
		if !errors.Is(err, ErrNewer) {
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return err
	}
	receipt, err := s.submitNow(ctx, NewJob{ID: id, Spec: spec})
	refused := err == nil && receipt.ID != id || errors.Is(err, ErrConflict) || errors.Is(err, ErrDamaged)
	if refused && line != "" {
		_, _ = s.run(ctx, call{scriptRefuse, []string{s.segments[segment].ledger(spec.Schedule)}, []any{spec.Tick.UnixMilli(), line}})
	}
	if err != nil || !watched || refused {
		return err
	}
	k := s.segments[s.segmentOf(id)]
	_, err = s.run(ctx, call{scriptAwait, []string{k.record(id), k.awaited()}, []any{id, watchers}})
	return err
}

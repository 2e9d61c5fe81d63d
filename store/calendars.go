package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"
)

// everywhere reads one key of each segment and returns all names, sorted.
func (s *Store) everywhere(
	ctx context.Context, ask func(ctx context.Context, p redis.Pipeliner, k keys) *redis.StringSliceCmd,
) ([]string, error) {
	cmds, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]*redis.StringSliceCmd, error) {
		cmds := make([]*redis.StringSliceCmd, len(s.segments))
		_, _ = rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, k := range s.segments {
				cmds[i] = ask(ctx, p, k)
			}
			return nil
		})
		return cmds, unanswered(cmds)
	})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, c := range cmds {
		if c.Err() != nil {
			return nil, classify(c.Err(), false)
		}
		names = append(names, c.Val()...)
	}
	slices.Sort(names)
	return names, nil
}

// GroupMembers lists the schedules of a group.
func (s *Store) GroupMembers(ctx context.Context, group string) ([]string, error) {
	return s.everywhere(ctx, func(ctx context.Context, p redis.Pipeliner, k keys) *redis.StringSliceCmd {
		return p.SMembers(ctx, k.members(group))
	})
}

// MarkGroup notes something about a group, opaque to the store; an empty mark
// deletes it.
func (s *Store) MarkGroup(ctx context.Context, group string, mark []byte) error {
	_, err := s.run(ctx, call{scriptGroupMark, []string{s.segments[0].groupMarks()}, []any{group, mark}})
	return err
}

// GroupMark reads what MarkGroup noted; nil: nothing.
func (s *Store) GroupMark(ctx context.Context, group string) ([]byte, error) {
	mark, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (string, error) {
		return rdb.HGet(ctx, s.segments[0].groupMarks(), group).Result()
	})
	return bytesOf(mark), err
}

func (s *Store) calendarKeys(name string) keys { return s.segments[hashSegment(name, len(s.segments))] }

// PutCalendar stores a calendar if the stored one is still old; nil: there must
// be none.
func (s *Store) PutCalendar(ctx context.Context, name string, data, old []byte) (done bool, err error) {
	reply, err := s.run(ctx, call{scriptCalendarPut, []string{s.calendarKeys(name).calendars()}, []any{name, data, old}})
	return number(reply) == 1, err
}

// GetCalendar returns a calendar, or [ErrNotFound].
func (s *Store) GetCalendar(ctx context.Context, name string) ([]byte, error) {
	data, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (string, error) {
		return rdb.HGet(ctx, s.calendarKeys(name).calendars(), name).Result()
	})
	if err == nil && data == "" {
		err = noCalendar(name)
	}
	return bytesOf(data), err
}

func noCalendar(name string) error { return fmt.Errorf("calendar %s: %w", clip(name, 64), ErrNotFound) }

// Calendars lists the names of all calendars.
func (s *Store) Calendars(ctx context.Context) ([]string, error) {
	return s.everywhere(ctx, func(ctx context.Context, p redis.Pipeliner, k keys) *redis.StringSliceCmd {
		return p.HKeys(ctx, k.calendars())
	})
}

// NoteCalendarUse notes that a schedule uses a calendar, before it does.
// [ErrNotFound] means that there is no such calendar.
func (s *Store) NoteCalendarUse(ctx context.Context, calendar, schedule string) error {
	k := s.calendarKeys(calendar)
	reply, err := s.run(ctx, call{scriptCalendarUse, []string{k.calendars(), k.users(calendar)}, []any{calendar, schedule}})
	if err == nil && number(reply) == 0 {
		err = noCalendar(calendar)
	}
	return err
}

// CalendarUsers lists the schedules that have noted a use. Some may not use it
// any more.
func (s *Store) CalendarUsers(ctx context.Context, calendar string) ([]string, error) {
	users, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) ([]string, error) {
		return rdb.SMembers(ctx, s.calendarKeys(calendar).users(calendar)).Result()
	})
	slices.Sort(users)
	return users, err
}

// DropCalendar deletes a calendar if it is still old and nobody uses it, but for
// those that were found not to use it any more. Done false: it is another one by
// now, or has other users. [ErrNotFound] means that there was none.
func (s *Store) DropCalendar(ctx context.Context, name string, old []byte, unused ...string) (done bool, err error) {
	k := s.calendarKeys(name)
	args := []any{name, old}
	for _, u := range unused {
		args = append(args, u)
	}
	reply, again, err := s.runAgain(ctx, call{scriptCalendarDrop, []string{k.calendars(), k.users(name)}, args})
	switch {
	case err != nil:
		return false, err
	case number(reply) == -1 && !again:
		return false, noCalendar(name)
	}
	return number(reply) != 0, nil
}

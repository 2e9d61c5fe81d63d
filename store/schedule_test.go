package store

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/knobs"
	"github.com/carillon-go/carillon/internal/redistest"
)

// A definition is stored as the next generation if the schedule is as it was read.
func TestPutComparesWhatWasRead(t *testing.T) {
	t.Parallel()
	s, _ := inMemory(t, Options{})
	p := definition("plan", time.UnixMilli(1000))
	p.State, p.Group = []byte("fresh"), "reports"
	for name, c := range map[string]struct {
		edit func(*Put)
		done bool
	}{
		"as it was read":             {func(*Put) {}, true},
		"never read":                 {func(p *Put) { p.Old = nil }, false},
		"another generation":         {func(p *Put) { p.Old.Generation++ }, false},
		"another state":              {func(p *Put) { p.Old.State = []byte("2 runs") }, false},
		"a turn was taken meanwhile": {func(p *Put) { turn(t, s, Turn{Schedule: stored(t, s, p.Name), State: []byte("1 run")}) }, false},
		"it was dropped meanwhile":   {func(p *Put) { require.NoError(t, s.DropSchedule(t.Context(), p.Name)) }, false},
		"the same":                   {func(p *Put) { p.Same = true }, true},
		"the same in another state":  {func(p *Put) { p.Same, p.Old.State = true, []byte("2 runs") }, true},
		"the same, never read":       {func(p *Put) { p.Same, p.Old = true, nil }, false},
		"the same of another generation": {func(p *Put) {
			p.Same = true
			p.Old.Generation++
		}, false},
	} {
		p.Name = name
		old := put(t, s, name, func(o *Put) { o.State, o.Group = p.State, p.Group })
		next := Put{
			Name: name, Group: "mails", Old: old, Definition: []byte("other"), State: []byte("new"), Meta: []byte("ann"),
			Next: time.UnixMilli(5000), Look: time.UnixMilli(4000),
		}
		read := *old
		next.Old = &read
		c.edit(&next)
		generation, done, err := s.PutSchedule(t.Context(), next)
		require.NoError(t, err)
		assert.Equal(t, c.done, done, name)
		if !done {
			assert.Zero(t, generation, name)
			continue
		}
		want := Schedule{
			Name: name, Group: "mails", Definition: next.Definition, State: next.State, Generation: 2, Next: next.Next, Look: next.Look,
		}
		if next.Same {
			want = *old
			want.Definition = next.Definition
		}
		assert.Equal(t, want.Generation, generation, name)
		assert.Equal(t, want, *stored(t, s, name), name)
	}
}

// A reply that is lost leaves the caller with what it did; somebody else's
// definition is not taken for it.
func TestPutIsRepeatable(t *testing.T) {
	t.Parallel()
	rdb := redistest.Shared(t).Client(t)
	lost := map[string]bool{}
	knobs.Hook(rdb, hook{func(_ context.Context, cmd redis.Cmder, next func(redis.Cmder) error) error {
		err := next(cmd)
		if name := scriptOf(cmd); err == nil && isScript(cmd) && (name == "schedule_put" || name == "schedule_drop") && !lost[name] {
			lost[name] = true
			return io.EOF
		}
		return err
	}})
	s := open(t, rdb, Options{})
	p := definition("plan", time.UnixMilli(1000))
	p.Meta = []byte("ann")
	for n := range int64(3) {
		delete(lost, "schedule_put")
		generation, done, err := s.PutSchedule(t.Context(), p)
		require.NoError(t, err)
		assert.True(t, done)
		assert.Equal(t, n+1, generation)
		other := p
		other.Meta = []byte("bob")
		_, done, err = s.PutSchedule(t.Context(), other)
		require.NoError(t, err)
		assert.False(t, done, "it is ann's")
		p.Old = stored(t, s, "plan")
	}
	require.NoError(t, s.DropSchedule(t.Context(), "plan"))
	assert.True(t, lost["schedule_drop"])
	require.ErrorIs(t, s.DropSchedule(t.Context(), "plan"), ErrNotFound)
	versions, err := s.Versions(t.Context(), "plan")
	require.NoError(t, err)
	assert.Len(t, versions, 3)
}

// The generations of a name grow for as long as anything is known of it, so the
// ID of a tick's job is not made for another definition.
func TestGenerationsGoOn(t *testing.T) {
	t.Parallel()
	s, rdb := inMemory(t, Options{})
	k := s.segments[0]
	first := put(t, s, "plan")
	id := turn(t, s, tickTurn(first, time.Time{}, job())).IDs[0]
	require.NoError(t, s.DropSchedule(t.Context(), "plan"))
	assert.False(t, turn(t, s, tickTurn(first, time.Time{}, job())).Done, "what was dropped fires no more")
	again := put(t, s, "plan")
	assert.EqualValues(t, 2, again.Generation)
	assert.NotEqual(t, id, turn(t, s, tickTurn(again, time.Time{}, job())).IDs[0])
	assert.EqualValues(t, -1, rdb.PTTL(t.Context(), k.versions("plan")).Val(), "they stay as long as it does")

	// Written by a release that kept no versions.
	require.NoError(t, rdb.HSet(t.Context(), k.schedule("old"), "d", "definition", "g", "7").Err())
	require.NoError(t, s.DropSchedule(t.Context(), "old"))
	assert.EqualValues(t, 8, put(t, s, "old").Generation)
	versions, err := s.Versions(t.Context(), "old")
	require.NoError(t, err)
	require.Len(t, versions, 1, "what is known by its number only is not listed")
	assert.EqualValues(t, 8, versions[0].Generation)

	// A generation that is not ours is not gone on with.
	for _, damaged := range []string{"", "abc", "-3", "07", "1e3", "9007199254740993", "99999999999999999999"} {
		require.NoError(t, rdb.HSet(t.Context(), k.schedule("old"), "g", damaged).Err())
		read := stored(t, s, "old")
		assert.NotEmpty(t, read.Parked, damaged)
		due, err := readDue(t.Context(), s, 0, 0, 10)
		require.NoError(t, err)
		require.Len(t, due, 1)
		parked, err := s.ParkSchedule(t.Context(), "old", due[0].Definition, due[0].Parked)
		require.NoError(t, err)
		assert.True(t, parked)
		p := definition("old", time.UnixMilli(1000))
		p.Old, p.Meta = read, []byte(damaged)
		generation, done, err := s.PutSchedule(t.Context(), p)
		require.NoError(t, err)
		assert.True(t, done, damaged)
		versions = append(versions, Version{})
		assert.EqualValues(t, 8+len(versions)-1, generation, damaged)
	}
}

func TestVersionsAreBounded(t *testing.T) {
	t.Parallel()
	s, rdb := inMemory(t, Options{})
	p := definition("plan", time.UnixMilli(1000))
	for n := range 50 {
		p.Definition, p.Meta = fmt.Append(nil, "definition ", n+1), fmt.Append(nil, "ann ", n+1)
		_, done, err := s.PutSchedule(t.Context(), p)
		require.NoError(t, err)
		require.True(t, done)
		p.Old = stored(t, s, "plan")
	}
	versions, err := s.Versions(t.Context(), "plan")
	require.NoError(t, err)
	require.Len(t, versions, 20)
	for i, v := range versions {
		assert.Equal(t, Version{int64(31 + i), fmt.Append(nil, "ann ", 31+i), fmt.Append(nil, "definition ", 31+i)}, v)
	}
	require.NoError(t, rdb.HSet(t.Context(), s.segments[0].versions("plan"), "50", "\xff", "what", "else").Err())
	versions, err = s.Versions(t.Context(), "plan")
	require.NoError(t, err)
	assert.Len(t, versions, 19, "what cannot be read is left out")
	none, err := s.Versions(t.Context(), "none")
	require.NoError(t, err)
	assert.Empty(t, none)
}

// A tick has one entry, the last one; there are so many, and they are so old.
func TestLedgerIsReplacedAndBounded(t *testing.T) {
	t.Parallel()
	s, rdb := inMemory(t, Options{Ledger: Bound{Age: time.Hour, Count: 5}})
	begun := time.Now().Truncate(time.Millisecond)
	put(t, s, "plan")
	record := func(text string, ticks ...time.Duration) {
		step := Turn{Schedule: stored(t, s, "plan")}
		for _, tick := range ticks {
			step.Ledger = append(step.Ledger, LedgerEntry{begun.Add(tick), text})
		}
		step.Next, step.State = step.Schedule.Next, step.Schedule.State
		require.True(t, turn(t, s, step).Done)
	}
	read := func(from, to time.Duration, limit int) (texts []string) {
		entries, err := s.Ledger(t.Context(), "plan", begun.Add(from), begun.Add(to), limit)
		require.NoError(t, err)
		for _, e := range entries {
			texts = append(texts, fmt.Sprint(e.Tick.Sub(begun), " ", e.Text))
		}
		return texts
	}
	assert.Empty(t, read(-time.Hour, time.Hour, 0))
	record("late 12 ms", 1*time.Second, 2*time.Second, 3*time.Second)
	record("late 12 ms", 2*time.Second)
	record("skipped: paused", 1*time.Second)
	assert.Equal(t, []string{"1s skipped: paused", "2s late 12 ms", "3s late 12 ms"}, read(-time.Hour, time.Hour, 0))
	assert.Equal(t, []string{"2s late 12 ms"}, read(2*time.Second, 2*time.Second, 0))
	assert.Equal(t, []string{"1s skipped: paused", "2s late 12 ms"}, read(0, time.Hour, 2))
	record("", 10*time.Second, 11*time.Second, 12*time.Second)
	assert.Equal(t, []string{"2s late 12 ms", "3s late 12 ms", "10s ", "11s ", "12s "}, read(-time.Hour, time.Hour, 0))
	record("long ago", -30*time.Minute, -2*time.Hour, 0)
	assert.Equal(t, []string{"2s late 12 ms", "3s late 12 ms", "10s ", "11s ", "12s "}, read(-9*time.Hour, time.Hour, 0), "older ones go first")
	require.NoError(t, rdb.Del(t.Context(), s.segments[0].ledger("plan")).Err())
	record("long ago", -2*time.Hour, -time.Minute)
	assert.Equal(t, []string{"-1m0s long ago"}, read(-9*time.Hour, time.Hour, 0), "and those that are too old")
	ttl := rdb.PTTL(t.Context(), s.segments[0].ledger("plan")).Val()
	assert.InDelta(t, time.Hour, ttl, float64(time.Minute))

	record("s 1 0", time.Second)
	record("f 1", time.Second)
	record("f 2", time.Second)
	record("s 3 0", time.Second)
	assert.Equal(t, []string{"1s f 2", "1s s 3 0"}, read(0, time.Hour, 0), "a range is apart from the tick at its end")
	require.NoError(t, rdb.ZRemRangeByScore(t.Context(), s.segments[0].ledger("plan"), stamp(begun), "+inf").Err())

	require.NoError(t, s.DropSchedule(t.Context(), "plan"))
	assert.Equal(t, []string{"-1m0s long ago"}, read(-9*time.Hour, time.Hour, 0), "it can be asked what became of it")
	assert.Positive(t, rdb.PTTL(t.Context(), s.segments[0].versions("plan")).Val())
}

// One round trip reads many; what cannot be read is parked and keeps no other from its turn.
func TestManySchedules(t *testing.T) {
	t.Parallel()
	rdb := redistest.Shared(t).Client(t)
	s := open(t, rdb, Options{})
	var names []string
	for i := range 2*schedulesRead + 7 {
		names = append(names, fmt.Sprintf("plan-%03d", i))
		put(t, s, names[i])
	}
	k := s.segments[0]
	require.NoError(t, rdb.Del(t.Context(), k.schedule(names[3]), k.schedule(names[4])).Err())
	require.NoError(t, rdb.Set(t.Context(), k.schedule(names[4]), "foreign", 0).Err())
	require.NoError(t, rdb.HSet(t.Context(), k.schedule(names[5]), "n", "soon").Err())
	all, errs := s.GetSchedules(t.Context(), names)
	require.Len(t, all, len(names))
	due, err := readDue(t.Context(), s, 0, 2, len(names))
	require.NoError(t, err)
	require.Len(t, due, len(names)-2)
	for i, name := range names {
		switch i {
		case 3:
			require.ErrorIs(t, errs[i], ErrNotFound)
		case 4:
			require.ErrorIs(t, errs[i], ErrDamaged)
			assert.ErrorContains(t, errs[i], k.schedule(name))
		default:
			require.NoError(t, errs[i])
			assert.Equal(t, name, all[i].Name)
		}
		if i > 1 {
			assert.Equal(t, name, due[i-2].Name)
			assert.Equal(t, i >= 3 && i <= 5, due[i-2].Parked != "", name)
		}
	}
	none, failed := s.GetSchedules(t.Context(), nil)
	assert.Empty(t, none)
	assert.Empty(t, failed)
}

// A parked schedule takes no turn until it is stored anew.
func TestParkedSchedule(t *testing.T) {
	t.Parallel()
	s, _ := inMemory(t, Options{})
	read := put(t, s, "plan", func(p *Put) { p.Group = "reports" })
	parked, err := s.ParkSchedule(t.Context(), "plan", []byte("another"), "because")
	require.NoError(t, err)
	assert.False(t, parked)
	parked, err = s.ParkSchedule(t.Context(), "plan", read.Definition, "because")
	require.NoError(t, err)
	assert.True(t, parked)
	assert.False(t, turn(t, s, tickTurn(read, time.Time{}, job())).Done)
	now := stored(t, s, "plan")
	assert.Equal(t, "because", now.Parked)
	assert.True(t, now.Look.IsZero())
	p := definition("plan", time.UnixMilli(2000))
	p.Old, p.Same = now, true
	_, done, err := s.PutSchedule(t.Context(), p)
	require.NoError(t, err)
	assert.False(t, done, "what is parked is not left as it is")
	p.Same = false
	_, done, err = s.PutSchedule(t.Context(), p)
	require.NoError(t, err)
	assert.True(t, done)
	assert.Equal(t, Schedule{Name: "plan", Definition: p.Definition, Generation: 2, Next: p.Next, Look: p.Look}, *stored(t, s, "plan"))
	members, err := s.GroupMembers(t.Context(), "reports")
	require.NoError(t, err)
	assert.Empty(t, members)
}

// A put that cannot be done whole is not begun.
func TestPutOfForeignKeys(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"s:plan", "plan", "sv:plan", "sg:", "sg:old", "sg:new"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			rdb := redistest.Shared(t).Client(t)
			s := open(t, rdb, Options{})
			p := definition("plan", time.UnixMilli(1000))
			p.Old, p.Group = put(t, s, "plan", func(p *Put) { p.Group = "old" }), "new"
			key := s.segments[0].prefix + kind
			require.NoError(t, rdb.Del(t.Context(), key).Err())
			require.NoError(t, rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: key, Values: []any{"what", "else"}}).Err())
			before := dump(t, rdb, s)
			_, done, err := s.PutSchedule(t.Context(), p)
			require.ErrorIs(t, err, ErrDamaged)
			assert.ErrorContains(t, err, key)
			assert.False(t, done)
			assert.Equal(t, before, dump(t, rdb, s))
			if kind != "plan" {
				require.NoError(t, s.DropSchedule(t.Context(), "plan"), "it can be dropped")
			}
		})
	}
}

// Groups, marks and calendars over segments.
func TestGroupsAndCalendars(t *testing.T) {
	t.Parallel()
	s, _ := inMemory(t, Options{Segments: 5})
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("%02d", i))
		put(t, s, names[i], func(p *Put) { p.Group = "reports:{1}" })
	}
	p := definition("07", time.UnixMilli(1000))
	p.Old, p.Group = stored(t, s, "07"), "mails"
	_, done, err := s.PutSchedule(t.Context(), p)
	require.NoError(t, err)
	require.True(t, done)
	require.NoError(t, s.DropSchedule(t.Context(), "11"))
	for group, want := range map[string][]string{
		"reports:{1}": append(append(names[:7:7], names[8:11]...), names[12:]...), "mails": {"07"}, "none": nil,
	} {
		members, err := s.GroupMembers(t.Context(), group)
		require.NoError(t, err)
		assert.Equal(t, want, members, group)
	}
	for _, mark := range []string{"", "paused", "paused again", ""} {
		require.NoError(t, s.MarkGroup(t.Context(), "mails", []byte(mark)))
		got, err := s.GroupMark(t.Context(), "mails")
		require.NoError(t, err)
		assert.Equal(t, mark, string(got))
	}

	for i, name := range names {
		_, err := s.GetCalendar(t.Context(), name)
		require.ErrorIs(t, err, ErrNotFound)
		require.ErrorIs(t, s.NoteCalendarUse(t.Context(), name, "plan"), ErrNotFound)
		done, err := s.PutCalendar(t.Context(), name, []byte("2026"), []byte("2025"))
		require.NoError(t, err)
		assert.False(t, done, "there is none")
		done, err = s.PutCalendar(t.Context(), name, []byte("2026"), nil)
		require.NoError(t, err)
		assert.True(t, done)
		done, err = s.PutCalendar(t.Context(), name, []byte("2027"), nil)
		require.NoError(t, err)
		assert.False(t, done, "there is one")
		require.NoError(t, s.NoteCalendarUse(t.Context(), name, "plan"))
		require.NoError(t, s.NoteCalendarUse(t.Context(), name, names[i]))
	}
	all, err := s.Calendars(t.Context())
	require.NoError(t, err)
	assert.Equal(t, names, all)
	users, err := s.CalendarUsers(t.Context(), "05")
	require.NoError(t, err)
	assert.Equal(t, []string{"05", "plan"}, users)
	for _, c := range []struct {
		old    string
		unused []string
		done   bool
	}{{"2025", users, false}, {"2026", nil, false}, {"2026", []string{"plan"}, false}, {"2026", []string{"plan", "05", "06"}, true}} {
		done, err := s.DropCalendar(t.Context(), "05", []byte(c.old), c.unused...)
		require.NoError(t, err)
		assert.Equal(t, c.done, done, "%v", c)
	}
	_, err = s.DropCalendar(t.Context(), "05", []byte("2026"))
	require.ErrorIs(t, err, ErrNotFound)
	users, err = s.CalendarUsers(t.Context(), "05")
	require.NoError(t, err)
	assert.Empty(t, users)
	data, err := s.GetCalendar(t.Context(), "06")
	require.NoError(t, err)
	assert.Equal(t, "2026", string(data))
}

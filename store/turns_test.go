package store

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/knobs"
	"github.com/carillon-go/carillon/internal/redistest"
)

// put stores a schedule whose next tick was long ago, and reads it.
func put(t testing.TB, s *Store, name string, edit ...func(*Put)) *Schedule {
	t.Helper()
	p := definition(name, time.UnixMilli(1000))
	for _, e := range edit {
		e(&p)
	}
	_, done, err := s.PutSchedule(t.Context(), p)
	require.NoError(t, err)
	require.True(t, done)
	return stored(t, s, name)
}

func stored(t testing.TB, s *Store, name string) *Schedule {
	t.Helper()
	sched, err := s.GetSchedule(t.Context(), name)
	require.NoError(t, err)
	return sched
}

// turn takes one turn without an error.
func turn(t testing.TB, s *Store, step Turn) TurnResult {
	t.Helper()
	r := s.TakeTurn(t.Context(), step)
	require.NoError(t, r.Err)
	for _, err := range r.Errs {
		require.NoError(t, err)
	}
	return r
}

func total(t testing.TB, s *Store) int {
	t.Helper()
	counts, err := s.Counts(t.Context())
	require.NoError(t, err)
	n := 0
	for _, state := range States {
		n += counts.States[state]
	}
	return n
}

// A turn is refused as a whole when anything that it was decided on is different.
func TestTurnComparesWhatWasRead(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit func(*Turn)
		done bool
	}{
		"as it was read":        {func(*Turn) {}, true},
		"no state of its own":   {func(step *Turn) { step.State = nil }, true},
		"another generation":    {func(step *Turn) { step.Schedule.Generation++ }, false},
		"another tick":          {func(step *Turn) { step.Schedule.Next = step.Schedule.Next.Add(time.Millisecond) }, false},
		"no tick":               {func(step *Turn) { step.Schedule.Next = time.Time{} }, false},
		"another state":         {func(step *Turn) { step.Schedule.State = []byte("2 runs") }, false},
		"no state":              {func(step *Turn) { step.Schedule.State = nil }, false},
		"too early":             {func(step *Turn) { step.NotBefore = time.Now().Add(time.Hour) }, false},
		"a schedule of no kind": {func(step *Turn) { step.Schedule.Name = "other" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, rdb := inMemory(t, Options{})
			before := put(t, s, "plan", func(p *Put) { p.State = []byte("1 run") })
			read := *before
			step := tickTurn(&read, time.UnixMilli(61_000), job())
			step.State, step.Ledger = []byte("3 runs"), []LedgerEntry{{time.Now(), "fired"}}
			c.edit(&step)
			require.NoError(t, s.announce(t.Context(), []NewJob{{Spec: job()}}))
			left := dump(t, rdb, s)
			r := turn(t, s, step)
			assert.Equal(t, c.done, r.Done)
			if !c.done {
				assert.Equal(t, left, dump(t, rdb, s), "nothing was done")
				return
			}
			after := stored(t, s, "plan")
			assert.Equal(t, Schedule{
				Name: "plan", Definition: before.Definition, State: step.State, Generation: 1,
				Next: step.Next, Look: step.Next, Last: before.Next,
			}, *after)
			j, err := s.Get(t.Context(), r.IDs[0])
			require.NoError(t, err)
			assert.Equal(t, "plan~1~1000", j.ID)
			ledger, err := s.Ledger(t.Context(), "plan", time.Time{}, time.Time{}, 0)
			require.NoError(t, err)
			require.Len(t, ledger, 1)
		})
	}
}

// Two instances decide the same from what both have read: one of them is first,
// and there is one job. So too when it is one instance that sends twice.
func TestTurnIsTakenOnce(t *testing.T) {
	t.Parallel()
	rdb := redistest.Shared(t).Client(t)
	s := open(t, rdb, Options{})
	read := put(t, s, "plan")
	var done [8]bool
	var racers sync.WaitGroup
	for i := range done {
		racers.Go(func() {
			done[i] = s.TakeTurn(t.Context(), tickTurn(read, time.UnixMilli(2000), job())).Done
		})
	}
	racers.Wait()
	assert.Len(t, slices.DeleteFunc(done[:], func(d bool) bool { return !d }), 1)
	assert.Equal(t, 1, total(t, s))
}

// A turn that moves nothing (a run that was asked for, say) can be taken again
// by a lost reply: it has the same jobs, and one entry in the ledger.
func TestTurnThatMovesNothingIsRepeatable(t *testing.T) {
	t.Parallel()
	s, rdb := inMemory(t, Options{})
	read := put(t, s, "plan")
	step := Turn{
		Schedule: read, Next: read.Next, Look: read.Look,
		Jobs:   []TickJob{{Suffix: "asked", Spec: job(), Watched: true}},
		Ledger: []LedgerEntry{{time.Now(), "asked"}},
	}
	assert.True(t, turn(t, s, step).Done)
	left := dump(t, rdb, s)
	assert.True(t, turn(t, s, step).Done)
	assert.Equal(t, left, dump(t, rdb, s))
	assert.Equal(t, 1, total(t, s))
}

// One that is stale, one whose key is foreign and one whose job cannot be created
// keep no other from its turn. Each has an answer of its own.
func TestTurnsOfABatchAreApart(t *testing.T) {
	t.Parallel()
	rdb := redistest.Shared(t).Client(t)
	s := open(t, rdb, Options{})
	k := s.segments[0]
	turns := make([]Turn, 600) // more than one call, more than one pipeline takes
	for i := range turns {
		turns[i] = tickTurn(put(t, s, fmt.Sprint("plan-", i)), time.UnixMilli(2000), job(mutexed))
		turns[i].Ledger, turns[i].Jobs[0].Line = []LedgerEntry{{time.Now(), "fired"}}, 1
	}
	const stale, foreign, conflict, unrecorded, damaged, several = 1, 250, 251, 252, 253, 254
	turns[stale].Schedule.State = []byte("unknown")
	require.NoError(t, rdb.Del(t.Context(), k.schedule("plan-250")).Err())
	require.NoError(t, rdb.Set(t.Context(), k.schedule("plan-250"), "foreign", 0).Err())
	submit(t, s, "plan-251~1~1000", job(later1h))
	require.NoError(t, rdb.Set(t.Context(), k.ledger("plan-252"), "foreign", 0).Err())
	require.NoError(t, rdb.Set(t.Context(), k.record("plan-253~1~1000"), "foreign", 0).Err())
	turns[several].Jobs = nil
	for i := range 300 { // heavier than a call by itself
		turns[several].Jobs = append(turns[several].Jobs, TickJob{Suffix: fmt.Sprint("1000~s", i), Spec: job(large, tagged)})
	}

	for i, r := range s.Turns(t.Context(), 0, turns) {
		after, err := s.GetSchedule(t.Context(), turns[i].Schedule.Name)
		switch i {
		case stale:
			require.NoError(t, r.Err)
			assert.False(t, r.Done)
			assert.Equal(t, int64(1000), after.Next.UnixMilli())
			continue
		case foreign:
			require.ErrorIs(t, r.Err, ErrDamaged)
			assert.ErrorContains(t, r.Err, k.schedule("plan-250"), "it says which key")
			assert.False(t, r.Done)
			require.ErrorIs(t, err, ErrDamaged)
			continue
		case conflict:
			require.ErrorIs(t, r.Errs[0], ErrConflict)
		case unrecorded:
			require.ErrorIs(t, r.Err, ErrDamaged)
			assert.ErrorContains(t, r.Err, k.ledger("plan-252"))
		case damaged:
			require.ErrorIs(t, r.Errs[0], ErrDamaged)
			assert.ErrorContains(t, r.Errs[0], k.record("plan-253~1~1000"))
		case several:
			assert.Len(t, r.IDs, 300)
			fallthrough
		default:
			for n, id := range r.IDs {
				require.NoError(t, r.Errs[n])
				require.Equal(t, fmt.Sprintf("%s~1~%s", turns[i].Schedule.Name, turns[i].Jobs[n].Suffix), id)
			}
		}
		require.NoError(t, err)
		ledger, _ := s.Ledger(t.Context(), turns[i].Schedule.Name, time.Time{}, time.Time{}, 0)
		if i == conflict || i == damaged {
			assert.Equal(t, "seired", ledger[0].Text, "refused, as package policy writes it")
		} else if i != unrecorded {
			assert.Equal(t, "fired", ledger[0].Text)
		}
		assert.True(t, r.Done, "turn %d", i)
		assert.Equal(t, int64(2000), after.Next.UnixMilli(), "it moves on also when a job cannot be created")
	}
	assert.Equal(t, len(turns)-1-4+300+1, total(t, s), "jobs of the turns, and the one that was in the way")
}

// The ID tells the segment, which is the schedule's unless the job has an affinity.
func TestTickJobID(t *testing.T) {
	t.Parallel()
	s, _ := inMemory(t, Options{Segments: 5})
	home := fmt.Sprint("~", s.Segment("plan"))
	assert.Equal(t, "plan~3~1000~s1"+home, s.TickJobID("plan", 3, "1000~s1", job()))
	assert.Equal(t, fmt.Sprint("plan~3~1000~", hashSegment("door", 5)), s.TickJobID("plan", 3, "1000", job(mutexed)))
	read := put(t, s, "plan")
	for suffix, spec := range map[string]*Spec{"a": job(), "b": job(mutexed), "c": job(unique), "d": job(mutexed, uniqueM)} {
		step := tickTurn(read, time.UnixMilli(2000), spec)
		step.Next, step.Jobs[0].Suffix = read.Next, suffix
		assert.Equal(t, s.TickJobID("plan", 1, suffix, spec), turn(t, s, step).IDs[0])
	}
	one, _ := inMemory(t, Options{})
	assert.Equal(t, "plan~3~1000", one.TickJobID("plan", 3, "1000", job(mutexed)))
}

// Everything a turn touches is in one segment, on a Cluster too; what is not goes
// by way of relay, and is watched all the same.
func TestTurnsInEverySegmentOfACluster(t *testing.T) {
	rdb := redistest.SharedCluster(t).Client(t)
	s := open(t, rdb, Options{})
	turns := make([][]Turn, s.Segments())
	var ids []string
	for i := range 64 {
		name := fmt.Sprint("plan-", i)
		edit := []func(*Spec){tagged}
		if i%4 == 0 {
			edit = append(edit, func(j *Spec) { j.Mutex = nameElsewhere(name, s.Segments()) })
		}
		step := tickTurn(put(t, s, name), time.UnixMilli(2000), job(edit...))
		step.Jobs[0].Watched = true
		step.State, step.Ledger = []byte("1 run"), []LedgerEntry{{time.Now(), "fired"}}
		turns[s.Segment(name)] = append(turns[s.Segment(name)], step)
	}
	for segment, part := range turns {
		for _, r := range s.Turns(t.Context(), segment, part) {
			require.NoError(t, r.Err)
			require.NoError(t, r.Errs[0])
			require.True(t, r.Done)
			ids = append(ids, r.IDs[0])
		}
	}
	states, err := s.RunStates(t.Context(), append(ids, "plan-1~1~2000~1", "unknown"))
	require.NoError(t, err)
	for i, r := range states[:64] {
		assert.Equal(t, RunState{Known: true, State: r.State}, r, ids[i])
		assert.False(t, r.State.Final())
	}
	assert.Equal(t, []RunState{{}, {}}, states[64:])
	hints, stop := s.Ended()
	defer stop()
	require.Empty(t, <-hints, "the subscription stands")
	for _, id := range ids {
		_, err := s.Cancel(t.Context(), id, "no more")
		require.NoError(t, err)
	}
	told := map[string]bool{}
	for deadline := time.After(patience); len(told) < len(ids); {
		select {
		case id := <-hints:
			told[id] = true
		case <-deadline:
			t.Fatalf("%d of %d were told of", len(told), len(ids))
		}
	}
	states, err = s.RunStates(t.Context(), ids)
	require.NoError(t, err)
	for i, r := range states {
		assert.Equal(t, Cancelled, r.State, ids[i])
		assert.WithinDuration(t, time.Now(), r.Ended, time.Hour)
	}
}

// A relayed job whose relay ends half way is watched by the next one: also when
// it was submitted already, and when an older release has noted it.
func TestRelayWatches(t *testing.T) {
	t.Parallel()
	rdb := redistest.Shared(t).Client(t)
	var here atomic.Bool
	knobs.Hook(rdb, hook{func(_ context.Context, cmd redis.Cmder, next func(redis.Cmder) error) error {
		if isScript(cmd) && scriptOf(cmd) == "await" && !here.Load() {
			return &lagging{}
		}
		return next(cmd)
	}})
	s := open(t, rdb, Options{Segments: 4})
	elsewhere := func(spec *Spec) { spec.Mutex = nameElsewhere("plan", 4) }
	step := tickTurn(put(t, s, "plan"), time.UnixMilli(2000), job(elsewhere))
	step.Jobs[0].Watched = true
	r := s.TakeTurn(t.Context(), step)
	require.NoError(t, r.Err)
	assert.True(t, r.Done)
	require.ErrorIs(t, r.Errs[0], ErrUncertain)
	states, err := s.RunStates(t.Context(), r.IDs)
	require.NoError(t, err)
	assert.Equal(t, Queued, states[0].State, "it was submitted")

	here.Store(true)
	k := s.segments[s.Segment("plan")]
	older := s.TickJobID("plan", 1, "older", job(elsewhere))
	require.NoError(t, rdb.HSet(t.Context(), k.relay(), older, encodeSpec(job(elsewhere))).Err())
	require.NoError(t, s.Relay(t.Context(), s.Segment("plan")))
	assert.Zero(t, rdb.HLen(t.Context(), k.relay()).Val())
	assert.Equal(t, watchers, rdb.HGet(t.Context(), s.segments[s.segmentOf(r.IDs[0])].awaited(), r.IDs[0]).Val())
	assert.Equal(t, 2, total(t, s))
	assert.Empty(t, rdb.HGet(t.Context(), s.segments[s.segmentOf(older)].awaited(), older).Val(), "nobody asked for it")
}

// A turn that makes a schedule look earlier tells the keepers; one that moves it
// on does not.
func TestTurnTellsWhenItIsSooner(t *testing.T) {
	t.Parallel()
	s, _ := inMemory(t, Options{})
	soon := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	looks := map[string]time.Time{"on": soon.Add(time.Hour), "out": {}, "sooner": soon}
	for name := range looks {
		put(t, s, name, func(p *Put) { p.Next, p.Look = soon.Add(30*time.Minute), soon.Add(30*time.Minute) })
	}
	hints, stop := s.Control()
	defer stop()
	require.Empty(t, <-hints, "the subscription stands")
	for name, look := range looks {
		turn(t, s, Turn{Schedule: stored(t, s, name), Next: soon, Look: look})
		require.NoError(t, s.Pause(t.Context(), "mail", name == "on")) // what is heard last
		want := []string{"p"}
		if name == "sooner" {
			want = []string{"s 0 " + stamp(soon), "p"}
		}
		for _, hint := range want {
			assert.Equal(t, hint, <-hints, name)
		}
		assert.True(t, look.Equal(stored(t, s, name).Look), name)
	}
	next, err := s.NextTick(t.Context(), 0, time.Now())
	require.NoError(t, err)
	assert.True(t, soon.Equal(next))
	names, err := s.Schedules(t.Context())
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{"sooner", "on", "out"}, names)
}

// When Redis is out of memory a turn does nothing, be it with jobs or without;
// what makes room works.
func TestTurnsOutOfMemory(t *testing.T) {
	t.Parallel()
	rdb := redistest.Single(t, "maxmemory-policy noeviction").Client(t)
	s := open(t, rdb, Options{Segments: 2})
	inGroup := func(p *Put) { p.Group = "reports" }
	elsewhere := func(spec *Spec) { spec.Mutex = nameElsewhere("plan", 2) }
	for _, name := range []string{"plan", "dropped", "parked"} {
		turn(t, s, Turn{Schedule: put(t, s, name, inGroup), Look: time.UnixMilli(1000), State: []byte("state"), Ledger: []LedgerEntry{{time.Now(), "fired"}}})
	}
	done, err := s.PutCalendar(t.Context(), "holidays", []byte("2026"), nil)
	require.NoError(t, err)
	require.True(t, done)
	read := stored(t, s, "plan")
	require.NoError(t, rdb.ConfigSet(t.Context(), "maxmemory", "1mb").Err())
	before := dump(t, rdb, s)
	for name, step := range map[string]Turn{
		"a job":         {Schedule: read, Jobs: []TickJob{{Suffix: "1", Spec: job()}}},
		"a mutex":       {Schedule: read, Jobs: []TickJob{{Suffix: "1", Spec: job(mutexed)}}},
		"a later job":   {Schedule: read, Jobs: []TickJob{{Suffix: "1", Spec: job(later1h, tagged)}}},
		"a relayed job": {Schedule: read, Jobs: []TickJob{{Suffix: "1", Spec: job(elsewhere)}}},
		"no job":        {Schedule: read, Look: time.UnixMilli(2000), Ledger: []LedgerEntry{{time.Now(), "skipped"}}},
		"nothing":       {Schedule: read},
	} {
		r := s.TakeTurn(t.Context(), step)
		require.ErrorIs(t, r.Err, ErrFull, name)
		assert.False(t, r.Done, name)
	}
	_, _, err = s.PutSchedule(t.Context(), Put{Name: "plan", Old: read, Definition: []byte("other")})
	require.ErrorIs(t, err, ErrFull)
	assert.Equal(t, before, dump(t, rdb, s), "nothing was done")
	parked, err := s.ParkSchedule(t.Context(), "parked", []byte("definition"), "because")
	require.NoError(t, err)
	assert.True(t, parked)
	require.NoError(t, s.DropSchedule(t.Context(), "dropped"))
	done, err = s.DropCalendar(t.Context(), "holidays", []byte("2026"))
	require.NoError(t, err)
	assert.True(t, done)
	require.NoError(t, s.MarkGroup(t.Context(), "reports", nil))
	require.ErrorIs(t, s.MarkGroup(t.Context(), "reports", []byte("paused")), ErrFull)
	members, err := s.GroupMembers(t.Context(), "reports")
	require.NoError(t, err)
	assert.Equal(t, []string{"parked", "plan"}, members)
}

package store

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/knobs"
	"github.com/carillon-go/carillon/internal/redistest"
)

// An act uses some of the store in a namespace of its own. All acts together
// run every script. They are played again and again under other conditions:
// with empty script caches, with calls sent twice, with lost replies, with no
// access beyond the declared keys, on other kinds of servers.
type act struct {
	name     string
	segments int
	play     func(*stage)
}

// stage is where an act plays. twice says that scripts are executed twice, so a
// call that succeeded may answer that it was not needed any more.
type stage struct {
	*Store
	t     *testing.T
	ctx   context.Context
	rdb   redis.UniversalClient
	twice bool
}

func (s *stage) submit(id string, edit ...func(*Spec)) {
	s.t.Helper()
	submit(s.t, s.Store, id, job(edit...))
}

func (s *stage) ok(err error) {
	s.t.Helper()
	require.NoError(s.t, err)
}

// once accepts err when the call was executed twice.
func (s *stage) once(err, repeated error) {
	s.t.Helper()
	if !s.twice || !errors.Is(err, repeated) {
		require.NoError(s.t, err)
	}
}

func (s *stage) promote() Tick {
	s.t.Helper()
	var sum Tick
	for i := range s.segments {
		tick, err := s.Promote(s.ctx, i, s.report)
		s.ok(err)
		sum.Promoted += tick.Promoted
	}
	return sum
}

func (s *stage) report(id string, err error) { s.t.Logf("reported %q: %v", id, err) }

func (s *stage) is(id string, want State) {
	s.t.Helper()
	j, err := s.Get(s.ctx, id)
	s.ok(err)
	assert.Equal(s.t, want, j.State, id)
}

// lapse makes an instance look as if it had not been heard of for a lease.
func (s *stage) lapse(instance string) {
	s.t.Helper()
	for _, k := range s.segments {
		s.ok(s.rdb.ZAdd(s.ctx, k.workers(), z(float64(time.Now().UnixMilli()), instance)).Err())
	}
}

func past(s *Spec)     { s.RunAt = time.UnixMilli(1) }
func later1h(s *Spec)  { s.Delay = time.Hour }
func mutexed(s *Spec)  { s.Mutex = "door" }
func unique(s *Spec)   { s.Unique = "one" }
func uniqueM(s *Spec)  { s.Unique, s.UniqueFor = "minute", time.Minute }
func tagged(s *Spec)   { s.Tags = []string{"red", "blue"} }
func large(s *Spec)    { s.Args = make([]byte, 10_000) }
func expiring(s *Spec) { s.ExpiresAt = time.UnixMilli(1000) }

func delay(d time.Duration) func(*Settlement) { return func(s *Settlement) { s.Delay = d } }

var acts = []act{
	{"submit and promote", 1, func(s *stage) {
		s.submit("now", tagged)
		s.submit("later", later1h)
		s.submit("past", past, tagged)
		s.submit("large", large)
		s.submit("")
		s.submit("", large)
		s.submit("u1", unique)
		receipts, errs := s.Submit(s.ctx, []NewJob{{ID: "u2", Spec: job(unique)}, {ID: "now", Spec: job()}, {ID: "now", Spec: job(tagged)}})
		s.ok(errs[0])
		assert.Equal(s.t, Receipt{ID: "u1", Duplicate: true}, receipts[0])
		assert.ErrorIs(s.t, errs[1], ErrConflict)
		s.ok(errs[2])
		assert.True(s.t, receipts[2].Duplicate)
		assert.Equal(s.t, 1, s.promote().Promoted)
		s.is("past", Queued)
		s.is("later", Scheduled)
		s.ok(s.Hurry(s.ctx, "later"))
		assert.Equal(s.t, 1, s.promote().Promoted)
		s.is("later", Queued)
		w := work(s.t, s.Store, "worker")
		for _, e := range w.take(6) {
			s.ok(e.Err)
			s.ok(w.settle(e, Succeed))
		}
		s.is("large", Succeeded)
	}},
	{"settle", 1, func(s *stage) {
		outcomes := map[string]Outcome{
			"f": Fail, "c": Cancel, "r": Retry, "z": Snooze, "b": Release, "u": Decline, "s": Succeed, "x": Expire, "y": Succeed,
			"unasked": Cancel,
		}
		for id := range outcomes {
			s.submit(id, tagged, expiring, func(s *Spec) { s.Unique = id })
		}
		w := work(s.t, s.Store, "worker")
		for _, e := range w.take(len(outcomes)) {
			s.ok(s.Note(s.ctx, e, true, []byte("half")))
			s.ok(s.Note(s.ctx, e, false, []byte("way")))
			if e.ID == "y" || e.ID == "c" {
				_, err := s.Cancel(s.ctx, e.ID, "no more")
				s.ok(err)
			}
			s.ok(w.settle(e, outcomes[e.ID], delay(time.Hour), func(o *Settlement) { o.Result = []byte(`"done"`) }))
			for _, other := range []Outcome{Succeed, Fail, Retry, Snooze, Decline, Expire} {
				if other != outcomes[e.ID] {
					assert.ErrorIs(s.t, w.settle(e, other), ErrFenced, "another outcome of %s: %c", e.ID, other)
				}
			}
		}
		for id, want := range map[string]State{
			"s": Succeeded, "f": Failed, "c": Cancelled, "x": Expired, "r": Retrying, "z": Scheduled, "b": Queued,
			"u": Scheduled, "y": Succeeded, "unasked": Queued,
		} {
			s.is(id, want)
		}
		s.once(s.Revive(s.ctx, "f"), ErrState)
		s.is("f", Scheduled)
	}},
	{"mutex", 1, func(s *stage) {
		s.submit("1", mutexed)
		s.submit("2", mutexed)
		s.submit("3", mutexed, past)
		assert.Equal(s.t, 1, s.promote().Promoted)
		s.is("2", Waiting)
		s.is("3", Waiting)
		w := work(s.t, s.Store, "worker")
		var last uint64
		for _, id := range []string{"1", "2", "3"} {
			e := w.take(1)[0]
			assert.Equal(s.t, id, e.ID)
			assert.Greater(s.t, e.Mutex, last)
			last = e.Mutex
			s.ok(w.settle(e, Succeed))
			s.promote()
		}
	}},
	{"cancel", 1, func(s *stage) {
		s.submit("running", unique, tagged)
		w := work(s.t, s.Store, "worker")
		e := w.take(1)[0]
		s.submit("queued")
		s.submit("scheduled", later1h, uniqueM)
		s.submit("holds", mutexed)
		s.submit("waits", mutexed)
		_, err := s.Await(s.ctx, "waits")
		s.ok(err)
		for _, id := range []string{"running", "queued", "scheduled", "waits", "holds"} {
			_, err := s.Cancel(s.ctx, id, "no more")
			s.ok(err)
		}
		pulse, errs := s.Heartbeat(s.ctx, "worker", time.Minute, []string{DefaultQueue}, 1, nil, "")
		s.ok(Distinct(errs))
		assert.Equal(s.t, []string{"running"}, pulse.Cancelled)
		assert.True(s.t, pulse.Missed)
		s.ok(w.settle(e, Retry))
		for _, id := range []string{"running", "queued", "scheduled", "waits", "holds"} {
			s.is(id, Cancelled)
		}
	}},
	{"reclaim", 1, func(s *stage) {
		s.submit("again", tagged)
		s.submit("deadly", unique)
		s.submit("unwanted", mutexed)
		s.submit("next", mutexed)
		for round := range 3 {
			lost := work(s.t, s.Store, "lost")
			for _, e := range lost.take([]int{3, 3, 2}[round]) {
				if round == 2 && e.ID == "again" {
					s.ok(lost.settle(e, Succeed))
				}
			}
			if round == 1 {
				_, err := s.Cancel(s.ctx, "unwanted", "no more")
				s.ok(err)
			}
			s.lapse("lost")
			_, err := s.Reclaim(s.ctx, 0, "lost", 3, s.report)
			s.ok(err)
			s.promote()
			if round == 1 {
				w := work(s.t, s.Store, "other")
				for _, r := range w.readers {
					entries, _, err := r.Fetch(s.ctx, 10, 0)
					s.ok(err)
					for _, e := range entries {
						o := Release
						if e.ID == "next" {
							o = Succeed
						}
						s.ok(w.settle(e, o))
					}
				}
				s.ok(w.Leave(s.ctx, "other", []string{DefaultQueue}))
			}
		}
		s.is("again", Succeeded)
		s.is("deadly", Failed)
		s.is("unwanted", Cancelled)
		s.is("next", Succeeded)
	}},
	{"quarantine", 1, func(s *stage) {
		k := s.segments[0]
		s.submit("entry", unique)
		s.submit("due", past)
		s.submit("holds", mutexed)
		s.submit("waits", mutexed)
		s.ok(s.rdb.HSet(s.ctx, k.record("entry"), "j", "garbage").Err())
		s.ok(s.rdb.Del(s.ctx, k.record("due"), k.record("waits")).Err())
		s.ok(s.rdb.XAdd(s.ctx, &redis.XAddArgs{Stream: k.stream(DefaultQueue, 'n'), Values: []any{"hello", "world"}}).Err())
		s.ok(s.rdb.ZAdd(s.ctx, k.due(), z(1, "malformed")).Err())
		s.promote()
		w := work(s.t, s.Store, "worker")
		for _, e := range w.take(3) {
			switch e.ID {
			case "entry": // its own copy of the spec is sound
				e.Err = ErrDamaged
				fallthrough
			case "":
				assert.True(s.t, w.Quarantine(s.ctx, e) || s.twice)
			default:
				s.ok(w.settle(e, Succeed))
			}
		}
		s.promote()
		tick, err := s.Promote(s.ctx, 0, s.report)
		s.ok(err)
		assert.Zero(s.t, tick.NextDue)
		for _, name := range []string{k.due(), k.wait(), k.grant()} {
			assert.Zero(s.t, s.rdb.Exists(s.ctx, name).Val(), name)
		}
	}},
	{"left behind", 1, func(s *stage) {
		k := s.segments[0]
		s.submit("gone", unique, mutexed)
		s.submit("waits", mutexed)
		s.ok(s.rdb.Del(s.ctx, k.record("gone")).Err())
		s.submit("next", unique)
		s.is("next", Queued)
		freed, _, err := s.HealMutexes(s.ctx, 0, "")
		s.ok(err)
		assert.True(s.t, freed == 1 || s.twice)
		s.promote()
		s.is("waits", Queued)
		freed, _, err = s.HealMutexes(s.ctx, 0, "")
		s.ok(err)
		assert.Zero(s.t, freed)
	}},
	{"retention", 1, func(s *stage) {
		for _, id := range []string{"a", "b", "c"} {
			s.submit(id)
		}
		w := work(s.t, s.Store, "worker")
		for _, e := range w.take(3) {
			s.ok(w.settle(e, Succeed))
		}
		s.options.Retention = Retention{Succeeded: {time.Hour, 1}, Failed: {time.Hour, 1}, Cancelled: {time.Hour, 1}, Expired: {time.Hour, 1}}
		n, err := s.Trim(s.ctx, 0)
		s.ok(err)
		assert.Equal(s.t, 2, n)
		s.is("c", Succeeded)
		_, err = s.Get(s.ctx, "a")
		assert.ErrorIs(s.t, err, ErrNotFound)
	}},
	{"queues and instances", 1, func(s *stage) {
		w := work(s.t, s.Store, "worker")
		s.ok(s.Pause(s.ctx, "mail", true))
		s.ok(s.Pause(s.ctx, DefaultQueue, true))
		s.ok(s.Pause(s.ctx, DefaultQueue, false))
		pulse, errs := w.Heartbeat(s.ctx, "worker", time.Minute, []string{DefaultQueue}, 0, nil, "")
		s.ok(Distinct(errs))
		assert.Equal(s.t, []string{"mail"}, pulse.Paused)
		assert.Equal(s.t, []string{"worker"}, pulse.Live)
		all, err := s.Instances(s.ctx)
		s.ok(err)
		assert.Len(s.t, all, 1)
		s.ok(w.Leave(s.ctx, "worker", []string{DefaultQueue}))
		pulse, errs = w.Heartbeat(s.ctx, "worker", time.Minute, []string{DefaultQueue}, 0, nil, "")
		s.ok(Distinct(errs))
		assert.Equal(s.t, []int{0}, pulse.Dead)
	}},
	{"foreign hands", 1, func(s *stage) {
		s.submit("vanished", mutexed)
		s.submit("behind")
		s.submit("stays")
		w := work(s.t, s.Store, "worker")
		stays := w.take(3)[1]
		stream := s.segments[0].stream(DefaultQueue, DefaultPriority)
		s.ok(s.rdb.XDel(s.ctx, stream, s.rdb.XRange(s.ctx, stream, "-", "+").Val()[0].ID).Err())
		s.ok(s.rdb.XGroupDelConsumer(s.ctx, stream, group, "worker").Err())
		s.ok(w.settle(stays, Succeed))
		again := audited(s.t, s.Store)
		assert.True(s.t, again == 2 || s.twice)
		for _, e := range w.take(2) {
			s.ok(w.settle(e, Succeed))
		}
		assert.Zero(s.t, audited(s.t, s.Store))
	}},
	{"replicas", 1, func(s *stage) {
		s.replicaWait = time.Millisecond
		s.options.WaitReplicas = 9 // more than anybody has
		_, errs := s.Submit(s.ctx, []NewJob{{ID: "a", Spec: job()}})
		assert.ErrorIs(s.t, errs[0], ErrUncertain)
		s.options.WaitReplicas = 0
		s.is("a", Queued)
	}},
	{"leases", 1, func(s *stage) {
		l, _, err := s.Acquire(s.ctx, "x", "me", time.Minute)
		s.ok(err)
		other, wait, err := s.Acquire(s.ctx, "x", "you", time.Minute)
		s.ok(err)
		assert.Nil(s.t, other)
		assert.Positive(s.t, wait)
		s.ok(s.Renew(s.ctx, l, time.Minute))
		s.once(s.Release(s.ctx, l), ErrFenced)
		assert.ErrorIs(s.t, s.Renew(s.ctx, l, time.Minute), ErrFenced)
		other, _, err = s.Acquire(s.ctx, "x", "you", time.Minute)
		s.ok(err)
		assert.Greater(s.t, other.Token, l.Token)
	}},
	{"schedules", 1, func(s *stage) {
		soon := time.UnixMilli(1000)
		for _, name := range []string{"fires", "last", "parked", "dropped"} {
			p := definition(name, soon)
			p.Group, p.State, p.Meta = "old", []byte("state"), []byte("ann")
			_, done, err := s.PutSchedule(s.ctx, p)
			s.ok(err)
			assert.True(s.t, done)
			p.Old, err = s.GetSchedule(s.ctx, name)
			s.ok(err)
			p.Group, p.State, p.Meta = "new", nil, []byte("bob")
			generation, done, err := s.PutSchedule(s.ctx, p)
			s.ok(err)
			assert.True(s.t, done, "also when its reply was lost")
			assert.EqualValues(s.t, 2, generation)
			p.Meta = []byte("cid")
			_, done, err = s.PutSchedule(s.ctx, p)
			s.ok(err)
			assert.False(s.t, done, "it was read before that")
			p.Old, p.Same, p.Definition, p.Meta = &Schedule{Generation: 2}, true, []byte("the same"), []byte("dot")
			_, done, err = s.PutSchedule(s.ctx, p)
			s.ok(err)
			assert.True(s.t, done)
		}
		_, err := s.ParkSchedule(s.ctx, "parked", []byte("the same"), "because")
		s.ok(err)
		s.once(s.DropSchedule(s.ctx, "dropped"), ErrNotFound)
		due, err := readDue(s.ctx, s.Store, 0, 0, 10)
		s.ok(err)
		require.Len(s.t, due, 2)
		for _, d := range due {
			var next time.Time
			if d.Name == "fires" {
				next = time.UnixMilli(2000)
			}
			turn := tickTurn(d, next, job(func(j *Spec) { j.Schedule, j.Tick = d.Name, d.Next }))
			turn.Jobs[0].Watched = true
			turn.State, turn.Ledger = []byte("1 run"), []LedgerEntry{{time.UnixMilli(1 << 42), "fired"}, {time.UnixMilli(1 << 42), "replaced"}}
			r := s.TakeTurn(s.ctx, turn)
			s.ok(errors.Join(r.Err, r.Errs[0]))
			assert.True(s.t, r.Done || s.twice)
			s.is(r.IDs[0], Queued)
			_, fired, err := fire(s.ctx, s.Store, d, next, job())
			s.ok(err)
			assert.False(s.t, fired, "one tick, one job")
		}
		s.ok(s.rdb.ZAdd(s.ctx, s.segments[0].ledger("lost"), redis.Z{Score: 1, Member: "1 fired"}).Err())
		corrected, err := s.run(s.ctx, call{scriptRefuse, []string{s.segments[0].ledger("lost")}, []any{1, "fired"}})
		s.ok(err)
		assert.True(s.t, number(corrected) == 1 || s.twice)
		s.ok(s.rdb.Del(s.ctx, s.segments[0].ledger("lost")).Err())
		names, err := s.Schedules(s.ctx)
		s.ok(err)
		assert.ElementsMatch(s.t, []string{"fires", "last", "parked"}, names)
		names, err = s.GroupMembers(s.ctx, "new")
		s.ok(err)
		assert.Equal(s.t, []string{"fires", "last", "parked"}, names)
	}},
	{"groups and calendars", 1, func(s *stage) {
		s.ok(s.MarkGroup(s.ctx, "reports", []byte("paused")))
		s.ok(s.MarkGroup(s.ctx, "mails", []byte("paused")))
		s.ok(s.MarkGroup(s.ctx, "mails", nil))
		for _, name := range []string{"holidays", "dropped"} {
			for _, c := range []struct{ data, old []byte }{{[]byte("2026"), nil}, {[]byte("2027"), []byte("2026")}} {
				done, err := s.PutCalendar(s.ctx, name, c.data, c.old)
				s.ok(err)
				assert.True(s.t, done)
			}
			done, err := s.PutCalendar(s.ctx, name, []byte("2028"), []byte("2026"))
			s.ok(err)
			assert.False(s.t, done)
			s.ok(s.NoteCalendarUse(s.ctx, name, "nightly"))
			s.ok(s.NoteCalendarUse(s.ctx, name, "weekly"))
		}
		done, err := s.DropCalendar(s.ctx, "dropped", []byte("2027"), "weekly")
		s.ok(err)
		assert.False(s.t, done, "it has another user")
		done, err = s.DropCalendar(s.ctx, "dropped", []byte("2027"), "weekly", "nightly")
		s.once(err, ErrNotFound)
		assert.True(s.t, done || s.twice)
		assert.ErrorIs(s.t, s.NoteCalendarUse(s.ctx, "dropped", "late"), ErrNotFound)
	}},
	{"foreign keys", 5, func(s *stage) {
		// "door" and "one" are in different segments, and so are some of the IDs.
		require.NotEqual(s.t, hashSegment("door", 5), hashSegment("one", 5))
		s.submit("a", mutexed, unique)
		receipts, errs := s.Submit(s.ctx, []NewJob{{ID: "b", Spec: job(mutexed, unique)}, {ID: "c", Spec: job(mutexed)}})
		s.ok(errs[0])
		s.ok(errs[1])
		assert.Equal(s.t, Receipt{ID: "a", Duplicate: true}, receipts[0])
		s.is("a", Queued)
		s.is("c", Waiting)
		w := work(s.t, s.Store, "worker")
		e := w.take(1)[0]
		s.ok(w.settle(e, Succeed))
		s.promote()
		s.submit("d", mutexed, unique) // a is done, so it takes the claim over
		s.is("d", Waiting)
		for i := range s.segments { // look at all claims now
			for _, m := range s.rdb.ZRange(s.ctx, s.segments[i].tend(), 0, -1).Val() {
				s.ok(s.rdb.ZAdd(s.ctx, s.segments[i].tend(), z(1, m)).Err())
			}
			err := s.Tend(s.ctx, i)
			s.ok(err)
		}
		_, _, err := s.PutSchedule(s.ctx, definition("relays", time.UnixMilli(1000)))
		s.ok(err)
		home := s.scheduleSegment("relays")
		require.NotEqual(s.t, home, hashSegment("door", 5))
		due, err := readDue(s.ctx, s.Store, home, 0, 10)
		s.ok(err)
		id, _, err := fire(s.ctx, s.Store, due[0], time.Time{}, job(mutexed))
		s.ok(err)
		s.ok(s.Relay(s.ctx, home))
		s.is(id, Waiting)
	}},
}

// played runs all acts and returns what each left in Redis.
func played(t *testing.T, rdb redis.UniversalClient, hooks []any, twice bool) map[string]string {
	t.Helper()
	return playedBy(t, rdb, rdb, hooks, twice)
}

// playedBy is played with a client for the store and another one for the test.
func playedBy(t *testing.T, rdb, client redis.UniversalClient, hooks []any, twice bool) map[string]string {
	t.Helper()
	left := map[string]string{}
	for _, a := range acts {
		t.Run(a.name, func(t *testing.T) {
			ns := redistest.Namespace(t)
			knobs.Hook(client, hooks...)
			s := open(t, client, Options{Namespace: ns, Segments: a.segments})
			a.play(&stage{Store: s, t: t, ctx: t.Context(), rdb: rdb, twice: twice})
			if _, single := rdb.(*redis.Client); single {
				left[a.name] = dump(t, rdb, s)
			}
		})
	}
	return left
}

// same compares what two runs of all acts left, line by line.
func same(t *testing.T, want, got map[string]string) {
	t.Helper()
	for name := range want {
		w, g := strings.Split(want[name], "\n"), strings.Split(got[name], "\n")
		for _, line := range w {
			if !slices.Contains(g, line) {
				t.Errorf("%s: missing: %s", name, line)
			}
		}
		for _, line := range g {
			if !slices.Contains(w, line) {
				t.Errorf("%s: beyond: %s", name, line)
			}
		}
		if len(w) != len(g) {
			t.Errorf("%s: %d lines instead of %d", name, len(g), len(w))
		}
	}
}

package store

import (
	"fmt"
	"slices"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// anyID draws a job's ID, mostly of one that is there.
func (w *world) anyID(t *rapid.T) string {
	ids := append([]string{"nobody"}, modelIDs...)
	for _, j := range w.sorted(func(*modelJob) bool { return true }) {
		ids = append(ids, j.id, j.id)
	}
	return pick(t, ids, "id")
}

func (w *world) cancelOne(t *rapid.T) {
	id, reason := w.anyID(t), pick(t, []string{"no more", "", "enough"}, "reason")
	var got State
	var err error
	w.ask(func() { got, err = w.store.Cancel(w.t.Context(), id, reason) })
	want, failure := w.cancel(id, reason)
	w.failed(failure, err, "cancel %q", id)
	w.same(want, got, "state of %q before it was cancelled", id)
}

func (w *world) reviveOne(t *rapid.T) {
	id := w.anyID(t)
	var err error
	w.ask(func() { err = w.store.Revive(w.t.Context(), id) })
	w.failed(w.revive(id), err, "revive %q", id)
}

func (w *world) hurryOne(t *rapid.T) { w.hurryUp(w.anyID(t)) }

func (w *world) hurryUp(id string) {
	var err error
	w.ask(func() { err = w.store.Hurry(w.t.Context(), id) })
	w.failed(w.hurry(id), err, "hurry %q", id)
}

func (w *world) getOne(t *rapid.T) {
	id := w.anyID(t)
	var got *Job
	var err error
	w.ask(func() { got, err = w.store.Get(w.t.Context(), id) })
	j := w.jobs[id]
	if j == nil {
		w.failed(ErrNotFound, err, "get %q", id)
		return
	}
	w.failed(nil, err, "get %q", id)
	w.looks(j, got)
}

// quarantineOne puts an attempt aside whose data the worker cannot read.
func (w *world) quarantineOne(t *rapid.T) {
	e := *pick(t, w.past(t), "entry")
	if m := w.find(modelLane{e.Segment, e.Spec.Queue, e.Spec.Priority}, e.Token); m != nil && m.job.vanished {
		t.Skip("what it held cannot be known")
	}
	e.Err = fmt.Errorf("it looks strange: %w", ErrDamaged)
	var got bool
	w.ask(func() { got = w.store.Quarantine(w.t.Context(), &e) })
	w.same(w.quarantine(&e), got, "quarantine of %q", e.ID)
}

// vanishOne is somebody else's mistake: the record of a dispatched job is deleted. What the job held is given back
// when its attempt ends. (A larger job is read from its record, and in another segment nobody knows it any more.)
func (w *world) vanishOne(t *rapid.T) {
	j := pick(t, w.sorted(func(j *modelJob) bool {
		return j.state == Queued && len(j.data) < 4096 && !w.foreign(NewJob{ID: j.id, Spec: j.spec})
	}), "job")
	w.ask(func() {
		require.NoError(w.t, w.rdb.Del(w.t.Context(), w.store.segments[j.segment].record(j.id)).Err())
	})
	j.vanished = true
	delete(w.jobs, j.id)
}

func (w *world) healOne(t *rapid.T) {
	segment := rapid.IntRange(0, w.model.segments-1).Draw(t, "segment")
	var got int
	var err error
	w.ask(func() { got, _, err = w.store.HealMutexes(w.t.Context(), segment, "") })
	require.NoError(w.t, err)
	w.same(w.heal(segment), got, "mutexes freed in segment %d", segment)
}

func (w *world) trimOne(t *rapid.T) {
	segment := rapid.IntRange(0, w.model.segments-1).Draw(t, "segment")
	var got int
	var err error
	w.ask(func() { got, err = w.store.Trim(w.t.Context(), segment) })
	require.NoError(w.t, err)
	w.same(w.trim(segment), got, "entries trimmed in segment %d", segment)
}

// tendOne renews claims and gives back those of jobs that are done, neither of which may be noticed.
func (w *world) tendOne(t *rapid.T) {
	segment := rapid.IntRange(0, w.model.segments-1).Draw(t, "segment")
	w.ask(func() { require.NoError(w.t, w.store.Tend(w.t.Context(), segment)) })
}

// passTime goes on: to the next second, or beyond leases, unique keys and retentions. A life is shorter than claims
// last without being tended.
func (w *world) passTime(t *rapid.T) {
	d := pick(t, []time.Duration{time.Millisecond, time.Second, 10 * time.Second, time.Minute, time.Hour, 3 * time.Hour}, "time")
	if w.mini == nil {
		d = 2 * time.Hour
	} else if w.now+d.Milliseconds() > w.began+(40*time.Hour).Milliseconds() {
		t.Skip("a long life")
	}
	w.pass(d)
}

func (w *world) pauseOne(t *rapid.T) {
	queue, paused := pick(t, modelQueues, "queue"), rapid.Bool().Draw(t, "paused")
	w.ask(func() { require.NoError(w.t, w.store.Pause(w.t.Context(), queue, paused)) })
	if paused == w.paused[queue] {
		return
	}
	if paused {
		w.paused[queue] = true
		w.model.note(0, "paused", "")
	} else {
		delete(w.paused, queue)
		w.model.note(0, "resumed", "")
	}
}

// tick draws a planned time that is certainly past or certainly ahead.
func (w *world) tick(t *rapid.T) int64 {
	return pick(t, []int64{1000, 2000, w.began - 5000, w.began + time.Hour.Milliseconds()*100}, "tick")
}

func (w *world) putOne(t *rapid.T) {
	p := Put{
		Name: pick(t, modelSchedules, "schedule"), Group: pick(t, modelGroups, "group"),
		Definition: []byte(pick(t, []string{"daily", "hourly"}, "definition")), State: bytesOf(pick(t, modelStates, "state")),
		Same: pick(t, []bool{false, false, false, true}, "same"),
	}
	w.putMeta++
	p.Meta = fmt.Append(nil, w.putMeta)
	if next := w.tick(t); pick(t, []bool{true, true, true, false}, "planned") {
		p.Next, p.Look = time.UnixMilli(next), time.UnixMilli(next)
	}
	p.Old = w.readSchedule(p.Name)
	if read := w.readOf(p.Name); len(read) > 0 && pick(t, []bool{false, false, true}, "stale") {
		p.Old = pick(t, read, "schedule as it was read")
	}
	if p.Same && p.Old != nil {
		p.Group = p.Old.Group
	}
	var generation int64
	var done bool
	var err error
	w.ask(func() { generation, done, err = w.store.PutSchedule(w.t.Context(), p) })
	require.NoError(w.t, err)
	wantGeneration, wantDone := w.model.put(p)
	w.same(wantGeneration, generation, "generation of %q", p.Name)
	w.same(wantDone, done, "%q was stored", p.Name)
	w.readSchedule(p.Name)
}

// readSchedule is what a keeper does before it fires; it may fire much later.
func (w *world) readSchedule(name string) *Schedule {
	s, err := w.store.GetSchedule(w.t.Context(), name)
	if w.schedules[name] == nil {
		w.failed(ErrNotFound, err, "read %q", name)
		return nil
	}
	require.NoError(w.t, err)
	w.put = append(w.put, s)
	return s
}

func (w *world) readOf(name string) []*Schedule {
	return slices.DeleteFunc(slices.Clone(w.put), func(s *Schedule) bool { return s.Name != name })
}

// fireOne fires what a keeper read at any time: the current tick, one that was
// fired, one that was never planned, one of an older definition.
func (w *world) fireOne(t *rapid.T) {
	s := *pick(t, w.put, "schedule as it was read")
	if now := w.schedules[s.Name]; now != nil && now.next != 0 && rapid.IntRange(0, 2).Draw(t, "current") > 0 {
		s.Generation, s.Next, s.State = now.generation, time.UnixMilli(now.next), bytesOf(now.state)
	}
	if s.Next.IsZero() {
		t.Skip("nothing is planned")
	}
	switch pick(t, []string{"", "", "", "tick", "generation", "state"}, "wrong") {
	case "state":
		s.State = []byte("unknown")
	case "tick":
		s.Next = s.Next.Add(time.Millisecond)
	case "generation":
		s.Generation--
	}
	following := time.Time{}
	if next := pick(t, []int64{0, 1000, 60_000, 1 << 42}, "following"); next != 0 {
		following = s.Next.Add(time.Duration(min(next, 200*time.Hour.Milliseconds())) * time.Millisecond)
	}
	spec := w.spec(t)
	spec.Schedule, spec.Tick = s.Name, s.Next
	turn := tickTurn(&s, following, spec)
	turn.State, turn.Jobs[0].Watched = bytesOf(pick(t, modelStates, "state")), pick(t, []bool{false, true}, "watched")
	if pick(t, []bool{false, false, true}, "looked at again") {
		turn.Look = time.UnixMilli(w.tick(t))
	}
	for i := range pick(t, []int{0, 1, 1, 3}, "records") {
		turn.Ledger = append(turn.Ledger, LedgerEntry{s.Next.Add(time.Duration(-i) * time.Second), pick(t, []string{"fired", "skipped"}, "text")})
	}
	turns := slices.Repeat([]Turn{turn}, pick(t, []int{1, 1, 2}, "times")) // the second one comes too late
	var got []TurnResult
	w.ask(func() { got = w.store.Turns(w.t.Context(), w.store.Segment(s.Name), turns) })
	for i, r := range got {
		want, wantDone, failure := w.model.turn(turns[i])
		require.NoError(w.t, r.Err)
		w.failed(failure, r.Errs[0], "job of %q", s.Name)
		w.same(wantDone, r.Done, "turn of tick %d of %q", s.Next.UnixMilli(), s.Name)
		w.same(want.ID, r.IDs[0], "job of tick %d of %q", s.Next.UnixMilli(), s.Name)
	}
}

func (w *world) dropOne(t *rapid.T) {
	name := pick(t, modelSchedules, "schedule")
	var err error
	w.ask(func() { err = w.store.DropSchedule(w.t.Context(), name) })
	var want error
	if w.schedules[name] == nil {
		want = ErrNotFound
	}
	w.failed(want, err, "drop %q", name)
	w.model.drop(name)
}

func (w *world) parkOne(t *rapid.T) {
	name, definition := pick(t, modelSchedules, "schedule"), pick(t, []string{"daily", "hourly"}, "definition")
	var got bool
	var err error
	w.ask(func() { got, err = w.store.ParkSchedule(w.t.Context(), name, []byte(definition), "unreadable") })
	require.NoError(w.t, err)
	w.same(w.park(name, definition, "unreadable"), got, "%q was parked", name)
}

func (w *world) acquireOne(t *rapid.T) {
	name, owner := pick(t, modelLeases, "lease"), pick(t, modelInstances, "owner")
	ttl := time.Hour
	if w.mini != nil {
		ttl = pick(t, []time.Duration{time.Second, time.Minute, time.Hour}, "for")
	}
	var got *Lease
	var wait time.Duration
	var err error
	w.ask(func() { got, wait, err = w.store.Acquire(w.t.Context(), name, owner, ttl) })
	require.NoError(w.t, err)
	ok, wantWait := w.acquire(name, owner, ttl)
	w.same(ok, got != nil, "%s has lease %q", owner, name)
	if !ok {
		require.InDelta(w.t, wantWait.Milliseconds(), wait.Milliseconds(), float64(w.later-w.began)+1, "the holder's lease lapses")
		return
	}
	l := w.leases[name]
	if l.token == 0 {
		require.Greater(w.t, got.Token, l.last, "tokens of lease %q", name)
		l.token = got.Token
	}
	w.same(l.token, got.Token, "token of lease %q", name)
	w.leased = append(w.leased, got)
}

func (w *world) renewOne(t *rapid.T) {
	l := pick(t, w.leased, "lease")
	var err error
	w.ask(func() { err = w.store.Renew(w.t.Context(), l, time.Hour) })
	if !w.holds(l) {
		w.failed(ErrFenced, err, "renew %q", l.Name)
		return
	}
	w.failed(nil, err, "renew %q", l.Name)
	w.leases[l.Name].until = w.now + time.Hour.Milliseconds()
}

func (w *world) giveBack(t *rapid.T) {
	l := pick(t, w.leased, "lease")
	var err error
	w.ask(func() { err = w.store.Release(w.t.Context(), l) })
	if !w.holds(l) {
		w.failed(ErrFenced, err, "release %q", l.Name)
		return
	}
	w.failed(nil, err, "release %q", l.Name)
	w.leases[l.Name].owner = ""
}

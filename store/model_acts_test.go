package store

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Names that random jobs share, so that they meet.
var (
	modelIDs        = []string{"a", "b", "c:1", "{d}", "e e", "f~1", "g%", "h"}
	modelMutexNames = []string{"", "door", "", "gate:{1}", "door"}
	modelUniqueKeys = []string{"", "", "", "one", "two %", "three"}
	modelTags       = []string{"red", "dark blue"}
	modelSchedules  = []string{"nightly", "at: noon"}
	modelGroups     = []string{"", "reports", "a:b"}
	modelStates     = []string{"", "", "1 run", "2 runs"}
	modelLeases     = []string{"x", "y z"}
)

// acts are what can happen. Draws favour what comes first, so lives consist of
// what matters most, and the rest is there twice, in both orders.
func (w *world) acts() map[string]func(*rapid.T) {
	type act struct {
		name string
		do   func(*rapid.T)
	}
	all := []act{
		{"fetch", w.fetch}, {"settle", w.settleOne}, {"submit", w.submitOne}, {"promote", w.promoteOne},
		{"crash", w.crash}, {"reclaim", w.reclaimOne}, {"cancel", w.cancelOne}, {"pass", w.passTime},
		{"submit some", w.submitSome}, {"settle late", w.settleLate}, {"settle some", w.settleSome}, {"fetch", w.fetch},
		{"quarantine", w.quarantineOne}, {"submit", w.submitOne}, {"fire", w.fireOne}, {"schedule", w.putOne},
		{"acquire", w.acquireOne}, {"renew", w.renewOne}, {"give back", w.giveBack}, {"park", w.parkOne},
		{"drop", w.dropOne}, {"pause", w.pauseOne}, {"note", w.noteOne}, {"get", w.getOne},
	}
	others := []act{
		{"revive", w.reviveOne}, {"submit again", w.submitAgain}, {"lose a reply", w.loseReply}, {"heartbeat", w.heartbeat},
		{"hurry", w.hurryOne}, {"quarantine", w.quarantineOne}, {"leave", w.leave}, {"join", w.joinOne},
		{"trim", w.trimOne}, {"tend", w.tendOne}, {"fire", w.fireOne}, {"vanish", w.vanishOne}, {"heal", w.healOne},
	}
	all = append(all, others...)
	slices.Reverse(others)
	all = append(all, others...)
	acts := make(map[string]func(*rapid.T), len(all))
	for i, a := range all {
		acts[fmt.Sprintf("%02d %s", i, a.name)] = func(t *rapid.T) {
			a.do(t)
			w.done[a.name]++
		}
	}
	return acts
}

func (w *world) wait(t *rapid.T) time.Duration {
	if w.mini == nil {
		return pick(t, []time.Duration{0, time.Hour}, "delay")
	}
	return pick(t, []time.Duration{0, time.Second, time.Minute, time.Hour}, "delay")
}

func (w *world) instance(t *rapid.T) string { return pick(t, modelInstances, "instance") }

func (w *world) spec(t *rapid.T) *Spec {
	s := job(func(s *Spec) {
		s.Args = make([]byte, pick(t, []int{1, 1, 1, 2, 5000}, "size"))
		s.Queue = pick(t, []string{DefaultQueue, DefaultQueue, "mail"}, "queue")
		s.Priority = pick(t, []byte("nnncl"), "priority")
		s.Mutex = pick(t, modelMutexNames, "mutex")
		s.Unique = pick(t, modelUniqueKeys, "unique key")
	})
	if s.Unique != "" {
		s.UniqueFor = pick(t, []time.Duration{0, 0, time.Minute, 3 * time.Hour}, "held for")
	}
	switch pick(t, []string{"now", "now", "now", "delayed", "past", "planned"}, "start") {
	case "delayed":
		s.Delay = w.wait(t)
	case "past":
		s.RunAt = time.UnixMilli(1000)
	case "planned":
		s.RunAt = time.UnixMilli(w.now).Add(time.Hour)
	}
	s.ExpiresAt = pick(t, []time.Time{{}, {}, time.UnixMilli(1000), time.UnixMilli(w.began).Add(time.Minute), time.UnixMilli(1 << 42)}, "expires")
	if w.mini == nil && s.ExpiresAt.After(time.UnixMilli(w.began)) {
		s.ExpiresAt = time.UnixMilli(1 << 42)
	}
	s.Retain = pick(t, []time.Duration{0, 0, time.Minute, 5 * time.Hour}, "retain")
	s.Tags = slices.Clone(modelTags[:pick(t, []int{0, 1, 2}, "tags")])
	return s
}

func (w *world) submitOne(t *rapid.T) { w.submitAll([]NewJob{{ID: w.newID(t), Spec: w.spec(t)}}) }

// newID draws an ID for a submission, but none whose old entry is still there though its record vanished.
func (w *world) newID(t *rapid.T) string {
	id := pick(t, append([]string{""}, modelIDs...), "id")
	// A claim that was left behind is taken for that of a later job of the same ID:
	// a known weakness, see docs/design.md.
	for _, key := range modelUniqueKeys {
		k := w.store.segments[w.home(key)]
		if id != "" && strings.HasSuffix(w.rdb.Get(w.t.Context(), k.unique(key)).Val(), ":"+id) && w.jobs[id] == nil {
			return ""
		}
	}
	for segment := range w.model.segments {
		for _, e := range w.leftovers(segment) {
			if e.job.id == id {
				return ""
			}
		}
	}
	return id
}

func (w *world) submitSome(t *rapid.T) {
	jobs := make([]NewJob, rapid.IntRange(2, 4).Draw(t, "jobs"))
	for i := range jobs {
		jobs[i] = NewJob{ID: w.newID(t), Spec: w.spec(t)}
	}
	w.submitAll(jobs)
}

// submitAgain repeats a submission whose answer got lost, as it was or changed.
func (w *world) submitAgain(t *rapid.T) {
	j := pick(t, w.sorted(func(*modelJob) bool { return true }), "job")
	spec := *j.spec
	switch pick(t, []string{"same", "other args", "other mutex", "other spec"}, "content") {
	case "other args":
		spec.Args = []byte("other")
	case "other mutex":
		spec.Mutex = pick(t, modelMutexNames, "mutex")
	case "other spec":
		spec = *w.spec(t)
	}
	w.submitAll([]NewJob{{ID: j.id, Spec: &spec}})
}

func (w *world) submitAll(jobs []NewJob) {
	var receipts []Receipt
	var errs []error
	behind := w.leftBehind(jobs)
	w.ask(func() { receipts, errs = w.store.Submit(w.t.Context(), jobs) })
	w.t.Logf("submitted: %+v, %v", receipts, errs)
	var order, local, last []int // jobs with foreign keys go first, those that have to free a unique key last
	for i := range jobs {
		if jobs[i].ID == "" && receipts[i].Duplicate == false {
			jobs[i].ID = receipts[i].ID
			require.Nil(w.t, w.jobs[jobs[i].ID], "an ID was made twice")
		}
		switch {
		case w.foreign(jobs[i]):
			order = append(order, i)
		case behind[i]:
			last = append(last, i)
		default:
			local = append(local, i)
		}
	}
	for _, i := range slices.Concat(order, local, last) {
		if errors.Is(errs[i], ErrUnavailable) && w.foreign(jobs[i]) && w.voided(jobs[i]) {
			continue // nothing was done, as it says
		}
		fresh := jobs[i].ID == "" || !slices.Contains(modelIDs, jobs[i].ID) && w.jobs[jobs[i].ID] == nil
		want, err := w.submit(jobs[i].ID, jobs[i].Spec, fresh)
		w.failed(err, errs[i], "submit %q", jobs[i].ID)
		w.same(want, receipts[i], "receipt of %q", jobs[i].ID)
	}
}

// leftBehind tells which unique keys are in Redis though no job holds them any more.
func (w *world) leftBehind(jobs []NewJob) []bool {
	behind := make([]bool, len(jobs))
	for i, j := range jobs {
		if j.Spec.Unique == "" {
			continue
		}
		k := w.store.segments[w.home(j.Spec.Unique)]
		holder, held := w.uniques[j.Spec.Unique]
		behind[i] = w.rdb.Exists(w.t.Context(), k.unique(j.Spec.Unique)).Val() == 1 &&
			(!held || holder.until == 0 && w.jobs[holder.id] == nil)
	}
	return behind
}

// foreign reports whether a key of a new job belongs to another segment than the job.
func (w *world) foreign(j NewJob) bool {
	return w.foreignUnique(j.Spec) || slices.Contains(modelIDs, j.ID) && w.home(j.ID) != w.segmentOf(j.ID, j.Spec)
}

// voided reports whether the ID was given up in this segment a moment ago.
func (w *world) voided(j NewJob) bool {
	k := w.store.segments[w.segmentOf(j.ID, j.Spec)]
	return w.rdb.HGet(w.t.Context(), k.record(j.ID), "p").Val() == "v"
}

func (w *world) promoteOne(t *rapid.T) {
	w.promoteNow(rapid.IntRange(0, w.model.segments-1).Draw(t, "segment"))
}

func (w *world) promoteNow(segment int) {
	var got Tick
	var err error
	w.ask(func() { got, err = w.store.Promote(w.t.Context(), segment, w.report) })
	require.NoError(w.t, err)
	want := w.promote(segment)
	require.WithinRange(w.t, got.Now, time.UnixMilli(w.now), time.UnixMilli(w.later))
	got.Now = time.Time{}
	slices.Sort(got.Lapsed)
	w.same(fmt.Sprint(want), fmt.Sprint(got), "promotion of segment %d", segment)
}

func (w *world) fetch(t *rapid.T) {
	w.fetchNow(w.instance(t), pick(t, []string{DefaultQueue, DefaultQueue, "mail"}, "queue"),
		pick(t, []int{1, 2, 3, 5, plainFrom}, "n"), rapid.IntRange(0, 2).Draw(t, "share"))
}

// fetchNow takes entries: the oldest of each lane, and the more urgent lanes first except for the share. Without
// the script the last lane that is read leaves room for the others, and those below it are not read.
func (w *world) fetchNow(instance, queue string, n, share int) []*Entry {
	r := w.readers[instance][queue]
	unread, total := map[byte]int{}, 0
	for l, entries := range w.lanes {
		for _, e := range entries {
			if l.queue == queue && e.owner == "" {
				unread[l.priority]++
				total++
			}
		}
	}
	var got []*Entry
	var err error
	want, plain := min(n, total), r.plain(n)
	if last, room := len(plain)-1, n/plainRoom; last >= 0 {
		want = min(n-last*room, unread[priorities[last]])
		for _, p := range priorities[:last] {
			want += min(room, unread[p])
		}
	}
	w.ask(func() { got, _, err = r.Fetch(w.t.Context(), n, min(n, share)) })
	require.NoError(w.t, err)
	require.Len(w.t, got, want, "entries of %q", queue)
	taken := map[byte]int{}
	for _, e := range got {
		taken[w.receive(e, instance)]++
	}
	for i, p := range priorities {
		lower := 0
		for _, q := range priorities[i+1:] {
			lower += taken[q]
		}
		if plain == nil && taken[p] < unread[p] && lower > share {
			w.t.Fatalf("%d entries of lower priority than %c, of which %d are left; the share is %d", lower, p, unread[p]-taken[p], share)
		}
	}
	w.given = append(w.given, got...)
	return got
}

// receive checks an entry against the first unread one of its lane.
func (w *world) receive(e *Entry, instance string) byte {
	require.NoError(w.t, e.Err)
	lane := modelLane{e.Segment, e.Spec.Queue, e.Spec.Priority}
	for _, want := range w.lanes[lane] {
		if want.owner == "" {
			w.describes(want, e)
			want.owner = instance
			return lane.priority
		}
	}
	w.t.Fatalf("entry %s of job %q was delivered, but all of its lane were", e.entry, e.ID)
	return 0
}

func (w *world) describes(want *modelEntry, e *Entry) {
	w.same(fmt.Sprint(want.job.id, " ", want.token, " attempt ", want.attempt, "/", want.failures, "/", want.losses, " mutex ", want.mutex),
		fmt.Sprint(e.ID, " ", e.Token, " attempt ", e.Attempt, "/", e.Failures, "/", e.Losses, " mutex ", e.Mutex), "an entry")
	w.same(want.job.data, string(encodeSpec(e.Spec)), "job of an entry")
}

// loseReply delivers entries whose reply does not arrive; the instance finds them as pending, along with all it has.
func (w *world) loseReply(t *rapid.T) {
	instance, queue := w.instance(t), pick(t, modelQueues, "queue")
	before := len(w.given)
	w.fetchNow(instance, queue, rapid.IntRange(1, 3).Draw(t, "n"), 1)
	w.given = w.given[:before]
	var got []*Entry
	var err error
	w.ask(func() { got, err = w.readers[instance][queue].Pending(w.t.Context()) })
	require.NoError(w.t, err)
	var want []*modelEntry
	for l := range w.lanes {
		if l.queue == queue {
			want = append(want, w.held(l, instance)...)
		}
	}
	require.Len(w.t, got, len(want), "pending entries of %s", instance)
	for _, e := range got {
		i := slices.IndexFunc(want, func(m *modelEntry) bool { return m.job.id == e.ID && m.token == e.Token })
		require.GreaterOrEqual(w.t, i, 0, "pending entry of %q", e.ID)
		w.describes(want[i], e)
	}
	w.given = append(w.given, got...)
}

// current lists the entries whose attempts are under way.
func (w *world) current() []*Entry {
	var out []*Entry
	seen := map[*modelEntry]bool{}
	for _, e := range w.given {
		m := w.find(modelLane{e.Segment, e.Spec.Queue, e.Spec.Priority}, e.Token)
		if m != nil && !seen[m] {
			seen[m] = true
			out = append(out, e)
		}
	}
	return out
}

func (w *world) settlement(t *rapid.T, e *Entry) Settlement {
	it := Settlement{Entry: e, Outcome: pick(t, []Outcome{Succeed, Succeed, Fail, Retry, Snooze, Release, Decline, Cancel, Expire}, "outcome")}
	if it.Outcome == Expire && e.Spec.ExpiresAt.IsZero() {
		it.Outcome = Fail
	}
	if it.Outcome == Succeed {
		it.Result = []byte(pick(t, []string{"", "done"}, "result"))
	} else {
		it.Error = "because"
	}
	it.Delay = w.wait(t)
	return it
}

func (w *world) settleOne(t *rapid.T) {
	w.settleNow(w.instance(t), []Settlement{w.settlement(t, pick(t, w.current(), "entry"))})
}

func (w *world) settleSome(t *rapid.T) {
	entries := w.current()
	var batch []Settlement
	for range rapid.IntRange(2, 4).Draw(t, "n") {
		batch = append(batch, w.settlement(t, pick(t, entries, "entry"))) // some twice
	}
	w.settleNow(w.instance(t), batch)
}

// settleLate settles any attempt of the past, in the same way again or in another one.
func (w *world) settleLate(t *rapid.T) {
	it := w.settlement(t, pick(t, w.past(t), "entry"))
	if j := w.jobs[it.Entry.ID]; j != nil && pick(t, []bool{true, false}, "repeated") {
		if was, ok := j.attempts[it.Entry.Attempt]; ok && was.outcome != Lost {
			it.Outcome = was.outcome
			if it.Outcome == Expire && it.Entry.Spec.ExpiresAt.IsZero() {
				it.Outcome = Fail
			}
		}
	}
	w.settleNow(w.instance(t), []Settlement{it})
}

// past lists the attempts that can be told apart.
func (w *world) past(t *rapid.T) []*Entry {
	past := slices.DeleteFunc(slices.Clone(w.given), w.confused)
	if len(past) == 0 {
		t.Skip("there is none")
	}
	return past
}

// confused tells whether a job of the same ID has the same token in another
// stream, which only a clock that stands still can give it.
func (w *world) confused(e *Entry) bool {
	j := w.jobs[e.ID]
	return j != nil && j.segment == e.Segment && j.entry != nil && j.entry.token == e.Token &&
		w.find(modelLane{e.Segment, e.Spec.Queue, e.Spec.Priority}, e.Token) == nil
}

func (w *world) settleNow(instance string, batch []Settlement) {
	var cancelled []bool
	var errs []error
	w.ask(func() { cancelled, errs = w.store.Settle(w.t.Context(), instance, batch) })
	for segment := range w.model.segments {
		var freed []string
		var here []int
		for i, it := range batch {
			if it.Entry.Segment == segment {
				here = append(here, i)
			}
		}
		plain, others := separate(batch, here)
		for _, i := range append(plain, others...) {
			it := batch[i]
			want, mutex, err := w.settle(instance, it)
			w.failed(err, errs[i], "settle %q as %c", it.Entry.ID, it.Outcome)
			w.same(want, cancelled[i], "cancelled %q", it.Entry.ID)
			if mutex != "" {
				freed = append(freed, mutex)
			}
		}
		for _, name := range freed {
			w.grant(name)
		}
	}
}

func (w *world) noteOne(t *rapid.T) {
	e, text := pick(t, w.given, "entry"), pick(t, []string{"half", "most"}, "progress")
	var err error
	w.ask(func() { err = w.store.Note(w.t.Context(), e, true, []byte(text)) })
	j := w.jobs[e.ID]
	if j == nil || j.segment != e.Segment || j.entry == nil || j.entry.token != e.Token {
		w.failed(ErrFenced, err, "progress of %q", e.ID)
		return
	}
	w.failed(nil, err, "progress of %q", e.ID)
	j.progress = text
}

func (w *world) heartbeat(t *rapid.T) {
	instance := w.instance(t)
	known := rapid.IntRange(0, 2).Draw(t, "known")
	counts := map[string]int{}
	missed := false
	var cancelled []string
	var dead []int
	for segment := range w.model.segments {
		until, ok := w.workers[segment][instance]
		alive := ok && until > 0
		if !alive {
			dead = append(dead, segment)
		}
		for _, p := range priorities {
			for _, queue := range modelQueues {
				l := modelLane{segment, queue, p}
				counts[w.store.segments[segment].stream(queue, p)] = known
				missed = missed || alive && len(w.held(l, instance)) > known
				for _, e := range w.lanes[l] {
					if e.owner != "" && e.job.cancelled() {
						cancelled = append(cancelled, e.job.id)
					}
				}
			}
		}
	}
	var got Pulse
	var errs []error
	heard := w.heard[instance]
	w.ask(func() {
		got, errs = w.store.Heartbeat(w.t.Context(), instance, modelLeaseTTL, modelQueues, 1, counts, heard.Census)
	})
	require.NoError(w.t, Distinct(errs))
	var live []string
	for segment, workers := range w.workers {
		if until, ok := workers[instance]; ok && until > 0 {
			workers[instance] = w.now + modelLeaseTTL.Milliseconds()
		}
		for name, until := range workers {
			if segment == 0 && until >= w.now {
				live = append(live, name)
			}
		}
	}
	w.same(dead, got.Dead, "segments that declared %s dead", instance)
	w.same(missed, got.Missed, "missed entries of %s", instance)
	assert.ElementsMatch(w.t, cancelled, got.Cancelled, "cancelled jobs")
	if heard.Census == "" || got.Census != heard.Census {
		w.heard[instance] = got
	} else {
		assert.Empty(w.t, got.Live, "what was heard before")
	}
	assert.ElementsMatch(w.t, live, w.heard[instance].Live, "live instances")
	assert.ElementsMatch(w.t, slices.Collect(maps.Keys(w.paused)), got.Paused, "paused queues")
}

func (w *world) crash(t *rapid.T) { w.lapse(w.instance(t)) }

// lapse ends the leases of an instance.
func (w *world) lapse(instance string) {
	w.move(w.clock())
	for segment, k := range w.store.segments {
		if until, ok := w.workers[segment][instance]; ok && until > w.now {
			require.NoError(w.t, w.rdb.ZAdd(w.t.Context(), k.workers(), z(float64(w.now), instance)).Err())
			w.workers[segment][instance] = w.now
		}
	}
	w.later = w.now
	for w.mini == nil && w.later == w.now {
		w.later = w.clock() // until the lease's end is in the past
	}
}

func (w *world) reclaimOne(t *rapid.T) {
	w.takeOver(rapid.IntRange(0, w.model.segments-1).Draw(t, "segment"), w.instance(t))
}

func (w *world) takeOver(segment int, instance string) {
	order, err := w.store.Queues(w.t.Context())
	require.NoError(w.t, err)
	var got Reclaimed
	w.ask(func() {
		got, err = w.store.Reclaim(w.t.Context(), segment, instance, modelLossLimit, func(id string, err error) {
			if w.jobs[id] != nil {
				w.report(id, err)
			}
		})
	})
	require.NoError(w.t, err)
	w.same(w.reclaim(segment, instance, order), got, "reclaim of %s in segment %d", instance, segment)
}

// leave ends an instance in order; what it still has is reclaimed by the others.
func (w *world) leave(t *rapid.T) {
	instance := w.instance(t)
	var err error
	w.ask(func() { err = w.store.Leave(w.t.Context(), instance, modelQueues) })
	require.NoError(w.t, err)
	for segment, workers := range w.workers {
		pending := false
		for l := range w.lanes {
			pending = pending || l.segment == segment && len(w.held(l, instance)) > 0
		}
		if _, known := workers[instance]; known && pending {
			workers[instance] = 0
		} else {
			delete(workers, instance)
		}
	}
}

func (w *world) joinOne(t *rapid.T) { w.join(w.instance(t)) }

func (w *world) join(instance string) {
	var err error
	w.ask(func() { _, err = w.store.Join(w.t.Context(), instance, modelLeaseTTL, []byte("{}"), modelQueues) })
	require.NoError(w.t, err)
	for segment := range w.workers {
		w.workers[segment][instance] = w.now + modelLeaseTTL.Milliseconds()
	}
}

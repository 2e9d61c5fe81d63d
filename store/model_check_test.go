package store

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sight is what Redis holds in one segment, as commands of the test see it.
type sight struct {
	due, workers, plan *redis.ZSliceCmd
	wait, grant        *redis.StringSliceCmd
	cancels            *redis.StringSliceCmd
	relay              *redis.IntCmd
	events             *redis.XMessageSliceCmd
	histories          map[State]*redis.XMessageSliceCmd
	lanes              map[modelLane]*redis.XMessageSliceCmd
	pending            map[modelLane]*redis.XPendingExtCmd
	tags               map[string]*redis.StringSliceCmd
}

func (w *world) look(segment int) sight {
	ctx, k := w.t.Context(), w.store.segments[segment]
	s := sight{
		histories: map[State]*redis.XMessageSliceCmd{}, lanes: map[modelLane]*redis.XMessageSliceCmd{},
		pending: map[modelLane]*redis.XPendingExtCmd{}, tags: map[string]*redis.StringSliceCmd{},
	}
	_, err := w.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		s.due, s.workers, s.plan = p.ZRangeWithScores(ctx, k.due(), 0, -1), p.ZRangeWithScores(ctx, k.workers(), 0, -1), p.ZRangeWithScores(ctx, k.plan(), 0, -1)
		s.wait, s.grant, s.cancels = p.ZRange(ctx, k.wait(), 0, -1), p.ZRange(ctx, k.grant(), 0, -1), p.HKeys(ctx, k.cancels())
		s.relay, s.events = p.HLen(ctx, k.relay()), p.XRange(ctx, k.events(), "-", "+")
		for _, state := range FinalStates {
			s.histories[state] = p.XRange(ctx, k.history(state), "-", "+")
		}
		for _, queue := range modelQueues {
			for _, priority := range priorities {
				l, stream := modelLane{segment, queue, priority}, k.stream(queue, priority)
				s.lanes[l] = p.XRange(ctx, stream, "-", "+")
				s.pending[l] = p.XPendingExt(ctx, &redis.XPendingExtArgs{Stream: stream, Group: group, Start: "-", End: "+", Count: 1000})
			}
		}
		for _, tag := range modelTags {
			s.tags[tag] = p.SMembers(ctx, k.tag(tag))
		}
		return nil
	})
	require.NoError(w.t, err)
	return s
}

// check compares everything. What only Redis can know, as tokens, the model
// takes over when it is as it must be: larger than before.
func (w *world) check() {
	for segment := range w.model.segments {
		s := w.look(segment)
		for l := range s.lanes {
			w.checkLane(l, s.lanes[l].Val(), s.pending[l].Val())
		}
		w.checkDue(segment, s.due.Val())
		w.checkMutexes(segment, s)
		w.checkWorkers(segment, s.workers.Val())
		w.checkLogs(segment, s)
		w.checkPlan(segment, s.plan.Val())
		w.same(int64(0), s.relay.Val(), "relayed jobs that are left")
		w.checkJobs(segment, s)
	}
	w.checkUniques()
	w.checkCounts()
}

// checkLane compares a stream: the order of its entries, and who has read them.
func (w *world) checkLane(l modelLane, got []redis.XMessage, pending []redis.XPendingExt) {
	owners := map[string]string{}
	for _, p := range pending {
		owners[p.ID] = p.Consumer
	}
	want := w.lanes[l]
	require.Len(w.t, got, len(want), "entries of %v", l)
	require.Len(w.t, pending, len(slices.DeleteFunc(slices.Clone(want), func(e *modelEntry) bool { return e.owner == "" })), "pending entries of %v", l)
	for i, e := range want {
		token, err := Token(got[i].ID)
		require.NoError(w.t, err)
		_, _, id, _, _ := cutEntry(text(got[i].Values[entryField]))
		w.same(e.job.id, id, "entry %d of %v", i, l)
		w.same(e.owner, owners[got[i].ID], "who has entry %d of %v", i, l)
		if e.token == 0 {
			require.Greater(w.t, token, e.job.token, "tokens of job %q", e.job.id)
			e.token, e.job.token = token, token
		}
		w.same(e.token, token, "token of entry %d of %v", i, l)
	}
}

func (w *world) checkDue(segment int, got []redis.Z) {
	scores := map[any]int64{}
	var members []string
	for _, z := range got {
		scores[z.Member] = int64(z.Score)
		members = append(members, fmt.Sprint(z.Member))
	}
	for _, j := range w.planned(segment) {
		at, ok := scores[j.ref()]
		require.True(w.t, ok, "job %q is not in due", j.id)
		w.about(&j.due, at, "start of %q", j.id)
	}
	var want []string
	for _, j := range w.planned(segment) {
		want = append(want, j.ref())
	}
	w.same(want, members, "due jobs of segment %d", segment)
}

func (w *world) checkMutexes(segment int, s sight) {
	waiting := map[string][]string{}
	for _, member := range s.wait.Val() {
		r, err := parseWaiter(member)
		require.NoError(w.t, err)
		waiting[r.mutex] = append(waiting[r.mutex], r.id)
	}
	var granting []string
	for _, name := range s.grant.Val() {
		mutex, ok := unescape(name)
		require.True(w.t, ok)
		granting = append(granting, mutex)
	}
	assert.ElementsMatch(w.t, w.granting[segment], granting, "mutexes to be granted")
	w.granting[segment] = granting
	for _, name := range sortedKeys(w.mutexes) {
		x := w.mutexes[name]
		if x.segment != segment {
			continue
		}
		w.same(fmt.Sprint(x.waiters), fmt.Sprint(waiting[name]), "who waits for %q", name)
		delete(waiting, name)
		held := w.rdb.HMGet(w.t.Context(), w.store.segments[segment].mutex(name), "h", "t").Val()
		w.same(x.holder, text(held[0]), "who has mutex %q", name)
		token := uint64(number(held[1]))
		switch {
		case x.minted:
			require.Greater(w.t, token, x.token, "tokens of mutex %q", name)
			x.token, x.minted = token, false
		case token != 0 || x.holder != "": // a free one is forgotten
			w.same(x.token, token, "token of mutex %q", name)
		}
		if j := w.jobs[x.holder]; j != nil && j.entry != nil && j.entry.mutex == 0 {
			j.entry.mutex = token
		}
	}
	require.Empty(w.t, waiting, "waiters of other mutexes")
}

func (w *world) checkWorkers(segment int, got []redis.Z) {
	require.Len(w.t, got, len(w.workers[segment]), "instances of segment %d", segment)
	for _, z := range got {
		name := fmt.Sprint(z.Member)
		until, ok := w.workers[segment][name]
		require.True(w.t, ok, "%s has a lease", name)
		w.about(&until, int64(z.Score), "lease of %s", name)
		w.workers[segment][name] = until
	}
}

// checkLogs compares histories and events.
func (w *world) checkLogs(segment int, s sight) {
	compare := func(log *modelLog, got []redis.XMessage, what string) {
		require.Len(w.t, got, len(log.marks), what)
		for i, mark := range log.marks {
			w.same(mark.what+" "+mark.id, fmt.Sprint(text(got[i].Values["t"]), " ", got[i].Values["i"]), "%s %d", what, i)
			w.about(&mark.at, entryTime(got[i].ID).UnixMilli(), "%s %d", what, i)
		}
	}
	for _, state := range FinalStates {
		compare(w.histories[segment][state], s.histories[state].Val(), "history of "+string(state))
	}
	compare(w.events[segment], s.events.Val(), "events")
}

func (w *world) checkPlan(segment int, got []redis.Z) {
	planned := map[string]int64{}
	for _, z := range got {
		planned[fmt.Sprint(z.Member)] = int64(z.Score)
	}
	want := map[string]int64{}
	for name, s := range w.schedules {
		if hashSegment(name, w.model.segments) != segment {
			continue
		}
		if s.look != 0 {
			want[name] = s.look
		}
		got, err := w.store.GetSchedule(w.t.Context(), name)
		require.NoError(w.t, err)
		at := func(ms int64) time.Time {
			if ms == 0 {
				return time.Time{}
			}
			return time.UnixMilli(ms)
		}
		w.same(Schedule{
			name, s.group, []byte(s.definition), bytesOf(s.state), s.generation, at(s.next), at(s.look), at(s.last), s.parked,
		}, *got, "schedule %q", name)
	}
	for _, name := range modelSchedules {
		versions, err := w.store.Versions(w.t.Context(), name)
		require.NoError(w.t, err)
		if len(w.versions[name])+len(versions) > 0 {
			w.same(w.versions[name], versions, "versions of %q", name)
		}
		recorded, err := w.store.Ledger(w.t.Context(), name, time.Time{}, time.Time{}, 0)
		require.NoError(w.t, err)
		texts := map[int64]string{}
		for _, e := range recorded {
			texts[e.Tick.UnixMilli()] = e.Text
		}
		kept := map[int64]string{}
		if l := w.ledgers[name]; l != nil {
			for tick, text := range l.texts {
				if tick >= w.now-modelLedger.Age.Milliseconds() {
					kept[tick] = text
				}
			}
		}
		w.same(kept, texts, "ledger of %q", name)
	}
	for _, group := range modelGroups[1:] {
		var members []string
		for _, name := range sortedKeys(w.schedules) {
			if w.schedules[name].group == group {
				members = append(members, name)
			}
		}
		got, err := w.store.GroupMembers(w.t.Context(), group)
		require.NoError(w.t, err)
		w.same(members, got, "members of %q", group)
	}
	w.same(want, planned, "planned ticks of segment %d", segment)
}

// checkJobs compares the records of a segment's jobs, and what lists jobs besides the structures.
func (w *world) checkJobs(segment int, s sight) {
	here := w.sorted(func(j *modelJob) bool { return j.segment == segment })
	var cancels []string
	tagged := map[string][]string{}
	ids := make([]string, len(here))
	for i, j := range here {
		ids[i] = j.id
		if j.state == Queued && j.cancelled() {
			cancels = append(cancels, j.id)
		}
		for _, tag := range j.spec.Tags {
			if !j.state.Final() {
				tagged[tag] = append(tagged[tag], j.id)
			}
		}
	}
	for _, e := range w.leftovers(segment) { // until its attempt ends
		if e.job.cancelled() {
			cancels = append(cancels, e.job.id)
		}
		for _, tag := range e.job.spec.Tags {
			tagged[tag] = append(tagged[tag], e.job.id)
		}
	}
	assert.ElementsMatch(w.t, cancels, s.cancels.Val(), "jobs to be cancelled")
	for _, tag := range modelTags {
		assert.ElementsMatch(w.t, tagged[tag], s.tags[tag].Val(), "jobs tagged %q", tag)
	}
	if len(ids) == 0 {
		return
	}
	jobs, errs, err := w.store.loadMany(w.t.Context(), segment, ids)
	require.NoError(w.t, err)
	for i, j := range here {
		require.NoError(w.t, errs[i], "job %q", j.id)
		w.looks(j, jobs[i])
		if home := w.home(j.id); home != segment && slices.Contains(modelIDs, j.id) {
			at, _, id, err := parseHolder(w.rdb.Get(w.t.Context(), w.store.segments[home].locator(j.id)).Val())
			require.NoError(w.t, err, "locator of %q", j.id)
			w.same(fmt.Sprint(segment, id), fmt.Sprint(at, j.id), "locator")
		}
	}
}

// looks compares a job with what the store says of it.
func (w *world) looks(j *modelJob, got *Job) {
	if j.submitted != got.SubmittedAt.UnixMilli() {
		w.about(&j.submitted, got.SubmittedAt.UnixMilli(), "submission of %q", j.id)
	}
	want := Job{
		ID: j.id, State: j.state, SubmittedAt: time.UnixMilli(j.submitted), Count: j.count, Failures: j.failures, Losses: j.losses,
		Cancelled: j.cancelled(), Reason: j.reason(), Result: bytesOf(j.result), Progress: bytesOf(j.progress),
	}
	switch {
	case j.running():
		want.State = Running
	case j.state == Scheduled || j.state == Retrying:
		want.DueAt = time.UnixMilli(j.due)
	case j.state.Final():
		want.FinishedAt = time.UnixMilli(j.mark.at)
	}
	describe := func(j *Job, attempts []string) string {
		return fmt.Sprintf("%s %s count %d failures %d losses %d cancelled %v reason %q result %q progress %q due %d finished %d\n%s",
			j.ID, j.State, j.Count, j.Failures, j.Losses, j.Cancelled, j.Reason, j.Result, j.Progress,
			j.DueAt.UnixMilli(), j.FinishedAt.UnixMilli(), strings.Join(attempts, "\n"))
	}
	attempt := func(n int, token uint64, o Outcome, instance, err string) string {
		return fmt.Sprintf("attempt %d token %d ended %q at %s: %s", n, token, o, instance, err)
	}
	var wanted, found []string
	for n := 1; n <= j.count; n++ {
		if a, ok := j.attempts[n]; ok && n >= j.count-attemptsKept {
			wanted = append(wanted, attempt(n, a.token, a.outcome, a.instance, a.err))
		}
	}
	if j.running() {
		wanted = append(wanted, attempt(j.count, j.entry.token, Underway, j.entry.owner, ""))
	}
	for _, a := range got.Attempts {
		found = append(found, attempt(a.Number, a.Token, a.Outcome, a.Instance, a.Error))
	}
	w.same(describe(&want, wanted), describe(got, found), "job %q", j.id)
	w.same(j.data, string(encodeSpec(got.Spec)), "content of %q", j.id)
}

// checkUniques compares who holds each unique key, directly or by a claim.
func (w *world) checkUniques() {
	for _, key := range modelUniqueKeys {
		if key == "" {
			continue
		}
		value := w.rdb.Get(w.t.Context(), w.store.segments[hashSegment(key, w.model.segments)].unique(key)).Val()
		_, _, id, err := parseHolder(value)
		foreign := err == nil
		if !foreign {
			id = value
		}
		hold, held := w.uniques[key]
		if held && id != hold.id && hold.until == 0 && w.jobs[hold.id] == nil { // freed by whoever ran into a vanished job's key
			delete(w.uniques, key)
			hold, held = modelHold{}, false
		}
		if !held && foreign {
			continue // a claim is seen through when its job is done
		}
		w.same(hold.id, id, "who has unique key %q", key)
	}
}

// checkCounts compares the numbers that Counts gives.
func (w *world) checkCounts() {
	got, err := w.store.Counts(w.t.Context())
	require.NoError(w.t, err)
	want := map[State]int{}
	queues := map[string]QueueCount{}
	for _, j := range w.jobs { // histories count final ones, also when the record is forgotten
		switch j.state {
		case Retrying:
			want[Scheduled]++
		case Scheduled, Waiting:
			want[j.state]++
		}
	}
	for l, entries := range w.lanes {
		q := queues[l.queue]
		for _, e := range entries {
			if e.owner != "" {
				q.Running++
				want[Running]++
			} else {
				q.Queued++
				want[Queued]++
			}
		}
		queues[l.queue] = q
	}
	for _, h := range w.histories {
		for state, log := range h {
			want[state] += len(log.marks)
		}
	}
	for _, queue := range modelQueues {
		q := queues[queue]
		q.Paused = w.paused[queue]
		w.same(q, got.Queues[queue], "counts of queue %q", queue)
	}
	for _, state := range States {
		w.same(want[state], got.States[state], "number of %s jobs", state)
	}
}

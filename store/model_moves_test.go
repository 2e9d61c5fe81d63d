package store

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// modelLossLimit is how many lost workers end a job.
const modelLossLimit = 3

// submit stores a job, or tells why not. fresh says that the ID was made for it.
func (m *model) submit(id string, spec *Spec, fresh bool) (Receipt, error) {
	data, segment := string(encodeSpec(spec)), m.segmentOf(id, spec)
	holder, held := m.uniques[spec.Unique]
	held = held && spec.Unique != "" && (holder.until != 0 || m.jobs[holder.id] != nil) // or its job vanished
	if j := m.jobs[id]; j != nil {
		// A foreign unique key is claimed before the job is looked at.
		if held && holder.id != id && m.foreignUnique(spec) && (j.segment == segment || m.home(id) == segment) {
			return Receipt{holder.id, true}, nil
		}
		if j.data != data {
			return Receipt{ID: id}, ErrConflict
		}
		return Receipt{id, !fresh}, nil
	}
	if held {
		return Receipt{holder.id, true}, nil
	}
	j := &modelJob{id: id, spec: spec, data: data, segment: segment, submitted: m.now, attempts: map[int]modelAttempt{}}
	m.jobs[id] = j
	if spec.Unique != "" {
		m.uniques[spec.Unique] = modelHold{id: id}
	}
	switch {
	case !spec.RunAt.IsZero():
		j.state, j.due = Scheduled, max(1, spec.RunAt.UnixMilli())
	case spec.Delay > 0:
		j.state, j.due = Scheduled, m.now+spec.Delay.Milliseconds()
	default:
		m.start(j)
	}
	return Receipt{ID: id}, nil
}

// start dispatches a job, or lets it wait for its mutex.
func (m *model) start(j *modelJob) {
	if j.spec.Mutex == "" {
		m.dispatch(j)
		return
	}
	x := m.mutex(j.spec.Mutex)
	if x.holder == "" && len(x.waiters) == 0 {
		m.take(x, j)
		return
	}
	j.state, j.entry = Waiting, nil
	x.waiters = append(x.waiters, j.id)
	if x.holder == "" {
		m.toGrant(x.segment, j.spec.Mutex)
	}
}

// take gives a mutex to a job and dispatches it.
func (m *model) take(x *modelMutex, j *modelJob) {
	x.holder, x.minted = j.id, true
	m.dispatch(j)
}

func (m *model) dispatch(j *modelJob) {
	j.count++
	j.state = Queued
	j.entry = &modelEntry{job: j, attempt: j.count, failures: j.failures, losses: j.losses}
	m.lanes[j.lane()] = append(m.lanes[j.lane()], j.entry)
}

// withdraw takes a job's entry away.
func (m *model) withdraw(j *modelJob) {
	m.lanes[j.lane()] = slices.DeleteFunc(m.lanes[j.lane()], func(e *modelEntry) bool { return e == j.entry })
	j.entry = nil
}

// free ends a job's hold of its mutex. It reports whether others wait for it.
func (m *model) free(j *modelJob) bool {
	if j.spec.Mutex == "" {
		return false
	}
	x := m.mutex(j.spec.Mutex)
	if x.holder != j.id {
		return false
	}
	x.holder = ""
	if len(x.waiters) > 0 {
		m.toGrant(x.segment, j.spec.Mutex)
	}
	return len(x.waiters) > 0
}

func (m *model) toGrant(segment int, name string) {
	if !slices.Contains(m.granting[segment], name) {
		m.granting[segment] = append(m.granting[segment], name)
	}
}

// grant gives a free mutex to the first who waits.
func (m *model) grant(name string) {
	x := m.mutex(name)
	m.granting[x.segment] = slices.DeleteFunc(m.granting[x.segment], func(n string) bool { return n == name })
	if x.holder == "" && len(x.waiters) > 0 {
		first := m.jobs[x.waiters[0]]
		x.waiters = x.waiters[1:]
		m.take(x, first)
	}
}

// finish makes a job final. It reports whether its mutex is to be granted.
func (m *model) finish(j *modelJob, state State, ttl time.Duration) bool {
	age := m.retention[state].Age
	if ttl == 0 {
		ttl = age
	}
	j.state, j.entry = state, nil
	j.mark = m.histories[j.segment][state].add("", j.id, m.now, age)
	j.gone = m.now + ttl.Milliseconds()
	if h := m.uniques[j.spec.Unique]; j.spec.Unique != "" && h.id == j.id {
		h.until = j.submitted + j.spec.UniqueFor.Milliseconds()
		m.uniques[j.spec.Unique] = h
		if h.until <= m.now || j.spec.UniqueFor == 0 {
			delete(m.uniques, j.spec.Unique)
		}
	}
	return m.free(j)
}

// promote moves a segment's due jobs, and grants mutexes before and after that.
func (m *model) promote(segment int) Tick {
	t := Tick{NextDue: time.Time{}}
	m.grantAll(segment)
	for _, j := range m.planned(segment) {
		if j.due > m.now {
			t.NextDue = time.UnixMilli(j.due)
			break
		}
		t.Promoted++
		m.start(j)
	}
	m.grantAll(segment)
	for name, s := range m.schedules {
		next := time.UnixMilli(s.look)
		if s.look != 0 && hashSegment(name, m.segments) == segment && (t.NextTick.IsZero() || next.Before(t.NextTick)) {
			t.NextTick = next
		}
	}
	for instance, until := range m.workers[segment] {
		if until <= m.now {
			t.Lapsed = append(t.Lapsed, instance)
		}
	}
	slices.Sort(t.Lapsed)
	return t
}

func (m *model) grantAll(segment int) {
	for _, name := range slices.Clone(m.granting[segment]) {
		m.grant(name)
	}
}

// letters of outcomes that end in a final state.
var modelEnds = map[Outcome]State{Succeed: Succeeded, Fail: Failed, Cancel: Cancelled, Expire: Expired}

// settle ends an attempt. freed is the mutex that is to be granted, if any.
func (m *model) settle(instance string, it Settlement) (cancelled bool, freed string, err error) {
	e := it.Entry
	if it.Outcome == Expire && e.Spec.ExpiresAt.UnixMilli() > m.now {
		return false, "", ErrState
	}
	lane := modelLane{e.Segment, e.Spec.Queue, e.Spec.Priority}
	entry := m.find(lane, e.Token)
	if entry == nil {
		j := m.jobs[e.ID]
		if j == nil || j.segment != e.Segment { // the job of that ID is another one
			return false, "", ErrFenced
		}
		was := j.attempts[e.Attempt]
		if was.token == e.Token && (was.outcome == it.Outcome || it.Outcome == Cancel && was.outcome == Release) {
			return false, "", nil // the same again
		}
		return false, "", ErrFenced
	}
	j, outcome := entry.job, it.Outcome
	m.withdraw(j)
	if j.vanished {
		return false, m.bury(j), ErrDamaged
	}
	if outcome == Cancel && !j.cancelled() {
		outcome = Release // nobody asked for it
	}
	j.attempts[entry.attempt] = modelAttempt{e.Token, outcome, instance, it.Error}
	delete(j.attempts, entry.attempt-attemptsKept)
	if len(it.Result) > 0 {
		j.result = string(it.Result)
	}
	if outcome == Fail || outcome == Retry {
		j.failures++
	}
	if j.cancelled() && outcome != Succeed && outcome != Expire {
		cancelled, outcome = true, Cancel
	}
	again := false
	if state, final := modelEnds[outcome]; final {
		again = m.finish(j, state, j.spec.Retain)
	} else if outcome == Release {
		m.release(j)
	} else {
		j.state, j.due = Scheduled, m.now+it.Delay.Milliseconds()
		if outcome == Retry {
			j.state = Retrying
			m.note(j.segment, "retrying", j.id)
		}
		again = m.free(j)
	}
	if again {
		freed = j.spec.Mutex
	}
	return cancelled, freed, nil
}

// bury gives back what a job held whose record is gone. It answers the mutex that is to be granted.
func (m *model) bury(j *modelJob) (freed string) {
	m.note(j.segment, "quarantined", j.id)
	if m.uniques[j.spec.Unique].id == j.id {
		delete(m.uniques, j.spec.Unique)
	}
	if m.free(j) {
		freed = j.spec.Mutex
	}
	return freed
}

// heal frees the mutexes of a segment for which jobs wait though the holder's record is gone.
func (m *model) heal(segment int) (freed int) {
	for _, e := range m.leftovers(segment) {
		if x := e.job.spec.Mutex; x != "" && len(m.mutex(x).waiters) > 0 && m.free(e.job) {
			freed++
		}
	}
	return freed
}

// release dispatches a job anew, which keeps its mutex under a new token.
func (m *model) release(j *modelJob) {
	if j.spec.Mutex == "" {
		m.dispatch(j)
		return
	}
	m.take(m.mutex(j.spec.Mutex), j)
}

// reclaim takes a lapsed instance's work. order is the order of its queues.
func (m *model) reclaim(segment int, instance string, order []string) Reclaimed {
	var done Reclaimed
	lease, known := m.workers[segment][instance]
	alive := known && lease > m.now
	for _, p := range priorities {
		for _, queue := range order {
			var freed []string
			for _, e := range m.held(modelLane{segment, queue, p}, instance) {
				if alive {
					done.Alive = true
					return done
				}
				charged := known && int64(e.token>>20) <= lease
				var name string
				if e.job.vanished {
					m.withdraw(e.job)
					name = m.bury(e.job)
					done.Broken++
				} else if name = m.lose(e, instance, charged); e.job.state.Final() {
					done.Ended++
				} else {
					done.Again++
				}
				if name != "" {
					freed = append(freed, name)
				}
			}
			for _, name := range freed {
				m.grant(name)
			}
		}
	}
	if !alive {
		delete(m.workers[segment], instance)
	}
	return done
}

// lose takes one entry from a lost instance. It answers the mutex that is to be granted.
func (m *model) lose(e *modelEntry, instance string, charged bool) (freed string) {
	j, again := e.job, false
	m.withdraw(j)
	if charged {
		j.losses++
	}
	j.attempts[e.attempt] = modelAttempt{e.token, Lost, instance, "the worker was lost"}
	switch {
	case j.cancelled():
		again = m.finish(j, Cancelled, j.spec.Retain)
	case charged && j.losses >= modelLossLimit:
		again = m.finish(j, Failed, j.spec.Retain)
	default:
		m.release(j)
	}
	if again {
		freed = j.spec.Mutex
	}
	return freed
}

// cancel ends a job or marks it, and answers the state it was in.
func (m *model) cancel(id, reason string) (State, error) {
	j := m.jobs[id]
	switch {
	case j == nil:
		return "", ErrNotFound
	case j.state.Final():
		return j.state, nil
	case j.running():
		if j.asked == nil {
			j.asked = &reason
		}
		return Running, nil
	}
	was := j.state
	switch was {
	case Queued:
		m.withdraw(j)
	case Waiting:
		x := m.mutex(j.spec.Mutex)
		x.waiters = slices.DeleteFunc(x.waiters, func(w string) bool { return w == id })
	case Retrying:
	}
	j.asked = &reason
	if m.finish(j, Cancelled, j.spec.Retain) {
		m.grant(j.spec.Mutex)
	}
	if was == Retrying {
		return Scheduled, nil // the answer does not tell them apart
	}
	return was, nil
}

func (m *model) revive(id string) error {
	j := m.jobs[id]
	if j == nil {
		return ErrNotFound
	}
	h, held := m.uniques[j.spec.Unique]
	held = held && j.spec.Unique != "" && h.id != id && (h.until != 0 || m.jobs[h.id] != nil)
	if !j.state.Final() || j.state == Succeeded || held {
		return ErrState
	}
	log := m.histories[j.segment][j.state]
	log.marks = slices.DeleteFunc(log.marks, func(k *modelMark) bool { return k == j.mark })
	j.state, j.due, j.mark, j.gone = Scheduled, m.now, nil, 0
	j.failures, j.losses, j.asked, j.broken, j.result = 0, 0, nil, "", ""
	if j.spec.Unique != "" {
		m.uniques[j.spec.Unique] = modelHold{id: id}
	}
	m.note(j.segment, "revived", id)
	return nil
}

func (m *model) hurry(id string) error {
	j := m.jobs[id]
	switch {
	case j == nil:
		return ErrNotFound
	case j.state != Scheduled && j.state != Retrying:
		return ErrState
	}
	j.due = min(j.due, m.now)
	return nil
}

// quarantine fails the job of an entry that is still unsettled.
func (m *model) quarantine(e *Entry) bool {
	entry := m.find(modelLane{e.Segment, e.Spec.Queue, e.Spec.Priority}, e.Token)
	if entry == nil {
		return false
	}
	j := entry.job
	m.withdraw(j)
	j.broken = "quarantined: " + e.Err.Error()
	m.finish(j, Failed, m.retention[Failed].Age)
	m.note(j.segment, "quarantined", j.id)
	return true
}

// trim forgets what is beyond the bounds of a segment's histories.
func (m *model) trim(segment int) (total int) {
	for _, state := range FinalStates {
		log, bound := m.histories[segment][state], m.retention[state]
		beyond := len(log.marks) - max(1, bound.Count/m.segments)
		kept := 0
		for i, mark := range log.marks {
			aged := mark.at < m.now-bound.Age.Milliseconds()
			if i >= beyond && !aged {
				break
			}
			if j := m.jobs[mark.id]; j != nil && j.mark == mark && i < beyond {
				delete(m.jobs, mark.id)
			}
			kept = i + 1
		}
		log.marks = log.marks[kept:]
		total += kept
	}
	return total
}

// put stores a definition, unless the schedule is not as it was read.
func (m *model) put(p Put) (generation int64, done bool) {
	s := m.schedules[p.Name]
	switch {
	case (s == nil) != (p.Old == nil),
		s != nil && (s.generation != p.Old.Generation || !p.Same && (s.state != string(p.Old.State) || s.next != ms(p.Old.Next))),
		p.Same && (s == nil || s.parked != ""):
		return 0, false
	case p.Same:
		if s.definition != string(p.Definition) {
			s.definition = string(p.Definition)
			m.versions[p.Name][len(m.versions[p.Name])-1] = Version{s.generation, p.Meta, p.Definition}
		}
		return s.generation, true
	case s == nil:
		s = &modelSchedule{}
		m.schedules[p.Name] = s
	}
	s.definition, s.next, s.look, s.state, s.group, s.parked = string(p.Definition), ms(p.Next), ms(p.Look), string(p.State), p.Group, ""
	m.generations[p.Name]++
	s.generation = m.generations[p.Name]
	kept := append(m.versions[p.Name], Version{s.generation, p.Meta, p.Definition})
	m.versions[p.Name] = kept[max(0, len(kept)-versionsKept):]
	m.versionsUntil[p.Name] = 0
	return s.generation, true
}

func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// drop deletes a schedule; its versions and its ledger stay for a while.
func (m *model) drop(name string) {
	if m.schedules[name] == nil {
		return
	}
	delete(m.schedules, name)
	m.versionsUntil[name] = m.now + modelLedger.Age.Milliseconds()
	if l := m.ledgers[name]; l != nil {
		l.until = m.now + modelLedger.Age.Milliseconds()
	}
}

func (m *model) park(name, definition, reason string) bool {
	s := m.schedules[name]
	if s == nil || s.definition != definition {
		return false
	}
	was := s.look != 0
	s.look, s.parked = 0, reason
	return was
}

// turn moves a schedule on and creates the job of a tick, unless the schedule is not as it was read.
func (m *model) turn(t Turn) (r Receipt, done bool, err error) {
	name, spec, tick := t.Schedule.Name, t.Jobs[0].Spec, ms(t.Schedule.Next)
	s, segment := m.schedules[name], hashSegment(name, m.segments)
	id := fmt.Sprintf("%s~%d~%s", name, t.Schedule.Generation, t.Jobs[0].Suffix)
	if home := segment; m.segments > 1 {
		if spec.Mutex != "" || spec.Unique != "" {
			home = m.segmentOf(id, spec)
		}
		id += fmt.Sprint("~", home)
	}
	if s == nil || s.generation != t.Schedule.Generation || s.next != tick || s.state != string(t.Schedule.State) || s.parked != "" || ms(t.NotBefore) > m.now {
		return Receipt{ID: id}, false, nil
	}
	s.next, s.look, s.last, s.state = ms(t.Next), ms(t.Look), tick, string(t.State)
	m.record(name, t.Ledger)
	r, err = m.submit(id, spec, true)
	if m.segmentOf(id, spec) != segment || spec.Unique != "" {
		return Receipt{ID: id}, true, err // relayed, which does not tell of another job with its unique key
	}
	return r, true, err
}

// record keeps what became of ticks, within the bounds.
func (m *model) record(name string, entries []LedgerEntry) {
	if len(entries) == 0 {
		return
	}
	l := m.ledgers[name]
	if l == nil {
		l = &modelLedgerOf{texts: map[int64]string{}}
		m.ledgers[name] = l
	}
	for _, e := range entries {
		l.texts[ms(e.Tick)] = e.Text
	}
	l.until = m.now + modelLedger.Age.Milliseconds()
	ticks := sortedKeys(l.texts)
	for i, tick := range ticks {
		if i < len(ticks)-modelLedger.Count {
			delete(l.texts, tick)
		}
	}
}

func (m *model) acquire(name, owner string, ttl time.Duration) (ok bool, wait time.Duration) {
	l := m.leases[name]
	if l == nil {
		l = &modelLease{}
		m.leases[name] = l
	}
	if l.owner != "" && l.owner != owner {
		return false, time.Duration(l.until-m.now) * time.Millisecond
	}
	if l.owner == "" {
		l.owner, l.last, l.token = owner, max(l.last, l.token), 0
	}
	l.until = m.now + ttl.Milliseconds()
	return true, 0
}

// holds reports whether a lease is the current one.
func (m *model) holds(l *Lease) bool {
	now := m.leases[l.Name]
	return now != nil && now.owner == l.Owner && now.token == l.Token && strings.Compare(now.owner, "") > 0
}

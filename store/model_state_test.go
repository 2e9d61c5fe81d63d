package store

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// model is what a namespace should hold, in plain Go: maps and slices, no keys
// and no scripts. Its methods in model_moves_test.go are the transitions that
// docs/design.md promises. It knows nothing of the store's code but the hash
// that maps a name to a segment. Times are Redis' in ms.
type model struct {
	segments  int
	retention Retention
	now       int64 // when the last act began

	jobs      map[string]*modelJob
	lanes     map[modelLane][]*modelEntry // unsettled dispatches, in the order of their tokens
	mutexes   map[string]*modelMutex
	uniques   map[string]modelHold
	granting  [][]string            // by segment: mutexes that are to be granted
	workers   []map[string]int64    // by segment: end of each instance's lease
	histories []map[State]*modelLog // by segment
	events    []*modelLog           // by segment
	schedules map[string]*modelSchedule
	ledgers   map[string]*modelLedgerOf
	versions  map[string][]Version // also of schedules that were deleted
	leases    map[string]*modelLease
	paused    map[string]bool

	generations   map[string]int64 // the last one of each name
	versionsUntil map[string]int64 // 0: as long as the schedule
}

type modelJob struct {
	id        string
	spec      *Spec
	data      string
	segment   int
	state     State // Queued stands for Running, too; the entry knows
	submitted int64
	due       int64 // in Scheduled and Retrying
	entry     *modelEntry
	token     uint64 // of the last dispatch that was seen
	count     int
	failures  int
	losses    int
	asked     *string // reason of a cancel request
	broken    string  // why it was quarantined
	result    string
	progress  string
	attempts  map[int]modelAttempt
	mark      *modelMark // in a history
	gone      int64      // when the final record is forgotten
	vanished  bool       // somebody deleted the record; the entry is still there
}

type modelAttempt struct {
	token    uint64
	outcome  Outcome
	instance string
	err      string
}

// modelLane is one stream of dispatches.
type modelLane struct {
	segment  int
	queue    string
	priority byte
}

type modelEntry struct {
	job      *modelJob
	token    uint64 // 0 until it was seen
	attempt  int
	failures int
	losses   int
	mutex    uint64 // token of the mutex
	owner    string // instance that read it
}

type modelMutex struct {
	segment int
	holder  string
	waiters []string
	token   uint64
	minted  bool // by the last act, so the token must have grown
}

// modelHold is a unique key. It is held while its job is unfinished, and then
// until a time.
type modelHold struct {
	id    string
	until int64 // 0: the job is unfinished
}

// modelLog is a history or the stream of events.
type modelLog struct {
	marks []*modelMark
	until int64 // end of its time to live
}

type modelMark struct {
	what string // type of an event
	id   string
	at   int64
}

type modelSchedule struct {
	definition string
	generation int64
	state      string
	group      string
	next       int64 // 0: none
	look       int64 // 0: it is not in the plan
	last       int64
	parked     string
}

// modelLedgerOf is what is recorded of a schedule's ticks.
type modelLedgerOf struct {
	texts map[int64]string
	until int64
}

type modelLease struct {
	owner string
	token uint64
	until int64
	last  uint64
}

func newModel(segments int, retention Retention, now int64) *model {
	m := &model{
		segments: segments, retention: retention, now: now,
		jobs: map[string]*modelJob{}, lanes: map[modelLane][]*modelEntry{}, mutexes: map[string]*modelMutex{},
		uniques: map[string]modelHold{}, granting: make([][]string, segments), schedules: map[string]*modelSchedule{},
		leases: map[string]*modelLease{}, paused: map[string]bool{}, ledgers: map[string]*modelLedgerOf{},
		versions: map[string][]Version{}, generations: map[string]int64{}, versionsUntil: map[string]int64{},
	}
	for range segments {
		m.workers = append(m.workers, map[string]int64{})
		m.events = append(m.events, &modelLog{})
		m.histories = append(m.histories, map[State]*modelLog{})
	}
	for _, h := range m.histories {
		for _, state := range FinalStates {
			h[state] = &modelLog{}
		}
	}
	return m
}

// move lets time pass: what has a time to live ends with it.
func (m *model) move(now int64) {
	m.now = now
	for id, j := range m.jobs {
		if j.state.Final() && j.gone <= now {
			delete(m.jobs, id)
		}
	}
	for _, log := range m.logs() {
		if log.until <= now {
			log.marks = nil
		}
	}
	for name, l := range m.ledgers {
		if l.until <= now {
			delete(m.ledgers, name)
		}
	}
	for name, until := range m.versionsUntil {
		if until != 0 && until <= now {
			delete(m.versions, name)
			delete(m.generations, name)
			delete(m.versionsUntil, name)
		}
	}
	for key, h := range m.uniques {
		if h.until != 0 && h.until <= now {
			delete(m.uniques, key)
		}
	}
	for _, l := range m.leases {
		if l.until <= now {
			l.owner = ""
		}
	}
}

func (m *model) logs() []*modelLog {
	logs := slices.Clone(m.events)
	for _, h := range m.histories {
		for _, state := range FinalStates {
			logs = append(logs, h[state])
		}
	}
	return logs
}

// note adds an event.
func (m *model) note(segment int, what, id string) {
	m.events[segment].add(what, id, m.now, m.retention[Failed].Age)
}

func (l *modelLog) add(what, id string, now int64, age time.Duration) *modelMark {
	mark := &modelMark{what, id, now}
	l.marks = append(l.marks, mark)
	l.until = now + age.Milliseconds()
	return mark
}

// home is the segment that an ID leads to.
func (m *model) home(id string) int {
	for n := range m.segments {
		if m.segments > 1 && len(id) > 2 && id[len(id)-2:] == fmt.Sprint("~", n) {
			return n
		}
	}
	return hashSegment(id, m.segments)
}

// segmentOf is where a job lives.
func (m *model) segmentOf(id string, spec *Spec) int {
	if affinity := cmp.Or(spec.Mutex, spec.Unique); affinity != "" {
		return hashSegment(affinity, m.segments)
	}
	return m.home(id)
}

// foreignUnique reports whether the unique key belongs to another segment than the job.
func (m *model) foreignUnique(spec *Spec) bool {
	return spec.Unique != "" && spec.Mutex != "" && hashSegment(spec.Unique, m.segments) != hashSegment(spec.Mutex, m.segments)
}

func (m *model) mutex(name string) *modelMutex {
	if m.mutexes[name] == nil {
		m.mutexes[name] = &modelMutex{segment: hashSegment(name, m.segments)}
	}
	return m.mutexes[name]
}

func (j *modelJob) lane() modelLane { return modelLane{j.segment, j.spec.Queue, j.spec.Priority} }

// running reports whether a worker has the job.
func (j *modelJob) running() bool { return j.state == Queued && j.entry.owner != "" }

func (j *modelJob) cancelled() bool { return j.asked != nil }

func (j *modelJob) reason() string {
	if j.asked != nil {
		return *j.asked
	}
	return j.broken
}

// sorted lists the jobs that f selects, by ID.
func (m *model) sorted(f func(*modelJob) bool) []*modelJob {
	var out []*modelJob
	for _, j := range m.jobs {
		if f(j) {
			out = append(out, j)
		}
	}
	slices.SortFunc(out, func(a, b *modelJob) int { return cmp.Compare(a.id, b.id) })
	return out
}

// planned lists a segment's jobs in due, in the order in which they are promoted.
func (m *model) planned(segment int) []*modelJob {
	jobs := m.sorted(func(j *modelJob) bool {
		return j.segment == segment && (j.state == Scheduled || j.state == Retrying)
	})
	slices.SortFunc(jobs, func(a, b *modelJob) int {
		return cmp.Or(cmp.Compare(a.due, b.due), cmp.Compare(a.ref(), b.ref()))
	})
	return jobs
}

func (j *modelJob) ref() string {
	return ref{j.spec.Priority, j.spec.Queue, j.spec.Mutex, j.id}.String()
}

// leftovers lists the entries of a segment whose jobs' records were deleted by somebody else.
func (m *model) leftovers(segment int) []*modelEntry {
	var out []*modelEntry
	for l, entries := range m.lanes {
		for _, e := range entries {
			if l.segment == segment && e.job.vanished {
				out = append(out, e)
			}
		}
	}
	return out
}

// held lists the entries of a lane that an instance has read.
func (m *model) held(l modelLane, instance string) []*modelEntry {
	return slices.DeleteFunc(slices.Clone(m.lanes[l]), func(e *modelEntry) bool { return e.owner != instance })
}

// find gives the unsettled entry with a token.
func (m *model) find(l modelLane, token uint64) *modelEntry {
	for _, e := range m.lanes[l] {
		if e.token == token {
			return e
		}
	}
	return nil
}

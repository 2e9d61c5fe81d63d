package verify

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/carillon-go/carillon"
)

// Queue is the total-queue checker (Jepsen's, with an outcome for each job): it
// notes what became of every submission and every execution, and finds jobs
// that were lost, that nobody asked for, or that ended more than once. It is
// safe for concurrent use.
type Queue struct {
	mu   sync.Mutex
	jobs map[string]*life
	own  func(id string) bool
}

// life is what was seen of one job.
type life struct {
	tried, acked bool
	refused      bool // a try surely stored nothing
	stored       bool // a try stored it, perhaps
	runs         []Run
}

// Run is one execution as the worker saw it.
type Run struct {
	Attempt int
	Token   uint64
}

// Submitted notes the outcome of a submission: acknowledged, surely not done,
// or unknown.
func (q *Queue) Submitted(id string, err error) {
	q.note(id, func(l *life) {
		l.tried = true
		switch {
		case err == nil:
			l.acked, l.stored = true, true
		case errors.Is(err, carillon.ErrUnavailable), errors.Is(err, carillon.ErrInvalid):
			l.refused = true
		default:
			l.stored = true
		}
	})
}

// Trying notes that a submission is about to be sent, by a process that may not
// live to tell its outcome.
func (q *Queue) Trying(id string) { q.note(id, func(l *life) { l.tried = true }) }

// Ran notes that an execution began.
func (q *Queue) Ran(id string, r Run) {
	q.note(id, func(l *life) { l.runs = append(l.runs, r) })
}

// Made tells which IDs belong to jobs that nobody submits: those of schedules.
func (q *Queue) Made(own func(id string) bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.own = own
}

// Acked lists the jobs that were acknowledged.
func (q *Queue) Acked() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	var ids []string
	for id, l := range q.jobs {
		if l.acked {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Known lists all jobs of which anything was noted.
func (q *Queue) Known() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Sorted(maps.Keys(q.jobs))
}

// Runs returns how often a job was executed.
func (q *Queue) Runs(id string) []Run {
	q.mu.Lock()
	defer q.mu.Unlock()
	if l := q.jobs[id]; l != nil {
		return slices.Clone(l.runs)
	}
	return nil
}

func (q *Queue) note(id string, f func(*life)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.jobs == nil {
		q.jobs = make(map[string]*life)
	}
	l := q.jobs[id]
	if l == nil {
		l = &life{}
		q.jobs[id] = l
	}
	f(l)
}

// Verdict is what a checker found, in sentences.
type Verdict struct {
	Jobs int
	Lost []string
	// Forgotten are the IDs of jobs that were acknowledged and are not known.
	// They are lost, too, but Redis can lose what it did not keep.
	Forgotten []string
	Phantom   []string
	Twice     []string
	Stale     []string
}

// Judge compares what was noted with how each job ended. outcomes counts the
// history entries of each job; get reads a job, and nil means that it is not
// known any more.
func (q *Queue) Judge(outcomes map[string]int, get func(id string) (*carillon.JobInfo, error)) (Verdict, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var v Verdict
	for _, id := range slices.Sorted(maps.Keys(q.jobs)) {
		l := q.jobs[id]
		info, err := get(id)
		if err != nil && !errors.Is(err, carillon.ErrNotFound) {
			return v, err
		}
		if l.acked {
			v.Jobs++
		}
		v.judge(id, l, info, q.own != nil && q.own(id))
	}
	for id, n := range outcomes {
		l := q.jobs[id]
		if (l == nil || !l.tried) && (q.own == nil || !q.own(id)) {
			v.Phantom = append(v.Phantom, id+" ended, and was never submitted")
		}
		if n > 1 {
			v.Twice = append(v.Twice, fmt.Sprintf("%s ended %d times", id, n))
		}
	}
	return v, nil
}

func (v *Verdict) judge(id string, l *life, info *carillon.JobInfo, own bool) {
	switch {
	case l.acked && info == nil:
		v.Forgotten = append(v.Forgotten, id)
	case l.acked && !info.State.Final():
		v.Lost = append(v.Lost, fmt.Sprintf("%s was acknowledged and is still %s", id, info.State))
	case l.acked && info.State == carillon.StateSucceeded && len(l.runs) == 0:
		v.Lost = append(v.Lost, id+" is recorded as succeeded and was never executed")
	}
	if !l.tried && !own && len(l.runs) > 0 {
		v.Phantom = append(v.Phantom, id+" was executed and never submitted")
	}
	if l.refused && !l.stored && (info != nil || len(l.runs) > 0) {
		v.Phantom = append(v.Phantom, id+" was surely not stored, and is there")
	}
	tokens := map[int]uint64{}
	for _, r := range l.runs {
		tokens[r.Attempt] = max(tokens[r.Attempt], r.Token)
	}
	if info == nil {
		return
	}
	var last uint64
	ends := 0
	for i, a := range info.Attempts {
		if a.Token <= last {
			v.Stale = append(v.Stale, fmt.Sprintf("%s: attempt %d has token %d, the one before it %d", id, a.Number, a.Token, last))
		}
		last = a.Token
		if seen := tokens[a.Number]; seen > a.Token {
			v.Stale = append(v.Stale, fmt.Sprintf("%s: attempt %d was executed with token %d and settled with %d", id, a.Number, seen, a.Token))
		}
		switch a.Outcome { //nolint:exhaustive // the others do not end a job
		case carillon.OutcomeSucceeded, carillon.OutcomeFailed:
			ends++
			if i < len(info.Attempts)-1 && info.State == carillon.StateSucceeded {
				v.Stale = append(v.Stale, fmt.Sprintf("%s: attempt %d ended the job and %d followed", id, a.Number, info.Attempt))
			}
		}
	}
	if ends > 1 {
		v.Twice = append(v.Twice, fmt.Sprintf("%s: %d attempts ended the job", id, ends))
	}
}

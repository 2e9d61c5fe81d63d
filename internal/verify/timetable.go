package verify

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/carillon-go/carillon"
)

// Timetable is one schedule, and what is there of it when all is over.
type Timetable struct {
	Schedule carillon.Schedule
	Planned  []time.Time         // ascending, computed by something else than the scheduler under test
	Jobs     []*carillon.JobInfo // all that the schedule has created
	Ledger   []carillon.TickInfo // all that was ever read of it, the last word on each tick
}

// Match is what became of planned ticks. Missing ones have neither a run nor a
// reason in the ledger; extra runs belong to no planned tick, or to one that has
// a run already.
type Match struct {
	Schedules, Planned, Fired, Merged, Skipped int

	Missing, Extra []string
	Wrong          []string // against the schedule's policies
	Late           []time.Duration
}

// Add adds the match of another schedule.
func (m *Match) Add(other Match) {
	m.Schedules += other.Schedules
	m.Planned += other.Planned
	m.Fired += other.Fired
	m.Merged += other.Merged
	m.Skipped += other.Skipped
	m.Missing = append(m.Missing, other.Missing...)
	m.Extra = append(m.Extra, other.Extra...)
	m.Wrong = append(m.Wrong, other.Wrong...)
	m.Late = append(m.Late, other.Late...)
}

// LateAt is the p-th percentile of how late ticks were fired.
func (m *Match) LateAt(p int) time.Duration {
	if len(m.Late) == 0 {
		return 0
	}
	late := slices.Sorted(slices.Values(m.Late))
	return late[(len(late)-1)*p/100]
}

// run is what a tick has created.
type run struct {
	jobs      []*carillon.JobInfo
	then      []*carillon.JobInfo
	submitted time.Time // the first job
	ended     time.Time // the last one; zero while it has not
}

// matcher has a timetable by tick, in ms.
type matcher struct {
	*Timetable
	Match
	planned map[int64]bool
	runs    map[int64]*run
	lines   []carillon.TickInfo // by tick
}

// Match is the schedule matcher (after Jepsen's for Chronos) for any policies: it
// pairs each planned tick with a run, or with the line of the ledger that says
// why there is none, and believes that only where the policies and the times at
// which jobs ended agree.
func (t *Timetable) Match() Match {
	m := &matcher{Timetable: t, planned: map[int64]bool{}, runs: map[int64]*run{}}
	m.Schedules, m.Match.Planned = 1, len(t.Planned)
	m.lines = slices.SortedFunc(slices.Values(t.Ledger), func(a, b carillon.TickInfo) int { return a.Tick.Compare(b.Tick) })
	for _, tick := range t.Planned {
		m.planned[tick.UnixMilli()] = true
	}
	for _, j := range t.Jobs {
		m.take(j)
	}
	for _, tick := range t.Planned {
		if r := m.runs[tick.UnixMilli()]; r != nil {
			m.ran(tick, r)
		} else {
			m.left(tick)
		}
	}
	for at, r := range m.runs {
		if !m.planned[at] {
			m.Extra = append(m.Extra, fmt.Sprintf("%s belongs to no planned tick", r.first().ID))
		}
	}
	for _, l := range m.lines {
		if !m.planned[l.Tick.UnixMilli()] || !l.From.IsZero() && !m.planned[l.From.UnixMilli()] {
			m.wrong(l.Tick, "is in the ledger (%s) and is not planned", l.Outcome)
		}
	}
	m.apart()
	slices.Sort(m.Extra)
	return m.Match
}

func (m *matcher) take(j *carillon.JobInfo) {
	r := m.runs[j.Tick.UnixMilli()]
	if r == nil {
		r = &run{submitted: j.SubmittedAt, ended: j.FinishedAt}
		m.runs[j.Tick.UnixMilli()] = r
	}
	if then := m.Schedule.Sharding.Then; then != nil && then.Name == j.Name {
		r.then = append(r.then, j)
	} else {
		r.jobs = append(r.jobs, j)
	}
	if j.SubmittedAt.Before(r.submitted) {
		r.submitted = j.SubmittedAt
	}
	if j.FinishedAt.IsZero() || !r.ended.IsZero() && j.FinishedAt.After(r.ended) {
		r.ended = j.FinishedAt
	}
}

func (r *run) first() *carillon.JobInfo { return append(slices.Clone(r.jobs), r.then...)[0] }

func (m *matcher) wrong(tick time.Time, format string, args ...any) {
	m.Wrong = append(m.Wrong, m.of(tick)+fmt.Sprintf(format, args...))
}

func (m *matcher) of(tick time.Time) string {
	return fmt.Sprintf("%s: tick %s ", m.Schedule.Name, tick.UTC().Format(time.RFC3339Nano))
}

// ran looks at a tick that has a run.
func (m *matcher) ran(tick time.Time, r *run) {
	want := max(1, m.Schedule.Sharding.Shards, len(m.Schedule.Sharding.Params))
	switch {
	case len(r.jobs) > want:
		m.Extra = append(m.Extra, m.of(tick)+fmt.Sprintf("has %d jobs instead of %d", len(r.jobs), want))
		return
	case len(r.jobs) < want:
		m.Missing = append(m.Missing, m.of(tick)+fmt.Sprintf("has %d jobs instead of %d", len(r.jobs), want))
		return
	}
	m.Fired++
	m.Late = append(m.Late, r.submitted.Sub(tick))
	if r.submitted.Before(tick) {
		m.wrong(tick, "was fired %v early", tick.Sub(r.submitted))
	}
	if l := m.line(tick); l == nil || l.Outcome != carillon.TickFired {
		m.wrong(tick, "has a run, and the ledger says %s", said(l))
	}
	if m.Schedule.Sharding.Then == nil {
		return
	}
	if len(r.then) != 1 {
		m.wrong(tick, "has %d jobs that follow its shards", len(r.then))
		return
	}
	for _, j := range r.jobs {
		if j.FinishedAt.IsZero() || r.then[0].SubmittedAt.Before(j.FinishedAt) {
			m.wrong(tick, "was followed by %s before %s had ended", r.then[0].ID, j.ID)
		}
	}
}

// left looks at a tick that has no run: the policies must be the reason.
func (m *matcher) left(tick time.Time) {
	l := m.line(tick)
	switch {
	case l == nil:
		m.Missing = append(m.Missing, m.of(tick)+"has no job, and nothing is recorded")
		return
	case l.Outcome == carillon.TickMerged:
		m.Merged++
	case l.Outcome == carillon.TickSkipped:
		m.Skipped++
	default:
		m.Missing = append(m.Missing, m.of(tick)+"has no job, and the ledger says "+said(l))
		return
	}
	if why := m.unfounded(tick, l); why != "" {
		m.wrong(tick, "has no job, because %s: %s", said(l), why)
	}
}

// line returns what the ledger says about a tick.
func (m *matcher) line(tick time.Time) *carillon.TickInfo {
	i, _ := slices.BinarySearchFunc(m.lines, tick, func(l carillon.TickInfo, t time.Time) int { return l.Tick.Compare(t) })
	if i == len(m.lines) {
		return nil
	}
	l := &m.lines[i]
	if l.Tick.Equal(tick) || !l.From.IsZero() && !l.From.After(tick) {
		return l
	}
	return nil
}

func said(l *carillon.TickInfo) string {
	if l == nil {
		return "nothing"
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s", l.Outcome, l.Reason))
}

// unfounded says why a reason of the ledger cannot be; "" means that it can.
func (m *matcher) unfounded(tick time.Time, l *carillon.TickInfo) string {
	s := &m.Schedule
	limit := l.At.Add(-cmp.Or(s.MisfireAfter, 5*time.Second) - s.Jitter) // ticks after it were in time
	into, _ := named(l.Reason)
	began := func(text string) bool { return strings.HasPrefix(l.Reason, text) }
	switch {
	case l.Outcome == carillon.TickMerged:
		if s.Misfire != carillon.FireOnce || tick.After(limit) || !into.Before(tick) || !m.planned[into.UnixMilli()] {
			return "nothing was to be merged"
		}
		if at := m.line(into); m.runs[into.UnixMilli()] == nil && s.Overlap != carillon.Replace && !s.DropOnFailure {
			return "the tick it was merged with has no run: " + said(at)
		}
	case began("it was missed: "):
		last := m.between(tick, limit)
		if s.Misfire != carillon.SkipMissed && s.Misfire != carillon.FireLast || tick.After(limit) || s.Misfire == carillon.FireLast && last == 0 {
			return "it was in time, or the policy is another"
		}
	case began("it was missed, and is beyond"):
		old := s.ReplayAge > 0 && !tick.After(l.At.Add(-s.ReplayAge)) // the ledger has whole ms
		if s.Misfire != carillon.FireAll || tick.After(limit) || !old && m.between(tick, limit) < cmp.Or(s.ReplayMax, 100) {
			return "it was within the bounds"
		}
	case began("the run of "):
		if r := m.runs[into.UnixMilli()]; s.Overlap != carillon.Skip || r == nil || !r.ended.IsZero() && r.ended.Before(l.At) {
			return "that run had ended"
		}
	case began("a run was unfinished, and no further"):
		if s.Overlap != carillon.BufferOne && s.Overlap != carillon.BufferAll || !m.busy(tick, l.At) {
			return "no run was unfinished"
		}
	case began("while it waited"):
		if s.Overlap != carillon.Replace || !into.After(tick) || !m.planned[into.UnixMilli()] {
			return "nothing took its place"
		}
	case began("the run it waited for failed"):
		if !s.DropOnFailure {
			return "that does not matter"
		}
	default:
		return "no policy says so"
	}
	return ""
}

// between counts the planned ticks after one, up to an instant.
func (m *matcher) between(after, until time.Time) (n int) {
	for _, t := range m.Timetable.Planned {
		if t.After(after) && !t.After(until) {
			n++
		}
	}
	return n
}

// busy reports whether the run of a tick before this one was unfinished.
func (m *matcher) busy(tick, at time.Time) bool {
	for of, r := range m.runs {
		if of < tick.UnixMilli() && (r.ended.IsZero() || !r.ended.Before(at)) {
			return true
		}
	}
	return false
}

// apart checks that runs did not overlap, unless they may.
func (m *matcher) apart() {
	if m.Schedule.Overlap == carillon.Allow {
		return
	}
	runs := make([]*run, 0, len(m.runs))
	for _, r := range m.runs {
		runs = append(runs, r)
	}
	slices.SortFunc(runs, func(a, b *run) int { return a.submitted.Compare(b.submitted) })
	for i := 1; i < len(runs); i++ {
		if before := runs[i-1]; before.ended.IsZero() || runs[i].submitted.Before(before.ended) {
			m.wrong(runs[i].first().Tick, "was fired before the run of %s had ended", before.first().ID)
		}
	}
}

// named returns the tick that a reason names.
func named(reason string) (time.Time, bool) {
	for i := range reason {
		if reason[i] < '0' || reason[i] > '9' {
			continue
		}
		text, _, _ := strings.Cut(reason[i:], " UTC")
		t, err := time.Parse("2006-01-02 15:04:05.999", text)
		return t, err == nil
	}
	return time.Time{}, false
}

// Package verify holds the checkers of fault tests. They believe nobody: what
// was submitted and what was executed is noted where it happens, outside of
// Redis, and compared with what Redis says at the end.
package verify

import (
	"fmt"
	"sync"
)

// Tally sums what all fault tests of a process found. It is safe for concurrent
// use.
type Tally struct {
	mu  sync.Mutex
	sum Sum
}

// Sum counts faults and what they did.
type Sum struct {
	Faults  int // faults that took effect
	Jobs    int // jobs that were acknowledged
	Lost    int // acknowledged, and not done
	Phantom int // done, and never asked for
	Twice   int // settled more than once
	Stale   int // outcomes or effects accepted under an old token
	Audit   int // findings in the key space
	Ticks   int // planned ticks that were matched
	Missing int // neither run nor accounted for
	Extra   int // run twice, or never planned
}

// Add counts one test.
func (t *Tally) Add(s Sum) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sum.Faults += s.Faults
	t.sum.Jobs += s.Jobs
	t.sum.Lost += s.Lost
	t.sum.Phantom += s.Phantom
	t.sum.Twice += s.Twice
	t.sum.Stale += s.Stale
	t.sum.Audit += s.Audit
	t.sum.Ticks += s.Ticks
	t.sum.Missing += s.Missing
	t.sum.Extra += s.Extra
}

// String is the one line with which a run of the fault tests ends.
func (t *Tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sum
	return fmt.Sprintf("faults: %d injected, %d jobs, %d lost, %d phantom, %d settled twice, %d stale accepted, %d audit findings, %d ticks, %d missing, %d extra",
		s.Faults, s.Jobs, s.Lost, s.Phantom, s.Twice, s.Stale, s.Audit, s.Ticks, s.Missing, s.Extra)
}

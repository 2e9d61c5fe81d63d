// Package policy decides what a schedule does next: which ticks are fired, which
// wait, which are passed over and why. It is pure: what Redis said goes in, a
// [Decision] comes out, and whoever calls it makes that so by compare-and-set,
// or begins again with what somebody else made of it.
package policy

import (
	"hash/fnv"
	"slices"
	"strconv"
	"time"
)

// Misfire says what becomes of ticks that were missed.
type Misfire int

// The policies for missed ticks.
const (
	FireOnce   Misfire = iota // one run for all of them, for the first
	SkipMissed                // none
	FireLast                  // one run, for the last
	FireAll                   // one run each, oldest first, within bounds
)

// Overlap says what becomes of a tick that comes while a run is unfinished.
type Overlap int

// The policies for ticks during a run.
const (
	Allow     Overlap = iota // it runs beside
	Skip                     // it is left out
	BufferOne                // one waits for the end of the run, further ones are left out
	BufferAll                // all wait, up to a bound
	Replace                  // the run is cancelled, and the tick runs when it has ended
)

// Rules are what a schedule's definition says about its ticks.
type Rules struct {
	Name          string // seeds the jitter
	Misfire       Misfire
	MisfireAfter  time.Duration
	ReplayMax     int
	ReplayAge     time.Duration // 0: any
	Overlap       Overlap
	BufferMax     int
	DropOnFailure bool
	PauseAfter    int // failures in a row; 0: never
	MaxRuns       int // 0: any number
	Jitter        time.Duration
	After         time.Duration // from the end of a run to the next tick; 0: the plan has the ticks
	Then          bool          // a further job follows the jobs of a run
	Shards        int           // jobs of a run; 0: one
	Broadcast     bool          // a run has a job for each of Targets instead
	Targets       []string      // instances
	Affinity      string        // what the jobs' IDs depend on beside name, generation and tick
}

// watched reports whether the ends of runs matter.
func (r *Rules) watched() bool {
	return r.Overlap != Allow || r.PauseAfter > 0 || r.After > 0 || r.Then
}

// Plan has a schedule's ticks.
type Plan interface {
	// Next returns the first tick after an instant, zero when there is none, and
	// the first and last of the ticks before it that a calendar took away.
	Next(after time.Time) (tick, first, last time.Time)
	// Between returns the first tick in (after, until], the last n, oldest first,
	// and whether there are more than these n.
	Between(after, until time.Time, n int) (first time.Time, last []time.Time, more bool)
	// Open returns the first instant, not before the given one, at which a tick
	// may be; zero when there is none.
	Open(at time.Time) time.Time
}

// StateVersion is that of the states that this release understands.
const StateVersion = 1

// State is what is remembered between steps.
type State struct {
	Version   int        `json:"v,omitempty"`  // StateVersion, when there is anything in it
	Runs      int        `json:"r,omitempty"`  // fired in this generation; only counted for MaxRuns
	Failures  int        `json:"f,omitempty"`  // failed runs in a row
	Pause     *Pause     `json:"p,omitempty"`  // nil: not paused
	Buffer    []int64    `json:"b,omitempty"`  // ticks that wait for the end of a run, in ms
	Open      []Run      `json:"o,omitempty"`  // runs whose end matters
	Backfills []Backfill `json:"bf,omitempty"` // in the order in which they were asked for
	Passed    []int64    `json:"c,omitempty"`  // first and last tick before the next one that a calendar took away
}

// Pause says since when a schedule is paused, by whom, and why.
type Pause struct {
	At     int64  `json:"at"` // ms
	Actor  string `json:"by,omitempty"`
	Reason string `json:"why,omitempty"`
}

// Run is a tick that was fired and has not been seen to end.
type Run struct {
	Tick       int64    `json:"t"` // ms
	Generation int64    `json:"g"`
	Kind       string   `json:"k,omitempty"` // "" planned; m and a key: by hand; r and a key: of that backfill
	At         int64    `json:"at"`          // when it was fired
	Shards     int      `json:"s,omitempty"`
	Targets    []string `json:"i,omitempty"`
	Affinity   string   `json:"a,omitempty"`
	Then       bool     `json:"th,omitempty"` // its further job was created
}

// Backfill is a past range whose ticks are fired again.
type Backfill struct {
	Key     string  `json:"k"` // tells it from others, also when it is asked for twice
	Next    int64   `json:"t"` // ms
	To      int64   `json:"to"`
	Overlap Overlap `json:"o,omitempty"`
	Every   int64   `json:"e,omitempty"` // ms between starts
	At      int64   `json:"at"`          // not before
}

// End is what is known about the end of an open run.
type End struct {
	Shards bool // all its jobs have ended, but perhaps the further one
	Done   bool // all its jobs have ended
	Failed bool
	Good   bool // succeeded; neither is set when it was cancelled or is forgotten
	At     time.Time
}

// Input is what a decision is made of.
type Input struct {
	Now        time.Time
	Generation int64
	Next       time.Time // the next tick, zero if none
	State      State
	Ends       []End // of State.Open
}

// Fire is a run to be started.
type Fire struct {
	Tick time.Time
	Kind string // as Run.Kind
}

// Decision is what to do.
type Decision struct {
	State  State
	Next   time.Time // zero: there is no further tick, or none is known yet
	Look   time.Time // when to decide again; zero: only when something is changed
	Last   time.Time // the last tick that was fired; zero: none
	Fire   []Fire
	Record []Record
	Cancel []Run // to be cancelled, for a tick that replaces them
	Then   []Run // whose further job is to be created
}

// A step starts at most so many runs and jobs, but one run; the rest follow at
// once.
const (
	batch     = 100
	batchJobs = 1000
)

// At most so many unfinished runs and jobs are watched, but two runs.
const (
	maxOpen     = 200
	maxOpenJobs = 10_000
)

// Bounds of how often unfinished runs are looked at without being told.
const (
	pollSoonest = time.Second
	pollLatest  = time.Minute
)

// At returns when a tick is fired: up to Jitter later, but before the following
// one. The same tick always gets the same time.
func (r *Rules) At(p Plan, tick time.Time) time.Time {
	if r.Jitter <= 0 || tick.IsZero() {
		return tick
	}
	room := r.Jitter
	if following, _, _ := p.Next(tick); !following.IsZero() {
		room = min(room, following.Sub(tick)-time.Millisecond)
	}
	if room < time.Millisecond {
		return tick
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(r.Name))
	_, _ = h.Write(strconv.AppendInt(nil, tick.UnixMilli(), 10))
	sum := h.Sum64()
	sum ^= sum >> 33
	sum *= 0xff51afd7ed558ccd // MurmurHash3's finalizer: FNV mixes its last bytes little
	sum ^= sum >> 33
	return tick.Add(time.Duration(sum%uint64(room.Milliseconds()+1)) * time.Millisecond) //nolint:gosec // room is 100 years at most
}

// Due is where a plan stood: Next was not fired.
type Due struct {
	Plan Plan
	Next time.Time
}

// First is the decision for a new definition, whose state is that of the one
// before: the pause and the unfinished runs stay, ticks that wait do not. in.Next
// is the first tick of a plan with a fixed delay. What the plan before had due and
// did not fire is left out; nil: there was none.
func First(r *Rules, p Plan, in Input, before *Due) Decision {
	d := newStep(r, p, in)
	d.Decision = Decision{State: State{Pause: in.State.Pause, Open: in.State.Open}}
	for _, tick := range in.State.Buffer {
		d.record(Record{Tick: time.UnixMilli(tick), Outcome: Skipped, Why: Changed})
	}
	if before != nil && !before.Next.IsZero() && !before.Next.After(in.Now) {
		left := Record{Tick: before.Next, Outcome: Skipped, Why: Changed}
		if in.State.Pause != nil {
			left.Why = Paused
		}
		if _, last, _ := before.Plan.Between(before.Next, in.Now, 1); len(last) > 0 {
			left.From, left.Tick = before.Next, last[0]
		}
		d.record(left)
	}
	if r.After == 0 {
		d.advance(in.Now)
	} else if !d.busy() {
		d.Next = in.Next
	}
	d.look()
	return d.Decision
}

// Resume ends a pause: what passed meanwhile is left out.
func Resume(r *Rules, p Plan, in Input) Decision {
	d := newStep(r, p, in)
	d.State.Pause, d.State.Failures = nil, 0
	if r.After > 0 {
		if !in.Next.IsZero() {
			d.Next = p.Open(latest(in.Next, in.Now))
		} else if !d.busy() {
			d.Next = d.following(in.Now)
		}
	} else if !in.Next.IsZero() && !in.Next.After(in.Now) {
		d.passOver(in.Next, in.Now, Paused)
		d.advance(in.Now)
	}
	d.look()
	return d.Decision
}

// Hold begins a pause. A tick that has come and was not fired yet is paused, too.
func Hold(r *Rules, p Plan, in Input, why Pause) Decision {
	d := newStep(r, p, in)
	d.State.Pause = &why
	d.look()
	return d.Decision
}

// Replan finds the next tick anew, after a calendar has changed. Ticks that have
// come are left to Decide.
func Replan(r *Rules, p Plan, in Input) Decision {
	d := newStep(r, p, in)
	switch {
	case d.spent():
	case r.After == 0 && (in.Next.IsZero() || in.Next.After(in.Now)):
		d.advance(in.Now)
	case r.After > 0 && !in.Next.IsZero():
		d.Next = p.Open(in.Next)
	case r.After > 0 && !d.busy() && len(in.State.Buffer) == 0:
		d.Next = d.following(in.Now)
	}
	d.look()
	return d.Decision
}

// ByHand fires one run now, whatever the plan and the other runs. The key tells it
// from others.
func ByHand(r *Rules, p Plan, in Input, key string) Decision {
	d := newStep(r, p, in)
	d.fire(in.Now.Truncate(time.Millisecond), "m"+key)
	d.look()
	return d.Decision
}

// Refill adds a backfill.
func Refill(r *Rules, p Plan, in Input, b Backfill) Decision {
	d := newStep(r, p, in)
	d.State.Backfills = append(slices.Clone(d.State.Backfills), b)
	d.look()
	return d.Decision
}

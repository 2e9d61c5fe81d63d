package store

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// State is where a job is in its life.
type State string

// The states. A live job is in exactly one structure, which is its state.
const (
	Scheduled State = "scheduled" // in due, never failed or put off by its handler
	Retrying  State = "retrying"  // in due after a failure
	Waiting   State = "waiting"   // in wait, for its mutex
	Queued    State = "queued"    // in its stream, not yet read
	Running   State = "running"   // in its stream, read by a worker
	Succeeded State = "succeeded"
	Failed    State = "failed"
	Cancelled State = "cancelled"
	Expired   State = "expired"
)

// States lists all states, live ones first.
var States = []State{Scheduled, Retrying, Waiting, Queued, Running, Succeeded, Failed, Cancelled, Expired}

// FinalStates lists the states a job ends in.
var FinalStates = States[5:]

// Final reports whether a job in this state is done.
func (s State) Final() bool {
	switch s {
	case Succeeded, Failed, Cancelled, Expired:
		return true
	}
	return false
}

// letter is how scripts write the state. Queued and running have none: from its
// dispatch on a job's place is the ID of its entry, and the pending list tells
// whether a worker has it.
func (s State) letter() string {
	switch s {
	case Scheduled:
		return "d"
	case Retrying:
		return "r"
	case Waiting:
		return "w"
	case Succeeded:
		return "s"
	case Failed:
		return "f"
	case Cancelled:
		return "c"
	case Expired:
		return "x"
	}
	return ""
}

func stateOf(place string) State {
	if place == "" {
		return ""
	}
	if '0' <= place[0] && place[0] <= '9' {
		return Queued
	}
	for _, s := range States {
		if s.letter() == place[:1] {
			return s
		}
	}
	return ""
}

// Outcome is how an attempt ended.
type Outcome byte

// The outcomes, as scripts write them.
const (
	Succeed  Outcome = 's'
	Fail     Outcome = 'f' // for good
	Cancel   Outcome = 'c'
	Expire   Outcome = 'x' // before it started
	Retry    Outcome = 'r' // failed, to be tried again
	Snooze   Outcome = 'z' // put off by its handler, uncharged
	Release  Outcome = 'b' // given back, uncharged
	Decline  Outcome = 'u' // no handler here, uncharged
	Lost     Outcome = 'l' // its worker was lost
	Underway Outcome = 0   // not ended
)

// Attempt is one execution of a job.
type Attempt struct {
	Number     int
	Token      uint64
	Instance   string
	Dispatched time.Time
	Started    time.Time // zero when not known
	Finished   time.Time // zero while it runs
	Outcome    Outcome
	Error      string
}

// Job is what Redis knows about a job.
type Job struct {
	ID          string
	Spec        *Spec
	State       State
	SubmittedAt time.Time
	DueAt       time.Time // scheduled or retrying: next run time
	FinishedAt  time.Time
	Attempts    []Attempt // the last 20, oldest first; the last one may be under way
	Count       int       // attempts so far
	Failures    int
	Losses      int
	Cancelled   bool   // a cancel was requested
	Reason      string // why it was cancelled or quarantined
	Result      []byte
	Progress    []byte
	Checkpoint  []byte
}

// Token orders the attempts of a job. It is the ID of the dispatch entry:
// milliseconds and sequence number in one integer.
func Token(entry string) (uint64, error) {
	ms, seq, ok := strings.Cut(entry, "-")
	hi, err1 := strconv.ParseUint(ms, 10, 44)
	lo, err2 := strconv.ParseUint(seq, 10, 64)
	if !ok || err1 != nil || err2 != nil {
		return 0, fmt.Errorf("entry ID %q: %w", clip(entry, 40), ErrDamaged)
	}
	return hi<<20 + lo, nil
}

func entryTime(entry string) time.Time {
	ms, _, _ := strings.Cut(entry, "-")
	n, err := strconv.ParseInt(ms, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(n)
}

// decodeJob reads a record. The place of a due job's time and of a running
// job's worker are filled in by the caller.
func decodeJob(id string, record map[string]string) (*Job, error) {
	place := record["p"]
	if len(record) == 0 || place == "v" {
		return nil, fmt.Errorf("job %s: %w", clip(id, 64), ErrNotFound)
	}
	spec, err := decodeSpec(joined(record["j"], record["j1"]))
	if err != nil && !errors.Is(err, ErrNewer) {
		return nil, fmt.Errorf("job %s: %w: %w", clip(id, 64), ErrDamaged, err)
	}
	j := &Job{
		ID: id, Spec: spec, State: stateOf(place), SubmittedAt: millis(record["s"]),
		Count: int(number(record["a"])), Failures: int(number(record["f"])), Losses: int(number(record["l"])),
		Reason: record["e"], Result: bytesOf(record["r"]),
		Progress: bytesOf(record["g"]), Checkpoint: bytesOf(record["k"]),
	}
	if reason, ok := record["c"]; ok {
		j.Cancelled = true
		j.Reason = reason
	}
	if j.State == "" {
		return nil, fmt.Errorf("job %s: place %q: %w", clip(id, 64), clip(place, 40), ErrDamaged)
	}
	if record["a"] == "" && (j.State == Queued || j.State == Succeeded) { // the first attempt: see lib/finish
		entry := place
		if j.State == Succeeded {
			entry, _, _ = strings.Cut(record["x1"], " ")
		}
		j.Count = 1
		if record["s"] == "" {
			j.SubmittedAt = entryTime(entry)
		}
	}
	if j.State.Final() {
		j.FinishedAt = entryTime(place[1:])
	}
	for i := range attemptsKept + 1 { // counted so, for the number may be damaged
		n := j.Count - attemptsKept + i
		if log, ok := record["x"+strconv.Itoa(n)]; ok && n > 0 {
			j.Attempts = append(j.Attempts, decodeAttempt(n, log))
		}
	}
	return j, nil
}

// attemptsKept is how many attempts a record remembers; settle.lua drops older ones.
const attemptsKept = 20

// decodeAttempt reads "entry outcome elapsed finished instance error".
func decodeAttempt(n int, log string) Attempt {
	part := strings.SplitN(log, " ", 6)
	for len(part) < 6 {
		part = append(part, "")
	}
	a := Attempt{
		Number: n, Dispatched: entryTime(part[0]), Finished: millis(part[3]), Instance: part[4], Error: part[5],
	}
	a.Token, _ = Token(part[0])
	if len(part[1]) == 1 {
		a.Outcome = Outcome(part[1][0])
	}
	if elapsed := number(part[2]); elapsed >= 0 {
		a.Started = a.Finished.Add(-time.Duration(elapsed) * time.Millisecond)
	}
	return a
}

func bytesOf(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s)
}

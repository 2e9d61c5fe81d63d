package carillon

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/carillon-go/carillon/store"
)

// State is where a job is in its life.
type State string

// The states of a job.
const (
	StateScheduled State = "scheduled" // planned for later
	StateRetrying  State = "retrying"  // planned again after a failure
	StateWaiting   State = "waiting"   // for its mutex
	StateQueued    State = "queued"    // runnable
	StateRunning   State = "running"
	StateSucceeded State = "succeeded"
	StateFailed    State = "failed" // no attempt is left; see Scheduler.Retry
	StateCancelled State = "cancelled"
	StateExpired   State = "expired" // not started in time
)

// Final reports whether a job in this state is done.
func (s State) Final() bool { return store.State(s).Final() }

func (s State) valid() bool {
	for _, known := range store.States {
		if store.State(s) == known {
			return true
		}
	}
	return false
}

// JobInfo is what is known about a job.
type JobInfo struct {
	ID          string
	Name        string
	Args        json.RawMessage
	Queue       string
	Priority    Priority
	State       State
	SubmittedAt time.Time
	DueAt       time.Time // when it is to run; only while scheduled or retrying
	ExpiresAt   time.Time
	FinishedAt  time.Time
	Timeout     time.Duration
	Retry       *Retry // the job's own policy, if it has one
	Unique      Unique
	Mutex       string
	Tags        []string
	Headers     map[string]string
	Schedule    string    // the schedule that created it
	Tick        time.Time // the planned time it was created for
	Shard       Shard     // which part of the tick's work it is
	Instance    string    // the only instance that may run it, which needs no Queue for that

	Attempts []Attempt // the last 20, oldest first; the last one may be running
	Attempt  int       // how many there were
	Failures int       // attempts that failed, since the submission or the last Retry
	Losses   int       // attempts whose worker was lost

	CancelRequested bool
	Reason          string // why it was cancelled or quarantined
	Result          json.RawMessage
	Progress        json.RawMessage

	// Undecrypted is an [ErrDecrypt] when Args and Headers, Result or Progress are
	// missing here because they cannot be decrypted.
	Undecrypted error
}

// Attempt is one execution of a job.
type Attempt struct {
	Number       int
	Token        uint64 // grows with every attempt of the job
	Instance     string
	DispatchedAt time.Time
	StartedAt    time.Time // zero when the worker was lost
	FinishedAt   time.Time // zero while it runs
	Outcome      Outcome
	Error        string
}

// Outcome is how an attempt ended.
type Outcome string

// The outcomes of an attempt.
const (
	OutcomeRunning   Outcome = "running"
	OutcomeSucceeded Outcome = "succeeded"
	OutcomeRetrying  Outcome = "retrying" // failed, tried again
	OutcomeFailed    Outcome = "failed"   // for good
	OutcomeCancelled Outcome = "cancelled"
	OutcomeExpired   Outcome = "expired"
	OutcomeSnoozed   Outcome = "snoozed"
	OutcomeReleased  Outcome = "released" // given back: at shutdown, for want of a slot, or after the lease was lost
	OutcomeDeclined  Outcome = "declined" // the instance had no handler
	OutcomeLost      Outcome = "lost"     // the worker vanished
)

var outcomes = map[store.Outcome]Outcome{
	store.Underway: OutcomeRunning, store.Succeed: OutcomeSucceeded, store.Retry: OutcomeRetrying,
	store.Fail: OutcomeFailed, store.Cancel: OutcomeCancelled, store.Expire: OutcomeExpired,
	store.Snooze: OutcomeSnoozed, store.Release: OutcomeReleased, store.Decline: OutcomeDeclined, store.Lost: OutcomeLost,
}

func (s *Scheduler) infoOf(j *store.Job) *JobInfo {
	info := infoOf(j)
	read := func(field string, data []byte) []byte {
		plain, err := s.vault.field(j.ID, j.Spec.Name, field, data)
		if err != nil {
			info.Undecrypted = fmt.Errorf("%s: %w", field, err)
		}
		return plain
	}
	info.Progress, info.Result = read(fieldProgress, j.Progress), read(fieldResult, j.Result)
	p, err := s.vault.payloadOf(j.ID, j.Spec)
	if err != nil {
		p, info.Undecrypted = payload{}, fmt.Errorf("%s: %w", fieldArgs, err)
	}
	info.Args, info.Headers = p.Args, p.Headers
	return info
}

// infoOf leaves out what may be encrypted.
func infoOf(j *store.Job) *JobInfo {
	s := j.Spec
	info := &JobInfo{
		ID: j.ID, Name: s.Name, Queue: shownQueue(s.Queue), Priority: priorityOf(s.Priority), State: State(j.State),
		SubmittedAt: j.SubmittedAt, DueAt: j.DueAt, ExpiresAt: s.ExpiresAt, FinishedAt: j.FinishedAt, Timeout: s.Timeout,
		Retry: retryFromSpec(s.Retry), Unique: Unique{Key: s.Unique, For: s.UniqueFor}, Mutex: s.Mutex,
		Tags: s.Tags, Schedule: s.Schedule, Tick: s.Tick, Shard: Shard(s.Shard), Instance: store.InstanceOf(s.Queue),
		Attempt: j.Count, Failures: j.Failures, Losses: j.Losses,
		CancelRequested: j.Cancelled, Reason: j.Reason,
	}
	for _, a := range j.Attempts {
		info.Attempts = append(info.Attempts, Attempt{
			Number: a.Number, Token: a.Token, Instance: a.Instance, DispatchedAt: a.Dispatched,
			StartedAt: a.Started, FinishedAt: a.Finished, Outcome: outcomes[a.Outcome], Error: a.Error,
		})
	}
	return info
}

func priorityOf(letter byte) Priority {
	for p, l := range priorityLetters {
		if l == letter {
			return p
		}
	}
	return Normal
}

package carillon

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/knobs"
	"github.com/carillon-go/carillon/store"
)

// Get returns what is known about a job, or [ErrNotFound].
func (s *Scheduler) Get(ctx context.Context, id string) (*JobInfo, error) {
	if err := validID(id); err != nil {
		return nil, opError("get", id, err)
	}
	j, err := s.store.Get(ctx, id)
	if err != nil {
		return nil, opError("get", id, err)
	}
	return s.infoOf(j), nil
}

// validID checks an ID that is looked for. Those that Carillon makes may be
// longer than a submitter's.
func validID(id string) error { return validText("ID", id, maxIDBytes+maxScheduleBytes) }

// Filter selects jobs; empty fields select all.
type Filter struct {
	States []State
	Queue  string
	Name   string
	// Tag looks up an index of unfinished jobs, so it costs no more than the
	// jobs it finds. The other fields are compared job by job.
	Tag string
}

func (f Filter) validate() error {
	var errs []error
	for _, state := range f.States {
		if !state.valid() {
			errs = append(errs, invalid("States", "%q is no state", clipped(string(state))))
		}
	}
	for _, field := range []struct {
		name, value string
		limit       int
	}{{"Queue", f.Queue, maxQueueBytes}, {"Name", f.Name, maxNameBytes}, {"Tag", f.Tag, maxTagBytes}} {
		if field.value != "" {
			errs = append(errs, validText(field.name, field.value, field.limit))
		}
	}
	return errors.Join(errs...)
}

// List yields jobs page by page: those planned by time, the runnable in their
// order, the finished newest first. A job that changes its state meanwhile may
// be missed or seen twice. The sequence ends with the first error.
func (s *Scheduler) List(ctx context.Context, f Filter) iter.Seq2[*JobInfo, error] {
	return func(yield func(*JobInfo, error) bool) {
		if err := f.validate(); err != nil {
			yield(nil, &Error{Op: "list", Err: err})
			return
		}
		var states []store.State
		for _, state := range f.States {
			states = append(states, store.State(state))
		}
		for j, err := range s.store.List(ctx, store.Filter{States: states, Queue: f.Queue, Name: f.Name, Tag: f.Tag}) {
			if err != nil {
				yield(nil, opError("list", "", err))
				return
			}
			if !yield(s.infoOf(j), nil) {
				return
			}
		}
	}
}

// awaitPoll is how often Await looks by itself, for the signal may be lost.
const awaitPoll = time.Second

// Await waits until a job is final and returns it. It returns early when ctx
// ends, or with [ErrNotFound] when the job is not known, as after its retention.
func (s *Scheduler) Await(ctx context.Context, id string) (*JobInfo, error) {
	if err := validID(id); err != nil {
		return nil, opError("await", id, err)
	}
	finished, stop := s.store.Inbox()
	defer stop()
	poll := time.NewTicker(cmp.Or(knobs.From(ctx).Poll, awaitPoll))
	defer poll.Stop()
	for {
		state, err := s.store.Await(ctx, id)
		if err != nil {
			return nil, opError("await", id, err)
		}
		if state.Final() {
			return s.Get(ctx, id)
		}
		for waiting := true; waiting; {
			select {
			case hint := <-finished:
				waiting = hint != id && hint != ""
			case <-poll.C:
				waiting = false
			case <-s.store.Done():
				waiting = false
			case <-ctx.Done():
				return nil, &Error{Op: "await", Job: id, Err: context.Cause(ctx)}
			}
		}
	}
}

// Counts is how many jobs there are, at one moment for each number.
type Counts struct {
	Scheduled int // retrying ones included
	Waiting   int
	Queued    int
	Running   int
	Succeeded int // finished ones, as far as they are kept
	Failed    int
	Cancelled int
	Expired   int
	Queues    map[string]QueueCounts
}

// QueueCounts is the load of one queue.
type QueueCounts struct {
	Queued  int
	Running int
	Paused  bool
}

// Counts returns how many jobs are in each state. Its cost does not depend on
// how many there are.
func (s *Scheduler) Counts(ctx context.Context) (Counts, error) {
	n, err := s.store.Counts(ctx)
	if err != nil {
		return Counts{}, opError("count", "", err)
	}
	c := Counts{
		Scheduled: n.States[store.Scheduled], Waiting: n.States[store.Waiting],
		Queued: n.States[store.Queued], Running: n.States[store.Running],
		Succeeded: n.States[store.Succeeded], Failed: n.States[store.Failed],
		Cancelled: n.States[store.Cancelled], Expired: n.States[store.Expired],
		Queues: make(map[string]QueueCounts, len(n.Queues)),
	}
	for q, count := range n.Queues {
		c.Queues[q] = QueueCounts(count)
	}
	return c, nil
}

// Cancel ends a job. One that has not started becomes cancelled at once. One
// that runs hears of it through its context, usually within milliseconds and at
// the latest with the next heartbeat of its instance; it becomes cancelled when
// its handler returns an error, and succeeded when that returns nil. No further
// attempt starts in any case. A final job stays as it is; that is no error.
func (s *Scheduler) Cancel(ctx context.Context, id string) error {
	err := validID(id)
	if err == nil {
		_, err = s.store.Cancel(ctx, id, "cancelled on request")
	}
	return opError("cancel", id, err)
}

// Retry gives a failed, cancelled or expired job a new life, with all its
// attempts, due now. It is refused with [ErrState] in any other state, and when
// another job holds its unique key. A job whose ExpiresAt has passed expires again.
func (s *Scheduler) Retry(ctx context.Context, id string) error {
	err := validID(id)
	if err == nil {
		err = s.store.Revive(ctx, id)
	}
	return opError("retry", id, err)
}

// RetryAll retries the failed jobs that match; Filter.States is ignored. It
// returns how many it retried, also along with an error.
func (s *Scheduler) RetryAll(ctx context.Context, f Filter) (int, error) {
	if err := f.validate(); err != nil {
		return 0, opError("retry", "", err)
	}
	filter := store.Filter{States: []store.State{store.Failed}, Queue: f.Queue, Name: f.Name}
	var ids []string
	for j, err := range s.store.List(ctx, filter) {
		if err != nil {
			return 0, opError("retry", "", err)
		}
		if f.Tag == "" || slices.Contains(j.Spec.Tags, f.Tag) {
			ids = append(ids, j.ID)
		}
	}
	n := 0
	for _, id := range ids {
		err := s.store.Revive(ctx, id)
		if err != nil && !errors.Is(err, ErrState) && !errors.Is(err, ErrNotFound) {
			return n, opError("retry", id, err)
		}
		if err == nil {
			n++
		}
	}
	return n, nil
}

// RunNow makes a scheduled or retrying job due at once. A job in another state
// is refused with [ErrState].
func (s *Scheduler) RunNow(ctx context.Context, id string) error {
	err := validID(id)
	if err == nil {
		err = s.store.Hurry(ctx, id)
	}
	return opError("run now", id, err)
}

// PauseQueue keeps all instances from starting jobs of a queue, until
// ResumeQueue. Running jobs go on, and jobs can be submitted. It holds for this
// instance when it returns; others hear of it within milliseconds, and at the
// latest with their next heartbeat.
func (s *Scheduler) PauseQueue(ctx context.Context, queue string) error {
	return s.pause(ctx, "pause", queue, true)
}

// ResumeQueue ends a pause. A queue that is not paused is left as it is.
func (s *Scheduler) ResumeQueue(ctx context.Context, queue string) error {
	return s.pause(ctx, "resume", queue, false)
}

func (s *Scheduler) pause(ctx context.Context, op, queue string, paused bool) error {
	err := validText("queue", queue, maxQueueBytes)
	if err == nil {
		err = s.store.Pause(ctx, queue, paused)
	}
	if err != nil {
		return &Error{Op: op, Queue: queue, Err: err}
	}
	s.mu.Lock()
	in := s.instance
	s.mu.Unlock()
	if in != nil {
		in.pauseHere(queue, paused)
	}
	return nil
}

// InstanceInfo is what an instance says of itself.
type InstanceInfo struct {
	ID        string
	Host      string
	PID       int
	Version   string // of the service, from Config
	StartedAt time.Time
	Handlers  []string
	Queues    map[string]int // capacity by queue
	Running   int
	Heartbeat time.Time // the last one
	Alive     bool      // its lease has not lapsed
}

// Instances lists the running instances, and those whose lease has lapsed but
// whose work was not yet reclaimed.
func (s *Scheduler) Instances(ctx context.Context) ([]InstanceInfo, error) {
	all, err := s.store.Instances(ctx)
	if err != nil {
		return nil, opError("list instances", "", err)
	}
	now, err := s.store.Now(ctx)
	if err != nil {
		return nil, opError("list instances", "", err)
	}
	out := make([]InstanceInfo, len(all))
	for i, d := range all {
		out[i] = describedInstance(d, now)
	}
	return out, nil
}

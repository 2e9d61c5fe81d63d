package carillon

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/carillon-go/carillon/store"
)

// settleBatch is how many outcomes a call carries, on average for each segment.
const settleBatch = 256

// settleTrips is how many calls are in flight at a time: while Redis executes one, the
// next one is prepared. A call for many segments keeps several connections busy by itself.
const settleTrips = 2

// settler records outcomes. It sends at once when idle; while a call is in
// flight, the outcomes that arrive form the next one. While Redis cannot be
// reached it keeps them, for the jobs are still this instance's.
type settler struct {
	instance *instance
	batch    int // outcomes of a call to all segments

	mu     sync.Mutex
	queue  []store.Settlement
	flying int
	wake   chan struct{} // a call is due
	change chan struct{} // closed and replaced when outcomes were recorded

	ctx    context.Context
	cancel context.CancelFunc
	loop   sync.WaitGroup
}

func newSettler(in *instance) *settler {
	s := &settler{instance: in, batch: settleBatch * in.store.Segments(), wake: make(chan struct{}, 1), change: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

func (s *settler) start() {
	trips := settleTrips
	if s.instance.store.Segments() > 1 {
		trips = 1
	}
	for range trips {
		s.loop.Go(s.run)
	}
}

// put takes the outcome of an attempt. Only the first one of an entry counts:
// a handler that was left behind cannot settle any more.
func (s *settler) put(o store.Settlement) {
	if !s.instance.running.ending(o.Entry) {
		return
	}
	s.mu.Lock()
	s.queue = append(s.queue, o)
	due := s.due()
	s.mu.Unlock()
	if !due {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// due tells whether a call is to be made; it is called with mu held. The end of a call in flight
// leads to the next one.
func (s *settler) due() bool { return s.flying == 0 || len(s.queue) >= s.batch/2 }

// ready waits until the backlog is small enough to take more jobs.
func (s *settler) ready(ctx context.Context) bool {
	return s.await(ctx, func(waiting int) bool { return waiting < backlogLimit })
}

func (s *settler) await(ctx context.Context, enough func(waiting int) bool) bool {
	for {
		s.mu.Lock()
		waiting, change := len(s.queue)+s.flying, s.change
		s.mu.Unlock()
		if enough(waiting) {
			return ctx.Err() == nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return false
		}
	}
}

// stop sends what is left, until ctx ends, and returns how many outcomes were
// not recorded. Nothing is sent afterwards.
func (s *settler) stop(ctx context.Context) int {
	s.await(ctx, func(waiting int) bool { return waiting == 0 })
	s.cancel()
	s.loop.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue)
}

func (s *settler) run() {
	failures := 0
	for {
		batch := s.next()
		if len(batch) == 0 {
			select {
			case <-s.wake:
				continue
			case <-s.ctx.Done():
				return
			}
		}
		again := s.send(batch)
		s.mu.Lock()
		s.queue = append(again, s.queue...)
		s.flying -= len(batch)
		close(s.change)
		s.change = make(chan struct{})
		s.mu.Unlock()
		if len(again) == 0 {
			failures = 0
			continue
		}
		failures++
		pause(s.ctx, backoff(failures))
		if s.ctx.Err() != nil {
			return
		}
	}
}

func (s *settler) next() []store.Settlement {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.due() {
		return nil
	}
	n := min(len(s.queue), s.batch)
	batch := s.queue[:n:n]
	s.queue = s.queue[n:]
	s.flying += n
	return batch
}

// settleTimeout bounds one call.
const settleTimeout = 10 * time.Second

// send records a batch and returns what has to be sent again.
func (s *settler) send(batch []store.Settlement) (again []store.Settlement) {
	in := s.instance
	ctx, cancel := context.WithTimeout(s.ctx, settleTimeout)
	defer cancel()
	cancelled, errs := in.store.Settle(ctx, in.id, batch)
	for i, o := range batch {
		err := errs[i]
		switch {
		case errors.Is(err, ErrUnavailable), errors.Is(err, ErrUncertain):
			again = append(again, o)
			if in.warned.lately("settle") {
				in.log.Warn("carillon: outcomes cannot be recorded yet, trying again", "error", err)
			}
			continue
		case errors.Is(err, ErrFenced):
			in.log.Warn("carillon: an outcome was refused, the job has moved on", "job", o.Entry.ID, "attempt", o.Entry.Attempt)
		case err != nil:
			in.log.Error("carillon: an outcome could not be recorded", "job", o.Entry.ID, "attempt", o.Entry.Attempt, "error", err)
		case cancelled[i]:
			in.log.Info("carillon: job cancelled", "job", o.Entry.ID, "name", o.Entry.Spec.Name)
		}
		in.running.remove(o.Entry)
	}
	in.finished.Add(int64(len(batch) - len(again)))
	return again
}

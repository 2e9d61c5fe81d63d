package store

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
)

// grouper lets concurrent callers share round trips: while calls are in flight, the
// jobs that arrive form the next batch. It has no goroutine while nobody submits.
type grouper struct {
	flush func(context.Context, []*submission)

	mu      sync.Mutex
	waiting []*handIn
	flying  int // calls
	closed  bool
	flights sync.WaitGroup
}

// handIn is what one caller brought.
type handIn struct {
	items []*submission
	taken bool
	done  chan struct{}
}

// flightTimeout bounds a round trip.
const flightTimeout = 15 * time.Second

// maxTrips is how many calls are in flight at a time: while Redis executes one, the
// next one is prepared.
const maxTrips = 2

// inPlace marks the context of a command that nobody gives up before the client's
// read timeout does, so that it needs no goroutine of its own; see within.
type inPlace struct{}

// submitTogether is the flush of the store's grouper.
func (s *Store) submitTogether(ctx context.Context, batch []*submission) {
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, inPlace{}, s.patience() > 0), flightTimeout)
	defer cancel()
	s.submitBatch(ctx, batch)
}

// do hands items in and waits for their outcome. A caller that finds a flight free
// takes its items itself, for every goroutine that has to wake up takes longer than
// Redis does; then ctx rules the flight. Who waits for others returns when ctx ends:
// items that were not yet sent are withdrawn and surely not submitted; the others
// still belong to their flight, which no context of a caller rules.
func (g *grouper) do(ctx context.Context, items []*submission) error {
	if len(items) == 0 {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("submit: %w: %w", ErrUnavailable, cause)
	}
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return ErrClosed
	}
	if g.flying < maxTrips {
		g.flying++
		g.flights.Add(1)
		g.mu.Unlock()
		defer g.landed() // also after a panic of what a user put into the client
		g.flush(ctx, items)
		return nil
	}
	mine := &handIn{items: items, done: make(chan struct{})}
	g.waiting = append(g.waiting, mine)
	g.mu.Unlock()
	select {
	case <-mine.done:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !mine.taken {
		g.waiting = slices.DeleteFunc(g.waiting, func(w *handIn) bool { return w == mine })
		return fmt.Errorf("submit: %w: %w", ErrUnavailable, context.Cause(ctx))
	}
	select {
	case <-mine.done: // it ended in the same moment
		return nil
	default:
		return fmt.Errorf("submit: %w: %w", ErrUncertain, context.Cause(ctx))
	}
}

// landed ends the flight of a caller. Those who came meanwhile are flown without it.
func (g *grouper) landed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) > 0 {
		g.flights.Go(g.fly) // ends when nothing waits
	} else {
		g.flying--
	}
	g.flights.Done()
}

// close waits for the calls in flight; later ones are refused.
func (g *grouper) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.flights.Wait()
}

func (g *grouper) fly() {
	for {
		g.mu.Lock()
		var batch []*submission
		var groups []*handIn
		size := 0
		for _, w := range g.waiting {
			if len(batch) > 0 && (len(batch)+len(w.items) > maxBatch || size > maxFlightBytes) {
				break
			}
			for _, it := range w.items {
				size += it.size()
			}
			w.taken = true
			groups = append(groups, w)
			batch = append(batch, w.items...)
		}
		g.waiting = g.waiting[len(groups):]
		if len(groups) == 0 {
			g.flying--
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		g.flush(context.Background(), batch)
		for _, w := range groups {
			close(w.done)
		}
		if g.fewerThan(len(groups)) {
			runtime.Gosched() // those who come back bring their next jobs
		}
	}
}

// fewerThan tells whether fewer callers than n wait for a flight.
func (g *grouper) fewerThan(n int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting) < n
}

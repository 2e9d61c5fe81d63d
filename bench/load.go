package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// chunked hands over jobs in chunks of 1,000, from two goroutines, so that the
// next chunk is encoded while a server works on one.
func chunked(ctx context.Context, jobs []job, send func(context.Context, []job) error) error {
	const size = 1000
	var chunks [][]job
	for len(jobs) > 0 {
		n := min(size, len(jobs))
		chunks = append(chunks, jobs[:n])
		jobs = jobs[n:]
	}
	return spread(2, len(chunks), func(i int) error { return send(ctx, chunks[i]) })
}

// spread calls f with 0 to n-1 from so many goroutines, each of which ends when a call fails.
func spread(goroutines, n int, f func(i int) error) error {
	var next atomic.Int64
	errs := make([]error, goroutines)
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for errs[g] == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				errs[g] = f(i)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err // the others say the same
		}
	}
	return nil
}

// startAll starts n instances. The function it returns stops them all at once.
func startAll(n int, start func() (stop func() error, err error)) (func() error, error) {
	stops := make([]func() error, 0, n)
	stopAll := func() error {
		return spread(len(stops), len(stops), func(i int) error { return stops[i]() })
	}
	for range n {
		stop, err := start()
		if err != nil {
			return nil, errors.Join(err, stopAll())
		}
		stops = append(stops, stop)
	}
	return stopAll, nil
}

// tally counts executions, up to a number of them.
type tally struct {
	want        int64
	n           atomic.Int64
	first, last time.Time
	all         chan struct{} // closed with the last one
}

func newTally(want int) *tally { return &tally{want: int64(want), all: make(chan struct{})} }

func (t *tally) add() {
	switch n := t.n.Add(1); n {
	case 1:
		t.first = time.Now()
		if t.want == 1 {
			t.last = t.first
			close(t.all)
		}
	case t.want:
		t.last = time.Now()
		close(t.all)
	}
}

// wait returns when all were executed.
func (t *tally) wait(ctx context.Context) error {
	select {
	case <-t.all:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// rate is how many were executed a second, from the first to the last.
func (t *tally) rate() float64 { return perSecond(int(t.want-1), t.last.Sub(t.first)) }

func perSecond(n int, took time.Duration) float64 { return float64(n) / took.Seconds() }

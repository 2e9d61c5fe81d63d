package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/carillon-go/carillon"
)

const (
	batch    = 500              // jobs submitted at a time
	fetchers = 8                // results read at a time
	quiet    = 10 * time.Second // after which it looks whether something was missed
)

// collection gathers the results of a run while it goes on, so it does not
// depend on how many finished jobs Redis keeps.
type collection struct {
	scheduler *carillon.Scheduler
	stderr    io.Writer
	files     []*file
	finished  chan string // IDs of jobs whose results are to be fetched

	mu   sync.Mutex
	open map[string]*file // by job ID
	last time.Time        // when there was progress
	done chan struct{}    // closed when nothing is open
}

// collect has all files worked on and fills in what came out.
func collect(ctx context.Context, s *carillon.Scheduler, run string, files []*file, stderr io.Writer) error {
	if len(files) == 0 {
		return nil
	}
	c := &collection{
		scheduler: s, stderr: stderr, files: files, finished: make(chan string),
		open: make(map[string]*file, len(files)), last: time.Now(), done: make(chan struct{}),
	}
	for _, f := range files {
		// The ID is made of run and path: however often a job is submitted,
		// it is one job.
		f.job = fmt.Sprintf("%s/%x", run, sha256.Sum256([]byte(f.path)))
		c.open[f.job] = f
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer cancel(nil)
	events := s.Subscribe(ctx, "") // before the first submission, so that no event is missed
	helpers.Go(func() { cancel(c.watch(ctx, events)) })
	for range fetchers {
		helpers.Go(func() {
			if err := c.fetch(ctx); err != nil {
				cancel(err)
			}
		})
	}
	if err := c.submit(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-c.done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		if err := c.progress(ctx); err != nil {
			return err
		}
	}
}

// submit submits a job for every open file. To do so again does no harm: jobs
// that Redis knows are duplicates, and their results may be there by now; jobs
// that it does not know, because the connection failed, or because it was
// restarted and had saved nothing, are done anew.
func (c *collection) submit(ctx context.Context) error {
	c.mu.Lock()
	var jobs []carillon.Job
	for _, f := range c.files {
		if c.open[f.job] != nil {
			jobs = append(jobs, carillon.Job{Name: jobName, ID: f.job, Args: File{[]byte(f.path)}, Retain: time.Hour})
		}
	}
	c.mu.Unlock()
	for some := range slices.Chunk(jobs, batch) {
		receipts, err := c.scheduler.SubmitMany(ctx, some)
		if receipts == nil {
			return err // something in them is invalid
		}
		for _, r := range receipts {
			switch {
			case errors.Is(r.Err, carillon.ErrUnavailable), errors.Is(r.Err, carillon.ErrUncertain):
				// Again later, when it is quiet.
			case r.Err != nil:
				return r.Err
			case r.Duplicate:
				c.look(ctx, r.ID)
			}
		}
	}
	return nil
}

// look has the result of a job fetched.
func (c *collection) look(ctx context.Context, id string) {
	c.mu.Lock()
	_, open := c.open[id]
	c.mu.Unlock()
	if !open {
		return // of another run
	}
	select {
	case c.finished <- id:
	case <-ctx.Done():
	}
}

// watch learns from the events which jobs are finished.
func (c *collection) watch(ctx context.Context, events iter.Seq2[carillon.Event, error]) error {
	for event, err := range events {
		if err != nil {
			return err
		}
		if carillon.State(event.Type).Final() {
			c.look(ctx, event.ID)
		}
	}
	return nil
}

// fetch reads the results of finished jobs until ctx ends.
func (c *collection) fetch(ctx context.Context) error {
	for {
		select {
		case id := <-c.finished:
			job, err := c.scheduler.Get(ctx, id)
			switch {
			case errors.Is(err, carillon.ErrUnavailable), errors.Is(err, carillon.ErrUncertain), errors.Is(err, carillon.ErrNotFound):
				// Again later, when it is quiet.
			case err != nil:
				return err
			case job.State.Final():
				c.enter(id, job)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// enter notes how a job ended.
func (c *collection) enter(id string, job *carillon.JobInfo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.open[id]
	if f == nil {
		return // noted before
	}
	switch {
	case job.State != carillon.StateSucceeded:
		f.problem = string(job.State)
		if n := len(job.Attempts); n > 0 && job.Attempts[n-1].Error != "" {
			f.problem = job.Attempts[n-1].Error
		}
	case json.Unmarshal(job.Result, &f.digest) != nil:
		f.problem = "its result cannot be read"
	}
	c.last = time.Now()
	if delete(c.open, id); len(c.open) == 0 {
		close(c.done)
	}
}

// progress shows how far it is.
func (c *collection) progress(ctx context.Context) error {
	all := len(c.files)
	c.mu.Lock()
	done, last := all-len(c.open), c.last
	c.mu.Unlock()
	workers := 0
	instances, err := c.scheduler.Instances(ctx)
	for _, in := range instances {
		if in.Alive {
			workers++
		}
	}
	switch {
	case err != nil && ctx.Err() == nil:
		fmt.Fprintf(c.stderr, "digest: %d of %d files; %v\n", done, all, err)
	case workers == 0 && done < all:
		fmt.Fprintf(c.stderr, "digest: %d of %d files, but no worker; digest -redis ADDR -worker starts one\n", done, all)
	default:
		fmt.Fprintf(c.stderr, "digest: %d of %d files, %d workers\n", done, all, workers)
	}
	if time.Since(last) < quiet {
		return nil
	}
	c.mu.Lock()
	c.last = time.Now()
	c.mu.Unlock()
	return c.submit(ctx)
}

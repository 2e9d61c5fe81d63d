package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/carillon-go/carillon"
)

func carillonContestant() *contestant {
	return &contestant{
		name: ours, version: "this checkout", setting: "1024 workers; outcomes and history of all jobs kept",
		open: func(_ context.Context, at place) (queue, error) {
			q := &carillonQueue{at: at}
			var err error
			q.producer, err = q.scheduler(0)
			return q, err
		},
	}
}

// ours is Carillon's name in the results.
const ours = "carillon"

// carillonQueue submits by one Scheduler and works by others.
type carillonQueue struct {
	at       place
	producer *carillon.Scheduler
}

func (q *carillonQueue) scheduler(workers int) (*carillon.Scheduler, error) {
	config := carillon.Config{
		Concurrency: workers,
		Retry:       carillon.Retry{Delays: []time.Duration{time.Millisecond}},
		Logger:      slog.New(slog.DiscardHandler),
		Retention:   carillon.Retention{Succeeded: carillon.Keep{Count: 10_000_000}},
	}
	// The Scheduler makes connections of its own; this client only has the options.
	rdb := redisClient(q.at)
	s, err := carillon.New(rdb, config)
	return s, errors.Join(err, rdb.Close())
}

func (j job) carillon() carillon.Job {
	return carillon.Job{Name: "bench", Args: json.RawMessage(j.payload), RunAt: j.at}
}

func (q *carillonQueue) submit(ctx context.Context, j job) error {
	_, err := q.producer.Submit(ctx, j.carillon())
	return err
}

func (q *carillonQueue) submitMany(ctx context.Context, jobs []job) error {
	return chunked(ctx, jobs, func(ctx context.Context, jobs []job) error {
		batch := make([]carillon.Job, len(jobs))
		for i, j := range jobs {
			batch[i] = j.carillon()
		}
		_, err := q.producer.SubmitMany(ctx, batch)
		return err
	})
}

func (q *carillonQueue) start(ctx context.Context, w work) (func() error, error) {
	return startAll(w.instances, func() (func() error, error) {
		s, err := q.scheduler(cmp.Or(w.workers, 1024))
		if err != nil {
			return nil, err
		}
		if err := s.Handle("bench", carillon.HandlerFunc(func(_ context.Context, x *carillon.Execution) error {
			return w.do(x.Attempt, x.Args)
		})); err != nil {
			return nil, err
		}
		return func() error { return s.Shutdown(context.WithoutCancel(ctx)) }, s.Start(ctx)
	})
}

func (q *carillonQueue) close() error { return q.producer.Shutdown(context.Background()) }

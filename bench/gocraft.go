package main

import (
	"cmp"
	"context"
	"errors"
	"math"
	"time"

	craft "github.com/gocraft/work"
	"github.com/gomodule/redigo/redis"
)

func gocraftContestant() *contestant {
	return &contestant{
		name: "gocraft", part: 4, version: moduleVersion("github.com/gocraft/work"), setting: "64 workers; its fixed polling intervals, up to 5 s, and 1 s for delayed jobs",
		open: func(_ context.Context, at place) (queue, error) {
			if at.cluster || at.keepAll {
				return nil, errors.ErrUnsupported
			}
			q := &gocraftQueue{pool: &redis.Pool{
				MaxIdle: 300, MaxActive: 1000, Wait: true,
				DialContext: func(ctx context.Context) (redis.Conn, error) { return redis.DialContext(ctx, "tcp", at.redis[0]) },
			}}
			q.enqueuer = craft.NewEnqueuer("bench", q.pool)
			return q, nil
		},
	}
}

type gocraftQueue struct {
	pool     *redis.Pool
	enqueuer *craft.Enqueuer
}

func (q *gocraftQueue) submit(_ context.Context, j job) error {
	args := craft.Q{"p": string(j.payload)}
	if j.at.IsZero() {
		_, err := q.enqueuer.Enqueue("bench", args)
		return err
	}
	_, err := q.enqueuer.EnqueueIn("bench", int64(math.Ceil(time.Until(j.at).Seconds())), args)
	return err
}

// submitMany submits from 64 goroutines, because it has no call for many.
func (q *gocraftQueue) submitMany(ctx context.Context, jobs []job) error {
	return spread(64, len(jobs), func(i int) error { return q.submit(ctx, jobs[i]) })
}

func (q *gocraftQueue) start(_ context.Context, w work) (func() error, error) {
	return startAll(w.instances, func() (func() error, error) {
		workers := uint(cmp.Or(w.workers, 64))
		pool := craft.NewWorkerPool(struct{}{}, workers, "bench", q.pool)
		now := func(*craft.Job) int64 { return 0 }
		pool.JobWithOptions("bench", craft.JobOptions{MaxFails: 10, Backoff: now}, func(j *craft.Job) error {
			return w.do(int(j.Fails)+1, []byte(j.ArgString("p")))
		})
		pool.Start()
		return func() error { pool.Stop(); return nil }, nil
	})
}

func (q *gocraftQueue) close() error { return q.pool.Close() }

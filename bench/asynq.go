package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hibiken/asynq"
)

// asynqContestant polls at asynq's own intervals: every second for jobs when it
// is idle, every five for those that became due.
func asynqContestant() *contestant {
	return asynqPolling("asynq", "64 workers; its own polling intervals: 1 s, and 5 s for delayed jobs", 0, 0)
}

// eagerAsynq trades idle load for latency, which is fair where latency counts.
func eagerAsynq() *contestant {
	return asynqPolling("asynq-eager", "64 workers; polling every 10 ms, and every 100 ms for delayed jobs",
		10*time.Millisecond, 100*time.Millisecond)
}

func asynqPolling(name, setting string, idle, delayed time.Duration) *contestant {
	return &contestant{
		name: name, part: 2, version: moduleVersion("github.com/hibiken/asynq"), setting: setting,
		open: func(_ context.Context, at place) (queue, error) {
			q := &asynqQueue{at: at, idle: idle, delayed: delayed}
			q.opt = asynq.RedisClientOpt{Addr: at.redis[0], PoolSize: 256}
			if at.cluster {
				q.opt = asynq.RedisClusterClientOpt{Addrs: at.redis}
			}
			q.client = asynq.NewClient(q.opt)
			return q, nil
		},
	}
}

type asynqQueue struct {
	at            place
	opt           asynq.RedisConnOpt
	client        *asynq.Client
	idle, delayed time.Duration
}

func (q *asynqQueue) submit(ctx context.Context, j job) error {
	opts := make([]asynq.Option, 0, 2)
	if !j.at.IsZero() {
		opts = append(opts, asynq.ProcessAt(j.at))
	}
	if q.at.keepAll {
		opts = append(opts, asynq.Retention(time.Hour))
	}
	_, err := q.client.EnqueueContext(ctx, asynq.NewTask("bench", j.payload), opts...)
	return err
}

// submitMany submits from 64 goroutines, because asynq has no call for many.
func (q *asynqQueue) submitMany(ctx context.Context, jobs []job) error {
	return spread(64, len(jobs), func(i int) error { return q.submit(ctx, jobs[i]) })
}

func (q *asynqQueue) start(_ context.Context, w work) (func() error, error) {
	return startAll(w.instances, func() (func() error, error) {
		s := asynq.NewServer(q.opt, asynq.Config{
			Concurrency: cmp.Or(w.workers, 64), TaskCheckInterval: q.idle, DelayedTaskCheckInterval: q.delayed,
			RetryDelayFunc: func(int, error, *asynq.Task) time.Duration { return time.Millisecond },
			LogLevel:       asynq.FatalLevel, Logger: silent{},
		})
		err := s.Start(asynq.HandlerFunc(func(ctx context.Context, t *asynq.Task) error {
			failed, ok := asynq.GetRetryCount(ctx)
			if !ok {
				return errors.New("asynq does not tell the attempt")
			}
			return w.do(failed+1, t.Payload())
		}))
		return func() error { s.Shutdown(); return nil }, err
	})
}

func (q *asynqQueue) close() error { return q.client.Close() }

// silent lets asynq say nothing but why it ends the process.
type silent struct{}

func (silent) Debug(...any)      {}
func (silent) Info(...any)       {}
func (silent) Warn(...any)       {}
func (silent) Error(...any)      {}
func (silent) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

func floorContestant() *contestant {
	return &contestant{
		name: "floor", version: "bare commands of Redis: XADD, XREADGROUP, XACK and XDEL, no state of jobs",
		setting: "batches of 512, 3 readers an instance",
		open: func(ctx context.Context, at place) (queue, error) {
			if at.cluster || at.keepAll {
				return nil, errors.ErrUnsupported
			}
			q := &floorQueue{rdb: redisClient(at)}
			err := q.rdb.XGroupCreateMkStream(ctx, floorStream, floorGroup, "0").Err()
			if err != nil && !strings.HasPrefix(err.Error(), "BUSYGROUP") {
				return nil, err
			}
			return q, nil
		},
	}
}

const (
	floorStream  = "floor"
	floorGroup   = "workers"
	floorReaders = 3
	floorBatch   = 512
)

type floorQueue struct {
	rdb redis.UniversalClient
}

func (q *floorQueue) add(ctx context.Context, to redis.Cmdable, j job) error {
	if !j.at.IsZero() {
		return errors.ErrUnsupported
	}
	return to.XAdd(ctx, &redis.XAddArgs{Stream: floorStream, Values: []any{"p", j.payload}}).Err()
}

func (q *floorQueue) submit(ctx context.Context, j job) error { return q.add(ctx, q.rdb, j) }

func (q *floorQueue) submitMany(ctx context.Context, jobs []job) error {
	return chunked(ctx, jobs, func(ctx context.Context, jobs []job) error {
		_, err := q.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, j := range jobs {
				if err := q.add(ctx, p, j); err != nil {
					return err
				}
			}
			return nil
		})
		return err
	})
}

func (q *floorQueue) start(ctx context.Context, w work) (func() error, error) {
	ctx, cancel := context.WithCancel(ctx)
	errs := make([]error, w.instances*floorReaders)
	var readers sync.WaitGroup
	for i := range errs {
		readers.Go(func() { errs[i] = q.read(ctx, w.do) })
	}
	return func() error {
		cancel()
		readers.Wait()
		return errors.Join(errs...)
	}, nil
}

// read works until ctx ends. A job that fails would be lost, so it is an error.
func (q *floorQueue) read(ctx context.Context, do handler) error {
	for ctx.Err() == nil {
		// A client that blocks is not interrupted by its context, so it blocks for a moment only.
		got, err := q.rdb.XReadGroup(ctx, &redis.XReadGroupArgs{
			Group: floorGroup, Consumer: "c", Streams: []string{floorStream, ">"}, Count: floorBatch, Block: 100 * time.Millisecond,
		}).Result()
		switch {
		case errors.Is(err, redis.Nil), errors.Is(err, context.Canceled):
			continue
		case err != nil:
			return err
		}
		entries := got[0].Messages
		ids := make([]string, len(entries))
		for i, e := range entries {
			ids[i] = e.ID
			payload, _ := e.Values["p"].(string)
			if do(1, []byte(payload)) != nil {
				return errors.ErrUnsupported
			}
		}
		if _, err := q.rdb.Pipelined(context.WithoutCancel(ctx), func(p redis.Pipeliner) error {
			p.XAck(ctx, floorStream, floorGroup, ids...)
			p.XDel(ctx, floorStream, ids...)
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func (q *floorQueue) close() error { return q.rdb.Close() }

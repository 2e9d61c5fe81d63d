package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// riverContestant works on PostgreSQL instead of Redis.
func riverContestant(server *postgres) *contestant {
	return &contestant{
		name: "river", part: 4, version: moduleVersion("github.com/riverqueue/river") + " on " + server.version,
		setting:  "1,000 workers; fetching at most every 2 ms, at least every 20 ms; fsync off",
		postgres: server,
		open: func(ctx context.Context, at place) (queue, error) {
			if at.cluster {
				return nil, errors.ErrUnsupported
			}
			dsn, err := server.database(ctx)
			if err != nil {
				return nil, err
			}
			return openRiver(ctx, dsn)
		},
	}
}

func openRiver(ctx context.Context, dsn string) (*riverQueue, error) {
	pool, err := pgxpool.New(ctx, dsn+"?pool_max_conns=32")
	if err != nil {
		return nil, err
	}
	q := &riverQueue{pool: pool}
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, errors.Join(err, q.close())
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, errors.Join(err, q.close())
	}
	q.producer, err = river.NewClient(riverpgxv5.New(pool), q.config())
	return q, err
}

type riverArgs struct {
	Payload json.RawMessage `json:"payload"`
}

func (riverArgs) Kind() string { return "bench" }

type riverWorker struct {
	river.WorkerDefaults[riverArgs]
	do handler
}

func (w *riverWorker) Work(_ context.Context, j *river.Job[riverArgs]) error {
	return w.do(j.Attempt, j.Args.Payload)
}

// NextRetry lets a failed job run again at once.
func (w *riverWorker) NextRetry(*river.Job[riverArgs]) time.Time { return time.Now() }

type riverQueue struct {
	pool     *pgxpool.Pool
	producer *river.Client[pgx.Tx]
}

func (q *riverQueue) config() *river.Config {
	return &river.Config{
		Logger: slog.New(slog.DiscardHandler), FetchCooldown: 2 * time.Millisecond, FetchPollInterval: 20 * time.Millisecond,
	}
}

func riverParams(j job) (riverArgs, *river.InsertOpts) {
	return riverArgs{j.payload}, &river.InsertOpts{ScheduledAt: j.at}
}

func (q *riverQueue) submit(ctx context.Context, j job) error {
	args, opts := riverParams(j)
	_, err := q.producer.Insert(ctx, args, opts)
	return err
}

func (q *riverQueue) submitMany(ctx context.Context, jobs []job) error {
	return chunked(ctx, jobs, func(ctx context.Context, jobs []job) error {
		params := make([]river.InsertManyParams, len(jobs))
		for i, j := range jobs {
			params[i].Args, params[i].InsertOpts = riverParams(j)
		}
		_, err := q.producer.InsertManyFast(ctx, params)
		return err
	})
}

func (q *riverQueue) start(ctx context.Context, w work) (func() error, error) {
	return startAll(w.instances, func() (func() error, error) {
		workers := river.NewWorkers()
		river.AddWorker(workers, &riverWorker{do: w.do})
		config := q.config()
		config.Workers = workers
		config.Queues = map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: cmp.Or(w.workers, 1000)}}
		client, err := river.NewClient(riverpgxv5.New(q.pool), config)
		if err != nil {
			return nil, err
		}
		return func() error { return client.Stop(context.WithoutCancel(ctx)) }, client.Start(ctx)
	})
}

func (q *riverQueue) close() error {
	q.pool.Close()
	return nil
}

package faults_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
)

// exhaust sets the server's limit below whatever it may have in use: the ends of
// connections and the buffers of quiet ones would make room again.
func exhaust(t testing.TB, rdb *redis.Client) {
	t.Helper()
	set("maxmemory", "1")(t, rdb)
	require.ErrorContains(t, rdb.Set(t.Context(), "x", "y", 0).Err(), "OOM")
}

// B8: the server is out of memory for longer than a lease. It refuses new
// jobs, with an error that says so; what runs is settled, what fails is planned
// again and runs, mutexes are handed over, and leases are kept.
func TestB8_OutOfMemory(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t, "maxmemory-policy noeviction")
	admin := server.Client(t)
	w := newWorld(t, admin, unhurried)
	var running, failed atomic.Int64
	release := make(chan struct{})
	hold := func(ctx context.Context, _ *carillon.Execution) error {
		running.Add(1)
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	h := handlers{
		"work": work,
		"hold": hold,
		"fails once": func(ctx context.Context, x *carillon.Execution) error {
			if x.Failures > 0 {
				return nil
			}
			_ = hold(ctx, x)
			failed.Add(1)
			return errors.New("no")
		},
	}
	var log noise
	var s *carillon.Scheduler
	for range 2 {
		s = w.instance(server.Client(t), h, log.heard)
	}
	w.load(s, 8, carillon.Job{Name: "hold"})
	w.load(s, 8, carillon.Job{Name: "fails once"})
	w.load(s, 3, carillon.Job{Name: "hold", Mutex: "m"})
	w.load(s, 8, carillon.Job{Name: "work", Delay: time.Second})
	before := w.queue.Acked()
	w.eventually("jobs run", func() bool { return running.Load() == 17 })

	exhaust(t, admin)
	w.fault(1)
	w.passes(w.lease + w.lease/4)
	for _, job := range []carillon.Job{{Name: "work"}, {Name: "work", Delay: time.Hour}, {Name: "work", Queue: "new"}, {Name: "work", Mutex: "m"}} {
		_, err := w.submit(s, job)
		require.ErrorIs(t, err, carillon.ErrUnavailable)
		assert.NotErrorIs(t, err, carillon.ErrUncertain)
		assert.ErrorContains(t, err, "out of memory")
	}
	var waits noise
	late := w.scheduler(server.Client(t), waits.heard)
	for name, f := range h {
		require.NoError(t, late.Handle(name, f))
	}
	started := make(chan error, 1)
	go func() { started <- late.Start(t.Context()) }()
	close(release)
	w.settled()
	w.eventually("a new instance waits", func() bool { return len(waits.of("waiting for Redis")) > 0 })
	require.ErrorContains(t, admin.Set(t.Context(), "x", "y", 0).Err(), "OOM", "it lasted until the end")
	assert.EqualValues(t, 8, failed.Load())
	for _, id := range before {
		info, err := w.get(id)
		require.NoError(t, err)
		assert.Equal(t, carillon.StateSucceeded, info.State)
		assert.Zero(t, info.Losses)
		assert.Len(t, w.queue.Runs(id), 1+info.Failures, "%+v", info.Attempts)
	}
	assert.Empty(t, log.of("declared dead"))

	set("maxmemory", "0")(t, admin)
	require.NoError(t, receive(t, started))
	w.load(s, 30, carillon.Job{Name: "work"})
	w.finish(57)
}

// B9: a server that may evict anything is refused at the start; one that may
// evict what has a time to live, which is leases, is complained about.
func TestB9_EvictionPolicy(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t)
	admin := server.Client(t)
	w := newWorld(t, admin)
	for _, policy := range []string{"allkeys-lru", "allkeys-lfu", "allkeys-random"} {
		set("maxmemory-policy", policy)(t, admin)
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		err := w.scheduler(server.Client(t)).Start(ctx)
		cancel()
		require.ErrorContains(t, err, policy)
		assert.ErrorContains(t, err, "noeviction", "it says what to do")
		w.fault(1)
	}
	for _, policy := range []string{"volatile-lru", "volatile-ttl", "noeviction"} {
		set("maxmemory-policy", policy)(t, admin)
		var log noise
		s := w.instance(server.Client(t), handlers{"work": work}, log.heard)
		if policy != "noeviction" {
			assert.Len(t, log.of("maxmemory-policy"), 1)
			assert.Len(t, log.of(policy), 1)
		} else {
			assert.Empty(t, log.of("maxmemory-policy"))
		}
		w.load(s, 10, carillon.Job{Name: "work"})
	}
	w.finish(30)
}

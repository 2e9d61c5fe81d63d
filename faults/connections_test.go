package faults_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
)

// cut ends the connections of everybody else and returns how many.
func cut(t testing.TB, admin *redis.Conn) int {
	t.Helper()
	n := 0
	for _, kind := range []string{"normal", "pubsub"} {
		killed, err := admin.ClientKillByFilter(t.Context(), "TYPE", kind, "SKIPME", "yes").Result()
		require.NoError(t, err)
		n += int(killed)
	}
	return n
}

// conn returns one connection, for a client whose others are cut.
func conn(t testing.TB, rdb *redis.Client) *redis.Conn {
	t.Helper()
	c := rdb.Conn()
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.Ping(t.Context()).Err())
	return c
}

// B10: strangers take every connection the server has while the instance lost
// its own. It tries again at a bounded rate, keeps nothing open, says so now and
// then, and goes on when there is room.
func TestB10_TooManyClients(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t)
	w := newWorld(t, server.Client(t), func(w *world) { w.lease = 5 * time.Second }) // the fault is shorter
	admin := conn(t, server.Client(t))
	var l line
	var log noise
	s := w.instance(l.client(t, server), handlers{"work": work}, log.heard)
	w.load(s, 50, carillon.Job{Name: "work"})
	w.settled()
	w.load(s, 20, carillon.Job{Name: "work", Delay: 500 * time.Millisecond})
	usual := l.open.Load()

	cut(t, admin)
	require.NoError(t, admin.ConfigSet(t.Context(), "maxclients", "1").Err())
	w.passes(200 * time.Millisecond)
	cut(t, admin) // who had been quicker
	w.fault(1)
	before, began := l.dials.Load(), time.Now()
	w.passes(1500 * time.Millisecond)
	rate := float64(l.dials.Load()-before) / time.Since(began).Seconds()
	t.Logf("%d connections before; %.1f dials/s, %d open, %d lines", usual, rate, l.open.Load(), len(log.of("")))
	assert.Positive(t, rate, "it tries again")
	assert.Less(t, rate, 50.0, "dials per second")
	assert.LessOrEqual(t, l.open.Load(), usual+5, "nothing is left open")
	_, err := w.submit(s, carillon.Job{Name: "work"})
	require.Error(t, err)
	t.Logf("submit: %v", err)
	assert.LessOrEqual(t, len(log.of("")), 8, "%v", log.of(""))

	require.NoError(t, admin.ConfigSet(t.Context(), "maxclients", "1000").Err())
	w.load(s, 50, carillon.Job{Name: "work"})
	w.settled()
	w.once()
	assert.LessOrEqual(t, l.open.Load(), usual+5)
	w.finish(120)
}

// B11: every connection is cut, every 50 ms, while jobs are submitted, awaited
// and executed. Whatever was under way is found out: each job is executed once.
func TestB11_ConnectionsCut(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t)
	w := newWorld(t, server.Client(t), func(w *world) { w.lease = 10 * time.Second }) // no fault is as long
	admin := conn(t, server.Client(t))
	producer := w.scheduler(server.Client(t))
	for range 2 {
		w.instance(server.Client(t), handlers{"work": work})
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	var cuts, rounds atomic.Int64
	all.Go(func() {
		for wait(ctx, 50*time.Millisecond) == nil {
			cuts.Add(int64(cut(t, admin)))
			rounds.Add(1)
		}
	})
	for n := 0; n < 3 || rounds.Load() < often(20); n++ {
		w.load(producer, 20, carillon.Job{Name: "work"})
		w.load(producer, 5, carillon.Job{Name: "work", Delay: 30 * time.Millisecond})
		w.load(producer, 5, carillon.Job{Name: "work", Mutex: "m"})
		w.passes(30 * time.Millisecond)
	}
	cancel()
	all.Wait()
	t.Logf("%d connections cut in %d rounds", cuts.Load(), rounds.Load())
	assert.Greater(t, cuts.Load(), 2*rounds.Load(), "connections of instances were among them")
	w.fault(int(cuts.Load()))
	w.settled()
	w.once()
	w.finish(60)
}

// B19: the caller's client has a single connection, the network is slow, and
// handlers, waiters for locks and awaiters use it all the time. Heartbeats and
// outcomes do not stand in line with them, so every lease is renewed in time.
func TestB19_SmallPool(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t)
	w := newWorld(t, server.Client(t))
	l := line{delay: 10 * time.Millisecond}
	tiny := l.client(t, server, func(o *redis.Options) { o.PoolSize = 1 })
	begin, release := make(chan struct{}), make(chan struct{})
	var running, progress atomic.Int64
	h := handlers{
		"busy": func(ctx context.Context, x *carillon.Execution) error {
			running.Add(1)
			<-begin
			for n := 0; ; n++ {
				select {
				case <-release:
					return nil
				case <-ctx.Done():
					return context.Cause(ctx)
				default:
				}
				if x.Progress(ctx, n) == nil {
					progress.Add(1)
				}
			}
		},
		"work": work,
	}
	const busy = 100
	s := w.instance(tiny, h, func(c *carillon.Config) { c.Concurrency = busy + 4 })
	producer := w.scheduler(server.Client(t))
	w.load(producer, busy, carillon.Job{Name: "busy"})
	w.eventually("all run", func() bool { return running.Load() == busy })
	close(begin)
	ctx, cancel := context.WithCancel(t.Context())
	var waiters sync.WaitGroup
	defer waiters.Wait()
	defer cancel()
	held, err := producer.TryLock(t.Context(), "held")
	require.NoError(t, err)
	for _, id := range w.queue.Acked()[:20] {
		waiters.Go(func() { _, _ = s.Await(ctx, id) })
		waiters.Go(func() { _, _ = s.Lock(ctx, "held") })
	}
	w.eventually("they use the connection", func() bool { return progress.Load() > 10 })
	w.fault(1)
	var last time.Time
	beats, began := 0, time.Now()
	w.eventually("heartbeats get through, for two leases", func() bool {
		all, err := producer.Instances(t.Context())
		require.NoError(t, err)
		require.Len(t, all, 1)
		if all[0].Heartbeat.After(last) {
			last = all[0].Heartbeat
			beats++
		}
		return beats > 6
	})
	t.Logf("%d heartbeats in %v, %d reports of progress, %d dials", beats, time.Since(began), progress.Load(), l.dials.Load())
	settled := time.Now()
	close(release)
	w.settled()
	t.Logf("%d outcomes took %v", busy, time.Since(settled))
	cancel()
	waiters.Wait()
	_ = held.Release(t.Context()) // it is another's when the machine stalled
	w.finish(busy)
}

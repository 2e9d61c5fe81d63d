package faults_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
)

// A14: a worker is killed and started again, under a new ID each time, while
// jobs run. What the dead ones leave is gone soon: registrations, consumers,
// pending entries, keys.
func TestA14_ManyRestarts(t *testing.T) {
	t.Parallel()
	rounds := 30
	if full {
		rounds = 1000
	}
	server := redistest.Single(t) // to count its keys
	c := newCrew(t, server)
	steady := c.worker()
	done, loaded := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(loaded)
		for !isClosed(done) && t.Context().Err() == nil {
			c.persist(c.producer, carillon.Job{Name: "work", Retain: time.Hour})
			_ = wait(t.Context(), 3*time.Millisecond)
		}
	}()
	random := dice(t)
	var peak, sum int
	var begun time.Time
	for round := range rounds {
		p := c.worker()
		_ = wait(t.Context(), time.Duration(random.IntN(20))*time.Millisecond)
		c.kill(p)
		all, err := c.observer.Instances(t.Context())
		require.NoError(t, err)
		peak = max(peak, len(all))
		sum += len(all)
		if round == 0 {
			begun = time.Now()
		}
	}
	each := time.Since(begun) / time.Duration(rounds-1)
	close(done)
	<-loaded
	c.settled()
	c.buried()

	// The steady one, the last one, and those that died within the time in which they
	// must be noticed.
	within := c.lease + c.lease/3 + time.Second
	assert.LessOrEqual(t, sum/rounds, 2+int(within/each), "instances that are remembered")
	consumers, err := c.admin.XInfoConsumers(t.Context(), "{"+c.namespace+":0}:q:n:default", "w").Result()
	require.NoError(t, err)
	assert.Len(t, consumers, 1, "consumers: the one that lives")
	assert.False(t, steady.Exited())
	jobs := len(c.queue.Acked())
	keys, err := c.admin.DBSize(t.Context()).Result()
	require.NoError(t, err)
	assert.Less(t, int(keys)-jobs, 30, "keys that are no records of jobs")
	t.Logf("A14: %d restarts, one each %v: at most %d instances known, %d jobs", rounds, each.Round(time.Millisecond), peak, jobs)
	c.finish(50)
}

// A17: many jobs fail at the same moment. Their retries are spread over the whole
// delay, and none is outside of it. When all of them are made due at once all the
// same, Redis is not asked more often than needed.
func TestA17_RetryStorm(t *testing.T) {
	t.Parallel()
	n := 2000
	if full {
		n = 10_000
	}
	const delay = time.Hour
	server := redistest.Single(t) // to count its scripts
	w := newWorld(t, server.Client(t), func(w *world) { w.lease = 5 * time.Second })
	failures := make(chan struct{})
	s := w.instance(server.Client(t), handlers{"storm": func(ctx context.Context, x *carillon.Execution) error {
		if x.Failures > 0 {
			return nil
		}
		select {
		case <-failures:
		case <-ctx.Done():
		}
		return errors.New("all at once")
	}}, func(c *carillon.Config) {
		c.Concurrency = n
		c.Retry = carillon.Retry{Initial: delay}
	})
	ids := w.batch(s, slices.Repeat([]carillon.Job{{Name: "storm"}}, n))
	counts := func(of func(carillon.Counts) int) func() bool {
		return func() bool {
			all, err := s.Counts(t.Context())
			return err == nil && of(all) == n
		}
	}
	w.eventually("all of them run", counts(func(c carillon.Counts) int { return c.Running }))
	before := scripts(t, w)
	failed := time.Now()
	close(failures)
	w.fault(1)
	w.eventually("all of them have failed", counts(func(c carillon.Counts) int { return c.Scheduled + c.Succeeded }))

	var histogram [10]int
	for j, err := range w.observer.List(t.Context(), carillon.Filter{States: []carillon.State{carillon.StateRetrying}}) {
		require.NoError(t, err)
		d := j.DueAt.Sub(j.Attempts[0].FinishedAt)
		require.GreaterOrEqual(t, d, time.Duration(0))
		require.Less(t, d, delay+time.Second) // FinishedAt is in whole milliseconds
		histogram[min(d*10/delay, 9)]++
	}
	for i, count := range histogram {
		assert.Greater(t, count, n/14, "tenth %d of the delay", i)
		assert.Less(t, count, n/7, "tenth %d of the delay", i)
	}

	var hurrying sync.WaitGroup
	errs := make(chan error, n)
	for some := range slices.Chunk(ids, n/8) {
		hurrying.Go(func() {
			for _, id := range some {
				// One that fell due by itself has succeeded.
				if err := s.RunNow(t.Context(), id); err != nil && !errors.Is(err, carillon.ErrState) {
					errs <- err
				}
			}
		})
	}
	hurrying.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	w.eventually("all of them succeed", counts(func(c carillon.Counts) int { return c.Succeeded }))
	asked := scripts(t, w) - before
	t.Logf("A17: %d jobs failed together; retries in tenths of the delay: %v; %d scripts until they were done, %d of which to hurry them (%v)",
		n, histogram, asked, n, time.Since(failed).Round(time.Millisecond))
	assert.Less(t, asked, 3*n, "scripts")
	w.finish(n)
}

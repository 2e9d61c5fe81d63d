package faults_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/faultnet"
	"github.com/carillon-go/carillon/internal/redistest"
)

// F6: many small jobs, and many schedules with the same tick, while one of three
// instances is cut off for good. No command holds Redis up for long.
func TestF6_ManyJobsAndSchedules(t *testing.T) {
	t.Parallel()
	jobs, schedules := 5_000, 300
	if full {
		jobs, schedules = 1_000_000, 10_000
	}
	server := redistest.Single(t, "slowlog-log-slower-than 20000", "slowlog-max-len 1000")
	w := newWorld(t, server.Client(t), func(w *world) { w.lease = 2 * time.Second })
	producer := w.scheduler(w.admin)
	nothing := handlers{"work": func(context.Context, *carillon.Execution) error { return nil }}
	n := faultnet.New(t, seed)
	w.instance(n.Client(t, server.Client(t)), nothing)
	for range 2 {
		w.instance(server.Client(t), nothing)
	}

	tick := time.Now().Add(time.Duration(schedules)*8*time.Millisecond + 6*time.Second)
	var stored atomic.Int64
	var storing sync.WaitGroup
	for range 8 {
		storing.Go(func() {
			for n := stored.Add(1); n <= int64(schedules); n = stored.Add(1) {
				err := producer.Schedule(t.Context(), carillon.Schedule{
					Name: fmt.Sprint("s", n), Spec: carillon.At(tick), Job: carillon.Job{Name: "work"},
				})
				if !assert.NoError(t, err, "unless the machine is so busy that the tick has passed") {
					return
				}
			}
		})
	}
	storing.Wait()
	t.Logf("F6: the schedules were stored %v before their tick", time.Until(tick).Round(time.Millisecond))
	w.queue.Made(scheduled)
	const batch = 1000
	for i := 0; i < jobs; i += batch {
		many := make([]carillon.Job, batch)
		for j := range many {
			many[j] = carillon.Job{Name: "work"}
		}
		receipts, err := producer.SubmitMany(t.Context(), many)
		require.NoError(t, err)
		for _, r := range receipts {
			w.queue.Submitted(r.ID, nil)
		}
		if i <= jobs/2 && jobs/2 < i+batch {
			n.Set(faultnet.Faults{Up: true, Down: true})
		}
	}

	w.succeeded(jobs+schedules, time.Duration(jobs)*200*time.Microsecond+soon)
	w.fault(min(1, n.Took()))
	ticks, err := listed(t.Context(), w.observer)
	require.NoError(t, err)
	var latest time.Time
	for _, j := range ticks {
		if at := j.Attempts[0].StartedAt; at.After(latest) {
			latest = at
		}
	}
	assert.Len(t, ticks, schedules, "each schedule has one job")
	t.Logf("F6: %d jobs; %d schedules of one tick, the last one started %v after it", jobs, schedules, latest.Sub(tick).Round(time.Millisecond))
	log, err := server.Client(t).SlowLogGet(t.Context(), -1).Result()
	require.NoError(t, err)
	var worst redis.SlowLog
	for _, one := range log {
		if one.Duration > worst.Duration {
			worst = one
		}
	}
	t.Logf("F6: %d commands took more than 20ms, the longest one %v: %.60q", len(log), worst.Duration, worst.Args)
	// A busy machine stops Redis in the middle of a command for longer than the
	// command takes, and other tests run at the same time.
	assert.Less(t, worst.Duration, time.Second, "%.60q", worst.Args)
	n.Set(faultnet.Faults{})
	w.finish(jobs)
}

// succeeded waits until so many jobs have.
func (w *world) succeeded(n int, within time.Duration) {
	w.t.Helper()
	require.Eventually(w.t, func() bool {
		c, err := w.observer.Counts(w.t.Context())
		return err == nil && c.Succeeded >= n
	}, within, 50*time.Millisecond, "everything is done")
}

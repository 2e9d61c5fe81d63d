package faults_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/proctest"
	"github.com/carillon-go/carillon/internal/redistest"
	"github.com/carillon-go/carillon/internal/verify"
)

// A12: the wall clocks of all workers are wrong, by 5 minutes and by a day, some
// slow and some fast. Nothing starts early or late, nothing expires that should
// not, ticks come once and on time, and no lease is lost.
func TestA12_WallClocksWrong(t *testing.T) {
	t.Parallel()
	if !canSkew {
		t.Skip("the wall clock of a process can be set on linux/amd64 only")
	}
	c := newCrew(t, redistest.Shared(t), unhurried)
	const day = 24 * time.Hour
	for _, skew := range []time.Duration{5 * time.Minute, -5 * time.Minute, day, -day} {
		c.worker(func(a *workerArgs) { a.Skew = skew })
		c.fault(1)
	}
	const late = 5 * time.Second // a busy machine; the clocks are off by far more

	// A mutex is held for a lease: who thinks that it was lost would let go.
	held := c.persist(c.producer, carillon.Job{Name: "hold", Mutex: "m"})
	heldAt := c.await(1, starts(held)).At

	// Delays that workers with wrong clocks ask for.
	var parents []string
	spawners := map[int]bool{}
	for range 20 {
		parents = append(parents, c.persist(c.producer, carillon.Job{Name: "spawn"}))
	}
	c.eventually("each worker has a part", func() bool {
		for _, l := range c.lines(func(l proctest.Line) bool { return l.Event == "start" && slices.Contains(parents, l.Job) }) {
			spawners[l.PID] = true
		}
		if len(spawners) < len(c.workers) {
			parents = append(parents, c.persist(c.producer, carillon.Job{Name: "spawn"}))
		}
		return len(spawners) == len(c.workers)
	})
	due := map[string]time.Duration{} // by Uptime
	for i := range 20 {
		at := time.Now().Add(time.Duration(i) * 50 * time.Millisecond).Truncate(time.Millisecond)
		due[c.persist(c.producer, carillon.Job{Name: "work", RunAt: at, ExpiresAt: at.Add(time.Hour)})] = proctest.Uptime() + time.Until(at)
	}
	// These expire before anybody may start them.
	var expired []string
	for range 5 {
		expired = append(expired, c.persist(c.producer, carillon.Job{
			Name: "work", Delay: 300 * time.Millisecond, ExpiresAt: time.Now().Add(100 * time.Millisecond),
		}))
	}
	var ticks []time.Time
	for i := range 4 {
		ticks = append(ticks, time.Now().Add(2*time.Second+time.Duration(i)*400*time.Millisecond).Truncate(time.Millisecond))
	}
	c.queue.Made(func(id string) bool { return strings.HasPrefix(id, "ticks~") || strings.HasPrefix(id, "child ") })
	require.NoError(t, c.producer.Schedule(t.Context(), carillon.Schedule{
		Name: "ticks", Spec: carillon.At(ticks...), Job: carillon.Job{Name: "work"},
	}))

	for _, parent := range parents {
		begun := c.await(1, starts(parent))
		child := c.await(1, starts("child "+parent))
		assert.Greater(t, child.At-begun.At, childDelay-5*time.Millisecond)
		assert.Less(t, child.At-begun.At, childDelay+late)
	}
	for id, at := range due {
		started := c.await(1, starts(id))
		assert.Greater(t, started.At, at-5*time.Millisecond, "early")
		assert.Less(t, started.At, at+late, "late")
	}
	// On a busy machine a fire can come after the next tick, and stand for both.
	var fired []*carillon.JobInfo
	c.eventually("the ticks are fired", func() bool {
		fired = c.listed(func(j *carillon.JobInfo) bool { return j.Schedule == "ticks" && j.State.Final() })
		return len(fired) == len(ticks) || len(fired) > 0 && time.Since(ticks[len(ticks)-1]) > late
	})
	missing := func(finding string) bool { return strings.HasSuffix(finding, "has no job") }
	assert.Empty(t, slices.DeleteFunc(verify.Ticks(ticks, fired, late), missing))
	for _, id := range expired {
		c.eventually("it is final", func() bool { return c.ended(id) })
		info, err := c.get(id)
		require.NoError(t, err)
		assert.Equal(t, carillon.StateExpired, info.State)
	}
	c.eventually("a lease has passed", func() bool { return proctest.Uptime() > heldAt+c.lease })
	c.open()
	require.NoError(t, c.producer.Unschedule(t.Context(), "ticks"))
	c.finish(46)
	assert.Len(t, c.lines(starts(held)), 1)
	for _, p := range c.workers {
		for _, trouble := range []string{"declared dead", "reclaimed the work", carillon.ErrLeaseLost.Error()} {
			assert.NotContains(t, p.Log(), trouble)
		}
	}
}

// childDelay is what spawn asks for.
const childDelay = 200 * time.Millisecond

// spawn is a handler that submits another job.
func (c *clerk) spawn(ctx context.Context, x *carillon.Execution) error {
	_, err := c.scheduler.Submit(ctx, carillon.Job{Name: "work", ID: "child " + x.ID, Delay: childDelay})
	if err == nil {
		err = wait(ctx, 50*time.Millisecond) // so that all workers get some
	}
	return err
}

// listed returns the jobs that match.
func (c *crew) listed(match func(*carillon.JobInfo) bool) []*carillon.JobInfo {
	c.t.Helper()
	var jobs []*carillon.JobInfo
	seen := map[string]bool{} // a job that ends meanwhile is listed where it was and where it is
	for j, err := range c.observer.List(c.t.Context(), carillon.Filter{}) {
		if err != nil {
			c.t.Log(fmt.Errorf("list: %w", err)) // the caller asks again
			return nil
		}
		if match(j) && !seen[j.ID] {
			seen[j.ID] = true
			jobs = append(jobs, j)
		}
	}
	return jobs
}

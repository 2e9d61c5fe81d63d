package faults_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/proctest"
	"github.com/carillon-go/carillon/internal/redistest"
	"github.com/carillon-go/carillon/internal/verify"
)

// A1: a worker is killed while its handlers run. All its jobs run elsewhere
// within one and a half leases, under larger tokens.
func TestA1_WorkerKilled(t *testing.T) {
	// Not parallel: its bounds are those of a promise, whatever other rows do to the machine.
	workerKilled(t, 2*time.Second)
}

// A1 with the default lease.
func TestA1_WorkerKilledDefaultLease(t *testing.T) {
	onlyFull(t)
	t.Parallel()
	for range 3 {
		workerKilled(t, 10*time.Second)
	}
}

func workerKilled(t *testing.T, lease time.Duration) {
	c := newCrew(t, redistest.Shared(t), func(w *world) { w.lease = lease })
	victim := c.worker()
	ids := c.batch(c.producer, slices.Repeat([]carillon.Job{{Name: "hold"}}, 10))
	c.await(len(ids), func(l proctest.Line) bool { return l.Event == "start" })
	other := c.worker()
	c.kill(victim)
	killed := proctest.Uptime()
	var slowest time.Duration
	for _, id := range ids {
		again := c.await(2, starts(id))
		first := c.lines(starts(id))[0]
		assert.Equal(t, victim.PID(), first.PID)
		assert.Equal(t, other.PID(), again.PID)
		assert.Greater(t, again.Token, first.Token)
		slowest = max(slowest, again.At-killed)
	}
	assert.LessOrEqual(t, slowest, lease*3/2)
	t.Logf("A1: lease %v: %d jobs ran elsewhere %v after kill -9", lease, len(ids), slowest.Round(time.Millisecond))
	c.open()
	c.finish(len(ids))
}

// A1: the instance that promotes is killed. Whatever falls due is promoted by
// another one, late by one look at most. With a lease of 3 s or more the looks
// are 1 s apart, as with the default.
func TestA1_PromoterKilled(t *testing.T) {
	// Not parallel: its bounds are those of a promise, whatever other rows do to the machine.
	promoterKilled(t, 3*time.Second)
}

// A1 with the default lease.
func TestA1_PromoterKilledDefaultLease(t *testing.T) {
	onlyFull(t)
	t.Parallel()
	for range 3 {
		promoterKilled(t, 10*time.Second)
	}
}

func promoterKilled(t *testing.T, lease time.Duration) {
	const bound = 1500 * time.Millisecond
	c := newCrew(t, redistest.Shared(t), func(w *world) { w.lease = lease })
	byPID := map[int]*proctest.Process{}
	for range 3 {
		p := c.worker()
		byPID[p.PID()] = p
	}
	require.NoError(t, wait(t.Context(), lease*2/3)) // each instance has heard of the others
	var owner *proctest.Process
	c.eventually("somebody owns the segment", func() bool {
		owner = byPID[c.promoter()]
		return owner != nil
	})
	var jobs []carillon.Job
	for i := range 40 {
		at := time.Now().Add(500*time.Millisecond + time.Duration(i)*50*time.Millisecond).Truncate(time.Millisecond)
		jobs = append(jobs, carillon.Job{Name: "work", RunAt: at})
	}
	due := map[string]time.Duration{} // by Uptime
	for i, id := range c.batch(c.producer, jobs) {
		due[id] = proctest.Uptime() + time.Until(jobs[i].RunAt)
	}
	c.kill(owner)
	killed := proctest.Uptime()
	var latest time.Duration
	after := 0
	for id, at := range due {
		started := c.await(1, starts(id))
		assert.Greater(t, started.At, at-5*time.Millisecond, "early")
		if started.PID != owner.PID() && at > killed {
			after++
			latest = max(latest, started.At-at)
		}
	}
	assert.Greater(t, after, 20, "jobs that fell due after the kill")
	assert.LessOrEqual(t, latest, bound)
	t.Logf("A1: lease %v: %d due jobs were at most %v late after kill -9 of the promoter", lease, after, latest.Round(time.Millisecond))
	c.finish(len(due))
}

// promoter returns the process that owns segment 0, or 0. The lease of a
// segment names its owner's ID and a token.
func (c *crew) promoter() int {
	key := fmt.Sprintf("{%s:0}:k:%%00segment/0", c.namespace)
	holder, err := c.admin.Get(c.t.Context(), key).Result()
	if err != nil {
		return 0
	}
	all, err := c.observer.Instances(c.t.Context())
	require.NoError(c.t, err)
	for _, i := range all {
		if strings.Contains(holder, i.ID) {
			return i.PID
		}
	}
	return 0
}

// A2: a worker dies after its handler succeeded and before it says so. The job
// runs once more, and one outcome counts.
func TestA2_DiesBeforeSettle(t *testing.T) {
	t.Parallel()
	c := newCrew(t, redistest.Shared(t))
	victim := c.worker()
	id := c.persist(c.producer, carillon.Job{Name: "die before"})
	requireKilled(t, victim)
	c.fault(1)
	first := c.await(1, func(l proctest.Line) bool { return l.Job == id && l.Event == "return" })
	assert.Equal(t, "<nil>", first.Note)

	other := c.worker()
	again := c.await(2, starts(id))
	assert.Equal(t, other.PID(), again.PID)
	assert.Greater(t, again.Token, first.Token)
	c.finish(1)
	assert.Len(t, c.lines(starts(id)), 2)
	info, err := c.get(id)
	require.NoError(t, err)
	assert.Equal(t, 1, info.Losses)
	assert.Equal(t, carillon.StateSucceeded, info.State)
}

// A3: a worker dies after Redis recorded the outcome and before it reads so. The
// job does not run again.
func TestA3_DiesAfterSettle(t *testing.T) {
	t.Parallel()
	c := newCrew(t, redistest.Shared(t))
	victim := c.worker()
	id := c.persist(c.producer, carillon.Job{Name: "die after"})
	requireKilled(t, victim)
	c.fault(1)
	info, err := c.get(id)
	require.NoError(t, err)
	assert.Equal(t, carillon.StateSucceeded, info.State)

	c.worker()
	c.finish(1)
	assert.Len(t, c.lines(starts(id)), 1)
}

func requireKilled(t *testing.T, p *proctest.Process) {
	t.Helper()
	how := p.Wait(t, soon).Sys().(syscall.WaitStatus) //nolint:errcheck // that is its type
	require.Equal(t, syscall.SIGKILL, how.Signal())
}

// A5: a worker is paused for longer than its lease. Another one does the job;
// when the first one wakes, its context ends, and everything it still tries is
// refused: the effect by the register, progress and outcome by Redis.
func TestA5_PausedBeyondLease(t *testing.T) {
	t.Parallel()
	c := newCrew(t, redistest.Shared(t))
	register := verify.NewRegister(t)
	known := func(a *workerArgs) { a.Register = register.Addr() }
	sleeper := c.worker(known)
	id := c.persist(c.producer, carillon.Job{Name: "effect"})
	first := c.await(1, starts(id))
	other := c.worker(known)
	sleeper.Stop(t)
	again := c.await(2, starts(id))
	require.Equal(t, other.PID(), again.PID)
	assert.Greater(t, again.Token, first.Token)
	c.open()
	c.eventually("the second attempt succeeds", func() bool {
		info, err := c.get(id)
		return err == nil && info.State == carillon.StateSucceeded
	})
	sleeper.Cont(t)
	c.fault(1)

	of := func(p *proctest.Process, event string) proctest.Line {
		return c.await(1, func(l proctest.Line) bool { return l.PID == p.PID() && l.Job == id && l.Event == event })
	}
	assert.Equal(t, "true", of(other, "effect").Note)
	assert.Equal(t, "false", of(sleeper, "effect").Note)
	assert.Contains(t, of(sleeper, "progress").Note, carillon.ErrFenced.Error())
	assert.Equal(t, carillon.ErrLeaseLost.Error(), of(sleeper, "stopped").Note)
	assert.Equal(t, "<nil>", of(sleeper, "return").Note, "it claims success")
	c.eventually("its outcome is refused", func() bool {
		return strings.Contains(sleeper.Log(), "an outcome was refused, the job has moved on")
	})
	assert.Equal(t, []verify.Access{
		{Key: id, Token: again.Token, Value: other.PID()},
		{Key: id, Token: first.Token, Largest: again.Token, Value: sleeper.PID(), Refused: true},
	}, register.Log())

	c.finish(1)
	info, err := c.get(id)
	require.NoError(t, err)
	assert.Equal(t, 2, info.Attempt)
	assert.Equal(t, again.Token, info.Attempts[1].Token)
}

// A5: a worker that is paused while it is idle has a read waiting in Redis,
// which would take jobs after its lease has lapsed. They must not be stuck.
func TestA5_PausedIdle(t *testing.T) {
	t.Parallel()
	c := newCrew(t, redistest.Shared(t))
	sleeper := c.worker()
	sleeper.Stop(t)
	c.worker()
	c.eventually("the paused instance is taken for dead", func() bool {
		all, err := c.observer.Instances(t.Context())
		return err == nil && len(all) == 1
	})
	var ids []string
	begun := proctest.Uptime()
	for range 20 {
		ids = append(ids, c.persist(c.producer, carillon.Job{Name: "work"}))
	}
	for _, id := range ids {
		assert.LessOrEqual(t, c.await(1, starts(id)).At-begun, soon/2)
	}
	c.fault(1)
	sleeper.Cont(t)
	c.finish(len(ids))
}

// A6: a worker is paused for less than its lease. Nobody takes its job.
func TestA6_PausedWithinLease(t *testing.T) {
	// Not parallel: its bounds are those of a promise, whatever other rows do to the machine.
	c := newCrew(t, redistest.Shared(t), func(w *world) { w.lease = 3 * time.Second })
	sleeper := c.worker()
	id := c.persist(c.producer, carillon.Job{Name: "hold"})
	c.await(1, starts(id))
	c.worker()
	for range 3 {
		sleeper.Stop(t)
		require.NoError(t, wait(t.Context(), c.lease*4/10))
		sleeper.Cont(t)
		c.fault(1)
		// The next pause begins after a heartbeat.
		c.eventually("the lease is renewed", func() bool { return c.remaining(sleeper) > c.lease*9/10 })
	}
	c.open()
	c.finish(1)
	assert.Len(t, c.lines(starts(id)), 1)
}

// remaining is what is left of a worker's lease.
func (c *crew) remaining(p *proctest.Process) time.Duration {
	all, err := c.observer.Instances(c.t.Context())
	require.NoError(c.t, err)
	for _, i := range all {
		if i.PID == p.PID() {
			return c.lease - time.Since(i.Heartbeat)
		}
	}
	return 0
}

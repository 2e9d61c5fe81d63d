package faults_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/proctest"
	"github.com/carillon-go/carillon/internal/redistest"
)

// supervise keeps n workers alive until done says so. It returns how many died.
func (c *crew) supervise(n int, done func() bool) (deaths int) {
	c.t.Helper()
	alive := map[*proctest.Process]bool{}
	for begun := time.Now(); !done(); {
		require.Less(c.t, time.Since(begun), soon, "still not done")
		for p := range alive {
			if p.Exited() {
				delete(alive, p)
				deaths++
			}
		}
		for len(alive) < n {
			alive[c.worker()] = true
		}
		require.NoError(c.t, wait(c.t.Context(), 5*time.Millisecond))
	}
	return deaths
}

// poisoned gives leases in which a busy machine has begun what it was handed, and
// which still end soon enough.
func poisoned(w *world) { w.lease = 2 * time.Second }

// A9: a job kills every process that runs it. It is dead after three losses, and
// others run meanwhile.
func TestA9_Poison(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"exit", "fatal"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCrew(t, redistest.Shared(t), poisoned)
			poison := c.persist(c.producer, carillon.Job{Name: name})
			done, loaded := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(loaded)
				for !isClosed(done) && t.Context().Err() == nil {
					c.persist(c.producer, carillon.Job{Name: "work"})
					_ = wait(t.Context(), 5*time.Millisecond)
				}
			}()
			c.fault(c.supervise(2, func() bool { return c.ended(poison) }))
			close(done)
			<-loaded
			others := slices.DeleteFunc(c.queue.Acked(), func(id string) bool { return id == poison })
			c.supervise(1, func() bool { return c.ended(others...) })
			c.dead(poison)
			c.succeeded(others...)
			c.finish(20)
		})
	}
}

// A9: a job kills its process while others are in hand there, and all of them go
// to the next worker together. They must not be taken for what kills it.
func TestA9_Bystanders(t *testing.T) {
	t.Parallel()
	c := newCrew(t, redistest.Shared(t), poisoned)
	var bystanders []string
	for range 10 {
		bystanders = append(bystanders, c.persist(c.producer, carillon.Job{Name: "nap"}))
	}
	poison := c.persist(c.producer, carillon.Job{Name: "exit"})
	c.fault(c.supervise(2, func() bool { return c.ended(append(bystanders, poison)...) }))
	c.dead(poison)
	c.succeeded(bystanders...)
	lost := 0
	for _, id := range bystanders {
		info, err := c.get(id)
		require.NoError(t, err)
		lost = max(lost, info.Losses)
	}
	assert.Equal(t, 2, lost, "some were there when it killed twice")
	c.finish(11)
}

func (c *crew) ended(ids ...string) bool {
	for _, id := range ids {
		if info, err := c.get(id); err != nil || !info.State.Final() {
			return false
		}
	}
	return true
}

// dead checks that a job was failed for its losses.
func (c *crew) dead(id string) {
	c.t.Helper()
	info, err := c.get(id)
	require.NoError(c.t, err)
	assert.Equal(c.t, carillon.StateFailed, info.State)
	assert.Equal(c.t, 3, info.Losses)
	assert.Zero(c.t, info.Failures)
	assert.Len(c.t, c.lines(starts(id)), 3)
}

func (c *crew) succeeded(ids ...string) {
	c.t.Helper()
	for _, id := range ids {
		info, err := c.get(id)
		require.NoError(c.t, err)
		assert.Equal(c.t, carillon.StateSucceeded, info.State, "%s lost %d workers", id, info.Losses)
	}
}

// A10: a handler ignores its context. Shutdown returns at its caller's deadline
// all the same, says so, and the job runs elsewhere. What the handler says later
// is not recorded.
func TestA10_DeafHandler(t *testing.T) {
	t.Parallel()
	deafHandler(t, soon, func(p *proctest.Process) { p.Term(t) }, 2*time.Second)
}

// A10 without a deadline of the caller: ShutdownTimeout, and 5 s for handlers
// whose context has ended.
func TestA10_DeafHandlerNoDeadline(t *testing.T) {
	onlyFull(t)
	t.Parallel()
	deafHandler(t, 500*time.Millisecond, func(*proctest.Process) {}, 500*time.Millisecond+5*time.Second+2*time.Second)
}

func deafHandler(t *testing.T, shutdownTimeout time.Duration, hurry func(*proctest.Process), within time.Duration) {
	c := newCrew(t, redistest.Shared(t), unhurried)
	deaf := c.worker(func(a *workerArgs) { a.ShutdownTimeout = shutdownTimeout })
	id := c.persist(c.producer, carillon.Job{Name: "deaf"})
	c.await(1, starts(id))
	other := c.worker()
	asked := proctest.Uptime()
	deaf.Term(t)
	c.fault(1)
	of := func(event string) func(proctest.Line) bool {
		return func(l proctest.Line) bool { return l.Event == event && l.PID == deaf.PID() }
	}
	c.await(1, of("asked"))
	hurry(deaf) // which ends the context of Shutdown
	assert.Less(t, c.await(1, of("down")).At-asked, within)
	assert.Equal(t, carillon.ErrShutdown.Error(), c.await(1, of("stopped")).Note)
	assert.Equal(t, other.PID(), c.await(2, starts(id)).PID)
	assert.Contains(t, deaf.Log(), "ignores the end of its context", "it is reported")
	c.open()
	c.finish(1)
	info, err := c.get(id)
	require.NoError(t, err)
	assert.Equal(t, 2, info.Attempt)
	assert.Zero(t, info.Losses, "it was given back")
}

// A11: a worker is asked to end while it is busy: it takes no more, lets what
// runs finish, and is gone. Asked a second time, it ends the contexts at once
// and gives back what has not finished. Nothing is charged.
func TestA11_Terminated(t *testing.T) {
	t.Parallel()
	for name, hurry := range map[string]bool{"drains": false, "hurries": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCrew(t, redistest.Shared(t), unhurried)
			first := c.worker(func(a *workerArgs) { a.ShutdownTimeout = soon })
			var held []string
			for range 8 {
				held = append(held, c.persist(c.producer, carillon.Job{Name: "hold"}))
			}
			c.await(len(held), func(l proctest.Line) bool { return l.Event == "start" })
			loaded := make(chan struct{})
			go func() {
				defer close(loaded)
				c.load(c.producer, 300, carillon.Job{Name: "work"})
			}()
			c.await(len(held)+50, func(l proctest.Line) bool { return l.Event == "start" })
			c.worker()
			first.Term(t)
			asked := c.await(1, func(l proctest.Line) bool { return l.Event == "asked" }).At
			c.fault(1)
			<-loaded
			if hurry {
				first.Term(t)
			} else {
				c.open()
			}
			require.True(t, first.Wait(t, soon).Success(), "it ends well")
			mine := func(l proctest.Line) bool { return l.PID == first.PID() }
			ledger := c.lines(mine)
			assert.Equal(t, "down", ledger[len(ledger)-1].Event, "nothing happens after Shutdown")
			c.open()
			c.finish(300 + len(held))

			for _, id := range c.queue.Acked() {
				info, err := c.get(id)
				require.NoError(t, err)
				assert.Zero(t, info.Losses, "%s was given back or done, not lost", id)
				assert.Zero(t, info.Failures)
			}
			late := 0
			for _, l := range ledger {
				if l.Event == "start" && l.At > asked+time.Second {
					late++
				}
			}
			assert.Zero(t, late, "attempts that began after the signal")
			for _, id := range held {
				want := 1
				if hurry {
					want = 2
				}
				assert.Len(t, c.lines(starts(id)), want, id)
			}
		})
	}
}

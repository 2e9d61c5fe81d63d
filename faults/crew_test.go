package faults_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/audit"
	"github.com/carillon-go/carillon/internal/proctest"
	"github.com/carillon-go/carillon/internal/redistest"
	"github.com/carillon-go/carillon/internal/verify"
)

// crew is a world whose workers are processes.
type crew struct {
	*world
	server   *redistest.Server
	producer *carillon.Scheduler
	dir      string // of the ledgers
	workers  []*proctest.Process
}

func newCrew(t testing.TB, server *redistest.Server, edit ...func(*world)) *crew {
	t.Helper()
	w := newWorld(t, server.Client(t), edit...)
	return &crew{world: w, server: server, producer: w.scheduler(server.Client(t)), dir: t.TempDir()}
}

// unhurried gives leases that last longer than a busy machine stalls, for rows in
// which nobody is to be taken for dead.
func unhurried(w *world) { w.lease = 5 * time.Second }

// worker starts a worker process and waits until it works.
func (c *crew) worker(edit ...func(*workerArgs)) *proctest.Process {
	c.t.Helper()
	args := workerArgs{
		Addr: c.server.Addr(), Namespace: c.namespace, Ledger: c.dir,
		Segments: c.segments, Lease: c.lease, Concurrency: 16, ShutdownTimeout: 5 * time.Second,
	}
	for _, f := range edit {
		f(&args)
	}
	p := proctest.Start(c.t, "worker", args)
	c.workers = append(c.workers, p)
	// Its log, for the ledgers can be long.
	c.eventually("the worker works", func() bool { return strings.Contains(p.Log(), "carillon: instance started") })
	return p
}

// batch submits jobs in one call to a healthy Redis.
func (w *world) batch(s *carillon.Scheduler, jobs []carillon.Job) []string {
	w.t.Helper()
	receipts, err := s.SubmitMany(w.t.Context(), jobs)
	require.NoError(w.t, err)
	ids := make([]string, len(receipts))
	for i, r := range receipts {
		ids[i] = r.ID
		w.queue.Submitted(r.ID, nil)
	}
	return ids
}

// lines returns what the ledgers say that matches.
func (c *crew) lines(match func(proctest.Line) bool) []proctest.Line {
	c.t.Helper()
	all, err := proctest.ReadLedgers(c.dir)
	require.NoError(c.t, err)
	return slices.DeleteFunc(all, func(l proctest.Line) bool { return !match(l) })
}

// await waits for the n-th line that matches, and returns it.
func (c *crew) await(n int, match func(proctest.Line) bool) proctest.Line {
	c.t.Helper()
	var found []proctest.Line
	c.eventually("it is in a ledger", func() bool {
		found = c.lines(match)
		return len(found) >= n
	})
	return found[n-1]
}

// starts matches the beginnings of a job's attempts.
func starts(id string) func(proctest.Line) bool {
	return func(l proctest.Line) bool { return l.Event == "start" && l.Job == id }
}

// open lets the handlers go on that wait for it.
func (c *crew) open() {
	c.t.Helper()
	require.NoError(c.t, os.WriteFile(filepath.Join(c.dir, gateName), nil, 0o600))
}

// kill kills a worker, which counts as a fault.
func (c *crew) kill(p *proctest.Process) {
	p.Kill()
	c.fault(1)
}

// buried waits until nothing is left of instances whose process is gone.
func (c *crew) buried() {
	c.t.Helper()
	var alive []int
	for _, p := range c.workers {
		if !p.Exited() {
			alive = append(alive, p.PID())
		}
	}
	c.eventually("nothing is left of dead instances", func() bool {
		all, err := c.observer.Instances(c.t.Context())
		return err == nil && !slices.ContainsFunc(all, func(i carillon.InstanceInfo) bool { return !slices.Contains(alive, i.PID) })
	})
	// A read that the server came to after the death was declared. Such are swept
	// every two minutes.
	require.Eventually(c.t, func() bool {
		r, err := audit.Take(c.t.Context(), c.admin, c.namespace)
		return err == nil && len(r.Strays) == 0
	}, 2*time.Minute+soon, 100*time.Millisecond, "consumers of dead instances")
}

// finish is world.finish after the workers have ended, with what their ledgers
// say of executions.
func (c *crew) finish(atLeast int) verify.Verdict {
	c.t.Helper()
	c.settled()
	c.buried()
	for _, p := range c.workers {
		if !p.Exited() {
			p.Term(c.t)
		}
	}
	for _, p := range c.workers {
		p.Wait(c.t, soon)
	}
	for _, l := range c.lines(func(l proctest.Line) bool { return l.Event == "start" }) {
		c.queue.Ran(l.Job, verify.Run{Attempt: l.Attempt, Token: l.Token})
	}
	return c.world.finish(atLeast)
}

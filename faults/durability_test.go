package faults_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/audit"
	"github.com/carillon-go/carillon/internal/redistest"
)

// B2: power fails and takes the end of the append-only file with it, more and
// more of it, at random bytes. What is left is never half a transition, and only
// the newest jobs are gone. The workers live through it.
func TestB2_PowerFails(t *testing.T) {
	t.Parallel()
	cuts, longest := 10, 1000
	if full {
		cuts, longest = 50, 2000
	}
	server := redistest.Single(t, "appendonly yes", "appendfsync everysec")
	w := newWorld(t, server.Client(t))
	w.mayLose()
	var way route
	way.leads(server)
	for range 2 {
		w.instance(way.client(t), handlers{"work": work})
	}
	producer, jobs := w.scheduler(way.client(t)), varied()
	p := w.pump(producer, jobs)
	p.more(300)
	way.leads(nil)
	server.Kill()
	p.stop() // for what follows takes its time

	random := dice(t)
	acked, lost, cut := w.queue.Acked(), map[string]bool{}, int64(0)
	// The end of the file may have heartbeats and outcomes only.
	for i := 0; i < cuts || len(lost) == 0 && i < 20*cuts; i++ {
		n := 1 + random.Int64N(int64(longest))
		server.CutAOF(t, n)
		cut += n
		w.fault(1)
		server.Restart(t)
		report, err := audit.Take(t.Context(), w.admin, w.namespace)
		require.NoError(t, err)
		require.Empty(t, some(report.Findings), "%d bytes are cut off", cut)
		for _, id := range acked {
			if _, err := w.get(id); err == nil {
				require.NotContains(t, lost, id, "it came back")
			} else {
				require.ErrorIs(t, err, carillon.ErrNotFound)
				lost[id] = true
			}
		}
		require.LessOrEqual(t, int64(len(lost))*100, cut, "no job takes less than 100 bytes")
		server.Kill()
	}
	server.Restart(t)
	way.leads(server)
	p = w.pump(producer, jobs)
	p.more(50)
	p.stop()
	v := w.finish(350)
	assert.NotEmpty(t, v.Forgotten, "nothing was lost, so nothing was cut off")
	t.Logf("%d bytes cut off in %d steps: %d jobs lost", cut, cuts, len(v.Forgotten))
}

// varied makes jobs that use every kind of key.
func varied() func() carillon.Job {
	var n atomic.Int64
	return func() carillon.Job {
		i := n.Add(1)
		job := carillon.Job{Name: "work", Tags: []string{"some"}}
		switch i % 4 {
		case 1:
			job.Delay = 20 * time.Millisecond
		case 2:
			job.Mutex = fmt.Sprint("m", i%3)
		case 3:
			job.Unique = carillon.Unique{Key: fmt.Sprint("u", i)}
		}
		return job
	}
}

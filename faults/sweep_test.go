package faults_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/faulthook"
	"github.com/carillon-go/carillon/internal/knobs"
	"github.com/carillon-go/carillon/internal/redistest"
)

// sweepLease is short, so that a lost process is noticed soon.
const sweepLease = 400 * time.Millisecond

// C3 and A4: for every command k that a scenario sends, it is played once with
// command k failing before it is sent, and once failing after it was executed;
// A4 kills the process before and after each of them. After each run everything is
// audited.
func TestC3_EveryCommandFails(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t)
	for _, sc := range scenarios {
		for _, how := range []faulthook.Fault{faulthook.Before, faulthook.After} {
			t.Run(fmt.Sprintf("%s/%s", sc.name, how), func(t *testing.T) {
				t.Parallel()
				sweep(t, sc, func(t *testing.T, w *world, k int) (sent int, at string) {
					rdb := server.Client(t)
					hook := &faulthook.Hook{At: k, Fault: how}
					knobs.Hook(rdb, hook)
					ctx, cancel := context.WithTimeout(t.Context(), soon)
					defer cancel()
					assert.NoError(t, perform(ctx, sc, w.scheduler(rdb), &w.queue, w.lease))
					return hook.Count(), hook.Fired()
				}, server)
			})
		}
	}
}

// sweep plays a scenario with a fault at each of its commands. One run without
// a fault tells how many they are; in later runs the last ones may not come,
// because heartbeats and looks depend on time.
func sweep(t *testing.T, sc *scenario, run func(t *testing.T, w *world, k int) (int, string), server *redistest.Server) {
	t.Helper()
	one := func(t *testing.T, k int) (sent int, at string) {
		w := newWorld(t, server.Client(t), func(w *world) {
			w.segments, w.lease, w.calm = sc.segments, sweepLease, k == 0
			w.queue.Made(scheduled)
		})
		sent, at = run(t, w, k)
		switch {
		case at != "":
			w.fault(1)
		case k > 0:
			return sent, at // the run ended before the k-th command
		}
		w.finish(0)
		assert.Empty(t, sc.check(w))
		return sent, at
	}
	commands, _ := one(t, 0)
	require.Greater(t, commands, 10, "the scenario sends commands")
	var fired atomic.Int64
	first, step := 1, 1
	if sc.some > 0 && !full {
		first, step = 1+int(seed)%sc.some, sc.some
	}
	t.Run("k", func(t *testing.T) {
		for k := first; k <= commands; k += step {
			t.Run(fmt.Sprint(k), func(t *testing.T) {
				t.Parallel()
				if _, at := one(t, k); at != "" {
					fired.Add(1)
					t.Logf("%s: command %d is %s", sc.name, k, at)
				}
			})
		}
	})
	assert.GreaterOrEqual(t, int(fired.Load()), commands/step/2, "faults took effect")
	t.Logf("%s: %d of %d commands were broken", sc.name, fired.Load(), commands)
}

package faults_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/knobs"
	"github.com/carillon-go/carillon/internal/redistest"
)

// stuck is a hook that lets no job of a tick go on its way to another segment.
type stuck struct {
	on   atomic.Bool
	held atomic.Int64
}

// DialHook lets connections be made.
func (s *stuck) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessPipelineHook lets pipelines pass.
func (s *stuck) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// ProcessHook fails to read what is to be relayed.
func (s *stuck) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if args := cmd.Args(); s.on.Load() && cmd.Name() == "hgetall" && strings.HasSuffix(fmt.Sprint(args[1]), ":relay") {
			s.held.Add(1)
			cmd.SetErr(io.EOF)
			return io.EOF
		}
		return next(ctx, cmd)
	}
}

// G1: the jobs of a tick are on their way to other segments for longer than it
// takes until somebody looks at its run again. The run is not over before they
// have come and ended: no tick follows that may not overlap, nor the job that
// follows the shards.
func TestG1_ShardsOnTheirWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, redistest.Shared(t).Client(t), unhurried, func(w *world) { w.segments = 8 })
	w.queue.Made(scheduled)
	var s stuck
	s.on.Store(true)
	for range 2 {
		rdb := redistest.Shared(t).Client(t)
		knobs.Hook(rdb, &s)
		w.instance(rdb, handlers{"work": work, "follow": follow})
	}
	editor := w.scheduler(w.admin)
	first := w.now().Add(3 * time.Second).Truncate(time.Millisecond) // all are stored by then, also on a busy machine
	const schedules = 4
	for i := range schedules {
		require.NoError(t, editor.Schedule(t.Context(), carillon.Schedule{
			Name: fmt.Sprintf("everywhere-%d", i), Spec: carillon.At(first, first.Add(time.Second)), Overlap: carillon.BufferOne, Misfire: carillon.FireAll,
			Job: carillon.Job{Name: "work"}, Sharding: carillon.Sharding{Broadcast: true, Then: &carillon.Job{Name: "follow"}},
		}))
	}
	w.passes(first.Add(3 * time.Second).Sub(w.now())) // it is looked at after one
	require.Positive(t, s.held.Load(), "nothing was on its way")
	w.fault(int(s.held.Load()))
	s.on.Store(false)
	for i := range schedules {
		w.eventually("it is over", func() bool { return quiet(t.Context(), w.observer, fmt.Sprintf("everywhere-%d", i)) })
	}
	jobs, err := listed(t.Context(), w.observer)
	require.NoError(t, err)
	slices.SortFunc(jobs, func(a, b *carillon.JobInfo) int { return a.Tick.Compare(b.Tick) })
	last := map[string]time.Time{} // end of the earlier ticks' jobs
	for _, j := range jobs {
		assert.Equal(t, carillon.StateSucceeded, j.State, "%s: %+v", j.ID, j.Attempts)
		assert.Zero(t, j.Failures, "%s: %+v", j.ID, j.Attempts)
		if j.Tick.Equal(first) {
			if j.FinishedAt.After(last[j.Schedule]) {
				last[j.Schedule] = j.FinishedAt
			}
		} else {
			assert.False(t, j.SubmittedAt.Before(last[j.Schedule]), "%s came before the run of the earlier tick had ended", j.ID)
		}
	}
	assert.Len(t, jobs, schedules*2*3)
	w.finish(0)
}

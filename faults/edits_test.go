package faults_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/knobs"
	"github.com/carillon-go/carillon/internal/redistest"
	"github.com/carillon-go/carillon/internal/verify"
)

// mark is a change that was acknowledged: from then on no job of an earlier
// generation comes, and after a deletion none of that generation either.
type mark struct {
	at      time.Time // by Redis' clock, after the acknowledgement
	last    int64     // generation that is over
	content int       // of the generation after it; 0: deleted
}

// generationOf reads a generation from the ID of a tick's job.
func generationOf(t testing.TB, id string) int64 {
	t.Helper()
	part := strings.Split(id, "~")
	require.Greater(t, len(part), 2, id)
	n, err := strconv.ParseInt(part[1], 10, 64)
	require.NoError(t, err)
	return n
}

// G7: schedules are edited, deleted, paused and resumed while they fire, and those
// who fire are late: what they have decided arrives when it is no longer so.
// After an edit or deletion was acknowledged, what was before fires no more.
func TestG7_EditedWhileFiring(t *testing.T) {
	t.Parallel()
	w := newWorld(t, redistest.Shared(t).Client(t))
	w.queue.Made(scheduled)
	random := dice(t)
	var refused, late atomic.Int64
	var mu sync.Mutex
	chance := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return random.IntN(n)
	}
	for range 3 {
		rdb := redistest.Shared(t).Client(t)
		knobs.Hook(rdb, &latecomer{
			hold: func() bool {
				return chance(2) == 0 && wait(t.Context(), time.Duration(chance(30))*time.Millisecond) == nil
			},
			told: func(was bool) {
				late.Add(1)
				if was {
					refused.Add(1)
				}
			},
		})
		w.instance(rdb, handlers{"work": work})
	}
	const schedules = 6
	editor := w.scheduler(w.admin)
	marks := make([][]mark, schedules)
	stop := time.Now().Add(longer(5*time.Second, time.Minute))
	var editors sync.WaitGroup
	for i := range schedules {
		editors.Go(func() { marks[i] = w.edit(editor, fmt.Sprintf("s%d", i), stop, chance) })
		editors.Go(func() { // somebody else
			for time.Now().Before(stop) {
				name := fmt.Sprintf("s%d", i)
				if editor.PauseSchedule(t.Context(), name, "to be in the way") == nil {
					_ = editor.ResumeSchedule(t.Context(), name) // it may be deleted by now
				}
				_ = wait(t.Context(), time.Duration(20+chance(100))*time.Millisecond)
			}
		})
	}
	editors.Wait()
	if t.Failed() {
		return
	}
	w.passes(500 * time.Millisecond) // for whatever should not come

	jobs, err := listed(t.Context(), w.observer)
	require.NoError(t, err)
	seen := map[string]string{}
	generations := map[string]bool{}
	stale, twice := 0, 0
	for _, j := range jobs {
		i, err := strconv.Atoi(strings.TrimPrefix(j.Schedule, "s"))
		require.NoError(t, err)
		generation := generationOf(t, j.ID)
		generations[fmt.Sprint(i, generation)] = true
		if tick := fmt.Sprint(i, j.Tick.UnixMilli()); !assert.Empty(t, seen[tick], "%s is the second job of its tick", j.ID) {
			twice++
		} else {
			seen[tick] = j.ID
		}
		for _, m := range marks[i] {
			if generation <= m.last && !assert.False(t, j.SubmittedAt.After(m.at), "%s was fired at %v, and generation %d was over at %v", j.ID, j.SubmittedAt, m.last, m.at) {
				stale++
			}
			if generation == m.last+1 && m.content != 0 {
				assert.Equal(t, strconv.Itoa(m.content), string(j.Args), "%s has the content of another generation", j.ID)
			}
		}
	}
	edits := 0
	for _, m := range marks {
		edits += len(m)
	}
	w.fault(int(refused.Load()))
	tally.Add(verify.Sum{Ticks: len(jobs), Extra: twice, Stale: stale})
	t.Logf("G7: %d edits and deletions, %d jobs of %d generations, %d fired too late; %d of %d late turns were refused",
		edits, len(jobs), len(generations), stale, refused.Load(), late.Load())
	assert.Greater(t, edits, 50)
	assert.Greater(t, len(jobs), 50)
	assert.Greater(t, len(generations), 20)
	assert.Positive(t, refused.Load(), "no turn was late")
	w.finish(0)
}

// edit changes a schedule until it is time to stop, but often enough on a slow
// machine as well, and deletes it.
func (w *world) edit(s *carillon.Scheduler, name string, stop time.Time, chance func(int) int) (marks []mark) {
	ctx := w.t.Context()
	var generation int64
	for n := 1; time.Now().Before(stop) || n <= 25; n++ {
		err := s.Schedule(ctx, carillon.Schedule{Name: name, Spec: carillon.Every(100 * time.Millisecond), Job: carillon.Job{Name: "work", Args: n}})
		at := w.now()
		info, read := w.observer.GetSchedule(ctx, name)
		if !assert.NoError(w.t, err) || !assert.NoError(w.t, read) || !assert.Greater(w.t, info.Generation, generation) {
			return marks
		}
		generation = info.Generation
		marks = append(marks, mark{at, generation - 1, n})
		_ = wait(ctx, time.Duration(chance(300))*time.Millisecond)
		if chance(4) == 0 {
			if !assert.NoError(w.t, s.Unschedule(ctx, name)) {
				return marks
			}
			marks = append(marks, mark{w.now(), generation, 0})
			_ = wait(ctx, time.Duration(chance(100))*time.Millisecond)
		}
	}
	if err := s.Unschedule(ctx, name); err == nil || assert.ErrorIs(w.t, err, carillon.ErrNotFound) {
		marks = append(marks, mark{w.now(), generation, 0})
	}
	return marks
}

package faults_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/audit"
	"github.com/carillon-go/carillon/internal/redistest"
)

// G6: ticks beyond what 32 bits count, and leap days around a year that has none,
// pass through Redis as they are.
func TestG6_FarYears(t *testing.T) {
	t.Parallel()
	w := newWorld(t, redistest.Shared(t).Client(t))
	s := w.scheduler(w.admin)
	utc := func(year int, month time.Month, day, hour, minute, second, ms int) time.Time {
		return time.Date(year, month, day, hour, minute, second, ms*1e6, time.UTC)
	}
	for name, c := range map[string]struct {
		sched carillon.Schedule
		want  []time.Time
	}{
		"the end of 32 bits": {
			carillon.Schedule{Spec: carillon.Every(time.Second), Start: utc(2038, 1, 19, 3, 14, 7, 1)},
			[]time.Time{utc(2038, 1, 19, 3, 14, 7, 1), utc(2038, 1, 19, 3, 14, 8, 1)},
		},
		"in 2100": {
			carillon.Schedule{Spec: carillon.Cron("0 12 * * *"), Start: utc(2100, 2, 27, 13, 0, 0, 0)},
			[]time.Time{utc(2100, 2, 28, 12, 0, 0, 0), utc(2100, 3, 1, 12, 0, 0, 0)},
		},
		"leap days": {
			carillon.Schedule{Spec: carillon.Cron("0 0 29 2 *"), Start: utc(2095, 1, 1, 0, 0, 0, 0)},
			[]time.Time{utc(2096, 2, 29, 0, 0, 0, 0), utc(2104, 2, 29, 0, 0, 0, 0)},
		},
		"the last of February": {
			carillon.Schedule{Spec: carillon.Years(1, time.February, -1).At("06:30"), Start: utc(2099, 1, 1, 0, 0, 0, 0)},
			[]time.Time{utc(2099, 2, 28, 6, 30, 0, 0), utc(2100, 2, 28, 6, 30, 0, 0)},
		},
	} {
		c.sched.Name, c.sched.Job.Name = name, "work"
		require.NoError(t, s.Schedule(t.Context(), c.sched), name)
		info, err := w.observer.GetSchedule(t.Context(), name)
		require.NoError(t, err)
		assert.Equal(t, c.want[0], info.Next.UTC(), name)
		next, err := w.observer.NextTicks(t.Context(), name, 2)
		require.NoError(t, err)
		for i := range next {
			next[i] = next[i].UTC()
		}
		assert.Equal(t, c.want, next, name)
	}
	due, err := w.admin.ZRangeWithScores(t.Context(), "{"+w.namespace+":0}:plan", 0, -1).Result()
	require.NoError(t, err)
	require.Len(t, due, 4)
	assert.Equal(t, "the end of 32 bits", due[0].Member)
	assert.InDelta(t, utc(2038, 1, 19, 3, 14, 7, 1).UnixMilli(), due[0].Score, 0)
	r, err := audit.Take(t.Context(), w.admin, w.namespace)
	require.NoError(t, err)
	assert.Empty(t, r.Findings)
}

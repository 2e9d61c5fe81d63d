package carillon_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
)

// Ticks are planned without Redis.
func TestTicks(t *testing.T) {
	t.Parallel()
	after := time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		sched carillon.Schedule
		want  []string // the first three at most
	}{
		"cron": {
			carillon.Schedule{Spec: carillon.Cron("0 8 * * 1"), TimeZone: "Asia/Shanghai"},
			[]string{"2026-04-06T00:00:00Z", "2026-04-13T00:00:00Z", "2026-04-20T00:00:00Z"},
		},
		"every": {
			carillon.Schedule{Spec: carillon.Every(time.Hour)},
			[]string{"2026-03-31T13:00:00Z", "2026-03-31T14:00:00Z", "2026-03-31T15:00:00Z"},
		},
		"at": {
			carillon.Schedule{Spec: carillon.At(after.Add(time.Minute), after, after.Add(time.Second))},
			[]string{"2026-03-31T12:00:01Z", "2026-03-31T12:01:00Z"},
		},
	} {
		c.sched.Name, c.sched.Job.Name = "s", "j"
		ticks, err := c.sched.Ticks(after)
		require.NoError(t, err, name)
		var got []string
		for at := range ticks {
			if got = append(got, at.UTC().Format(time.RFC3339)); len(got) == 3 {
				break
			}
		}
		assert.Equal(t, c.want, got, name)
	}
	_, err := (&carillon.Schedule{Name: "s", Job: carillon.Job{Name: "j"}, Spec: carillon.Cron("61 * * * *"), TimeZone: "Mars/Base"}).Ticks(after)
	require.ErrorIs(t, err, carillon.ErrInvalid)
	assert.ErrorContains(t, err, "61 is above 59")
	assert.ErrorContains(t, err, `unknown time zone "Mars/Base"`)
}

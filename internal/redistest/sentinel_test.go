package redistest

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSentinelFailsOverAndHeals(t *testing.T) {
	t.Parallel()
	s := SharedSentinel(t)
	c := s.Client(t)
	ns := Namespace(t)
	require.NoError(t, c.Set(t.Context(), ns, "before", 0).Err())
	require.EqualValues(t, replicas, c.Wait(t.Context(), replicas, patience).Val())

	old := s.KillPrimary(t)
	assert.NotSame(t, old, s.Primary(t))
	Wait(t, patience, func() error { return c.Set(t.Context(), ns+"x", "after", 0).Err() })
	assert.Contains(t, s.Servers(), s.Primary(t))
	assert.Equal(t, "before", c.Get(t.Context(), ns).Val())

	s.Heal(t)
	assert.NotSame(t, old, s.Primary(t))
	assert.Equal(t, "after", old.Client(t).Get(t.Context(), ns+"x").Val())
	require.NoError(t, s.whole())
}

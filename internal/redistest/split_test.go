package redistest

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSentinelPromotesAReplicaThatLags(t *testing.T) {
	t.Parallel()
	s := NewSentinel(t)
	c := s.Client(t)
	require.NoError(t, c.Set(t.Context(), "replicated", 1, 0).Err())
	require.EqualValues(t, replicas, c.Wait(t.Context(), replicas, patience).Val())
	s.CutReplicas(t)
	require.NoError(t, c.Set(t.Context(), "missed", 1, 0).Err())

	old := s.KillPrimary(t)
	promoted := s.Primary(t)
	assert.NotSame(t, old, promoted)
	assert.EqualValues(t, 1, promoted.Client(t).Exists(t.Context(), "replicated", "missed").Val())
	s.Heal(t)
}

func TestSentinelSplits(t *testing.T) {
	t.Parallel()
	s := NewSentinel(t)
	old, promoted := s.Split(t)
	require.NotSame(t, old, promoted)
	a, b := old.Client(t), promoted.Client(t)
	require.NoError(t, a.Set(t.Context(), "k", "old", 0).Err())
	require.NoError(t, b.Set(t.Context(), "k", "new", 0).Err())
	assert.Equal(t, "old", a.Get(t.Context(), "k").Val())
	assert.Equal(t, "new", b.Get(t.Context(), "k").Val())

	s.KillSentinels()
	_, err := s.primary()
	require.EqualError(t, err, "no sentinel runs")
	require.NoError(t, b.Set(t.Context(), "k", "newer", 0).Err())
	s.Heal(t)
	assert.Equal(t, "newer", a.Get(t.Context(), "k").Val())
	require.ErrorContains(t, a.Set(t.Context(), "k", "v", 0).Err(), "READONLY")
}

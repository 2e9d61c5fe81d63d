package redistest

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A slot goes to another master and back while a client counts in it.
func TestClusterMovesSlots(t *testing.T) {
	t.Parallel()
	cluster := NewCluster(t)
	c := cluster.Client(t)
	p := c.Pipeline()
	for i := range 50 {
		p.Set(t.Context(), fmt.Sprintf("{a}%d", i), i, 0)
	}
	_, err := p.Exec(t.Context())
	require.NoError(t, err)
	slot, old := cluster.Slot(t, "{a}"), cluster.Master(t, "{a}")
	other := cluster.Nodes()[0]
	if other == old {
		other = cluster.Nodes()[1]
	}

	counting, stop := context.WithCancel(t.Context())
	var counted int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for counting.Err() == nil {
			if assert.NoError(t, c.Incr(t.Context(), "{a}").Err()) {
				counted++
			}
		}
	})
	assert.GreaterOrEqual(t, cluster.Move(t, slot, other), 50)
	assert.Same(t, other, cluster.Master(t, "{a}"))
	assert.GreaterOrEqual(t, other.Client(t).DBSize(t.Context()).Val(), int64(51))
	assert.Zero(t, cluster.Move(t, slot, other), "it is there")
	assert.GreaterOrEqual(t, cluster.Move(t, slot, old), 51)
	stop()
	wg.Wait()
	n, err := c.Get(t.Context(), "{a}").Int64()
	require.NoError(t, err)
	assert.Equal(t, counted, n)
	cluster.Heal(t)
}

func TestClusterTakesInAMasterAndForgetsIt(t *testing.T) {
	t.Parallel()
	cluster := NewCluster(t)
	c := cluster.Client(t)
	require.NoError(t, c.Set(t.Context(), "k", "v", 0).Err())
	slot, old := cluster.Slot(t, "k"), cluster.Master(t, "k")

	added := cluster.AddMaster(t)
	assert.Equal(t, 1, cluster.Move(t, slot, added))
	assert.Equal(t, "v", added.Client(t).Get(t.Context(), "k").Val())
	require.NoError(t, c.Get(t.Context(), "k").Err())

	assert.Equal(t, 1, cluster.Move(t, slot, old))
	cluster.Remove(t, added)
	assert.NotContains(t, cluster.Nodes(), added)
	// The client goes to the dead node until it asks for the slots again.
	Wait(t, patience, func() error { return c.Get(t.Context(), "k").Err() })
	cluster.Heal(t)
}

// A shard that is gone comes back with what it kept.
func TestClusterLosesAShard(t *testing.T) {
	t.Parallel()
	cluster := NewCluster(t, "appendonly yes", "appendfsync always", "cluster-require-full-coverage no")
	c := cluster.Client(t)
	keys := []string{"a", "b", "c"} // of three masters
	for _, key := range keys {
		require.NoError(t, c.Set(t.Context(), key, key, 0).Err())
	}
	cluster.KillShard(t, keys[0])
	require.Error(t, c.Get(t.Context(), keys[0]).Err())
	assert.Equal(t, keys[1], c.Get(t.Context(), keys[1]).Val())
	cluster.Heal(t)
	assert.Equal(t, keys[0], c.Get(t.Context(), keys[0]).Val())
}

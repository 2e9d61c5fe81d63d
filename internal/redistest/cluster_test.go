package redistest

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestClusterServesAllSlots(t *testing.T) {
	t.Parallel()
	cluster := SharedCluster(t)
	c := cluster.Client(t)
	ns := Namespace(t)
	p := c.Pipeline()
	for _, key := range keyPerSlot(ns) {
		p.Incr(t.Context(), key)
	}
	_, err := p.Exec(t.Context())
	require.NoError(t, err)

	served := 0
	for _, master := range cluster.Nodes()[:masters] {
		n := int(master.Client(t).DBSize(t.Context()).Val())
		assert.GreaterOrEqual(t, n, slots/masters)
		served += n
	}
	assert.GreaterOrEqual(t, served, slots)
}

func TestClusterFailsOverAndHeals(t *testing.T) {
	t.Parallel()
	cluster := NewCluster(t)
	c := cluster.Client(t)
	require.NoError(t, c.Set(t.Context(), "k", "v", 0).Err())
	old := cluster.Master(t, "k")
	require.EqualValues(t, 1, old.Client(t).DBSize(t.Context()).Val())

	old.Kill()
	Wait(t, patience, func() error { return c.Set(t.Context(), "k", "w", 0).Err() })
	assert.NotSame(t, old, cluster.Master(t, "k"))

	cluster.Heal(t)
	require.NoError(t, cluster.whole())
}

// keyPerSlot returns a key of each slot.
func keyPerSlot(prefix string) map[int]string {
	keys := make(map[int]string, slots)
	for i := 0; len(keys) < slots; i++ {
		key := fmt.Sprint(prefix, "-", i)
		keys[int(crc16(key))%slots] = key
	}
	return keys
}

// crc16 is the checksum (XMODEM) which maps keys to slots.
func crc16(s string) (crc uint16) {
	for _, b := range []byte(s) {
		crc ^= uint16(b) << 8
		for range 8 {
			carry := crc&0x8000 != 0
			crc <<= 1
			if carry {
				crc ^= 0x1021
			}
		}
	}
	return crc
}

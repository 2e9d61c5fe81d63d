package carillon_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
)

func TestWaitReplicas(t *testing.T) {
	t.Parallel()
	p := &place{rdb: redistest.SharedSentinel(t).Client(t), namespace: redistest.Namespace(t), real: true}
	for asked, enough := range map[int]bool{1: true, 2: true, 3: false} {
		s := p.new(t, nil, func(c *carillon.Config) { c.WaitReplicas = asked })
		r, err := s.Submit(t.Context(), carillon.Job{Name: "ok"})
		if enough {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, carillon.ErrUncertain)
		assert.NotErrorIs(t, err, carillon.ErrUnavailable)
		assert.ErrorContains(t, err, "2 of 3 replicas confirmed")
		again, err := p.new(t, nil).Submit(t.Context(), carillon.Job{Name: "ok", ID: r.ID})
		require.NoError(t, err)
		assert.True(t, again.Duplicate, "it is on the primary, under the ID of the receipt")
	}
}

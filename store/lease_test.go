package store

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/redistest"
)

// Lua's numbers are exact below 2^53. A stored token beyond cannot grow, and two
// holders would get the same.
func TestTokensThatCannotGrow(t *testing.T) {
	t.Parallel()
	rdb, ctx := redistest.Shared(t).Client(t), t.Context()
	s := open(t, rdb, Options{})
	k := s.segments[0]
	for _, stored := range []string{"9007199254740991", "9007199254740992", "1e300", "99999999999999999999"} {
		require.NoError(t, rdb.Set(ctx, k.token("name"), stored, time.Hour).Err())
		_, _, err := s.Acquire(ctx, "name", "me", time.Minute)
		require.ErrorIs(t, err, ErrDamaged, stored)
		assert.ErrorContains(t, err, k.token("name"), "it says what to do")
		assert.Zero(t, rdb.Exists(ctx, k.lease("name")).Val())
		for _, field := range []string{"t", "n"} {
			require.NoError(t, rdb.Del(ctx, k.mutex("door")).Err())
			require.NoError(t, rdb.HSet(ctx, k.mutex("door"), field, stored).Err())
			_, errs := s.Submit(ctx, []NewJob{{ID: "a", Spec: job(mutexed)}})
			require.ErrorIs(t, errs[0], ErrDamaged, stored)
			assert.ErrorContains(t, errs[0], k.mutex("door"))
			assert.ErrorContains(t, errs[0], "2^53")
		}
	}
	require.NoError(t, rdb.Set(ctx, k.token("name"), "9007199254740990", time.Hour).Err())
	l, _, err := s.Acquire(ctx, "name", "me", time.Minute)
	require.NoError(t, err)
	assert.Equal(t, uint64(9007199254740991), l.Token)
	require.NoError(t, rdb.Del(ctx, k.mutex("door")).Err())
	submit(t, s, "a", job(mutexed))
}

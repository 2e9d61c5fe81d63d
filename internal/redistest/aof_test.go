package redistest

import (
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What is cut off is gone, and a script whose tail is cut is gone as a whole.
func TestCutAOF(t *testing.T) {
	t.Parallel()
	s := Single(t, "appendonly yes", "appendfsync always")
	c := s.Client(t)
	require.NoError(t, c.Set(t.Context(), "first", 1, 0).Err())
	whole := s.AOFSize(t)
	require.Positive(t, whole)
	const script = `redis.call('SET', KEYS[1], 1) redis.call('SET', KEYS[2], 1)`
	require.ErrorIs(t, c.Eval(t.Context(), script, []string{"second", "third"}).Err(), redis.Nil)
	require.Greater(t, s.AOFSize(t), whole)

	s.Kill()
	size := s.AOFSize(t)
	s.CutAOF(t, 1)
	assert.Equal(t, size-1, s.AOFSize(t))
	s.Restart(t)
	assert.EqualValues(t, 1, s.Client(t).Exists(t.Context(), "first", "second", "third").Val())

	s.Kill()
	s.CutAOF(t, size) // more than there is
	s.Restart(t)
	assert.Zero(t, s.Client(t).DBSize(t.Context()).Val())
}

// The end of a script is cut off, something else is appended, and the server
// restarts again: half of the script is there, unless the file was rewritten
// between the restarts. docs/operations.md says so.
func TestCutScriptComesBackUnlessTheFileIsRewritten(t *testing.T) {
	t.Parallel()
	for _, rewrite := range []bool{false, true} {
		s := Single(t, "appendonly yes", "appendfsync always")
		c := s.Client(t)
		const script = `redis.call('SET', KEYS[1], 1) return redis.call('SET', KEYS[2], 1)`
		require.NoError(t, c.Eval(t.Context(), script, []string{"half", "other half"}).Err())
		s.Kill()
		s.CutAOF(t, int64(len("*1\r\n$4\r\nEXEC\r\n")+1))
		s.Restart(t)
		require.Zero(t, c.DBSize(t.Context()).Val())
		if rewrite {
			s.RewriteAOF(t)
		}
		require.NoError(t, c.Eval(t.Context(), script, []string{"later", "later too"}).Err())
		s.Restart(t)
		require.EqualValues(t, 2, c.Exists(t.Context(), "later", "later too").Val())
		if rewrite {
			assert.Zero(t, c.Exists(t.Context(), "half", "other half").Val())
		} else if c.Exists(t.Context(), "half", "other half").Val() != 1 {
			t.Log("this version of Redis does it right")
		}
	}
}

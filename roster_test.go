package carillon

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/store"
)

// The end of an instance reaches the attempts that run and those that begin later.
func TestTheEndReachesEveryAttempt(t *testing.T) {
	t.Parallel()
	var r roster
	var told error
	cancel := func(cause error) { told = cause }
	running := &store.Entry{ID: "running"}
	require.True(t, r.add(running))
	require.NoError(t, r.begin(running, cancel))
	r.end(ErrShutdown)
	require.ErrorIs(t, told, ErrShutdown)
	r.remove(running)

	late := &store.Entry{ID: "late"}
	require.True(t, r.add(late))
	require.ErrorIs(t, r.begin(late, cancel), ErrShutdown)
	r.remove(late)
	assert.ErrorIs(t, r.begin(late, cancel), ErrShutdown, "of one that it does not know")
}

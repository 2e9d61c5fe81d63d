package verify

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRegisterRefusesSmallerTokens(t *testing.T) {
	t.Parallel()
	r := NewRegister(t)
	old, err := DialRegister(r.Addr())
	require.NoError(t, err)
	defer func() { _ = old.Close() }()
	current, err := DialRegister(r.Addr())
	require.NoError(t, err)
	defer func() { _ = current.Close() }()

	ok, err := old.Write("k", 5, 1)
	require.NoError(t, err)
	require.True(t, ok)
	value, ok, err := current.Read("k", 7)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, 1, value)
	ok, err = old.Write("k", 5, 2)
	require.NoError(t, err)
	require.False(t, ok, "a newer holder has read")
	ok, err = old.Write("k", 0, 3)
	require.NoError(t, err)
	require.True(t, ok, "without a token nothing is checked")
	ok, err = old.Write("other", 5, 4)
	require.NoError(t, err)
	require.True(t, ok, "tokens of different keys have nothing to do with each other")

	require.Equal(t, 3, r.Value("k"))
	require.Equal(t, []Access{
		{Key: "k", Token: 5, Value: 1},
		{Key: "k", Token: 5, Largest: 7, Value: 2, Refused: true},
		{Key: "k", Largest: 7, Value: 3},
		{Key: "other", Token: 5, Value: 4},
	}, r.Log())
}

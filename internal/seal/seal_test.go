package seal

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func key(b byte) []byte { return bytes.Repeat([]byte{b}, KeySize) }

var (
	ring  = New(map[string][]byte{"old": key(1), "new": key(2)}, "new")
	plain = []byte(`{"card":"4111"}`)
)

func TestOpenGivesBackWhatWasSealed(t *testing.T) {
	for _, data := range [][]byte{plain, {}, []byte("x"), {mark}, bytes.Repeat([]byte("a"), 1<<20)} {
		sealed := ring.Seal(data, "a", "b")
		assert.True(t, Sealed(sealed))
		assert.False(t, len(data) > 4 && bytes.Contains(sealed, data[:4]))
		got, err := ring.Open(sealed, "a", "b")
		require.NoError(t, err)
		assert.True(t, bytes.Equal(data, got))
	}
}

func TestNothingElseOpens(t *testing.T) {
	sealed := ring.Seal(plain, "ab", "c")
	for _, binding := range [][]string{{"ab", "d"}, {"a", "bc"}, {"abc"}, {"ab"}, {"c", "ab"}, {"ab", "c", ""}, {}} {
		_, err := ring.Open(sealed, binding...)
		require.ErrorIs(t, err, ErrAltered, "%q", binding)
	}
	for i := range sealed {
		for bit := range 8 {
			bad := bytes.Clone(sealed)
			bad[i] ^= 1 << bit
			_, err := ring.Open(bad, "ab", "c")
			require.ErrorIs(t, err, ErrOpen, "byte %d", i)
		}
		_, err := ring.Open(sealed[:i], "ab", "c")
		require.ErrorIs(t, err, ErrOpen, "%d bytes", i)
	}
	_, err := ring.Open(append(bytes.Clone(sealed), 0), "ab", "c")
	require.ErrorIs(t, err, ErrAltered)
}

func TestKeysAndTheirIDs(t *testing.T) {
	old := New(map[string][]byte{"old": key(1)}, "old")
	first := old.Seal(plain, "a")
	got, err := ring.Open(first, "a")
	require.NoError(t, err, "all keys open")
	assert.Equal(t, plain, got)

	second := ring.Seal(plain, "a")
	_, err = old.Open(second, "a")
	require.ErrorIs(t, err, ErrNoKey)
	require.ErrorIs(t, err, ErrOpen)
	require.NotErrorIs(t, err, ErrAltered)

	impostor := New(map[string][]byte{"new": key(3)}, "new")
	_, err = impostor.Open(second, "a")
	require.ErrorIs(t, err, ErrAltered)

	var none *Ring
	_, err = none.Open(second, "a")
	require.ErrorIs(t, err, ErrNoKey)
	got, err = none.Open(plain, "a")
	require.NoError(t, err)
	assert.Equal(t, plain, got)
	_, err = ring.Open(plain, "a")
	require.ErrorIs(t, err, ErrPlain)
}

func TestEqualContentIsEqualInItsPlaceOnly(t *testing.T) {
	first, second := ring.Seal(plain, "a"), ring.Seal(plain, "a")
	assert.Equal(t, first, second)
	seen := map[string]bool{}
	for i := range 1000 {
		sealed := ring.Seal(plain, fmt.Sprint(i))
		body := string(sealed[2+len("new"):])
		assert.False(t, seen[body[:nonceSize]] || seen[body[nonceSize:]])
		seen[body[:nonceSize]], seen[body[nonceSize:]] = true, true
	}
	assert.NotEqual(t, ring.Seal(plain, "a")[:17], ring.Seal([]byte(`{"card":"4112"}`), "a")[:17], "another nonce for other content")
}

func TestSealLike(t *testing.T) {
	old := New(map[string][]byte{"old": key(1)}, "old")
	stored := old.Seal(plain, "a")
	again, ok := ring.SealLike(stored, plain, "a")
	require.True(t, ok)
	assert.Equal(t, stored, again)
	for _, bad := range [][]byte{plain, nil, stored[:5], New(map[string][]byte{"x": key(1)}, "x").Seal(plain, "a")} {
		_, ok := ring.SealLike(bad, plain, "a")
		assert.False(t, ok)
	}
}

func TestLongestID(t *testing.T) {
	id := strings.Repeat("k", MaxID)
	r := New(map[string][]byte{id: key(1)}, id)
	got, err := r.Open(r.Seal(plain, "a"), "a")
	require.NoError(t, err)
	assert.Equal(t, plain, got)
}

func TestTheRingKeepsItsOwnKeys(t *testing.T) {
	mine := key(7)
	r := New(map[string][]byte{"k": mine}, "k")
	sealed := r.Seal(plain, "a")
	clear(mine)
	_, err := r.Open(sealed, "a")
	require.NoError(t, err)
}

func FuzzOpen(f *testing.F) {
	f.Add(ring.Seal(plain, "a"), "a")
	f.Add([]byte{mark}, "")
	f.Add([]byte{mark, 255, 'n'}, "a")
	f.Add(plain, "a")
	f.Fuzz(func(t *testing.T, data []byte, place string) {
		got, err := ring.Open(data, place)
		if err == nil && !bytes.Equal(ring.Seal(got, place), data) {
			if again, ok := ring.SealLike(data, got, place); !ok || !bytes.Equal(again, data) {
				t.Fatalf("%x opened as %x, which nobody sealed", data, got)
			}
		}
	})
}

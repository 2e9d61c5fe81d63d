package store

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// strangers finds two names whose keys are in different segments.
func strangers(t *testing.T, s *Store) (a, b string) {
	t.Helper()
	for _, name := range []string{"b", "c", "d", "e", "f"} {
		if hashSegment("a", s.Segments()) != hashSegment(name, s.Segments()) {
			return "a", name
		}
	}
	require.FailNow(t, "all names are in one segment")
	return "", ""
}

func submitOne(t *testing.T, s *Store, id string, spec *Spec) (Receipt, error) {
	t.Helper()
	receipts, errs := s.Submit(t.Context(), []NewJob{{ID: id, Spec: spec}})
	return receipts[0], errs[0]
}

func TestOneIDAcrossSegments(t *testing.T) {
	mutex := func(name string) func(*Spec) { return func(s *Spec) { s.Mutex = name } }
	s, _ := inMemory(t, Options{Segments: 7})
	a, b := strangers(t, s)
	for name, pair := range map[string][2]*Spec{
		"mutex first":   {job(mutex(a)), job()},
		"mutex second":  {job(), job(mutex(a))},
		"other mutex":   {job(mutex(a)), job(mutex(b))},
		"unique second": {job(), job(func(s *Spec) { s.Unique = b })},
	} {
		for i := range 10 { // IDs of several segments
			id := name + string(rune('0'+i))
			_, err := submitOne(t, s, id, pair[0])
			require.NoError(t, err, id)
			_, err = submitOne(t, s, id, pair[1])
			require.ErrorIs(t, err, ErrConflict, id)
			again, err := submitOne(t, s, id, pair[0])
			require.NoError(t, err, id)
			assert.True(t, again.Duplicate, id)
		}
	}
}

func TestForeignUniqueKeyOfARevivedJob(t *testing.T) {
	s, _ := inMemory(t, Options{Segments: 7})
	a, b := strangers(t, s)
	both := func(sp *Spec) { sp.Mutex, sp.Unique = a, b }
	first, err := submitOne(t, s, "first", job(both))
	require.NoError(t, err)
	_, err = s.Cancel(t.Context(), first.ID, "")
	require.NoError(t, err)
	second, err := submitOne(t, s, "second", job(both))
	require.NoError(t, err)
	require.False(t, second.Duplicate, "the first one is done")

	assert.ErrorIs(t, s.Revive(t.Context(), first.ID), ErrState, "the second one holds the key")
	_, err = s.Cancel(t.Context(), second.ID, "")
	require.NoError(t, err)
	require.NoError(t, s.Revive(t.Context(), first.ID))
	third, err := submitOne(t, s, "third", job(both))
	require.NoError(t, err)
	assert.Equal(t, Receipt{ID: "first", Duplicate: true}, third)
}

func TestForeignUniqueKeyOutlivesTheRecord(t *testing.T) {
	s, rdb := inMemory(t, Options{Segments: 7})
	a, b := strangers(t, s)
	held := job(func(sp *Spec) { sp.Mutex, sp.Unique, sp.UniqueFor = a, b, time.Hour })
	first, err := submitOne(t, s, "first", held)
	require.NoError(t, err)
	_, err = s.Cancel(t.Context(), first.ID, "")
	require.NoError(t, err)
	segment := hashSegment(a, s.Segments())
	k := s.segments[segment]
	require.NoError(t, rdb.Del(t.Context(), k.record("first")).Err())
	for range 2 { // also after the claim was tended
		second, err := submitOne(t, s, "second", held)
		require.NoError(t, err)
		assert.Equal(t, Receipt{ID: "first", Duplicate: true}, second, "the hour has not passed")
		for _, member := range rdb.ZRange(t.Context(), k.tend(), 0, -1).Val() {
			require.NoError(t, rdb.ZAdd(t.Context(), k.tend(), z(1, member)).Err())
		}
		require.NoError(t, s.Tend(t.Context(), segment))
	}
}

package store

import (
	"errors"
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

// A submission that is refused, for its ID belongs to a job of other content,
// must leave that job's claims alone, and none of its own behind.
func TestRefusedSubmissionLeavesTheJobItsClaims(t *testing.T) {
	s, rdb := inMemory(t, Options{Segments: 7})
	mutex, key := strangers(t, s)
	home := func(id string) int { return hashSegment(id, s.Segments()) }
	id := "id"
	for home(id) == home(mutex) {
		id += "."
	}
	both := func(sp *Spec) { sp.Mutex, sp.Unique = mutex, key }
	locator, claim := s.segments[home(id)].locator(id), s.segments[home(key)].unique(key)
	_, err := submitOne(t, s, id, job(both))
	require.NoError(t, err)
	_, err = submitOne(t, s, "holder", job(func(sp *Spec) { sp.Unique = "taken" }))
	require.NoError(t, err)
	for name, spec := range map[string]*Spec{
		"other content":      job(both, large),
		"another key":        job(func(sp *Spec) { sp.Mutex, sp.Unique = mutex, "free" }),
		"a key that is held": job(func(sp *Spec) { sp.Mutex, sp.Unique = mutex, "taken" }),
	} {
		r, err := submitOne(t, s, id, spec)
		require.True(t, errors.Is(err, ErrConflict) || r.ID == "holder", name)
		_, err = s.Get(t.Context(), id)
		require.NoError(t, err, "the job is found after %s", name)
		require.NotZero(t, rdb.Exists(t.Context(), locator).Val(), name)
		require.NotZero(t, rdb.Exists(t.Context(), claim).Val(), name)
		second, err := submitOne(t, s, "second", job(both))
		require.NoError(t, err, name)
		require.Equal(t, Receipt{id, true}, second, "the job still holds its unique key after %s", name)
	}
	free, err := submitOne(t, s, "third", job(func(sp *Spec) { sp.Unique = "free" }))
	require.NoError(t, err)
	assert.False(t, free.Duplicate, "what was refused holds no key")
}

// Unique.For counts from the submission. The record may be forgotten earlier,
// and then the ID alone does not make the job the same.
func TestUniqueKeyOutlivesTheRecordForItsOwnID(t *testing.T) {
	for name, mutex := range map[string]string{"key at home": "", "foreign key": "a"} {
		s, rdb := inMemory(t, Options{Segments: 7})
		_, key := strangers(t, s)
		held := job(func(sp *Spec) { sp.Mutex, sp.Unique, sp.UniqueFor = mutex, key, time.Hour })
		first, err := submitOne(t, s, "first", held)
		require.NoError(t, err)
		require.False(t, first.Duplicate)
		_, err = s.Cancel(t.Context(), "first", "")
		require.NoError(t, err)
		segment, _, err := s.find(t.Context(), "first")
		require.NoError(t, err)
		require.NoError(t, rdb.Del(t.Context(), s.segments[segment].record("first")).Err())
		again, err := submitOne(t, s, "first", held)
		require.NoError(t, err, name)
		assert.Equal(t, Receipt{"first", true}, again, "%s: the hour has not passed", name)
		_, err = s.Get(t.Context(), "first")
		assert.ErrorIs(t, err, ErrNotFound, name)
	}
}

// A job's own unique key does not make it a duplicate of itself.
func TestOtherContentWithTheSameUniqueKeyIsAConflict(t *testing.T) {
	s, _ := inMemory(t, Options{Segments: 7})
	mutex, key := strangers(t, s)
	id := "id"
	for s.segmentOf(id) != hashSegment(mutex, s.Segments()) {
		id += "." // the key alone is foreign to the second job
	}
	_, err := submitOne(t, s, id, job(func(sp *Spec) { sp.Unique = key }))
	require.NoError(t, err)
	_, err = submitOne(t, s, id, job(func(sp *Spec) { sp.Unique, sp.Mutex = key, mutex }))
	assert.ErrorIs(t, err, ErrConflict)
}

// A mark that an ID was given up is meant for a submission that is under way and
// has claims. Others may use the ID, and the mark's time to live is not theirs.
func TestAnIDThatWasGivenUpCanBeUsed(t *testing.T) {
	s, rdb := inMemory(t, Options{Segments: 7})
	a, b := strangers(t, s)
	id := "id"
	for s.segmentOf(id) != hashSegment(a, s.Segments()) {
		id += "."
	}
	both := job(func(sp *Spec) { sp.Mutex, sp.Unique = a, b })
	_, err := submitOne(t, s, id, both)
	require.NoError(t, err)
	_, err = s.Cancel(t.Context(), id, "")
	require.NoError(t, err)
	record := s.segments[s.segmentOf(id)].record(id)
	require.NoError(t, rdb.Del(t.Context(), record).Err()) // forgotten
	second, err := submitOne(t, s, "second", both)
	require.NoError(t, err)
	require.False(t, second.Duplicate)
	require.Equal(t, "v", rdb.HGet(t.Context(), record, "p").Val(), "the ID was given up")

	r, err := submitOne(t, s, id, job())
	require.NoError(t, err)
	assert.Equal(t, Receipt{ID: id}, r)
	assert.Negative(t, rdb.PTTL(t.Context(), record).Val(), "the record of a live job has no time to live")
}

// A claim may be there for an hour after its job has ended.
func TestRevivedJobTakesItsKeyFromAnEndedJob(t *testing.T) {
	s, _ := inMemory(t, Options{Segments: 7})
	a, b := strangers(t, s)
	_, err := submitOne(t, s, "first", job(func(sp *Spec) { sp.Unique = b }))
	require.NoError(t, err)
	_, err = s.Cancel(t.Context(), "first", "")
	require.NoError(t, err)
	_, err = submitOne(t, s, "second", job(func(sp *Spec) { sp.Mutex, sp.Unique = a, b }))
	require.NoError(t, err)
	err = s.Revive(t.Context(), "first")
	require.ErrorIs(t, err, ErrState)
	assert.ErrorContains(t, err, "job second holds")
	_, err = s.Cancel(t.Context(), "second", "")
	require.NoError(t, err)
	require.NoError(t, s.Revive(t.Context(), "first"))
}

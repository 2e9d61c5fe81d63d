package store

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/redistest"
)

func TestPlainJobsAreStoredOnce(t *testing.T) {
	rdb := redistest.Shared(t).Client(t)
	s := open(t, rdb, Options{Namespace: redistest.Namespace(t)})
	k, items := s.segments[0], make([]*submission, 3)
	for i := range items {
		items[i] = s.newSubmission(NewJob{Spec: job()})
		require.True(t, items[i].plain())
	}
	// The second and the third run find what an earlier one has stored, whose answer was lost.
	for _, part := range [][]*submission{items[1:2], items, items} {
		_, err := s.run(t.Context(), submitPlainCall(k, items[0].lane(), part))
		require.NoError(t, err)
	}
	entries := rdb.XRange(t.Context(), k.stream(DefaultQueue, DefaultPriority), "-", "+").Val()
	require.Len(t, entries, len(items))
	for i, it := range []*submission{items[1], items[0], items[2]} {
		e := decodeEntry(0, "", entries[i].ID, text(entries[i].Values[entryField]))
		require.NoError(t, e.Err)
		assert.Equal(t, it.id, e.ID)
		j, err := s.Get(t.Context(), it.id)
		require.NoError(t, err)
		assert.Equal(t, Queued, j.State)
		assert.Equal(t, e.Spec, j.Spec)
		assert.Equal(t, entryTime(entries[i].ID), j.SubmittedAt)
		assert.Equal(t, entries[i].ID, rdb.HGet(t.Context(), k.record(it.id), "p").Val())
	}
}

// A stream that is not ours is noticed before anything is written, and spoils no other stream.
func TestPlainJobsOfAForeignStream(t *testing.T) {
	rdb := redistest.Shared(t).Client(t)
	s := open(t, rdb, Options{Namespace: redistest.Namespace(t)})
	k := s.segments[0]
	foreign := k.stream("foreign", DefaultPriority)
	require.NoError(t, rdb.Set(t.Context(), foreign, "x", 0).Err())
	receipts, errs := s.Submit(t.Context(), []NewJob{{Spec: job()}, {Spec: job(func(s *Spec) { s.Queue = "foreign" })}, {Spec: job()}})
	require.NoError(t, errs[0])
	require.ErrorIs(t, errs[1], ErrDamaged)
	assert.ErrorContains(t, errs[1], foreign)
	require.NoError(t, errs[2])
	assert.Zero(t, rdb.Exists(t.Context(), k.record(receipts[1].ID)).Val())
	assert.EqualValues(t, 2, rdb.XLen(t.Context(), k.stream(DefaultQueue, DefaultPriority)).Val())
}

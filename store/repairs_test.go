package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/redistest"
)

// nameElsewhere returns a name that belongs to another segment than another one.
func nameElsewhere(than string, segments int) string {
	for i := 0; ; i++ {
		if name := fmt.Sprint("door-", i); hashSegment(name, segments) != hashSegment(than, segments) {
			return name
		}
	}
}

// fired fires a schedule's only tick.
func fired(t *testing.T, s *Store, spec *Spec) string {
	t.Helper()
	_, _, err := s.PutSchedule(t.Context(), definition("plan", time.UnixMilli(1000)))
	if s.options.WaitReplicas == 0 {
		require.NoError(t, err)
	}
	due, err := readDue(t.Context(), s, s.scheduleSegment("plan"), 0, 10)
	require.NoError(t, err)
	require.Len(t, due, 1)
	id, ok, err := fire(t.Context(), s, due[0], time.Time{}, spec)
	require.NoError(t, err)
	require.True(t, ok)
	return id
}

// The claim of a job that has ended outlives it by up to an hour. A tick does not
// get lost on it.
func TestTickHealsAKeyThatWasLeftBehind(t *testing.T) {
	t.Parallel()
	s, _ := inMemory(t, Options{Segments: 4})
	const key = "key"
	unique := func(spec *Spec) { spec.Unique = key }
	submit(t, s, "first", job(unique, func(spec *Spec) { spec.Mutex = nameElsewhere(key, 4) }))
	_, err := s.Cancel(t.Context(), "first", "no more")
	require.NoError(t, err)
	j, err := s.Get(t.Context(), fired(t, s, job(unique)))
	require.NoError(t, err)
	assert.Equal(t, Queued, j.State)
}

// Nobody waits to hear of a tick's job, and it must not wait for replicas.
func TestRelayDoesNotWaitForReplicas(t *testing.T) {
	t.Parallel()
	s, rdb := inMemory(t, Options{Segments: 4, WaitReplicas: 1}) // which a Redis in memory does not have
	short(s)
	id := fired(t, s, job(func(spec *Spec) { spec.Mutex = nameElsewhere("plan", 4) }))
	j, err := s.Get(t.Context(), id)
	require.NoError(t, err)
	assert.Equal(t, Queued, j.State)
	assert.Zero(t, rdb.HLen(t.Context(), s.segments[s.scheduleSegment("plan")].relay()).Val(), "the note is still there")
}

// What a destroyed group had given to a worker is not given to a newcomer under
// the same token.
func TestNewInstanceAfterDestroy(t *testing.T) {
	t.Parallel()
	rdb := redistest.Shared(t).Client(t)
	s := open(t, rdb, Options{})
	w := work(t, s, "worker")
	submit(t, s, "running", job())
	running := w.take(1)[0]
	stream := s.segments[0].stream(DefaultQueue, DefaultPriority)
	require.NoError(t, rdb.XGroupDestroy(t.Context(), stream, group).Err())
	newcomer := work(t, s, "newcomer")
	assert.Empty(t, fetched(t, newcomer), "the job runs elsewhere")
	audited(t, s)
	again := fetched(t, newcomer)
	require.Len(t, again, 1)
	assert.Greater(t, again[0].Token, running.Token)
}

// fetched takes what there is.
func fetched(t *testing.T, w *worker) (all []*Entry) {
	t.Helper()
	for _, r := range w.readers {
		entries, _, err := r.Fetch(t.Context(), 10, 0)
		require.NoError(t, err)
		all = append(all, entries...)
	}
	return all
}

// A stray copy of an entry is put aside; the job it names goes on where it is.
func TestStrayEntryFailsNoOtherJob(t *testing.T) {
	t.Parallel()
	rdb := redistest.Shared(t).Client(t)
	s := open(t, rdb, Options{})
	w := work(t, s, "worker")
	submit(t, s, "planned", job(later1h))
	require.NoError(t, rdb.XAdd(t.Context(), &redis.XAddArgs{
		Stream: s.segments[0].stream(DefaultQueue, DefaultPriority), Values: []string{"e", "1 - 7 planned?"},
	}).Err())
	stray := fetched(t, w)
	require.Len(t, stray, 1)
	require.Error(t, stray[0].Err)
	s.Quarantine(t.Context(), stray[0])
	assert.Equal(t, Scheduled, w.state("planned"))
	assert.Empty(t, fetched(t, w))
}

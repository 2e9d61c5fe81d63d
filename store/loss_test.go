package store

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/redistest"
)

// A failover can lose the writes that remember the last token.
func TestTokensGrowThoughTheLastOneIsLost(t *testing.T) {
	rdb := redistest.Shared(t).Client(t)
	s := open(t, rdb, Options{})
	w := work(t, s, "worker")
	var lease, mutex uint64
	for _, id := range []string{"a", "b", "c"} {
		l, _, err := s.Acquire(t.Context(), "name", "owner", time.Minute)
		require.NoError(t, err)
		assert.Greater(t, l.Token, lease, "of a lease")
		lease = l.Token
		submit(t, s, id, job(mutexed))
		e := w.take(1)[0]
		assert.Greater(t, e.Mutex, mutex, "of a mutex")
		mutex = e.Mutex
		require.NoError(t, w.settle(e, Succeed))
		require.NoError(t, s.Release(t.Context(), l))
		lost, err := rdb.Del(t.Context(), s.segments[0].mutex("door"), s.leaseKeys("name").token("name")).Result()
		require.NoError(t, err)
		require.EqualValues(t, 2, lost)
	}
}

// A failover can lose that a tick was fired, while its job, in another segment,
// is kept. Fired again, the tick has the same job.
func TestATickThatIsForgottenHasTheSameJob(t *testing.T) {
	rdb := redistest.Shared(t).Client(t)
	s := open(t, rdb, Options{Segments: 5})
	tick := time.UnixMilli(1000)
	_, _, err := s.PutSchedule(t.Context(), definition("relays", tick))
	require.NoError(t, err)
	home := s.scheduleSegment("relays")
	require.NotEqual(t, home, hashSegment("door", 5))
	var ids [2]string
	for i := range ids {
		due, err := readDue(t.Context(), s, home, 0, 10)
		require.NoError(t, err)
		require.Len(t, due, 1)
		var fired bool
		ids[i], fired, err = fire(t.Context(), s, due[0], tick.Add(1000*time.Hour), job(mutexed))
		require.NoError(t, err)
		require.True(t, fired)
		k := s.segments[home] // as it was before
		require.NoError(t, rdb.HSet(t.Context(), k.schedule("relays"), "n", tick.UnixMilli()).Err())
		require.NoError(t, rdb.ZAdd(t.Context(), k.plan(), z(1000, "relays")).Err())
	}
	assert.Equal(t, ids[0], ids[1])
	counts, err := s.Counts(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 1, counts.States[Queued]+counts.States[Waiting])
}

// An instance that leaves while it has not settled everything keeps its
// consumer: with it Redis would forget what is pending.
func TestWhoLeavesKeepsWhatIsPending(t *testing.T) {
	rdb := redistest.Shared(t).Client(t)
	s := open(t, rdb, Options{})
	w := work(t, s, "worker")
	submit(t, s, "a", job())
	first := w.take(1)[0]
	require.NoError(t, s.Leave(t.Context(), "worker", []string{DefaultQueue}))
	assert.Equal(t, Running, w.state("a"))

	done, err := s.Reclaim(t.Context(), 0, "worker", 3, func(string, error) {})
	require.NoError(t, err)
	assert.Equal(t, 1, done.Again)
	again := work(t, s, "other").take(1)[0]
	assert.Equal(t, "a", again.ID)
	assert.Greater(t, again.Token, first.Token)
	consumers, err := rdb.XInfoConsumers(t.Context(), first.stream, group).Result()
	require.NoError(t, err)
	require.Len(t, consumers, 1)
	assert.Equal(t, "other", consumers[0].Name)
}

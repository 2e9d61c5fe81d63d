package store

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/redistest"
)

// hermit is an instance that reads its own queue alone.
func hermit(t *testing.T, s *Store, id string) *worker {
	t.Helper()
	queues := []string{OwnQueue(id)}
	_, err := s.Join(t.Context(), id, time.Minute, []byte(`{}`), queues)
	require.NoError(t, err)
	w := &worker{Store: s, t: t, id: id, readers: s.Readers(id, queues)}
	require.Len(t, w.readers, 1)
	t.Cleanup(func() { _ = w.readers[0].Close() })
	return w
}

// sendTo submits a job for an instance and lets it be promoted.
func sendTo(t *testing.T, s *Store, instance, id string, edit ...func(*Spec)) {
	t.Helper()
	submit(t, s, id, job(append([]func(*Spec){func(s *Spec) { s.Queue = OwnQueue(instance) }}, edit...)...))
	promoteAll(t, s)
}

func promoteAll(t *testing.T, s *Store) {
	t.Helper()
	passMillis(t, s)
	for segment := range s.segments {
		_, err := s.Promote(t.Context(), segment, func(id string, err error) { t.Errorf("reported %q: %v", id, err) })
		require.NoError(t, err)
	}
}

// passMillis waits until Redis' clock has moved on.
func passMillis(t *testing.T, s *Store) {
	t.Helper()
	begun, err := s.Now(t.Context())
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		now, err := s.Now(t.Context())
		return err == nil && now.Sub(begun) > 2*time.Millisecond
	}, patience, time.Millisecond)
}

// left checks that a job ended for want of its instance.
func left(t *testing.T, s *Store, instance string, ids ...string) {
	t.Helper()
	for _, id := range ids {
		j, err := s.Get(t.Context(), id)
		require.NoError(t, err)
		assert.Equal(t, Cancelled, j.State, id)
		assert.Equal(t, leftReason(OwnQueue(instance)), j.Reason, id)
	}
}

// noTrace checks that nothing in a segment speaks of own queues any more.
func noTrace(t *testing.T, s *Store, rdb redis.UniversalClient) {
	t.Helper()
	for _, line := range strings.Split(dump(t, rdb, s), "\n") {
		if name, _, _ := strings.Cut(line, " "); !strings.Contains(name, ":h:") && !strings.Contains(name, ":j:") {
			assert.NotContains(t, line, "%00")
			assert.NotContains(t, line, ":own")
		}
	}
}

func reclaim(t *testing.T, s *Store, instance string) (total Reclaimed) {
	t.Helper()
	for segment := range s.segments {
		done, err := s.Reclaim(t.Context(), segment, instance, 3, func(id string, err error) { t.Logf("reported %q: %v", id, err) })
		require.NoError(t, err)
		total.Again += done.Again
		total.Ended += done.Ended
		total.Broken += done.Broken
		total.Alive = total.Alive || done.Alive
	}
	return total
}

// lapse lets an instance's leases end, as if its heartbeats had stopped long ago.
func lapse(t *testing.T, s *Store, rdb redis.UniversalClient, instance string) {
	t.Helper()
	for _, k := range s.segments {
		require.NoError(t, rdb.ZAddXX(t.Context(), k.workers(), redis.Z{Score: float64(time.Now().UnixMilli() - 1), Member: instance}).Err())
	}
}

// populate gives an instance a job in every place.
func populate(t *testing.T, w *worker) []string {
	t.Helper()
	sendTo(t, w.Store, w.id, "running")
	w.take(1)
	sendTo(t, w.Store, w.id, "retrying")
	require.NoError(t, w.settle(w.take(1)[0], Retry, delay(time.Hour)))
	sendTo(t, w.Store, w.id, "queued", tagged)
	sendTo(t, w.Store, w.id, "large", func(s *Spec) { s.Args = make([]byte, 5000) })
	sendTo(t, w.Store, w.id, "planned", later1h)
	assert.Equal(t, []State{Running, Retrying, Queued, Queued, Scheduled},
		[]State{w.state("running"), w.state("retrying"), w.state("queued"), w.state("large"), w.state("planned")})
	return []string{"running", "retrying", "queued", "large", "planned"}
}

func TestOwnQueuesOfLostInstances(t *testing.T) {
	for name, o := range map[string]Options{"one segment": {}, "16 segments": {Segments: 16}} {
		t.Run(name, func(t *testing.T) {
			t.Run("a reclaim ends every job, twice does no harm", func(t *testing.T) {
				s, rdb := inMemory(t, o)
				w := hermit(t, s, "lost")
				jobs := populate(t, w)
				assert.True(t, reclaim(t, s, "lost").Alive || len(s.segments) > 1, "its lease has not lapsed")
				assert.Equal(t, Running, w.state("running"))
				lapse(t, s, rdb, "lost")
				assert.Zero(t, reclaim(t, s, "lost").Again)
				left(t, s, "lost", jobs...)
				assert.Zero(t, reclaim(t, s, "lost"))
				noTrace(t, s, rdb)
			})
			t.Run("what comes later ends at its turn", func(t *testing.T) {
				s, rdb := inMemory(t, o)
				sendTo(t, s, "never seen", "a")
				left(t, s, "never seen", "a")
				require.NoError(t, s.Revive(t.Context(), "a"))
				promoteAll(t, s)
				left(t, s, "never seen", "a")
				noTrace(t, s, rdb)
			})
			t.Run("an instance of a release without own queues gets none", func(t *testing.T) {
				s, rdb := inMemory(t, o)
				work(t, s, "old")
				sendTo(t, s, "old", "a")
				left(t, s, "old", "a")
				noTrace(t, s, rdb)
			})
			t.Run("what another release left behind is found", func(t *testing.T) {
				rdb := redistest.Shared(t).Client(t) // miniredis does not tell when a script has read
				s := open(t, rdb, o)
				jobs := populate(t, hermit(t, s, "lost"))
				strays := func() (all []string) {
					for segment, k := range s.segments {
						require.NoError(t, rdb.ZRem(t.Context(), k.workers(), "lost").Err())
						found, err := s.Strays(t.Context(), segment, 0)
						require.NoError(t, err)
						all = append(all, found...)
					}
					return all
				}
				assert.Equal(t, []string{"lost"}, slices.Compact(strays()))
				reclaim(t, s, "lost")
				left(t, s, "lost", jobs...)
				assert.Empty(t, strays())
				noTrace(t, s, rdb)
			})
			t.Run("damaged jobs hold up nothing", func(t *testing.T) {
				s, rdb := inMemory(t, o)
				populate(t, hermit(t, s, "lost"))
				k := s.segments[s.homeOf("lost")]
				require.NoError(t, rdb.Del(t.Context(), k.record("queued"), k.record("planned"), k.record("large")).Err())
				require.NoError(t, rdb.HSet(t.Context(), k.record("retrying"), "j", "?").Err())
				lapse(t, s, rdb, "lost")
				reclaim(t, s, "lost")
				left(t, s, "lost", "running")
				for _, key := range rdb.Keys(t.Context(), "*").Val() {
					assert.NotContains(t, key, "%00") // what is planned is put aside at its time
					assert.False(t, strings.HasSuffix(key, ":own"), key)
				}
			})
		})
	}
	t.Run("its leave ends every job", func(t *testing.T) {
		s, rdb := inMemory(t, Options{})
		w := hermit(t, s, "leaves")
		jobs := populate(t, w)
		for range 2 {
			require.NoError(t, s.Leave(t.Context(), "leaves", []string{OwnQueue("leaves")}))
			left(t, s, "leaves", jobs...)
			noTrace(t, s, rdb)
		}
	})
	t.Run("one that comes back reads again", func(t *testing.T) {
		s, rdb := inMemory(t, Options{})
		w := hermit(t, s, "back")
		sendTo(t, s, "back", "before")
		lapse(t, s, rdb, "back")
		reclaim(t, s, "back")
		again := hermit(t, s, "back")
		sendTo(t, s, "back", "after")
		assert.Equal(t, "after", again.take(1)[0].ID)
		left(t, s, "back", "before")
		assert.Equal(t, Running, w.state("after"))
	})
}

// A heartbeat puts right what somebody deleted, and an entry that somebody took
// away is dispatched anew, to the same instance.
func TestOwnQueuesAreRepaired(t *testing.T) {
	rdb := redistest.Shared(t).Client(t)
	s := open(t, rdb, Options{})
	w := hermit(t, s, "worker")
	queues := []string{OwnQueue("worker")}
	sendTo(t, s, "worker", "a")
	k := s.segments[0]
	a := s.Audit(0)
	step := func() int {
		again, more, err := a.Step(t.Context(), func(string, error) {})
		require.NoError(t, err)
		for more {
			var n int
			n, more, err = a.Step(t.Context(), func(string, error) {})
			require.NoError(t, err)
			again += n
		}
		return again
	}
	require.Zero(t, step())
	require.NoError(t, hands["XDEL"](t.Context(), rdb, k.stream(queues[0], 'n')))
	assert.Equal(t, 1, step())
	e := w.take(1)[0]
	assert.Equal(t, "a", e.ID)
	require.NoError(t, w.settle(e, Succeed))

	require.NoError(t, rdb.Del(t.Context(), k.own()).Err())
	_, errs := s.Heartbeat(t.Context(), "worker", time.Minute, queues, 0, nil, "")
	require.NoError(t, Distinct(errs))
	sendTo(t, s, "worker", "b")
	assert.Equal(t, "b", w.take(1)[0].ID)
}

// Of a lost instance's jobs, those it had read count a loss, and no other.
func TestOwnQueueAttempts(t *testing.T) {
	s, rdb := inMemory(t, Options{})
	populate(t, hermit(t, s, "lost"))
	passMillis(t, s)
	lapse(t, s, rdb, "lost")
	reclaim(t, s, "lost")
	for id, want := range map[string]struct {
		outcome Outcome
		losses  int
	}{"running": {Lost, 1}, "queued": {Release, 0}, "retrying": {Retry, 0}} {
		j, err := s.Get(t.Context(), id)
		require.NoError(t, err)
		assert.Equal(t, want.outcome, j.Attempts[len(j.Attempts)-1].Outcome, id)
		assert.Equal(t, want.losses, j.Losses, id)
	}
	assert.Equal(t, []string{"large", "planned", "queued", "retrying", "running"}, idsOf(t, s, Cancelled))
}

func idsOf(t *testing.T, s *Store, state State) (ids []string) {
	t.Helper()
	for j, err := range s.List(t.Context(), Filter{States: []State{state}}) {
		require.NoError(t, err)
		ids = append(ids, j.ID)
	}
	slices.Sort(ids)
	return ids
}

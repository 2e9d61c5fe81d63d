package store

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/redistest"
)

// The record of a new job leaves out what its entry says as well. Whatever becomes
// of the job, its attempts are counted, and the time of its submission stays.
func TestFirstAttempt(t *testing.T) {
	t.Parallel()
	type life func(w *worker, rdb *redis.Client, id string)
	settled := func(o Outcome, edit ...func(*Settlement)) life {
		return func(w *worker, _ *redis.Client, _ string) {
			require.NoError(w.t, w.settle(w.take(1)[0], o, edit...))
		}
	}
	cancelled := func(w *worker, _ *redis.Client, id string) {
		_, err := w.Cancel(w.t.Context(), id, "no more")
		require.NoError(w.t, err)
	}
	lost := func(w *worker, _ *redis.Client, _ string) {
		require.NoError(w.t, w.Leave(w.t.Context(), w.id, nil))
		_, err := w.Reclaim(w.t.Context(), 0, w.id, 3, func(string, error) {})
		require.NoError(w.t, err)
	}
	for name, c := range map[string]struct {
		happens life
		state   State
		count   int
	}{
		"it waits":               {func(*worker, *redis.Client, string) {}, Queued, 1},
		"it runs":                {func(w *worker, _ *redis.Client, _ string) { w.take(1) }, Running, 1},
		"it succeeds":            {settled(Succeed), Succeeded, 1},
		"it succeeds by itself":  {settled(Succeed, func(it *Settlement) { it.Result = []byte("1") }), Succeeded, 1},
		"it fails":               {settled(Fail), Failed, 1},
		"it expires":             {settled(Expire), Expired, 1},
		"it is to be tried anew": {settled(Retry), Retrying, 1},
		"it snoozes":             {settled(Snooze), Scheduled, 1},
		"nobody has its handler": {settled(Decline), Scheduled, 1},
		"it is given back":       {settled(Release), Queued, 2},
		"its worker is lost": {func(w *worker, rdb *redis.Client, id string) {
			w.take(1)
			lost(w, rdb, id)
		}, Queued, 2},
		"its worker is lost after a cancel": {func(w *worker, rdb *redis.Client, id string) {
			w.take(1)
			cancelled(w, rdb, id)
			lost(w, rdb, id)
		}, Cancelled, 1},
		"it is cancelled unread": {cancelled, Cancelled, 1},
		"it is cancelled": {func(w *worker, rdb *redis.Client, id string) {
			e := w.take(1)[0]
			cancelled(w, rdb, id)
			require.NoError(w.t, w.settle(e, Cancel))
		}, Cancelled, 1},
		"it is quarantined": {func(w *worker, _ *redis.Client, _ string) {
			e := w.take(1)[0]
			e.Err = ErrDamaged
			require.True(w.t, w.Quarantine(w.t.Context(), e))
		}, Failed, 1},
		"it is revived": {func(w *worker, rdb *redis.Client, id string) {
			cancelled(w, rdb, id)
			require.NoError(w.t, w.Revive(w.t.Context(), id))
		}, Scheduled, 1},
		"its first attempts are forgotten": {func(w *worker, rdb *redis.Client, id string) {
			for range attemptsKept + 1 {
				settled(Release)(w, rdb, id)
			}
			settled(Succeed)(w, rdb, id)
		}, Succeeded, attemptsKept + 2},
	} {
		for kind, k := range map[string]struct {
			spec   *Spec
			fields []string
		}{"plain": {job(), []string{"p", "j"}}, "with a key": {job(unique), []string{"p", "j", "s"}}} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				rdb := redistest.Shared(t).Client(t)
				s := open(t, rdb, Options{})
				w := work(t, s, "worker")
				id := submit(t, s, "", k.spec).ID
				assert.ElementsMatch(t, k.fields, rdb.HKeys(t.Context(), s.segments[0].record(id)).Val())
				before, err := s.Get(t.Context(), id)
				require.NoError(t, err)
				now, err := s.Now(t.Context())
				require.NoError(t, err)
				assert.WithinDuration(t, now, before.SubmittedAt, time.Minute)

				c.happens(w, rdb, id)
				j, err := s.Get(t.Context(), id)
				require.NoError(t, err)
				assert.Equal(t, c.state, j.State)
				assert.Equal(t, c.count, j.Count)
				assert.Equal(t, before.SubmittedAt, j.SubmittedAt)
			})
		}
	}
}

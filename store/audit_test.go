package store

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/embedded"
	"github.com/carillon-go/carillon/internal/redistest"
)

// audited lets an audit of every segment come to its end.
func audited(t *testing.T, s *Store) int {
	t.Helper()
	total := 0
	for segment := range s.segments {
		a := s.Audit(segment)
		for more, steps := true, 0; more; steps++ {
			require.Less(t, steps, 1000, "it has an end")
			var again int
			var err error
			again, more, err = a.Step(t.Context(), func(id string, err error) { t.Logf("reported %q: %v", id, err) })
			require.NoError(t, err)
			total += again
		}
	}
	return total
}

// hand is somebody who may write to a stream: name, and what it does to it.
var hands = map[string]func(ctx context.Context, rdb redis.UniversalClient, stream string) error{
	"XGROUP DESTROY": func(ctx context.Context, rdb redis.UniversalClient, stream string) error {
		return rdb.XGroupDestroy(ctx, stream, group).Err()
	},
	"XGROUP DELCONSUMER": func(ctx context.Context, rdb redis.UniversalClient, stream string) error {
		return rdb.XGroupDelConsumer(ctx, stream, group, "worker").Err()
	},
	"XTRIM": func(ctx context.Context, rdb redis.UniversalClient, stream string) error {
		return rdb.XTrimMaxLen(ctx, stream, 0).Err()
	},
	"XDEL": func(ctx context.Context, rdb redis.UniversalClient, stream string) error {
		for _, m := range rdb.XRange(ctx, stream, "-", "+").Val() {
			if err := rdb.XDel(ctx, stream, m.ID).Err(); err != nil {
				return err
			}
		}
		return nil
	},
	"DEL": func(ctx context.Context, rdb redis.UniversalClient, stream string) error {
		return rdb.Del(ctx, stream).Err()
	},
	"XTRIM, XGROUP DELCONSUMER": func(ctx context.Context, rdb redis.UniversalClient, stream string) error {
		if err := rdb.XTrimMaxLen(ctx, stream, 0).Err(); err != nil {
			return err
		}
		return rdb.XGroupDelConsumer(ctx, stream, group, "worker").Err()
	},
}

// Whatever somebody does to a stream, each of its jobs is dispatched anew, with a
// newer token, or is still in the hands of its worker, and ends once.
func TestForeignHands(t *testing.T) {
	t.Parallel()
	for name, act := range hands {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rdb, ctx := redistest.Shared(t).Client(t), t.Context()
			s := open(t, rdb, Options{Segments: 2})
			w := work(t, s, "worker")
			submit(t, s, "before", job())
			require.NoError(t, w.settle(w.take(1)[0], Succeed))
			for i := range 20 {
				submit(t, s, fmt.Sprint("run-", i), job())
			}
			running := w.take(20)
			submit(t, s, "stopped", job())
			stopped := w.take(1)[0]
			_, err := s.Cancel(ctx, "stopped", "no more")
			require.NoError(t, err)
			for i := range 20 {
				submit(t, s, fmt.Sprint("wait-", i), job())
			}
			submit(t, s, "large", job(large))
			submit(t, s, "mutex", job(mutexed))
			submit(t, s, "later", job(later1h))
			assert.Zero(t, audited(t, s), "nothing is amiss yet")

			for _, k := range s.segments {
				require.NoError(t, act(ctx, rdb, k.stream(DefaultQueue, DefaultPriority)))
			}
			_, err = s.Join(ctx, "worker", time.Minute, []byte(`{}`), []string{DefaultQueue})
			require.NoError(t, err)
			for _, e := range running[:10] { // the record says that nobody else has it
				require.NoError(t, w.settle(e, Succeed))
			}
			first := audited(t, s)
			switch name {
			case "XTRIM", "XDEL":
				// What runs is pending, without an entry. It may be settled, or its worker dies.
				assert.Equal(t, 22, first)
				for _, e := range append(running[10:15], stopped) {
					require.NoError(t, w.settle(e, Fail))
				}
				for _, k := range s.segments {
					require.NoError(t, rdb.ZAdd(ctx, k.workers(), z(1, "worker")).Err())
				}
				for segment := range s.segments {
					_, err := s.Reclaim(ctx, segment, "worker", 3, func(string, error) {})
					require.NoError(t, err)
				}
				assert.Equal(t, 5, audited(t, s))
			case "XGROUP DELCONSUMER":
				assert.Equal(t, 11, first)
			default:
				assert.Equal(t, 33, first)
			}
			assert.Zero(t, audited(t, s), "it is done once")
			assert.Equal(t, Cancelled, w.state("stopped"))

			_, err = s.Join(ctx, "worker", time.Minute, []byte(`{}`), []string{DefaultQueue})
			require.NoError(t, err)
			again := map[string]*Entry{}
			for _, r := range w.readers {
				entries, _, err := r.Fetch(ctx, 100, 0)
				require.NoError(t, err)
				for _, e := range entries {
					require.NoError(t, e.Err, e.ID)
					require.Nil(t, again[e.ID], "%s is delivered once", e.ID)
					again[e.ID] = e
				}
			}
			for _, e := range running[10:] {
				if again[e.ID] != nil {
					assert.Greater(t, again[e.ID].Token, e.Token, e.ID)
					assert.Zero(t, again[e.ID].Losses, "it is not charged")
					assert.ErrorIs(t, w.settle(e, Succeed), ErrFenced, "its new attempt is the current one")
				}
			}
			for id, e := range again {
				require.NoError(t, w.settle(e, Succeed), id)
			}
			for i := range 20 {
				assert.True(t, w.state(fmt.Sprint("run-", i)).Final(), "run-%d", i)
				assert.Equal(t, Succeeded, w.state(fmt.Sprint("wait-", i)), "wait-%d", i)
			}
			assert.Equal(t, Succeeded, w.state("large"))
			assert.Equal(t, Succeeded, w.state("mutex"))
			assert.Equal(t, Scheduled, w.state("later"))
			for _, k := range s.segments {
				stream := k.stream(DefaultQueue, DefaultPriority)
				assert.Zero(t, rdb.XLen(ctx, stream).Val())
				assert.Zero(t, rdb.XPending(ctx, stream, group).Val().Count)
				assert.False(t, rdb.HExists(ctx, k.mutex("door"), "h").Val())
			}
			assert.Zero(t, audited(t, s))
		})
	}
}

// Nothing is walked through while nobody else has a hand in the streams.
func TestAuditDoesNotScan(t *testing.T) {
	t.Parallel()
	rdb := redistest.Single(t).Client(t)
	s := open(t, rdb, Options{})
	w := work(t, s, "worker")
	for i := range 300 {
		submit(t, s, fmt.Sprint("job-", i), job())
	}
	entries := w.take(100)
	for i, o := range []Outcome{Succeed, Fail, Retry, Snooze, Release, Decline} {
		require.NoError(t, w.settle(entries[i], o, delay(0)))
	}
	for i := range 50 { // of all kinds: running, queued, due
		_, err := s.Cancel(t.Context(), fmt.Sprint("job-", 50+i*5), "no more")
		require.NoError(t, err)
	}
	require.NoError(t, rdb.ZAdd(t.Context(), s.segments[0].workers(), z(1, "worker")).Err())
	_, err := s.Reclaim(t.Context(), 0, "worker", 3, func(string, error) {})
	require.NoError(t, err)
	_, err = s.Promote(t.Context(), 0, func(string, error) {})
	require.NoError(t, err)
	e := &Entry{ID: "none", Segment: 0, entry: "1-1", stream: s.segments[0].stream(DefaultQueue, DefaultPriority), Err: ErrDamaged}
	assert.False(t, s.Quarantine(t.Context(), e))
	assert.Zero(t, audited(t, s)) // now the server knows the script
	before := calls(t, rdb)
	assert.Zero(t, audited(t, s))
	after := calls(t, rdb)
	assert.Zero(t, after["scan"])
	assert.LessOrEqual(t, after["xrange"]-before["xrange"], 2)
	assert.Equal(t, 1, after["evalsha"]-before["evalsha"]+after["eval"]-before["eval"])
}

// calls counts the commands a server has executed.
func calls(t *testing.T, rdb *redis.Client) map[string]int {
	t.Helper()
	info, err := rdb.InfoMap(t.Context(), "commandstats").Result()
	require.NoError(t, err)
	n := map[string]int{}
	for _, section := range info {
		for name, v := range section {
			var count int
			_, _ = fmt.Sscanf(v, "calls=%d", &count)
			n[name[len("cmdstat_"):]] = count
		}
	}
	return n
}

// Servers before 7.0 do not count what was added to a stream. There an audit looks
// through the records when it has a reason.
func TestAuditWithoutCounts(t *testing.T) {
	t.Parallel()
	rdb, stop := embedded.Open()
	t.Cleanup(stop)
	s := open(t, rdb, Options{})
	w := work(t, s, "worker")
	submit(t, s, "runs", job())
	e := w.take(1)[0]
	submit(t, s, "waits", job())
	stream := s.segments[0].stream(DefaultQueue, DefaultPriority)
	require.NoError(t, rdb.Del(t.Context(), stream).Err())
	assert.Zero(t, audited(t, s), "no reason yet")
	_, err := s.Join(t.Context(), "worker", time.Minute, []byte(`{}`), []string{DefaultQueue})
	require.NoError(t, err)
	require.NoError(t, w.settle(e, Succeed), "which is one")
	assert.Equal(t, 1, audited(t, s))
	assert.Equal(t, "waits", w.take(1)[0].ID)
	assert.Equal(t, Succeeded, w.state("runs"))
}

// A record that cannot be read is put aside, whatever became of its entry.
func TestAuditOfDamagedRecords(t *testing.T) {
	t.Parallel()
	rdb, ctx := redistest.Shared(t).Client(t), t.Context()
	s := open(t, rdb, Options{})
	w := work(t, s, "worker")
	for _, id := range []string{"garbage", "empty", "sound"} {
		submit(t, s, id, job())
	}
	k := s.segments[0]
	require.NoError(t, rdb.HSet(ctx, k.record("garbage"), "j", "garbage").Err())
	require.NoError(t, rdb.HDel(ctx, k.record("empty"), "j").Err())
	require.NoError(t, rdb.Set(ctx, k.record("foreign"), "something else", 0).Err())
	require.NoError(t, rdb.XTrimMaxLen(ctx, k.stream(DefaultQueue, DefaultPriority), 0).Err())
	assert.Equal(t, 1, audited(t, s))
	assert.Equal(t, "sound", w.take(1)[0].ID)
	for _, id := range []string{"garbage", "empty"} {
		assert.Regexp(t, "^f", rdb.HGet(ctx, k.record(id), "p").Val(), id)
		assert.Positive(t, rdb.PTTL(ctx, k.record(id)).Val(), id)
	}
	assert.Zero(t, audited(t, s))
}

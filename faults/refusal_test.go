package faults_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
)

// refusal is a state in which a server answers and refuses to write.
type refusal struct {
	code  string
	begin func(t testing.TB, rdb *redis.Client)
	end   func(t testing.TB, rdb *redis.Client)
}

// set makes a step that sets a parameter.
func set(name, value string) func(testing.TB, *redis.Client) {
	return func(t testing.TB, rdb *redis.Client) {
		t.Helper()
		require.NoError(t, rdb.ConfigSet(context.Background(), name, value).Err())
	}
}

var refusals = []refusal{
	{"NOREPLICAS", set("min-replicas-to-write", "1"), set("min-replicas-to-write", "0")},
	{
		// A replica of nobody keeps its data.
		"READONLY", func(t testing.TB, rdb *redis.Client) {
			t.Helper()
			require.NoError(t, rdb.ReplicaOf(t.Context(), "127.0.0.1", "1").Err())
		}, func(t testing.TB, rdb *redis.Client) {
			t.Helper()
			require.NoError(t, rdb.ReplicaOf(t.Context(), "NO", "ONE").Err())
		},
	},
	{
		// A snapshot cannot replace a directory.
		"MISCONF", func(t testing.TB, rdb *redis.Client) {
			t.Helper()
			require.NoError(t, os.Mkdir(snapshot(t, rdb), 0o700))
			set("save", "3600 1")(t, rdb)
			require.NoError(t, rdb.BgSave(t.Context()).Err())
			require.Eventually(t, func() bool { return stats(t, rdb, "persistence", "rdb_last_bgsave_status") == "err" }, soon, 10*time.Millisecond)
		}, func(t testing.TB, rdb *redis.Client) {
			t.Helper()
			require.NoError(t, os.Remove(snapshot(t, rdb)))
			require.NoError(t, rdb.BgSave(t.Context()).Err())
		},
	},
}

// snapshot is the file to which a server saves.
func snapshot(t testing.TB, rdb *redis.Client) string {
	t.Helper()
	dir, err := rdb.ConfigGet(t.Context(), "dir").Result()
	require.NoError(t, err)
	return filepath.Join(dir["dir"], "dump.rdb")
}

// refused counts the commands to which the server answered with a code.
func refused(t testing.TB, rdb *redis.Client, code string) int {
	t.Helper()
	var n int
	_, _ = fmt.Sscanf(stats(t, rdb, "errorstats", "errorstat_"+code), "count=%d", &n)
	return n
}

// B14: the server refuses to write for longer than a lease, in each of the three
// ways. Submissions surely were not done, and what ends meanwhile is recorded
// afterwards: nothing is lost, executed again, or charged.
func TestB14_WritesRefused(t *testing.T) {
	t.Parallel()
	for _, r := range refusals {
		t.Run(r.code, func(t *testing.T) {
			t.Parallel()
			server := redistest.Single(t)
			admin := server.Client(t)
			w := newWorld(t, admin)
			var running atomic.Int64
			release := make(chan struct{})
			hold := func(ctx context.Context, _ *carillon.Execution) error {
				running.Add(1)
				select {
				case <-release:
					return nil
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			var log noise
			s := w.instance(server.Client(t), handlers{"work": work, "hold": hold}, log.heard)
			w.load(s, 10, carillon.Job{Name: "hold"})
			w.load(s, 20, carillon.Job{Name: "work", Delay: 300 * time.Millisecond})
			w.eventually("jobs run", func() bool { return running.Load() == 10 })

			r.begin(t, admin)
			w.eventually("writes are refused", func() bool {
				err := admin.Set(t.Context(), "{x}", "y", 0).Err()
				return err != nil && assert.ErrorContains(t, err, r.code)
			})
			w.fault(1)
			w.passes(w.lease / 3) // for what was under way
			_, err := w.submit(s, carillon.Job{Name: "work"})
			require.ErrorIs(t, err, carillon.ErrUnavailable)
			assert.NotErrorIs(t, err, carillon.ErrUncertain)
			assert.ErrorContains(t, err, r.code, "it says why")
			close(release)
			before, began := refused(t, admin, r.code), time.Now()
			w.passes(w.lease)
			rate := float64(refused(t, admin, r.code)-before) / time.Since(began).Seconds()
			t.Logf("%.0f commands/s were refused", rate)
			assert.Positive(t, rate)
			assert.Less(t, rate, 100.0, "commands per second of one instance")
			w.eventually("outcomes were tried", func() bool { return len(log.of("outcomes cannot be recorded yet")) > 0 })
			r.end(t, admin)

			w.load(s, 20, carillon.Job{Name: "work"})
			w.settled()
			w.once()
			assert.Empty(t, log.of("the job has moved on"))
			w.finish(50)
		})
	}
}

// B12: scripts of somebody else block the server again and again. It says BUSY,
// which is nobody's failure.
func TestB12_ForeignScript(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t, "lua-time-limit 10")
	admin, o := server.Client(t), server.Options()
	o.MaxRetries, o.ReadTimeout = -1, -1 // or it sends its script again, after it was killed
	foreign := redis.NewClient(o)
	t.Cleanup(func() { _ = foreign.Close() })
	w := newWorld(t, admin, func(w *world) { w.lease = 10 * time.Second }) // no script is as long
	var log noise
	for range 2 {
		w.instance(server.Client(t), handlers{"work": work}, log.heard)
	}
	producer := w.scheduler(server.Client(t))
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.load(producer, 300, carillon.Job{Name: "work"})
	}()
	var refused int
	for _, length := range []time.Duration{0, 500 * time.Millisecond} {
		before := len(w.queue.Acked())
		w.eventually("jobs are accepted", func() bool { return len(w.queue.Acked()) > before+30 || isClosed(done) })
		ended := make(chan error, 1)
		go func() { ended <- foreign.Eval(context.Background(), "while true do end", nil).Err() }()
		w.eventually("the server is busy", func() bool { return redis.HasErrorPrefix(admin.Ping(t.Context()).Err(), "BUSY") })
		if _, err := producer.Submit(t.Context(), carillon.Job{Name: "work"}); errors.Is(err, carillon.ErrUnavailable) {
			assert.ErrorContains(t, err, "BUSY")
			refused++
		}
		w.passes(length)
		require.NoError(t, admin.ScriptKill(t.Context()).Err())
		require.Error(t, <-ended)
		w.fault(1)
	}
	<-done
	assert.Equal(t, 2, refused, "submissions were refused")
	w.settled()
	w.once()
	w.finish(300)
}

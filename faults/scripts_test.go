package faults_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/knobs"
	"github.com/carillon-go/carillon/internal/redistest"
)

// forgotten counts how often the server did not know a script.
func forgotten(t testing.TB, rdb *redis.Client) string {
	t.Helper()
	return stats(t, rdb, "errorstats", "errorstat_NOSCRIPT")
}

// mixed hands in jobs of several kinds and expects that none is refused.
func (w *world) mixed(s *carillon.Scheduler, rounds int) {
	w.t.Helper()
	for range rounds {
		jobs := []carillon.Job{
			{Name: "work"},
			{Name: "work", Delay: 20 * time.Millisecond},
			{Name: "work", Mutex: "a"},
			{Name: "work", Priority: carillon.Critical, Tags: []string{"t"}},
		}
		receipts, err := s.SubmitMany(w.t.Context(), jobs)
		require.NoError(w.t, err)
		for _, r := range receipts {
			w.queue.Submitted(r.ID, r.Err)
		}
	}
}

// B6: somebody empties the script cache every 20 ms. Nobody notices.
func TestB6_ScriptFlush(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t)
	admin := server.Client(t)
	w := newWorld(t, admin, func(w *world) { w.segments, w.lease = 4, 5*time.Second })
	var log noise
	s := w.instance(server.Client(t), handlers{"work": work}, log.heard)
	ctx, cancel := context.WithCancel(t.Context())
	var flusher sync.WaitGroup
	defer flusher.Wait()
	defer cancel()
	var flushes atomic.Int64
	flusher.Go(func() {
		for wait(ctx, 20*time.Millisecond) == nil {
			assert.NoError(t, admin.ScriptFlush(context.Background()).Err())
			flushes.Add(1)
		}
	})
	for n := 0; n < 15 || flushes.Load() < often(20); n++ {
		w.mixed(s, 1)
		w.passes(10 * time.Millisecond)
	}
	w.settled()
	cancel()
	flusher.Wait()
	t.Logf("%d flushes, %s", flushes.Load(), forgotten(t, admin))
	assert.NotEmpty(t, forgotten(t, admin), "scripts were gone")
	w.fault(int(flushes.Load()))
	assert.Empty(t, log.of("trying again"))
	w.once()
	w.finish(50)
}

// flush empties the script cache before each pipeline that counts on it: the
// client has decided to send digests, and the server does not know them any more.
type flush struct {
	rdb *redis.Client
	hit atomic.Int64
}

func (f *flush) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (f *flush) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { return next(ctx, cmd) }
}

func (f *flush) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		digests := 0
		for _, cmd := range cmds {
			if cmd.Name() == "evalsha" {
				digests++
			}
		}
		if digests > 0 && f.rdb.ScriptFlush(context.Background()).Err() == nil {
			f.hit.Add(1)
		}
		return next(ctx, cmds)
	}
}

// B7: the cache is emptied between the building of a pipeline and its
// execution, each time. In a pipeline the other commands are executed, so each
// job is stored or reported, and none is silently left out.
func TestB7_ScriptFlushInPipeline(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t)
	admin := server.Client(t)
	w := newWorld(t, admin, func(w *world) { w.segments, w.lease = 4, 5*time.Second })
	f := &flush{rdb: admin}
	rdb := server.Client(t)
	knobs.Hook(rdb, f)
	var log noise
	s := w.instance(rdb, handlers{"work": work}, log.heard)
	w.mixed(s, 30)
	w.settled()
	t.Logf("%d pipelines, %s", f.hit.Load(), forgotten(t, admin))
	w.fault(int(f.hit.Load()))
	assert.Greater(t, f.hit.Load(), int64(30), "every batch went through pipelines")
	assert.True(t, strings.HasPrefix(forgotten(t, admin), "count="))
	assert.Empty(t, log.of("trying again"))
	w.once()
	w.finish(120)
}

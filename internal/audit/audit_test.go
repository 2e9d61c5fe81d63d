package audit_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/embedded"
	"github.com/carillon-go/carillon/internal/audit"
)

const namespace = "audited"

// lived makes a namespace with a job in every kind of place.
func lived(t *testing.T) redis.UniversalClient {
	t.Helper()
	rdb, stop := embedded.Open()
	t.Cleanup(stop)
	s, err := carillon.New(rdb, carillon.Config{
		Namespace: namespace, LeaseTTL: time.Minute, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	started := make(chan string, 8)
	require.NoError(t, s.Handle("done", carillon.HandlerFunc(func(context.Context, *carillon.Execution) error { return nil })))
	require.NoError(t, s.Handle("runs", carillon.HandlerFunc(func(ctx context.Context, x *carillon.Execution) error {
		started <- x.ID
		<-ctx.Done()
		return context.Cause(ctx)
	})))
	require.NoError(t, s.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.Cancel(ctx, "runs")
		_ = s.Shutdown(ctx)
	})
	for _, job := range []carillon.Job{
		{ID: "done", Name: "done"},
		{ID: "runs", Name: "runs", Mutex: "door", Tags: []string{"tag"}, Unique: carillon.Unique{Key: "key"}},
		{ID: "waits", Name: "done", Mutex: "door"},
		{ID: "later", Name: "done", Delay: time.Hour},
		{ID: "queued", Name: "done", Queue: "nobody's"},
	} {
		_, err := s.Submit(t.Context(), job)
		require.NoError(t, err)
	}
	require.NoError(t, s.Schedule(t.Context(), carillon.Schedule{
		Name: "plan", Spec: carillon.Every(time.Hour), Job: carillon.Job{Name: "done"},
	}))
	_, err = s.Await(t.Context(), "done")
	require.NoError(t, err)
	require.Equal(t, "runs", <-started)
	return rdb
}

func TestSoundNamespace(t *testing.T) {
	t.Parallel()
	rdb := lived(t)
	r, err := audit.Take(t.Context(), rdb, namespace)
	require.NoError(t, err)
	assert.Empty(t, r.Findings)
	assert.Equal(t, 5, r.Jobs)
	assert.Equal(t, map[byte]int{'s': 1, 'q': 2, 'w': 1, 'd': 1}, r.States)
	assert.Equal(t, map[string]int{"done": 1}, r.Outcomes)
	assert.NotEmpty(t, r.Left, "jobs live and an instance runs")
	assert.Empty(t, r.Strays)

	stream := "{" + namespace + ":0}:q:n:default"
	require.NoError(t, rdb.XGroupCreateConsumer(t.Context(), stream, "w", "gone").Err())
	r, err = audit.Take(t.Context(), rdb, namespace)
	require.NoError(t, err)
	assert.Empty(t, r.Findings, "it holds nothing")
	assert.Equal(t, []string{stream + ": gone"}, r.Strays)
}

// Every mistake that a transition could make is seen.
func TestFindings(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	key := func(name string) string { return "{" + namespace + ":0}:" + name }
	entry := func(t *testing.T, rdb redis.UniversalClient, id string) string {
		t.Helper()
		place, err := rdb.HGet(ctx, key("j:"+id), "p").Result()
		require.NoError(t, err)
		return place
	}
	for name, c := range map[string]struct {
		tamper func(t *testing.T, rdb redis.UniversalClient)
		want   string
	}{
		"a due job is nowhere": {
			func(_ *testing.T, rdb redis.UniversalClient) { rdb.Del(ctx, key("due")) }, "is not there",
		},
		"a waiting job is nowhere": {
			func(_ *testing.T, rdb redis.UniversalClient) { rdb.Del(ctx, key("wait")) }, "is not there",
		},
		"a queued job is nowhere": {
			func(t *testing.T, rdb redis.UniversalClient) {
				t.Helper()
				rdb.XDel(ctx, key("q:n:nobody's"), entry(t, rdb, "queued"))
			}, "is not there",
		},
		"a job is in two places": {
			func(_ *testing.T, rdb redis.UniversalClient) {
				rdb.ZAdd(ctx, key("due"), redis.Z{Score: 1, Member: "n:::runs"})
			}, "in 2 places",
		},
		"a final job is in a place": {
			func(_ *testing.T, rdb redis.UniversalClient) {
				rdb.ZAdd(ctx, key("due"), redis.Z{Score: 1e14, Member: "n:::done"})
			}, "is final",
		},
		"a place without a record": {
			func(_ *testing.T, rdb redis.UniversalClient) { rdb.Del(ctx, key("j:later")) }, "has no record",
		},
		"an old entry": {
			func(_ *testing.T, rdb redis.UniversalClient) { rdb.HSet(ctx, key("j:queued"), "p", "1-1") }, "place 1-1",
		},
		"a final job for ever": {
			func(_ *testing.T, rdb redis.UniversalClient) { rdb.Persist(ctx, key("j:done")) }, "no time to live",
		},
		"a job that ended twice": {
			func(_ *testing.T, rdb redis.UniversalClient) {
				rdb.XAdd(ctx, &redis.XAddArgs{Stream: key("h:f"), Values: []string{"i", "done"}})
			}, "whose place is",
		},
		"a unique key of nobody": {
			func(_ *testing.T, rdb redis.UniversalClient) { rdb.Set(ctx, key("u:left"), "done", 0) }, "does not live",
		},
		"a mutex of nobody": {
			func(_ *testing.T, rdb redis.UniversalClient) { rdb.HSet(ctx, key("m:left"), "h", "done") }, "not queued or running",
		},
		"a free mutex for ever": {
			func(_ *testing.T, rdb redis.UniversalClient) { rdb.HSet(ctx, key("m:left"), "t", "1") }, "stays for ever",
		},
		"a tag of nobody": {
			func(_ *testing.T, rdb redis.UniversalClient) { rdb.SAdd(ctx, key("t:tag"), "done") }, "does not live",
		},
		"a cancel request for nobody": {
			func(_ *testing.T, rdb redis.UniversalClient) { rdb.HSet(ctx, key("cancels"), "done", "1") }, "cancel request",
		},
		"a pending entry that is gone": {
			func(t *testing.T, rdb redis.UniversalClient) {
				t.Helper()
				rdb.XDel(ctx, key("q:n:default"), entry(t, rdb, "runs"))
			}, "pending and was deleted",
		},
		"a worker nobody knows": {
			func(_ *testing.T, rdb redis.UniversalClient) { rdb.Del(ctx, key("workers")) }, "not registered",
		},
		"a schedule that is not planned": {
			func(_ *testing.T, rdb redis.UniversalClient) { rdb.ZRem(ctx, key("plan"), "plan") }, "is not planned",
		},
		"a plan without a schedule": {
			func(_ *testing.T, rdb redis.UniversalClient) { rdb.Del(ctx, key("s:plan")) }, "is planned for",
		},
		"a schedule without its version": {
			func(_ *testing.T, rdb redis.UniversalClient) { rdb.Del(ctx, key("sv:plan")) }, "not among its versions",
		},
		"versions that pass": {
			func(_ *testing.T, rdb redis.UniversalClient) { rdb.Expire(ctx, key("sv:plan"), time.Hour) }, "its versions pass",
		},
		"versions of nobody": {
			func(_ *testing.T, rdb redis.UniversalClient) { rdb.HSet(ctx, key("sv:gone"), "1", "") }, "no time to live",
		},
		"a ledger for ever": {
			func(_ *testing.T, rdb redis.UniversalClient) {
				rdb.ZAdd(ctx, key("sl:plan"), redis.Z{Score: 1, Member: "1 fired"})
			}, "no time to live",
		},
		"a group that names nobody": {
			func(_ *testing.T, rdb redis.UniversalClient) { rdb.SAdd(ctx, key("sg:reports"), "gone") }, "which is not in it",
		},
		"a group that lacks a member": {
			func(_ *testing.T, rdb redis.UniversalClient) { rdb.HSet(ctx, key("s:plan"), "gr", "reports") }, "lacks its member",
		},
		"a schedule that is not listed": {
			func(_ *testing.T, rdb redis.UniversalClient) { rdb.Del(ctx, key("sg:")) }, "is not listed",
		},
		"a list that names nobody": {
			func(_ *testing.T, rdb redis.UniversalClient) { rdb.SAdd(ctx, key("sg:"), "gone") }, "which is not in it",
		},
		"users of no calendar": {
			func(_ *testing.T, rdb redis.UniversalClient) { rdb.SAdd(ctx, key("cu:gone"), "plan") }, "no such calendar",
		},
		"a lease for ever": {
			func(_ *testing.T, rdb redis.UniversalClient) { rdb.Set(ctx, key("k:left"), "x 1", 0) }, "no time to live",
		},
		"an own queue of nobody": {
			func(_ *testing.T, rdb redis.UniversalClient) {
				rdb.ZAdd(ctx, key("own"), redis.Z{Member: "gone:"})
			}, "own queue of instance gone, which is not registered",
		},
		"a stream of an instance that left": {
			func(_ *testing.T, rdb redis.UniversalClient) {
				rdb.XGroupCreateMkStream(ctx, key("q:n:%00gone"), "w", "0")
			}, "does not read it",
		},
		"books of an instance that left": {
			func(_ *testing.T, rdb redis.UniversalClient) {
				rdb.HSet(ctx, key("taken"), key("q:n:%00gone"), "0")
			}, "in the books",
		},
		"a job for an instance that is not noted": {
			func(_ *testing.T, rdb redis.UniversalClient) {
				rdb.ZAdd(ctx, key("due"), redis.Z{Score: 1e14, Member: "n:%00gone::later"})
			}, "is for instance gone, and noted for",
		},
		"a job that is noted and ended": {
			func(_ *testing.T, rdb redis.UniversalClient) {
				rdb.ZAdd(ctx, key("own"), redis.Z{Member: "gone:done"})
			}, "job done is noted for instance gone and does not live",
		},
		"a key of nobody": {
			func(_ *testing.T, rdb redis.UniversalClient) { rdb.Set(ctx, key("what"), "x", 0) }, "not a key",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rdb := lived(t)
			c.tamper(t, rdb)
			r, err := audit.Take(t.Context(), rdb, namespace)
			require.NoError(t, err)
			assert.Contains(t, strings.Join(r.Findings, "\n"), c.want)
		})
	}
}

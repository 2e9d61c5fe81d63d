package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/redistest"
)

func TestActsOnACluster(t *testing.T) {
	played(t, redistest.SharedCluster(t).Client(t), nil, false)
}

func TestActsBehindSentinels(t *testing.T) {
	played(t, redistest.SharedSentinel(t).Client(t), nil, false)
}

// A cluster spreads the segments; everything must work in each.
func TestLifeInEverySegmentOfACluster(t *testing.T) {
	rdb := redistest.SharedCluster(t).Client(t)
	s := open(t, rdb, Options{})
	require.Equal(t, defaultClusterSegments, s.Segments())
	masters := map[string]int{}
	for _, k := range s.segments {
		master, err := rdb.MasterForKey(t.Context(), k.meta())
		require.NoError(t, err)
		masters[master.Options().Addr]++
	}
	assert.Equal(t, []int{4, 4, 4}, slices.Collect(maps.Values(masters)))
	w := work(t, s, "worker")
	var news []NewJob
	for i := range 200 {
		edit := func(*Spec) {}
		switch i % 3 {
		case 1:
			edit = func(s *Spec) { s.Mutex = fmt.Sprint("door ", i) }
		case 2:
			edit = func(s *Spec) { s.RunAt = time.UnixMilli(1) }
		}
		news = append(news, NewJob{ID: fmt.Sprint("job-", i), Spec: job(edit)})
	}
	receipts, errs := s.Submit(t.Context(), news)
	require.NoError(t, errors.Join(errs...))
	require.Len(t, receipts, 200)
	promoted := 0
	for i := range s.Segments() {
		tick, err := s.Promote(t.Context(), i, func(string, error) {})
		require.NoError(t, err)
		promoted += tick.Promoted
	}
	assert.Equal(t, 66, promoted)
	var batch []Settlement
	seen := map[int]bool{}
	for _, r := range w.readers {
		entries, _, err := r.Fetch(t.Context(), 200, 10)
		require.NoError(t, err)
		for _, e := range entries {
			seen[e.Segment] = true
			batch = append(batch, Settlement{Entry: e, Outcome: Succeed})
		}
	}
	assert.Len(t, seen, defaultClusterSegments)
	require.Len(t, batch, 200)
	_, errs = s.Settle(t.Context(), "worker", batch)
	require.NoError(t, errors.Join(errs...))
	counts, err := s.Counts(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 200, counts.States[Succeeded])
	assert.Zero(t, counts.States[Queued]+counts.States[Running]+counts.States[Scheduled])
}

func TestSegmentsMustAgree(t *testing.T) {
	for name, rdb := range map[string]redis.UniversalClient{
		"single": redistest.Shared(t).Client(t), "cluster": redistest.SharedCluster(t).Client(t),
	} {
		t.Run(name, func(t *testing.T) {
			ns := redistest.Namespace(t)
			submit(t, open(t, rdb, Options{Namespace: ns, Segments: 4}), "a", job())
			submit(t, open(t, rdb, Options{Namespace: ns, Segments: 4}), "b", job())
			other := open(t, rdb, Options{Namespace: ns, Segments: 8})
			for range 2 {
				_, errs := other.Submit(t.Context(), []NewJob{{ID: "c", Spec: job()}})
				require.ErrorContains(t, errs[0], "Segments")
				assert.ErrorContains(t, errs[0], "4 segments")
				assert.ErrorContains(t, errs[0], "asks for 8")
				_, err := other.Get(t.Context(), "a")
				assert.ErrorContains(t, err, "Segments")
			}
			k := newKeys(ns, 0)
			require.NoError(t, rdb.HSet(t.Context(), k.meta(), "format", formatVersion+1).Err())
			_, err := open(t, rdb, Options{Namespace: ns, Segments: 4}).Get(t.Context(), "a")
			assert.ErrorIs(t, err, ErrNewer)
			require.NoError(t, rdb.Del(t.Context(), k.meta()).Err())
			require.NoError(t, rdb.Set(t.Context(), k.meta(), "foreign", 0).Err())
			_, err = open(t, rdb, Options{Namespace: ns, Segments: 4}).Get(t.Context(), "a")
			assert.ErrorIs(t, err, ErrDamaged)
		})
	}
}

func TestNewRefuses(t *testing.T) {
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	defer rdb.Close()
	var none *redis.Client
	var noCluster *redis.ClusterClient
	ring := redis.NewRing(&redis.RingOptions{HeartbeatFrequency: time.Hour})
	defer ring.Close()
	for name, c := range map[string]redis.UniversalClient{"nil": nil, "a nil client": none, "a nil cluster": noCluster, "a ring": ring} {
		_, err := New(c, Options{Namespace: "x"})
		assert.ErrorContains(t, err, "client", name)
	}
	for _, n := range []int{-1, maxSegments + 1} {
		_, err := New(rdb, Options{Namespace: "x", Segments: n})
		assert.ErrorContains(t, err, "Segments")
	}
}

// A managed Redis often denies CONFIG and parts of INFO.
func TestDeniedChecksAreNoFailure(t *testing.T) {
	rdb := redistest.Shared(t).Client(t)
	for name, rules := range map[string][]string{
		"CONFIG":          {"+@all", "-config"},
		"INFO":            {"+@all", "-info"},
		"CONFIG and INFO": {"+@all", "-config", "-info"},
		"all admin":       {"+@all", "-@admin", "-@dangerous"},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, rdb.ACLSetUser(t.Context(), "limited", append([]string{"reset", "on", "nopass", "allkeys", "allchannels"}, rules...)...).Err())
			defer rdb.ACLDelUser(context.Background(), "limited")
			o := *rdb.Options()
			o.Username, o.Password = "limited", "any"
			client := redis.NewClient(&o)
			defer client.Close()
			var log bytes.Buffer
			s := open(t, client, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			v, err := s.Inspect(t.Context())
			require.NoError(t, err)
			assert.False(t, v.TooOld())
			assert.Empty(t, log.String())
			w := work(t, s, "worker")
			submit(t, s, "a", job())
			require.NoError(t, w.settle(w.take(1)[0], Succeed))
			assert.Equal(t, Succeeded, w.state("a"))
		})
	}
	t.Run("nothing is denied", func(t *testing.T) {
		v, err := open(t, rdb, Options{}).Inspect(t.Context())
		require.NoError(t, err)
		assert.NotEmpty(t, v.Version)
		assert.Equal(t, "noeviction", v.Eviction)
		assert.NotEmpty(t, v.Persistence)
	})
	t.Run("everything is denied", func(t *testing.T) {
		o := *rdb.Options()
		o.Username, o.Password = "nobody", "any"
		client := redis.NewClient(&o)
		defer client.Close()
		_, err := open(t, client, Options{}).Inspect(t.Context())
		assert.ErrorIs(t, err, ErrUnavailable)
		assert.ErrorContains(t, err, "denies access")
	})
}

func TestVersions(t *testing.T) {
	for v, old := range map[string]bool{
		"6.0.16": true, "5.0": true, "6.1.240": true, "6.2.0": false, "7.0.15": false, "8.4.0": false, "255.255.255": false,
		"": false, "valkey": false,
	} {
		assert.Equal(t, old, Server{Version: v}.TooOld(), v)
	}
}

// What ends work must go on when Redis is out of memory, or nothing ever frees
// any; what adds work is refused.
func TestOutOfMemory(t *testing.T) {
	server := redistest.Single(t, "maxmemory-policy noeviction")
	rdb, ctx := server.Client(t), t.Context()
	s := open(t, rdb, Options{})
	w := work(t, s, "worker")
	lost := work(t, s, "lost")
	outcomes := map[string]Outcome{"f": Fail, "c": Cancel, "r": Retry, "z": Snooze, "b": Release, "u": Decline, "s": Succeed}
	for id := range outcomes {
		submit(t, s, id, job(tagged, func(s *Spec) { s.Unique = id }))
	}
	entries := w.take(len(outcomes))
	submit(t, s, "lost", job(mutexed))
	lost.take(1)
	submit(t, s, "waits", job(mutexed))
	submit(t, s, "queued", job())
	submit(t, s, "later", job(later1h))
	submit(t, s, "due", job(past))

	require.NoError(t, rdb.ConfigSet(ctx, "maxmemory", "1mb").Err())
	require.ErrorContains(t, rdb.Set(ctx, "x", "y", 0).Err(), "OOM")
	before := dump(t, rdb, s)

	for name, spec := range map[string]*Spec{"now": job(), "later": job(later1h), "mutex": job(mutexed), "queue": job(func(s *Spec) { s.Queue = "other" })} {
		_, errs := s.Submit(ctx, []NewJob{{ID: "new " + name, Spec: spec}, {ID: "other " + name, Spec: spec}})
		for _, err := range errs {
			require.ErrorIs(t, err, ErrUnavailable, name)
			assert.NotErrorIs(t, err, ErrUncertain)
			assert.ErrorContains(t, err, "out of memory")
		}
	}
	assert.Equal(t, before, dump(t, rdb, s), "surely nothing was done")

	for _, e := range entries {
		require.NoError(t, w.settle(e, outcomes[e.ID], delay(time.Hour), func(o *Settlement) { o.Result = []byte("1") }), e.ID)
	}
	_, errs := s.Heartbeat(ctx, "worker", time.Minute, []string{DefaultQueue}, 3, nil, "")
	require.NoError(t, Distinct(errs))
	require.NoError(t, rdb.ZRem(ctx, s.segments[0].workers(), "lost").Err())
	done, err := s.Reclaim(ctx, 0, "lost", 3, func(string, error) {})
	require.NoError(t, err)
	assert.Equal(t, 1, done.Again)
	tick, err := s.Promote(ctx, 0, func(string, error) {})
	require.NoError(t, err)
	assert.Equal(t, 1, tick.Promoted)

	fresh := open(t, rdb, Options{Namespace: s.options.Namespace}) // a tool that was started to help
	for _, id := range []string{"queued", "later", "waits"} {
		_, err := fresh.Cancel(ctx, id, "to make room")
		require.NoError(t, err, id)
		assert.Equal(t, Cancelled, w.state(id))
	}
	for _, e := range w.take(3) { // lost, released, due
		_, err := fresh.Cancel(ctx, e.ID, "to make room")
		require.NoError(t, err)
		require.NoError(t, w.settle(e, Retry))
		assert.Equal(t, Cancelled, w.state(e.ID))
	}
	require.NoError(t, fresh.Pause(ctx, DefaultQueue, false))
	_, err = fresh.Trim(ctx, 0)
	require.NoError(t, err)
	require.NoError(t, w.Leave(ctx, "worker", []string{DefaultQueue}))

	require.NoError(t, rdb.ConfigSet(ctx, "maxmemory", "0").Err())
	submit(t, s, "again", job())
	for id, want := range map[string]State{"f": Failed, "c": Cancelled, "r": Retrying, "z": Scheduled, "u": Scheduled, "s": Succeeded} {
		assert.Equal(t, want, w.state(id), id)
	}
}

// A server that refuses writes for now (too few replicas, a replica itself, a
// full disk) says nothing about the job: its outcome is not refused for good.
func TestRefusedWrites(t *testing.T) {
	server := redistest.Single(t)
	rdb, ctx := server.Client(t), t.Context()
	s := open(t, rdb, Options{})
	w := work(t, s, "worker")
	outcomes := []Outcome{Succeed, Fail, Cancel, Retry, Snooze, Release, Decline}
	for _, o := range outcomes {
		submit(t, s, string(o), job())
	}
	entries := w.take(len(outcomes))
	require.Len(t, entries, len(outcomes))
	require.NoError(t, rdb.ConfigSet(ctx, "min-replicas-to-write", "1").Err())
	before := dump(t, rdb, s)
	for _, e := range entries {
		err := w.settle(e, Outcome(e.ID[0]))
		require.ErrorIs(t, err, ErrUnavailable, e.ID)
		assert.NotErrorIs(t, err, ErrFenced, e.ID)
		assert.ErrorContains(t, err, "NOREPLICAS", e.ID)
	}
	assert.Equal(t, before, dump(t, rdb, s), "surely nothing was done")
	require.NoError(t, rdb.ConfigSet(ctx, "min-replicas-to-write", "0").Err())
	for _, e := range entries {
		require.NoError(t, w.settle(e, Outcome(e.ID[0])), e.ID)
	}
}

// A failover or an operator empties the script cache at any moment.
func TestScriptFlushUnderLoad(t *testing.T) {
	server := redistest.Single(t)
	rdb := server.Client(t)
	s := open(t, rdb, Options{Segments: 4})
	w := work(t, s, "worker")
	ctx, cancel := context.WithCancel(t.Context())
	var flusher sync.WaitGroup
	flushes := 0
	flusher.Go(func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			if rdb.ScriptFlush(context.Background()).Err() == nil {
				flushes++
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	const producers, each = 4, 40
	var busy sync.WaitGroup
	for p := range producers {
		busy.Go(func() {
			for i := range each {
				_, errs := s.Submit(t.Context(), []NewJob{
					{ID: fmt.Sprint(p, "-", i), Spec: job()},
					{ID: fmt.Sprint(p, "+", i), Spec: job(func(s *Spec) { s.Unique = fmt.Sprint(p, i) })},
				})
				if err := errors.Join(errs...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	settled := 0
	for deadline := time.Now().Add(patience); settled < 2*producers*each && time.Now().Before(deadline); {
		entries, _, err := w.readers[0].Fetch(t.Context(), 50, 5)
		require.NoError(t, err)
		var batch []Settlement
		for _, e := range entries {
			batch = append(batch, Settlement{Entry: e, Outcome: Succeed})
		}
		_, errs := s.Settle(t.Context(), "worker", batch)
		require.NoError(t, errors.Join(errs...))
		settled += len(batch)
		_, beats := s.Heartbeat(t.Context(), "worker", time.Minute, []string{DefaultQueue}, 0, nil, "")
		err = Distinct(beats)
		require.NoError(t, err)
		for i := range s.Segments() {
			_, err := s.Promote(t.Context(), i, func(string, error) {})
			require.NoError(t, err)
		}
	}
	busy.Wait()
	cancel()
	flusher.Wait()
	assert.Equal(t, 2*producers*each, settled)
	assert.Greater(t, flushes, 5)
	t.Logf("%d flushes", flushes)
}

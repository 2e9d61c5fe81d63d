package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/knobs"
	"github.com/carillon-go/carillon/internal/redistest"
)

// replicated opens a store on servers with replicas of their own, which the test
// may freeze.
func replicated(t *testing.T, wait int) (s *Store, rdb *redis.Client, replicas []*redistest.Server) {
	t.Helper()
	servers := redistest.NewSentinel(t)
	rdb = servers.Client(t)
	primary := servers.Primary(t)
	for _, one := range servers.Servers() {
		if one != primary {
			replicas = append(replicas, one)
		}
	}
	return open(t, rdb, Options{WaitReplicas: wait}), rdb, replicas
}

// short makes a lagging replica cost little time.
func short(s *Store) *Store {
	s.replicaWait = 300 * time.Millisecond
	return s
}

func TestWaitReplicas(t *testing.T) {
	t.Parallel()
	s, rdb, replicas := replicated(t, 2)
	ctx := t.Context()
	submit(t, s, "before", job())
	submit(t, s, "final", job())
	_, err := s.Cancel(ctx, "final", "no more")
	require.NoError(t, err)

	s.replicaWait = 2 * time.Second // the other one has time
	replicas[0].Pause(t)
	started := time.Now()
	receipts, errs := s.Submit(ctx, []NewJob{{ID: "a", Spec: job()}, {ID: "before", Spec: job(later1h)}})
	require.ErrorIs(t, errs[0], ErrUncertain)
	assert.ErrorIs(t, errs[0], ErrReplicas)
	assert.NotErrorIs(t, errs[0], ErrUnavailable)
	assert.ErrorContains(t, errs[0], "1 of 2 replicas confirmed")
	assert.ErrorContains(t, errs[0], "same ID")
	assert.Equal(t, Receipt{ID: "a"}, receipts[0])
	require.ErrorIs(t, errs[1], ErrConflict, "a refusal needs no replica")
	assert.GreaterOrEqual(t, time.Since(started), s.replicaWait)
	assert.EqualValues(t, 1, rdb.Exists(ctx, s.segments[0].record("a")).Val(), "it is on the primary")

	// Every other call that a caller relies on says so as well.
	short(s)
	for name, call := range map[string]func() error{
		"a duplicate": func() error {
			receipts, errs := s.Submit(ctx, []NewJob{{ID: "before", Spec: job()}})
			assert.Equal(t, Receipt{ID: "before"}, receipts[0])
			return errs[0]
		},
		"a unique duplicate": func() error {
			_, _ = s.Submit(ctx, []NewJob{{ID: "u1", Spec: job(unique)}})
			receipts, errs := s.Submit(ctx, []NewJob{{ID: "u2", Spec: job(unique)}})
			assert.Equal(t, Receipt{ID: "u2"}, receipts[0])
			return errs[0]
		},
		"cancel":       func() error { _, err := s.Cancel(ctx, "before", "no more"); return err },
		"cancel again": func() error { _, err := s.Cancel(ctx, "final", "no more"); return err },
		"put": func() error {
			_, _, err := s.PutSchedule(ctx, definition("nightly", time.Now().Add(time.Hour)))
			return err
		},
		"a turn": func() error { return s.TakeTurn(ctx, Turn{Schedule: &Schedule{Name: "weekly", Generation: 1}}).Err },
		"a mark": func() error { return s.MarkGroup(ctx, "reports", []byte("paused")) },
		"a calendar": func() error {
			_, err := s.PutCalendar(ctx, "holidays", []byte("2026"), nil)
			return err
		},
		"a use": func() error { return s.NoteCalendarUse(ctx, "holidays", "weekly") },
		"no calendar": func() error {
			_, err := s.DropCalendar(ctx, "weekends", []byte("2026"))
			return err
		},
		"drop":  func() error { return s.DropSchedule(ctx, "weekly") },
		"pause": func() error { return s.Pause(ctx, "mail", true) },
		"revive": func() error {
			_, _ = s.Cancel(ctx, "before", "no more")
			return s.Revive(ctx, "before")
		},
		"hurry": func() error {
			_, _ = s.Submit(ctx, []NewJob{{ID: "h", Spec: job(later1h)}})
			return s.Hurry(ctx, "h")
		},
	} {
		assert.ErrorIs(t, call(), ErrUncertain, name)
	}

	replicas[0].Resume(t)
	redistest.Wait(t, patience, func() error {
		receipts, errs = s.Submit(ctx, []NewJob{{ID: "a", Spec: job()}})
		return errs[0]
	})
	assert.Equal(t, Receipt{ID: "a", Duplicate: true}, receipts[0])
	for _, one := range replicas {
		assert.EqualValues(t, 1, one.Client(t).Exists(ctx, s.segments[0].record("a")).Val(), "acknowledged means that both have it")
	}
	assert.Zero(t, rdb.Exists(ctx, markOf(s.segments[0].due())).Val())
}

// What workers record does not wait, nor does anything of an instance by itself.
func TestSettlesDoNotWaitForReplicas(t *testing.T) {
	t.Parallel()
	s, _ := inMemory(t, Options{WaitReplicas: 1}) // miniredis has no replicas: WAIT answers 0
	short(s)
	w := work(t, s, "worker")
	_, errs := s.Submit(t.Context(), []NewJob{{ID: "a", Spec: job()}})
	require.ErrorIs(t, errs[0], ErrUncertain)
	assert.ErrorContains(t, errs[0], "0 of 1 replicas")
	require.NoError(t, w.settle(w.take(1)[0], Succeed))
	_, beats := s.Heartbeat(t.Context(), "worker", time.Minute, []string{DefaultQueue}, 0, nil, "")
	require.NoError(t, Distinct(beats))
	_, err := s.Promote(t.Context(), 0, func(string, error) {})
	require.NoError(t, err)
}

func TestWaitReplicasOnACluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.NewCluster(t)
	rdb := cluster.Client(t)
	s := open(t, rdb, Options{WaitReplicas: 1})
	ctx := t.Context()
	var news []NewJob
	for i := range 60 {
		edit := func(*Spec) {}
		if i%3 == 0 { // whose ID is noted in another segment
			edit = func(s *Spec) { s.Mutex = fmt.Sprint("door ", i) }
		}
		news = append(news, NewJob{ID: fmt.Sprint("job-", i), Spec: job(edit)})
	}
	redistest.Wait(t, patience, func() error {
		_, errs := s.Submit(ctx, news)
		return errors.Join(errs...)
	})
	s.replicaWait = 2 * time.Second

	frozen := cluster.Master(t, s.segments[0].due())
	var replica *redistest.Server
	for _, node := range cluster.Nodes() {
		role := texts(node.Client(t).Do(ctx, "role").Val())
		if role[0] == "slave" && role[1]+":"+role[2] == frozen.Addr() {
			replica = node
		}
	}
	require.NotNil(t, replica)
	in := func(segment int) string {
		for i := 0; ; i++ {
			if id := fmt.Sprint("new-", segment, "-", i); hashSegment(id, s.Segments()) == segment {
				return id
			}
		}
	}
	far := -1
	for i := range s.segments {
		if cluster.Master(t, s.segments[i].due()) != frozen {
			far = i
		}
	}
	require.Positive(t, far)
	replica.Pause(t)
	_, errs := s.Submit(ctx, []NewJob{{ID: in(0), Spec: job()}, {ID: in(far), Spec: job()}})
	require.ErrorIs(t, errs[0], ErrUncertain)
	assert.ErrorContains(t, errs[0], "0 of 1 replicas")
	require.NoError(t, errs[1], "another node has a replica of its own")
	replica.Resume(t)
	redistest.Wait(t, patience, func() error {
		_, errs := s.Submit(ctx, []NewJob{{ID: in(0), Spec: job()}})
		return errs[0]
	})
}

// A slot that is on its way to another node, or was moved, is asked for again.
func TestMovedSlotsAreNotFinal(t *testing.T) {
	t.Parallel()
	rdb := redistest.SharedCluster(t).Client(t)
	for _, segment := range []int{0, 1, 2, 3} {
		key := newKeys("moved", segment).due()
		right, err := rdb.MasterForKey(t.Context(), key)
		require.NoError(t, err)
		require.NoError(t, rdb.ForEachMaster(t.Context(), func(ctx context.Context, node *redis.Client) error {
			if err := node.ZCard(ctx, key).Err(); node.Options().Addr != right.Options().Addr {
				assert.Equal(t, later, judge(err), "%v", err)
			}
			return nil
		}))
	}
}

// Without WaitReplicas nothing is sent that was not sent before.
func TestNothingWaitsByDefault(t *testing.T) {
	t.Parallel()
	rdb := redistest.Shared(t).Client(t)
	for wait, want := range map[int]int{0: 0, 1: 2} {
		var mu sync.Mutex
		sent := 0
		knobs.Hook(rdb, hook{func(_ context.Context, cmd redis.Cmder, next func(redis.Cmder) error) error {
			if cmd.Name() == "wait" || isScript(cmd) && scriptOf(cmd) == "mark" {
				mu.Lock()
				sent++
				mu.Unlock()
			}
			return next(cmd)
		}})
		s := short(open(t, rdb, Options{WaitReplicas: wait}))
		_, errs := s.Submit(t.Context(), []NewJob{{ID: "a", Spec: job()}})
		if wait == 0 {
			require.NoError(t, errs[0])
		}
		assert.Equal(t, want, sent, "WaitReplicas %d", wait)
	}
}

// A caller with little time does not wait for longer than it has.
func TestReplicaPatience(t *testing.T) {
	t.Parallel()
	s, _ := inMemory(t, Options{WaitReplicas: 1})
	assert.Equal(t, replicaWait, s.replicaPatience(t.Context(), 0))
	assert.Equal(t, 100*time.Millisecond, s.replicaPatience(t.Context(), 200*time.Millisecond))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	assert.LessOrEqual(t, s.replicaPatience(ctx, 0), 50*time.Millisecond)
	gone, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	assert.Equal(t, time.Millisecond, s.replicaPatience(gone, 0))
}

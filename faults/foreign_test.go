package faults_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/faultnet"
	"github.com/carillon-go/carillon/internal/redistest"
)

// key is a key of the world's first segment.
func (w *world) key(name string) string { return "{" + w.namespace + ":0}:" + name }

// B16: everything is deleted while readers are blocked, which is said loudly.
// What comes afterwards works: jobs, and schedules once they are stored again.
func TestB16_FlushedUnderReaders(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t)
	admin := server.Client(t)
	w := newWorld(t, admin)
	w.mayLose()
	var log noise
	for range 2 {
		w.instance(server.Client(t), handlers{"work": work}, log.heard)
	}
	producer := w.scheduler(server.Client(t))
	w.load(producer, 50, carillon.Job{Name: "work"})
	w.settled()
	every := carillon.Schedule{Name: "often", Spec: carillon.Every(100 * time.Millisecond), Job: carillon.Job{Name: "work"}}
	w.queue.Made(func(id string) bool { return strings.HasPrefix(id, "often~") })
	require.NoError(t, producer.Schedule(t.Context(), every))

	require.NoError(t, admin.FlushAll(t.Context()).Err())
	w.fault(1)
	w.sound(producer, 50)
	w.settled()
	assert.NotEmpty(t, log.of("lost its streams"), "it is said")
	_, err := producer.GetSchedule(t.Context(), "often")
	require.ErrorIs(t, err, carillon.ErrNotFound, "nobody stored it again")
	require.NoError(t, producer.Schedule(t.Context(), every))
	w.eventually("it fires", func() bool {
		info, err := producer.GetSchedule(t.Context(), "often")
		return err == nil && !info.Last.IsZero()
	})
	require.NoError(t, producer.Unschedule(t.Context(), "often"))
	w.finish(100)
}

// hands are what somebody with access to Redis can do to a stream.
var hands = map[string]func(ctx context.Context, rdb redis.UniversalClient, stream string) error{
	"XGROUP DESTROY": func(ctx context.Context, rdb redis.UniversalClient, stream string) error {
		return rdb.XGroupDestroy(ctx, stream, "w").Err()
	},
	"XGROUP DELCONSUMER": func(ctx context.Context, rdb redis.UniversalClient, stream string) error {
		consumers, err := rdb.XInfoConsumers(ctx, stream, "w").Result()
		for _, c := range consumers {
			if err == nil {
				err = rdb.XGroupDelConsumer(ctx, stream, "w", c.Name).Err()
			}
		}
		return err
	},
	"XDEL": func(ctx context.Context, rdb redis.UniversalClient, stream string) error {
		entries, err := rdb.XRangeN(ctx, stream, "-", "+", 50).Result()
		for i, e := range entries {
			if err == nil && i%2 == 0 {
				err = rdb.XDel(ctx, stream, e.ID).Err()
			}
		}
		return err
	},
	"XTRIM": func(ctx context.Context, rdb redis.UniversalClient, stream string) error {
		return rdb.XTrimMaxLen(ctx, stream, 1).Err()
	},
	"DEL": func(ctx context.Context, rdb redis.UniversalClient, stream string) error {
		return rdb.Del(ctx, stream).Err()
	},
}

// B17: somebody deletes groups, consumers, entries and streams by hand, again and
// again, while jobs are submitted and executed. Every job is executed and ends once.
func TestB17_ForeignHands(t *testing.T) {
	t.Parallel()
	for name, act := range hands {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			admin := redistest.Shared(t).Client(t)
			w := newWorld(t, admin, func(w *world) { w.lease = 400 * time.Millisecond })
			var log noise
			harmed := make(chan struct{})
			for range 2 {
				w.instance(redistest.Shared(t).Client(t), handlers{"work": func(ctx context.Context, _ *carillon.Execution) error {
					select { // so that jobs queue up
					case <-harmed:
						return wait(ctx, 10*time.Millisecond)
					case <-ctx.Done():
						return context.Cause(ctx)
					}
				}}, log.heard, func(c *carillon.Config) { c.Concurrency = 4 })
			}
			producer := w.scheduler(redistest.Shared(t).Client(t))
			done := make(chan struct{})
			go func() {
				defer close(done)
				w.load(producer, 600, carillon.Job{Name: "work", Retry: &carillon.Retry{MaxAttempts: 100}})
			}()
			stream := w.key("q:n:default")
			for i := 0; i < 4 || !isClosed(done); i++ {
				w.eventually("there is something to harm", func() bool {
					p, err := admin.XPending(t.Context(), stream, "w").Result()
					return isClosed(done) || err == nil && p.Count > 0 && admin.XLen(t.Context(), stream).Val() > 20
				})
				if p, err := admin.XPending(t.Context(), stream, "w").Result(); err == nil && p.Count > 0 {
					w.fault(1)
				}
				if err := act(t.Context(), admin, stream); err != nil && !strings.Contains(err.Error(), "NOGROUP") {
					require.NoError(t, err)
				}
				if i == 0 {
					close(harmed)
				}
				require.NoError(t, wait(t.Context(), 30*time.Millisecond))
			}
			w.finish(600)
			if name != "XGROUP DELCONSUMER" { // there, what runs is settled all the same
				assert.NotEmpty(t, log.of("dispatched anew"), "no job has lost its entry")
			}
		})
	}
}

// F2: entries are deleted that a worker has, and then it is cut off. The jobs are
// executed elsewhere, and nothing takes a deleted entry for a job.
func TestF2_PendingEntriesDeleted(t *testing.T) {
	t.Parallel()
	admin := redistest.Shared(t).Client(t)
	w := newWorld(t, admin)
	started := make(chan string, 100)
	net := faultnet.New(t, seed)
	w.instance(net.Client(t, redistest.Shared(t).Client(t)), handlers{"work": func(ctx context.Context, x *carillon.Execution) error {
		started <- x.ID
		<-ctx.Done()
		return ctx.Err()
	}})
	producer := w.scheduler(redistest.Shared(t).Client(t))
	for range 10 {
		w.persist(producer, carillon.Job{Name: "work"})
	}
	for range 10 {
		select {
		case <-started:
		case <-time.After(soon):
			require.Fail(t, "the jobs do not run")
		}
	}
	stream := w.key("q:n:default")
	entries, err := admin.XRange(t.Context(), stream, "-", "+").Result()
	require.NoError(t, err)
	require.Len(t, entries, 10)
	for _, e := range entries[:5] {
		require.NoError(t, admin.XDel(t.Context(), stream, e.ID).Err())
		w.fault(1)
	}
	net.Set(faultnet.Faults{Cut: true})
	w.fault(1)
	w.instance(redistest.Shared(t).Client(t), handlers{"work": work})
	v := w.finish(10)
	assert.Equal(t, 10, v.Jobs)
}

// F1: entries that nobody of ours has written are put aside, each once, and do
// not hold up what is between them.
func TestF1_MalformedEntries(t *testing.T) {
	t.Parallel()
	admin := redistest.Shared(t).Client(t)
	w := newWorld(t, admin)
	var log noise
	w.instance(redistest.Shared(t).Client(t), handlers{"work": work}, log.heard)
	producer := w.scheduler(redistest.Shared(t).Client(t))
	random := dice(t)
	bad := [][]any{
		{"hello", "world"},
		{"e", "1 - 6 nobody"},
		{"e", "-1 - 6 nobody{}"},
		{"e", "1/2/3/4/5 - 6 nobody{}"},
		{"e", "1 - 0 \x01\x01\x02ok"},
		{"e", "1 x 6 nobody\xff\x00\xfe"},
		{"e", "1 - 7 }{:%\x00\n"},
		{"e", "1 - 100000 " + strings.Repeat("x", 100_000)},
	}
	for range 60 {
		w.persist(producer, carillon.Job{Name: "work"})
		require.NoError(t, admin.XAdd(t.Context(), &redis.XAddArgs{
			Stream: w.key("q:" + []string{"c", "h", "n", "l"}[random.IntN(4)] + ":default"), Values: bad[random.IntN(len(bad))],
		}).Err())
		w.fault(1)
	}
	w.eventually("all streams are clean", func() bool {
		return !slices.ContainsFunc([]string{"c", "h", "n", "l"}, func(p string) bool { return admin.XLen(t.Context(), w.key("q:"+p+":default")).Val() > 0 })
	})
	quarantined := 0
	for _, m := range admin.XRange(t.Context(), w.key("ev"), "-", "+").Val() {
		if m.Values["t"] == "quarantined" {
			quarantined++
		}
	}
	assert.Equal(t, 60, quarantined)
	assert.NotEmpty(t, log.of("quarantine"))
	w.finish(60)
}

// F7: bits of records flip. Whatever comes of those jobs, it is an end that says
// so, and all others succeed.
func TestF7_CorruptedRecords(t *testing.T) {
	t.Parallel()
	admin := redistest.Shared(t).Client(t)
	w := newWorld(t, admin)
	producer := w.scheduler(redistest.Shared(t).Client(t))
	random := dice(t)
	harmed := map[string]bool{}
	var ids []string
	for i := range 120 {
		job := carillon.Job{Name: "work", ID: fmt.Sprint("job-", i)}
		switch i % 3 {
		case 1:
			job.Delay = time.Millisecond
		case 2:
			job.Args = strings.Repeat("x", 5000) // its entry has no copy
		}
		ids = append(ids, w.persist(producer, job))
	}
	for i, id := range ids {
		if i%4 != 0 {
			continue
		}
		record := w.key("j:" + id)
		spec := []byte(admin.HGet(t.Context(), record, "j").Val())
		require.NotEmpty(t, spec)
		require.NoError(t, admin.HDel(t.Context(), record, "j1").Err())
		spec[0] ^= 1 << random.IntN(7) // the version, which no other release has
		spec = spec[:1+random.IntN(len(spec)-1)]
		require.NoError(t, admin.HSet(t.Context(), record, "j", spec).Err())
		harmed[id] = true
		w.fault(1)
	}
	w.instance(redistest.Shared(t).Client(t), handlers{"work": work})
	for _, id := range ids {
		if !harmed[id] {
			w.eventually(id+" succeeds", func() bool {
				info, err := w.get(id)
				return err == nil && info.State == carillon.StateSucceeded
			})
		}
	}
	for id := range harmed {
		_, err := w.get(id)
		if err != nil {
			require.ErrorIs(t, err, carillon.ErrDamaged, id)
		}
	}
}

// B18: something of another type lies where a key of ours would be. Errors name
// it, and what does not need the key goes on.
func TestB18_ForeignTypes(t *testing.T) {
	t.Parallel()
	later := carillon.Job{Name: "work", Delay: time.Millisecond}
	plain := carillon.Job{Name: "work"}
	for name, c := range map[string]struct {
		submit carillon.Job // what still works
		fails  func(s *carillon.Scheduler) error
	}{
		"due": {plain, func(s *carillon.Scheduler) error { _, err := s.Submit(t.Context(), later); return err }},
		"wait": {plain, func(s *carillon.Scheduler) error {
			_, err := s.Submit(t.Context(), carillon.Job{Name: "work", Mutex: "m"})
			return err
		}},
		"grant": {later, func(s *carillon.Scheduler) error {
			_, err := s.Submit(t.Context(), carillon.Job{Name: "work", Mutex: "m"})
			return err
		}},
		"plan": {later, func(s *carillon.Scheduler) error {
			return s.Schedule(t.Context(), carillon.Schedule{Name: "s", Spec: carillon.Every(time.Hour), Job: plain})
		}},
		"s:s":    {later, func(s *carillon.Scheduler) error { _, err := s.GetSchedule(t.Context(), "s"); return err }},
		"paused": {later, func(s *carillon.Scheduler) error { return s.PauseQueue(t.Context(), "other") }},
		"queues": {later, func(s *carillon.Scheduler) error {
			_, err := s.Submit(t.Context(), carillon.Job{Name: "work", Queue: "other"})
			return err
		}},
		"workers": {later, func(s *carillon.Scheduler) error { _, err := s.Instances(t.Context()); return err }},
		"inst":    {later, func(s *carillon.Scheduler) error { _, err := s.Instances(t.Context()); return err }},
		"cancels": {later, nil},
		"taken":   {later, nil},
		"relay":   {later, nil},
		"tend":    {later, nil},
		"ev":      {later, nil},
		"h:s":     {later, nil},
		"k:lock":  {later, func(s *carillon.Scheduler) error { _, err := s.TryLock(t.Context(), "lock"); return err }},
		"kt:lock": {later, func(s *carillon.Scheduler) error { _, err := s.TryLock(t.Context(), "lock"); return err }},
		"m:door": {later, func(s *carillon.Scheduler) error {
			_, err := s.Submit(t.Context(), carillon.Job{Name: "work", Mutex: "door"})
			return err
		}},
		"u:one": {later, func(s *carillon.Scheduler) error {
			_, err := s.Submit(t.Context(), carillon.Job{Name: "work", Unique: carillon.Unique{Key: "one"}})
			return err
		}},
		"t:tag": {later, func(s *carillon.Scheduler) error {
			_, err := s.Submit(t.Context(), carillon.Job{Name: "work", Tags: []string{"tag"}})
			return err
		}},
		"j:taken": {later, func(s *carillon.Scheduler) error {
			_, err := s.Submit(t.Context(), carillon.Job{Name: "work", ID: "taken"})
			return err
		}},
		"q:h:default": {later, func(s *carillon.Scheduler) error {
			_, err := s.Submit(t.Context(), carillon.Job{Name: "work", Priority: carillon.High})
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			admin := redistest.Shared(t).Client(t)
			w := newWorld(t, admin)
			var log noise
			s := w.instance(redistest.Shared(t).Client(t), handlers{"work": work}, log.heard)
			w.persist(s, c.submit)
			w.settled()
			foreign := func() {
				_, err := admin.TxPipelined(t.Context(), func(p redis.Pipeliner) error {
					p.Del(t.Context(), w.key(name))
					if name == "u:one" || strings.HasPrefix(name, "k") {
						p.SAdd(t.Context(), w.key(name), "something else")
					} else {
						p.Set(t.Context(), w.key(name), "something else", 0)
					}
					return nil
				})
				require.NoError(t, err)
			}
			foreign()
			w.fault(1)
			if c.fails != nil {
				err := c.fails(s)
				require.ErrorIs(t, err, carillon.ErrDamaged)
				assert.ErrorContains(t, err, w.key(name), "it names the key")
				assert.False(t, errors.Is(err, carillon.ErrUncertain) || errors.Is(err, carillon.ErrUnavailable))
			}
			for range 5 {
				w.persist(s, c.submit)
			}
			w.settled()
			// A lease later everything still works, and nobody is in a hurry to fail.
			require.NoError(t, wait(t.Context(), w.lease*3/2))
			w.persist(s, c.submit)
			w.settled()
			assert.Less(t, len(log.of("")), 20, "%v", log.of(""))
			require.NoError(t, admin.Del(t.Context(), w.key(name)).Err())
			w.finish(7)
		})
	}
}

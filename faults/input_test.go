package faults_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
)

// F8: an ID is submitted again with other content, while the job is queued and
// after it is done. Whatever differs, the first job stays as it was, is found
// under its ID, keeps its keys and runs once. Its keys are in other segments than
// its record, or not, depending on the ID.
func TestF8_SameIDOtherContent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, redistest.Shared(t).Client(t), func(w *world) { w.segments = 16 })
	producer := w.scheduler(w.admin)
	first := func(i int) carillon.Job {
		return carillon.Job{
			ID: fmt.Sprintf("job-%d", i), Name: "work", Args: "first", Mutex: fmt.Sprintf("m-%d", i),
			Unique: carillon.Unique{Key: fmt.Sprintf("u-%d", i)},
		}
	}
	others := map[string]func(*carillon.Job){
		"args":      func(j *carillon.Job) { j.Args = "second" },
		"headers":   func(j *carillon.Job) { j.Headers = map[string]string{"k": "v"} },
		"name":      func(j *carillon.Job) { j.Name = "other" },
		"queue":     func(j *carillon.Job) { j.Queue = "other" },
		"mutex":     func(j *carillon.Job) { j.Mutex = "other" },
		"no mutex":  func(j *carillon.Job) { j.Mutex = "" },
		"no unique": func(j *carillon.Job) { j.Unique.Key = "" },
		"priority":  func(j *carillon.Job) { j.Priority = carillon.High },
	}
	const jobs = 12
	conflicts := func(i int, state carillon.State) {
		t.Helper()
		for what, edit := range others {
			job := first(i)
			edit(&job)
			_, err := producer.Submit(t.Context(), job)
			require.ErrorIs(t, err, carillon.ErrConflict, "%s of %s", what, job.ID)
			w.fault(1)

			info, err := w.get(job.ID)
			require.NoError(t, err, "after a conflict by its %s", what)
			assert.Equal(t, state, info.State)
			assert.JSONEq(t, `"first"`, string(info.Args))
		}
	}
	for i := range jobs {
		w.persist(producer, first(i))
	}
	for i := range jobs {
		conflicts(i, carillon.StateQueued)
		r, err := producer.Submit(t.Context(), carillon.Job{Name: "work", Unique: first(i).Unique})
		require.NoError(t, err)
		assert.Equal(t, carillon.Receipt{ID: first(i).ID, Duplicate: true}, r, "it still holds its unique key")
	}
	w.instance(w.admin, handlers{"work": work, "other": work})
	w.settled()
	for i := range jobs {
		conflicts(i, carillon.StateSucceeded)
	}
	w.finish(jobs)
}

// metered counts what reaches Redis.
func metered(t testing.TB) (redis.UniversalClient, *atomic.Int64) {
	t.Helper()
	var sent atomic.Int64
	options := redistest.Shared(t).Options()
	options.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		sent.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	rdb := redis.NewClient(options)
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb, &sent
}

// F3: payloads of every size at every place that takes one. The limit is exact:
// what fits arrives as it was, and one byte more is refused before anything is
// sent, with encryption too, for it is the JSON that counts.
func TestF3_PayloadAtTheLimit(t *testing.T) {
	t.Parallel()
	const limit = 5000 // also longer than what travels with an entry
	text := func(n int) string { return strings.Repeat("x", n-2) }
	for name, edit := range map[string]func(*carillon.Config){"plain": func(*carillon.Config) {}, "encrypted": keyed("k")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, redistest.Shared(t).Client(t))
			bounded := func(c *carillon.Config) { c.MaxPayload = limit }
			rdb, sent := metered(t)
			idle := w.scheduler(rdb, edit, bounded)
			big := carillon.Job{Name: "echo", Args: text(limit + 1)}
			_, one := idle.Submit(t.Context(), big)
			_, many := idle.SubmitMany(t.Context(), []carillon.Job{{Name: "echo"}, big})
			plan := idle.Schedule(t.Context(), carillon.Schedule{Name: "s", Spec: carillon.Every(time.Hour), Job: big})
			huge := big
			huge.Args = text(64<<20 + 1)
			_, most := idle.Submit(t.Context(), huge)
			headers := big
			headers.Args, headers.Headers = nil, map[string]string{"k": strings.Repeat("x", 64<<10)}
			_, header := idle.Submit(t.Context(), headers)
			for i, err := range []error{one, many, plan, most, header} {
				require.ErrorIs(t, err, carillon.ErrInvalid, "call %d", i)
				w.fault(1)
			}
			assert.Zero(t, sent.Load(), "a connection was made for what was refused")

			var refused atomic.Int64
			s := w.instance(w.admin, handlers{"echo": func(ctx context.Context, x *carillon.Execution) error {
				over := text(limit + 1)
				for _, err := range []error{x.Progress(ctx, over), x.Checkpoint(ctx, over), x.SetResult(over)} {
					if errors.Is(err, carillon.ErrInvalid) {
						refused.Add(1)
					}
				}
				var known json.RawMessage
				if err := errors.Join(x.Progress(ctx, x.Args), x.Checkpoint(ctx, x.Args), x.SetResult(x.Args)); err != nil {
					return err
				}
				if found, err := x.Restore(ctx, &known); err != nil || !found || !bytes.Equal(known, x.Args) {
					return carillon.Permanent(fmt.Errorf("restored %t %d bytes: %w", found, len(known), err))
				}
				return nil
			}}, edit, bounded)
			payloads := []any{
				text(limit), text(limit - 1), "", nil, []int{}, map[string]int{}, false, 0, json.RawMessage("null"), []byte{}, "<&>\u2028\x00",
			}
			var jobs []carillon.Job
			for i, args := range payloads {
				jobs = append(jobs, carillon.Job{ID: fmt.Sprint(i), Name: "echo", Args: args, Headers: map[string]string{"empty": ""}})
			}
			receipts, err := s.SubmitMany(t.Context(), jobs)
			require.NoError(t, err)
			for _, r := range receipts {
				w.queue.Submitted(r.ID, r.Err)
			}
			w.settled()
			for i, args := range payloads {
				want, err := json.Marshal(args)
				require.NoError(t, err)
				info, err := s.Get(t.Context(), fmt.Sprint(i))
				require.NoError(t, err)
				require.Equal(t, carillon.StateSucceeded, info.State, "%v", info.Attempts)
				for _, got := range []json.RawMessage{info.Args, info.Result, info.Progress} {
					assert.Equal(t, string(want), string(got))
				}
				assert.Equal(t, map[string]string{"empty": ""}, info.Headers)
			}
			assert.EqualValues(t, 3*len(payloads), refused.Load())
			w.finish(len(payloads))
		})
	}
}

// F3: the largest limit that can be set, and a batch that takes several calls.
func TestF3_LargestPayload(t *testing.T) {
	t.Parallel()
	onlyFull(t)
	w := newWorld(t, redistest.Single(t).Client(t))
	most := func(c *carillon.Config) { c.MaxPayload = 64 << 20 }
	args := strings.Repeat("x", 64<<20-2)
	s := w.instance(w.admin, handlers{"length": func(_ context.Context, x *carillon.Execution) error {
		return x.SetResult(len(x.Args))
	}}, most, keyed("k"))
	_, err := s.Submit(t.Context(), carillon.Job{Name: "length", Args: args + "x"})
	require.ErrorIs(t, err, carillon.ErrInvalid)
	w.fault(1)
	id := w.persist(s, carillon.Job{Name: "length", Args: args})
	for range 12 {
		w.persist(s, carillon.Job{Name: "length", Args: args[:1<<20]})
	}
	w.settled()
	info, err := s.Get(t.Context(), id)
	require.NoError(t, err)
	assert.Equal(t, strconv.Itoa(64<<20), string(info.Result))
	w.finish(13)
}

// hostileNames are allowed and try to leave their place in a key, to be taken for
// a pattern, or to break whatever shows them.
var hostileNames = []string{
	"{}", "}{", "a}{b", "{a}", "}:0}:due", "{other:0}:meta", ":", "::", "a:b:", "%", "%7D", "%%3A", "*", "?", "[a-z]*", `\`, `"`, "'", "`",
	" ", "a b", "-1", "0", "+inf", "(1", "[", "~x", "due", "$(reboot)", "<script>alert(1)</script>", "'; DROP TABLE jobs; --", "../../etc",
	"\u202eabc", "שלום", "السلام", "👩‍👩‍👧", "e\u0301", "\u2028", strings.Repeat("}", 100), strings.Repeat("😀", 25),
}

// F4, F5: hostile names in every place that takes one, on a Cluster, where a key
// in another slot is an error: queue names with a hash tag of their own among
// them. Each is found again as what it was, and no key leaves the namespace.
func TestF4_F5_HostileNames(t *testing.T) {
	t.Parallel()
	rdb := redistest.SharedCluster(t).Client(t)
	bystander := newWorld(t, rdb)
	w := newWorld(t, rdb, func(w *world) {
		w.namespace, w.segments = w.namespace+"}{x:0}:*", 3
		w.lease = 10 * time.Second // no lock is held for as long
	})
	before := clusterKeys(t, rdb)
	queues := map[string]int{"default": 4}
	run := handlers{}
	for _, name := range hostileNames {
		queues[name] = 2
		run[name] = work
	}
	idle := w.scheduler(rdb)
	var ids []string
	for _, name := range hostileNames {
		job := carillon.Job{
			Name: name, ID: strings.ReplaceAll(name, "~", "-"), Queue: name, Mutex: name, Unique: carillon.Unique{Key: name},
			Tags: []string{name}, Headers: map[string]string{name: name}, Args: name,
		}
		ids = append(ids, w.persist(idle, job))
		w.fault(1)
		for what, f := range map[string]carillon.Filter{"queue": {Queue: name}, "name": {Name: name}, "tag": {Tag: name}} {
			n := 0
			for info, err := range idle.List(t.Context(), f) {
				require.NoError(t, err)
				assert.Equal(t, job.ID, info.ID, "%s %q finds another job", what, name)
				n++
			}
			assert.Equal(t, 1, n, "%s %q", what, name)
		}
		assert.NoError(t, idle.Cancel(t.Context(), job.ID))
		assert.NoError(t, idle.Retry(t.Context(), job.ID))
		schedule := strings.ReplaceAll(name, "~", "-")
		assert.NoError(t, idle.Schedule(t.Context(), carillon.Schedule{
			Name: schedule, Spec: carillon.Every(time.Hour), Job: carillon.Job{Name: name, Queue: name, Mutex: name},
		}))
		info, err := idle.GetSchedule(t.Context(), schedule)
		require.NoError(t, err)
		assert.Equal(t, name, info.Job.Queue)
		assert.NoError(t, idle.Unschedule(t.Context(), schedule))
		assert.NoError(t, idle.PauseQueue(t.Context(), name))
		lock, err := idle.TryLock(t.Context(), name)
		require.NoError(t, err)
		assert.NoError(t, lock.Release(t.Context()))
	}
	counts, err := idle.Counts(t.Context())
	require.NoError(t, err)
	for _, name := range hostileNames {
		assert.True(t, counts.Queues[name].Paused, "%q", name)
		assert.NoError(t, idle.ResumeQueue(t.Context(), name))
	}
	w.instance(rdb, run, func(c *carillon.Config) { c.Queues = queues })
	for i, name := range hostileNames {
		info, err := idle.Await(t.Context(), ids[i])
		require.NoError(t, err)
		assert.Equal(t, carillon.StateSucceeded, info.State, "%q: %v", name, info.Attempts)
		assert.Equal(t, []string{name, name, name, name}, []string{info.Name, info.Queue, info.Mutex, info.Headers[name]})
	}
	own := 0
	prefix := "{" + strings.NewReplacer("}", "%7D", "{", "%7B", ":", "%3A").Replace(w.namespace) + ":"
	for key := range clusterKeys(t, rdb) {
		if before[key] || strings.HasPrefix(key, prefix) {
			own++
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(key, "{"), ":")
		assert.False(t, strings.ContainsAny(name, "{}*") || strings.HasPrefix(key, "{x"), "a key out of place: %q", key)
	}
	assert.Greater(t, own, len(hostileNames))
	_, err = bystander.observer.Get(t.Context(), ids[0])
	require.ErrorIs(t, err, carillon.ErrNotFound, "another namespace has the job")
	w.finish(len(hostileNames))
}

func clusterKeys(t testing.TB, rdb *redis.ClusterClient) map[string]bool {
	t.Helper()
	var mu sync.Mutex
	all := map[string]bool{}
	require.NoError(t, rdb.ForEachMaster(t.Context(), func(ctx context.Context, c *redis.Client) error {
		keys, err := c.Keys(ctx, "*").Result()
		mu.Lock()
		defer mu.Unlock()
		for _, key := range keys {
			all[key] = true
		}
		return err
	}))
	return all
}

// F4: names that nothing may have, at every call that takes one. They are refused
// by their field before a connection is made.
func TestF4_ImpossibleNames(t *testing.T) {
	t.Parallel()
	rdb, sent := metered(t)
	s, err := carillon.New(rdb, carillon.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	ctx := t.Context()
	job := func(edit func(*carillon.Job)) error {
		j := carillon.Job{Name: "work"}
		edit(&j)
		_, err := s.Submit(ctx, j)
		return err
	}
	first := func(f carillon.Filter) (found error) {
		for _, err := range s.List(ctx, f) {
			return err
		}
		return nil
	}
	calls := map[string]func(name string) error{
		"Job.Name":      func(n string) error { return job(func(j *carillon.Job) { j.Name = n }) },
		"Job.ID":        func(n string) error { return job(func(j *carillon.Job) { j.ID = n }) },
		"Job.Queue":     func(n string) error { return job(func(j *carillon.Job) { j.Queue = n }) },
		"Job.Mutex":     func(n string) error { return job(func(j *carillon.Job) { j.Mutex = n }) },
		"Job.Unique":    func(n string) error { return job(func(j *carillon.Job) { j.Unique.Key = n }) },
		"Job.Tags":      func(n string) error { return job(func(j *carillon.Job) { j.Tags = []string{n} }) },
		"Handle":        func(n string) error { return s.Handle(n, carillon.HandlerFunc(work)) },
		"Get":           func(n string) error { _, err := s.Get(ctx, n); return err },
		"Await":         func(n string) error { _, err := s.Await(ctx, n); return err },
		"Cancel":        func(n string) error { return s.Cancel(ctx, n) },
		"Retry":         func(n string) error { return s.Retry(ctx, n) },
		"RunNow":        func(n string) error { return s.RunNow(ctx, n) },
		"RetryAll":      func(n string) error { _, err := s.RetryAll(ctx, carillon.Filter{Queue: n}); return err },
		"List by queue": func(n string) error { return first(carillon.Filter{Queue: n}) },
		"List by name":  func(n string) error { return first(carillon.Filter{Name: n}) },
		"List by tag":   func(n string) error { return first(carillon.Filter{Tag: n}) },
		"PauseQueue":    func(n string) error { return s.PauseQueue(ctx, n) },
		"ResumeQueue":   func(n string) error { return s.ResumeQueue(ctx, n) },
		"GetSchedule":   func(n string) error { _, err := s.GetSchedule(ctx, n); return err },
		"Unschedule":    func(n string) error { return s.Unschedule(ctx, n) },
		"Lock":          func(n string) error { _, err := s.Lock(ctx, n); return err },
		"TryLock":       func(n string) error { _, err := s.TryLock(ctx, n); return err },
		"Config.Queues": func(n string) error { return badConfig(rdb, carillon.Config{Queues: map[string]int{n: 1}}) },
		"Config.Name":   func(n string) error { return badConfig(rdb, carillon.Config{Namespace: n}) },
		"Encryption.Key": func(n string) error {
			e := carillon.Encryption{Current: n, Keys: map[string][]byte{n: make([]byte, 32)}}
			return badConfig(rdb, carillon.Config{Encryption: e})
		},
		"Schedule": func(n string) error {
			return s.Schedule(ctx, carillon.Schedule{Name: n, Spec: carillon.Every(time.Hour), Job: carillon.Job{Name: "work"}})
		},
	}
	refused := 0
	for what, call := range calls {
		for _, name := range []string{
			"\x00", "a\x00b", "a\nb", "\r\n", "\t", "\x1b[2J", "\x7f", "a\u0085b", "\xff\xfe", "a\xc3", strings.Repeat("x", 10<<10), strings.Repeat("x", 1<<20),
		} {
			err := call(name)
			require.ErrorIs(t, err, carillon.ErrInvalid, "%s takes %.20q", what, name)
			assert.Less(t, len(err.Error()), 500, "%s repeats all of it", what)
			assert.NotContains(t, err.Error(), "\x1b", what)
			assert.True(t, utf8.ValidString(err.Error()), what)
			refused++
		}
	}
	assert.Equal(t, 12*len(calls), refused)
	assert.Zero(t, sent.Load(), "a connection was made for what was refused")
	require.NoError(t, s.Shutdown(ctx))
}

func badConfig(rdb redis.UniversalClient, c carillon.Config) error {
	_, err := carillon.New(rdb, c)
	return err
}

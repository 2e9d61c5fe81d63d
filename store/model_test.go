package store

import (
	"cmp"
	stdflag "flag"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/carillon-go/carillon/internal/redistest"
)

// modelChecks is how many random lives TestModel runs unless -rapid.checks says otherwise.
const modelChecks = "20"

// modelRetention is small enough to be reached.
var modelRetention = Retention{
	Succeeded: {Age: time.Hour, Count: 6}, Failed: {Age: 2 * time.Hour, Count: 6},
	Cancelled: {Age: time.Hour, Count: 6}, Expired: {Age: time.Hour, Count: 6},
}

// modelLedger is as small.
var modelLedger = Bound{Age: 90 * time.Minute, Count: 5}

// TestModel plays random lives of a namespace against the store and against a
// plain Go model, and compares everything after every step. A life is a few
// dozen acts: submissions, deliveries, outcomes, crashes, operations. Most are
// played on miniredis, whose clock the test moves, the others on a real Redis,
// where due times are moved instead; with one segment and with four, so that
// claims are foreign.
//
//	go test ./store -run 'TestModel$' -rapid.checks=2000    play more lives
//	go test ./store -run 'TestModel$' -rapid.steps=200      play longer ones
//	go test ./store -run 'TestModel$' -rapid.seed=N         play the same again
//
// A failure prints its seed, and the acts of the shortest life that shows it.
func TestModel(t *testing.T) {
	chosen := map[string]bool{}
	stdflag.Visit(func(f *stdflag.Flag) { chosen[f.Name] = true })
	if !chosen["rapid.checks"] {
		require.NoError(t, stdflag.Set("rapid.checks", modelChecks))
	}
	mini := miniredis.RunT(t)
	places := []modelPlace{
		{"miniredis", 1, mini, redis.NewClient(&redis.Options{Addr: mini.Addr(), DisableIdentity: true})},
		{"miniredis", 4, mini, redis.NewClient(&redis.Options{Addr: mini.Addr(), DisableIdentity: true})},
		{"redis", 1, nil, redistest.Shared(t).Client(t)},
		{"redis", 4, nil, redistest.Shared(t).Client(t)},
	}
	t.Cleanup(func() {
		_ = places[0].rdb.Close()
		_ = places[1].rdb.Close()
	})
	lives, namespace := 0, redistest.Namespace(t)
	done := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		place := places[rapid.SampledFrom([]int{0, 1, 0, 1, 0, 1, 2, 3}).Draw(t, "place")]
		lives++
		w := newWorld(t, place, fmt.Sprint(namespace, "-", lives), done)
		acts := w.acts()
		acts[""] = func(*rapid.T) { w.check() }
		for range 3 { // what is there makes what can happen
			t.Repeat(acts)
		}
		w.drain()
	})
	steps := 0
	for _, n := range done {
		steps += n
	}
	t.Logf("%d lives, %d acts: %v", lives, steps, done)
	if steps > 2000 {
		for name := range (&world{}).acts() {
			require.Positive(t, done[name[3:]], "%s was never done", name)
		}
	}
}

// modelPlace is where a life is played.
type modelPlace struct {
	name     string
	segments int
	mini     *miniredis.Miniredis // nil on a real Redis
	rdb      *redis.Client
}

// world is one life: the store and the model side by side, and what the
// instances have in their hands.
type world struct {
	*model
	modelPlace
	t       *rapid.T
	store   *Store
	readers map[string]map[string]*Reader // by instance and queue
	given   []*Entry                      // all that were ever delivered
	leased  []*Lease
	heard   map[string]Pulse // by instance: the one that told the live instances last
	put     []*Schedule      // every schedule that was ever read
	putMeta int              // makes every put another one
	done    map[string]int
	began   int64
	later   int64 // Redis' time after the act; equal to now on miniredis
}

var (
	modelInstances = []string{"ann", "bob", "cid"}
	modelQueues    = []string{DefaultQueue, "mail"}
)

const modelLeaseTTL = time.Minute

func newWorld(t *rapid.T, place modelPlace, namespace string, done map[string]int) *world {
	if place.mini != nil {
		place.mini.FlushAll()
		place.mini.SetTime(time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC))
	}
	s, err := New(place.rdb, Options{Namespace: namespace, Segments: place.segments, Retention: modelRetention, Ledger: modelLedger})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	w := &world{modelPlace: place, t: t, store: s, done: done, readers: map[string]map[string]*Reader{}, heard: map[string]Pulse{}}
	w.began = w.clock()
	w.model = newModel(place.segments, modelRetention, w.began)
	for _, instance := range modelInstances {
		w.readers[instance] = map[string]*Reader{}
		for _, queue := range modelQueues {
			r := s.Readers(instance, []string{queue})[0]
			t.Cleanup(func() { _ = r.Close() })
			w.readers[instance][queue] = r
		}
		w.join(instance)
		w.check()
	}
	return w
}

// clock is Redis' time in ms.
func (w *world) clock() int64 {
	now, err := w.rdb.Time(w.t.Context()).Result()
	require.NoError(w.t, err)
	return now.UnixMilli()
}

// ask does one thing to the store. The model learns the time at which it began.
func (w *world) ask(f func()) {
	w.move(w.clock())
	f()
	w.later = w.clock()
}

// pass lets time pass. A real Redis' clock cannot be moved; there all due times move towards it instead.
func (w *world) pass(d time.Duration) {
	if w.mini != nil {
		w.mini.SetTime(time.UnixMicro(w.clockMicros() + d.Microseconds()))
		w.mini.FastForward(d)
		w.ask(func() {})
		return
	}
	for _, k := range w.store.segments {
		for _, member := range w.rdb.ZRange(w.t.Context(), k.due(), 0, -1).Val() {
			require.NoError(w.t, w.rdb.ZIncrBy(w.t.Context(), k.due(), -float64(d.Milliseconds()), member).Err())
		}
	}
	for _, j := range w.jobs {
		j.due -= d.Milliseconds()
	}
}

func (w *world) clockMicros() int64 {
	now, err := w.rdb.Time(w.t.Context()).Result()
	require.NoError(w.t, err)
	return now.UnixMicro()
}

// same requires that the store's answer is the model's.
func (w *world) same(want, got any, what string, args ...any) {
	require.Equalf(w.t, want, got, what, args...)
}

// failed requires that err is want, or nil when that is nil.
func (w *world) failed(want, err error, what string, args ...any) {
	if want == nil {
		require.NoErrorf(w.t, err, what, args...)
		return
	}
	require.ErrorIsf(w.t, err, want, what, args...)
}

// about requires a time that Redis took from its clock during the last act; the
// model goes on with what Redis has.
func (w *world) about(want *int64, got int64, what string, args ...any) {
	if got < *want || got > *want+w.later-w.now {
		w.t.Fatalf("%s: %d instead of %d", fmt.Sprintf(what, args...), got, *want)
	}
	*want = got
}

func (w *world) report(id string, err error) { w.t.Fatalf("job %q was reported: %v", id, err) }

// drain ends everything: no job may be stuck, and nothing may be left of them.
func (w *world) drain() {
	for _, instance := range modelInstances {
		w.lapse(instance)
		for segment := range w.model.segments {
			w.takeOver(segment, instance)
			w.check()
		}
		w.join(instance)
		w.check()
	}
	for range 200 {
		live := w.sorted(func(j *modelJob) bool { return !j.state.Final() })
		if len(live) == 0 && !slices.ContainsFunc(slices.Collect(maps.Values(w.lanes)), func(l []*modelEntry) bool { return len(l) > 0 }) {
			break
		}
		for _, j := range live {
			if j.state == Scheduled || j.state == Retrying {
				w.hurryUp(j.id)
				w.check()
			}
		}
		for segment := range w.model.segments {
			w.promoteNow(segment)
			w.check()
		}
		for _, queue := range modelQueues {
			for _, e := range w.fetchNow("ann", queue, 100, 0) {
				w.settleNow("ann", []Settlement{{Entry: e, Outcome: Succeed}})
				w.check()
			}
		}
		w.check()
	}
	w.same(0, len(w.sorted(func(j *modelJob) bool { return !j.state.Final() })), "jobs that never end")
	counts, err := w.store.Counts(w.t.Context())
	require.NoError(w.t, err)
	for _, state := range States[:5] {
		w.same(0, counts.States[state], "%s after all has ended", state)
	}
	w.noStrangers()
}

// noStrangers looks for records that the model knows nothing of.
func (w *world) noStrangers() {
	for _, k := range w.store.segments {
		names, err := w.rdb.Keys(w.t.Context(), k.prefix+"j:*").Result()
		require.NoError(w.t, err)
		for _, name := range names {
			id, ok := unescape(name[len(k.prefix)+2:])
			require.True(w.t, ok)
			if w.rdb.HGet(w.t.Context(), name, "p").Val() != "v" && w.jobs[id] == nil {
				w.t.Fatalf("there is a record of %q", id)
			}
		}
	}
}

// pick draws an element, or skips the act when there is none.
func pick[T any](t *rapid.T, from []T, what string) T {
	if len(from) == 0 {
		t.Skip("no ", what)
	}
	return rapid.SampledFrom(from).Draw(t, what)
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

package store

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/embedded"
	"github.com/carillon-go/carillon/internal/redistest"
)

// Successes are settled together. Whatever happened to one of them, it alone
// answers for it, and each of the others ends once.
func TestSuccessesThatTravelTogether(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		happens func(ctx context.Context, t *testing.T, s *Store, rdb redis.UniversalClient, e *Entry)
		want    error
		state   State // of that job afterwards, if it can be read
		get     error // if it cannot
		awaited bool
	}{
		"nothing": {state: Succeeded, happens: func(context.Context, *testing.T, *Store, redis.UniversalClient, *Entry) {}},
		"its record is deleted": {want: ErrDamaged, get: ErrNotFound, happens: func(ctx context.Context, t *testing.T, s *Store, rdb redis.UniversalClient, e *Entry) {
			t.Helper()
			require.NoError(t, rdb.Del(ctx, s.segments[0].record(e.ID)).Err())
		}},
		"its record loses its place": {want: ErrDamaged, get: ErrDamaged, happens: func(ctx context.Context, t *testing.T, s *Store, rdb redis.UniversalClient, e *Entry) {
			t.Helper()
			require.NoError(t, rdb.HDel(ctx, s.segments[0].record(e.ID), "p").Err())
		}},
		"its record is deleted while it is awaited and to be cancelled": {want: ErrDamaged, get: ErrNotFound, awaited: true, happens: func(ctx context.Context, t *testing.T, s *Store, rdb redis.UniversalClient, e *Entry) {
			t.Helper()
			_, err := s.Await(ctx, e.ID)
			require.NoError(t, err)
			_, err = s.Cancel(ctx, e.ID, "too late")
			require.NoError(t, err)
			require.NoError(t, rdb.Del(ctx, s.segments[0].record(e.ID)).Err())
		}},
		"its ID is used again": {want: ErrFenced, state: Queued, happens: func(ctx context.Context, t *testing.T, s *Store, rdb redis.UniversalClient, e *Entry) {
			t.Helper()
			require.NoError(t, rdb.Del(ctx, s.segments[0].record(e.ID)).Err())
			submit(t, s, e.ID, job(func(spec *Spec) { spec.Args = []byte("another") }))
		}},
		"it was dispatched anew": {want: ErrFenced, state: Queued, happens: func(ctx context.Context, t *testing.T, s *Store, _ redis.UniversalClient, e *Entry) {
			t.Helper()
			_, errs := s.Settle(ctx, "other", []Settlement{{Entry: e, Outcome: Release}})
			require.NoError(t, errs[0])
		}},
		"it was settled before": {state: Succeeded, happens: func(ctx context.Context, t *testing.T, s *Store, _ redis.UniversalClient, e *Entry) {
			t.Helper()
			_, errs := s.Settle(ctx, "other", []Settlement{{Entry: e, Outcome: Succeed}})
			require.NoError(t, errs[0])
		}},
		"somebody took its entry away": {state: Succeeded, happens: func(ctx context.Context, t *testing.T, _ *Store, rdb redis.UniversalClient, e *Entry) {
			t.Helper()
			require.NoError(t, rdb.XAck(ctx, e.stream, group, e.entry).Err())
			require.NoError(t, rdb.XDel(ctx, e.stream, e.entry).Err())
		}},
		"somebody deleted its entry": {state: Succeeded, happens: func(ctx context.Context, t *testing.T, _ *Store, rdb redis.UniversalClient, e *Entry) {
			t.Helper()
			require.NoError(t, rdb.XDel(ctx, e.stream, e.entry).Err())
		}},
		"it is to be cancelled": {state: Succeeded, happens: func(ctx context.Context, t *testing.T, s *Store, _ redis.UniversalClient, e *Entry) {
			t.Helper()
			state, err := s.Cancel(ctx, e.ID, "too late")
			require.NoError(t, err)
			require.Equal(t, Running, state)
		}},
		"it is awaited": {state: Succeeded, awaited: true, happens: func(ctx context.Context, t *testing.T, s *Store, _ redis.UniversalClient, e *Entry) {
			t.Helper()
			_, err := s.Await(ctx, e.ID)
			require.NoError(t, err)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rdb := redistest.Shared(t).Client(t)
			s := open(t, rdb, Options{})
			k := s.segments[0]
			w := work(t, s, "worker")
			for i := range 5 {
				submit(t, s, fmt.Sprint("job-", i), job())
			}
			entries := w.take(5)
			hurt := entries[2]
			told := rdb.Subscribe(t.Context(), k.inbox(s.inbox))
			t.Cleanup(func() { _ = told.Close() })
			_, err := told.Receive(t.Context())
			require.NoError(t, err)
			c.happens(t.Context(), t, s, rdb, hurt)

			batch := make([]Settlement, len(entries))
			for i, e := range entries {
				batch[i] = Settlement{Entry: e, Outcome: Succeed, Elapsed: time.Duration(i) * time.Millisecond}
			}
			_, errs := s.Settle(t.Context(), w.id, batch[:1]) // its reply is lost, and it is sent again beside others
			require.NoError(t, errs[0])
			for again := range 2 { // these, too
				_, errs := s.Settle(t.Context(), w.id, batch)
				for i, e := range entries {
					if e == hurt && c.want != nil {
						if again == 0 {
							require.ErrorIs(t, errs[i], c.want)
						}
						require.Error(t, errs[i])
						continue
					}
					require.NoError(t, errs[i], e.ID)
					j, err := s.Get(t.Context(), e.ID)
					require.NoError(t, err)
					assert.Equal(t, Succeeded, j.State)
					require.Len(t, j.Attempts, 1)
					assert.Equal(t, Succeed, j.Attempts[0].Outcome)
					assert.Equal(t, e.Token, j.Attempts[0].Token)
					assert.Positive(t, rdb.PTTL(t.Context(), k.record(e.ID)).Val())
				}
			}
			done := map[string]int{}
			for _, e := range rdb.XRange(t.Context(), k.history(Succeeded), "-", "+").Val() {
				done[text(e.Values["i"])]++
			}
			for _, e := range entries {
				times := 1
				if e == hurt && c.state != Succeeded {
					times = 0
				}
				assert.Equal(t, times, done[e.ID], "ends of %s", e.ID)
			}
			j, err := s.Get(t.Context(), hurt.ID)
			if c.get != nil {
				assert.ErrorIs(t, err, c.get)
			} else if assert.NoError(t, err) {
				assert.Equal(t, c.state, j.State)
			}
			assert.Zero(t, rdb.Exists(t.Context(), k.cancels(), k.awaited()).Val(), "nothing is left behind")
			if c.awaited {
				message, err := told.ReceiveMessage(t.Context())
				require.NoError(t, err)
				assert.Equal(t, hurt.ID, message.Payload)
			}
			robbed := strings.HasPrefix(name, "somebody took")
			assert.Equal(t, robbed, s.suspected[0].Load(), "an audit looks for other entries that were taken away")
			pending, err := rdb.XPending(t.Context(), hurt.stream, group).Result()
			require.NoError(t, err)
			assert.Zero(t, pending.Count)
		})
	}
}

// Successes leave their stream, however they are mixed with what is unfinished, and
// nothing else does.
func TestSuccessesLeaveTheRestInTheStream(t *testing.T) {
	t.Parallel()
	rdb := redistest.Shared(t).Client(t)
	s := open(t, rdb, Options{})
	w := work(t, s, "worker")
	stream := s.segments[0].stream(DefaultQueue, DefaultPriority)
	random := rand.New(rand.NewPCG(1, 2))
	live := map[string]bool{}
	var running []*Entry
	for round := range 30 {
		batch := make([]NewJob, random.IntN(200))
		for i := range batch {
			batch[i] = NewJob{ID: fmt.Sprint(round, "-", i), Spec: job()}
			live[batch[i].ID] = true
		}
		_, errs := s.Submit(t.Context(), batch)
		require.NoError(t, Distinct(errs))
		taken, _, err := w.readers[0].Fetch(t.Context(), 1+random.IntN(200), 0)
		require.NoError(t, err)
		running = append(running, taken...)
		if round%3 > 0 { // else in order, from the oldest one on
			random.Shuffle(len(running), func(i, j int) { running[i], running[j] = running[j], running[i] })
		}
		n := random.IntN(len(running) + 1)
		done := make([]Settlement, n)
		for i, e := range running[:n] {
			done[i] = Settlement{Entry: e, Outcome: Succeed}
			delete(live, e.ID)
		}
		running = slices.SortedFunc(slices.Values(running[n:]), func(a, b *Entry) int { return cmp.Compare(a.Token, b.Token) })
		_, errs = s.Settle(t.Context(), w.id, done)
		require.NoError(t, Distinct(errs))

		there := map[string]bool{}
		for _, e := range rdb.XRange(t.Context(), stream, "-", "+").Val() {
			_, _, id, _, ok := cutEntry(text(e.Values[entryField]))
			require.True(t, ok)
			there[id] = true
		}
		require.Equal(t, live, there, "round %d", round)
		require.EqualValues(t, len(running), rdb.XPending(t.Context(), stream, group).Val().Count)
	}
	assert.Zero(t, audited(t, s), "the books add up")
	assert.False(t, s.suspected[0].Load())
}

// What is older than all that runs, but was not settled, is left to an audit: a group
// that was made anew has passed by everything that was queued.
func TestSuccessesLeaveWhatTheGroupHasPassedBy(t *testing.T) {
	t.Parallel()
	rdb := redistest.Shared(t).Client(t)
	s := open(t, rdb, Options{})
	w := work(t, s, "worker")
	stream := s.segments[0].stream(DefaultQueue, DefaultPriority)
	for i := range 3 {
		submit(t, s, fmt.Sprint("passed-", i), job())
	}
	require.NoError(t, rdb.XGroupSetID(t.Context(), stream, group, "$").Err())
	for i := range 3 {
		submit(t, s, fmt.Sprint("job-", i), job())
	}
	var done []Settlement
	for _, e := range w.take(3) {
		done = append(done, Settlement{Entry: e, Outcome: Succeed})
	}
	_, errs := s.Settle(t.Context(), w.id, done)
	require.NoError(t, Distinct(errs))
	assert.EqualValues(t, 3, rdb.XLen(t.Context(), stream).Val())
	assert.Equal(t, 3, audited(t, s))
	assert.Len(t, w.take(3), 3)
}

// A job whose entry somebody acknowledged, and which goes with those around it, is found.
func TestAcknowledgedBySomebody(t *testing.T) {
	t.Parallel()
	for name, rdb := range map[string]func(t *testing.T) *redis.Client{
		"counted": func(t *testing.T) *redis.Client { t.Helper(); return redistest.Shared(t).Client(t) },
		"not counted": func(t *testing.T) *redis.Client { // by servers before 7.0
			t.Helper()
			rdb, stop := embedded.Open()
			t.Cleanup(stop)
			return rdb
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rdb := rdb(t)
			s := open(t, rdb, Options{})
			w := work(t, s, "worker")
			for i := range 5 {
				submit(t, s, fmt.Sprint("job-", i), job())
			}
			entries := w.take(5)
			lost := entries[1]
			require.NoError(t, rdb.XAck(t.Context(), lost.stream, group, lost.entry).Err())
			_, errs := s.Settle(t.Context(), w.id, []Settlement{{Entry: entries[2], Outcome: Succeed}, {Entry: entries[0], Outcome: Succeed}})
			require.NoError(t, Distinct(errs))
			assert.Equal(t, 1, audited(t, s))
			again := w.take(1)[0]
			assert.Equal(t, lost.ID, again.ID)
			assert.Greater(t, again.Token, lost.Token)
			require.ErrorIs(t, w.settle(lost, Succeed), ErrFenced)
			for _, e := range []*Entry{entries[3], entries[4], again} {
				require.NoError(t, w.settle(e, Succeed))
				assert.Equal(t, Succeeded, w.state(e.ID))
			}
			assert.Zero(t, rdb.XLen(t.Context(), lost.stream).Val())
			assert.Zero(t, audited(t, s))
		})
	}
}

// A key of another type in the place of a record is left as it is.
func TestSuccessWithoutARecordOfOurs(t *testing.T) {
	t.Parallel()
	rdb := redistest.Shared(t).Client(t)
	s := open(t, rdb, Options{})
	w := work(t, s, "worker")
	submit(t, s, "ours", job())
	submit(t, s, "foreign", job())
	entries := fetched(t, w)
	require.Len(t, entries, 2)
	key := s.segments[0].record("foreign")
	require.NoError(t, rdb.Set(t.Context(), key, "what else", 0).Err())
	_, errs := s.Settle(t.Context(), w.id, []Settlement{{Entry: entries[0], Outcome: Succeed}, {Entry: entries[1], Outcome: Succeed}})
	require.NoError(t, errs[0])
	require.ErrorIs(t, errs[1], ErrDamaged)
	assert.Equal(t, Succeeded, w.state("ours"))
	assert.Equal(t, "what else", rdb.Get(t.Context(), key).Val())
	assert.EqualValues(t, 1, rdb.XLen(t.Context(), s.segments[0].history(Succeeded)).Val())
	assert.EqualValues(t, 1, rdb.XLen(t.Context(), s.segments[0].events()).Val(), "it says so")
}

// Plain jobs and others keep the order in which they were submitted.
func TestPlainJobsKeepTheirPlace(t *testing.T) {
	t.Parallel()
	s, _ := inMemory(t, Options{})
	w := work(t, s, "worker")
	var jobs []NewJob
	for i := range 6 {
		jobs = append(jobs, NewJob{Spec: job(func(spec *Spec) {
			spec.Name = fmt.Sprint("job-", i)
			if i%3 == 1 {
				spec.Mutex = fmt.Sprint("door-", i)
			}
		})})
	}
	_, errs := s.Submit(t.Context(), jobs)
	require.NoError(t, Distinct(errs))
	entries := fetched(t, w)
	require.Len(t, entries, 6)
	for i, e := range entries {
		assert.Equal(t, fmt.Sprint("job-", i), e.Spec.Name)
	}
}

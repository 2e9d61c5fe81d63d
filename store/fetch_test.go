package store

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/faulthook"
	"github.com/carillon-go/carillon/internal/faultnet"
	"github.com/carillon-go/carillon/internal/knobs"
	"github.com/carillon-go/carillon/internal/redistest"
)

// plainly is a worker whose reads without a script are counted by the hook.
func plainly(t *testing.T, rdb *redis.Client, protocol int) (*worker, *faulthook.Hook) {
	t.Helper()
	o := *rdb.Options()
	o.Protocol = protocol
	client := redis.NewClient(&o)
	t.Cleanup(func() { _ = client.Close() })
	h := &faulthook.Hook{Match: func(words []string) bool { return words[0] == "xreadgroup" }}
	knobs.Hook(client, h)
	return work(t, open(t, client, Options{}), "ann"), h
}

// fill submits n jobs of a priority, named by it and their number.
func fill(t *testing.T, s *Store, priority byte, n int, args ...byte) {
	t.Helper()
	jobs := make([]NewJob, n)
	for i := range jobs {
		jobs[i] = NewJob{ID: fmt.Sprintf("%c%04d", priority, i), Spec: job(func(s *Spec) { s.Priority, s.Args = priority, args })}
	}
	for part := range slices.Chunk(jobs, maxBatch) {
		_, errs := s.Submit(t.Context(), part)
		require.NoError(t, Distinct(errs))
	}
}

// fetch takes n entries with a share for low priorities, and returns their IDs.
func (w *worker) fetch(n int) (ids []string) {
	w.t.Helper()
	entries, _, err := w.readers[0].Fetch(w.t.Context(), n, n/8)
	require.NoError(w.t, err)
	for _, e := range entries {
		require.NoError(w.t, e.Err)
		ids = append(ids, e.ID)
	}
	return ids
}

// untilPlain fetches until no script is needed.
func (w *worker) untilPlain() (ids []string) {
	w.t.Helper()
	for w.readers[0].plain(plainFrom) == nil {
		got := w.fetch(plainFrom)
		require.NotEmpty(w.t, got)
		ids = append(ids, got...)
	}
	return ids
}

// Jobs of one priority are read without a script: in order, whole, and each once,
// whatever version of its protocol the server speaks.
func TestPlainReads(t *testing.T) {
	t.Parallel()
	for name, rdb := range map[string]func(*testing.T) *redis.Client{
		"miniredis": func(t *testing.T) *redis.Client { _, rdb := inMemory(t, Options{}); return rdb },
		"redis":     func(t *testing.T) *redis.Client { return redistest.Single(t).Client(t) },
	} {
		for _, protocol := range []int{2, 3} {
			t.Run(fmt.Sprint(name, " RESP", protocol), func(t *testing.T) {
				t.Parallel()
				w, plain := plainly(t, rdb(t), protocol)
				const jobs = 700
				args := []byte(`"` + strings.Repeat("\r\n$3", 1000) + `"`) // too large for the entry
				fill(t, w.Store, DefaultPriority, jobs-1)
				submit(t, w.Store, "n9999", job(func(s *Spec) { s.Args = args }))
				var all []string
				for len(all) < jobs {
					entries, _, err := w.readers[0].Fetch(t.Context(), 100, 12)
					require.NoError(t, err)
					require.NotEmpty(t, entries)
					for _, e := range entries {
						require.NoError(t, e.Err)
						require.NotNil(t, e.Spec)
						if all = append(all, e.ID); e.ID == "n9999" {
							assert.Equal(t, args, e.Spec.Args)
						}
					}
				}
				assert.Len(t, slices.Compact(slices.Clone(all)), jobs)
				assert.True(t, slices.IsSorted(all))
				assert.Greater(t, plain.Count(), 5)
				before := plain.Count()
				assert.Empty(t, w.fetch(100))
				assert.LessOrEqual(t, plain.Count(), before+1)
				assert.Equal(t, Running, w.state("n0600"))
				pending, err := w.readers[0].Pending(t.Context())
				require.NoError(t, err)
				assert.Len(t, pending, jobs, "Redis holds them as delivered")
			})
		}
	}
}

// On a cluster, each segment is read from the master that has it.
func TestPlainReadsOfACluster(t *testing.T) {
	t.Parallel()
	s := open(t, redistest.SharedCluster(t).Client(t), Options{Segments: 3})
	w := work(t, s, "ann")
	const jobs = 3000
	fill(t, s, DefaultPriority, jobs)
	var all []string
	for _, r := range w.readers {
		for plain := 0; ; {
			without := r.plain(100) != nil
			entries, _, err := r.Fetch(t.Context(), 100, 12)
			require.NoError(t, err)
			if len(entries) == 0 {
				assert.Greater(t, plain, 3)
				break
			}
			if without {
				plain++
			}
			for _, e := range entries {
				require.NoError(t, e.Err)
				all = append(all, e.ID)
			}
		}
	}
	slices.Sort(all)
	assert.Len(t, all, jobs)
	assert.Len(t, slices.Compact(all), jobs)
}

// A read whose reply is lost is not sent again: what the first one took would be nobody's.
func TestReadsOfAClusterAreNotRepeated(t *testing.T) {
	t.Parallel()
	o := *redistest.SharedCluster(t).Client(t).Options()
	broken := faultnet.New(t, 1)
	o.Dialer = broken.Dialer((&net.Dialer{}).DialContext)
	rdb := redis.NewClusterClient(&o)
	t.Cleanup(func() { _ = rdb.Close() })
	s := open(t, rdb, Options{Segments: 1})
	w := work(t, s, "ann")
	r := w.readers[0]
	fill(t, s, DefaultPriority, 1000)
	lost := func(word string, taken int, read func() ([]*Entry, error)) {
		t.Helper()
		before, err := r.Pending(t.Context())
		require.NoError(t, err)
		var once atomic.Bool
		broken.Set(faultnet.Faults{Reply: func(words []string, _ []byte) faultnet.Fate {
			if slices.Contains(words, word) && once.CompareAndSwap(false, true) {
				return faultnet.HangUp
			}
			return faultnet.Pass
		}})
		entries, err := read()
		require.Error(t, err)
		assert.Empty(t, entries)
		require.True(t, once.Load(), "a connection broke")
		after, err := r.Pending(t.Context())
		require.NoError(t, err)
		assert.Len(t, after, len(before)+taken, "one read was executed")
	}
	fetch := func() ([]*Entry, error) {
		entries, _, err := r.Fetch(t.Context(), 40, 5)
		return entries, err
	}
	w.fetch(1) // now the nodes know the script
	lost(scriptFetch.sha, 40, fetch)
	lost("xreadgroup", 40, func() ([]*Entry, error) { return r.Wait(t.Context(), 40*len(r.streams), time.Second) })
	w.untilPlain()
	lost("xreadgroup", 40-2*(40/plainRoom), fetch)
}

// What is more urgent is taken before the next batch, and what is less urgent does not
// jump the queue, but gets its share soon.
func TestPlainReadsKeepPriorities(t *testing.T) {
	t.Parallel()
	w, plain := plainly(t, redistest.Single(t).Client(t), 3)
	fill(t, w.Store, 'n', 3000)
	for range plainAfter + 1 {
		_, _, err := w.readers[0].Fetch(t.Context(), 10, 0)
		require.NoError(t, err)
	}
	require.Nil(t, w.readers[0].plain(plainFrom), "a read without a share does not see low priorities")
	w.untilPlain()

	before := plain.Count()
	fill(t, w.Store, 'l', 100)
	fill(t, w.Store, 'c', 200)
	got := w.fetch(120)
	require.Equal(t, before+1, plain.Count())
	assert.LessOrEqual(t, len(got), 120)
	assert.Equal(t, "c0000", got[0])
	assert.NotContains(t, got, "l0000")
	taken := len(slices.DeleteFunc(got, func(id string) bool { return id[0] != 'c' }))
	got = w.fetch(250) // all that is urgent, and the share
	assert.Len(t, slices.DeleteFunc(slices.Clone(got), func(id string) bool { return id[0] != 'c' }), 200-taken)

	w.untilPlain() // when the low ones are gone
	fill(t, w.Store, 'h', 1)
	assert.Equal(t, "h0000", w.fetch(100)[0])
}

// In the long run, low priorities get the share that plain reads did not offer.
func TestPlainReadsPutOffTheShare(t *testing.T) {
	t.Parallel()
	w, plain := plainly(t, redistest.Single(t).Client(t), 3)
	const n, rounds = 80, 30
	fill(t, w.Store, 'n', n*(rounds+plainAfter+2))
	w.untilPlain()
	fill(t, w.Store, 'l', n*rounds/8)
	taken, low, credit, first := 0, 0, 0, 0
	for range rounds {
		credit += n
		share := min(credit/8, n/4)
		entries, shared, err := w.readers[0].Fetch(t.Context(), n, share)
		require.NoError(t, err)
		if shared {
			credit -= 8 * share
		}
		for _, e := range entries {
			if taken++; e.ID[0] == 'l' {
				if low++; low == 1 {
					first = taken
				}
			}
		}
	}
	assert.Positive(t, plain.Count())
	assert.LessOrEqual(t, first, (plainRun+1)*n)
	assert.InDelta(t, taken/8, low, n)
}

// What plain reads leave out is found by the read that waits, and soon by Fetch.
func TestPlainReadsMissNothing(t *testing.T) {
	t.Parallel()
	rdb := redistest.Single(t).Client(t)
	w, _ := plainly(t, rdb, 3)
	r := w.readers[0]
	fill(t, w.Store, DefaultPriority, 1000)
	w.untilPlain()
	for len(w.fetch(plainFrom)) > 0 {
		continue
	}
	require.Nil(t, r.plain(plainFrom), "what comes after a pause may be anything")
	fill(t, w.Store, 'l', 1)
	assert.Equal(t, []string{"l0000"}, w.fetch(plainFrom))

	fill(t, w.Store, 'h', 1000)
	w.untilPlain()
	require.NoError(t, rdb.Del(t.Context(), r.streams[0]).Err()) // so that the read of the higher ones is refused
	assert.NotEmpty(t, w.fetch(plainFrom))
	require.Nil(t, r.plain(plainFrom), "the script finds out why")

	w.untilPlain()
	require.NoError(t, rdb.Del(t.Context(), r.streams...).Err())
	_, _, err := r.Fetch(t.Context(), plainFrom, 2)
	assert.True(t, GroupGone(err), "%v", err)
}

// A reply that is lost leaves nothing behind but what is pending.
func TestPlainReadsWhoseReplyIsLost(t *testing.T) {
	t.Parallel()
	w, plain := plainly(t, redistest.Single(t).Client(t), 3)
	fill(t, w.Store, 'n', 1000)
	known := w.untilPlain()
	plain.At, plain.Fault = plain.Count()+1, faulthook.After
	entries, _, err := w.readers[0].Fetch(t.Context(), 100, 12)
	require.Error(t, err)
	assert.Empty(t, entries)
	assert.NotEmpty(t, plain.Fired())
	pending, err := w.readers[0].Pending(t.Context())
	require.NoError(t, err)
	assert.Greater(t, len(pending), len(known), "it was delivered")
	require.Nil(t, w.readers[0].plain(plainFrom), "the script is asked next")
	known = append(known, w.fetch(100)...)
	again, err := w.readers[0].Pending(t.Context())
	require.NoError(t, err)
	assert.Len(t, again, len(pending)+100)
	there := make([]string, len(again))
	for i, e := range again {
		there[i] = e.ID
	}
	assert.Subset(t, there, known)
}

// A reply that was cut off, or is none of ours, is an error, never a part of it.
func TestPlainRepliesThatAreBroken(t *testing.T) {
	t.Parallel()
	s, _ := inMemory(t, Options{})
	r := work(t, s, "ann").readers[0]
	entry := "*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\ne\r\n$3\r\nx y\r\n"
	stream := fmt.Sprintf("$%d\r\n%s\r\n", len(r.streams[0]), r.streams[0])
	for _, reply := range []string{"*1\r\n*2\r\n" + stream + entry, "%1\r\n" + stream + entry} {
		entries, err := r.unpackRaw(nil, reply)
		require.NoError(t, err)
		require.Len(t, entries, 1)
		assert.Equal(t, "1-0", entries[0].entry)
		assert.Equal(t, r.streams[0], entries[0].stream)
		for n := range len(reply) {
			entries, err := r.unpackRaw(nil, reply[:n])
			require.ErrorIs(t, err, errShape, "%q", reply[:n])
			assert.Empty(t, entries)
		}
	}
	for _, none := range []string{"*-1\r\n", "_\r\n", "*0\r\n", "%0\r\n"} {
		entries, err := r.unpackRaw(nil, none)
		require.NoError(t, err)
		assert.Empty(t, entries)
	}
	whole := "*1\r\n*2\r\n" + stream + entry
	for _, strange := range []string{
		"*1\r\n*2\r\n$99999999999\r\n", "*99999999999\r\n", "*-2\r\n", "*x\r\n",
		"-NOGROUP no such group\r\n", "+OK\r\n", ":1\r\n", "$2\r\nab\r\n",
		"|1\r\n+ttl\r\n:1\r\n" + whole, ">1\r\n" + whole, whole + "*0\r\n",
		"%1\r\n" + stream + "_\r\n", "*1\r\n*2\r\n$7\r\nunasked\r\n*0\r\n",
		strings.Replace(whole, "$3\r\n1-0\r\n", "$-1\r\n", 1), strings.Replace(whole, "*1\r\n*2\r\n$3", "*1\r\n:2\r\n$3", 1),
	} {
		_, err := r.unpackRaw(nil, strange)
		require.ErrorIs(t, err, errShape, "%q", strange)
	}
}

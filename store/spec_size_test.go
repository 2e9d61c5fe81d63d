package store

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/redistest"
)

// specSizes lie on both sides of the lengths at which a spec is stored in another way.
var specSizes = []int{40, 63, 64, 65, 127, 128, 129, 511, 512, 513, 4096, 4097}

// sized is a spec whose encoding has so many bytes. Its arguments end in last.
func sized(t testing.TB, n int, last string, edit ...func(*Spec)) *Spec {
	t.Helper()
	spec := job(edit...)
	for fill := 0; len(encodeSpec(spec)) < n; fill++ {
		spec.Args = []byte(strings.Repeat("a", fill) + last)
	}
	require.Len(t, encodeSpec(spec), n)
	return spec
}

func TestJoined(t *testing.T) {
	for _, n := range []int{0, 1, 63, 64, 65, 128, 129, 512, 4097} {
		spec := strings.Repeat("x", n)
		j, j1 := spec, ""
		if n > 64 && n <= 128 {
			j, j1 = spec[:64], spec[64:]
		}
		assert.Equal(t, spec, joined(j, j1), n)
	}
	assert.Equal(t, "short", joined("short", "what somebody else left there"))
}

// A spec of any size reaches every reader as it was submitted.
func TestSpecsOfEverySize(t *testing.T) {
	t.Parallel()
	for _, n := range specSizes {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			rdb := redistest.Shared(t).Client(t)
			s := open(t, rdb, Options{})
			w := work(t, s, "worker")
			takes := func(id string, want *Spec) *Entry {
				t.Helper()
				e := w.take(1)[0]
				require.NoError(t, e.Err)
				require.Equal(t, id, e.ID)
				require.Equal(t, encodeSpec(want), encodeSpec(e.Spec))
				j, err := s.Get(t.Context(), id)
				require.NoError(t, err)
				require.Equal(t, encodeSpec(want), encodeSpec(j.Spec))
				stored, err := rdb.XRange(t.Context(), e.stream, e.entry, e.entry).Result()
				require.NoError(t, err)
				copied := strings.HasSuffix(text(stored[0].Values[entryField]), string(encodeSpec(want)))
				require.Equal(t, n <= inlineLimit, copied, "small specs are in the entry, large ones are not")
				return e
			}
			promotes := func() {
				t.Helper()
				tick, err := s.Promote(t.Context(), 0, func(id string, err error) { t.Errorf("reported %q: %v", id, err) })
				require.NoError(t, err)
				require.Equal(t, 1, tick.Promoted)
			}

			plain := sized(t, n, "b")
			made := submit(t, s, "", plain).ID
			require.NoError(t, w.settle(takes(made, plain), Release))
			require.NoError(t, w.settle(takes(made, plain), Succeed))

			planned := sized(t, n, "b", past)
			submit(t, s, "planned", planned)
			again := func() {
				t.Helper()
				assert.True(t, submit(t, s, "planned", planned).Duplicate)
				for _, other := range []*Spec{sized(t, n, "c", past), sized(t, n-1, "b", past), sized(t, n+1, "b", past)} {
					_, errs := s.Submit(t.Context(), []NewJob{{ID: "planned", Spec: other}})
					require.ErrorIs(t, errs[0], ErrConflict)
				}
			}
			again()
			promotes()
			require.NoError(t, w.settle(takes("planned", planned), Retry))
			again()
			promotes()
			takes("planned", planned)
			require.NoError(t, rdb.ZAdd(t.Context(), s.segments[0].workers(), z(float64(time.Now().UnixMilli()), "worker")).Err())
			done, err := s.Reclaim(t.Context(), 0, "worker", 3, func(id string, err error) { t.Errorf("reported %q: %v", id, err) })
			require.NoError(t, err)
			require.Equal(t, 1, done.Again)
			w = work(t, s, "another")
			require.NoError(t, w.settle(takes("planned", planned), Succeed))
			again()

			waiting := sized(t, n, "b", mutexed)
			submit(t, s, "holder", job(mutexed))
			submit(t, s, "waiting", waiting)
			require.NoError(t, w.settle(w.take(1)[0], Succeed))
			e := takes("waiting", waiting)
			stream := s.segments[0].stream(DefaultQueue, DefaultPriority)
			require.NoError(t, rdb.XDel(t.Context(), stream, e.entry).Err())
			require.NoError(t, rdb.XGroupDelConsumer(t.Context(), stream, group, "another").Err())
			require.Equal(t, 1, audited(t, s))
			require.NoError(t, w.settle(takes("waiting", waiting), Succeed))

			tick := sized(t, n, "b", past, mutexed)
			id, fired, err := fire(t.Context(), s, put(t, s, "nightly"), time.Time{}, tick)
			require.NoError(t, err)
			require.True(t, fired)
			promotes()
			require.NoError(t, w.settle(takes(id, tick), Succeed))

			foreign := s.segments[0].stream("foreign", DefaultPriority)
			require.NoError(t, rdb.Set(t.Context(), foreign, "a string", 0).Err())
			submit(t, s, "unusable", sized(t, n, "b", past, unique, func(spec *Spec) { spec.Queue = "foreign" }))
			_, err = s.Promote(t.Context(), 0, func(id string, _ error) { assert.Equal(t, "unusable", id) })
			require.NoError(t, err)
			assert.Equal(t, Failed, w.state("unusable"))
			assert.Zero(t, rdb.Exists(t.Context(), s.segments[0].unique("one")).Val(), "its claims are read from the spec")
		})
	}
}

// Redis keeps a small hash in one block, which takes half of the memory.
func TestRecordsOfSmallJobsAreCompact(t *testing.T) {
	t.Parallel()
	rdb := redistest.Shared(t).Client(t)
	s := open(t, rdb, Options{})
	k := s.segments[0]
	w := work(t, s, "worker")
	var jobs []NewJob
	for _, n := range append(specSizes, 40, 64, 128, 64, 4097, 65) { // in one call, so that each follows one of another kind
		for _, edit := range []func(*Spec){func(*Spec) {}, later1h} {
			jobs = append(jobs, NewJob{Spec: sized(t, n, "b", edit)})
		}
	}
	receipts, errs := s.Submit(t.Context(), jobs)
	stored := func(when string) {
		t.Helper()
		for i, r := range receipts {
			require.NoError(t, errs[i])
			record, spec := k.record(r.ID), encodeSpec(jobs[i].Spec)
			encoding, err := rdb.ObjectEncoding(t.Context(), record).Result()
			require.NoError(t, err)
			assert.Equal(t, len(spec) <= 128, encoding == "listpack" || encoding == "ziplist", "%s, %d bytes: %s", when, len(spec), encoding)
			want := map[string]string{"j": string(spec)}
			if len(spec) > 64 && len(spec) <= 128 {
				want = map[string]string{"j": string(spec[:64]), "j1": string(spec[64:])}
			}
			got := rdb.HGetAll(t.Context(), record).Val()
			maps.DeleteFunc(got, func(field, _ string) bool { return field[0] != 'j' })
			assert.Equal(t, want, got, when)
		}
	}
	stored("new")
	for _, e := range w.take(len(jobs) / 2) {
		require.NoError(t, w.settle(e, Succeed))
	}
	stored("half of them done")
}

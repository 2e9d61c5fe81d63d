package store

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/carillon-go/carillon/internal/redistest"
)

// hostile names try to end the hash tag, to add a part, or to look like one of
// our own.
var hostile = []string{
	"a", "b", "{}", "}{", "{", "}", "{a}", "}:{b", ":", "::", "a:b", "a:", ":a", "%", "%3A", "%25", "%%", "%7B",
	" ", "a b", "a\tb", "\r\n", "0", "0}:due", "due", "j:a", "*", "?", "[a-z]", `\`, `"`, "'", "~", "~1", "a~1", ";",
	"\u05e9\u05dc\u05d5\u05dd", "\u202eabc", "\u0627\u0644\u0633\u0644\u0627\u0645", "😀", "👩‍👩‍👧", "日本語", "\u00e9", "e\u0301",
	strings.Repeat("x", 200), strings.Repeat("{", 200), strings.Repeat("😀", 50), strings.Repeat(":", 199),
	"\x7f", "\xff\xfe", "A", "default", "w", "c", "n", "m", "-1", "1e9",
}

// slot is the hash slot of a key, as the Redis Cluster specification computes it.
func slot(key string) uint16 {
	if i := strings.IndexByte(key, '{'); i >= 0 {
		if n := strings.IndexByte(key[i+1:], '}'); n > 0 {
			key = key[i+1 : i+1+n]
		}
	}
	return crc16(0, key) % slots
}

// every lists all keys and channels that a segment has for a name.
func every(k keys, name string) map[string]string {
	all := map[string]string{
		"meta": k.meta(), "record": k.record(name), "locator": k.locator(name), "due": k.due(), "wait": k.wait(),
		"grant": k.grant(), "tend": k.tend(), "relay": k.relay(), "mutex": k.mutex(name), "unique": k.unique(name),
		"tag": k.tag(name), "workers": k.workers(), "instances": k.instances(), "cancels": k.cancels(), "awaited": k.awaited(),
		"events": k.events(), "paused": k.paused(), "queues": k.queues(), "lease": k.lease(name),
		"token": k.token(name), "plan": k.plan(), "schedule": k.schedule(name), "control": k.control(),
		"versions": k.versions(name), "ledger": k.ledger(name), "members": k.members(name), "marks": k.groupMarks(),
		"calendars": k.calendars(), "users": k.users(name),
		"released": k.released(name),
	}
	for _, s := range FinalStates {
		all["history "+string(s)] = k.history(s)
	}
	for _, p := range priorities {
		all["stream "+string(p)] = k.stream(name, p)
	}
	return all
}

// The server says the same.
func TestSlots(t *testing.T) {
	assert.EqualValues(t, 12739, slot("123456789"))
	rdb := redistest.SharedCluster(t).Client(t)
	for _, name := range hostile {
		for _, key := range every(newKeys(name, 3), name) {
			require.EqualValues(t, rdb.ClusterKeySlot(t.Context(), key).Val(), slot(key), "%q", key)
		}
	}
}

func TestAllKeysOfASegmentAreInOneSlot(t *testing.T) {
	for _, ns := range hostile {
		for _, segment := range []int{0, 1, 255} {
			k := newKeys(ns, segment)
			want := slot(k.meta())
			for _, name := range hostile {
				for what, key := range every(k, name) {
					require.Equal(t, want, slot(key), "%s of %q in %q", what, name, ns)
					require.True(t, strings.HasPrefix(key, k.prefix))
				}
			}
		}
	}
}

// shareOf tells in which of n shares of the slots a key lies, as redis-cli
// --cluster create deals them out to n masters.
func shareOf(key string, n int) int {
	return sort.Search(n-1, func(i int) bool {
		end := math.Round(float64(i+1) * slots / float64(n))
		return float64(slot(key)) < end
	})
}

// Every segment has a share of the slots to itself, under the least number that
// leads there.
func TestSegmentsLieInTheirShares(t *testing.T) {
	check := func(t require.TestingT, namespace string, n int) {
		numbers := tagNumbers(namespace, n)
		require.Len(t, numbers, n)
		least := map[int]int{} // share -> number
		for number := range slices.Max(numbers) + 1 {
			in := shareOf(newKeys(namespace, number).meta(), n)
			if _, known := least[in]; !known {
				least[in] = number
			}
		}
		first := shareOf(newKeys(namespace, 0).meta(), n)
		for segment, number := range numbers {
			want, ok := least[(first+segment)%n]
			require.True(t, ok, "%q: segment %d of %d is not in its share", namespace, segment, n)
			require.Equal(t, want, number, "%q: segment %d of %d", namespace, segment, n)
		}
	}
	for n := 1; n <= maxSegments; n++ {
		check(t, "carillon", n)
	}
	rapid.Check(t, func(t *rapid.T) {
		namespace := rapid.OneOf(rapid.SampledFrom(hostile), rapid.String()).Draw(t, "namespace")
		check(t, namespace, rapid.IntRange(1, maxSegments).Draw(t, "segments"))
	})
}

// Other numbers would be another layout: what is stored would not be found.
func TestNumbersOfSegmentsStay(t *testing.T) {
	assert.Equal(t, []int{0}, tagNumbers("carillon", 1))
	assert.Equal(t, []int{0, 3, 11, 2, 1, 13}, tagNumbers("carillon", 6))
	assert.Equal(t, []int{0, 22, 40, 3, 21, 43, 2, 20, 42, 1, 23, 41}, tagNumbers("a b", 12))
}

// Masters that share the slots evenly share the segments evenly.
func TestMastersShareTheSegmentsEvenly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		namespace := rapid.OneOf(rapid.SampledFrom(hostile), rapid.String()).Draw(t, "namespace")
		for _, masters := range []int{1, 2, 3, 4, 6, 12} {
			counts := make([]int, masters)
			for _, number := range tagNumbers(namespace, defaultClusterSegments) {
				counts[shareOf(newKeys(namespace, number).meta(), masters)]++
			}
			require.Equal(t, slices.Repeat([]int{defaultClusterSegments / masters}, masters), counts)
		}
	})
}

// Two different names, kinds, segments or namespaces never meet in one key.
func TestKeysDoNotCollide(t *testing.T) {
	owner := map[string]string{}
	for _, ns := range hostile {
		for _, segment := range []int{0, 1, 10} {
			k := newKeys(ns, segment)
			named := every(k, "one name")
			for what, key := range every(k, "another name") {
				if named[what] == key {
					delete(named, what)
				}
			}
			for _, name := range hostile {
				for what, key := range every(k, name) {
					me := fmt.Sprintf("%q/%d %s", ns, segment, what)
					if named[what] != "" {
						me += fmt.Sprintf(" of %q", name)
					}
					if before, taken := owner[key]; taken && before != me {
						t.Fatalf("%q is the key of %s and of %s", key, before, me)
					}
					owner[key] = me
				}
			}
		}
	}
	t.Logf("%d keys", len(owner))
}

func TestEscape(t *testing.T) {
	seen := map[string]string{}
	for _, name := range hostile {
		e := escape(name)
		back, ok := unescape(e)
		require.True(t, ok)
		assert.Equal(t, name, back)
		assert.NotContains(t, strings.ReplaceAll(e, "%", ""), ":")
		assert.False(t, strings.ContainsAny(e, "{}: \t\r\n\x7f"), "%q", e)
		assert.Equal(t, utf8.ValidString(name), utf8.ValidString(e), "%q", e)
		assert.Equal(t, name, seen[e]+name, "%q and %q escape to the same", seen[e], name)
		seen[e] = ""
	}
	assert.Equal(t, "日本語-x.y_z", escape("日本語-x.y_z"), "what is harmless stays readable")
	for _, bad := range []string{"%", "%2", "a%", "%zz", "% 1", "%+1", "%-1", "%0x"} {
		_, ok := unescape(bad)
		assert.False(t, ok, "%q", bad)
	}
}

func TestRefRoundTrip(t *testing.T) {
	for _, p := range priorities {
		for _, queue := range hostile {
			for _, mutex := range append(slices.Clone(hostile[:20]), "") {
				for _, id := range []string{"a", "a:b", "{}:%", "😀", "nightly@1@170:0~3"} {
					want := ref{p, queue, mutex, id}
					got, err := parseRef(want.String())
					require.NoError(t, err)
					require.Equal(t, want, got)
					got, err = parseWaiter(escape(mutex) + ":1700000000000000:" + want.route())
					require.NoError(t, err)
					require.Equal(t, want, got)
				}
			}
		}
	}
	for _, bad := range []string{"", ":", "n:q:m", "n:q:m:", "x:q:m:id", "nn:q:m:id", "n:default:m:id", "n:d%65fault:m:id", "n:%:m:id", "n:q:%1:id", "hello"} {
		_, err := parseRef(bad)
		assert.Error(t, err, bad)
		_, err = parseWaiter(bad)
		assert.Error(t, err, bad)
	}
	assert.Equal(t, "n:::a", ref{'n', DefaultQueue, "", "a"}.String(), "due is full of these")
	_, err := parseRef(strings.Repeat("x", 1000))
	assert.Less(t, len(err.Error()), 200)
}

// A waiting list holds the waiters of all mutexes of a segment; the range that
// scripts ask for must hold those of one only, in the order of their tickets.
func TestWaitersOfOneMutexAreARange(t *testing.T) {
	s, rdb := inMemory(t, Options{})
	k := s.segments[0]
	for _, name := range hostile {
		for _, ticket := range []string{"1700000000000002", "1700000000000001"} {
			member := escape(name) + ":" + ticket + ":" + ref{'n', "q", name, "id of " + name}.route()
			require.NoError(t, rdb.ZAdd(t.Context(), k.wait(), z(0, member)).Err())
		}
	}
	for _, name := range hostile {
		got, err := rdb.ZRangeArgs(t.Context(), redis.ZRangeArgs{
			Key: k.wait(), ByLex: true, Start: "[" + escape(name) + ":", Stop: "(" + escape(name) + ";",
		}).Result()
		require.NoError(t, err)
		require.Len(t, got, 2, "%q", name)
		for i, m := range got {
			r, err := parseWaiter(m)
			require.NoError(t, err)
			assert.Equal(t, name, r.mutex)
			assert.Contains(t, m, fmt.Sprintf(":170000000000000%d:", i+1))
		}
	}
}

func TestSegmentsShareTheNamesEvenly(t *testing.T) {
	counts := map[int]int{}
	for i := range 16_000 {
		counts[hashSegment(fmt.Sprintf("job-%d", i), 16)]++
	}
	assert.Len(t, counts, 16)
	assert.InDelta(t, 1000, slices.Max(slices.Collect(maps.Values(counts))), 300)
	assert.Zero(t, hashSegment("x", 1))
}

// An ID leads to the same segment wherever it is read.
func TestIDsLeadToTheirSegment(t *testing.T) {
	s, _ := inMemory(t, Options{Segments: 16})
	for i := range 16 {
		assert.Equal(t, i, s.segmentOf(s.inSegment(NewID(), i)))
		assert.Equal(t, i, s.segmentOf(s.inSegment("nightly@1@1700000000000", i)))
	}
	for _, odd := range []string{"~", "a~", "a~zzzzzzz", "a~-1", "a~g0", "~~~", "a~ 1", "a~1 "} {
		n := s.segmentOf(odd)
		assert.Equal(t, hashSegment(odd, 16), n, odd)
	}
}

func TestHolders(t *testing.T) {
	segment, until, id, err := parseHolder(foreignMark + "3:1500:a:b:c")
	require.NoError(t, err)
	assert.Equal(t, 3, segment)
	assert.EqualValues(t, 1500, until.UnixMilli())
	assert.Equal(t, "a:b:c", id)
	for _, bad := range []string{"", "1", "1:2", "-1:0:x", "x:0:x", "1:x:y", "1:0:"} {
		_, _, _, err := parseHolder(foreignMark + bad)
		assert.ErrorIs(t, err, ErrDamaged, bad)
	}
}

func TestNewIDsSortByTime(t *testing.T) {
	before := ""
	for range 1000 {
		id := NewID()
		assert.Len(t, id, 26)
		assert.Less(t, before, id)
		before = id
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range hostile {
		f.Add(s, "x"+s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		ea, eb := escape(a), escape(b)
		if back, ok := unescape(ea); !ok || back != a {
			t.Fatalf("%q became %q", a, back)
		}
		if (a == b) != (ea == eb) {
			t.Fatalf("%q and %q", a, b)
		}
		if strings.ContainsAny(ea, "{}: ") {
			t.Fatalf("%q", ea)
		}
		if back, ok := unescape(a); ok && escape(back) == a && len(back) > len(a) {
			t.Fatalf("%q grew to %q", a, back)
		}
		if slot(newKeys(a, 1).record(b)) != slot(newKeys(a, 1).due()) {
			t.Fatalf("%q %q: two slots", a, b)
		}
	})
}

func FuzzRef(f *testing.F) {
	for _, s := range hostile {
		f.Add("n:" + s + ":" + s + ":" + s)
		f.Add(ref{'c', s, s, s}.String())
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseRef(s)
		if err != nil {
			return
		}
		if again, err := parseRef(r.String()); err != nil || again != r {
			t.Fatalf("%q: %+v, then %+v, %v", s, r, again, err)
		}
		w, err := parseWaiter(escape(r.mutex) + ":1:" + r.route())
		if err != nil || w != r {
			t.Fatalf("%q: %+v, then %+v, %v", s, r, w, err)
		}
	})
}

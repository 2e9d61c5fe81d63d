package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// randomSpec fills each field half of the time.
func randomSpec(r *rand.Rand) *Spec {
	text := func(limit int) string {
		b := make([]byte, 1+r.IntN(limit))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return string(b)
	}
	some := func() bool { return r.IntN(2) == 0 }
	duration := func() time.Duration { return time.Duration(r.Int64()) >> r.IntN(60) }
	instant := func() time.Time { return time.UnixMilli(r.Int64N(1<<43) + 1) }
	s := &Spec{Name: text(200), Args: []byte(text(300)), Queue: DefaultQueue, Priority: DefaultPriority}
	set := []func(){
		func() { s.Queue = text(100) },
		func() { s.Priority = priorities[r.IntN(len(priorities))] },
		func() { s.RunAt = instant() },
		func() { s.Delay = duration() },
		func() { s.ExpiresAt = instant() },
		func() { s.Timeout = duration() },
		func() {
			s.Retry = &RetrySpec{MaxAttempts: r.IntN(100), Initial: duration(), Max: duration(), Factor: 1 + r.Float64()*999, NoJitter: some()}
			for range r.IntN(4) {
				s.Retry.Delays = append(s.Retry.Delays, duration())
			}
		},
		func() { s.Unique, s.UniqueFor = text(200), duration() },
		func() { s.Mutex = text(200) },
		func() { s.Retain = duration() },
		func() {
			for range 1 + r.IntN(5) {
				s.Tags = append(s.Tags, text(100))
			}
		},
		func() {
			s.Headers = map[string]string{"": text(10)}
			for range r.IntN(5) {
				s.Headers[text(20)] = text(50)
			}
		},
		func() { s.Schedule, s.Tick = text(150), instant() },
		func() { s.Queue = OwnQueue(NewID()) },
		func() { s.Then = []string{text(200), text(200)} },
		func() {
			total := 1 + r.IntN(1000)
			s.Shard = Shard{Index: r.IntN(total), Total: total, Param: text(100)}
		},
	}
	for _, f := range set {
		if some() {
			f()
		}
	}
	return s
}

func encodeSpec(s *Spec) []byte { return appendSpec(nil, s) }

func TestSpecRoundTrip(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		want := randomSpec(r)
		data := encodeSpec(want)
		got, err := decodeSpec(string(data))
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Equal(t, data, encodeSpec(got), "equal specs give equal bytes")
	}
}

// Every field of Spec must make a difference, or two jobs that differ in it
// would be taken for the same.
func TestEveryFieldOfASpecIsEncoded(t *testing.T) {
	base := encodeSpec(job())
	changes := map[string]any{
		"Name": "other", "Args": []byte("other"), "Queue": "other", "Priority": byte('h'), "RunAt": time.UnixMilli(5),
		"Delay": time.Nanosecond, "ExpiresAt": time.UnixMilli(5), "Timeout": time.Nanosecond, "Retry": &RetrySpec{},
		"Unique": "u", "UniqueFor": time.Nanosecond, "Mutex": "m", "Retain": time.Nanosecond, "Tags": []string{"a"},
		"Headers": map[string]string{"a": ""}, "Schedule": "s", "Tick": time.UnixMilli(5),
		"Shard": Shard{Total: 1}, "Then": []string{"a"},
	}
	typ := reflect.TypeFor[Spec]()
	for i := range typ.NumField() {
		name := typ.Field(i).Name
		change, ok := changes[name]
		require.True(t, ok, "the test knows no value for %s", name)
		s := job()
		reflect.ValueOf(s).Elem().Field(i).Set(reflect.ValueOf(change))
		assert.NotEqual(t, base, encodeSpec(s), name)
	}
}

func TestHeadersAreEncodedInOneOrder(t *testing.T) {
	s := job(func(s *Spec) {
		s.Headers = map[string]string{}
		for _, k := range strings.Split("the quick brown fox jumps over lazy dogs", " ") {
			s.Headers[k] = k
		}
	})
	first := encodeSpec(s)
	for range 20 {
		require.Equal(t, first, encodeSpec(s))
	}
}

func TestUnknownTagsAreSkipped(t *testing.T) {
	spec := job(func(s *Spec) {
		s.Retry = &RetrySpec{MaxAttempts: 3}
		s.Headers = map[string]string{"k": "v"}
	})
	data := fields{encodeSpec(spec)}
	data.bytes(99, []byte("from the future"))
	data.bytes(1<<40, bytes.Repeat([]byte{0xff}, 1000))
	data.bytes(100, nil)
	got, err := decodeSpec(string(data.buf))
	require.NoError(t, err)
	assert.Equal(t, spec, got)

	var retry, header fields
	retry.num(tagMaxAttempts, 3)
	retry.bytes(77, []byte("?"))
	header.bytes(1, []byte("k"))
	header.bytes(7, []byte("?"))
	header.bytes(2, []byte("v"))
	data = fields{encodeSpec(job())}
	data.bytes(tagRetry, retry.buf)
	data.bytes(tagHeader, header.buf)
	got, err = decodeSpec(string(data.buf))
	require.NoError(t, err)
	assert.Equal(t, spec, got, "in nested fields too")
}

func TestANewerVersionIsReadable(t *testing.T) {
	spec := job(func(s *Spec) { s.Queue = "mail" })
	data := encodeSpec(spec)
	data[0] = specVersion + 1
	got, err := decodeSpec(string(data))
	require.ErrorIs(t, err, ErrNewer)
	assert.Equal(t, spec, got, "so that it can be listed, and given to others")
}

// An older release would do the work of all shards, and leave alone what it can do.
func TestShardsAreOfANewerVersion(t *testing.T) {
	assert.EqualValues(t, 1, encodeSpec(job())[0])
	assert.EqualValues(t, 1, encodeSpec(job(func(s *Spec) { s.Queue = OwnQueue("x") }))[0], "no older one reads that queue")
	assert.EqualValues(t, 2, encodeSpec(job(func(s *Spec) { s.Shard.Total = 1 }))[0])
}

func TestDamagedSpecsNeverPanic(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		data := encodeSpec(randomSpec(r))
		for n := range data {
			if s, err := decodeSpec(string(data[:n])); err == nil {
				assert.NotEmpty(t, s.Name, "cut at a field's end, it must still be a job")
				assert.NotEmpty(t, s.Queue)
			}
			flipped := bytes.Clone(data)
			flipped[n] ^= byte(1 + r.IntN(255))
			_, _ = decodeSpec(string(flipped))
		}
	}
}

func TestWhatIsNoSpec(t *testing.T) {
	huge := binary.AppendUvarint([]byte{specVersion, tagArgs}, 1<<62)
	for name, data := range map[string][]byte{
		"nothing": nil, "a version alone": {specVersion}, "no name": encodeSpec(&Spec{Queue: "q", Priority: 'n'}),
		"JSON": []byte(`{"name":"x"}`), "a size beyond the end": huge, "text": []byte("hello, world"),
		"a priority that is none": append(encodeSpec(job()), tagPriority, 1, 'z'),
		"a priority of two bytes": append(encodeSpec(job()), tagPriority, 2, 'n', 'n'),
		"a number without bytes":  append(encodeSpec(job()), tagDelay, 0),
		"an endless number":       append(encodeSpec(job()), append([]byte{tagDelay, 12}, bytes.Repeat([]byte{0xff}, 12)...)...),
		"a shard of none":         append(encodeSpec(job()), tagShard, 0),
		"a shard beyond the last": append(encodeSpec(job()), tagShard, 6, tagIndex, 1, 4, tagTotal, 1, 4),
		"a shard below the first": append(encodeSpec(job()), tagShard, 6, tagIndex, 1, 1, tagTotal, 1, 4),
		"an empty queue":          append(encodeSpec(job()), tagQueue, 0),
	} {
		_, err := decodeSpec(string(data))
		assert.Error(t, err, name)
		assert.NotErrorIs(t, err, ErrNewer, name)
	}
}

func FuzzSpec(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		f.Add(encodeSpec(randomSpec(r)))
	}
	f.Add([]byte{})
	f.Add([]byte{specVersion + 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeSpec(string(data))
		if err != nil {
			return
		}
		again, err := decodeSpec(string(encodeSpec(s)))
		if err != nil {
			t.Fatalf("%v\n%+v", err, s)
		}
		if !bytes.Equal(encodeSpec(s), encodeSpec(again)) {
			t.Fatalf("%+v\n%+v", s, again)
		}
	})
}

func FuzzEntry(f *testing.F) {
	spec := string(encodeSpec(job()))
	f.Add("1700000000000-0", "1 - 2 id"+spec)
	f.Add("1700000000000-1", "3/1/1 1700000000000000 2 id")
	f.Add("-", "0 - 2 id{}")
	f.Fuzz(func(t *testing.T, id, data string) {
		e := decodeEntry(0, "stream", id, data)
		if e.Err != nil {
			_ = e.Err.Error()
			return
		}
		if e.ID == "" || e.Attempt < 1 || e.Failures < 0 || e.Losses < 0 || !strings.Contains(data, " "+e.ID) {
			t.Fatalf("%+v", e)
		}
		if strings.HasSuffix(data, " "+e.ID) != (e.Spec == nil) {
			t.Fatalf("spec %v of %q", e.Spec, data)
		}
	})
}

func TestEntriesThatAreNone(t *testing.T) {
	spec := string(encodeSpec(job()))
	e := decodeEntry(3, "s", "1-0", "4/2/1 7 5 an id"+spec)
	require.NoError(t, e.Err)
	assert.Equal(t, Entry{ID: "an id", Spec: e.Spec, Segment: 3, Attempt: 4, Failures: 2, Losses: 1, Token: 1 << 20, Mutex: 7, entry: "1-0", stream: "s", spec: *job()}, *e)
	assert.Equal(t, job(), e.Spec)
	newer := []byte(spec)
	newer[0] = specVersion + 1
	for name, c := range map[string]struct {
		id   string
		data string
		want error
	}{
		"deleted":            {"1-0", "", ErrNotFound},
		"no ID":              {"1-0", "1 - 0 " + spec, ErrDamaged},
		"half an ID":         {"1-0", "1 - 3 id", ErrDamaged},
		"no length":          {"1-0", "1 - id", ErrDamaged},
		"no attempt":         {"1-0", " - 2 id" + spec, ErrDamaged},
		"attempt 0":          {"1-0", "0 - 2 id" + spec, ErrDamaged},
		"negative failures":  {"1-0", "1/-1/0 - 2 id" + spec, ErrDamaged},
		"attempt of letters": {"1-0", "one - 2 id" + spec, ErrDamaged},
		"huge attempt":       {"1-0", strings.Repeat("9", 100) + " - 2 id" + spec, ErrDamaged},
		"four counts":        {"1-0", "1/2/3/4 - 2 id" + spec, ErrDamaged},
		"a bad mutex token":  {"1-0", "1 -1 2 id" + spec, ErrDamaged},
		"JSON":               {"1-0", `1 - 2 id{"name":"x"}`, ErrDamaged},
		"a huge spec":        {"1-0", "1 - 2 id" + strings.Repeat("x", 8<<20), ErrDamaged},
		"a newer spec":       {"1-0", "1 - 2 id" + string(newer), ErrNewer},
		"a strange ID":       {"hello", "1 - 2 id" + spec, ErrDamaged},
	} {
		e := decodeEntry(0, "s", c.id, c.data)
		assert.ErrorIs(t, e.Err, c.want, name)
		assert.Less(t, len(e.Err.Error()), 300, name)
		assert.Equal(t, !errors.Is(c.want, ErrNewer), e.Unusable(), name)
	}
}

package carillon_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
)

func aes(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

// locked encrypts under one key and knows others. Keys are named by a letter.
func locked(current string, others ...string) func(*carillon.Config) {
	return func(c *carillon.Config) {
		c.Encryption = carillon.Encryption{Current: current, Keys: map[string][]byte{current: aes(current[0])}}
		for _, id := range others {
			c.Encryption.Keys[id] = aes(id[0])
		}
	}
}

type card struct{ Number string }

// charge fails once after a checkpoint, and then goes on from there.
func charge(ctx context.Context, x *carillon.Execution) error {
	var c, seen card
	if err := x.Decode(&c); err != nil {
		return err
	}
	if err := x.Progress(ctx, map[string]string{"charging": c.Number}); err != nil {
		return err
	}
	if known, err := x.Restore(ctx, &seen); err != nil || !known {
		if err == nil {
			err = x.Checkpoint(ctx, c)
		}
		return carillon.RetryAfter(0, fmt.Errorf("not yet (%w)", err))
	}
	return x.SetResult([]string{seen.Number, x.Headers["trace"]})
}

func TestEncryptedLife(t *testing.T) {
	eachPlace(t, func(t *testing.T, p *place) {
		s := p.new(t, handlers{"charge": charge, "fails": goesWrong}, locked("b", "a"))
		args, headers := card{secret}, map[string]string{"trace": "t-" + secret}
		jobs := []carillon.Job{
			{Name: "charge"},
			{Name: "charge", ID: "chosen", Mutex: "till", Unique: carillon.Unique{Key: "order 1", For: time.Minute}},
			{Name: "charge", Mutex: "till", Unique: carillon.Unique{Key: "order 2"}, Tags: []string{"gold"}},
			{Name: "charge", Delay: time.Millisecond},
			{Name: "charge", ID: "hurried", Delay: time.Hour},
			{Name: "charge"},
		}
		for i := range jobs {
			jobs[i].Args, jobs[i].Headers = args, headers
		}
		jobs[5].Args = struct {
			card
			Fill string
		}{args, strings.Repeat("x", 10_000)} // too long for its entry
		ids := append(submitAll(t, s, jobs[:5]), submit(t, s, jobs[5]))
		for info, err := range s.List(t.Context(), carillon.Filter{Tag: "gold"}) {
			require.NoError(t, err)
			assert.JSONEq(t, `{"Number":"`+secret+`"}`, string(info.Args))
		}
		for _, job := range jobs[1:2] {
			r, err := s.Submit(t.Context(), job)
			require.NoError(t, err)
			assert.True(t, r.Duplicate, "the same bytes")
		}
		failing := submit(t, s, carillon.Job{Name: "fails", Args: args, Retry: &carillon.Retry{MaxAttempts: 1}})
		start(t, s)
		require.NoError(t, s.RunNow(t.Context(), "hurried"))
		for _, info := range awaitAll(t, s, ids) {
			assert.Equal(t, carillon.StateSucceeded, info.State, "%+v", info)
			assert.Equal(t, 2, info.Attempt)
			assert.Contains(t, string(info.Args), secret)
			assert.Equal(t, headers, info.Headers)
			assert.JSONEq(t, `["`+secret+`","t-`+secret+`"]`, string(info.Result))
			assert.JSONEq(t, `{"charging":"`+secret+`"}`, string(info.Progress))
			assert.NoError(t, info.Undecrypted)
		}
		await(t, s, failing)
		require.NoError(t, s.Retry(t.Context(), failing))
		eventually(t, "it fails once more", func() bool { return get(t, s, failing).Attempt == 2 })
		assert.Contains(t, string(await(t, s, failing).Args), secret)
	})
}

func TestResubmissionUnderAnotherKey(t *testing.T) {
	eachPlace(t, func(t *testing.T, p *place) {
		before, after, without := p.new(t, nil, locked("a")), p.new(t, nil, locked("b", "a")), p.new(t, nil)
		job := carillon.Job{ID: "one", Name: "charge", Args: card{secret}, Headers: map[string]string{"k": "v"}, Mutex: "till"}
		submit(t, before, job)
		for _, s := range []*carillon.Scheduler{before, after} {
			r, err := s.Submit(t.Context(), job)
			require.NoError(t, err)
			assert.Equal(t, carillon.Receipt{ID: "one", Duplicate: true}, r)

			other := job
			other.Headers = nil
			_, err = s.Submit(t.Context(), other)
			require.ErrorIs(t, err, carillon.ErrConflict)

			receipts, err := s.SubmitMany(t.Context(), []carillon.Job{other, job, {Name: "charge"}})
			require.ErrorIs(t, err, carillon.ErrConflict)
			require.ErrorIs(t, receipts[0].Err, carillon.ErrConflict)
			require.NoError(t, receipts[1].Err)
			assert.True(t, receipts[1].Duplicate)
			require.NoError(t, receipts[2].Err)
		}
		_, err := without.Submit(t.Context(), job)
		require.ErrorIs(t, err, carillon.ErrConflict, "what is encrypted cannot be compared without a key")
		assert.Equal(t, carillon.StateQueued, get(t, after, "one").State)
	})
}

// Instances with a key, without one, and with another one share a namespace.
func TestInstancesLeaveWhatTheyCannotRead(t *testing.T) {
	eachPlace(t, func(t *testing.T, p *place) {
		ran := map[string]*diary{}
		logs := map[string]*logbook{}
		schedulers := map[string]*carillon.Scheduler{}
		for name, edit := range map[string]func(*carillon.Config){
			"plain": func(*carillon.Config) {}, "a": locked("a"), "b": locked("b"),
		} {
			ran[name], logs[name] = &diary{}, &logbook{}
			schedulers[name] = p.new(t, handlers{"work": ran[name].run}, edit, logTo(logs[name]))
		}
		ids := map[string]string{}
		for name, s := range schedulers {
			if name != "b" {
				ids[name] = submit(t, s, carillon.Job{Name: "work", Args: name, Retry: &carillon.Retry{MaxAttempts: 1}})
			}
		}
		start(t, schedulers["b"]) // can read neither
		for _, id := range ids {
			eventually(t, "it is declined twice", func() bool { return get(t, schedulers["b"], id).Attempt > 2 })
			info := get(t, schedulers["b"], id)
			assert.Zero(t, info.Failures+info.Losses, "uncharged")
			assert.Equal(t, carillon.OutcomeDeclined, info.Attempts[0].Outcome)
			assert.Nil(t, info.Args)
			require.ErrorIs(t, info.Undecrypted, carillon.ErrDecrypt)
			require.NotErrorIs(t, info.Undecrypted, carillon.ErrDamaged)
		}
		assert.Equal(t, 1, logs["b"].count("leaves it to others"), "once")
		shutdown(t, schedulers["b"])
		for name, id := range ids { // one after the other, for what each declines is put off longer and longer
			start(t, schedulers[name])
			info := await(t, schedulers[name], id)
			shutdown(t, schedulers[name])
			require.Equal(t, carillon.StateSucceeded, info.State)
			assert.JSONEq(t, `"`+name+`"`, string(info.Args))
			assert.Equal(t, []string{id}, ran[name].ids())
		}
		assert.Empty(t, ran["b"].ids())
	})
}

func TestEncryptedSchedules(t *testing.T) {
	eachPlace(t, func(t *testing.T, p *place) {
		got := make(chan string, 100)
		pay := func(_ context.Context, x *carillon.Execution) error {
			got <- string(x.Args) + x.Headers["trace"]
			return nil
		}
		without := p.new(t, handlers{"pay": pay}, queues(map[string]int{"elsewhere": 1})) // it fires, and runs nothing of this
		before, after := p.new(t, nil, locked("a")), p.new(t, handlers{"pay": pay}, locked("b", "a"))
		hourly := func(mutex string) carillon.Schedule {
			return carillon.Schedule{Name: "hourly", Spec: carillon.Every(time.Hour), Job: carillon.Job{
				Name: "pay", Args: secret, Headers: map[string]string{"trace": "!"}, Mutex: mutex,
			}}
		}
		stored := func() string {
			d, err := p.rdb.HGet(t.Context(), keyLike(t, p.rdb, p.namespace, ":s:hourly"), "d").Result()
			require.NoError(t, err)
			assert.NotContains(t, d, "trace")
			return d
		}
		require.NoError(t, without.Schedule(t.Context(), hourly("")))
		require.NoError(t, before.Schedule(t.Context(), hourly("")))
		first := planned(t, before, "hourly")
		assert.EqualValues(t, 1, first.Generation, "encryption alone changes no plan")
		old := stored()
		for range 2 { // under another key it is the same, and is encrypted anew
			require.NoError(t, after.Schedule(t.Context(), hourly("")))
			info := planned(t, after, "hourly")
			assert.Equal(t, first, info)
			assert.JSONEq(t, `"`+secret+`"`, fmt.Sprintf("%s", info.Job.Args))
			assert.Equal(t, "!", info.Job.Headers["trace"])
			assert.NotEqual(t, old, stored())
		}
		assert.Contains(t, planned(t, before, "hourly").Problem, "decrypt")
		require.NoError(t, after.Schedule(t.Context(), hourly("door")))
		assert.EqualValues(t, 2, planned(t, after, "hourly").Generation)

		// Its ticks are encrypted for the job of each, also on their way to other segments.
		start(t, without)
		start(t, after)
		for i := range 6 {
			name := fmt.Sprintf("soon-%d", i)
			require.NoError(t, after.Schedule(t.Context(), carillon.Schedule{
				Name: name, Spec: carillon.Every(100 * time.Millisecond), MaxRuns: 1,
				Job: carillon.Job{Name: "pay", Args: secret, Mutex: strings.Repeat("m", i)},
			}))
			assert.Equal(t, `"`+secret+`"`, receive(t, got, name))
		}
		eventually(t, "all are settled", func() bool {
			n, err := after.Counts(t.Context())
			require.NoError(t, err)
			return n.Succeeded == 6
		})
		for id := range listedIDs(t, after, carillon.Filter{States: []carillon.State{carillon.StateSucceeded}}) {
			assert.ErrorIs(t, get(t, without, id).Undecrypted, carillon.ErrDecrypt, "it was not run in plain text")
		}
	})
}

func listedIDs(t testing.TB, s *carillon.Scheduler, f carillon.Filter) map[string]bool {
	t.Helper()
	ids := map[string]bool{}
	for _, id := range listed(t, s, f) {
		ids[id] = true
	}
	require.NotEmpty(t, ids)
	return ids
}

func TestTheLimitIsOfThePlainPayload(t *testing.T) {
	p := backends[0].place(t)
	s := p.new(t, nil, locked("a"), func(c *carillon.Config) { c.MaxPayload = 100 })
	submit(t, s, carillon.Job{Name: "x", Args: strings.Repeat("x", 98)})
	_, err := s.Submit(t.Context(), carillon.Job{Name: "x", Args: strings.Repeat("x", 99)})
	refused(t, err, "Args")
}

func TestBadEncryption(t *testing.T) {
	good := map[string][]byte{"a": aes(1)}
	for name, c := range map[string]struct {
		encryption carillon.Encryption
		field      string
	}{
		"no current":      {carillon.Encryption{Keys: good}, "Encryption.Current"},
		"unknown current": {carillon.Encryption{Keys: good, Current: "b"}, "Encryption.Current"},
		"no keys":         {carillon.Encryption{Current: "b"}, "Encryption.Current"},
		"short key":       {carillon.Encryption{Keys: map[string][]byte{"a": []byte(secret)}, Current: "a"}, `Encryption.Keys["a"]`},
		"AES-128":         {carillon.Encryption{Keys: map[string][]byte{"a": make([]byte, 16)}, Current: "a"}, `Encryption.Keys["a"]`},
		"long key":        {carillon.Encryption{Keys: map[string][]byte{"a": append(aes(1), secret...)}, Current: "a"}, `Encryption.Keys["a"]`},
		"one is bad":      {carillon.Encryption{Keys: map[string][]byte{"a": aes(1), "b": nil}, Current: "a"}, `Encryption.Keys["b"]`},
		"empty ID":        {carillon.Encryption{Keys: map[string][]byte{"": aes(1)}}, "Encryption.Keys"},
		"long ID":         {carillon.Encryption{Keys: map[string][]byte{strings.Repeat("k", 101): aes(1)}, Current: "a"}, "Encryption.Keys"},
		"control in ID":   {carillon.Encryption{Keys: map[string][]byte{"a\n": aes(1)}, Current: "a\n"}, "Encryption.Keys"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := carillon.New(untouched(t), carillon.Config{Encryption: c.encryption})
			refused(t, err, c.field)
		})
	}
}

// However it is printed, a configuration does not show its keys.
func TestKeysAreNotShown(t *testing.T) {
	key := []byte("0123456789abcdef0123456789abcdef")
	c := carillon.Config{Encryption: carillon.Encryption{Keys: map[string][]byte{"2026-11": key}, Current: "2026-11"}}
	s, err := carillon.New(untouched(t), c)
	require.NoError(t, err)
	var out bytes.Buffer
	for _, v := range []any{c, &c, c.Encryption, &c.Encryption, s} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb, v)
		}
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(h).Info("started", "it", v)
		}
	}
	data, err := json.Marshal(struct{ E carillon.Encryption }{c.Encryption})
	require.NoError(t, err)
	assert.JSONEq(t, `{"E":"{1 keys, current \"2026-11\"}"}`, string(data))
	out.Write(data)
	assert.Contains(t, out.String(), "2026-11")
	for _, form := range []string{"%s", "%x", "%X", "%d", "%v"} {
		shown := strings.Trim(fmt.Sprintf(form, key[:8]), "[]")
		assert.NotContains(t, out.String(), shown)
	}
	assert.NotContains(t, out.String(), "MDEyMzQ1", "in base 64")
	assert.NotContains(t, out.String(), "0x30, 0x31", "in Go syntax")
}

package faults_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
)

// vandal is a world with encrypted jobs whose records somebody changes.
type vandal struct {
	*world
	s   *carillon.Scheduler
	ran chan *carillon.Execution
}

func newVandal(t *testing.T) *vandal {
	t.Helper()
	v := &vandal{world: newWorld(t, redistest.Shared(t).Client(t)), ran: make(chan *carillon.Execution, 100)}
	v.s = v.instance(v.admin, handlers{"pay": v.pay, "refund": v.pay}, keyed("2026-11"))
	return v
}

func (v *vandal) pay(ctx context.Context, x *carillon.Execution) error {
	v.ran <- x
	return errors.Join(x.Progress(ctx, "paying"), x.Checkpoint(ctx, "paid"), x.SetResult("receipt"))
}

func (v *vandal) record(id string) string {
	return "{" + v.namespace + ":0}:j:" + strings.ReplaceAll(id, " ", "%20")
}

func (v *vandal) read(id, field string) []byte {
	v.t.Helper()
	data, err := v.admin.HGet(v.t.Context(), v.record(id), field).Bytes()
	require.NoError(v.t, err)
	if field == "j" {
		data = append(data, v.admin.HGet(v.t.Context(), v.record(id), "j1").Val()...)
	}
	return data
}

func (v *vandal) write(id, field string, data []byte) {
	v.t.Helper()
	require.NoError(v.t, v.admin.HSet(v.t.Context(), v.record(id), field, data).Err())
	if field == "j" { // data is all of it
		require.NoError(v.t, v.admin.HDel(v.t.Context(), v.record(id), "j1").Err())
	}
	v.fault(1)
}

// Tags of a job's encoding, as store/codec.go has them.
const (
	tagName = 1
	tagArgs = 2
)

// part returns a field of an encoded job.
func part(t testing.TB, job []byte, tag uint64) (value []byte) {
	t.Helper()
	eachPart(t, job, func(got uint64, v []byte) []byte {
		if got == tag {
			value = v
		}
		return v
	})
	require.NotEmpty(t, value)
	return value
}

// withPart returns the encoded job with another value in a field.
func withPart(t testing.TB, job []byte, tag uint64, value []byte) []byte {
	t.Helper()
	return eachPart(t, job, func(got uint64, v []byte) []byte {
		if got == tag {
			return value
		}
		return v
	})
}

func eachPart(t testing.TB, job []byte, edit func(tag uint64, v []byte) []byte) []byte {
	t.Helper()
	out, rest := []byte{job[0]}, job[1:]
	for len(rest) > 0 {
		tag, n := binary.Uvarint(rest)
		size, m := binary.Uvarint(rest[n:])
		require.True(t, n > 0 && m > 0)
		v := edit(tag, rest[n+m:n+m+int(size)])
		out = binary.AppendUvarint(out, tag)
		out = binary.AppendUvarint(out, uint64(len(v)))
		out = append(out, v...)
		rest = rest[n+m+int(size):]
	}
	return out
}

func flip(data []byte, i int) []byte {
	out := bytes.Clone(data)
	out[(i+len(out))%len(out)] ^= 4
	return out
}

// later is a job that nobody runs before it is told to.
func later(id string, args any) carillon.Job {
	return carillon.Job{ID: id, Name: "pay", Args: args, Delay: time.Hour}
}

// H11: the encrypted arguments of a planned job are changed, and then it is due.
// It fails for good, no handler sees it, and it does not disturb others. What
// only another instance could open is left to that, and runs when it is restored.
func TestH11_ArgumentsTampered(t *testing.T) {
	t.Parallel()
	v := newVandal(t)
	victim, neighbour := "victim of ", "neighbour"
	v.persist(v.s, carillon.Job{ID: "done", Name: "pay", Args: "done"})
	require.Equal(t, "done", (<-v.ran).ID)
	v.settled()

	stranger := newVandal(t) // same keys, another namespace
	twin := victim + "another namespace's"
	stranger.persist(stranger.s, later(twin, "args"))
	foreign := part(t, stranger.read(twin, "j"), tagArgs)
	require.NoError(t, stranger.s.Cancel(t.Context(), twin))
	stranger.fault(1)
	stranger.finish(1)

	other := v.scheduler(v.admin, keyed("2026-11", 'x')) // same ID, other key
	other2 := v.scheduler(v.admin, keyed("2026-12"))
	lend := func(s *carillon.Scheduler) []byte {
		id := fmt.Sprintf("lent-%d", time.Now().UnixNano())
		v.persist(s, later(id, "args"))
		require.NoError(t, v.s.Cancel(t.Context(), id))
		return part(t, v.read(id, "j"), tagArgs)
	}
	wrongKey, unknownKey := lend(other), lend(other2)

	v.persist(v.s, later(neighbour, "args"))
	next := part(t, v.read(neighbour, "j"), tagArgs)
	set := func(edit func(args []byte) []byte) func([]byte) []byte {
		return func(job []byte) []byte { return withPart(t, job, tagArgs, edit(part(t, job, tagArgs))) }
	}
	for _, c := range []struct {
		name  string
		edit  func(job []byte) []byte
		fails bool // for good; otherwise it is declined
	}{
		{"a bit of the tag", set(func(a []byte) []byte { return flip(a, -1) }), true},
		{"a bit of the content", set(func(a []byte) []byte { return flip(a, -20) }), true},
		{"a bit of the nonce", set(func(a []byte) []byte { return flip(a, 2+len("2026-11")) }), true},
		{"a byte cut off", set(func(a []byte) []byte { return a[:len(a)-1] }), true},
		{"cut within the nonce", set(func(a []byte) []byte { return a[:15] }), true},
		{"one byte left", set(func(a []byte) []byte { return a[:1] }), true},
		{"a byte added", set(func(a []byte) []byte { return append(bytes.Clone(a), 0) }), true},
		{"another job's", set(func([]byte) []byte { return next }), true},
		{"another job's, all of it", func([]byte) []byte { return v.read(neighbour, "j") }, true},
		{"another namespace's", set(func([]byte) []byte { return foreign }), true},
		{"a result", set(func([]byte) []byte { return v.read("done", "r") }), true},
		{"another handler", func(job []byte) []byte { return withPart(t, job, tagName, []byte("refund")) }, true},
		{"another key of the same ID", set(func([]byte) []byte { return wrongKey }), true},
		{"a key that is not here", set(func([]byte) []byte { return unknownKey }), false},
		{"a bit of the key's ID", set(func(a []byte) []byte { return flip(a, 3) }), false},
		{"plain text", set(func([]byte) []byte { return []byte(`"args"`) }), false},
		{"nothing left", set(func([]byte) []byte { return nil }), false},
	} {
		id := victim + c.name
		v.persist(v.s, later(id, "args"))
		sound := v.read(id, "j")
		v.write(id, "j", c.edit(sound))

		info, err := v.s.Get(t.Context(), id)
		require.NoError(t, err)
		require.ErrorIs(t, info.Undecrypted, carillon.ErrDecrypt, c.name)
		assert.Equal(t, c.fails, errors.Is(info.Undecrypted, carillon.ErrDamaged), c.name)
		assert.Nil(t, info.Args)

		require.NoError(t, v.s.RunNow(t.Context(), id))
		if c.fails {
			v.reaches(id, carillon.StateFailed)
			info, err := v.s.Get(t.Context(), id)
			require.NoError(t, err)
			assert.Contains(t, info.Reason, "quarantined", c.name)
			assert.Contains(t, info.Reason, "cannot be decrypted", c.name)
			continue
		}
		v.eventually(c.name+" is declined", func() bool {
			info, err := v.get(id)
			return err == nil && info.State == carillon.StateScheduled && info.Attempt > 0
		})
		v.write(id, "j", sound)
		if err := v.s.RunNow(t.Context(), id); err != nil {
			require.ErrorIs(t, err, carillon.ErrState) // it has fallen due by itself
		}
		v.reaches(id, carillon.StateSucceeded)
		assert.Equal(t, id, (<-v.ran).ID, c.name)
	}
	assert.Empty(t, v.ran, "a handler got what was tampered with")
	require.NoError(t, v.s.RunNow(t.Context(), neighbour))
	v.settled()
	assert.JSONEq(t, `"args"`, string((<-v.ran).Args))
	v.finish(20)
}

// reaches waits for one job.
func (v *vandal) reaches(id string, want carillon.State) {
	v.t.Helper()
	v.eventually(fmt.Sprintf("%s is %s", id, want), func() bool {
		info, err := v.get(id)
		return err == nil && info.State == want
	})
}

// H11: results, progress and checkpoints are changed, or swapped with each other.
// They are not shown, and a handler cannot go on from them. What encryption
// cannot see is an older value of the same field of the same job.
func TestH11_ResultsTampered(t *testing.T) {
	t.Parallel()
	v := newVandal(t)
	for _, id := range []string{"a", "b"} {
		v.persist(v.s, carillon.Job{ID: id, Name: "pay", Args: "args"})
		<-v.ran
	}
	v.settled()
	fields := map[string]string{"r": "result", "g": "progress"}
	for field, name := range fields {
		sound := v.read("a", field)
		for what, bad := range map[string][]byte{
			"a bit": flip(sound, -3), "cut": sound[:len(sound)-2], "another job's": v.read("b", field),
			"the checkpoint": v.read("a", "k"), "the arguments": part(t, v.read("a", "j"), tagArgs), "plain text": []byte(`"forged"`),
		} {
			v.write("a", field, bad)
			info, err := v.s.Get(t.Context(), "a")
			require.NoError(t, err)
			require.ErrorIs(t, info.Undecrypted, carillon.ErrDecrypt, "%s: %s", name, what)
			assert.ErrorContains(t, info.Undecrypted, name)
			assert.JSONEq(t, `"args"`, string(info.Args), "the rest is shown")
			assert.Equal(t, field == "r", info.Result == nil)
			assert.Equal(t, field == "g", info.Progress == nil)
			for listed, err := range v.s.List(t.Context(), carillon.Filter{States: []carillon.State{carillon.StateSucceeded}}) {
				require.NoError(t, err, "one bad job does not end a list")
				assert.Equal(t, listed.ID == "a", listed.Undecrypted != nil)
			}
		}
		v.write("a", field, sound)
	}
	info, err := v.s.Await(t.Context(), "a")
	require.NoError(t, err)
	require.NoError(t, info.Undecrypted)
	assert.JSONEq(t, `"receipt"`, string(info.Result))
	v.finish(2)
}

// H11: the checkpoint of a running job is changed, and rolled back.
func TestH11_CheckpointTampered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, redistest.Shared(t).Client(t))
	v := &vandal{world: w}
	done := make(chan struct{})
	v.s = w.instance(w.admin, handlers{"work": func(ctx context.Context, x *carillon.Execution) error {
		defer close(done)
		var step int
		assert.NoError(t, x.Checkpoint(ctx, 1))
		older := v.read(x.ID, "k")
		assert.NoError(t, x.Checkpoint(ctx, 2))
		newer := v.read(x.ID, "k")
		assert.NoError(t, x.Progress(ctx, 2))
		for _, bad := range [][]byte{flip(newer, -1), v.read(x.ID, "g"), []byte("3"), newer[:4]} {
			v.write(x.ID, "k", bad)
			known, err := x.Restore(ctx, &step)
			assert.ErrorIs(t, err, carillon.ErrDecrypt)
			assert.False(t, known || step != 0)
		}
		v.write(x.ID, "k", older)
		known, err := x.Restore(ctx, &step)
		assert.True(t, err == nil && known && step == 1, "a rollback is not seen; docs/guarantees.md says so")
		return nil
	}}, keyed("2026-11"))
	w.persist(v.s, carillon.Job{Name: "work"})
	<-done
	w.finish(1)
}

// H11: the definition of a schedule is changed, or swapped with another one's.
// It is taken out of the plan and creates no job, until it is stored again.
func TestH11_ScheduleTampered(t *testing.T) {
	t.Parallel()
	v := newVandal(t)
	key := func(name string) string { return "{" + v.namespace + ":0}:s:" + name }
	stored := func(name string) map[string]any {
		var d map[string]any
		require.NoError(t, json.Unmarshal([]byte(v.admin.HGet(t.Context(), key(name), "d").Val()), &d))
		return d
	}
	jobOf := func(d map[string]any) map[string]any {
		job, ok := d["job"].(map[string]any)
		require.True(t, ok)
		return job
	}
	sealed := func(job map[string]any) string {
		text, ok := job["sealed"].(string)
		require.True(t, ok)
		return text
	}
	put := func(name string) {
		require.NoError(t, v.s.Schedule(t.Context(), carillon.Schedule{
			Name: name, Spec: carillon.Every(time.Hour), Job: carillon.Job{Name: "pay", Args: name},
		}))
	}
	put("other")
	for what, edit := range map[string]func(job map[string]any){
		"a letter":        func(job map[string]any) { job["sealed"] = "AQdB" + sealed(job)[4:] },
		"the end":         func(job map[string]any) { job["sealed"] = sealed(job)[:40] },
		"another one's":   func(job map[string]any) { job["sealed"] = sealed(jobOf(stored("other"))) },
		"another handler": func(job map[string]any) { job["name"] = "refund" },
	} {
		put("nightly")
		d := stored("nightly")
		edit(jobOf(d))
		data, err := json.Marshal(d)
		require.NoError(t, err)
		require.NoError(t, v.admin.HSet(t.Context(), key("nightly"), "d", data, "n", 1000).Err())
		v.fault(1)
		info, err := v.s.GetSchedule(t.Context(), "nightly")
		require.NoError(t, err)
		assert.Contains(t, info.Problem, "cannot be decrypted", what)
		_, err = v.admin.ZAdd(t.Context(), "{"+v.namespace+":0}:plan", redis.Z{Score: 1000, Member: "nightly"}).Result() // it is due
		require.NoError(t, err)
		if what == "a letter" { // of the key's ID, so another instance might have it
			require.NoError(t, v.s.Unschedule(t.Context(), "nightly"))
			continue
		}
		v.eventually(what+" is parked", func() bool {
			return strings.Contains(v.admin.HGet(t.Context(), key("nightly"), "e").Val(), "cannot be decrypted")
		})
		put("nightly") // makes it whole again
		info, err = v.s.GetSchedule(t.Context(), "nightly")
		require.NoError(t, err)
		assert.Empty(t, info.Problem)
		require.NoError(t, v.s.Unschedule(t.Context(), "nightly"))
	}
	assert.Empty(t, v.ran)
	require.NoError(t, v.s.Unschedule(t.Context(), "other"))
	v.persist(v.s, carillon.Job{Name: "pay"})
	v.finish(1)
}

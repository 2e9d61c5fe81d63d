package faults_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/knobs"
	"github.com/carillon-go/carillon/internal/redistest"
)

// A record as a release of tomorrow could write it: the version byte first, then
// fields of tag, length and bytes, beginning with the name.
var (
	today    = "\x01\x01\x05newer"
	tomorrow = "\x03\x01\x05newer"
	plain    = "\x01\x01\x05extra"
	extra    = "\x01\x78\x03abc\x01\x05extra" // a field with tag 120
)

// release is a hook that makes an instance one of a newer release, by rewriting
// what it sends and what it receives.
type release struct{ sends, receives *strings.Replacer }

func newRelease() *release {
	return &release{
		sends:    strings.NewReplacer(today, tomorrow, plain, extra),
		receives: strings.NewReplacer(tomorrow, today),
	}
}

func (r *release) DialHook(next redis.DialHook) redis.DialHook { return next }

func (r *release) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		r.out(cmd)
		err := next(ctx, cmd)
		r.in(cmd)
		return err
	}
}

func (r *release) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			r.out(cmd)
		}
		err := next(ctx, cmds)
		for _, cmd := range cmds {
			r.in(cmd)
		}
		return err
	}
}

func (r *release) out(cmd redis.Cmder) {
	for i, arg := range cmd.Args() {
		switch v := arg.(type) {
		case string:
			cmd.Args()[i] = r.sends.Replace(v)
		case []byte:
			cmd.Args()[i] = []byte(r.sends.Replace(string(v)))
		}
	}
}

func (r *release) in(cmd redis.Cmder) {
	switch cmd := cmd.(type) {
	case *redis.Cmd: // scripts
		cmd.SetVal(r.replaced(cmd.Val()))
	case *redis.XStreamSliceCmd: // reads
		for _, stream := range cmd.Val() {
			for _, m := range stream.Messages {
				for field, v := range m.Values {
					m.Values[field] = r.replaced(v)
				}
			}
		}
	}
}

func (r *release) replaced(v any) any {
	switch v := v.(type) {
	case string:
		return r.receives.Replace(v)
	case []any:
		for i := range v {
			v[i] = r.replaced(v[i])
		}
	}
	return v
}

// A15: instances of two releases work side by side. Jobs with a field that the
// older one does not know run anywhere, and keep it across a retry. Jobs in a
// format that it does not know are left to the newer one, uncharged.
func TestA15_MixedVersions(t *testing.T) {
	t.Parallel()
	server := redistest.Shared(t)
	w := newWorld(t, server.Client(t))
	newer := func() redis.UniversalClient {
		rdb := server.Client(t)
		knobs.Hook(rdb, newRelease())
		return rdb
	}
	h := handlers{
		"work":  work,
		"newer": work,
		"extra": func(_ context.Context, x *carillon.Execution) error {
			if x.Failures == 0 {
				return errors.New("once more")
			}
			return nil
		},
	}
	for range 2 {
		w.instance(server.Client(t), h)
	}
	producer := w.scheduler(newer())
	ids := map[string][]string{}
	for name := range h {
		for range 10 {
			ids[name] = append(ids[name], w.persist(producer, carillon.Job{Name: name}))
		}
	}
	w.eventually("the older instances do what they can", func() bool {
		for _, id := range append(ids["work"], ids["extra"]...) {
			if info, err := w.get(id); err != nil || info.State != carillon.StateSucceeded {
				return false
			}
		}
		for _, id := range ids["newer"] {
			if info, err := w.get(id); err != nil || info.Attempt < 2 {
				return false
			}
		}
		return true
	})
	w.fault(len(ids["newer"]))
	for _, id := range ids["newer"] {
		info, err := w.get(id)
		require.NoError(t, err)
		assert.False(t, info.State.Final())
		assert.Empty(t, w.queue.Runs(id), "an older instance runs what it does not understand")
	}
	for _, id := range ids["extra"] {
		assert.Contains(t, record(t, w, id), extra, "the field that is unknown")
	}

	s := w.instance(newer(), h)
	w.eventually("the newer instance does the rest", func() bool {
		done := true
		for _, id := range ids["newer"] {
			_ = s.RunNow(t.Context(), id) // rather than wait until it is offered again
			info, err := w.get(id)
			done = done && err == nil && info.State == carillon.StateSucceeded
		}
		return done
	})
	for _, id := range ids["newer"] {
		info, err := w.get(id)
		require.NoError(t, err)
		assert.Zero(t, info.Failures)
		assert.Zero(t, info.Losses)
		assert.Len(t, w.queue.Runs(id), 1)
	}
	w.finish(30)
}

// record returns a job as it is stored.
func record(t testing.TB, w *world, id string) string {
	t.Helper()
	fields, err := w.admin.HMGet(t.Context(), fmt.Sprintf("{%s:0}:j:%s", w.namespace, id), "j", "j1").Result()
	require.NoError(t, err)
	spec, _ := fields[0].(string)
	require.NotEmpty(t, spec)
	rest, _ := fields[1].(string)
	return spec + rest
}

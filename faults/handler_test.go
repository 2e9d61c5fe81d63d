package faults_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
)

// broken is the classic mistake: a nil pointer returned as an error.
type broken struct{ text string }

func (b *broken) Error() string { return b.text }

// A8: handlers end in every way other than returning. Each time the attempt has
// failed once, the stack is kept, and the worker goes on.
func TestA8_HandlersThatDoNotReturn(t *testing.T) {
	t.Parallel()
	server := redistest.Shared(t)
	w := newWorld(t, server.Client(t))
	ways := map[string]struct {
		end  func() error
		says string // the attempt
	}{
		"panic":         {func() error { panic("with a text") }, "panic: with a text"},
		"panic error":   {func() error { panic(errors.New("an error")) }, "panic: an error"},
		"panic nil":     {func() error { panic(nil) }, "panic called with nil argument"}, //nolint:govet // the point
		"runtime panic": {func() error { return []error{}[len(t.Name())] }, "index out of range"},
		"goexit":        {func() error { runtime.Goexit(); return nil }, "the handler ended its goroutine"},
		"nil pointer":   {func() error { var b *broken; return b }, "panic: runtime error: invalid memory address"},
	}
	h := handlers{"work": work}
	for name, way := range ways {
		h[name] = func(_ context.Context, x *carillon.Execution) error {
			if x.Failures == 0 {
				return way.end()
			}
			return nil
		}
	}
	s := w.instance(server.Client(t), h)
	ids := map[string]string{}
	for name := range ways {
		ids[name] = w.persist(s, carillon.Job{Name: name})
		w.fault(1)
	}
	w.load(s, 50, carillon.Job{Name: "work"})
	w.finish(len(ways) + 50)
	for name, way := range ways {
		info, err := w.get(ids[name])
		require.NoError(t, err)
		assert.Equal(t, carillon.StateSucceeded, info.State, name)
		assert.Equal(t, 1, info.Failures, name)
		require.Len(t, info.Attempts, 2, name)
		first := info.Attempts[0]
		assert.Equal(t, carillon.OutcomeRetrying, first.Outcome, name)
		assert.Contains(t, first.Error, way.says, name)
		if strings.HasPrefix(first.Error, "panic") {
			assert.Contains(t, first.Error, "handler_test.go", "%s: the stack", name)
		}
	}
}

// A16: nobody has a handler for a job. It waits, is offered again less and less
// often, and runs as soon as an instance with the handler is there.
func TestA16_NoHandler(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t) // to count its commands
	w := newWorld(t, server.Client(t))
	other := w.instance(server.Client(t), handlers{"work": work})
	id := w.persist(other, carillon.Job{Name: "unheard of", Retry: &carillon.Retry{MaxAttempts: 1}})
	w.eventually("it was declined twice", func() bool {
		info, err := w.get(id)
		return err == nil && info.Attempt >= 3
	})
	w.fault(1)
	w.load(other, 50, carillon.Job{Name: "work"}) // the others are not held up

	before, begun := scripts(t, w), time.Now()
	require.NoError(t, wait(t.Context(), time.Second))
	rate := float64(scripts(t, w)-before) / time.Since(begun).Seconds()
	assert.Less(t, rate, 60.0, "scripts a second for one job without handler") // idle: 15 with this lease
	info, err := w.get(id)
	require.NoError(t, err)
	assert.False(t, info.State.Final(), "it waits for somebody")
	assert.Zero(t, info.Failures, "nobody is charged")
	for _, a := range info.Attempts {
		assert.Contains(t, []carillon.Outcome{carillon.OutcomeDeclined, carillon.OutcomeRunning}, a.Outcome)
	}
	assert.Less(t, info.Attempt, 8, "a hot loop")

	w.instance(server.Client(t), handlers{"unheard of": work})
	w.eventually("the one that can runs it", func() bool {
		_ = other.RunNow(t.Context(), id) // else it is in the hands of somebody
		info, err := w.get(id)
		return err == nil && info.State == carillon.StateSucceeded
	})
	w.finish(51)
}

// scripts returns how many scripts the server has executed.
func scripts(t testing.TB, w *world) int {
	t.Helper()
	stats := w.admin.InfoMap(t.Context(), "commandstats")
	require.NoError(t, stats.Err())
	var n int
	_, err := fmt.Sscanf(stats.Item("Commandstats", "cmdstat_evalsha"), "calls=%d,", &n)
	require.NoError(t, err)
	return n
}

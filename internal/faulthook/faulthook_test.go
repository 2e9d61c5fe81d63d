package faulthook_test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/carillon-go/carillon/internal/faulthook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func hooked(t *testing.T, h *faulthook.Hook) (*redis.Client, *miniredis.Miniredis) {
	t.Helper()
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1})
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	client.AddHook(h)
	return client, server
}

func TestOneCommandFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		fault faulthook.Fault
		done  bool // the command was executed
		err   error
		kills int
	}{
		{faulthook.Before, false, io.EOF, 0},
		{faulthook.After, true, io.EOF, 0},
		{faulthook.KillBefore, true, nil, 1},
		{faulthook.KillAfter, true, nil, 1},
	} {
		t.Run(c.fault.String(), func(t *testing.T) {
			t.Parallel()
			kills, atKill := 0, false
			h := &faulthook.Hook{At: 2, Fault: c.fault}
			client, server := hooked(t, h)
			h.Kill = func() { kills, atKill = kills+1, server.Exists("b") }
			ctx := t.Context()
			require.NoError(t, client.Set(ctx, "a", 1, 0).Err())
			assert.Empty(t, h.Fired())
			require.ErrorIs(t, client.Set(ctx, "b", 2, 0).Err(), c.err)
			assert.Equal(t, "set b 2", h.Fired())
			require.NoError(t, client.Set(ctx, "c", 3, 0).Err())
			assert.True(t, server.Exists("a"))
			assert.Equal(t, c.done, server.Exists("b"))
			assert.True(t, server.Exists("c"))
			assert.Equal(t, 3, h.Count(), "setting up the connection does not count")
			assert.Equal(t, c.kills, kills)
			assert.Equal(t, c.fault == faulthook.KillAfter, atKill)
		})
	}
}

func TestPipelineIsOneCommand(t *testing.T) {
	t.Parallel()
	h := &faulthook.Hook{At: 2, Fault: faulthook.After}
	client, server := hooked(t, h)
	pipeline := func(keys ...string) ([]redis.Cmder, error) {
		return client.Pipelined(t.Context(), func(p redis.Pipeliner) error {
			for _, k := range keys {
				p.Set(t.Context(), k, 1, 0)
			}
			return nil
		})
	}
	_, err := pipeline("a", "b")
	require.NoError(t, err)
	cmds, err := pipeline("c", "d", "e", "f", "g")
	require.ErrorIs(t, err, io.EOF)
	for _, cmd := range cmds {
		require.ErrorIs(t, cmd.Err(), io.EOF)
	}
	assert.Equal(t, 2, h.Count())
	assert.True(t, server.Exists("g"))
	assert.Equal(t, "set c 1; set d 1; set e 1; set f 1; 1 more", h.Fired())
}

func TestOnlyWhatMatchesCounts(t *testing.T) {
	t.Parallel()
	const script = "-- now says what time it is\n-- KEYS: none\nreturn redis.call('TIME')"
	h := &faulthook.Hook{At: 2, Match: func(words []string) bool { return len(words) > 1 && words[1] == "now" }}
	client, _ := hooked(t, h)
	ctx := t.Context()
	require.NoError(t, client.Set(ctx, "a", 1, 0).Err())
	require.NoError(t, client.Eval(ctx, script, nil).Err())
	require.NoError(t, client.Get(ctx, "a").Err())
	require.ErrorIs(t, client.EvalSha(ctx, redis.NewScript(script).Hash(), nil).Err(), io.EOF, "the name is known from the text")
	assert.Equal(t, 2, h.Count())
	assert.Equal(t, "evalsha now 0", h.Fired())
}

// The process that dies is this test's binary, run again.
func TestKill(t *testing.T) {
	t.Parallel()
	if addr := os.Getenv("FAULTHOOK_SERVER"); addr != "" {
		client := redis.NewClient(&redis.Options{Addr: addr})
		client.AddHook(&faulthook.Hook{At: 1, Fault: faulthook.KillAfter})
		client.Set(context.Background(), "last", "words", 0)
		t.Fatal("it lives on")
	}
	server := miniredis.RunT(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), "FAULTHOOK_SERVER="+server.Addr())
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, "%s", out)
	status, ok := exit.Sys().(syscall.WaitStatus)
	require.True(t, ok)
	assert.Equal(t, syscall.SIGKILL, status.Signal(), "%s", out)
	assert.True(t, server.Exists("last"))
}

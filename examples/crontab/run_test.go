package main

import (
	"context"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
)

func self(t *testing.T) *user.User {
	t.Helper()
	who, err := user.Current()
	require.NoError(t, err)
	return who
}

func TestRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, c := range map[string]struct {
		task    Task
		want    Result
		problem string
	}{
		"both streams": {task: Task{Command: "echo a; echo b >&2; echo c"}, want: Result{Output: "a\nb\nc\n"}},
		"no input":     {task: Task{Command: "cat"}},
		"input":        {task: Task{Command: "cat", Stdin: "a\nb\n"}, want: Result{Output: "a\nb\n"}},
		"unread input": {task: Task{Command: "true", Stdin: strings.Repeat("x", 1<<20)}},
		"exit status":  {task: Task{Command: "echo a; exit 7"}, want: Result{Exit: 7, Output: "a\n"}, problem: "exit status 7: a"},
		"signal":       {task: Task{Command: "kill -TERM $$"}, want: Result{Exit: -1, Signal: "terminated"}, problem: "signal terminated: "},
		"not UTF-8":    {task: Task{Command: `printf '\377'`}, want: Result{Output: "\uFFFD"}},
		"much output": {
			task: Task{Command: "head -c 100000 /dev/zero | tr '\\0' x; echo end"},
			want: Result{Output: strings.Repeat("x", maxOutput-4) + "end\n", Omitted: 100_004 - maxOutput},
		},
		"variables": {
			task: Task{Command: `echo $SHELL $HOME $PATH $LOGNAME $A $CARILLON_TEST; pwd`, Env: []string{"HOME=" + dir, "LOGNAME=other", "A=b"}},
			want: Result{Output: "/bin/sh " + dir + " /usr/bin:/bin " + self(t).Username + " b c\n" + dir + "\n"},
		},
		"nothing else": {task: Task{Command: `echo $` + asCrontab + `$GOPATH$TMPDIR$USER`}, want: Result{Output: "\n"}},
		"no home":      {task: Task{Command: "pwd", Env: []string{"HOME=" + dir + "/none"}}, want: Result{Output: "/\n"}},
		"a shell":      {task: Task{Command: "anything", Env: []string{"SHELL=/bin/echo"}}, want: Result{Output: "-c anything\n"}},
		"not waited for": {
			task: Task{Command: "sleep 1000 & echo $!"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun := time.Now()
			got, err := c.task.run(t.Context(), self(t), []string{"CARILLON_TEST=c"})
			require.NoError(t, err)
			if name == "not waited for" {
				pid, err := strconv.Atoi(strings.TrimSpace(got.Output))
				require.NoError(t, err)
				p, err := os.FindProcess(pid)
				require.NoError(t, err)
				require.NoError(t, p.Kill(), "it still runs")
				c.want.Output = got.Output
			}
			assert.False(t, got.Started.Before(begun))
			host, err := os.Hostname()
			require.NoError(t, err)
			c.want.Host, c.want.Started, c.want.TookMS = host, got.Started, got.TookMS
			assert.Equal(t, c.want, got)
			if c.problem == "" {
				assert.NoError(t, got.problem())
			} else {
				assert.EqualError(t, got.problem(), c.problem)
			}
		})
	}
	_, err := Task{Command: "x", Env: []string{"SHELL=/none"}}.run(t.Context(), self(t), nil)
	assert.ErrorContains(t, err, "/none")
}

// Who lost the lease cannot take its time.
func TestLostLease(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	started := filepath.Join(t.TempDir(), "started")
	done := make(chan Result)
	who := self(t)
	go func() {
		r, err := Task{Command: "trap '' TERM; touch " + started + "; while :; do sleep 0.1; done"}.run(ctx, who, nil)
		assert.NoError(t, err)
		done <- r
	}()
	require.Eventually(t, func() bool { _, err := os.Stat(started); return err == nil }, patience, time.Millisecond)
	begun := time.Now()
	cancel(carillon.ErrLeaseLost)
	r := <-done
	assert.Equal(t, "killed", r.Signal)
	assert.Less(t, time.Since(begun), killAfter)
}

func TestOtherUser(t *testing.T) {
	t.Parallel()
	who, err := Task{User: "nobody"}.account()
	if os.Geteuid() != 0 {
		require.ErrorContains(t, err, "only root can run commands as nobody")
		t.Skip("the rest needs root")
	}
	require.NoError(t, err)
	r, err := Task{User: "nobody", Command: "id -u; id -un; id -Gn; echo $LOGNAME"}.run(t.Context(), who, nil)
	require.NoError(t, err)
	fields := strings.Fields(r.Output)
	require.Len(t, fields, 4, r.Output)
	assert.Equal(t, who.Uid, fields[0])
	assert.Equal(t, "nobody", fields[1])
	assert.NotContains(t, fields[2], "root")
	assert.Equal(t, "nobody", fields[3])
	_, err = Task{User: "no-such-user"}.account()
	assert.ErrorContains(t, err, "no-such-user")
}

// As root, others cannot slip in a command.
func TestTrusted(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(file, []byte("@daily x\n"), 0o600))
	s := source{paths: []string{file}, format: format{user: "ada", zone: "UTC"}, strict: true}
	assert.Len(t, s.load().entries, 1)
	require.NoError(t, os.Chmod(file, 0o620))
	tab := s.load()
	assert.Empty(t, tab.entries)
	require.Len(t, tab.problems, 1)
	assert.Contains(t, tab.problems[0], "others than its owner may write")
	assert.False(t, s.covers(tab, file))
	if os.Geteuid() == 0 {
		require.NoError(t, os.Chmod(file, 0o600))
		require.NoError(t, os.Chown(file, 1, -1))
		tab = s.load()
		require.Len(t, tab.problems, 1)
		assert.Contains(t, tab.problems[0], "its owner is somebody else")
	}
}

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
)

// TestProof runs a crontab by three instances on a real Redis and kills the first
// of them with -9 on the way. By what the commands wrote down themselves, every
// planned time has run, and none twice; by Carillon's books, each has one job.
//
// It uses lines with seconds, to be done soon. `make crontab-proof` takes a
// crontab for each minute, and some minutes.
func TestProof(t *testing.T) {
	t.Parallel()
	const write = `echo "$CARILLON_TICK $CARILLON_JOB $CARILLON_ATTEMPT" >> $OUT/`
	lines := map[string]string{"each": "* * * * * *", "odd": "1-59/2 * * * * *"}
	args := []string{"-seconds", "-lease", "1s"}
	how := format{user: self(t).Username, zone: "UTC", seconds: true}
	before, after := 3, 8 // how many ticks the kill comes after, and the end
	if os.Getenv("CRONTAB_PROOF") == "full" {
		lines = map[string]string{"minute": "* * * * *"}
		how.seconds, args = false, nil // as it is, with a lease of 10 s
		before, after = 2, 6
	}
	redis := redistest.Single(t)
	dir := t.TempDir()
	text := "OUT=" + dir + "\n@reboot echo up >> $OUT/reboot\n"
	for name, when := range lines {
		text += when + " " + write + name + "\n"
	}
	file := filepath.Join(dir, "crontab")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	entries, problems := parse(file, []byte(text), how)
	require.Empty(t, problems)

	var instances [3]*exec.Cmd
	var logs [len(instances)]buffer
	for i := range instances {
		instances[i] = child(t, &logs[i], append(args, "-redis", redis.Addr(), "-namespace", "proof", "-user", "-tz", "UTC", file)...)
		redistest.Wait(t, patience, logs[i].contains("@reboot ran")) // the first one owns the schedules
	}
	defer func() {
		if t.Failed() {
			for i := range logs {
				t.Logf("instance %d:\n%s", i+1, &logs[i])
			}
		}
	}()

	seen := func(n int) {
		t.Helper()
		redistest.Wait(t, 2*time.Duration(after)*time.Minute, func() error {
			for name := range lines {
				if got := len(ticks(t, dir, name)); got < n {
					return fmt.Errorf("%s has run %d times", name, got)
				}
			}
			return nil
		})
	}
	seen(before)
	redistest.Wait(t, patience, func() error { // until it has nothing in hand, if it is told in time
		for key, all := range jobsOf(t, redis) {
			for _, job := range all {
				if !job.State.Final() {
					return errors.New(key + " runs")
				}
			}
		}
		return nil
	})
	require.NoError(t, instances[0].Process.Signal(syscall.SIGKILL))
	killed := time.Now()
	_ = instances[0].Wait()
	seen(after)
	for _, one := range instances[1:] {
		require.NoError(t, one.Process.Signal(syscall.SIGTERM))
		assert.NoError(t, one.Wait(), "an instance that is told to stop ends well")
	}

	jobs := jobsOf(t, redis)
	for _, e := range entries {
		if e.when == reboot {
			continue
		}
		name := filepath.Base(e.task.Command)
		got := ticks(t, dir, name)
		first, last := got[0].at, got[len(got)-1].at
		planned, err := e.ticks(first.Add(-1))
		require.NoError(t, err)
		n := 0
		for at := range planned {
			if at.After(last) {
				break
			}
			var runs []ran
			for _, one := range got {
				if one.at.Equal(at) {
					runs = append(runs, one)
					n++
				}
			}
			assert.NotEmpty(t, runs, "%s is missing at %v, %v after the kill", name, at, at.Sub(killed))
			for i, one := range runs {
				// A command that was under way on the killed instance runs again, and says so.
				assert.Equal(t, runs[0].job, one.job, "%s has two jobs at %v", name, at)
				assert.Truef(t, i == 0 || one.attempt != "1", "%s ran twice at %v, %v after the kill", name, at, at.Sub(killed))
			}
			job := jobs[e.name()+at.Format(time.RFC3339)]
			if assert.Len(t, job, 1, "jobs of %s at %v", name, at) {
				assert.Equal(t, carillon.StateSucceeded, job[0].State)
			}
		}
		assert.Equal(t, len(got), n, "%s ran when nothing was planned", name)
		t.Logf("%s: %d ticks from %v to %v, %d runs", name, n, first.Format(time.TimeOnly), last.Format(time.TimeOnly), len(got))
	}
	data, err := os.ReadFile(filepath.Join(dir, "reboot"))
	require.NoError(t, err)
	assert.Equal(t, strings.Repeat("up\n", len(instances)), string(data), "each instance, once")
}

// ran is a line that a command wrote.
type ran struct {
	at           time.Time
	job, attempt string
}

func ticks(t *testing.T, dir, name string) (all []ran) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(t, err)
	}
	for line := range strings.Lines(string(data)) {
		var at string
		var one ran
		_, err := fmt.Sscan(line, &at, &one.job, &one.attempt)
		require.NoError(t, err, line)
		one.at, err = time.Parse(time.RFC3339, at)
		require.NoError(t, err)
		all = append(all, one)
	}
	return all
}

// jobsOf returns the jobs of each schedule and tick.
func jobsOf(t *testing.T, redis *redistest.Server) map[string][]*carillon.JobInfo {
	t.Helper()
	s, err := carillon.New(redis.Client(t), carillon.Config{Namespace: "proof"})
	require.NoError(t, err)
	defer func() { assert.NoError(t, s.Shutdown(context.Background())) }()
	all := map[string][]*carillon.JobInfo{}
	for job, err := range s.List(t.Context(), carillon.Filter{}) {
		require.NoError(t, err)
		key := job.Schedule + job.Tick.UTC().Format(time.RFC3339)
		all[key] = append(all[key], job)
	}
	return all
}

// child starts the program as a process of its own.
func child(t *testing.T, stderr io.Writer, args ...string) *exec.Cmd {
	t.Helper()
	path, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), asCrontab+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = stderr
	_, err = cmd.StdinPipe() // ends with this process
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// A killed instance takes its commands along, for another one runs them again.
func TestCommandsDieWithTheirInstance(t *testing.T) {
	t.Parallel()
	redis := redistest.Shared(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "crontab")
	require.NoError(t, os.WriteFile(file, []byte("OUT="+dir+"\n* * * * * * echo $$ >> $OUT/pids; exec sleep 1000\n"), 0o600))
	var log buffer
	instance := child(t, &log, "-redis", redis.Addr(), "-namespace", redistest.Namespace(t), "-user", "-seconds", file)
	var pids []string
	redistest.Wait(t, patience, func() error {
		data, err := os.ReadFile(filepath.Join(dir, "pids"))
		if pids = strings.Fields(string(data)); err == nil && len(pids) < 2 {
			err = errors.New("too few commands run")
		}
		return err
	})
	require.Error(t, gone(pids[0]))
	require.NoError(t, instance.Process.Kill())
	for _, pid := range pids {
		redistest.Wait(t, patience, func() error { return gone(pid) })
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
)

// asCrontab makes the test binary the program itself.
const asCrontab = "CARILLON_TEST_CRONTAB"

func TestMain(m *testing.M) {
	if os.Getenv(asCrontab) == "" {
		goleak.VerifyTestMain(redistest.Wrap(m))
	}
	go func() { // do not outlive a test that was killed
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	main()
}

const patience = 30 * time.Second

// rig is a crontab, an instance of the program, and a look at Redis.
type rig struct {
	*carillon.Scheduler
	file string
	log  *buffer
	stop func() // the instance
}

// start runs an instance in this process. Its crontab has seconds, and no users.
func start(t *testing.T, text string, args ...string) *rig {
	t.Helper()
	redis, ns := redistest.Shared(t), redistest.Namespace(t)
	s, err := carillon.New(redis.Client(t), carillon.Config{Namespace: ns})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Shutdown(context.Background())) })
	r := &rig{Scheduler: s, file: filepath.Join(t.TempDir(), "crontab"), log: &buffer{}}
	r.write(t, text)
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	args = append([]string{"-redis", redis.Addr(), "-namespace", ns, "-poll", "20ms", "-tz", "UTC", "-user", "-seconds"}, append(args, r.file)...)
	go func() { code <- run(ctx, args, io.Discard, r.log) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		assert.Zero(t, <-code)
		if t.Failed() {
			t.Log(r.log)
		}
	})
	t.Cleanup(r.stop)
	return r
}

// write replaces the crontab, as an editor does.
func (r *rig) write(t *testing.T, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(r.file+".new", []byte(text), 0o600))
	require.NoError(t, os.Rename(r.file+".new", r.file))
}

// finished waits for a job of the command that is done.
func (r *rig) finished(t *testing.T, command string) (job *carillon.JobInfo) {
	t.Helper()
	redistest.Wait(t, patience, func() error {
		for one, err := range r.List(t.Context(), carillon.Filter{}) {
			if err != nil {
				return err
			}
			var task Task
			if json.Unmarshal(one.Args, &task) == nil && task.Command == command && one.State.Final() {
				job = one
				return nil
			}
		}
		return errors.New("it has not run")
	})
	return job
}

// commands lists what is scheduled, sorted.
func (r *rig) commands(t *testing.T) (all []string) {
	t.Helper()
	stored, err := r.Schedules(t.Context())
	require.NoError(t, err)
	for _, one := range stored {
		var task Task
		data, err := json.Marshal(one.Job.Args)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(data, &task))
		all = append(all, fmt.Sprintf("%s %d", task.Command, one.Generation))
	}
	slices.Sort(all)
	return all
}

func (r *rig) scheduled(t *testing.T, want ...string) {
	t.Helper()
	redistest.Wait(t, patience, func() error {
		if got := r.commands(t); !slices.Equal(got, want) {
			return fmt.Errorf("scheduled is %q instead of %q", got, want)
		}
		return nil
	})
}

// What a command printed and how it ended is kept with its job.
func TestResults(t *testing.T) {
	t.Parallel()
	r := start(t, "A=b\n* * * * * * cat; echo $A $CARILLON_JOB $CARILLON_TICK >&2%in\n* * * * * * echo some; echo more; exit 3\n")
	job := r.finished(t, "cat; echo $A $CARILLON_JOB $CARILLON_TICK >&2")
	assert.Equal(t, carillon.StateSucceeded, job.State)
	var result Result
	require.NoError(t, json.Unmarshal(job.Result, &result))
	host, err := os.Hostname()
	require.NoError(t, err)
	assert.Equal(t, Result{
		Host: host, Started: result.Started, TookMS: result.TookMS,
		Output: "in\nb " + job.ID + " " + job.Tick.UTC().Format(time.RFC3339) + "\n",
	}, result)
	assert.WithinDuration(t, job.Tick, result.Started, patience)

	job = r.finished(t, "echo some; echo more; exit 3")
	assert.Equal(t, carillon.StateFailed, job.State, "and it is not tried again")
	require.Len(t, job.Attempts, 1)
	assert.Equal(t, "exit status 3: more", job.Attempts[0].Error)
	require.NoError(t, json.Unmarshal(job.Progress, &result))
	assert.Equal(t, 3, result.Exit)
	assert.Equal(t, "some\nmore\n", result.Output)
}

// A changed file changes the schedules of the lines that changed, and no other.
func TestReload(t *testing.T) {
	t.Parallel()
	r := start(t, "0 0 0 1 1 * a\n0 0 0 1 1 * b\n")
	r.scheduled(t, "a 1", "b 1")
	require.NoError(t, r.Schedule(t.Context(), carillon.Schedule{
		Name: "x", Spec: carillon.Cron("@yearly"), Job: carillon.Job{Name: jobName, Args: Task{File: "/elsewhere", Command: "other"}},
	}))
	r.scheduled(t, "a 1", "b 1", "other 1")

	r.write(t, "# new\n0 0 0 1 1 * c\n0 0 0 1 1 * b\n61 * * * * * d\n")
	r.scheduled(t, "b 1", "c 1", "other 1")
	redistest.Wait(t, patience, r.log.contains(r.file+":4: invalid"))

	r.write(t, "0 0 0 1 1 * b\n0 0 0 1 1 * b\n")
	r.scheduled(t, "b 1", "b 1", "other 1")
	require.NoError(t, os.Remove(r.file))
	r.scheduled(t, "other 1")
	r.write(t, "0 0 0 1 1 * b\n")
	r.scheduled(t, "b 2", "other 1") // another generation: it plans from now
	r.stop()
	r.scheduled(t, "b 2", "other 1") // they outlive the instance
}

// A file that cannot be read says nothing, not even that its lines are gone.
func TestUnreadableFile(t *testing.T) {
	t.Parallel()
	other := filepath.Join(t.TempDir(), "other")
	require.NoError(t, os.WriteFile(other, nil, 0o600))
	r := start(t, "0 0 0 1 1 * a\n", other)
	r.scheduled(t, "a 1")
	r.write(t, strings.Repeat("\n", maxFile+1))
	redistest.Wait(t, patience, r.log.contains("is longer than"))
	require.NoError(t, os.WriteFile(other, []byte("0 0 0 1 1 * b\n"), 0o600))
	r.scheduled(t, "a 1", "b 1")
	require.NoError(t, os.Remove(other)) // what was stored before has then been stored to the end
	r.scheduled(t, "a 1")
	r.write(t, "0 0 0 1 1 * c\n")
	r.scheduled(t, "c 1")
}

func TestReboot(t *testing.T) {
	t.Parallel()
	r := start(t, "@reboot echo up\n@reboot exit 4\n")
	redistest.Wait(t, patience, r.log.contains(`@reboot ran"`))
	redistest.Wait(t, patience, r.log.contains("exit status 4"))
	r.stop()
	assert.Contains(t, r.log.String(), `output="up\n"`)
	assert.Equal(t, 1, strings.Count(r.log.String(), "@reboot ran"))
	assert.Empty(t, r.commands(t))
}

// A stop waits as long as it was told to, and then ends the commands with all
// that they have started.
func TestStop(t *testing.T) {
	t.Parallel()
	r := start(t, "", "-drain", "10ms")
	out := filepath.Join(filepath.Dir(r.file), "pids")
	r.write(t, "OUT="+out+"\n* * * * * * sleep 1000 & echo $! $$ >> $OUT; wait\n")
	var pids []string
	redistest.Wait(t, patience, func() error {
		data, err := os.ReadFile(out)
		pids = strings.Fields(string(data))
		if err == nil && len(pids) < 2 {
			err = errors.New("no command has begun")
		}
		return err
	})
	begun := time.Now()
	r.stop()
	assert.Less(t, time.Since(begun), patience)
	for _, pid := range pids {
		redistest.Wait(t, patience, func() error { return gone(pid) })
	}
	n := 0
	for job, err := range r.List(t.Context(), carillon.Filter{}) {
		require.NoError(t, err)
		assert.False(t, job.State.Final(), "it is left to another instance")
		n++
	}
	assert.Positive(t, n)
}

// A job of a user whom this instance does not know is left to others.
func TestUnknownUser(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	job := carillon.Job{Name: jobName, Args: Task{File: "/elsewhere", User: "no-such-user", Command: "true"}}
	require.NoError(t, r.Schedule(t.Context(), carillon.Schedule{Name: "x", Spec: carillon.Cron("* * * * * *"), Job: job}))
	redistest.Wait(t, patience, func() error {
		for one, err := range r.List(t.Context(), carillon.Filter{}) {
			if err != nil {
				return err
			}
			if len(one.Attempts) > 0 && one.Attempts[0].Outcome == carillon.OutcomeSnoozed {
				return nil
			}
		}
		return errors.New("nothing was put off")
	})
	require.NoError(t, r.Unschedule(t.Context(), "x"))

	receipt, err := r.Submit(t.Context(), job) // of no tick: nobody will ever run it
	require.NoError(t, err)
	failed, err := r.Await(t.Context(), receipt.ID)
	require.NoError(t, err)
	assert.Equal(t, carillon.StateFailed, failed.State)
	assert.Contains(t, failed.Attempts[0].Error, "no-such-user")
}

func TestUsage(t *testing.T) {
	t.Parallel()
	good := filepath.Join(t.TempDir(), "good")
	bad := filepath.Join(t.TempDir(), "bad")
	require.NoError(t, os.WriteFile(good, []byte("CRON_TZ=Asia/Tokyo\n0 9 * * * root one\n"), 0o600))
	require.NoError(t, os.WriteFile(bad, []byte("0 9 * * * root two\nthree\n"), 0o600))
	for _, c := range []struct {
		args     []string
		code     int
		out, log string
	}{
		{[]string{"-h"}, 0, "", "-redis host:port"},
		{nil, 2, "", "it needs -redis, or -list"},
		{[]string{"-unknown"}, 2, "", "-unknown"},
		{[]string{"-list", "-tz", "Mars"}, 2, "", "-tz: unknown time zone Mars"},
		{[]string{"-list", "-from", "noon"}, 2, "", "-from: "},
		{[]string{"-redis", "x:1", "-poll", "0"}, 2, "", "-poll has to be more"},
		{[]string{"-redis", "x:1", "-lease", "1ns"}, 1, "", "LeaseTTL"},
		{[]string{"-list", "-tz", "UTC", "-from", "2026-03-01T00:00:00Z", good}, 0, "2026-03-01T00:00:00Z\t" + good + ":2\troot\tone\n", ""},
		{
			[]string{"-list", "-tz", "Europe/Berlin", "-from", "2026-03-01T00:00:00+01:00", bad}, 1,
			"2026-03-01T09:00:00+01:00\t" + bad + ":1\troot\ttwo\n", "crontab: " + bad + ":2: the line ends before the time",
		},
	} {
		var out, log bytes.Buffer
		assert.Equal(t, c.code, run(t.Context(), c.args, &out, &log), c.args)
		assert.Equal(t, c.out, out.String(), c.args)
		assert.Contains(t, log.String(), c.log, c.args)
	}
	who, err := user.Current()
	require.NoError(t, err)
	o, err := parseArgs([]string{"-redis", "x:1", "-user", "f"}, io.Discard)
	require.NoError(t, err)
	assert.Equal(t, who.Username, o.source.format.user)
	assert.Equal(t, os.Geteuid() == 0, o.source.strict)
	o, err = parseArgs([]string{"-redis", "x:1"}, io.Discard)
	require.NoError(t, err)
	assert.Equal(t, []string{"/etc/crontab", "/etc/cron.d"}, o.source.paths)
}

// buffer can be read while it is written to.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *buffer) contains(s string) func() error {
	return func() error {
		if !strings.Contains(b.String(), s) {
			return fmt.Errorf("%q is not in the log", s)
		}
		return nil
	}
}

// gone also holds for a process that nobody has waited for yet.
func gone(pid string) error {
	if stat, _ := os.ReadFile(filepath.Join("/proc", pid, "stat")); len(stat) > 0 && !strings.Contains(string(stat), ") Z ") {
		return fmt.Errorf("process %s runs", pid)
	}
	return nil
}

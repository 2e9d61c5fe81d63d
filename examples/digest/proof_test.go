//go:build unix

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
)

// TestProof digests a source tree with three worker processes on a real Redis
// and kills one of them with -9 half way. The report has to be sha256sum's, every
// file done exactly once as far as Carillon's books go, and the files that the
// killed worker had in hand done within 15 s. It uses the program as it is, so
// the lease is the default one of 10 s, and the test takes a little longer.
//
// The tree is a part of the Go source. `make digest-proof` takes all of it.
func TestProof(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(runtime.GOROOT(), "src", "runtime") //nolint:staticcheck // the toolchain that runs this test
	if os.Getenv("DIGEST_PROOF") == "full" {
		dir = filepath.Dir(dir)
	}
	names := filesBelow(t, dir)
	want := expected(t, names)
	for round := 1; prove(t, dir, names, want) == 0; round++ {
		require.Less(t, round, 3, "the killed worker never had a file in hand")
	}
}

// prove returns how many files the killed worker had in hand. If that is none,
// nothing was proved.
func prove(t *testing.T, dir string, names []string, want string) (inHand int) {
	t.Helper()
	redis := redistest.Single(t)
	watch := newWatcher(t, redis, len(names)/2)

	var workers [3]*exec.Cmd
	var logs [len(workers)]buffer
	for i := range workers {
		workers[i] = child(t, redis, &logs[i], io.Discard, "-worker")
		redistest.Wait(t, patience, logs[i].contains("instance started"))
	}
	defer func() {
		if t.Failed() {
			for i := range logs {
				t.Logf("worker %d:\n%s", i+1, logs[i].String())
			}
		}
	}()
	begun := time.Now()
	var out, log buffer
	submitter := child(t, redis, &log, &out, "-dir", dir)

	select {
	case <-watch.half:
	case <-time.After(2 * time.Minute):
		t.Fatalf("half of the files are not done:\n%s", log.String())
	}
	victim := workers[0]
	require.NoError(t, victim.Process.Signal(syscall.SIGKILL))
	killed, atKill := time.Now(), watch.done.Load()
	_ = victim.Wait()
	require.Equal(t, syscall.SIGKILL, victim.ProcessState.Sys().(syscall.WaitStatus).Signal()) //nolint:errcheck // that is its type on unix

	require.NoError(t, submitter.Wait(), log.String())
	took := time.Since(begun)
	for _, w := range workers[1:] {
		require.NoError(t, w.Process.Signal(syscall.SIGTERM))
		assert.NoError(t, w.Wait(), "a worker that is told to stop ends well")
	}
	jobs := watch.end(t)

	compare(t, want, out.String())
	assert.Len(t, jobs, len(names))
	var slowest time.Duration
	var lostBy string // the killed worker's instance
	for id, job := range jobs {
		assert.Equal(t, []carillon.EventType{carillon.EventSucceeded}, job.events, "events of job %s", id)
		var succeeded, others int
		for _, a := range job.info.Attempts {
			switch {
			case a.Outcome == carillon.OutcomeSucceeded:
				succeeded++
			case a.Outcome == carillon.OutcomeLost && (lostBy == "" || a.Instance == lostBy):
				lostBy = a.Instance
				inHand++
				slowest = max(slowest, job.finished.Sub(killed))
			default:
				others++
			}
		}
		assert.Equal(t, 1, succeeded, "job %s was settled other than once: %+v", id, job.info.Attempts)
		assert.Zero(t, others, "job %s: %+v", id, job.info.Attempts)
	}
	assert.Less(t, slowest, patience, "the killed worker's files took too long")
	t.Logf("%d files in %v; worker killed after %d with %d in hand; all of these were done %v after the kill",
		len(names), took.Round(time.Millisecond), atKill, inHand, slowest.Round(time.Millisecond))
	return inHand
}

func child(t *testing.T, redis *redistest.Server, stderr, stdout io.Writer, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, append([]string{"-redis", redis.Addr()}, args...)...)
	cmd.Env = append(os.Environ(), asDigest+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.Stdout, cmd.Stderr = stdout, stderr
	_, err = cmd.StdinPipe() // ends with this process
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// filesBelow lists what has to be in the report, in its order, without the code that makes the report.
func filesBelow(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			names = append(names, path)
		}
		return err
	}))
	require.NotEmpty(t, names)
	slices.Sort(names)
	return names
}

// expected is what sha256sum prints, or would print if it was there.
func expected(t *testing.T, names []string) string {
	t.Helper()
	var out strings.Builder
	if _, err := exec.LookPath("sha256sum"); err == nil {
		for some := range slices.Chunk(names, 1000) { // argument lists are limited
			part, err := exec.CommandContext(t.Context(), "sha256sum", some...).Output()
			require.NoError(t, err)
			_, _ = out.Write(part)
		}
		return out.String()
	}
	t.Log("sha256sum is not installed; the test computes what it would print")
	for _, name := range names {
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		_, _ = fmt.Fprintf(&out, "%x  %s\n", sha256.Sum256(data), name)
	}
	return out.String()
}

// compare shows the first difference, for there may be thousands.
func compare(t *testing.T, want, got string) {
	t.Helper()
	if got == want {
		return
	}
	w, g := strings.SplitAfter(want, "\n"), strings.SplitAfter(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			t.Errorf("line %d is\n\t%s\tinstead of\n\t%s", i+1, g[i], w[i])
			return
		}
	}
	t.Errorf("the report has %d lines instead of %d", len(g), len(w))
}

// watcher follows the events of the run from outside.
type watcher struct {
	scheduler *carillon.Scheduler
	half      chan struct{} // closed when half of the jobs are done
	stopped   chan struct{}
	done      atomic.Int64 // jobs

	jobs map[string]*watched
	err  error
}

type watched struct {
	events   []carillon.EventType
	finished time.Time // by Redis' clock
	info     *carillon.JobInfo
}

const endMark = "the end of the proof" // a queue whose pause is the last event

func newWatcher(t *testing.T, redis *redistest.Server, half int) *watcher {
	t.Helper()
	s, err := carillon.New(redis.Client(t), carillon.Config{Namespace: "digest"})
	require.NoError(t, err)
	w := &watcher{
		scheduler: s, half: make(chan struct{}), stopped: make(chan struct{}),
		jobs: make(map[string]*watched),
	}
	ctx, cancel := context.WithCancel(t.Context())
	events := s.Subscribe(ctx, "")
	unread := make(chan carillon.Event, 100_000)
	go func() {
		defer close(unread)
		for e, err := range events {
			if err != nil || e.Queue == endMark {
				return
			}
			if w.done.Add(1) == int64(half) {
				close(w.half)
			}
			unread <- e
		}
	}()
	go func() { // asks for each job at once, before retention drops it
		defer close(w.stopped)
		for e := range unread {
			w.err = errors.Join(w.err, w.note(ctx, e))
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-w.stopped
		assert.NoError(t, s.Shutdown(context.Background()))
	})
	return w
}

func (w *watcher) note(ctx context.Context, e carillon.Event) error {
	info, err := w.scheduler.Get(ctx, e.ID)
	if err != nil {
		return err
	}
	job := w.jobs[e.ID]
	if job == nil {
		job = &watched{}
		w.jobs[e.ID] = job
	}
	job.events, job.finished, job.info = append(job.events, e.Type), e.Time, info
	return nil
}

// end returns what happened, after all workers have stopped.
func (w *watcher) end(t *testing.T) map[string]*watched {
	t.Helper()
	require.NoError(t, w.scheduler.PauseQueue(t.Context(), endMark))
	select {
	case <-w.stopped:
	case <-time.After(patience):
		t.Fatal("the events do not end")
	}
	require.NoError(t, w.err)
	return w.jobs
}

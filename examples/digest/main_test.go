package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/carillon-go/carillon/internal/redistest"
)

// asDigest makes the test binary the program itself.
const asDigest = "CARILLON_TEST_DIGEST"

func TestMain(m *testing.M) {
	if os.Getenv(asDigest) == "" {
		goleak.VerifyTestMain(redistest.Wrap(m))
	}
	go func() { // do not outlive a test that was killed
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	main()
}

const patience = 30 * time.Second

func TestReport(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"plain":                  "one\ntwo\n",
		"empty":                  "",
		"a b":                    "no newline",
		"new\nline":              "x",
		"carriage\rreturn":       "x",
		`back\slash`:             "x",
		"tab\tis fine":           "x",
		"not UTF-8: \xff\xfe":    "x",
		"not UTF-8: \xff\xfd":    "y",
		"sub/directory/deep":     strings.Repeat("x", 100_000),
		"sub.file":               "sorts before sub/, by bytes",
		"Upper":                  "sorts before lower case",
		"sub/\u00fcml\u00e4ut":   "x",
		"-looks-like-an-option":  "x",
		"sub/directory/.hidden!": "x",
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	}
	require.NoError(t, os.Symlink("plain", filepath.Join(dir, "link")))
	require.NoError(t, os.Symlink(".", filepath.Join(dir, "loop")))
	root := filepath.Join(t.TempDir(), "root")
	require.NoError(t, os.Symlink(dir, root))

	redis := redistest.Single(t)
	stop := startWorker(t, redis)
	t.Chdir(dir)
	for _, arg := range []string{dir, dir + "/", ".", "./sub/..", root} {
		out, log, code := program(t, redis, "-dir", arg)
		assert.Zero(t, code, log)
		assert.Equal(t, reference(t, arg), out)
		assert.Contains(t, log, "15 files, 2 lines")
	}

	stop()
	out, _, code := program(t, redis, "-dir", t.TempDir())
	assert.Zero(t, code, "nothing to do, so no worker is needed")
	assert.Empty(t, out)
}

// A run that goes on does no file again.
func TestGoOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), []byte("x"), 0o600))
	redis := redistest.Single(t)

	ctx, interrupt := context.WithCancel(t.Context())
	var log buffer
	code := make(chan int)
	go func() {
		code <- run(ctx, []string{"-redis", redis.Addr(), "-dir", dir, "-run", "r"}, io.Discard, &log)
	}()
	redistest.Wait(t, patience, log.contains("0 of 1 files, but no worker"))
	interrupt()
	assert.Equal(t, 1, <-code)
	assert.Contains(t, log.String(), "-run r goes on")

	stop := startWorker(t, redis)
	out, _, exit := program(t, redis, "-dir", dir, "-run", "r")
	assert.Zero(t, exit)
	assert.Equal(t, reference(t, dir), out)
	stop()
	again, _, exit := program(t, redis, "-dir", dir, "-run", "r")
	assert.Zero(t, exit, "the results are there, so no worker is needed")
	assert.Equal(t, out, again)
}

func TestUnreadable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	gone, bad := filepath.Join(dir, "gone"), filepath.Join(dir, "bad\nname")
	for _, path := range []string{gone, bad, filepath.Join(dir, "there")} {
		require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
	}
	redis := redistest.Single(t)
	var out, log buffer
	code := make(chan int)
	go func() { code <- run(t.Context(), []string{"-redis", redis.Addr(), "-dir", dir}, &out, &log) }()
	redistest.Wait(t, patience, log.contains("no worker"))
	require.NoError(t, os.Remove(gone))
	require.NoError(t, os.Remove(bad))
	stop := startWorker(t, redis)
	defer stop()
	assert.Equal(t, 1, <-code)
	assert.Equal(t, reference(t, dir), out.String())
	assert.Contains(t, log.String(), "digest: "+gone+": no such file or directory\n")
	assert.Contains(t, log.String(), `bad\nname": no such file or directory`)
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{},
		{"-worker"},
		{"-redis", "x:1"},
		{"-redis", "x:1", "-worker", "-dir", "."},
		{"-redis", "x:1", "-worker", "more"},
		{"-unknown"},
	} {
		var log buffer
		assert.Equal(t, 2, run(t.Context(), args, io.Discard, &log), args)
		assert.Contains(t, log.String(), "-redis", args)
	}
	var log buffer
	assert.Zero(t, run(t.Context(), []string{"-h"}, io.Discard, &log))
	assert.Equal(t, 1, run(t.Context(), []string{"-redis", "127.0.0.1:1", "-dir", "main.go"}, io.Discard, &log))
	assert.Contains(t, log.String(), "main.go is not a directory")
	assert.Equal(t, 1, run(t.Context(), []string{"-redis", "127.0.0.1:1", "-dir", "no such"}, io.Discard, &log))
	assert.Equal(t, 1, run(t.Context(), []string{"-redis", "127.0.0.1:1", "-dir", "."}, io.Discard, &log))
	assert.Contains(t, log.String(), "connection refused")
}

func program(t *testing.T, redis *redistest.Server, args ...string) (out, log string, code int) {
	t.Helper()
	var stdout, stderr buffer
	code = run(t.Context(), append([]string{"-redis", redis.Addr()}, args...), &stdout, &stderr)
	return stdout.String(), stderr.String(), code
}

// startWorker runs a worker in this process until stop is called.
func startWorker(t *testing.T, redis *redistest.Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int)
	go func() { code <- run(ctx, []string{"-redis", redis.Addr(), "-worker"}, io.Discard, io.Discard) }()
	return func() {
		cancel()
		assert.Zero(t, <-code)
	}
}

// reference is the report of the tools that digest is compared with.
func reference(t *testing.T, dir string) string {
	t.Helper()
	for _, tool := range []string{"find", "sort", "xargs", "sha256sum"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
	// find does not follow a link that it is given, unless told by -H.
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `find -H "$1" -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum --`, "sh", dir)
	out, err := cmd.Output()
	require.NoError(t, err)
	return string(out)
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
			return assert.AnError
		}
		return nil
	}
}

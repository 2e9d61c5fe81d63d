package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
)

// asService makes the test binary the service itself.
const asService = "CARILLON_TEST_SERVICE"

func TestMain(m *testing.M) {
	if os.Getenv(asService) == "" {
		goleak.VerifyTestMain(redistest.Wrap(m))
	}
	go func() { // do not outlive a test that was killed
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	main()
	os.Exit(0)
}

const patience = 30 * time.Second

func TestAPI(t *testing.T) {
	s := start(t, "-mail-takes", "1ms")
	assert.Equal(t, http.StatusAccepted, s.post(t, `{"id": "A-1", "email": "ada@example.com"}`))
	assert.Equal(t, http.StatusOK, s.post(t, `{"id": "A-1", "email": "ada@example.com"}`), "the same again")
	assert.Equal(t, http.StatusConflict, s.post(t, `{"id": "A-1", "email": "eve@example.com"}`))
	assert.Equal(t, http.StatusBadRequest, s.post(t, `{"id": "A-2"}`))
	assert.Equal(t, http.StatusBadRequest, s.post(t, `{`))
	assert.Equal(t, http.StatusBadRequest, s.post(t, `{"id": "`+strings.Repeat("x", 300)+`", "email": "ada@example.com"}`))
	s.eventually(t, "A-1", carillon.StateSucceeded)
	code, got := s.get(t, "A-1")
	assert.Equal(t, http.StatusOK, code)
	assert.Equal(t, 1, got.Attempts)
	assert.False(t, got.ConfirmedAt.IsZero())
	code, _ = s.get(t, "A-2")
	assert.Equal(t, http.StatusNotFound, code)
	code, _ = s.get(t, strings.Repeat("x", 300))
	assert.Equal(t, http.StatusNotFound, code)
	assert.Zero(t, s.terminate(t))
	assert.Equal(t, 1, strings.Count(s.log(), "mail sent"), s.log())
}

// A job that runs when the service is told to stop is finished.
func TestStopFinishesRunningJob(t *testing.T) {
	s := start(t, "-mail-takes", "3s") // it has to be seen running
	require.Equal(t, http.StatusAccepted, s.post(t, `{"id": "A-1", "email": "ada@example.com"}`))
	s.eventually(t, "A-1", carillon.StateRunning)
	require.NotContains(t, s.log(), "mail sent")
	assert.Zero(t, s.terminate(t))
	assert.Contains(t, s.log(), "mail sent")
}

// A job that takes longer than the service may take to stop is released, and
// another instance does it.
func TestStopReleasesRunningJob(t *testing.T) {
	redis := redistest.Single(t)
	s := start(t, "-redis", redis.Addr(), "-mail-takes", "1h", "-drain", "50ms")
	require.Equal(t, http.StatusAccepted, s.post(t, `{"id": "A-1", "email": "ada@example.com"}`))
	s.eventually(t, "A-1", carillon.StateRunning)
	assert.Zero(t, s.terminate(t))
	assert.Contains(t, s.log(), "mail not sent")

	jobs, err := carillon.New(redis.Client(t), carillon.Config{Namespace: "shop"})
	require.NoError(t, err)
	defer func() { assert.NoError(t, jobs.Shutdown(t.Context())) }()
	job, err := jobs.Get(t.Context(), jobID("A-1"))
	require.NoError(t, err)
	assert.Equal(t, carillon.StateQueued, job.State)
	assert.Zero(t, job.Failures+job.Losses)
	require.NotEmpty(t, job.Attempts)
	assert.Equal(t, carillon.OutcomeReleased, job.Attempts[0].Outcome)
	nightly, err := jobs.GetSchedule(t.Context(), "nightly")
	require.NoError(t, err)
	assert.Equal(t, carillon.Cron("0 3 * * *"), nightly.Spec)
	assert.Equal(t, int64(1), nightly.Generation)

	next := start(t, "-redis", redis.Addr(), "-mail-takes", "1ms")
	next.eventually(t, "A-1", carillon.StateSucceeded)
	assert.Zero(t, next.terminate(t))
	nightly, err = jobs.GetSchedule(t.Context(), "nightly")
	require.NoError(t, err)
	assert.Equal(t, int64(1), nightly.Generation, "the same schedule again is no new one")
}

func TestStartFails(t *testing.T) {
	s := start(t)
	other := command(t, "-addr", s.addr)
	out, err := other.CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	assert.Equal(t, 1, exit.ExitCode())
	assert.Contains(t, string(out), "address already in use")
	assert.Zero(t, s.terminate(t))
}

// service is a running child process.
type service struct {
	cmd  *exec.Cmd
	addr string
	read chan struct{} // closed when all it printed was read

	mu    sync.Mutex
	lines strings.Builder
}

func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), asService+"=1", "GORACE=atexit_sleep_ms=0")
	stdin, err := cmd.StdinPipe() // ends with this process
	require.NoError(t, err)
	t.Cleanup(func() { _ = stdin.Close() })
	return cmd
}

// start runs the service and waits until it serves.
func start(t *testing.T, args ...string) *service {
	t.Helper()
	s := &service{cmd: command(t, append([]string{"-addr", "127.0.0.1:0"}, args...)...), read: make(chan struct{})}
	stderr, err := s.cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, s.cmd.Start())
	serving := make(chan string, 1)
	go func() {
		defer close(s.read)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			s.mu.Lock()
			s.lines.WriteString(lines.Text() + "\n")
			s.mu.Unlock()
			if m := regexp.MustCompile(`serving addr=(\S+)`).FindStringSubmatch(lines.Text()); m != nil {
				serving <- m[1]
			}
		}
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		<-s.read
		_ = s.cmd.Wait()
		if t.Failed() {
			t.Log(s.log())
		}
	})
	select {
	case s.addr = <-serving:
	case <-s.read:
		t.Fatalf("the service did not start:\n%s", s.log())
	case <-time.After(patience):
		t.Fatalf("the service does not serve:\n%s", s.log())
	}
	return s
}

func (s *service) log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lines.String()
}

// terminate sends SIGTERM and returns the exit code.
func (s *service) terminate(t *testing.T) int {
	t.Helper()
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-s.read:
	case <-time.After(patience):
		t.Fatal("the service does not end")
	}
	_ = s.cmd.Wait()
	return s.cmd.ProcessState.ExitCode()
}

var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}

func (s *service) post(t *testing.T, body string) int {
	t.Helper()
	resp, err := client.Post("http://"+s.addr+"/orders", "application/json", strings.NewReader(body))
	require.NoError(t, err)
	defer resp.Body.Close()
	return resp.StatusCode
}

func (s *service) get(t *testing.T, id string) (code int, got status) {
	t.Helper()
	resp, err := client.Get("http://" + s.addr + "/orders/" + id)
	require.NoError(t, err)
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&got))
	}
	return resp.StatusCode, got
}

func (s *service) eventually(t *testing.T, id string, want carillon.State) {
	t.Helper()
	redistest.Wait(t, patience, func() error {
		if _, got := s.get(t, id); got.Confirmation != want {
			return assert.AnError
		}
		return nil
	})
}

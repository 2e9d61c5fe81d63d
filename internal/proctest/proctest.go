// Package proctest runs workers as processes of their own, which a test can
// kill, freeze and wake like a machine that fails.
//
// A worker process is the test binary, executed again. The TestMain of a
// package that uses it says what such a process can be told to do:
//
//	func TestMain(m *testing.M) {
//		proctest.Main(map[string]proctest.Role{"worker": proctest.With(work)})
//		os.Exit(m.Run())
//	}
//
// and a test starts one by its role:
//
//	p := proctest.Start(t, "worker", workerArgs{Addr: addr})
//
// What a worker did is told by its [Ledger], a file that does not depend on the
// system under test.
package proctest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Environment variables by which a process learns that it is a worker.
const (
	roleEnv = "PROCTEST_ROLE"
	argsEnv = "PROCTEST_ARGS"
)

// Role is what a worker process does. The process ends when it returns: well, or
// with status 1 when it returns an error.
type Role func(args []byte) error

// With makes a role of a function whose argument is encoded as JSON.
func With[A any](f func(args A) error) Role {
	return func(data []byte) error {
		var args A
		if err := json.Unmarshal(data, &args); err != nil {
			return fmt.Errorf("arguments of the role: %w", err)
		}
		return f(args)
	}
}

// Main does what this process was started for by [Start], and exits. In a
// process that was not, it returns at once.
func Main(roles map[string]Role) {
	name := os.Getenv(roleEnv)
	if name == "" {
		return
	}
	role, known := roles[name]
	if !known {
		fmt.Fprintf(os.Stderr, "proctest: TestMain gives no role %q\n", name)
		os.Exit(2)
	}
	if err := role([]byte(os.Getenv(argsEnv))); err != nil {
		fmt.Fprintln(os.Stderr, "proctest:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// logShown is how much of a worker's log a failed test prints.
const logShown = 8 << 10

// Start starts a worker process with a role. It is killed when t ends, and when
// t has failed, what it printed is logged.
func Start(t testing.TB, role string, args any) *Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(args)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p, err := Launch(command(self, role, data), filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if !t.Failed() {
			return
		}
		log := p.Log()
		if cut := len(log) - logShown; cut > 0 {
			log = "…" + log[cut:]
		}
		t.Logf("%s, process %d: %v\n%s", role, p.PID(), p.state, strings.TrimSpace(log))
	})
	return p
}

func command(self, role string, args []byte) *exec.Cmd {
	cmd := exec.Command(self)
	// The race detector would keep a process for a second after its end.
	cmd.Env = append(os.Environ(), roleEnv+"="+role, argsEnv+"="+string(args), "GORACE=atexit_sleep_ms=0")
	return cmd
}

// Wait waits until the process has ended and returns how. When that takes longer
// than within, the test fails.
func (p *Process) Wait(t testing.TB, within time.Duration) *os.ProcessState {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(within):
		t.Fatalf("process %d still runs after %v", p.PID(), within)
	}
	return p.state
}

// Stop freezes the process, as a stalled machine would. It is frozen when Stop
// returns.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	if err := p.Freeze(); err != nil {
		t.Fatalf("stop process %d: %v", p.PID(), err)
	}
}

// Cont ends Stop.
func (p *Process) Cont(t testing.TB) {
	t.Helper()
	if err := p.Thaw(); err != nil {
		t.Fatalf("continue process %d: %v", p.PID(), err)
	}
}

// Term asks the process to end.
func (p *Process) Term(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Signal(sigTerm); err != nil {
		t.Fatalf("terminate process %d: %v", p.PID(), err)
	}
}

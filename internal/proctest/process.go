package proctest

import (
	"os"
	"os/exec"
	"runtime"
	"time"
)

// Process is a process that a test started.
type Process struct {
	cmd   *exec.Cmd
	log   string
	state *os.ProcessState // once done is closed
	done  chan struct{}    // closed when the process is gone
}

// Launch starts a command whose output goes to a file. On Linux the process
// dies with this one, however that ends.
func Launch(cmd *exec.Cmd, log string) (*Process, error) {
	// A file rather than a pipe, because a pipe needs a goroutine to drain it.
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }() // the process has a copy

	p := &Process{cmd: cmd, log: log, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = procAttr()
	started := make(chan error)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// run starts the process and waits for its end on one and the same thread:
// the death signal of procAttr fires when the thread which started the process
// ends, so that thread must neither end earlier nor serve other goroutines,
// which could end it.
func (p *Process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	_ = p.cmd.Wait() // the state tells
	p.state = p.cmd.ProcessState
	close(p.done)
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process is gone.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exited reports whether the process is gone.
func (p *Process) Exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Kill ends the process at once, as kill -9 does, and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // fails only when it is gone already
	<-p.done
}

// Freeze stops the process from running. It is frozen when Freeze returns.
func (p *Process) Freeze() error {
	if err := p.cmd.Process.Signal(sigStop); err != nil {
		return err
	}
	// The signal takes effect a little later than it is sent.
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		err := frozen(p.PID())
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// patience is how long a signal may take on a busy machine.
const patience = 30 * time.Second

// Thaw ends Freeze.
func (p *Process) Thaw() error { return p.cmd.Process.Signal(sigCont) }

// Log returns what the process printed.
func (p *Process) Log() string {
	out, _ := os.ReadFile(p.log)
	return string(out)
}

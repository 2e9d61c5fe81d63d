package redistest

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// process is one run of redis-server.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process is gone
}

func launch(dir string, args []string) (*process, error) {
	// A file rather than a pipe, because a pipe needs a goroutine to drain it.
	out, err := os.Create(filepath.Join(dir, "redis.log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }() // the process has a copy

	p := &process{cmd: exec.Command("redis-server", args...), done: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Stdout = out
	p.cmd.Stderr = out
	p.cmd.SysProcAttr = procAttr()
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
func (p *process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	_ = p.cmd.Wait() // it is killed, so there is always an error
	close(p.done)
}

func (p *process) pid() int {
	return p.cmd.Process.Pid
}

func (p *process) pause() error {
	if err := p.cmd.Process.Signal(sigStop); err != nil {
		return err
	}
	// The signal takes effect a little later than it is sent.
	return poll(patience, func() error { return frozen(p.pid()) })
}

func (p *process) resume() error {
	return p.cmd.Process.Signal(sigCont)
}

func (p *process) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // fails only when it is gone already
	<-p.done
}

// log returns what the process printed.
func (p *process) log() string {
	out, _ := os.ReadFile(filepath.Join(p.cmd.Dir, "redis.log"))
	return string(out)
}

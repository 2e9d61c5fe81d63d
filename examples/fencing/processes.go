package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// crew is the worker processes, by name.
type crew map[string]*worker

type worker struct {
	*exec.Cmd
	stdin  io.Closer     // it works until this is closed
	silent chan struct{} // closed when all it said was told
}

// hire starts two workers, which are this program with other arguments. What
// Carillon logs there becomes a part of the story.
func hire(ctx context.Context, tell story, args ...string) (crew, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := crew{}
	for _, name := range []string{"worker A", "worker B"} {
		w := &worker{
			Cmd:    exec.CommandContext(ctx, self, append([]string{"-worker"}, args...)...), //nolint:gosec // itself
			silent: make(chan struct{}),
		}
		w.Env = append(os.Environ(), nameEnv+"="+name)
		if w.stdin, err = w.StdinPipe(); err != nil {
			return c, err
		}
		w.Stderr = os.Stderr
		stdout, err := w.StdoutPipe()
		if err != nil {
			return c, err
		}
		if err := w.Start(); err != nil {
			return c, err
		}
		c[name] = w
		go func() {
			defer close(w.silent)
			for lines := bufio.NewScanner(stdout); lines.Scan(); {
				tell(name, "logs %s", lines.Text())
			}
		}()
	}
	return c, nil
}

// dismiss lets the workers finish and waits until they have.
func (c crew) dismiss() error {
	var errs []error
	for _, w := range c {
		_ = w.stdin.Close()
	}
	for name, w := range c {
		<-w.silent
		if err := w.Wait(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// kill makes sure that no worker is left, paused ones included.
func (c crew) kill() {
	for _, w := range c {
		_ = w.Process.Kill()
		<-w.silent
		_ = w.Wait()
	}
}

// startRedis starts a redis-server that keeps nothing, and returns its address.
func startRedis(ctx context.Context) (addr string, stop func(), err error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return "", nil, errors.New("the show needs a Redis server: name one by -redis host:port, or install redis-server " +
			"(Redis inside this process would not do, for two more processes have to reach it)")
	}
	dir, err := os.MkdirTemp("", "fencing-")
	if err != nil {
		return "", nil, err
	}
	addr = filepath.Join(dir, "redis.sock")                                                                // a file, not a port, which could be taken
	cmd := exec.CommandContext(ctx, path, "--port", "0", "--unixsocket", addr, "--dir", dir, "--save", "") //nolint:gosec // redis-server
	stop = func() {
		if cmd.Process != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		_ = os.RemoveAll(dir)
	}
	if err := cmd.Start(); err != nil {
		stop()
		return "", nil, err
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", addr)
		if err == nil {
			_ = conn.Close()
			return addr, stop, nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			stop()
			return "", nil, fmt.Errorf("redis-server does not start: %w", err)
		}
	}
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/carillon-go/carillon"
)

// jobName selects the handler, and Task is what it is given.
const jobName = "crontab"

// Task is a command of a crontab.
type Task struct {
	File    string   `json:"file"`
	User    string   `json:"user"`
	Command string   `json:"command"`
	Stdin   string   `json:"stdin,omitempty"`
	Env     []string `json:"env,omitempty"` // what the file sets
}

// Result is what came of a command. It is the job's result, or, since a failed
// job has none, its last progress.
type Result struct {
	Host    string    `json:"host"`
	Started time.Time `json:"started"`
	TookMS  int64     `json:"tookMs"`
	Exit    int       `json:"exit"` // -1: ended by a signal
	Signal  string    `json:"signal,omitempty"`
	Output  string    `json:"output"`            // of stdout and stderr, the end
	Omitted int64     `json:"omitted,omitempty"` // bytes before that
}

const (
	maxOutput = 64 << 10
	killAfter = 3 * time.Second // a command that was told to stop; less than Carillon waits
	elsewhere = time.Second     // until a job is offered again that this instance may not run
	tooLate   = time.Minute     // when nobody could run it
)

// serve is the handler.
func serve(ctx context.Context, x *carillon.Execution) error {
	var task Task
	if err := x.Decode(&task); err != nil {
		return err
	}
	account, err := task.account()
	if err != nil {
		if time.Since(x.Tick) > tooLate {
			return carillon.Permanent(err)
		}
		return carillon.Snooze(elsewhere) // for an instance on which it is possible
	}
	env := []string{
		"CARILLON_TICK=" + x.Tick.UTC().Format(time.RFC3339),
		"CARILLON_JOB=" + x.ID,
		fmt.Sprintf("CARILLON_ATTEMPT=%d", x.Attempt),
	}
	result, err := task.run(ctx, account, env)
	if ctx.Err() != nil {
		return context.Cause(ctx) // a stop or a lost lease: it runs again elsewhere
	}
	if err == nil {
		err = result.problem()
	}
	x.Logger.Info("crontab: ran", "user", task.User, "command", task.Command, "tick", x.Tick, "exit", result.Exit)
	if err != nil {
		return errors.Join(err, x.Progress(ctx, result))
	}
	return x.SetResult(result)
}

// atStart runs a command outside of any job.
func (t Task) atStart(ctx context.Context, log *slog.Logger) {
	log = log.With("user", t.User, "command", t.Command)
	var result Result
	account, err := t.account()
	if err == nil {
		result, err = t.run(ctx, account, nil)
	}
	if err == nil {
		err = result.problem()
	}
	if err != nil {
		log.Error("crontab: @reboot failed", "error", err, "output", result.Output)
		return
	}
	log.Info("crontab: @reboot ran", "output", result.Output)
}

func (r Result) problem() error {
	lines := strings.Split(strings.TrimSpace(r.Output), "\n")
	last := lines[len(lines)-1]
	switch {
	case r.Signal != "":
		return fmt.Errorf("signal %s: %.200s", r.Signal, last)
	case r.Exit != 0:
		return fmt.Errorf("exit status %d: %.200s", r.Exit, last)
	}
	return nil
}

// account is the user of a task, if commands can run as that user here.
func (t Task) account() (*user.User, error) {
	account, err := user.Lookup(t.User)
	if err != nil {
		return nil, err
	}
	if own := os.Geteuid(); own != 0 && account.Uid != fmt.Sprint(own) {
		return nil, fmt.Errorf("only root can run commands as %s, and this is user %d", t.User, own)
	}
	return account, nil
}

// run runs the command and waits for it. The error says why that was not
// possible; how the command ended is told by the result.
func (t Task) run(ctx context.Context, account *user.User, env []string) (r Result, err error) {
	// A file and not a pipe: what the command leaves running in the background
	// may hold its output open, and is not waited for.
	out, err := os.CreateTemp("", "crontab-")
	if err != nil {
		return r, err
	}
	defer func() {
		_ = out.Close()
		_ = os.Remove(out.Name())
	}()
	env = t.environ(account, env)
	shell, home := valueOf("SHELL", env), valueOf("HOME", env)
	cmd := exec.CommandContext(ctx, shell, "-c", t.Command) //nolint:gosec // that is what a crontab is for
	cmd.Env, cmd.Dir = env, home
	if info, err := os.Stat(home); err != nil || !info.IsDir() {
		cmd.Dir = "/"
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(t.Stdin), out, out
	if cmd.SysProcAttr, err = attributes(account); err != nil {
		return r, err
	}
	cmd.Cancel = func() error {
		if errors.Is(context.Cause(ctx), carillon.ErrLeaseLost) {
			return kill(cmd.Process) // another instance may be at it already
		}
		return terminate(cmd.Process)
	}
	cmd.WaitDelay = killAfter

	// The command is to die with us, which for Linux is the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r.Host, _ = os.Hostname()
	r.Started = time.Now()
	err = cmd.Run()
	r.TookMS = time.Since(r.Started).Milliseconds()
	if cmd.ProcessState == nil {
		return r, err // it did not start
	}
	if ctx.Err() != nil {
		_ = kill(cmd.Process) // what is left of its group
	}
	r.Exit = cmd.ProcessState.ExitCode()
	r.Signal = signalOf(cmd.ProcessState)
	r.Output, r.Omitted, err = tail(out)
	return r, err
}

// environ is what the command finds, later values replacing earlier ones.
func (t Task) environ(account *user.User, more []string) []string {
	env := []string{"SHELL=/bin/sh", "PATH=/usr/bin:/bin", "HOME=" + account.HomeDir}
	env = append(env, t.Env...)
	return append(append(env, "LOGNAME="+account.Username), more...)
}

func valueOf(name string, env []string) string {
	for _, one := range slices.Backward(env) {
		if value, found := strings.CutPrefix(one, name+"="); found {
			return value
		}
	}
	return ""
}

// tail reads the end of the output.
func tail(out *os.File) (text string, omitted int64, err error) {
	size, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return "", 0, err
	}
	omitted = max(0, size-maxOutput)
	data := make([]byte, size-omitted)
	n, err := out.ReadAt(data, omitted)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", 0, err
	}
	return string(bytes.ToValidUTF8(data[:n], []byte("\uFFFD"))), omitted, nil
}

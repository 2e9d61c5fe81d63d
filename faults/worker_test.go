package faults_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/knobs"
	"github.com/carillon-go/carillon/internal/proctest"
	"github.com/carillon-go/carillon/internal/verify"
)

// roles are what processes of this package can be; see [proctest.Main].
var roles = map[string]proctest.Role{
	"worker": proctest.With(runWorker),
	"player": proctest.With(runPlayer),
}

// workerArgs tell a worker process who it is.
type workerArgs struct {
	Addr, Namespace string
	Ledger          string // directory
	Register        string // address, for the jobs that write there
	Segments        int
	Lease           time.Duration
	Concurrency     int
	ShutdownTimeout time.Duration
	Skew            time.Duration // of its wall clock
	Think           time.Duration // between reading and writing a register
	Lock            bool          // whoever counts takes a Lock as well
	Freeze          int           // it freezes for a while before each n-th step of schedules; 0: never
	Patience        time.Duration // for a reply; 0: that of go-redis
}

// runWorker is a worker process: an instance with the handlers of [clerk]. On
// SIGTERM it drains, on a second one it hurries.
func runWorker(args workerArgs) error {
	logging.Disable()
	if err := skewWallClock(args.Skew); err != nil {
		return err
	}
	ledger, err := proctest.OpenLedger(args.Ledger)
	if err != nil {
		return err
	}
	asked := make(chan os.Signal, 2)
	signal.Notify(asked, syscall.SIGTERM)

	c := &clerk{args: args, ledger: ledger}
	if args.Register != "" {
		if c.register, err = verify.DialRegister(args.Register); err != nil {
			return err
		}
	}
	rdb := redis.NewClient(&redis.Options{Addr: args.Addr, ReadTimeout: args.Patience, DialTimeout: args.Patience})
	late := &latecomer{hold: c.freeze, told: c.cameLate}
	knobs.Hook(rdb, &c.assassin, late)
	keep := carillon.Keep{Count: 10_000_000}
	config := carillon.Config{
		Namespace: args.Namespace, Segments: args.Segments, LeaseTTL: args.Lease, Concurrency: args.Concurrency, ShutdownTimeout: args.ShutdownTimeout,
		Logger:    slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Retry:     carillon.Retry{MaxAttempts: 100, Delays: []time.Duration{20 * time.Millisecond}},
		Retention: carillon.Retention{Succeeded: keep, Failed: keep, Cancelled: keep, Expired: keep},
	}
	if c.scheduler, err = carillon.New(rdb, config); err != nil {
		return err
	}
	for name, h := range c.handlers() {
		if err := c.scheduler.Handle(name, c.noted(h)); err != nil {
			return err
		}
	}
	if err := c.scheduler.Start(context.Background()); err != nil {
		return err
	}
	if err := ledger.Add(proctest.Line{Event: "up"}); err != nil {
		return err
	}

	<-asked
	if err := ledger.Add(proctest.Line{Event: "asked"}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	go func() {
		<-asked
		cancel()
	}()
	err = c.scheduler.Shutdown(ctx)
	return errors.Join(err, ledger.Add(proctest.Line{Event: "down"}))
}

// clerk is a worker that writes down what it does.
type clerk struct {
	args      workerArgs
	ledger    *proctest.Ledger
	register  *verify.RegisterClient
	scheduler *carillon.Scheduler
	assassin  assassin
	steps     steps
}

func (c *clerk) add(x *carillon.Execution, event, note string) {
	line := proctest.Line{Event: event, Job: x.ID, Attempt: x.Attempt, Token: x.Token, Note: note}
	if err := c.ledger.Add(line); err != nil {
		panic(err) // without a ledger nothing can be proved
	}
}

func (c *clerk) noted(next carillon.HandlerFunc) carillon.HandlerFunc {
	return func(ctx context.Context, x *carillon.Execution) (err error) {
		c.add(x, "start", "")
		stop := context.AfterFunc(ctx, func() { c.add(x, "stopped", context.Cause(ctx).Error()) })
		defer func() {
			stop()
			c.add(x, "return", fmt.Sprint(err))
		}()
		return next(ctx, x)
	}
}

// gateName is the file that lets handlers go on which wait for it.
const gateName = "open"

// gate waits until the test opens it, or ctx ends.
func (c *clerk) gate(ctx context.Context) error {
	for {
		if _, err := os.Stat(filepath.Join(c.args.Ledger, gateName)); err == nil {
			return nil
		}
		if err := wait(ctx, 2*time.Millisecond); err != nil {
			return context.Cause(ctx)
		}
	}
}

func (c *clerk) handlers() handlers {
	return handlers{
		"work": work,
		"nap":  func(ctx context.Context, _ *carillon.Execution) error { return wait(ctx, 300*time.Millisecond) },
		"hold": func(ctx context.Context, _ *carillon.Execution) error { return c.gate(ctx) },
		"deaf": func(ctx context.Context, _ *carillon.Execution) error { return c.gate(context.WithoutCancel(ctx)) },
		"exit": func(context.Context, *carillon.Execution) error {
			os.Exit(3)
			return nil
		},
		"fatal": func(context.Context, *carillon.Execution) error { // what recover cannot catch
			new(sync.Mutex).Unlock()
			return nil
		},
		"die before": func(_ context.Context, x *carillon.Execution) error { return c.assassin.hire(x, false) },
		"die after":  func(_ context.Context, x *carillon.Execution) error { return c.assassin.hire(x, true) },
		"effect":     c.effect,
		"spawn":      c.spawn,
		"count":      c.count,
		"follow":     follow,
	}
}

// effect is a handler that is past the point of looking at its context: it
// writes to the register whatever happened meanwhile, and claims success. When
// it hears that it is not the current attempt, it lasts until its context ends.
func (c *clerk) effect(ctx context.Context, x *carillon.Execution) error {
	deaf := context.WithoutCancel(ctx)
	if err := c.gate(deaf); err != nil {
		return err
	}
	ok, err := c.register.Write(x.ID, x.Token, os.Getpid())
	if err != nil {
		return err
	}
	c.add(x, "effect", fmt.Sprint(ok))
	err = x.Progress(deaf, 1)
	c.add(x, "progress", fmt.Sprint(err))
	if err != nil {
		<-ctx.Done()
	}
	return nil
}

// count adds one to two registers, of which one is fenced: read, think, write.
func (c *clerk) count(ctx context.Context, x *carillon.Execution) error {
	ctx = context.WithoutCancel(ctx) // a check here could fall before the pause as well
	token := x.MutexToken
	if c.args.Lock {
		lease, err := c.scheduler.Lock(ctx, "count")
		if err != nil {
			return err
		}
		defer func() { _ = lease.Release(ctx) }() // it may be lost
		token = lease.Token()
	}
	bare, _, err := c.register.Read("unfenced", 0)
	if err != nil {
		return err
	}
	safe, current, err := c.register.Read("fenced", token)
	if err != nil {
		return err
	}
	if err := wait(ctx, c.args.Think); err != nil {
		return err
	}
	if _, err = c.register.Write("unfenced", 0, bare+1); err == nil && current {
		_, err = c.register.Write("fenced", token, safe+1)
	}
	return err
}

// assassin is a hook that kills its own process at the settlement of one job.
type assassin struct {
	victim string
	after  bool // once Redis has executed the settlement, before anybody reads the reply
}

// hire is called by the handler of the victim, which runs alone.
func (a *assassin) hire(x *carillon.Execution, after bool) error {
	if x.Attempt == 1 {
		a.victim, a.after = x.ID, after
	}
	return nil
}

// settles tells whether a command is the settlement of the victim: nothing else
// mentions a job that is running.
func (a *assassin) settles(cmd redis.Cmder) bool {
	if a.victim == "" || !strings.HasPrefix(cmd.Name(), "eval") {
		return false
	}
	for _, arg := range cmd.Args() {
		if s, ok := arg.(string); ok && strings.Contains(s, a.victim) {
			return true
		}
	}
	return false
}

// ProcessHook stands between the client and Redis.
func (a *assassin) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !a.settles(cmd) {
			return next(ctx, cmd)
		}
		if a.after {
			if err := next(ctx, cmd); err != nil {
				return err // not executed: a script that has to be loaded first
			}
		}
		return killSelf()
	}
}

// killSelf ends the process as kill -9 does, and does not return.
func killSelf() error {
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Kill()
	}
	select {}
}

// ProcessPipelineHook lets pipelines pass: one outcome is not sent in one.
func (a *assassin) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// DialHook lets connections be made.
func (a *assassin) DialHook(next redis.DialHook) redis.DialHook { return next }

package faults_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/redis/go-redis/v9"

	"github.com/carillon-go/carillon/internal/proctest"
)

// latecomer is a hook that is held up between deciding what schedules do and
// telling Redis, so that others are faster.
type latecomer struct {
	hold func() (held bool)
	told func(refused bool) // what became of a step that was held
}

// DialHook lets connections be made.
func (l *latecomer) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook stands around each single command.
func (l *latecomer) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !fires(cmd) || !l.hold() {
			return next(ctx, cmd)
		}
		err := next(ctx, cmd)
		if c, ok := cmd.(*redis.Cmd); ok && err == nil {
			l.hear(c.Val())
		}
		return err
	}
}

// ProcessPipelineHook lets pipelines pass: few schedules travel in none.
func (l *latecomer) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// hear reads what the script answered to each turn.
func (l *latecomer) hear(reply any) {
	turns, _ := reply.([]any)
	for _, turn := range turns {
		if answers, _ := turn.([]any); len(answers) > 0 {
			l.told(answers[0] == "-")
		}
	}
}

// fires tells whether a command is the script that takes turns of schedules, by
// the keys that only it begins with.
func fires(cmd redis.Cmder) bool {
	args := cmd.Args()
	ends := func(i int, with string) bool { return strings.HasSuffix(fmt.Sprint(args[i]), with) }
	return strings.HasPrefix(cmd.Name(), "eval") && len(args) > 8 && ends(3, ":due") && ends(7, ":relay") && ends(8, ":plan")
}

// steps counts what a worker was about to do with schedules.
type steps struct{ n atomic.Int64 }

// freeze stops this process at each n-th step as a stalled machine would, until
// somebody wakes it.
func (c *clerk) freeze() bool {
	if n := c.steps.n.Add(1); c.args.Freeze == 0 || n%int64(c.args.Freeze) != 0 {
		return false
	}
	if err := c.ledger.Add(proctest.Line{Event: "freezing"}); err != nil {
		panic(err) // without a ledger nothing can be proved
	}
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Signal(syscall.SIGSTOP)
	}
	_ = wait(context.Background(), c.args.Lease/2) // the signal takes a moment
	return true
}

// cameLate notes what became of a step after freeze.
func (c *clerk) cameLate(refused bool) {
	if err := c.ledger.Add(proctest.Line{Event: "came late", Note: fmt.Sprint(refused)}); err != nil {
		panic(err)
	}
}

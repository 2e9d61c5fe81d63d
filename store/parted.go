package store

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"
)

// parted sends every node of a Cluster its part of a pipeline, and what a node
// redirects once more, alone. go-redis does the first, but where slots move it
// repeats commands that were executed, and works on one in two goroutines.
type parted struct{ cluster *redis.ClusterClient }

// once marks the context of commands that must not be executed twice. A Cluster's client
// sends any command again when a connection breaks, also without retries.
type once struct{}

func sentOnce(ctx context.Context) context.Context { return context.WithValue(ctx, once{}, true) }

// DialHook changes nothing.
func (parted) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook sends what is marked with once to its node by itself.
func (p parted) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if ctx.Value(once{}) == nil {
			return next(ctx, cmd)
		}
		node, err := p.cluster.MasterForKey(ctx, keyOf(cmd))
		if err != nil {
			cmd.SetErr(err)
			return err
		}
		if err = node.Process(ctx, cmd); elsewhere(err) { // so it was not executed
			err = next(ctx, cmd)
		}
		return err
	}
}

// ProcessPipelineHook takes the place of what it stands before.
func (p parted) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		parts := make(map[*redis.Client][]redis.Cmder)
		for _, cmd := range cmds {
			node, err := p.cluster.MasterForKey(ctx, keyOf(cmd))
			if err != nil {
				cmd.SetErr(err)
				continue
			}
			parts[node] = append(parts[node], cmd)
		}
		var nodes sync.WaitGroup
		for node, part := range parts {
			nodes.Go(func() { p.send(ctx, node, part) })
		}
		nodes.Wait()
		var first error
		for _, cmd := range cmds {
			if err := cmd.Err(); err != nil && first == nil {
				first = err
			}
		}
		return first
	}
}

// send tries again where a connection broke, for a pool can be full of those that
// are dead. Whatever comes in a pipeline may be executed twice, but what is marked with once.
func (p parted) send(ctx context.Context, node *redis.Client, part []redis.Cmder) {
	limit := tries
	if ctx.Value(once{}) != nil {
		limit = 1
	}
	for range limit {
		_, _ = node.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for _, cmd := range part {
				_ = pipe.Process(ctx, cmd) // it is only noted
			}
			return nil
		})
		var broken []redis.Cmder
		for _, cmd := range part {
			switch err := cmd.Err(); {
			case err == nil:
			case elsewhere(err):
				_ = p.cluster.Process(ctx, cmd) // its error is the command's
			case broke(err):
				broken = append(broken, cmd)
			}
		}
		if part = broken; len(part) == 0 || ctx.Err() != nil {
			return
		}
	}
}

// broke tells a connection that ended from one that is silent.
func broke(err error) bool {
	var silent net.Error
	return judge(err) == unknown && (!errors.As(err, &silent) || !silent.Timeout())
}

// keyOf returns the first key of a command. Of one that has it somewhere else
// it returns another word, and the wrong node says which is the right one.
func keyOf(cmd redis.Cmder) string {
	at := 1
	switch cmd.Name() {
	case "eval", "evalsha":
		at = 3
	case "xinfo", "xgroup":
		at = 2
	case "xreadgroup":
		at = 1 + slices.IndexFunc(cmd.Args(), func(arg any) bool { return arg == "streams" })
	}
	if args := cmd.Args(); at < len(args) {
		key, _ := args[at].(string)
		return key
	}
	return ""
}

// Package faulthook breaks one chosen command of a client. A scenario that
// sends n commands is repeated n times for each [Fault], and each time another
// command is the one that fails, so that every point at which a process or a
// connection can die is tried.
//
//	count := &faulthook.Hook{}
//	knobs.Hook(client, count) // for every connection a Scheduler makes from client
//	... the scenario ...
//	for k := 1; k <= count.Count(); k++ {
//		h := &faulthook.Hook{At: k, Fault: faulthook.After}
//		...
//	}
//
// It sees commands, not bytes: what a network does is the matter of faultnet.
package faulthook

import (
	"context"
	"crypto/sha1" //nolint:gosec // the name Redis gives a script, not a secret
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// Fault is what happens at the chosen command.
type Fault int

// Before answers io.EOF and sends nothing, After sends, and answers io.EOF instead
// of the reply. KillBefore and KillAfter call Hook.Kill at these moments; if it
// returns, the command goes on as if nothing had been.
const (
	Before Fault = iota
	After
	KillBefore
	KillAfter
)

// String names the fault as tests print it.
func (f Fault) String() string {
	return [...]string{"before", "after", "killed before", "killed after"}[f]
}

// Hook is a go-redis hook. Its fields are set before it is used.
type Hook struct {
	At    int // the command at which the fault happens, from 1; with 0 there is none
	Fault Fault
	Match func(words []string) bool // which commands count; nil: all
	Kill  func()                    // nil: SIGKILL to this process

	mu    sync.Mutex
	count int
	fired string
}

var _ redis.Hook = (*Hook)(nil)

// Count returns how many commands counted so far. A pipeline is one, and counts
// when any of its commands does. What go-redis sends to set up a connection does
// not count, for how many it opens is no part of a scenario.
func (h *Hook) Count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count
}

// Fired returns the command at which the fault happened, shortened, and "" as
// long as it did not.
func (h *Hook) Fired() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fired
}

// DialHook lets connections be made.
func (h *Hook) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook stands around each single command.
func (h *Hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return h.around([]redis.Cmder{cmd}, func() error { return next(ctx, cmd) })
	}
}

// ProcessPipelineHook stands around each pipeline and transaction.
func (h *Hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		return h.around(cmds, func() error { return next(ctx, cmds) })
	}
}

// around sends commands by next, unless they are where the fault happens.
func (h *Hook) around(cmds []redis.Cmder, next func() error) error {
	if !h.hit(cmds) {
		return next()
	}
	var err error
	switch h.Fault {
	case Before:
		err = io.EOF
	case After:
		_ = next()
		err = io.EOF
	case KillBefore:
		h.kill()
		return next()
	case KillAfter:
		err = next()
		h.kill()
		return err
	}
	for _, cmd := range cmds {
		cmd.SetErr(err)
	}
	return err
}

// hit counts, and reports whether this is the command.
func (h *Hook) hit(cmds []redis.Cmder) bool {
	all := make([][]string, len(cmds))
	for i, cmd := range cmds {
		all[i] = words(cmd)
	}
	if !slices.ContainsFunc(all, h.counts) {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count++
	if h.count != h.At {
		return false
	}
	h.fired = describe(all)
	return true
}

func (h *Hook) counts(words []string) bool {
	switch words[0] {
	case "hello", "auth", "select", "client", "readonly":
		return false
	}
	return h.Match == nil || h.Match(words)
}

func (h *Hook) kill() {
	if h.Kill != nil {
		h.Kill()
		return
	}
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		_ = p.Kill()
	}
	select {} // not one step further
}

// scripts maps digests to names, as far as texts were seen in this process.
var scripts sync.Map

// words returns the words of a command, its name in lower case. A script is
// called by its name, as its header has it, if its text was ever sent from this
// process (a server that just started does not know it by its digest), else by
// its digest.
func words(cmd redis.Cmder) []string {
	args := cmd.Args()
	words := make([]string, len(args), max(len(args), 1))
	for i, a := range args {
		if b, ok := a.([]byte); ok {
			a = string(b)
		}
		words[i] = fmt.Sprint(a)
	}
	if len(words) == 0 {
		return []string{""}
	}
	words[0] = strings.ToLower(words[0])
	if len(words) < 2 {
		return words
	}
	switch words[0] {
	case "eval":
		sum := sha1.Sum([]byte(words[1])) //nolint:gosec // see the import
		digest := hex.EncodeToString(sum[:])
		if name, ok := scriptName(words[1]); ok {
			scripts.Store(digest, name)
		}
		words[1] = digest
		fallthrough
	case "evalsha":
		if name, ok := scripts.Load(words[1]); ok {
			words[1] = name.(string) //nolint:errcheck,forcetypeassert // only strings are stored
		}
	}
	return words
}

// scriptName returns the first word of a script's header, which are the lines of
// comment before its keys.
func scriptName(text string) (name string, ok bool) {
	above, _, keys := strings.Cut(text, "\n-- KEYS:")
	lines := strings.Split(above, "\n")
	for _, line := range slices.Backward(lines) {
		header, isComment := strings.CutPrefix(line, "-- ")
		if !isComment {
			break
		}
		name, _, _ = strings.Cut(header, " ")
		ok = keys
	}
	return name, ok
}

// describe shortens commands to what a message needs.
func describe(all [][]string) string {
	var lines []string
	for _, words := range all[:min(len(all), 4)] {
		var short []string
		for _, w := range words[:min(len(words), 5)] {
			if len(w) > 60 {
				w = w[:60] + "…"
			}
			short = append(short, w)
		}
		lines = append(lines, strings.Join(short, " "))
	}
	if n := len(all) - len(lines); n > 0 {
		lines = append(lines, fmt.Sprintf("%d more", n))
	}
	return strings.Join(lines, "; ")
}

package store

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/redistest"
)

// hook is called around every command that the store sends by itself or in a
// pipeline; next executes it.
type hook struct {
	process func(ctx context.Context, cmd redis.Cmder, next func(redis.Cmder) error) error
}

func (h hook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return h.process(ctx, cmd, func(c redis.Cmder) error { return next(ctx, c) })
	}
}

func (h hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		var first error
		for _, cmd := range cmds {
			err := h.process(ctx, cmd, func(c redis.Cmder) error {
				err := next(ctx, []redis.Cmder{c})
				return err
			})
			if err != nil {
				cmd.SetErr(err)
				if first == nil {
					first = err
				}
			}
		}
		return first
	}
}

func isScript(cmd redis.Cmder) bool { return cmd.Name() == "evalsha" || cmd.Name() == "eval" }

// scriptOf finds the script a command runs.
func scriptOf(cmd redis.Cmder) string {
	what, _ := cmd.Args()[1].(string)
	for _, s := range allScripts() {
		if s.sha == what || s.text == what {
			return s.name
		}
	}
	return ""
}

var allScripts = sync.OnceValue(func() []*script {
	files, err := fs.Glob(luaFiles, "lua/*.lua")
	if err != nil {
		panic(err)
	}
	var all []*script
	for _, f := range files {
		all = append(all, mustScript(strings.TrimSuffix(strings.TrimPrefix(f, "lua/"), ".lua")))
	}
	return all
})

// again repeats a command and leaves the second reply in it.
func again(cmd redis.Cmder, next func(redis.Cmder) error) error {
	repeated := redis.NewCmd(context.Background(), cmd.Args()...)
	err := next(repeated)
	if c, ok := cmd.(*redis.Cmd); ok {
		c.SetVal(repeated.Val())
		c.SetErr(err)
	}
	return err
}

func TestActs(t *testing.T) {
	rdb := redistest.Shared(t).Client(t)
	var mu sync.Mutex
	seen := map[string]bool{}
	note := hook{func(_ context.Context, cmd redis.Cmder, next func(redis.Cmder) error) error {
		if isScript(cmd) {
			mu.Lock()
			seen[scriptOf(cmd)] = true
			mu.Unlock()
		}
		return next(cmd)
	}}
	left := played(t, rdb, []any{note}, false)
	if !t.Failed() {
		for _, s := range allScripts() {
			assert.True(t, seen[s.name], "no act runs %s", s.name)
		}
	}

	t.Run("in memory", func(t *testing.T) {
		_, rdb := inMemory(t, Options{})
		played(t, rdb, nil, false)
	})

	t.Run("without any script in the cache", func(t *testing.T) {
		flush := hook{func(ctx context.Context, cmd redis.Cmder, next func(redis.Cmder) error) error {
			if cmd.Name() == "evalsha" {
				require.NoError(t, rdb.ScriptFlush(ctx).Err())
			}
			return next(cmd)
		}}
		same(t, left, played(t, rdb, []any{flush}, false))
	})

	t.Run("executed twice", func(t *testing.T) {
		twice := hook{func(_ context.Context, cmd redis.Cmder, next func(redis.Cmder) error) error {
			err := next(cmd)
			if err != nil || !isScript(cmd) || scriptOf(cmd) == "fetch" {
				return err
			}
			return again(cmd, next)
		}}
		same(t, left, played(t, rdb, []any{twice}, true))
	})

	t.Run("each first reply lost", func(t *testing.T) {
		var mu sync.Mutex
		lost := 0
		lossy := hook{func(_ context.Context, cmd redis.Cmder, next func(redis.Cmder) error) error {
			err := next(cmd)
			if err != nil || !isScript(cmd) || scriptOf(cmd) == "fetch" {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if lost++; lost%2 == 1 {
				return io.EOF
			}
			return nil
		}}
		same(t, left, played(t, rdb, []any{lossy}, true))
	})

	t.Run("with access to the declared keys only", func(t *testing.T) {
		const user = "declared"
		require.NoError(t, rdb.ACLSetUser(t.Context(), user, "on", "nopass", "+@all", "allchannels", "allkeys").Err())
		t.Cleanup(func() { rdb.ACLDelUser(context.Background(), user) })
		opts := *rdb.Options()
		opts.Username, opts.Password = user, "any"
		limited := redis.NewClient(&opts)
		t.Cleanup(func() { limited.Close() })
		var mu sync.Mutex // one command at a time, or the rules would mix
		only := hook{func(ctx context.Context, cmd redis.Cmder, next func(redis.Cmder) error) error {
			if !isScript(cmd) {
				return next(cmd)
			}
			mu.Lock()
			defer mu.Unlock()
			rules := []string{"resetkeys"}
			n, _ := cmd.Args()[2].(int)
			for _, key := range cmd.Args()[3 : 3+n] {
				rules = append(rules, fmt.Sprint("~", key))
			}
			require.NoError(t, rdb.ACLSetUser(ctx, user, rules...).Err())
			defer rdb.ACLSetUser(context.WithoutCancel(ctx), user, "allkeys")
			return next(cmd)
		}}
		same(t, left, playedBy(t, rdb, limited, []any{only}, false))
	})
}

var (
	luaCall    = regexp.MustCompile(`\b(?:redis\.pcall|redis\.call|call|try)\(`)
	luaComment = regexp.MustCompile(`--.*`)
	// A key comes from KEYS: directly, by the cursor key(), or from a list of such.
	luaKey = regexp.MustCompile(`^(unpack\(KEYS,[^)]+\)|KEYS\[[^\]]+\]|[a-z_]+(\.[a-z]+)?|streams\[index\])$`)
)

// In these the key is not the first argument.
var beforeKey = map[string]string{"XINFO": "'STREAM' 'GROUPS'", "XGROUP": "'CREATE' 'DELCONSUMER'", "XREADGROUP": "'STREAMS'"}

func TestScriptsTouchDeclaredKeysOnly(t *testing.T) {
	for _, s := range allScripts() {
		text := luaComment.ReplaceAllString(s.text, "")
		for _, at := range luaCall.FindAllStringIndex(text, -1) {
			args := splitArgs(text[at[1]:])
			command := strings.Trim(args[0], `'`)
			if command == "TIME" || command == "PUBLISH" {
				continue
			}
			key := 1
			if words := beforeKey[command]; words != "" {
				key = 1 + slices.IndexFunc(args, func(a string) bool { return a != "" && strings.Contains(words, a) })
			}
			require.Greater(t, len(args), key, "%s: %v", s.name, args)
			assert.Regexp(t, luaKey, args[key], "%s: %v", s.name, args)
		}
	}
}

// splitArgs reads arguments up to the bracket that ends the call.
func splitArgs(s string) []string {
	var args []string
	depth, from := 0, 0
	for i, c := range s {
		switch c {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			if depth--; depth < 0 {
				return append(args, strings.TrimSpace(s[from:i]))
			}
		case ',':
			if depth == 0 {
				args = append(args, strings.TrimSpace(s[from:i]))
				from = i + 1
			}
		}
	}
	return args
}

func TestScriptHeaders(t *testing.T) {
	declared := map[string]bool{}
	for _, s := range allScripts() {
		for _, word := range []string{"-- KEYS:", "-- ARGV:", "-- Returns:", "-- Idempotent:", "-- Memory:"} {
			assert.Contains(t, s.text, word, s.name)
		}
		assert.Contains(t, s.text, "-- "+s.name+" ", "the header says what it does")
		assert.NotContains(t, s.text, "..  '{'")
		assert.False(t, declared[s.sha], "two scripts are the same")
		declared[s.sha] = true
	}
}

func TestNothingToSettle(t *testing.T) {
	s, _ := inMemory(t, Options{})
	cancelled, errs := s.Settle(t.Context(), "worker", nil)
	assert.Empty(t, cancelled)
	assert.Empty(t, errs)
}

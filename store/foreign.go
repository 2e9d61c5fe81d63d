package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// kinds are the types of our keys, by the first part of their names.
var kinds = map[string]string{
	"meta": "hash", "j": "hash", "m": "hash", "s": "hash", "cancels": "hash", "awaited": "hash", "inst": "hash", "relay": "hash", "taken": "hash",
	"sv": "hash", "gm": "hash", "cal": "hash",
	"q": "stream", "h": "stream", "ev": "stream",
	"due": "zset", "wait": "zset", "grant": "zset", "tend": "zset", "workers": "zset", "plan": "zset", "own": "zset", "sl": "zset",
	"t": "set", "queues": "set", "paused": "set", "sg": "set", "cu": "set",
	"u": "string", "l": "string", "k": "string", "kt": "string",
}

// named adds to the error of a script which of its keys has a foreign type.
// Redis does not tell.
func (s *Store) named(ctx context.Context, err error, keys []string) error {
	if !hasReply(err, "WRONGTYPE") {
		return err
	}
	if key := s.foreignAmong(ctx, keys); key != "" {
		return fmt.Errorf("%s: %w", key, err)
	}
	return err
}

// foreignAmong describes the first key whose type is foreign.
func (s *Store) foreignAmong(ctx context.Context, keys []string) string {
	rdb, err := s.client()
	if err != nil {
		return ""
	}
	types, _, err := within(ctx, func() ([]redis.Cmder, error) {
		return rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, key := range keys {
				p.Type(ctx, key)
			}
			return nil
		})
	})
	if err != nil {
		return ""
	}
	for i, key := range keys {
		cmd, _ := types[i].(*redis.StatusCmd)
		_, name, _ := strings.Cut(key, "}:")
		kind, _, _ := strings.Cut(name, ":")
		if want := kinds[kind]; want != "" && cmd != nil && cmd.Val() != "none" && cmd.Val() != want {
			return fmt.Sprintf("key %s is a %s, not a %s", clip(key, 200), cmd.Val(), want)
		}
	}
	return ""
}

// nameKey adds the key to the error of a command that found a foreign type.
func nameKey(cmd redis.Cmder, err error) error {
	if !hasReply(err, "WRONGTYPE") || strings.HasPrefix(cmd.Name(), "eval") || strings.HasPrefix(cmd.Name(), "xread") || len(cmd.Args()) < 2 {
		return err
	}
	err = fmt.Errorf("key %s: %w", clip(keyOf(cmd), 200), err)
	cmd.SetErr(err)
	return err
}

// passedOver logs, once, that a structure is foreign or damaged. What needs it
// rests, and the rest goes on.
func (s *Store) passedOver(err error) error {
	if errors.Is(err, ErrDamaged) {
		s.reportDamage("", err)
		return nil
	}
	return err
}

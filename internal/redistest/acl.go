package redistest

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/carillon-go/carillon/internal/knobs"
)

// Grants are the commands that Carillon's user needs, and no others. It is the
// only list: docs/operations.md is written from it, and every server of this
// package has a user with exactly these rights, as whom Limited connects.
var Grants = []string{
	// connections (a name when the client has one, SELECT for another database than 0), hints, scripts
	"ping", "client|setname", "select", "publish", "subscribe", "unsubscribe", "eval", "evalsha", "time",
	// keys and strings
	"get", "set", "del", "exists", "type", "pttl", "pexpire", "pexpireat", "persist",
	// hashes
	"hget", "hmget", "hgetall", "hkeys", "hset", "hsetnx", "hstrlen", "hincrby", "hdel",
	// sets
	"sadd", "srem", "scard", "smembers", "sscan",
	// sorted sets
	"zadd", "zrem", "zscore", "zmscore", "zcard", "zrange", "zrangebyscore", "zrangebylex", "zremrangebyrank",
	// streams
	"xadd", "xdel", "xlen", "xrange", "xrevrange", "xread", "xreadgroup", "xack", "xpending", "xtrim",
	"xgroup|create", "xgroup|delconsumer", "xinfo|consumers", "xinfo|stream", "xinfo|groups",
	// Config.WaitReplicas
	"wait",
	// the audit, when somebody else had a hand in the streams
	"scan",
	// checks at start
	"info", "config|get",
	// Redis Cluster
	"cluster|slots", "command",
}

// limitedUser has the Grants, on the keys and channels of this binary's
// namespaces, on every server.
const limitedUser = "carillon"

// Rules returns the rules of an ACL with the Grants and with the keys and
// channels of the namespaces that match pattern.
func Rules(pattern string) string {
	return fmt.Sprintf("~{%s:* resetchannels &{%s:* +%s", pattern, pattern, strings.Join(Grants, " +"))
}

// limitedLine makes the user as a line of redis.conf, so that it is there again
// after a restart.
func limitedLine() string {
	return "user " + limitedUser + " on nopass " + Rules(namespaces.prefix+"*")
}

// Limited returns a client like rdb, with its hooks, that may do what Carillon
// documents to need and nothing else. What a server denies to such clients
// makes the test binary fail. A client of the embedded Redis, or one that has a
// user already, is returned as it is.
func Limited(t testing.TB, rdb redis.UniversalClient) redis.UniversalClient {
	t.Helper()
	var out redis.UniversalClient
	// Options that were read back say 0 for what is switched off.
	switch c := rdb.(type) {
	case *redis.Client:
		o := *c.Options()
		if o.Username != "" || o.Addr == "embedded" {
			return rdb
		}
		o.Username, o.Password = limitedUser, "any"
		o.ReadTimeout, o.WriteTimeout, o.MaxRetries = cmp.Or(o.ReadTimeout, -1), cmp.Or(o.WriteTimeout, -1), cmp.Or(o.MaxRetries, -1)
		out = redis.NewClient(&o)
	case *redis.ClusterClient:
		o := *c.Options()
		o.Username, o.Password = limitedUser, "any"
		o.ReadTimeout, o.WriteTimeout, o.MaxRedirects = cmp.Or(o.ReadTimeout, -1), cmp.Or(o.WriteTimeout, -1), cmp.Or(o.MaxRedirects, -1)
		out = redis.NewClusterClient(&o)
	default:
		t.Fatalf("no limited client for %T", rdb)
	}
	knobs.Hook(out, knobs.HooksOf(rdb)...)
	t.Cleanup(func() { _ = out.Close() })
	return out
}

// denials are what servers denied to limited clients.
var denials struct {
	sync.Mutex
	all []string
}

// noteDenials asks a server that is about to stop.
func (s *Server) noteDenials() {
	if s.process().Exited() {
		return
	}
	denied, err := s.denied()
	if err != nil {
		return // it is frozen, or a sentinel
	}
	denials.Lock()
	defer denials.Unlock()
	denials.all = append(denials.all, denied...)
}

// denied lists what the ACL LOG says of limited clients.
func (s *Server) denied() ([]string, error) {
	var out []string
	err := s.ask(func(ctx context.Context, c *redis.Client) error {
		entries, err := c.ACLLog(ctx, 1000).Result()
		for _, e := range entries {
			if e.Username == limitedUser {
				out = append(out, fmt.Sprintf("%s %s (%s), %d times", e.Reason, e.Object, e.Context, e.Count))
			}
		}
		return err
	})
	return out, err
}

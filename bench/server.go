package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/carillon-go/carillon/internal/proctest"
)

// redisServer is a redis-server of a trial. It persists nothing unless its
// configuration says so.
type redisServer struct {
	addr string
	rdb  *redis.Client // to ask it, not for load
	proc *proctest.Process
	dir  string
}

func startRedis(ctx context.Context, conf ...string) (*redisServer, error) {
	dir, err := os.MkdirTemp("", "bench-redis-")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	lines := append([]string{
		"bind 127.0.0.1", fmt.Sprintf("port %d", port), fmt.Sprintf("dir %q", dir), `save ""`, "appendonly no", "maxclients 20000",
	}, conf...)
	file := filepath.Join(dir, "redis.conf")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return nil, err
	}
	s := &redisServer{addr: fmt.Sprintf("127.0.0.1:%d", port), dir: dir}
	if s.proc, err = proctest.Launch(exec.Command("redis-server", file), filepath.Join(dir, "log")); err != nil { //nolint:gosec,noctx // a path that was made here; it lives until it is stopped
		return nil, err
	}
	if err := s.answering(ctx); err != nil {
		defer s.stop()
		return nil, fmt.Errorf("redis-server: %w\n%s", err, s.proc.Log())
	}
	s.rdb = redis.NewClient(clientOptions(s.addr))
	return s, s.rdb.Ping(ctx).Err()
}

// answering waits until the server takes connections.
func (s *redisServer) answering(ctx context.Context) error {
	return poll(ctx, 20*time.Second, func() error {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", s.addr)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

func (s *redisServer) stop() {
	if s.rdb != nil {
		_ = s.rdb.Close()
	}
	s.proc.Kill()
	_ = os.RemoveAll(s.dir)
}

// poll calls f until it succeeds, and returns its last error after a while.
func poll(ctx context.Context, patience time.Duration, f func() error) error {
	for deadline := time.Now().Add(patience); ; {
		err := f()
		if err == nil || time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		<-time.After(10 * time.Millisecond)
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed at once
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil //nolint:errcheck // of a TCP listener it is one
}

func clientOptions(addr string) *redis.Options {
	return &redis.Options{
		Addr: addr, PoolSize: 256,
		// They are of managed services, and cost a command for each connection.
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// redisClient is a client of the one server or of the cluster.
func redisClient(at place) redis.UniversalClient {
	if !at.cluster {
		return redis.NewClient(clientOptions(at.redis[0]))
	}
	return redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: at.redis, MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
}

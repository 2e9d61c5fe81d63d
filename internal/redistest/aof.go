package redistest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// AOFSize returns the length of the append-only file, of the part to which the
// server appends. There is none unless conf says "appendonly yes".
func (s *Server) AOFSize(t testing.TB) int64 {
	t.Helper()
	_, size := s.aof(t)
	return size
}

// CutAOF takes the last n bytes off the append-only file of a dead server, as
// when power fails before they are on disk. Restart loads what is whole, but
// Redis 7.0 leaves the beginning of a cut script in the file, and the restart
// after that one executes it, unless the file was rewritten between them.
func (s *Server) CutAOF(t testing.TB, n int64) {
	t.Helper()
	if !s.process().Exited() {
		t.Fatalf("cut the append-only file of %s: kill it first", s.addr)
	}
	file, size := s.aof(t)
	if err := os.Truncate(file, max(0, size-n)); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) aof(t testing.TB) (file string, size int64) {
	t.Helper()
	// Since Redis 7 it has several parts, of which the last incremental one grows.
	parts, err := filepath.Glob(filepath.Join(s.dir, "appendonlydir", "*.incr.aof"))
	if err == nil && len(parts) == 0 {
		parts, err = filepath.Glob(filepath.Join(s.dir, "appendonly.aof"))
	}
	if err == nil && len(parts) == 0 {
		err = errors.New("there is no append-only file")
	}
	if err != nil {
		t.Fatalf("%s: %v", s.addr, err)
	}
	file = slices.Max(parts)
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return file, info.Size()
}

// RewriteAOF makes the server write its append-only file anew.
func (s *Server) RewriteAOF(t testing.TB) {
	t.Helper()
	if err := s.ask(func(ctx context.Context, c *redis.Client) error {
		return c.BgRewriteAOF(ctx).Err()
	}); err != nil {
		t.Fatal(err)
	}
	Wait(t, patience, func() error {
		return s.ask(func(ctx context.Context, c *redis.Client) error {
			info, err := c.Info(ctx, "persistence").Result()
			if err != nil {
				return err
			}
			for _, field := range []string{"aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0", "aof_last_bgrewrite_status:ok"} {
				if !strings.Contains(info, field+"\r\n") {
					return errors.New("not " + field)
				}
			}
			return nil
		})
	})
}

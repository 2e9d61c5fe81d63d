package faults_test

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
)

// noise counts what instances complain about.
type noise struct {
	mu    sync.Mutex
	lines []string
}

func (n *noise) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (n *noise) WithAttrs([]slog.Attr) slog.Handler           { return n }
func (n *noise) WithGroup(string) slog.Handler                { return n }

func (n *noise) Handle(_ context.Context, r slog.Record) error { //nolint:gocritic // the interface's signature
	line := r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, line)
	return nil
}

// heard makes an instance complain here.
func (n *noise) heard(c *carillon.Config) { c.Logger = slog.New(n) }

// of returns the lines that contain a text.
func (n *noise) of(text string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var found []string
	for _, l := range n.lines {
		if strings.Contains(l, text) {
			found = append(found, l)
		}
	}
	return found
}

// line is a network that counts the connections that go through it.
type line struct {
	dials, open atomic.Int64
	delay       time.Duration // of every request
}

// client returns a client whose copies dial through the line.
func (l *line) client(t testing.TB, server *redistest.Server, edit ...func(*redis.Options)) *redis.Client {
	t.Helper()
	o := server.Options()
	var d net.Dialer
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		l.dials.Add(1)
		c, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		l.open.Add(1)
		return &lineConn{Conn: c, line: l}, nil
	}
	for _, f := range edit {
		f(o)
	}
	c := redis.NewClient(o)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// lineConn is one of its connections.
type lineConn struct {
	net.Conn
	line  *line
	ended sync.Once
}

func (c *lineConn) Write(b []byte) (int, error) {
	if c.line.delay > 0 {
		_ = wait(context.Background(), c.line.delay)
	}
	return c.Conn.Write(b)
}

func (c *lineConn) Close() error {
	c.ended.Do(func() { c.line.open.Add(-1) })
	return c.Conn.Close()
}

// often is how many times something is done: more in the full tier.
func often(n int64) int64 {
	if full {
		return 25 * n
	}
	return n
}

// passes waits until so much time has passed, for faults that have to last.
func (w *world) passes(d time.Duration) {
	w.t.Helper()
	require.NoError(w.t, wait(w.t.Context(), d))
}

// once checks that every acknowledged job succeeded by one execution: what
// Redis refused or interrupted was neither done twice nor charged to a job.
func (w *world) once() {
	w.t.Helper()
	for _, id := range w.queue.Acked() {
		info, err := w.get(id)
		require.NoError(w.t, err)
		require.Equal(w.t, carillon.StateSucceeded, info.State, id)
		require.Len(w.t, w.queue.Runs(id), 1, "%s was executed more than once: %+v", id, info.Attempts)
		require.Zero(w.t, info.Failures+info.Losses, "%s was charged: %+v", id, info.Attempts)
	}
}

// stats reads a number from INFO.
func stats(t testing.TB, rdb *redis.Client, section, field string) string {
	t.Helper()
	info, err := rdb.Info(t.Context(), section).Result()
	require.NoError(t, err)
	_, rest, _ := strings.Cut(info, "\n"+field+":")
	value, _, _ := strings.Cut(rest, "\r\n")
	return value
}

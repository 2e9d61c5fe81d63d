package carillon_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// wire is the network between one instance and Redis. A test can cut it, as a
// crash or a partition would, and lose single replies.
type wire struct {
	mu    sync.Mutex
	down  bool
	conns map[*wired]struct{}
	lose  func(sent, reply []byte) fate
}

// fate is what becomes of a reply.
type fate int

const (
	letPass fate = iota
	swallow
	hangUp
)

var errCut = errors.New("the wire is cut")

// wireTo returns a client like rdb whose connections, and those of every
// Scheduler made from it, go through a wire.
func wireTo(t testing.TB, rdb redis.UniversalClient) (redis.UniversalClient, *wire) {
	t.Helper()
	w := &wire{conns: make(map[*wired]struct{})}
	var out redis.UniversalClient
	switch c := rdb.(type) {
	case *redis.Client:
		o := *c.Options()
		o.Dialer = w.dialer(o.Dialer)
		out = redis.NewClient(&o)
	case *redis.ClusterClient:
		o := *c.Options()
		o.Dialer = w.dialer((&net.Dialer{Timeout: 5 * time.Second}).DialContext)
		out = redis.NewClusterClient(&o)
	default:
		t.Fatalf("no wire for %T", rdb)
	}
	t.Cleanup(func() { _ = out.Close() })
	return out, w
}

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

func (w *wire) dialer(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if w.isDown() {
			return nil, &net.OpError{Op: "dial", Net: network, Err: errCut}
		}
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		c := &wired{Conn: conn, wire: w}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.down {
			_ = conn.Close()
			return nil, &net.OpError{Op: "dial", Net: network, Err: errCut}
		}
		w.conns[c] = struct{}{}
		return c, nil
	}
}

func (w *wire) isDown() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.down
}

// cut closes all connections and refuses new ones. To Redis and to the other
// instances the process is gone.
func (w *wire) cut() {
	w.mu.Lock()
	w.down = true
	conns := w.conns
	w.conns = make(map[*wired]struct{})
	w.mu.Unlock()
	for c := range conns {
		_ = c.Conn.Close()
	}
}

// mend ends a cut.
func (w *wire) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = false
}

// onReply decides about every reply from now on; nil lets all of them pass. sent
// is what was last written on the connection.
func (w *wire) onReply(f func(sent, reply []byte) fate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lose = f
}

type wired struct {
	net.Conn
	wire *wire

	mu   sync.Mutex
	sent []byte
}

func (c *wired) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.sent = bytes.Clone(p)
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *wired) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if n == 0 {
			return n, err
		}
		c.wire.mu.Lock()
		lose := c.wire.lose
		c.wire.mu.Unlock()
		if lose == nil {
			return n, err
		}
		c.mu.Lock()
		sent := c.sent
		c.mu.Unlock()
		switch lose(sent, p[:n]) {
		case letPass:
			return n, err
		case hangUp:
			_ = c.Conn.Close()
			return 0, io.EOF
		case swallow:
		}
		if err != nil {
			return 0, err
		}
	}
}

func (c *wired) Close() error {
	c.wire.mu.Lock()
	delete(c.wire.conns, c)
	c.wire.mu.Unlock()
	_ = c.Conn.Close() // it may be closed already, which a user of the wire cannot know
	return nil
}

// has reports whether a command or a reply contains a word, in any case.
func has(b []byte, word string) bool {
	return bytes.Contains(bytes.ToLower(b), []byte(word))
}

// Package faultnet is a network that a test breaks. Connections lead through it
// in two ways: a client of this process dials by [Net.Dialer] (or is made by
// [Net.Client]), another process connects to the address of a [Net.Proxy]. What
// is wrong with the network says [Faults]; [Net.Set] changes it at any time, and
// [Net.Took] tells whether it did anything.
//
//	n := faultnet.New(t, seed)
//	rdb := n.Client(t, server.Client(t))
//	n.Set(faultnet.Faults{Down: true}) // requests arrive, replies do not
//	...
//	n.Set(faultnet.Faults{}) // healed
//
// Like TCP, it never takes bytes out of the middle: a connection that lost some
// in one direction carries nothing more in that direction, also when the fault is
// over. New connections then work.
package faultnet

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Faults is what is wrong with a network. The zero value is a healthy one.
type Faults struct {
	Cut  bool // connections are closed, new ones refused
	Hang bool // new connections are neither made nor refused, until the dialer gives up (not through a proxy)

	Up, Down bool // requests or replies vanish, and so does the end of a connection; nobody is told
	Late     bool // what vanished arrives when Up or Down is over, also if the sender has given up
	HalfOpen bool // the same in both directions, for good, for the connections there are; new ones work

	Latency   time.Duration // of each direction
	Jitter    time.Duration // up to this is added, the same for the same seed; order is kept
	Bandwidth int           // bytes a second of each direction of a connection
	Slice     int           // bytes that arrive at a time

	// Command decides about each command before it is sent, Reply about each
	// reply on its way back. They may block, which holds up that direction of
	// the connection. words are those of the command; a message that nobody
	// asked for, as of pub/sub, has the one word "".
	Command func(words []string) Fate
	Reply   func(words []string, reply []byte) Fate
}

// Fate is what becomes of a command or reply. See also [HangUpAfter].
type Fate int

// Pass lets it through. Swallow loses it, and with it all that follows in its
// direction, except behind a lost message. HangUp closes the connection instead.
const (
	Pass    Fate = 0
	Swallow Fate = -1
	HangUp  Fate = -2
)

// HangUpAfter lets n bytes through, at least one, and then closes the connection.
func HangUpAfter(n int) Fate { return Fate(max(n, 1)) }

// Net is a network.
type Net struct {
	seed uint64
	took atomic.Int64
	work sync.WaitGroup

	mu      sync.Mutex
	faults  Faults
	changed chan struct{} // closed when faults change
	conns   map[*conn]struct{}
	made    uint64
	closed  bool
}

// New makes a healthy network. It ends with the test.
func New(t testing.TB, seed uint64) *Net {
	t.Helper()
	n := &Net{seed: seed, changed: make(chan struct{}), conns: make(map[*conn]struct{})}
	t.Cleanup(func() {
		n.mu.Lock()
		n.closed = true
		n.hangUpAll()
		n.mu.Unlock()
		n.Set(Faults{})
		n.work.Wait()
	})
	return n
}

// Set replaces the faults.
func (n *Net) Set(f Faults) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults = f
	if f.Cut {
		n.took.Add(int64(len(n.conns)))
		n.hangUpAll()
	}
	if f.HalfOpen {
		n.took.Add(int64(len(n.conns)))
		for c := range n.conns {
			c.dead[up].Store(true)
			c.dead[down].Store(true)
		}
	}
	close(n.changed)
	n.changed = make(chan struct{})
}

// Took returns how often a fault took effect so far: for connections that were
// closed, refused, or fell silent, and for pieces of data.
func (n *Net) Took() int { return int(n.took.Load()) }

// state returns the faults, and what is closed when they change.
func (n *Net) state() (Faults, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.faults, n.changed
}

// hangUpAll is called with mu held.
func (n *Net) hangUpAll() {
	for c := range n.conns {
		c.hangUp()
	}
}

// Dial makes a connection, as a go-redis Options.Dialer does.
type Dial = func(ctx context.Context, network, addr string) (net.Conn, error)

// dialTimeout is that of the dialer that go-redis makes by default.
const dialTimeout = 5 * time.Second

// Dialer returns a dialer whose connections are made by dial and lead through
// the network.
func (n *Net) Dialer(dial Dial) Dial {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		fail := func(err error) (net.Conn, error) { return nil, &net.OpError{Op: "dial", Net: network, Err: err} }
		for {
			f, changed := n.state()
			if !f.Hang {
				break
			}
			n.took.Add(1)
			select {
			case <-changed:
			case <-ctx.Done():
				return fail(ctx.Err())
			}
		}
		far, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		near, mine, err := pair(ctx, far)
		if err != nil {
			_ = far.Close()
			return fail(err)
		}
		if err := n.connect(mine, far); err != nil {
			_ = near.Close()
			return fail(err)
		}
		if socket, ok := near.(*net.TCPConn); ok {
			return &nearSocket{socket, far}, nil
		}
		return &nearPipe{near, far}, nil
	}
}

// pair returns both ends of a connection of the kind of far. go-redis looks
// whether the peer of a pooled socket has closed it; with pipes it cannot, and
// each connection of a pool that was cut would cost it a command.
func pair(ctx context.Context, far net.Conn) (near, mine net.Conn, err error) {
	if _, ok := far.(syscall.Conn); !ok {
		near, mine = net.Pipe()
		return near, mine, nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = l.Close() }()
	if near, err = (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	if mine, err = l.Accept(); err != nil { // the connection waits there already
		_ = near.Close()
		return nil, nil, err
	}
	return near, mine, nil
}

// nearSocket and nearPipe say that they lead to the server, as they do.
type (
	nearSocket struct {
		*net.TCPConn
		far net.Conn
	}
	nearPipe struct {
		net.Conn
		far net.Conn
	}
)

func (c *nearSocket) RemoteAddr() net.Addr { return c.far.RemoteAddr() }
func (c *nearPipe) RemoteAddr() net.Addr   { return c.far.RemoteAddr() }

// Client returns a client like rdb whose connections, and those that a Scheduler
// makes from it, lead through the network. It ends with the test.
func (n *Net) Client(t testing.TB, rdb redis.UniversalClient) redis.UniversalClient {
	t.Helper()
	var out redis.UniversalClient
	switch c := rdb.(type) {
	case *redis.Client:
		o := *c.Options()
		o.Dialer = n.Dialer(o.Dialer)
		o.MaxRetries, o.ReadTimeout, o.WriteTimeout = off(o.MaxRetries), off(o.ReadTimeout), off(o.WriteTimeout)
		out = redis.NewClient(&o)
	case *redis.ClusterClient:
		o := *c.Options()
		dial := o.Dialer
		if dial == nil {
			dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
		}
		o.Dialer = n.Dialer(dial)
		o.ReadTimeout, o.WriteTimeout = off(o.ReadTimeout), off(o.WriteTimeout)
		out = redis.NewClusterClient(&o)
	default:
		t.Fatalf("a client like %T cannot be made", rdb)
	}
	t.Cleanup(func() { _ = out.Close() })
	return out
}

// off keeps what is switched off: options that were read back say 0 for it,
// which a new client takes for its default.
func off[T int | time.Duration](v T) T {
	if v == 0 {
		return -1
	}
	return v
}

// Proxy listens on loopback, until the test ends, and leads every connection to
// the target.
func (n *Net) Proxy(t testing.TB, target string) (addr string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("proxy to %s: %v", target, err)
	}
	t.Cleanup(func() { _ = l.Close() })
	n.work.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return // it was closed
			}
			far, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(context.Background(), "tcp", target)
			if err != nil {
				_ = near.Close()
				continue
			}
			_ = n.connect(near, far) // if it is refused, the other process sees a closed connection
		}
	})
	return l.Addr().String()
}

// connect leads one connection through the network. It closes both ends when
// it cannot.
func (n *Net) connect(near, far net.Conn) error {
	c := &conn{net: n, ends: [2]net.Conn{down: near, up: far}, done: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.faults.Cut || n.closed {
		n.took.Add(1)
		c.hangUp()
		return errCut
	}
	n.conns[c] = struct{}{}
	n.made++
	var links sync.WaitGroup
	for _, d := range []direction{up, down} {
		l := &link{
			conn: c, dir: d, from: c.ends[1-d], to: c.ends[d], pieces: make(chan piece, 1024),
			random: rand.New(rand.NewPCG(n.seed, 2*n.made+uint64(d))),
		}
		links.Go(l.receive)
		links.Go(l.deliver)
	}
	n.work.Go(func() {
		links.Wait()
		c.hangUp()
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.conns, c)
	})
	return nil
}

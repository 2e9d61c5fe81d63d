package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
)

// Register is a resource outside of Redis that workers write to: numbers under
// keys. It is fenced: it remembers the largest token it has seen for a key and
// refuses smaller ones, those of readers too, for otherwise a new holder could
// read, an old one write, and the new one overwrite that. A request without a
// token is not checked, as by a resource that knows of no fence.
//
// It logs what it accepted and refused.
type Register struct {
	listener net.Listener
	serving  sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]bool
	values map[string]int
	tokens map[string]uint64
	log    []Access
}

// Access is one request that changes a register, and what became of it.
type Access struct {
	Key     string
	Token   uint64 // 0: unfenced
	Largest uint64 // that was seen before
	Value   int
	Refused bool
}

type request struct {
	Key   string
	Token uint64
	Write bool
	Value int
}

type reply struct {
	Value   int
	Refused bool
}

// NewRegister starts a register, which ends with the test.
func NewRegister(t testing.TB) *Register {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Register{
		listener: listener, conns: make(map[net.Conn]bool), values: make(map[string]int), tokens: make(map[string]uint64),
	}
	r.serving.Go(r.accept)
	t.Cleanup(r.close)
	return r
}

// Addr is where it listens.
func (r *Register) Addr() string { return r.listener.Addr().String() }

// Value returns what is stored under a key.
func (r *Register) Value(key string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.values[key]
}

// Log returns the writes that were asked for, in order.
func (r *Register) Log() []Access {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.log)
}

func (r *Register) accept() {
	for {
		conn, err := r.listener.Accept()
		if err != nil {
			return // closed
		}
		r.mu.Lock()
		r.conns[conn] = true
		r.mu.Unlock()
		r.serving.Go(func() { r.serve(conn) })
	}
}

func (r *Register) serve(conn net.Conn) {
	in, out := json.NewDecoder(conn), json.NewEncoder(conn)
	var err error
	for err == nil { // until the client is gone
		var q request
		if err = in.Decode(&q); err == nil {
			err = out.Encode(r.do(q))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, conn)
	_ = conn.Close()
}

func (r *Register) do(q request) reply {
	r.mu.Lock()
	defer r.mu.Unlock()
	largest := r.tokens[q.Key]
	refused := q.Token != 0 && q.Token < largest
	if !refused && q.Token != 0 {
		r.tokens[q.Key] = q.Token
	}
	if q.Write {
		r.log = append(r.log, Access{Key: q.Key, Token: q.Token, Largest: largest, Value: q.Value, Refused: refused})
		if !refused {
			r.values[q.Key] = q.Value
		}
	}
	return reply{Value: r.values[q.Key], Refused: refused}
}

func (r *Register) close() {
	_ = r.listener.Close()
	r.mu.Lock()
	for conn := range r.conns {
		_ = conn.Close()
	}
	r.mu.Unlock()
	r.serving.Wait()
}

// RegisterClient talks to a register. It is safe for concurrent use.
type RegisterClient struct {
	mu   sync.Mutex
	conn net.Conn
	in   *json.Decoder
	out  *json.Encoder
}

// DialRegister connects to the register at an address.
func DialRegister(addr string) (*RegisterClient, error) {
	conn, err := new(net.Dialer).DialContext(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &RegisterClient{conn: conn, in: json.NewDecoder(conn), out: json.NewEncoder(conn)}, nil
}

// Read returns the number under a key and whether the token was good enough.
func (c *RegisterClient) Read(key string, token uint64) (value int, ok bool, err error) {
	return c.ask(request{Key: key, Token: token})
}

// Write sets the number under a key and reports whether the token was good
// enough.
func (c *RegisterClient) Write(key string, token uint64, value int) (ok bool, err error) {
	_, ok, err = c.ask(request{Key: key, Token: token, Write: true, Value: value})
	return ok, err
}

// Close ends the connection.
func (c *RegisterClient) Close() error { return c.conn.Close() }

func (c *RegisterClient) ask(q request) (int, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.out.Encode(q); err != nil {
		return 0, false, fmt.Errorf("register: %w", err)
	}
	var r reply
	if err := c.in.Decode(&r); err != nil {
		return 0, false, fmt.Errorf("register: %w", err)
	}
	return r.Value, !r.Refused, nil
}

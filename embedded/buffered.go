package embedded

import (
	"bytes"
	"net"
	"sync"
)

// buffered is the server's end of a connection, with writes that never wait. A pipe has no buffer, so miniredis
// would stand still while a client does not read: for good if that client is still writing a pipeline, and with
// all its other clients if it is a subscriber that is busy.
type buffered struct {
	net.Conn

	mu     sync.Mutex
	more   sync.Cond
	buf    bytes.Buffer
	closed bool
	done   chan struct{}
}

func newBuffered(conn net.Conn) *buffered {
	b := &buffered{Conn: conn, done: make(chan struct{})}
	b.more.L = &b.mu
	go b.pump()
	return b
}

func (b *buffered) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, net.ErrClosed
	}
	b.more.Signal()
	return b.buf.Write(p)
}

// Close drops what the client has not read yet, as nobody is there to read it.
func (b *buffered) Close() error {
	b.mu.Lock()
	b.closed = true
	b.more.Signal()
	b.mu.Unlock()
	err := b.Conn.Close()
	<-b.done
	return err
}

// pump hands on to the client what was written, until either side closes.
func (b *buffered) pump() {
	defer close(b.done)
	for {
		b.mu.Lock()
		for b.buf.Len() == 0 && !b.closed {
			b.more.Wait()
		}
		if b.closed {
			b.mu.Unlock()
			return
		}
		out := bytes.Clone(b.buf.Bytes())
		b.buf.Reset()
		b.mu.Unlock()
		if _, err := b.Conn.Write(out); err != nil {
			return
		}
	}
}

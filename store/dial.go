package store

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"syscall"

	"github.com/redis/go-redis/v9"
)

// dialHook stands where a client makes connections. It marks errors of doing so,
// and it ties each connection to a life, with which it is closed. A client
// closes only what it has made: it holds locks while it dials and greets the
// server, and one that does not answer would hold up whoever closes the client.
type dialHook struct {
	life    context.Context
	primary *primary // if not nil, connections end when it moves as well
}

func (h dialHook) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, _, err := within(h.life, func() (net.Conn, error) {
			conn, err := next(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			if h.primary != nil {
				return tie(h.primary.at(conn.RemoteAddr()), conn), nil
			}
			return tie(h.life, conn), nil
		})
		if h.life.Err() != nil {
			err = ErrClosed // and the connection, if there is one, is closed
		}
		if err != nil {
			return nil, &dialError{addr, err}
		}
		return conn, nil
	}
}

// ProcessHook names the key of an error.
func (dialHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { return nameKey(cmd, next(ctx, cmd)) }
}

// ProcessPipelineHook does so for each command.
func (dialHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		for _, cmd := range cmds {
			_ = nameKey(cmd, cmd.Err())
		}
		return err
	}
}

// tied is a connection that is closed when a life ends.
type tied struct {
	net.Conn
	release func() bool
}

// tiedSocket lets go-redis look whether the peer has closed the connection.
type tiedSocket struct {
	tied
	syscall.Conn
}

func tie(life context.Context, conn net.Conn) net.Conn {
	if secret, ok := conn.(*tls.Conn); ok {
		conn = heard{secret}
	}
	t := tied{conn, context.AfterFunc(life, func() { _ = conn.Close() })}
	if socket, ok := conn.(syscall.Conn); ok {
		return tiedSocket{t, socket}
	}
	return t
}

func (c tied) Close() error {
	if !c.release() {
		return nil // it is closed already
	}
	return c.Conn.Close()
}

// heard is a connection that says why the server closed it. With TLS 1.3 a server
// refuses our certificate after the dial. Where it is faster than we are, the first
// command meets a connection that was reset, which looks like an outage; what the
// server said before can still be read.
type heard struct{ *tls.Conn }

func (c heard) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		if _, said := c.Read(make([]byte, 1)); refusesCertificate(said) { // it does not block, for the connection is dead
			err = said
		}
	}
	return n, err
}

package embedded

import (
	"net"
	"sync"
	"time"
)

// clock makes the times to live of a miniredis run down. They only matter when somebody looks, so it is moved
// just before a command is sent: no goroutine, no ticks while nothing happens. (Miniredis has ClockTTL for this,
// but that walks all keys again for every command, those inside a script included.)
type clock struct {
	forward func(time.Duration)

	mu   sync.Mutex
	at   time.Time     // the time up to which the times to live have run
	rest time.Duration // how long to leave them now
}

// Moving the clock walks all keys. It is given at most a twentieth of the time.
const (
	finest = time.Millisecond
	share  = 20
)

func newClock(forward func(time.Duration)) *clock {
	return &clock{forward: forward, at: time.Now(), rest: finest}
}

func (c *clock) advance() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	passed := now.Sub(c.at)
	if passed < c.rest {
		return
	}
	c.forward(passed)
	c.at = now
	c.rest = max(finest, share*time.Since(now))
}

// ticking is the client's end of a connection.
type ticking struct {
	net.Conn
	clock *clock
}

func (c *ticking) Write(p []byte) (int, error) {
	c.clock.advance()
	return c.Conn.Write(p)
}

package carillon

import (
	"sync"
	"time"
)

// clock estimates Redis' time from the last reply that told it and the local
// monotonic clock. It only decides when to ask; decisions are made by Redis.
type clock struct {
	mu   sync.Mutex
	told time.Time // Redis' time
	at   time.Time // local, with monotonic reading
}

// learn takes a reply that told Redis' time. asked is when the command was sent.
func (c *clock) learn(told, asked time.Time) {
	if told.IsZero() {
		return
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told, c.at = told, now.Add(-now.Sub(asked)/2)
}

// now returns Redis' time as far as known, or zero before the first reply.
func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.told.IsZero() {
		return time.Time{}
	}
	return c.told.Add(time.Since(c.at))
}

// until returns how long it is to an instant of Redis' time, at least 0.
func (c *clock) until(t time.Time) time.Duration {
	now := c.now()
	if now.IsZero() {
		return 0
	}
	return max(0, t.Sub(now))
}

// outage remembers whether Redis was out of reach. Every lease ages while it is,
// so nobody is declared dead until a full lease after it came back. A new
// instance cannot know what was before it and waits as well.
type outage struct {
	mu    sync.Mutex
	away  bool
	until time.Time
}

func (o *outage) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.away = true
}

// end notes that Redis answers. Only from then on can others renew their leases:
// a long pause may lie between the last failure and this answer.
func (o *outage) end(lease time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away {
		o.away, o.until = false, time.Now().Add(lease)
	}
}

// over reports whether other instances' leases can be trusted to have lapsed.
func (o *outage) over() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.away && !time.Now().Before(o.until)
}

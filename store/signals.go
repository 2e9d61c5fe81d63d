package store

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// signals passes hints from Redis channels to those who wait: a job was
// cancelled, a lease is free, an awaited job is final. A hint may be lost, so
// whoever waits also asks now and then. Every new subscription gives an empty
// hint, for something may have happened before it took effect.
//
// One connection serves all channels. It exists while somebody listens.
type signals struct {
	store *Store

	mu        sync.Mutex
	listeners map[string]map[chan string]struct{}
	pubsub    *redis.PubSub
	ctx       context.Context // of pubsub; ends a dial that hangs
	cancel    context.CancelFunc
	running   sync.WaitGroup
	closed    bool
}

// hintBuffer is how many hints wait for a slow listener before more are dropped.
const hintBuffer = 256

func newSignals(s *Store) *signals {
	return &signals{store: s, listeners: make(map[string]map[chan string]struct{})}
}

// listen returns the hints of a channel until stop is called.
func (g *signals) listen(channel string) (hints <-chan string, stop func()) {
	c := make(chan string, hintBuffer)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return c, func() {}
	}
	first := g.listeners[channel] == nil
	if first {
		g.listeners[channel] = make(map[chan string]struct{})
	}
	g.listeners[channel][c] = struct{}{}
	switch {
	case g.pubsub == nil:
		rdb, err := g.store.client()
		if err != nil {
			return c, func() {}
		}
		g.ctx, g.cancel = context.WithCancel(context.Background())
		g.pubsub = rdb.Subscribe(g.ctx)
		p := g.pubsub
		g.running.Go(func() { g.deliver(p) }) // ends when the pubsub is closed
		fallthrough
	case first:
		p, ctx := g.pubsub, g.ctx
		g.running.Go(func() { _ = p.Subscribe(ctx, channel) }) // may have to dial
	default:
		c <- ""
	}
	var once sync.Once
	return c, func() { once.Do(func() { g.forget(channel, c) }) }
}

func (g *signals) forget(channel string, c chan string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.listeners[channel], c)
	if len(g.listeners[channel]) > 0 {
		return
	}
	delete(g.listeners, channel)
	switch {
	case g.pubsub == nil:
	case len(g.listeners) == 0:
		g.hangUp()
	default:
		p, ctx := g.pubsub, g.ctx
		g.running.Go(func() { g.unsubscribe(ctx, p, channel) })
	}
}

// hangUp closes the connection, without waiting for a dial that may be under
// way. It is called with mu held.
func (g *signals) hangUp() {
	p := g.pubsub
	g.pubsub = nil
	g.cancel()
	g.running.Go(func() { _ = p.Close() })
}

// unsubscribe gives a channel up unless somebody listens to it again.
func (g *signals) unsubscribe(ctx context.Context, p *redis.PubSub, channel string) {
	g.mu.Lock()
	wanted := g.listeners[channel] != nil
	g.mu.Unlock()
	if !wanted {
		_ = p.Unsubscribe(ctx, channel)
	}
	g.mu.Lock()
	wanted = g.listeners[channel] != nil && g.pubsub == p
	g.mu.Unlock()
	if wanted {
		_ = p.Subscribe(ctx, channel)
	}
}

func (g *signals) deliver(p *redis.PubSub) {
	for m := range p.ChannelWithSubscriptions(redis.WithChannelSize(1000), redis.WithChannelHealthCheckInterval(g.store.silence())) {
		switch m := m.(type) {
		case *redis.Subscription:
			if m.Kind == "subscribe" {
				g.pass(m.Channel, "")
			}
		case *redis.Message:
			g.pass(m.Channel, m.Payload)
		}
	}
}

// silence is how long a subscription may be quiet before it is checked with a
// ping: 30 s, or as long as the caller's client waits for replies if that is
// more. In virtual time carillontest makes it long, for each ping costs.
func (s *Store) silence() time.Duration { return max(30*time.Second, s.patience()) }

func (g *signals) pass(channel, hint string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.listeners[channel] {
		select {
		case c <- hint:
		default: // the listener asks by itself sooner or later
		}
	}
}

func (g *signals) close() {
	g.mu.Lock()
	g.closed = true
	if g.pubsub != nil {
		g.hangUp()
	}
	g.mu.Unlock()
	g.running.Wait()
}

// Control returns hints for running instances: "c ENTRY ID" an attempt is to be cancelled,
// "p" the paused queues changed, "d SEGMENT MS" and "s SEGMENT MS" a job or a
// schedule became the next one of its segment, "l" an instance left, "" look at
// everything.
func (s *Store) Control() (hints <-chan string, stop func()) {
	return s.signals.listen(s.control())
}

// Inbox returns the IDs of awaited jobs that became final.
func (s *Store) Inbox() (ids <-chan string, stop func()) {
	return s.signals.listen(s.segments[0].inbox(s.inbox))
}

// Hint publishes a hint to all instances; its loss is no failure.
func (s *Store) Hint(ctx context.Context, hint string) {
	if rdb, err := s.client(); err == nil {
		_, _, _ = within(ctx, func() (int64, error) { return rdb.Publish(ctx, s.control(), hint).Result() })
	}
}

// Released returns a hint whenever the named lease was given back.
func (s *Store) Released(name string) (hints <-chan string, stop func()) {
	return s.signals.listen(s.leaseKeys(name).released(name))
}

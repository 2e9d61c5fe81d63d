package store

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// primaryLook is how often a store behind Sentinel asks who is the primary.
const primaryLook = time.Second

// primary is where connections made through Sentinel lead. Only the caller's
// client hears of a failover, so each dial is taken for news: when it leads
// elsewhere, the connections to the old primary end, for that one may be alive
// and take writes that will be lost. When no sentinel answers, all stay.
type primary struct {
	store  context.Context
	follow sync.Once

	mu   sync.Mutex
	addr string
	life context.Context // of the connections to addr
	end  context.CancelFunc
}

// at notes where a dial led, and returns the life of connections to there.
func (p *primary) at(addr net.Addr) context.Context {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life == nil || p.addr != addr.String() {
		if p.end != nil {
			p.end()
		}
		p.addr = addr.String()
		p.life, p.end = context.WithCancel(p.store)
	}
	return p.life
}

// followPrimary dials until the store ends, because connections that work give
// no reason to.
func (s *Store) followPrimary() {
	if s.primary == nil {
		return
	}
	s.primary.follow.Do(func() {
		c, _ := s.source.(*redis.Client)
		s.tails.Go(func() { s.primary.ask(c.Options()) })
	})
}

func (p *primary) ask(o *redis.Options) {
	tick := time.NewTicker(primaryLook)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-p.store.Done():
			return
		}
		_, _, _ = within(p.store, func() (struct{}, error) {
			conn, err := o.Dialer(p.store, o.Network, o.Addr)
			if err == nil {
				p.at(conn.RemoteAddr())
				_ = conn.Close()
			}
			return struct{}{}, err
		})
	}
}

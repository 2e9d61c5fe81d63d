package store

import (
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/carillon-go/carillon/internal/knobs"
)

// client returns the store's own client. Retries are the store's business, for
// only it knows whether a command may already have been executed.
func (s *Store) client() (redis.UniversalClient, error) { return s.made(&s.rdb, 0) }

// urgentConns is two for outcomes, one for heartbeats, and one for whichever of
// them a dying connection holds up.
const urgentConns = 4

// boundless is the size of a pool in which nobody is to wait for a connection. Package
// embedded has such pools, and all that are made from them have to be: those who
// wait share timers, which in testing/synctest belong to one bubble.
const boundless = 1000

// clientOf is client for a script. Handlers and callers can keep all connections
// of a small pool busy; heartbeats, outcomes and leases must not stand in line with them.
func (s *Store) clientOf(c *script) (redis.UniversalClient, error) {
	if c.urgent() {
		return s.made(&s.urgent, urgentConns)
	}
	return s.client()
}

func (s *Store) made(rdb *redis.UniversalClient, pool int) (redis.UniversalClient, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if *rdb == nil {
		*rdb = s.dial(pool)
		s.followPrimary()
	}
	return *rdb, nil
}

// dial makes a client from the source's options; pool 0 keeps its pool size, and so
// does one that is boundless.
func (s *Store) dial(pool int) redis.UniversalClient {
	var rdb redis.UniversalClient
	quiet := &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	switch c := s.source.(type) {
	case *redis.Client:
		o := *c.Options()
		o.MaxRetries, o.DialerRetries = -1, 1
		o.ContextTimeoutEnabled = true
		o.MaintNotificationsConfig, o.PushNotificationProcessor = quiet, nil
		o.MinIdleConns = 0
		o.ReadTimeout, o.WriteTimeout = keepOff(o.ReadTimeout), keepOff(o.WriteTimeout)
		if pool > 0 && o.PoolSize < boundless {
			o.PoolSize, o.MaxActiveConns = pool, 0
		}
		rdb = redis.NewClient(&o)
		rdb.AddHook(dialHook{s.life, s.primary})
	case *redis.ClusterClient:
		o := *c.Options()
		o.Addrs = slices.Clone(o.Addrs) // go-redis appends to it, and takes it for its own
		o.MaxRetries, o.DialerRetries = -1, 1
		o.ContextTimeoutEnabled = true
		o.MaintNotificationsConfig = quiet
		o.MinIdleConns = 0
		o.ReadTimeout, o.WriteTimeout = keepOff(o.ReadTimeout), keepOff(o.WriteTimeout)
		o.ReadOnly, o.RouteByLatency, o.RouteRandomly = false, false, false
		if o.ClusterStateReloadInterval == 0 || o.ClusterStateReloadInterval > clusterReload {
			o.ClusterStateReloadInterval = clusterReload
		}
		if pool > 0 {
			o.PoolSize, o.MaxActiveConns = pool, 0
		}
		cluster := redis.NewClusterClient(&o)
		cluster.OnNewNode(func(node *redis.Client) { node.AddHook(dialHook{s.life, nil}) })
		rdb = cluster
	}
	for _, h := range knobs.HooksOf(s.source) {
		if h, ok := h.(redis.Hook); ok {
			rdb.AddHook(h)
		}
	}
	if cluster, ok := rdb.(*redis.ClusterClient); ok {
		cluster.AddHook(parted{cluster}) // the last, for it calls no other
	}
	return rdb
}

// clusterReload is how often a cluster client asks for the slot map. go-redis
// does not ask when it cannot dial a node that is gone.
const clusterReload = 2 * time.Second

// keepOff keeps a timeout switched off: options that were read back say 0 for
// it, which a new client takes for its default.
func keepOff(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// patience is how long the caller's client waits for a reply; 0 is for ever.
func (s *Store) patience() time.Duration {
	switch c := s.source.(type) {
	case *redis.Client:
		return c.Options().ReadTimeout
	case *redis.ClusterClient:
		return c.Options().ReadTimeout
	}
	return 0
}

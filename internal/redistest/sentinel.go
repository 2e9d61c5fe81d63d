package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/redis/go-redis/v9"
)

const (
	primaryName = "primary"
	quorum      = 2
	replicas    = 2
	sentinels   = 3
)

// Sentinel is a primary and two replicas, watched by three sentinels which
// fail over about two to four seconds after the primary dies.
type Sentinel struct {
	servers   []*Server
	sentinels []*Server
}

// NewSentinel starts a primary, its replicas and sentinels for the test t. conf
// is for the primary and the replicas, as in Single.
func NewSentinel(t testing.TB, conf ...string) *Sentinel {
	t.Helper()
	return own(t, func(dir string) (*Sentinel, error) { return startSentinel(dir, conf...) })
}

// SharedSentinel returns the one Sentinel which all tests of the binary share.
// A test which kills one of its servers calls Heal afterwards.
func SharedSentinel(t testing.TB) *Sentinel {
	t.Helper()
	return sharedSentinel.get(t, func(dir string) (*Sentinel, error) { return startSentinel(dir) })
}

var sharedSentinel shared[*Sentinel]

func startSentinel(dir string, conf ...string) (_ *Sentinel, err error) {
	s := &Sentinel{}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	if s.servers, err = startAll(1, dir, "primary", func(dir string) (*Server, error) {
		return startServer(dir, conf...)
	}); err != nil {
		return nil, err
	}
	primary := s.servers[0]
	ip, port := primary.hostPort()
	followers, err := startAll(replicas, dir, "replica", func(dir string) (*Server, error) {
		return startServer(dir, append([]string{fmt.Sprintf("replicaof %s %s", ip, port)}, conf...)...)
	})
	if err != nil {
		return nil, err
	}
	s.servers = append(s.servers, followers...)
	// Sentinels ask the primary for its replicas when they start and then
	// only every 10 s, so the replicas have to be there first.
	if err := each(followers, func(_ int, one *Server) error {
		return poll(patience, func() error { return one.linked(primary.addr) })
	}); err != nil {
		return nil, err
	}
	if s.sentinels, err = startAll(sentinels, dir, "sentinel", func(dir string) (*Server, error) {
		return start(dir, []string{
			fmt.Sprintf("sentinel monitor %s %s %s %d", primaryName, ip, port, quorum),
			fmt.Sprintf("sentinel down-after-milliseconds %s 1000", primaryName),
			fmt.Sprintf("sentinel failover-timeout %s 2000", primaryName),
			fmt.Sprintf("sentinel parallel-syncs %s %d", primaryName, replicas),
		}, "--sentinel")
	}); err != nil {
		return nil, err
	}
	return s, poll(patience, s.whole)
}

// Options returns new options for a client which follows the primary.
func (s *Sentinel) Options() *redis.FailoverOptions {
	opts := &redis.FailoverOptions{MasterName: primaryName}
	for _, one := range s.sentinels {
		opts.SentinelAddrs = append(opts.SentinelAddrs, one.Addr())
	}
	return opts
}

// Client returns a new client which follows the primary, and which is closed
// when t ends.
func (s *Sentinel) Client(t testing.TB) *redis.Client {
	t.Helper()
	c := redis.NewFailoverClient(s.Options())
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Servers returns the primary of the start and its replicas, but not the
// sentinels.
func (s *Sentinel) Servers() []*Server {
	return slices.Clone(s.servers)
}

// Primary returns the primary on which the sentinels agree. When it is dead or
// frozen, Primary waits for the failover and returns the new one.
func (s *Sentinel) Primary(t testing.TB) *Server {
	t.Helper()
	var p *Server
	Wait(t, patience, func() (err error) {
		p, err = s.primary()
		return err
	})
	return p
}

// KillPrimary kills the primary and returns it. It does not wait for the
// failover.
func (s *Sentinel) KillPrimary(t testing.TB) *Server {
	t.Helper()
	p := s.Primary(t)
	p.Kill()
	return p
}

// Heal waits for the end of a failover, restarts the dead servers as replicas,
// and waits until every server and every sentinel is back in its place. At
// least one server has to be alive.
func (s *Sentinel) Heal(t testing.TB) {
	t.Helper()
	if err := restartDead(s.sentinels); err != nil {
		t.Fatal(err)
	}
	s.Primary(t) // before the old one is back and looks as if nothing happened
	if err := restartDead(s.servers); err != nil {
		t.Fatal(err)
	}
	Wait(t, patience, func() error {
		if err := s.follow(); err != nil {
			return err
		}
		return s.whole()
	})
}

// follow makes all servers but the primary replicas of it. The sentinels do
// that as well, but only 10 s after the restart of a former primary.
func (s *Sentinel) follow() error {
	p, err := s.primary()
	if err != nil {
		return err
	}
	ip, port := p.hostPort()
	return each(s.servers, func(_ int, one *Server) error {
		if one == p || one.linked(p.addr) == nil {
			return nil
		}
		return one.ask(func(ctx context.Context, c *redis.Client) error {
			return c.ReplicaOf(ctx, ip, port).Err()
		})
	})
}

// whole tells whether a failover would succeed now.
func (s *Sentinel) whole() error {
	p, err := s.primary()
	if err != nil {
		return err
	}
	return errors.Join(
		each(s.servers, func(_ int, one *Server) error {
			if one == p {
				return nil
			}
			return one.linked(p.addr)
		}),
		each(s.sentinels, func(_ int, one *Server) error { return s.sees(one, p) }),
	)
}

// sees tells whether a sentinel knows the primary, all replicas and all other
// sentinels, and finds the servers healthy.
func (s *Sentinel) sees(sentinel, primary *Server) error {
	return askSentinel(sentinel, func(ctx context.Context, c *redis.SentinelClient) error {
		m, err := c.Master(ctx, primaryName).Result()
		if err != nil {
			return err
		}
		rs, err := c.Replicas(ctx, primaryName).Result()
		if err != nil {
			return err
		}
		if net.JoinHostPort(m["ip"], m["port"]) != primary.Addr() || m["flags"] != "master" ||
			m["num-other-sentinels"] != fmt.Sprint(sentinels-1) || len(rs) != replicas {
			return fmt.Errorf("sentinel %s: primary %v, replicas %v", sentinel.Addr(), m, rs)
		}
		for _, r := range rs {
			if r["flags"] != "slave" {
				return fmt.Errorf("sentinel %s: replica %v", sentinel.Addr(), r)
			}
		}
		return nil
	})
}

// primary finds the server which all running sentinels call the primary and
// which agrees. Sentinels learn of a failover one after another.
func (s *Sentinel) primary() (*Server, error) {
	var p *Server
	for _, sentinel := range s.sentinels {
		if sentinel.process().Exited() {
			continue
		}
		var addr string
		if err := askSentinel(sentinel, func(ctx context.Context, c *redis.SentinelClient) error {
			parts, err := c.GetMasterAddrByName(ctx, primaryName).Result()
			if err == nil {
				addr = net.JoinHostPort(parts[0], parts[1])
			}
			return err
		}); err != nil {
			return nil, err
		}
		found, err := find(s.servers, addr)
		if err != nil {
			return nil, err
		}
		if p != nil && p != found {
			return nil, fmt.Errorf("sentinels disagree: %s or %s", p.addr, addr)
		}
		p = found
	}
	if p == nil {
		return nil, errors.New("no sentinel runs")
	}
	return p, p.replication("role:master")
}

func (s *Sentinel) stop() {
	stopAll(slices.Concat(s.sentinels, s.servers))
}

func askSentinel(s *Server, f func(context.Context, *redis.SentinelClient) error) error {
	c := redis.NewSentinelClient(s.askOptions())
	defer func() { _ = c.Close() }()
	return f(context.Background(), c)
}

func find(servers []*Server, addr string) (*Server, error) {
	i := slices.IndexFunc(servers, func(s *Server) bool { return s.Addr() == addr })
	if i < 0 {
		return nil, fmt.Errorf("no server at %s", addr)
	}
	return servers[i], nil
}

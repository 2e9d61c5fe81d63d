package redistest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	masters = 3
	slots   = 16384
)

// Cluster is three masters which share the slots evenly, and one replica of
// each. A dead master is replaced about three to five seconds later.
type Cluster struct {
	nodes []*Server
}

// NewCluster starts a cluster for the test t. conf is for every node, as in
// Single.
func NewCluster(t testing.TB, conf ...string) *Cluster {
	t.Helper()
	return own(t, func(dir string) (*Cluster, error) { return startCluster(dir, conf...) })
}

// SharedCluster returns the one cluster which all tests of the binary share.
// A test which kills one of its nodes calls Heal afterwards.
func SharedCluster(t testing.TB) *Cluster {
	t.Helper()
	return sharedCluster.get(t, func(dir string) (*Cluster, error) { return startCluster(dir) })
}

var sharedCluster shared[*Cluster]

func startCluster(dir string, conf ...string) (*Cluster, error) {
	nodes, err := startAll(2*masters, dir, "node", func(dir string) (*Server, error) {
		return startNode(dir, conf)
	})
	if err != nil {
		return nil, err
	}
	c := &Cluster{nodes: nodes}
	if err := c.form(); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

func startNode(dir string, conf []string) (*Server, error) {
	return startServer(dir, append([]string{
		"cluster-enabled yes",
		"cluster-node-timeout 2000",
		"cluster-announce-ip " + host,
	}, conf...)...)
}

// form makes a cluster of single nodes: the first half become masters.
func (c *Cluster) form() error {
	ids := make([]string, masters)
	if err := each(c.nodes, func(i int, node *Server) error {
		return node.ask(func(ctx context.Context, rc *redis.Client) (err error) {
			// Distinct epochs spare the nodes the quarrel over who has which.
			if err := rc.Do(ctx, "cluster", "set-config-epoch", i+1).Err(); err != nil || i >= masters {
				return err
			}
			if ids[i], err = rc.ClusterMyID(ctx).Result(); err != nil {
				return err
			}
			return rc.ClusterAddSlotsRange(ctx, share(i), share(i+1)-1).Err()
		})
	}); err != nil {
		return err
	}
	// All nodes meet the first and learn of each other by gossip.
	if err := c.nodes[0].ask(func(ctx context.Context, rc *redis.Client) error {
		for _, node := range c.nodes[1:] {
			ip, port := node.hostPort()
			if err := rc.ClusterMeet(ctx, ip, port).Err(); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if err := each(c.nodes[masters:], func(i int, node *Server) error {
		return poll(patience, func() error { // until the node has heard of its master
			return node.ask(func(ctx context.Context, rc *redis.Client) error {
				return rc.ClusterReplicate(ctx, ids[i]).Err()
			})
		})
	}); err != nil {
		return err
	}
	return poll(patience, c.whole)
}

// share is where the slots of the i-th master begin, rounded as redis-cli
// --cluster create does.
func share(i int) int { return (i*slots + masters/2) / masters }

// Options returns new options for a client of the cluster.
func (c *Cluster) Options() *redis.ClusterOptions {
	opts := &redis.ClusterOptions{
		MaintNotificationsConfig: noMaintNotifications(),
		// A dead master answers no MOVED, so only this makes the client look
		// for the new one, and only every minute by default.
		ClusterStateReloadInterval: time.Second,
	}
	for _, node := range c.nodes {
		opts.Addrs = append(opts.Addrs, node.Addr())
	}
	return opts
}

// Client returns a new client of the cluster, which is closed when t ends.
func (c *Cluster) Client(t testing.TB) *redis.ClusterClient {
	t.Helper()
	rc := redis.NewClusterClient(c.Options())
	t.Cleanup(func() { _ = rc.Close() })
	return rc
}

// Nodes returns all nodes. The first three started as masters.
func (c *Cluster) Nodes() []*Server {
	return slices.Clone(c.nodes)
}

// Master returns the node which is the master of key now.
func (c *Cluster) Master(t testing.TB, key string) *Server {
	t.Helper()
	rc := redis.NewClusterClient(c.Options())
	defer func() { _ = rc.Close() }()
	m, err := rc.MasterForKey(context.Background(), key)
	if err != nil {
		t.Fatal(err)
	}
	node, err := find(c.nodes, m.Options().Addr)
	if err != nil {
		t.Fatal(err)
	}
	return node
}

// Heal restarts dead nodes and waits until each master has its replica again.
// Masters and replicas may have changed places.
func (c *Cluster) Heal(t testing.TB) {
	t.Helper()
	if err := restartDead(c.nodes); err != nil {
		t.Fatal(err)
	}
	Wait(t, patience, c.whole)
}

// whole tells whether all nodes agree that each master has a replica, and the
// replicas are in step.
func (c *Cluster) whole() error {
	return each(c.nodes, func(_ int, node *Server) error {
		return node.ask(func(ctx context.Context, rc *redis.Client) error {
			info, err := rc.ClusterInfo(ctx).Result()
			if err != nil {
				return err
			}
			if !strings.Contains(info, "cluster_state:ok") {
				return fmt.Errorf("node %s: %s", node.Addr(), info)
			}
			ranges, err := rc.ClusterSlots(ctx).Result() //nolint:staticcheck // 6.2 has no CLUSTER SHARDS
			if err != nil {
				return err
			}
			if len(ranges) != masters {
				return fmt.Errorf("node %s: slots %v", node.Addr(), ranges)
			}
			for _, r := range ranges {
				if len(r.Nodes) != 2 {
					return fmt.Errorf("node %s: slots %v", node.Addr(), ranges)
				}
				if r.Nodes[1].Addr == node.Addr() {
					return node.linked(r.Nodes[0].Addr)
				}
			}
			return nil
		})
	})
}

func (c *Cluster) stop() {
	stopAll(c.nodes)
}

package redistest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// Slot returns the slot of a key.
func (c *Cluster) Slot(t testing.TB, key string) int {
	t.Helper()
	var slot int64
	if err := c.nodes[0].ask(func(ctx context.Context, rc *redis.Client) (err error) {
		slot, err = rc.ClusterKeySlot(ctx, key).Result()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return int(slot)
}

// Move gives a slot with its keys to another master while clients use it, in
// the steps of redis-cli --cluster reshard. It returns how many keys moved.
// When all slots are back where they were, Heal works again.
func (c *Cluster) Move(t testing.TB, slot int, to *Server) int {
	t.Helper()
	from, moved := c.owner(t, slot), 0
	if from == to {
		return 0
	}
	for _, step := range []func() error{
		func() error { return c.setSlot(to, slot, "importing", c.id(t, from)) },
		func() error { return c.setSlot(from, slot, "migrating", c.id(t, to)) },
		func() (err error) { moved, err = migrate(from, to, slot); return err },
		// The new owner first: without one, clients would be sent in circles.
		func() error { return c.setSlot(to, slot, "node", c.id(t, to)) },
		func() error {
			err := c.setSlot(from, slot, "node", c.id(t, to))
			// It may have heard already, and be a replica now that it has no slots.
			if owner, _ := from.ownerOf(slot); owner == to.addr {
				return nil
			}
			return err
		},
	} {
		if err := step(); err != nil {
			t.Fatalf("move slot %d: %v", slot, err)
		}
	}
	Wait(t, patience, func() error { // until the others have heard
		return each(c.nodes, func(_ int, node *Server) error {
			owner, err := node.ownerOf(slot)
			if err == nil && owner != to.addr {
				err = fmt.Errorf("%s takes %s for the owner of slot %d", node.addr, owner, slot)
			}
			return err
		})
	})
	return moved
}

// migrate moves the keys of a slot. Clients go on to create some meanwhile, in
// the new place, so that there is an end.
func migrate(from, to *Server, slot int) (moved int, err error) {
	host, port := to.hostPort()
	err = from.ask(func(ctx context.Context, rc *redis.Client) error {
		for {
			// A few at a time, because scripts meet a slot of which part has moved.
			keys, err := rc.ClusterGetKeysInSlot(ctx, slot, 3).Result()
			if err != nil || len(keys) == 0 {
				return err
			}
			args := []any{"migrate", host, port, "", 0, 5000, "keys"}
			for _, key := range keys {
				args = append(args, key)
			}
			if err := rc.Do(ctx, args...).Err(); err != nil {
				return err
			}
			moved += len(keys)
		}
	})
	return moved, err
}

// AddMaster starts a node that joins as a master without slots.
func (c *Cluster) AddMaster(t testing.TB) *Server {
	t.Helper()
	node := own(t, func(dir string) (*Server, error) { return startNode(dir, nil) })
	ip, port := node.hostPort()
	if err := c.nodes[0].ask(func(ctx context.Context, rc *redis.Client) error {
		return rc.ClusterMeet(ctx, ip, port).Err()
	}); err != nil {
		t.Fatal(err)
	}
	c.nodes = append(c.nodes, node)
	id := c.id(t, node)
	Wait(t, patience, func() error { // until all have heard
		return each(c.nodes, func(_ int, one *Server) error {
			return one.ask(func(ctx context.Context, rc *redis.Client) error {
				all, err := rc.ClusterNodes(ctx).Result()
				if err != nil {
					return err
				}
				info, err := rc.ClusterInfo(ctx).Result()
				if err == nil && (!strings.Contains(all, id) || !strings.Contains(info, "cluster_state:ok")) {
					err = fmt.Errorf("%s and %s do not know each other", one.addr, node.addr)
				}
				return err
			})
		})
	})
	return node
}

// Remove makes the others forget a master whose slots have moved away, and
// kills it.
func (c *Cluster) Remove(t testing.TB, node *Server) {
	t.Helper()
	id := c.id(t, node)
	c.nodes = slices.DeleteFunc(c.nodes, func(one *Server) bool { return one == node })
	if err := each(c.nodes, func(_ int, one *Server) error {
		return one.ask(func(ctx context.Context, rc *redis.Client) error {
			return rc.ClusterForget(ctx, id).Err()
		})
	}); err != nil {
		t.Fatal(err)
	}
	node.Kill()
}

// KillShard kills the master of a key and its replica, so that nobody has the
// slots. Heal brings them back, with what their configuration makes them keep.
func (c *Cluster) KillShard(t testing.TB, key string) {
	t.Helper()
	master := c.Master(t, key)
	for _, node := range c.nodes {
		if node != master && node.linked(master.addr) == nil {
			node.Kill() // first, or it takes over
		}
	}
	master.Kill()
}

func (c *Cluster) setSlot(node *Server, slot int, state, id string) error {
	return node.ask(func(ctx context.Context, rc *redis.Client) error {
		return rc.Do(ctx, "cluster", "setslot", slot, state, id).Err()
	})
}

func (c *Cluster) id(t testing.TB, node *Server) (id string) {
	t.Helper()
	if err := node.ask(func(ctx context.Context, rc *redis.Client) (err error) {
		id, err = rc.ClusterMyID(ctx).Result()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return id
}

// owner finds the master that has a slot in its own opinion.
func (c *Cluster) owner(t testing.TB, slot int) *Server {
	t.Helper()
	for _, node := range c.nodes {
		if owner, err := node.ownerOf(slot); err == nil && owner == node.addr {
			return node
		}
	}
	t.Fatalf("nobody has slot %d", slot)
	return nil
}

// ownerOf returns who has a slot in the opinion of the server.
func (s *Server) ownerOf(slot int) (addr string, err error) {
	err = s.ask(func(ctx context.Context, rc *redis.Client) error {
		ranges, err := rc.ClusterSlots(ctx).Result() //nolint:staticcheck // 6.2 has no CLUSTER SHARDS
		for _, r := range ranges {
			if r.Start <= slot && slot <= r.End {
				addr = r.Nodes[0].Addr
			}
		}
		return err
	})
	return addr, err
}

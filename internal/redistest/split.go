package redistest

import (
	"context"
	"errors"
	"testing"

	"github.com/redis/go-redis/v9"
)

// CutReplicas stops the replication from the primary, so that replicas keep
// what they have and miss what is written next, as behind a broken network.
// The sentinels mend that after about 10 s, unless the primary dies before: then
// they promote a replica that lags behind.
func (s *Sentinel) CutReplicas(t testing.TB) {
	t.Helper()
	p := s.Primary(t)
	if err := each(s.servers, func(_ int, one *Server) error {
		if one == p {
			return nil
		}
		return one.ask(func(ctx context.Context, c *redis.Client) error {
			return c.ReplicaOf(ctx, host, "1").Err() // nobody listens there
		})
	}); err != nil {
		t.Fatal(err)
	}
}

// Split makes the sentinels promote a replica while the primary lives on, as if
// it were cut off from them but not from its clients. It returns both when the
// replica is the primary for the sentinels. They demote the old one after about
// 10 s; Heal does so at once.
func (s *Sentinel) Split(t testing.TB) (old, promoted *Server) {
	t.Helper()
	old = s.Primary(t)
	Wait(t, patience, func() error { // refused while replicas are not known to be good
		return askSentinel(s.sentinels[0], func(ctx context.Context, c *redis.SentinelClient) error {
			return c.Failover(ctx, primaryName).Err()
		})
	})
	Wait(t, patience, func() (err error) {
		if promoted, err = s.primary(); err == nil && promoted == old {
			err = errors.New("the old one is still the primary")
		}
		return err
	})
	return old, promoted
}

// KillSentinels kills all sentinels. Heal starts them again.
func (s *Sentinel) KillSentinels() {
	stopAll(s.sentinels)
}

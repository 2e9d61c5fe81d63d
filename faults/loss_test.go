package faults_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
)

// TestLoss measures what docs/guarantees.md says of each topology: how many
// acknowledged jobs a fault loses, and for how long nothing is acknowledged.
//
//	FAULTS=full go test -v -run TestLoss ./faults | grep loss:
func TestLoss(t *testing.T) {
	onlyFull(t) // and one after the other, for the sake of the figures
	for _, fsync := range []string{"always", "everysec"} {
		t.Run("AOF "+fsync+", kill -9", func(t *testing.T) {
			server := redistest.Single(t, "appendonly yes", "appendfsync "+fsync)
			lost := loss(t, server.Client(t), 0, func(*world) { server.Restart(t) }, nil)
			assert.Zero(t, lost, "the kernel had it all")
		})
	}
	for _, cut := range []int64{1 << 10, 16 << 10, 256 << 10} {
		t.Run(fmt.Sprintf("AOF everysec, last %d KiB gone", cut>>10), func(t *testing.T) {
			server := redistest.Single(t, "appendonly yes", "appendfsync everysec")
			loss(t, server.Client(t), 0, func(*world) {
				server.Kill()
				server.CutAOF(t, cut)
				server.Restart(t)
			}, nil)
		})
	}
	for _, replicas := range []int{0, 1} {
		t.Run(fmt.Sprintf("Sentinel, primary kill -9, WaitReplicas %d", replicas), func(t *testing.T) {
			rig := redistest.NewSentinel(t)
			loss(t, rig.Client(t), replicas, func(*world) { rig.KillPrimary(t) }, func() { rig.Heal(t) })
		})
		t.Run(fmt.Sprintf("Sentinel, lagging replica promoted, WaitReplicas %d", replicas), func(t *testing.T) {
			rig := redistest.NewSentinel(t)
			lost := loss(t, rig.Client(t), replicas, func(*world) {
				rig.CutReplicas(t)
				_ = wait(t.Context(), time.Second)
				rig.KillPrimary(t)
			}, func() { rig.Heal(t) })
			assert.Equal(t, replicas == 0, lost > 0, "only who waits for replicas loses nothing")
		})
		t.Run(fmt.Sprintf("Cluster, master kill -9, WaitReplicas %d", replicas), func(t *testing.T) {
			rig := redistest.NewCluster(t)
			loss(t, rig.Client(t), replicas, func(w *world) {
				key := w.segmentKey(0)
				victim := rig.Master(t, key)
				victim.Kill()
				redistest.Wait(t, soon, func() error { // the replica has taken over; then the dead one is its replica
					if rig.Client(t).Get(t.Context(), key+"-").Err() != nil && rig.Master(t, key) == victim {
						return errors.New("no failover yet")
					}
					return nil
				})
				rig.Heal(t)
			}, nil)
		})
	}
	// The replica that is not promoted goes on to confirm to the old primary for
	// a moment, so with two of them one is too few.
	for _, replicas := range []int{0, 1, 2} {
		t.Run(fmt.Sprintf("Sentinel, split for 2 s, WaitReplicas %d", replicas), func(t *testing.T) {
			rig := redistest.NewSentinel(t)
			var way route
			way.leads(rig.Primary(t))
			lost := loss(t, way.client(t), replicas, func(*world) {
				_, promoted := rig.Split(t)
				_ = wait(t.Context(), 2*time.Second)
				way.leads(nil)
				rig.Heal(t)
				way.leads(promoted)
			}, nil)
			if replicas == 2 {
				assert.Zero(t, lost, "the promoted one has confirmed all")
			}
		})
	}
}

// loss breaks something while jobs are submitted and executed, and returns how
// many acknowledged ones are gone. heal, if any, follows when jobs are
// acknowledged again.
func loss(t *testing.T, rdb redis.UniversalClient, replicas int, disturb func(*world), heal func()) int {
	t.Helper()
	waits := func(c *carillon.Config) { c.WaitReplicas = replicas }
	w := newWorld(t, rdb, func(w *world) {
		if _, ok := rdb.(*redis.ClusterClient); ok {
			spread(w)
		}
	})
	w.mayLose()
	w.instance(rdb, handlers{"work": work}, waits)
	p := w.flood(w.scheduler(rdb, waits), always(carillon.Job{Name: "work"}), 16, time.Millisecond)
	p.more(500)
	disturb(w)
	w.fault(1)
	p.more(200)
	gap := p.stop()
	if heal != nil {
		heal()
	}
	v := w.finish(700)
	t.Logf("loss: %s: %d of %d acknowledged jobs lost, %v without an acknowledgement",
		t.Name(), len(v.Forgotten), v.Jobs, gap.Round(10*time.Millisecond))
	return len(v.Forgotten)
}

package faults_test

import (
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/faulthook"
	"github.com/carillon-go/carillon/internal/knobs"
	"github.com/carillon-go/carillon/internal/redistest"
)

// spread gives a world on a Cluster enough segments for all three masters.
func spread(w *world) { w.segments = 6 }

// segmentKey is a key of a segment, for the slot they share; store/doc.go says
// where it is.
func (w *world) segmentKey(segment int) string {
	key := func(number int) string { return fmt.Sprintf("{%s:%d}:due", w.namespace, number) }
	rangeOf := func(number int) int {
		slot, err := w.admin.ClusterKeySlot(w.t.Context(), key(number)).Result()
		require.NoError(w.t, err)
		return (2*int(slot) + 1) * w.segments / (2 * 16384)
	}
	number := 0
	for want := (rangeOf(0) + segment) % w.segments; rangeOf(number) != want; {
		number++
	}
	return key(number)
}

// segmentsOf tells the segments of a master from those of others.
func (w *world) segmentsOf(rig *redistest.Cluster, master *redistest.Server) (its, others map[int]bool) {
	its, others = map[int]bool{}, map[int]bool{}
	for i := range w.segments {
		if rig.Master(w.t, w.segmentKey(i)) == master {
			its[i] = true
		} else {
			others[i] = true
		}
	}
	require.NotEmpty(w.t, its)
	require.NotEmpty(w.t, others)
	return its, others
}

// jobsIn makes jobs that live in some segments: where their unique keys lead.
func (w *world) jobsIn(segments map[int]bool) func() carillon.Job {
	var n atomic.Int64
	return func() carillon.Job {
		for {
			key := fmt.Sprintf("%s-%d", w.namespace, n.Add(1))
			if segments[segmentOf(key, w.segments)] {
				return carillon.Job{Name: "work", Unique: carillon.Unique{Key: key}}
			}
		}
	}
}

// segmentOf is where a name leads, as store/doc.go says.
func segmentOf(name string, segments int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	return int(h.Sum32() % uint32(segments))
}

// another returns a master that has other slots than this one.
func another(t testing.TB, rig *redistest.Cluster, key string) *redistest.Server {
	t.Helper()
	master := rig.Master(t, key)
	i := slices.IndexFunc(rig.Nodes()[:3], func(s *redistest.Server) bool { return s != master })
	return rig.Nodes()[i]
}

// E1: the slots of a namespace go to another master and back while jobs are
// submitted and executed. Nothing is lost and nothing stalls.
func TestE1_LiveResharding(t *testing.T) {
	t.Parallel()
	rounds := 1
	if full {
		rounds = 5
	}
	rig := redistest.NewCluster(t)
	w := newWorld(t, rig.Client(t), spread)
	for range 2 {
		w.instance(rig.Client(t), handlers{"work": work})
	}
	p := w.pump(w.scheduler(rig.Client(t)), varied())
	p.more(100)
	for range rounds {
		for segment := range w.segments {
			key := w.segmentKey(segment)
			slot, home, away := rig.Slot(t, key), rig.Master(t, key), another(t, rig, key)
			assert.Positive(t, rig.Move(t, slot, away))
			w.fault(1)
			p.more(20)
			assert.Positive(t, rig.Move(t, slot, home))
			w.fault(1)
			p.more(20)
		}
	}
	gap := p.stop()
	assert.Less(t, gap, 10*time.Second, "jobs are accepted while slots move")
	v := w.finish(rounds * 240)
	t.Logf("%d slots moved, %d jobs, %v without an acknowledgement", w.faults.Load(), v.Jobs, gap)
}

// E2: a master dies under load. Its segments wait for its replica, the others go
// on. What the replica has missed is lost, and counted.
func TestE2_MasterKilled(t *testing.T) {
	t.Parallel()
	onlyFull(t)
	rig := redistest.NewCluster(t, "cluster-require-full-coverage no")
	w := newWorld(t, rig.Client(t), spread)
	w.mayLose()
	for range 2 {
		w.instance(rig.Client(t), handlers{"work": work})
	}
	s := w.scheduler(rig.Client(t))
	victim := rig.Master(t, w.segmentKey(0))
	dead, alive := w.segmentsOf(rig, victim)
	others, theirs := w.pump(s, w.jobsIn(alive)), w.pump(s, w.jobsIn(dead))
	others.more(50)
	theirs.more(50)
	victim.Kill()
	w.fault(1)
	theirs.more(50)
	others.more(50)
	gap, gapOfOthers := theirs.stop(), others.stop()
	rig.Heal(t)
	assert.Less(t, gap, 15*time.Second, "the failover takes some seconds")
	w.sound(s, 50)
	v := w.finish(250)
	t.Logf("%d jobs, %d lost, without an acknowledgement: %v in its segments, %v in others",
		v.Jobs, len(v.Forgotten), gap, gapOfOthers)
	assert.Less(t, gapOfOthers, gap, "the others waited, too")
}

// E3: a master and its replica die. What belongs to them is refused with an
// error that says so, the rest goes on; when they are back, so are their jobs.
func TestE3_ShardKilled(t *testing.T) {
	t.Parallel()
	onlyFull(t)
	rig := redistest.NewCluster(t, append([]string{"cluster-require-full-coverage no"}, durable...)...)
	w := newWorld(t, rig.Client(t), spread)
	for range 2 {
		w.instance(rig.Client(t), handlers{"work": work})
	}
	s := w.scheduler(rig.Client(t))
	dead, alive := w.segmentsOf(rig, rig.Master(t, w.segmentKey(0)))
	next := w.jobsIn(dead)
	for range 50 {
		job := next()
		job.Delay = 3 * time.Second // it is due while its place is away
		w.persist(s, job)
	}
	others := w.pump(s, w.jobsIn(alive))
	others.more(50)
	rig.KillShard(t, w.segmentKey(0))
	w.fault(2)
	for range 3 {
		_, err := w.submit(s, next())
		if !errors.Is(err, carillon.ErrUncertain) { // the first may have been on its way
			require.ErrorIs(t, err, carillon.ErrUnavailable)
		}
	}
	others.more(200)
	others.stop()
	rig.Heal(t)
	w.persist(s, next())
	w.finish(300)
}

// E5: a master joins and takes slots, gives them back, and goes. Clients follow,
// also those that still know it.
func TestE5_TopologyChanges(t *testing.T) {
	t.Parallel()
	onlyFull(t)
	rig := redistest.NewCluster(t)
	w := newWorld(t, rig.Client(t), spread)
	for range 2 {
		w.instance(rig.Client(t), handlers{"work": work})
	}
	p := w.pump(w.scheduler(rig.Client(t)), varied())
	p.more(50)
	added := rig.AddMaster(t)
	homes := map[int]*redistest.Server{}
	for segment := range w.segments {
		key := w.segmentKey(segment)
		homes[segment] = rig.Master(t, key)
		rig.Move(t, rig.Slot(t, key), added)
		w.fault(1)
	}
	p.more(200)
	for segment, home := range homes {
		rig.Move(t, rig.Slot(t, w.segmentKey(segment)), home)
	}
	rig.Remove(t, added)
	w.fault(1)
	p.more(100)
	gap := p.stop()
	v := w.finish(350)
	t.Logf("%d jobs, %v without an acknowledgement", v.Jobs, gap)
}

// E6: the job of a tick has a mutex, and so belongs to another slot than its
// schedule: it is noted where the tick is fired, submitted where it belongs, and
// the note is deleted. The instance that does so crashes at each of these
// steps, or Redis is away for a while, or the instance comes back and goes on.
// There is one job, and it runs soon.
func TestE6_CrashBetweenTwoSlots(t *testing.T) {
	t.Parallel()
	const segments = 4
	mutex := "m"
	for segmentOf(mutex, segments) == segmentOf("tick", segments) {
		mutex += "m"
	}
	for _, c := range []struct {
		command string
		fault   faulthook.Fault
		outage  bool // the instance lives on
	}{
		{"fire", faulthook.KillBefore, false},
		{"fire", faulthook.KillAfter, false},
		{"submit", faulthook.KillBefore, false},
		{"submit", faulthook.KillAfter, false},
		{"hdel", faulthook.KillBefore, false},
		{"hdel", faulthook.KillAfter, false},
		{"fire", faulthook.KillAfter, true},
		{"submit", faulthook.KillBefore, true},
	} {
		t.Run(fmt.Sprintf("%s %v, outage %v", c.command, c.fault, c.outage), func(t *testing.T) {
			t.Parallel()
			server := redistest.Single(t, durable...) // which learns its scripts from the one that crashes
			w := newWorld(t, server.Client(t), func(w *world) { w.segments = segments })
			w.queue.Made(func(id string) bool { return strings.HasPrefix(id, "tick~") })
			var way route
			way.leads(server)
			rdb := way.client(t)
			crashed, back := make(chan struct{}), make(chan struct{})
			knobs.Hook(rdb, &faulthook.Hook{
				At: 1, Fault: c.fault,
				Match: func(words []string) bool { return slices.Contains(words[:min(len(words), 2)], c.command) },
				Kill: func() {
					way.leads(nil)
					close(crashed)
					<-back
				},
			})
			w.instance(rdb, handlers{"work": work})
			require.NoError(t, w.scheduler(server.Client(t)).Schedule(t.Context(), carillon.Schedule{
				Name: "tick", Spec: carillon.At(time.Now().Add(2 * time.Second)),
				Job: carillon.Job{Name: "work", Mutex: mutex},
			}))
			select {
			case <-crashed:
			case <-time.After(soon):
				require.Fail(t, "no fault took effect")
			}
			w.fault(1)
			if c.outage {
				_ = wait(t.Context(), 1500*time.Millisecond) // longer than one call tries
				way.leads(server)
				close(back)
			} else {
				w.instance(server.Client(t), handlers{"work": work})
			}
			var jobs []*carillon.JobInfo
			require.Eventually(t, func() bool {
				jobs, _ = listed(t.Context(), w.observer)
				return len(jobs) > 0 && jobs[0].State.Final()
			}, 10*time.Second, 20*time.Millisecond, "the tick has its job soon")
			if !c.outage {
				way.leads(server) // it comes back, and goes on where it was
				close(back)
			}
			w.finish(0)
			jobs, err := listed(t.Context(), w.observer)
			require.NoError(t, err)
			require.Len(t, jobs, 1)
			assert.Equal(t, carillon.StateSucceeded, jobs[0].State)
			assert.NotEmpty(t, w.queue.Runs(jobs[0].ID))
		})
	}
}

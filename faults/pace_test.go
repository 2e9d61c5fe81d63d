package faults_test

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/faultnet"
	"github.com/carillon-go/carillon/internal/redistest"
	"github.com/carillon-go/carillon/internal/verify"
)

// C6: the network is slow: 20 to 200 ms each way (200 to 2000 ms in the full
// tier), a byte at a time, 10 kB a second. Everything is done once, nobody is
// taken for dead, and no mutex is given up, for the lease has a margin.
func TestC6_SlowNetwork(t *testing.T) {
	t.Parallel()
	lease, jitter := 6*time.Second, faultnet.Faults{Latency: 20 * time.Millisecond, Jitter: 180 * time.Millisecond}
	if full {
		lease, jitter = 15*time.Second, faultnet.Faults{Latency: 200 * time.Millisecond, Jitter: 1800 * time.Millisecond}
	}
	for name, slow := range map[string]faultnet.Faults{
		"latency with jitter": jitter,
		"a byte at a time":    {Slice: 1},
		"10 kB a second":      {Bandwidth: 10_000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Shared(t)
			w := newWorld(t, server.Client(t), func(w *world) { w.lease = lease })
			var lost atomic.Int64
			h := handlers{"work": work, "long": func(ctx context.Context, _ *carillon.Execution) error {
				if wait(ctx, lease/3) != nil {
					lost.Add(1)
				}
				return nil
			}}
			rdb, net := behind(t, server, func(o *redis.Options) { o.ReadTimeout = 5 * time.Second })
			producer := w.instance(rdb, h)
			w.instance(rdb, h)
			w.load(producer, 20, carillon.Job{Name: "work"}) // scripts are loaded, connections made
			net.Set(slow)
			payload := strings.Repeat("x", 500)
			w.persist(producer, carillon.Job{Name: "long", Mutex: "m"})
			w.load(producer, 16, carillon.Job{Name: "work", Args: payload})
			w.load(producer, 3, carillon.Job{Name: "work", Args: payload, Mutex: "n"})
			w.settled()
			w.fault(min(net.Took(), 1))
			net.Set(faultnet.Faults{})
			assert.Zero(t, lost.Load(), "the mutex was given up")
			w.once()
			w.finish(40)
		})
	}
}

// tardy is what a busy machine may add: less than the 10 s for which go-redis alone would wait.
const tardy = 6 * time.Second

// C7: the peers of an instance's connections are gone and did not say so. The
// only instance notices, dials again, and takes the jobs that Redis had
// delivered into the void, while its lease lasts: nobody is charged.
func TestC7_HalfOpenPeer(t *testing.T) {
	t.Parallel()
	server := redistest.Shared(t)
	w := newWorld(t, server.Client(t), func(w *world) { w.lease = 5 * time.Second })
	rdb, net := behind(t, server)
	s := w.instance(rdb, handlers{"work": work})
	producer := w.scheduler(server.Client(t))
	w.load(producer, 20, carillon.Job{Name: "work"})
	w.settled()
	net.Set(faultnet.Faults{HalfOpen: true})
	w.fault(net.Took())
	began := time.Now()
	w.load(producer, 50, carillon.Job{Name: "work"})
	w.settled()
	took := time.Since(began)
	t.Logf("C7: lease %v: the jobs were done %v after the peers fell silent", w.lease, took)
	assert.Less(t, took, w.lease/2+time.Second+tardy, "a read may block for half a lease, and is given up a second later")
	w.once()
	w.shutdown(s) // its farewell may go to a peer that is gone
	w.instance(server.Client(t), nil)
	w.outlived()
	w.finish(70)
}

// C8: the instance that promotes and fires is cut off, in three ways, while the
// worker is fine. Another instance is there in its place: what is due is late by
// a look, and no tick is fired twice or early.
func TestC8_PromoterCutOff(t *testing.T) { //nolint:tparallel // see below
	// Not parallel: its bounds are those of a promise, whatever other rows do to the machine.
	lease, every, lasts := 900*time.Millisecond, 500*time.Millisecond, 2*time.Second
	if full {
		lease, every, lasts = 10*time.Second, 2*time.Second, 13*time.Second
	}
	const late = 1500 * time.Millisecond // the promise for the default lease
	for name, fault := range map[string]faultnet.Faults{
		"cut":        {Cut: true},
		"blackhole":  {Up: true, Down: true},
		"no replies": {Down: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Shared(t)
			w := newWorld(t, server.Client(t), func(w *world) { w.lease = lease })
			w.queue.Made(func(id string) bool { return strings.HasPrefix(id, "beat~") })
			nets, promoter := w.promoters(server)
			producer := w.scheduler(server.Client(t))
			require.NoError(t, producer.Schedule(t.Context(), carillon.Schedule{
				Name: "beat", Spec: carillon.Every(every), Job: carillon.Job{Name: "beat"},
			}))
			w.eventually("the schedule fires", func() bool { return len(w.listed("beat")) > 0 })

			due := map[string]time.Time{}
			cut := w.now()
			nets[promoter].Set(fault)
			for delay := time.Duration(0); delay < lasts; delay += lasts / 40 {
				at := w.now().Add(delay)
				due[w.persist(producer, carillon.Job{Name: "work", RunAt: at})] = at
			}
			w.passes(lasts)
			w.fault(min(nets[promoter].Took(), 1))
			require.NoError(t, producer.Unschedule(t.Context(), "beat"))
			w.settled()
			var slowest time.Duration
			for id, at := range due {
				info, err := w.get(id)
				require.NoError(t, err)
				started := info.Attempts[0].StartedAt
				assert.False(t, started.Before(at.Truncate(time.Millisecond)), "%s is early", id)
				slowest = max(slowest, started.Sub(at))
			}
			beats := w.listed("beat")
			var planned []time.Time
			for tick := beats[0].Tick; !tick.After(beats[len(beats)-1].Tick); tick = tick.Add(every) {
				planned = append(planned, tick)
			}
			findings := verify.Ticks(planned, beats, late)
			slowestTick := time.Duration(0)
			for _, b := range beats {
				if b.Tick.After(cut) {
					slowestTick = max(slowestTick, b.SubmittedAt.Sub(b.Tick))
				}
			}
			t.Logf("C8 %s: lease %v: jobs were late by at most %v, %d ticks by at most %v", name, lease, slowest, len(beats), slowestTick)
			assert.LessOrEqual(t, slowest, late)
			assert.Empty(t, findings)
			assert.GreaterOrEqual(t, len(beats), int(lasts/every))
			nets[promoter].Set(faultnet.Faults{})
			w.finish(40)
		})
	}
}

// promoters starts three instances that only promote and fire, each behind a
// network of its own, and a worker. It tells which one owns the segment.
func (w *world) promoters(server *redistest.Server) (nets []*faultnet.Net, promoter int) {
	w.t.Helper()
	nobody := func(c *carillon.Config) { c.Queues = map[string]int{"nobody's": 1} }
	var renewed [3]atomic.Int64
	for i := range renewed {
		rdb, net := behind(w.t, server)
		net.Set(faultnet.Faults{Command: func(words []string) faultnet.Fate {
			if len(words) > 3 && strings.Contains(words[3], "segment/") { // it renews its lease of the segment
				renewed[i].Add(1)
			}
			return faultnet.Pass
		}})
		nets = append(nets, net)
		w.instance(rdb, nil, nobody)
	}
	h := handlers{"work": work, "beat": work}
	for range 20 { // until the worker is not the owner
		worker := w.instance(server.Client(w.t), h)
		w.seasoned()
		for i := range renewed {
			renewed[i].Store(0)
		}
		w.passes(2 * w.lease)
		for i := range renewed {
			if renewed[i].Load() > 1 {
				return nets, i
			}
		}
		w.shutdown(worker)
	}
	require.Fail(w.t, "no promoter")
	return nil, 0
}

// listed returns the jobs of a name, by tick. One that moves meanwhile is listed twice.
func (w *world) listed(name string) (all []*carillon.JobInfo) {
	w.t.Helper()
	for info, err := range w.observer.List(w.t.Context(), carillon.Filter{Name: name}) {
		require.NoError(w.t, err)
		all = append(all, info)
	}
	slices.SortFunc(all, func(a, b *carillon.JobInfo) int { return cmp.Or(a.Tick.Compare(b.Tick), cmp.Compare(a.ID, b.ID)) })
	return slices.CompactFunc(all, func(a, b *carillon.JobInfo) bool { return a.ID == b.ID })
}

// now is Redis' time.
func (w *world) now() time.Time {
	w.t.Helper()
	now, err := w.admin.Time(w.t.Context()).Result()
	require.NoError(w.t, err)
	return now
}

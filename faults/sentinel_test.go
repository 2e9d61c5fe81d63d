package faults_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
	"github.com/carillon-go/carillon/internal/verify"
)

// D1: the primary dies under load. Replication is asynchronous, so jobs that
// were acknowledged can be lost, and are counted; but nothing stalls.
func TestD1_PrimaryKilled(t *testing.T) {
	t.Parallel()
	rig := redistest.NewSentinel(t)
	w := newWorld(t, rig.Client(t))
	w.mayLose()
	for range 2 {
		w.instance(rig.Client(t), handlers{"work": work})
	}
	producer := w.scheduler(rig.Client(t))
	p := w.pump(producer, varied())
	p.more(100)
	rig.KillPrimary(t)
	w.fault(1)
	p.more(100)
	gap := p.stop()
	rig.Heal(t)
	assert.Less(t, gap, 10*time.Second, "the failover takes a second or two")
	w.sound(producer, 50)
	v := w.finish(200)
	t.Logf("%d jobs, %d lost, %v without an acknowledgement", v.Jobs, len(v.Forgotten), gap)
}

// D2: a replica that has missed the last writes is promoted. Jobs whose end it
// has missed run again at once, and a mutex never gets a token a second time.
func TestD2_LaggingReplicaPromoted(t *testing.T) {
	t.Parallel()
	onlyFull(t)
	const early = 30
	rig := redistest.NewSentinel(t)
	w := newWorld(t, rig.Client(t))
	w.mayLose()
	producer := w.scheduler(rig.Client(t))
	for range early {
		w.persist(producer, carillon.Job{Name: "guarded", Mutex: "m"})
	}
	known := w.queue.Acked()
	require.EqualValues(t, 2, rig.Primary(t).Client(t).Wait(t.Context(), 2, soon).Val())
	rig.CutReplicas(t)
	w.fault(1)

	var g grants
	for range 2 {
		w.instance(rig.Client(t), handlers{"work": work, "guarded": g.handle})
	}
	p := w.pump(producer, varied())
	p.more(50)
	w.eventually("the old primary has seen all end", func() bool {
		for _, id := range known {
			if info, err := w.get(id); err != nil || !info.State.Final() {
				return false
			}
		}
		return true
	})
	rig.KillPrimary(t)
	w.fault(1)
	p.more(50)
	p.stop()
	rig.Heal(t)
	v := w.finish(early + 100)
	assert.NotEmpty(t, v.Forgotten, "the replica has missed nothing")
	for _, id := range known {
		assert.Greater(t, len(w.queue.Runs(id)), 1, "%s: its end was lost, and it did not run again", id)
	}
	assert.Empty(t, g.wrong())
}

// grants watches the tokens of a mutex.
type grants struct {
	mu       sync.Mutex
	holders  map[uint64]string
	largest  uint64
	findings []string
}

func (g *grants) handle(ctx context.Context, x *carillon.Execution) error {
	g.note(x.MutexToken, x.ID)
	return work(ctx, x)
}

// note: a token that is not known must be larger than all others; one that is
// known belongs to a job that runs again under the same dispatch.
func (g *grants) note(token uint64, id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.holders == nil {
		g.holders = map[uint64]string{}
	}
	switch holder := g.holders[token]; {
	case holder == "" && token <= g.largest:
		g.findings = append(g.findings, fmt.Sprintf("%s has token %d after %d", id, token, g.largest))
	case holder != "" && holder != id:
		g.findings = append(g.findings, fmt.Sprintf("%s and %s have token %d", id, holder, token))
	}
	g.holders[token], g.largest = id, max(g.largest, token)
}

func (g *grants) wrong() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.findings
}

// D3: the sentinels promote another server while a part of the instances still
// reaches the old primary, and both accept jobs. What the old one accepts since
// then is lost. A resource that looks at tokens misses no update.
func TestD3_SplitBrain(t *testing.T) {
	t.Parallel()
	onlyFull(t)
	rig := redistest.NewSentinel(t)
	w := newWorld(t, rig.Client(t))
	w.mayLose()
	var way route
	way.leads(rig.Primary(t))
	count := newFencedCount(t)
	for _, rdb := range []*redis.Client{rig.Client(t), way.client(t)} {
		w.instance(rdb, handlers{"work": work, "count": count.handle})
	}
	sides := []*carillon.Scheduler{w.scheduler(rig.Client(t)), w.scheduler(way.client(t))}
	var pumps []*pump
	for _, s := range sides {
		pumps = append(pumps, w.pump(s, always(carillon.Job{Name: "work"})))
	}
	each := func(f func(*pump)) {
		for _, p := range pumps {
			f(p)
		}
	}
	each(func(p *pump) { p.more(30) })

	_, promoted := rig.Split(t)
	w.fault(1)
	for _, s := range sides { // the mutex is granted on both sides at the same time
		pumps = append(pumps, w.pump(s, always(carillon.Job{Name: "count", Mutex: "m"})))
	}
	each(func(p *pump) { p.more(50) })
	require.Eventually(t, func() bool { // long before the old primary is demoted
		id := w.persist(sides[0], carillon.Job{Name: "work"})
		return promoted.Client(t).Exists(t.Context(), fmt.Sprintf("{%s:0}:j:%s", w.namespace, id)).Val() == 1
	}, 5*time.Second, 50*time.Millisecond, "who asks the sentinels goes to the new primary")
	w.eventually("two hold the mutex, and one is refused", func() bool {
		return count.register.Value("m") > 20 && count.refused.Load() > 0
	})

	rig.Heal(t)
	require.Same(t, promoted, rig.Primary(t))
	way.leads(promoted)
	each(func(p *pump) { p.more(10) })
	each(func(p *pump) { p.stop() })
	v := w.finish(200)
	assert.NotEmpty(t, v.Forgotten, "the old primary accepted nothing")
	assert.EqualValues(t, count.done.Load(), count.register.Value("m"), "updates of the fenced resource are lost")
}

// fencedCount adds one to a fenced number outside of Redis: read, think, write.
type fencedCount struct {
	register      *verify.Register
	client        *verify.RegisterClient
	done, refused atomic.Int64
}

func newFencedCount(t testing.TB) *fencedCount {
	t.Helper()
	c := &fencedCount{register: verify.NewRegister(t)}
	var err error
	c.client, err = verify.DialRegister(c.register.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.client.Close() })
	return c
}

func (c *fencedCount) handle(ctx context.Context, x *carillon.Execution) error {
	n, ok, err := c.client.Read("m", x.MutexToken)
	if err == nil && ok {
		_ = wait(ctx, 2*time.Millisecond)
		ok, err = c.client.Write("m", x.MutexToken, n+1)
	}
	switch {
	case err != nil:
		return err
	case ok:
		c.done.Add(1)
	default:
		c.refused.Add(1)
	}
	return nil
}

// D5: all sentinels are gone. The primary is there, and works on; who comes new
// is told what is missing.
func TestD5_SentinelsKilled(t *testing.T) {
	t.Parallel()
	onlyFull(t)
	rig := redistest.NewSentinel(t)
	w := newWorld(t, rig.Servers()[0].Client(t))
	w.instance(rig.Client(t), handlers{"work": work})
	p := w.pump(w.scheduler(rig.Client(t)), varied())
	p.more(50)
	rig.KillSentinels()
	w.fault(1)
	for range 3 { // for longer than connections live
		ends := time.Now().Add(time.Second)
		w.eventually("time passes", func() bool { return time.Now().After(ends) })
		p.more(20)
	}

	gap := p.stop()
	opts := rig.Options()
	opts.MaxRetries, opts.DialerRetries = -1, 1 // or go-redis looks for sentinels for half a minute
	stranger := redis.NewFailoverClient(opts)
	defer func() { _ = stranger.Close() }()
	newcomer := w.scheduler(stranger)
	_, err := newcomer.Submit(t.Context(), carillon.Job{Name: "work"})
	require.ErrorIs(t, err, carillon.ErrUnavailable)
	require.ErrorContains(t, err, "sentinel")

	rig.Heal(t)
	w.persist(newcomer, carillon.Job{Name: "work"})
	assert.Less(t, gap, 2*time.Second, "the primary was there all the time")
	w.finish(111)
}

package faults_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/faultnet"
	"github.com/carillon-go/carillon/internal/redistest"
)

// patience is how long the clients of these tests wait for a reply: a busy machine
// may need a part of it.
const patience = time.Second

// behind returns a client of a server, and the network that is between them.
func behind(t testing.TB, server *redistest.Server, edit ...func(*redis.Options)) (redis.UniversalClient, *faultnet.Net) {
	t.Helper()
	o := server.Options()
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout = patience, patience, patience
	for _, f := range edit {
		f(o)
	}
	direct := redis.NewClient(o)
	t.Cleanup(func() { _ = direct.Close() })
	n := faultnet.New(t, seed)
	return n.Client(t, direct), n
}

// seasoned waits until all instances are older than a lease: before that they
// declare nobody dead.
func (w *world) seasoned() {
	w.t.Helper()
	w.eventually("the instances are older than a lease", func() bool {
		all, err := w.observer.Instances(w.t.Context())
		for _, in := range all {
			if in.Heartbeat.Sub(in.StartedAt) < w.lease*4/3 {
				return false
			}
		}
		return err == nil && len(all) > 0
	})
}

// attempts is a handler whose attempts report and wait until they are let go; the
// result of a job is the attempt's number. They are deaf to their contexts,
// except for jobs with a mutex.
type attempts struct {
	mu    sync.Mutex
	begun map[string][]time.Time // of each attempt, by job
	ends  map[string][]stop      // of attempts that were to stop
	gates map[string]chan struct{}
}

// stop is when a context ended, and why.
type stop struct {
	at    time.Time
	cause error
}

func newAttempts() *attempts {
	return &attempts{begun: map[string][]time.Time{}, ends: map[string][]stop{}, gates: map[string]chan struct{}{}}
}

func (a *attempts) run(ctx context.Context, x *carillon.Execution) error {
	a.mu.Lock()
	a.begun[x.ID] = append(a.begun[x.ID], time.Now())
	a.mu.Unlock()
	deaf := context.Background()
	if x.MutexToken != 0 {
		deaf = ctx
	}
	select {
	case <-a.gate(x.ID, x.Attempt):
	case <-deaf.Done():
		at := time.Now()
		a.mu.Lock()
		defer a.mu.Unlock()
		a.ends[x.ID] = append(a.ends[x.ID], stop{at, context.Cause(ctx)})
		return context.Cause(ctx)
	}
	return x.SetResult(x.Attempt)
}

func (a *attempts) gate(id string, attempt int) chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := fmt.Sprintf("%s %d", id, attempt)
	if a.gates[key] == nil {
		a.gates[key] = make(chan struct{})
	}
	return a.gates[key]
}

func (a *attempts) pass(id string, attempt int) { close(a.gate(id, attempt)) }

// started tells when the attempts of a job began.
func (a *attempts) started(id string) []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.begun[id])
}

// stopped tells which attempts of a job were to stop.
func (a *attempts) stopped(id string) []stop {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.ends[id])
}

// silences are blackholes in both directions. What was sent into the second one
// arrives when it is over, as if the packets had been sent again.
var silences = map[string]faultnet.Faults{
	"for good": {Up: true, Down: true},
	"late":     {Up: true, Down: true, Late: true},
}

// C1: an instance is cut off for two leases. Its job with a mutex stops by
// itself before somebody else can have the mutex, all its jobs run elsewhere, and
// what it says when it is back is refused.
func TestC1_BlackholeForTwoLeases(t *testing.T) { //nolint:tparallel // see below
	// Not parallel: its bounds are those of a promise, whatever other rows do to the machine.
	for name, silence := range silences {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Shared(t)
			w := newWorld(t, server.Client(t), func(w *world) { w.lease = 1500 * time.Millisecond })
			a := newAttempts()
			h := handlers{"hold": a.run, "work": work}
			rdb, net := behind(t, server)
			w.instance(rdb, h)
			all, err := w.observer.Instances(t.Context())
			require.NoError(t, err)
			doomed := all[0].ID
			producer := w.scheduler(server.Client(t))
			plain := w.persist(producer, carillon.Job{Name: "hold"})
			exclusive := w.persist(producer, carillon.Job{Name: "hold", Mutex: "m"})
			w.eventually("both run", func() bool { return len(a.started(plain)) > 0 && len(a.started(exclusive)) > 0 })
			w.instance(server.Client(t), h)
			w.seasoned()
			// A busy machine may have moved a job before: what counts is what follows the cut.
			first := map[string]int{}
			for _, id := range []string{plain, exclusive} {
				info, err := w.get(id)
				require.NoError(t, err)
				require.Equal(t, doomed, info.Attempts[len(info.Attempts)-1].Instance, "the job has left before the cut")
				first[id] = len(a.started(id))
			}
			stopped := len(a.stopped(exclusive))

			cut := time.Now()
			net.Set(silence)
			w.eventually("the mutex is given up", func() bool { return len(a.stopped(exclusive)) > stopped })
			gaveUp := a.stopped(exclusive)[stopped]
			assert.ErrorIs(t, gaveUp.cause, carillon.ErrLeaseLost)
			w.eventually("both run elsewhere", func() bool {
				return len(a.started(plain)) > first[plain] && len(a.started(exclusive)) > first[exclusive]
			})
			again := map[string]time.Time{plain: a.started(plain)[first[plain]], exclusive: a.started(exclusive)[first[exclusive]]}
			assert.Greater(t, again[exclusive], gaveUp.at, "two at a time had the mutex")
			t.Logf("C1 %s: lease %v: stopped after %v, ran elsewhere after %v and %v", name, w.lease,
				gaveUp.at.Sub(cut), again[plain].Sub(cut), again[exclusive].Sub(cut))
			w.passes(time.Until(cut.Add(2 * w.lease)))
			w.fault(min(net.Took(), 1))
			net.Set(faultnet.Faults{})
			a.pass(plain, first[plain]) // its outcome is refused
			w.load(producer, 50, carillon.Job{Name: "work"})
			w.eventually("both instances are back", func() bool {
				all, err := w.observer.Instances(t.Context())
				return err == nil && len(all) == 2 && all[0].Alive && all[1].Alive
			})
			info, err := w.get(plain)
			require.NoError(t, err)
			assert.Equal(t, carillon.StateRunning, info.State, "the stale outcome was taken")
			for _, id := range []string{plain, exclusive} {
				for n := range 10 {
					a.pass(id, first[id]+1+n)
				}
			}
			w.finish(52)
			for _, id := range []string{plain, exclusive} {
				info, err := w.get(id)
				require.NoError(t, err)
				assert.NotEqual(t, fmt.Sprint(first[id]), string(info.Result), "the stale attempt's result")
				assert.Equal(t, carillon.StateSucceeded, info.State)
				assert.GreaterOrEqual(t, info.Losses, 1)
			}
		})
	}
}

// C1: an instance ends while it is cut off. What it had sent arrives when the
// blackhole is over and nobody is there any more: it takes jobs, which are found
// by the sweep for strays, every 2 min. Only the read of a second queue can do
// that: the other one is for the instance's own queue as well, which is gone, and
// Redis refuses it.
func TestC1_GoneWhenItsCommandsArrive(t *testing.T) {
	onlyFull(t)
	t.Parallel()
	server := redistest.Shared(t)
	w := newWorld(t, server.Client(t))
	a := newAttempts()
	h := handlers{"hold": a.run}
	rdb, net := behind(t, server)
	ghost := w.instance(rdb, h, func(c *carillon.Config) { c.Queues = map[string]int{"default": 1, "second": 16} })
	all, err := w.observer.Instances(t.Context())
	require.NoError(t, err)
	id := all[0].ID
	w.instance(server.Client(t), h, func(c *carillon.Config) { c.Queues = map[string]int{"second": 1} })
	w.seasoned()
	sent, arrive := make(chan struct{}), make(chan struct{})
	var once sync.Once
	second := func(word string) bool { return strings.HasSuffix(word, ":second") }
	net.Set(faultnet.Faults{Command: func(words []string) faultnet.Fate {
		if words[0] == "xreadgroup" && slices.Contains(words, "block") && slices.ContainsFunc(words, second) {
			once.Do(func() { close(sent) })
			<-arrive
		}
		return faultnet.Pass
	}})
	<-sent
	net.Set(silences["late"])
	ctx, cancel := context.WithTimeout(t.Context(), 2*w.lease)
	defer cancel()
	require.Error(t, ghost.Shutdown(ctx), "it could not take its leave")
	w.eventually("it is declared dead", func() bool {
		all, err := w.observer.Instances(t.Context())
		return err == nil && len(all) == 1
	})
	var jobs []string
	producer := w.scheduler(server.Client(t))
	for range 20 {
		jobs = append(jobs, w.persist(producer, carillon.Job{Name: "hold", Queue: "second"}))
	}
	net.Set(faultnet.Faults{})
	close(arrive)
	taken := func() (n int) {
		for _, job := range jobs {
			info, err := w.get(job)
			require.NoError(t, err)
			if last := len(info.Attempts) - 1; info.State == carillon.StateRunning && info.Attempts[last].Instance == id {
				n++
			}
		}
		return n
	}
	w.eventually("late commands take jobs", func() bool { return taken() > 0 })
	began := time.Now()
	w.fault(taken())
	for _, job := range jobs {
		a.pass(job, 1)
		a.pass(job, 2)
	}
	require.Eventually(t, func() bool { return taken() == 0 }, 2*time.Minute+soon, time.Second, "they are stuck")
	t.Logf("C1: jobs that went to an instance that was gone came back after %v", time.Since(began))
	w.finish(20)
}

// C2: requests are delivered and replies are lost, again and again, for workers
// and for whoever submits. What was done and not heard of is not done twice.
func TestC2_RepliesDropped(t *testing.T) {
	t.Parallel()
	server := redistest.Shared(t)
	w := newWorld(t, server.Client(t), func(w *world) { w.lease = 2 * time.Second })
	h := handlers{"work": work}
	rdb, net := behind(t, server)
	producer := w.instance(rdb, h)
	w.instance(rdb, h)
	w.load(producer, 20, carillon.Job{Name: "work"})
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.load(producer, 400, carillon.Job{Name: "work"})
	}()
	random := dice(t)
	for range 4 {
		before, accepted := net.Took(), len(w.queue.Acked())
		net.Set(faultnet.Faults{Down: true})
		w.eventually("replies are lost", func() bool { return net.Took() > before+2 || isClosed(done) })
		w.passes(time.Duration(random.Int64N(int64(patience))))
		w.fault(min(net.Took()-before, 1))
		net.Set(faultnet.Faults{})
		w.eventually("it goes on", func() bool { return len(w.queue.Acked()) > accepted+10 || isClosed(done) })
	}
	<-done
	w.finish(420)
}

// uncertain counts the replies that are lost when one in n of those to scripts
// and reads is: the connection is closed instead.
func uncertain(n int, lost *atomic.Int64) faultnet.Faults {
	var seen atomic.Int64
	return faultnet.Faults{Reply: func(words []string, reply []byte) faultnet.Fate {
		if !strings.HasPrefix(words[0], "eval") && words[0] != "xreadgroup" || strings.HasPrefix(string(reply), "-NOSCRIPT") ||
			seen.Add(1)%int64(n) != 0 {
			return faultnet.Pass
		}
		lost.Add(1)
		return faultnet.HangUp
	}}
}

// C4: the caller's client tries again by itself when a connection breaks. On
// Redis Cluster the client of an instance does so, too, for go-redis knows no
// other way there. One reply in ten is lost after the command was executed; no
// job is executed twice, none is charged.
func TestC4_ClientTriesAgain(t *testing.T) {
	t.Parallel()
	t.Run("one server", func(t *testing.T) {
		t.Parallel()
		server := redistest.Shared(t)
		rdb, net := behind(t, server, func(o *redis.Options) { o.MaxRetries, o.ReadTimeout = 3, 5*time.Second })
		triesAgain(t, server.Client(t), rdb, net)
	})
	t.Run("Cluster", func(t *testing.T) {
		t.Parallel()
		cluster := redistest.SharedCluster(t)
		net := faultnet.New(t, seed)
		triesAgain(t, cluster.Client(t), net.Client(t, cluster.Client(t)), net)
	})
}

func triesAgain(t *testing.T, admin, rdb redis.UniversalClient, net *faultnet.Net) {
	t.Helper()
	w := newWorld(t, admin, func(w *world) { w.lease = 5 * time.Second })
	h := handlers{"work": work}
	producer := w.instance(rdb, h)
	w.instance(rdb, h)
	w.load(producer, 20, carillon.Job{Name: "work"})
	var lost atomic.Int64
	net.Set(uncertain(10, &lost))
	jobs := 80
	if full {
		jobs = 400
	}
	w.load(producer, jobs, carillon.Job{Name: "work"})
	w.load(producer, jobs/8, carillon.Job{Name: "work", Mutex: "m"})
	w.settled()
	net.Set(faultnet.Faults{})
	w.fault(int(lost.Load()))
	assert.Greater(t, lost.Load(), int64(5), "replies lost")
	w.once()
	w.finish(20 + jobs + jobs/8)
}

// C5: replies are cut to 1 to 64 bytes (each of them in the full tier). A call gives the right answer or an
// error, never another call's answer or half of one.
func TestC5_ReplyCutToAFewBytes(t *testing.T) {
	t.Parallel()
	server := redistest.Shared(t)
	w := newWorld(t, server.Client(t), func(w *world) { w.lease = 5 * time.Second })
	producer := w.scheduler(server.Client(t))
	jobs := make([]string, 20)
	for i := range jobs {
		jobs[i] = w.persist(producer, carillon.Job{Name: "work", Args: i, Delay: time.Hour, Tags: []string{fmt.Sprint("tag-", i)}})
	}
	rdb, net := behind(t, server, func(o *redis.Options) { o.ReadTimeout = 5 * time.Second })
	s := w.instance(rdb, handlers{"work": work})
	var replies, right, wrong, tokens atomic.Int64
	sizes := []int{1, 2, 3, 4, 5, 6, 8, 11, 16, 23, 32, 45, 64}
	if full {
		sizes = nil
		for size := range 64 {
			sizes = append(sizes, size+1)
		}
	}
	for _, size := range sizes {
		before := net.Took()
		net.Set(faultnet.Faults{Reply: func(words []string, reply []byte) faultnet.Fate {
			if words[0] == "hello" || len(reply) <= size || replies.Add(1)%5 != 0 {
				return faultnet.Pass
			}
			return faultnet.HangUpAfter(size)
		}})
		var calls sync.WaitGroup
		for i := range 8 {
			calls.Go(func() { // answers that belong to others would be theirs
				for j := range 3 {
					i := (i + j) % len(jobs)
					id := jobs[i]
					info, err := s.Get(t.Context(), id)
					switch {
					case err == nil && assert.Equal(t, id, info.ID) && assert.Equal(t, fmt.Sprint(i), string(info.Args)) &&
						assert.Equal(t, []string{fmt.Sprint("tag-", i)}, info.Tags):
						right.Add(1)
					default:
						wrong.Add(1)
						assert.NotErrorIs(t, err, carillon.ErrNotFound)
						assert.NotErrorIs(t, err, carillon.ErrDamaged)
					}
				}
			})
		}
		calls.Go(func() { // tokens of a lease grow
			l, err := s.TryLock(t.Context(), "lock")
			if err != nil {
				return
			}
			token := int64(l.Token())
			assert.Greater(t, token, tokens.Swap(token))
			_ = l.Release(t.Context())
		})
		calls.Go(func() { w.persist(s, carillon.Job{Name: "work"}) })
		calls.Wait()
		w.fault(min(net.Took()-before, 1))
		assert.Greater(t, net.Took(), before, "no reply was cut to %d bytes", size)
	}
	net.Set(faultnet.Faults{})
	assert.Greater(t, right.Load(), wrong.Load(), "most calls succeed")
	assert.Positive(t, tokens.Load())
	for _, id := range jobs {
		require.NoError(t, s.Cancel(t.Context(), id))
	}
	w.finish(len(jobs) + len(sizes))
}

package carillon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-go/carillon/internal/knobs"
	"github.com/carillon-go/carillon/store"
)

// instance is one run of a Scheduler. It owns every goroutine of that run:
//
//	readers     one a queue (on Redis Cluster one a queue and segment), one for its own
//	executions  one a running job
//	settlers    two, send outcomes in groups (with many segments one)
//	pulse       one, sends heartbeats and watches the local deadline
//	keepers     one a segment: promotes, fires, reclaims, trims
//	listener    one, passes hints on
//
// They end in the order of [instance.shutdown].
type instance struct {
	scheduler *Scheduler
	store     *store.Store
	config    Config
	log       *slog.Logger
	id        string
	handlers  map[string]registration
	queues    []string // of Config, and its own
	knobs     knobs.Knobs
	started   time.Time

	pools      map[string]*pool
	readers    []*reader
	block      time.Duration // of a round, in which a read blocks at most once
	running    roster
	settler    *settler
	keepers    []*keeper
	clock      clock
	alive      []time.Time // of each segment: when the last heartbeat that got through was sent; for pulse
	census     string      // stands for the live instances that the keepers know; for pulse
	warned     onceEach
	finished   atomic.Int64 // outcomes recorded
	pauseHints atomic.Int64
	left       chan struct{} // another instance has left
	stopping   atomic.Bool   // no new attempt starts

	base          context.Context // never ends; parent of all handlers' contexts
	reading       context.Context // ends first
	stopReading   context.CancelFunc
	jobs          context.Context // ends with the time for running jobs
	stopJobs      context.CancelFunc
	keeping       context.Context // heartbeat, keepers, listener: ends last
	stopKeeping   context.CancelFunc
	readLoops     sync.WaitGroup
	keepLoops     sync.WaitGroup
	unlistenHints func()
	startEnded    chan struct{}
}

func newInstance(ctx context.Context, s *Scheduler, handlers map[string]registration) *instance {
	in := &instance{
		scheduler: s, store: s.store, config: s.config, id: store.NewID(), handlers: handlers,
		queues: slices.Sorted(maps.Keys(s.config.Queues)), knobs: knobs.From(ctx), started: time.Now(),
		pools: make(map[string]*pool), startEnded: make(chan struct{}), left: make(chan struct{}, 1),
	}
	in.queues = append(in.queues, store.OwnQueue(in.id))
	in.config.LeaseTTL = cmp.Or(in.knobs.Lease, in.config.LeaseTTL)
	in.log = s.log.With("instance", in.id)
	in.base = context.WithoutCancel(ctx)
	in.reading, in.stopReading = context.WithCancel(in.base)
	in.jobs, in.stopJobs = context.WithCancel(in.base)
	in.keeping, in.stopKeeping = context.WithCancel(in.base)
	in.settler = newSettler(in)
	return in
}

// blockTime is how long a read may block, and with a short lease half of that.
// Longer ones suffer from a server bug (redis/redis#12998) and notice a dead
// connection later; and the read of a process that freezes has to end before its
// lease does, for what it took after that would belong to nobody.
const blockTime = 5 * time.Second

// start checks the server, registers the instance and starts its goroutines.
func (in *instance) start(ctx context.Context) error {
	defer close(in.startEnded)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	unlink := context.AfterFunc(in.reading, func() { cancel(ErrClosed) })
	defer unlink()
	if err := in.retry(ctx, "check server", in.checkServer); err != nil {
		return err
	}
	if err := in.retry(ctx, "register", func(ctx context.Context) error {
		_, err := in.join(ctx)
		return err
	}); err != nil {
		return err
	}
	in.block = cmp.Or(in.knobs.Block, min(blockTime, in.config.LeaseTTL/2))
	for _, q := range in.queues {
		in.pools[q] = newPool(in.slots(q))
	}
	peers := make(map[string]int)
	for _, r := range in.store.Readers(in.id, in.queues) {
		peers[r.Queue]++
		in.readers = append(in.readers, &reader{instance: in, pool: in.pools[r.Queue], source: r})
	}
	for _, r := range in.readers {
		r.peers = peers[r.source.Queue]
	}
	in.joinReads()
	for segment := range in.store.Segments() {
		k := newKeeper(in, segment)
		k.grace.begin()
		in.keepers = append(in.keepers, k)
		in.alive = append(in.alive, time.Now())
	}
	hints, unlisten := in.store.Control()
	in.unlistenHints = unlisten
	// Learns paused queues and live instances before the first read. When it
	// fails, the next heartbeat does.
	_ = in.pulse(ctx)
	in.keepLoops.Go(func() { in.listen(hints) })
	ended, unheard := in.store.Ended()
	in.unlistenHints = func() {
		unlisten()
		unheard()
	}
	in.keepLoops.Go(func() { in.hear(ended) })
	in.keepLoops.Go(in.insist)
	in.keepLoops.Go(in.beat)
	in.settler.start()
	for _, k := range in.keepers {
		in.keepLoops.Go(k.run)
	}
	for _, r := range in.readers {
		in.readLoops.Go(r.run)
	}
	in.log.Info("carillon: instance started", "namespace", in.config.Namespace, "queues", in.config.Queues, "handlers", len(in.handlers))
	return nil
}

// joinReads lets the reader of the own queue leave its waiting to one that can read
// both queues at once.
func (in *instance) joinReads() {
	guest := in.readers[len(in.readers)-1]
	for _, host := range in.readers[:len(in.readers)-1] {
		if v := newVigil(host, guest); v != nil {
			host.hostOf, guest.guestOf = v, v
			return
		}
	}
}

// round is how long the present round lasts. All blocking reads of the instance end
// with it, so that those which can be joined begin the next one together.
func (in *instance) round() time.Duration {
	return in.block - time.Since(in.started)%in.block
}

// retry calls f until it succeeds, fails for good, or ctx ends. A wrong password
// or certificate is for good: it may be put right while it waits, but whoever
// deploys has to hear of it, and what starts the process starts it again. An
// instance that runs already waits for that, as in an outage.
func (in *instance) retry(ctx context.Context, what string, f func(context.Context) error) error {
	wait := 100 * time.Millisecond
	var last error
	for {
		limit, cancel := context.WithTimeout(ctx, settleGrace) // or it says nothing for long
		err := f(limit)
		late := limit.Err() != nil
		cancel()
		if last != nil && err != nil && ctx.Err() != nil {
			return fmt.Errorf("%w; before that: %w", err, last)
		}
		if err == nil || !passing(err) || ctx.Err() != nil {
			return err
		}
		if last == nil || !late { // that time ran out says less
			last = err
		}
		in.log.Warn("carillon: "+what+": waiting for Redis", "error", err)
		pause(ctx, wait)
		wait = min(2*wait, 2*time.Second)
	}
}

// checkServer refuses servers on which promises cannot be kept. What a server
// does not let us see is taken to be right.
func (in *instance) checkServer(ctx context.Context) error {
	v, err := in.store.Inspect(ctx)
	if err != nil {
		return err
	}
	if v.TooOld() {
		return fmt.Errorf("the Redis server is version %s; at least 6.2 is needed", v.Version)
	}
	switch {
	case strings.HasPrefix(v.Eviction, "allkeys-"):
		return fmt.Errorf("the Redis server has maxmemory-policy %s, which deletes jobs when memory runs short; set it to noeviction", v.Eviction)
	case v.Eviction != "" && v.Eviction != "noeviction":
		in.log.Warn("carillon: the Redis server may delete leases when memory runs short; set maxmemory-policy to noeviction", "policy", v.Eviction)
	}
	in.log.Info("carillon: server", "version", v.Version, "persistence", v.Persistence)
	if v.Persistence == "none" {
		in.log.Warn("carillon: the Redis server persists nothing; jobs are lost when it restarts")
	}
	return nil
}

// join registers the instance in every segment, and tells which did not know it.
func (in *instance) join(ctx context.Context) ([]int, error) {
	host, _ := os.Hostname()
	data, err := json.Marshal(description{
		Host: host, PID: os.Getpid(), Version: in.config.Version, Started: in.started.UnixMilli(),
		Handlers: slices.Sorted(maps.Keys(in.handlers)), Queues: in.config.Queues, LeaseMS: in.config.LeaseTTL.Milliseconds(),
	})
	if err != nil {
		return nil, err
	}
	return in.store.Join(ctx, in.id, in.config.LeaseTTL, data, in.queues)
}

// rejoin registers the instance where it is not known any more. The server may
// have lost everything, and then somebody has to say so.
func (in *instance) rejoin(ctx context.Context) (dead []int, err error) {
	gone, err := in.store.Forgotten(ctx)
	if gone && in.warned.lately("gone") {
		in.log.Error("carillon: the server has lost the namespace; the jobs and schedules it held are gone", "namespace", in.config.Namespace)
	}
	if err != nil {
		return nil, err
	}
	dead, err = in.join(ctx)
	in.stopLost(dead)
	return dead, err
}

// stopLost ends the contexts of what ran here in segments that had declared the
// instance dead: it runs elsewhere by now, so its outcomes will be refused.
func (in *instance) stopLost(segments []int) {
	in.running.stop(func(e *store.Entry) bool { return slices.Contains(segments, e.Segment) }, ErrLeaseLost)
}

// description is what an instance leaves in Redis about itself.
type description struct {
	Host     string         `json:"host"`
	PID      int            `json:"pid"`
	Version  string         `json:"version,omitempty"`
	Started  int64          `json:"started"`
	Handlers []string       `json:"handlers"`
	Queues   map[string]int `json:"queues"`
	LeaseMS  int64          `json:"leaseMs"`
}

func describedInstance(d store.Describe, now time.Time) InstanceInfo {
	var said description
	_ = json.Unmarshal(d.Data, &said) // a damaged description shows as empty
	return InstanceInfo{
		ID: d.ID, Host: said.Host, PID: said.PID, Version: said.Version, StartedAt: time.UnixMilli(said.Started),
		Handlers: said.Handlers, Queues: said.Queues, Running: d.Running, Alive: d.ExpiresAt.After(now),
		Heartbeat: d.ExpiresAt.Add(-time.Duration(said.LeaseMS) * time.Millisecond),
	}
}

// shutdown ends the instance: no more reading, time for the running jobs, the
// end of their contexts, release of what is left, farewell.
func (in *instance) shutdown(ctx context.Context) error {
	in.stopping.Store(true)
	in.stopReading()
	<-in.startEnded
	in.readLoops.Wait()
	for _, r := range in.readers {
		_ = r.source.Close()
	}
	in.releaseUnread(ctx)

	drain, cancel := context.WithTimeout(ctx, in.config.ShutdownTimeout)
	left := in.running.wait(drain)
	cancel()
	if left > 0 {
		in.log.Warn("carillon: shutdown: ending the contexts of running jobs", "jobs", left)
	}
	in.stopJobs()
	in.running.end(ErrShutdown)
	grace, cancel := context.WithTimeout(ctx, stuckGrace)
	left = in.running.wait(grace)
	cancel()
	if left > 0 && ctx.Err() != nil { // even in a hurry, those that look at their contexts can return
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), obeyGrace)
		in.running.wait(last)
		cancel()
	}

	last, hurry := context.WithCancelCause(context.WithoutCancel(ctx))
	defer hurry(nil)
	unlink := context.AfterFunc(ctx, func() {
		pause(last, hurriedGrace)
		hurry(context.Cause(ctx))
	})
	defer unlink()
	limit, cancel := context.WithTimeout(last, settleGrace)
	in.abandonStuck()
	in.releaseUnread(limit) // a read can have been executed late
	unsettled := in.settler.stop(limit)
	cancel()
	in.stopKeeping()
	if in.unlistenHints != nil {
		in.unlistenHints()
	}
	in.keepLoops.Wait()
	err := in.farewell(last)
	if unsettled > 0 {
		err = errors.Join(err, fmt.Errorf("%d outcomes could not be recorded; their jobs run again elsewhere", unsettled))
	}
	in.log.Info("carillon: instance stopped")
	return err
}

// releaseUnread gives back entries that Redis delivered while the readers were
// being closed. It asks for all at once: one after the other, the readers of a
// Redis Cluster far away would use up the time of those who come after it.
func (in *instance) releaseUnread(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, unreadGrace)
	defer cancel()
	var asked sync.WaitGroup
	for _, r := range in.readers {
		asked.Go(func() {
			entries, err := r.source.Pending(ctx)
			if err != nil {
				return // others reclaim them
			}
			for _, e := range entries {
				if in.running.add(e) {
					in.release(e)
				}
			}
		})
	}
	asked.Wait()
}

// redial is how long go-redis may refuse to dial after many failures, also when the
// server is there again: it looks once a second.
const redial = time.Second

// farewell gives up the segments and takes the instance out of the namespace. It
// has its own time, whatever was slow before.
func (in *instance) farewell(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, settleGrace)
	defer cancel()
	var said sync.WaitGroup
	said.Go(func() { in.resign(ctx) })
	said.Go(func() {
		err = in.store.Leave(ctx, in.id, in.queues)
		if passing(err) {
			if pause(ctx, redial); ctx.Err() == nil {
				err = in.store.Leave(ctx, in.id, in.queues)
			}
		}
	})
	said.Wait()
	in.store.Hint(ctx, "l") // the others share its segments now
	return err
}

// abandonStuck gives the jobs of handlers that ignore their contexts to others.
func (in *instance) abandonStuck() {
	for _, e := range in.running.abandon() {
		if e.Unusable() {
			continue // its quarantine is under way
		}
		in.log.Error("carillon: a handler ignores the end of its context and is left behind",
			"job", e.ID, "name", e.Spec.Name, "attempt", e.Attempt)
		in.settler.put(store.Settlement{Entry: e, Outcome: store.Release, Error: ErrShutdown.Error()})
	}
}

// onceEach remembers what was logged, so that it is not logged for each job.
type onceEach struct{ seen sync.Map }

func (o *onceEach) first(key string) bool {
	_, loaded := o.seen.LoadOrStore(key, time.Now())
	return !loaded
}

// quietFor is how long a trouble that many goroutines meet is logged once.
const quietFor = 10 * time.Second

// lately reports whether it is the first call for the key in quietFor.
func (o *onceEach) lately(key string) bool {
	now := time.Now()
	last, loaded := o.seen.LoadOrStore(key, now)
	if !loaded {
		return true
	}
	at, ok := last.(time.Time)
	return ok && now.Sub(at) >= quietFor && o.seen.CompareAndSwap(key, last, now)
}

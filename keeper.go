package carillon

import (
	"context"
	"errors"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/carillon-go/carillon/store"
)

// keeper does a segment's housekeeping: it promotes what is due, fires
// schedules, reclaims the work of lost instances, and forgets old jobs.
//
// Every instance has a keeper for every segment, but one instance owns each
// segment and is there on time. The others look in by turns, and do what they
// find undone. All of it is atomic in Redis, so ownership only saves work.
type keeper struct {
	instance *instance
	segment  int
	hints    chan time.Time

	mu    sync.Mutex
	mine  bool // the live instances' hashes say so
	turn  int  // of this instance among the turns in which the others look
	turns int  // 0: everybody looks in each interval
	lease *store.Lease
	named map[string]bool // schedules with a run that has ended
	heard time.Time       // when these were last taken

	grace    outage
	renewed  time.Time
	lapsed   []string // instances whose leases had lapsed at the last look
	healed   string   // how far the mutexes were looked through
	trimmed  time.Time
	trimAt   int64 // finished jobs of this instance at that time
	swept    time.Time
	tended   time.Time
	relaying bool // jobs waited to be relayed at the last look
	audit    *store.Audit
	audited  time.Time
}

// Intervals of a keeper.
const (
	pollEvery  = time.Second     // a look without being told; longer with many segments
	trimEvery  = 5 * time.Minute // at least
	sweepEvery = 2 * time.Minute // for strays, which are rare
	trimAfter  = 1000            // finished jobs here
	tendEvery  = time.Minute
	retryEvery = 100 * time.Millisecond
	pokeEvery  = 50 * time.Millisecond // between looks at schedules whose runs have ended
)

// watchers is how many instances look at a segment in one interval, however many
// there are. When the owner dies its work is found by the next of them; should
// those after it have died as well, the last one is still there within an interval.
const watchers = 4

func newKeeper(in *instance, segment int) *keeper {
	now := time.Now() // what is rare waits at first, too
	return &keeper{instance: in, segment: segment, hints: make(chan time.Time, 64), swept: now, tended: now, audited: now, audit: in.store.Audit(segment)}
}

// hint tells that something is planned for an instant. Zero: look at once.
func (k *keeper) hint(at time.Time) {
	select {
	case k.hints <- at:
	default: // there are hints enough
	}
}

// poke tells that a run of a schedule has ended. Only the owner cares; without it
// the others come to it in their time.
func (k *keeper) poke(schedule string) {
	if !k.owner() {
		return
	}
	k.mu.Lock()
	if k.named == nil {
		k.named = make(map[string]bool)
	}
	k.named[schedule] = true
	k.mu.Unlock()
	k.hint(time.Time{})
}

// poked returns the schedules that poke named, and forgets them. Those of a large
// run come one after the other: it reports true when some are left for a moment.
func (k *keeper) poked() ([]string, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.named) == 0 || time.Since(k.heard) < pokeEvery {
		return nil, len(k.named) > 0
	}
	names := slices.Collect(maps.Keys(k.named))
	k.named = nil
	k.heard = time.Now()
	return names, false
}

// poll is how often a keeper looks without being told. Many segments share the
// commands an idle instance may send.
func (k *keeper) poll() time.Duration {
	if p := k.instance.knobs.Poll; p > 0 {
		return p
	}
	often := max(pollEvery, pollEvery*time.Duration(k.instance.store.Segments())/5)
	return min(often, k.instance.config.LeaseTTL/3) // a lapsed lease is seen before half another one has passed
}

// untilLook is how long to wait for the next look without being told: an interval
// for the owner, for few instances, and for whoever has just found something
// undone; the others wait for their turn.
func (k *keeper) untilLook() time.Duration {
	every := k.poll()
	k.mu.Lock()
	turn, turns, owner := k.turn, k.turns, k.mine || k.lease != nil
	k.mu.Unlock()
	busy := len(k.lapsed) > 0 || k.relaying || time.Since(k.trimmed) < every
	told := k.instance.clock.now()
	if owner || busy || turns <= watchers || told.IsZero() {
		return every
	}
	return untilTurn(told, every/watchers, turn, turns)
}

// untilTurn is how long after an instant of Redis' time the next one of turns that
// take a slot each begins. One that has begun just now is over: whoever asks has
// looked, and the estimate of Redis' time wavers.
func untilTurn(told time.Time, slot time.Duration, turn, turns int) time.Duration {
	round := slot * time.Duration(turns)
	wait := (slot*time.Duration(turn) - time.Duration(told.UnixNano())%round + round) % round
	if wait < slot/2 {
		wait += round
	}
	return wait
}

func (k *keeper) run() {
	in := k.instance
	ctx := in.keeping
	failures := 0
	for ctx.Err() == nil {
		next, err := k.round(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			failures++
			if in.warned.lately("housekeeping") {
				in.log.Warn("carillon: housekeeping failed, trying again", "segment", k.segment, "error", err)
			}
			if (errors.Is(err, ErrUnavailable) || errors.Is(err, ErrUncertain)) &&
				!errors.Is(err, store.ErrFull) && !errors.Is(err, store.ErrReplicas) {
				k.grace.begin()
			}
			pause(ctx, max(retryEvery, backoff(failures)))
			continue
		}
		failures = 0
		k.sleep(ctx, next)
	}
}

// sleep waits for the next instant of Redis' time at which there is work, a
// hint of an earlier one, or the next look.
func (k *keeper) sleep(ctx context.Context, next time.Time) {
	in := k.instance
	limit := time.Now().Add(k.untilLook())
	for {
		wait := time.Until(limit)
		if !next.IsZero() && k.owner() {
			wait = min(wait, in.clock.until(next))
		}
		if wait <= 0 {
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
			return
		case at := <-k.hints:
			timer.Stop()
			if at.IsZero() {
				return
			}
			if next.IsZero() || at.Before(next) {
				next = at
			}
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// round does what is due and returns when something is due next.
func (k *keeper) round(ctx context.Context) (time.Time, error) {
	in := k.instance
	ctx, cancel := context.WithTimeout(ctx, max(in.config.LeaseTTL, 5*time.Second))
	defer cancel()
	asked := time.Now()
	tick, err := in.store.Promote(ctx, k.segment, k.report)
	if err != nil {
		return time.Time{}, err
	}
	k.grace.end(in.config.LeaseTTL)
	if tick.Promoted == 0 {
		in.clock.learn(tick.Now, asked)
	}
	next := tick.NextDue
	var notFired error // must not hold up the rest, which works when Redis is out of memory
	named, more := k.poked()
	if more {
		next = tick.Now.Add(pokeEvery)
		if !tick.NextDue.IsZero() && tick.NextDue.Before(next) {
			next = tick.NextDue
		}
	}
	if len(named) > 0 || !tick.NextTick.IsZero() {
		if len(named) > 0 || !tick.NextTick.After(tick.Now) {
			tick.NextTick, notFired = in.fire(ctx, k.segment, tick.Now, named)
		}
		if next.IsZero() || !tick.NextTick.IsZero() && tick.NextTick.Before(next) {
			next = tick.NextTick
		}
	}
	if err := k.reclaim(ctx, tick.Lapsed); err != nil {
		return next, errors.Join(notFired, err)
	}
	if err := k.tidy(ctx); err != nil {
		return next, errors.Join(notFired, err)
	}
	k.relay(ctx, tick.Relay)
	return next, notFired
}

// relay submits jobs of ticks to other segments, when whoever fired them did not
// come to it: the owner does so at once, the others when it is still undone at
// their next look. Other segments can be away while this one is well.
func (k *keeper) relay(ctx context.Context, waiting bool) {
	before := k.relaying
	k.relaying = waiting
	if !waiting || !k.owner() && !before {
		return
	}
	in := k.instance
	if err := in.store.Relay(ctx, k.segment); err != nil && ctx.Err() == nil && in.warned.lately("relay") {
		in.log.Warn("carillon: jobs of ticks could not be submitted to other segments, trying again", "segment", k.segment, "error", err)
	}
}

func (k *keeper) report(id string, err error) {
	in := k.instance
	if in.warned.first("quarantine " + id) {
		in.log.Error("carillon: a job was put in quarantine", "job", id, "error", err)
	}
}

// lossLimit is how many workers a job may lose before it is held to be what
// kills them.
const lossLimit = 3

// reclaim gives the work of lapsed instances to the others. The owner of the
// segment does so at once, the others when it is still undone at their next look.
func (k *keeper) reclaim(ctx context.Context, lapsed []string) error {
	in := k.instance
	if !k.grace.over() {
		lapsed = nil
	}
	before := k.lapsed
	k.lapsed = lapsed
	var errs []error
	for _, lost := range lapsed {
		if lost == in.id || !k.owner() && !slices.Contains(before, lost) {
			continue
		}
		done, err := in.store.Reclaim(ctx, k.segment, lost, lossLimit, k.report)
		errs = append(errs, err) // it does not keep the others from theirs
		if done.Again+done.Ended+done.Broken > 0 {
			in.log.Warn("carillon: reclaimed the work of a lost instance", "lost", lost, "segment", k.segment,
				"again", done.Again, "ended", done.Ended, "quarantined", done.Broken)
		}
	}
	return errors.Join(errs...)
}

// tidy does what can wait, now and then.
func (k *keeper) tidy(ctx context.Context) error {
	in := k.instance
	now := time.Now()
	finished := in.finished.Load()
	if finished-k.trimAt >= trimAfter || k.owner() && now.Sub(k.trimmed) >= max(trimEvery, in.knobs.Poll) {
		k.trimAt, k.trimmed = finished, now
		if _, err := in.store.Trim(ctx, k.segment); err != nil {
			return err
		}
	}
	if !k.owner() {
		return nil
	}
	if now.Sub(k.audited) >= max(in.config.LeaseTTL, in.knobs.Poll) {
		if err := k.look(ctx); err != nil {
			return err
		}
	}
	if now.Sub(k.swept) >= max(in.config.LeaseTTL, sweepEvery) && k.grace.over() {
		k.swept = now
		strays, err := in.store.Strays(ctx, k.segment, in.config.LeaseTTL)
		if err != nil {
			return err
		}
		for _, stray := range strays {
			if _, err := in.store.Reclaim(ctx, k.segment, stray, lossLimit, k.report); err != nil {
				return err
			}
		}
	}
	if now.Sub(k.tended) >= max(tendEvery, in.knobs.Poll) {
		k.tended = now
		freed, next, err := in.store.HealMutexes(ctx, k.segment, k.healed)
		k.healed = next
		if freed > 0 {
			in.log.Warn("carillon: mutexes had been left behind and were freed", "segment", k.segment, "mutexes", freed)
		}
		if err != nil {
			return err
		}
		if in.store.Segments() > 1 {
			return in.store.Tend(ctx, k.segment)
		}
	}
	return nil
}

// look takes a step of the audit of the segment's streams.
func (k *keeper) look(ctx context.Context) error {
	in := k.instance
	again, more, err := k.audit.Step(ctx, k.report)
	if errors.Is(err, store.ErrDenied) {
		if in.warned.first("audit") {
			in.log.Error("carillon: the streams cannot be audited; see docs/operations.md for the rights that are needed", "error", err)
		}
		err = nil
	}
	if again > 0 {
		in.log.Error("carillon: jobs whose entries somebody else had taken away were dispatched anew", "segment", k.segment, "jobs", again)
	}
	if more {
		k.hint(time.Time{})
	} else {
		k.audited = time.Now()
	}
	return err
}

// owner reports whether this instance is to be there on time. While a segment
// changes hands both are; that does no harm, and neither would be worse.
func (k *keeper) owner() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mine || k.lease != nil
}

// share tells the keeper who is alive: the first in rank owns the segment, and the
// rank decides whose turn it is to look. Turns are shared when there are so many
// instances that they would not all come to it within four leases: after most of
// them have died at once, those that are left still do.
func (k *keeper) share(live []string) {
	rank := rankOf(k.instance.id, live, k.segment)
	turns := max(watchers, min(len(live), int(4*watchers*k.instance.config.LeaseTTL/k.poll())))
	k.mu.Lock()
	changed := rank == 0 && !k.mine
	k.mine, k.turn, k.turns = rank == 0, rank%turns, turns
	k.mu.Unlock()
	if changed {
		k.hint(time.Time{})
	}
}

// own takes, renews or gives up the segment's lease, as the live instances share them.
func (k *keeper) own(ctx context.Context) {
	in := k.instance
	k.mu.Lock()
	mine, lease := k.mine, k.lease
	k.mu.Unlock()
	var err error
	switch {
	case mine && lease == nil:
		lease, _, err = in.store.Acquire(ctx, k.leaseName(), in.id, in.config.LeaseTTL)
	case mine && time.Since(k.renewed) >= in.config.LeaseTTL/2:
		if err = in.store.Renew(ctx, lease, in.config.LeaseTTL); errors.Is(err, ErrFenced) {
			lease = nil
		}
		k.renewed = time.Now()
	case mine:
	case lease != nil:
		if err = in.store.Release(ctx, lease); err == nil || errors.Is(err, ErrFenced) {
			lease = nil
		}
	}
	_ = err // the next heartbeat tries again; meanwhile nothing depends on it
	k.mu.Lock()
	k.lease = lease
	k.mu.Unlock()
}

// leaseName is one that no user can give a lock.
func (k *keeper) leaseName() string { return "\x00segment/" + strconv.Itoa(k.segment) }

// resign gives the segments up at shutdown: at once those that are known to be
// held, and then those of a heartbeat that was given up halfway.
func (in *instance) resign(ctx context.Context) {
	var held []*store.Lease
	var doubtful []*keeper
	for _, k := range in.keepers {
		k.mu.Lock()
		switch {
		case k.lease != nil:
			held = append(held, k.lease)
		case k.mine:
			doubtful = append(doubtful, k)
		}
		k.mine, k.lease = false, nil
		k.mu.Unlock()
	}
	in.store.ReleaseAll(ctx, held)
	for _, k := range doubtful {
		if lease, _, _ := in.store.Acquire(ctx, k.leaseName(), in.id, in.config.LeaseTTL); lease != nil {
			_ = in.store.Release(ctx, lease)
		}
	}
}

// rankOf counts the live instances that come before one in a segment. The order is
// that of rendezvous hashing (Thaler and Ravishankar, 1996): the instance with the
// highest hash of both comes first.
func rankOf(instance string, live []string, segment int) int {
	most, rank := rendezvous(instance, segment), 0
	for _, id := range live {
		if sum := rendezvous(id, segment); sum > most || sum == most && id < instance {
			rank++
		}
	}
	return rank
}

func rendezvous(instance string, segment int) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(instance))
	_, _ = h.Write([]byte(strconv.Itoa(segment)))
	sum := h.Sum64() * 0x9E3779B97F4A7C15 // FNV mixes its last bytes little
	return sum ^ sum>>32
}

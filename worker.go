package carillon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/carillon-go/carillon/store"
)

// fetchLimit bounds how many entries one read takes.
const fetchLimit = 256

// shareOf is which part of the starts is kept for low priorities: one in eight.
const shareOf = 8

// backlogLimit stops reading while so many outcomes wait to be recorded.
const backlogLimit = 4096

// reader takes the jobs of one queue, as many as there are free slots.
type reader struct {
	instance *instance
	pool     *pool
	source   *store.Reader
	peers    int         // how many readers share the pool
	credit   int         // eighths of starts that the low priorities may claim
	doubt    atomic.Bool // something may be pending that this process does not know
	guestOf  *vigil      // of the reader of the own queue, which leaves its waiting to another
	hostOf   *vigil      // of that other one
}

// run reads until reading ends.
func (r *reader) run() {
	in := r.instance
	ctx := in.reading
	failures := 0
	if r.guestOf != nil {
		r.guestOf.leave(ctx) // nothing is in the own queue of an instance that begins
	}
	for r.pool.ready(ctx) && in.settler.ready(ctx) {
		err := r.read(ctx)
		if ctx.Err() != nil {
			return // what was delivered is pending and released by the shutdown
		}
		if err != nil {
			failures++
			r.recover(ctx, err, failures)
			continue
		}
		failures = 0
	}
}

// read takes entries and starts them: at once if there are any, otherwise it
// waits for the first ones.
func (r *reader) read(ctx context.Context) error {
	if r.doubt.Load() {
		if r.guestOf != nil {
			r.guestOf.leave(ctx) // until nobody else takes anything for it
		}
		r.doubt.Store(false)
		if err := r.adopt(ctx); err != nil {
			return err // the failure leads to another doubt
		}
	}
	// Slots are reserved, for other readers of the queue may fetch as well.
	n := r.pool.reserve(fetchLimit)
	if n == 0 {
		return nil
	}
	r.credit += n
	share := min(r.credit/shareOf, max(1, n/4)) // what was put off comes in parts
	entries, shared, err := r.source.Fetch(ctx, n, share)
	if err != nil {
		r.pool.restore(n, n)
		return err
	}
	if len(entries) > 0 {
		if shared {
			r.credit -= share * shareOf
		}
		started := r.start(entries, n)
		r.pool.restore(n, n-started)
		return nil
	}
	r.pool.restore(n, n)
	r.credit = 0
	// While it waits, a reader holds no slot: others may need it. In the rare
	// case that entries come and the slots are gone, they are given back.
	for n > 0 && len(entries) == 0 && !r.doubt.Load() && ctx.Err() == nil { // n is 0 while paused
		if entries, err = r.wait(ctx, max(1, n/r.peers)); err != nil {
			return err
		}
		n = min(r.pool.free(), fetchLimit)
	}
	r.take(ctx, entries)
	return nil
}

// wait takes the first entries that come before the end of the instance's round.
func (r *reader) wait(ctx context.Context, n int) ([]*store.Entry, error) {
	early := time.Duration(0)
	if r.guestOf != nil {
		r.guestOf.leave(ctx)
		if r.doubt.Load() {
			return nil, nil
		}
		early = apart / 2
	}
	limit := max(r.instance.round()-early, apart/2) // never 0, which Redis takes for ever
	if r.hostOf != nil {
		if entries, together, err := r.hostOf.wait(ctx, n, limit); together {
			return entries, err
		}
	}
	return r.source.Wait(ctx, n, limit)
}

// take runs entries for which no slots were reserved.
func (r *reader) take(ctx context.Context, entries []*store.Entry) {
	if len(entries) == 0 || ctx.Err() != nil {
		return
	}
	n := r.pool.claim(ctx, len(entries))
	r.pool.restore(n, n-r.start(entries, n))
}

// start runs entries in the slots that are reserved for them and gives the
// others back. It returns how many slots are in use now.
func (r *reader) start(entries []*store.Entry, slots int) int {
	in := r.instance
	used := 0
	for _, e := range entries {
		if !in.running.add(e) {
			continue // taken up before
		}
		if in.stopping.Load() || used == slots {
			in.release(e)
			continue
		}
		used++
		go in.execute(e, r.pool) // ends with its handler; in.running joins it
	}
	return used
}

// recover waits after a failed read. A reply may be lost after Redis delivered,
// and a group may be gone with the data of the server.
func (r *reader) recover(ctx context.Context, err error, failures int) {
	in := r.instance
	r.doubt.Store(true)
	if store.GroupGone(err) {
		switch dead, err := in.rejoin(ctx); {
		case err != nil:
		case len(dead) > 0: // the streams of its own queue went with it; a heartbeat would tell later
			in.log.Warn("carillon: the instance had been declared dead; it joined again", "segments", dead)
			return
		default:
			in.log.Error("carillon: the server had lost its streams, or somebody deleted them; they were made again", "queue", shownQueue(r.source.Queue))
			return
		}
	}
	if !store.Interrupted(err) && in.warned.lately("reading") {
		in.log.Warn("carillon: reading failed, trying again", "queue", shownQueue(r.source.Queue), "error", err)
	}
	pause(ctx, backoff(failures))
}

// adopt takes up entries that Redis holds as delivered to this instance but of
// which it does not know.
func (r *reader) adopt(ctx context.Context) error {
	// What is known before the question may be settled before the answer is
	// read. Nothing is delivered meanwhile, for only this goroutine reads.
	known := r.instance.running.keys()
	entries, err := r.source.Pending(ctx)
	if err == nil {
		entries = slices.DeleteFunc(entries, func(e *store.Entry) bool { return known[e.Key()] })
		slots := r.pool.claim(ctx, len(entries))
		r.pool.restore(slots, slots-r.start(entries, slots))
	}
	return err
}

// release gives an entry back to the others, uncharged.
func (in *instance) release(e *store.Entry) {
	if e.Unusable() {
		in.refuse(e)
		return
	}
	in.settler.put(store.Settlement{Entry: e, Outcome: store.Release})
}

// refuse puts an entry aside that cannot be run anywhere.
func (in *instance) refuse(e *store.Entry) {
	defer in.running.remove(e)
	ctx, cancel := context.WithTimeout(in.keeping, settleGrace)
	defer cancel()
	if in.store.Quarantine(ctx, e) && in.warned.first("quarantine "+e.ID) {
		in.log.Error("carillon: an entry was put in quarantine", "job", e.ID, "error", e.Err)
	}
}

var errNoHandler = errors.New("it has no handler of that name")

// declineLimit is the longest time after which a job without handler here is
// offered again.
const declineLimit = 15 * time.Second

// decline leaves a job to instances that can run it, uncharged. When it is for
// this one alone, nobody can.
func (in *instance) decline(e *store.Entry, reason error) {
	if store.InstanceOf(e.Spec.Queue) != "" {
		err := fmt.Errorf("instance %s, which alone may run %s, cannot: %w", in.id, e.Spec.Name, cmp.Or(reason, errNoHandler))
		in.log.Error("carillon: job failed for good", "job", e.ID, "name", e.Spec.Name, "error", err)
		in.settler.put(store.Settlement{Entry: e, Outcome: store.Fail, Error: err.Error()})
		return
	}
	if in.warned.first("decline " + e.Spec.Name) {
		in.log.Warn("carillon: this instance cannot run a job and leaves it to others", "name", e.Spec.Name, "queue", e.Spec.Queue, "error", reason)
	}
	in.settler.put(store.Settlement{Entry: e, Outcome: store.Decline, Delay: declineDelay(e)})
}

func declineDelay(e *store.Entry) time.Duration {
	return min(250*time.Millisecond<<min(e.Attempt-1, 10), declineLimit)
}

// execute runs one attempt and hands its outcome to the settler.
func (in *instance) execute(e *store.Entry, p *pool) {
	defer p.give()
	if e.Unusable() {
		in.refuse(e)
		return
	}
	if !e.Spec.ExpiresAt.IsZero() && in.expire(e) { // it takes no handler
		return
	}
	reg, ok := in.handlers[e.Spec.Name]
	if !ok || e.Err != nil {
		in.decline(e, e.Err)
		return
	}

	payload, err := in.scheduler.vault.payloadOf(e.ID, e.Spec)
	switch {
	case errors.Is(err, ErrDamaged):
		e.Err = err
		in.refuse(e)
		return
	case err != nil:
		in.decline(e, err)
		return
	}
	if suspected(e) && !in.running.isolate(in.jobs, e, in.config.LeaseTTL) {
		in.settler.put(store.Settlement{Entry: e, Outcome: store.Decline, Delay: rand.N(declineDelay(e))})
		return
	}

	begun := time.Now()
	// Ended by the roster: as children of one context, attempts would queue up at its lock.
	ctx, cancel := context.WithCancelCause(in.base)
	defer cancel(nil)
	if limit := in.timeout(e.Spec, reg); limit > 0 {
		var done context.CancelFunc
		ctx, done = context.WithTimeoutCause(ctx, limit, ErrTimeout)
		defer done()
	}
	run := in.handling(ctx, e, payload)
	if cause := in.running.begin(e, cancel); cause != nil { // it is to stop before it began
		cancel(cause)
		in.settle(run, e, reg, 0, cause)
		return
	}
	returned := false
	defer func() {
		// Also reached by runtime.Goexit in the handler.
		if !returned && err == nil {
			err = errors.New("the handler ended its goroutine")
		}
		in.settle(run, e, reg, time.Since(begun), err)
	}()
	func() {
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
			}
		}()
		// Methods of the error can panic, too; a nil pointer is the classic.
		if err = reg.handler.ServeJob(run, &run.Execution); err != nil {
			_, _ = err.Error(), errors.As(err, new(*steered))
		}
	}()
	returned = true
}

// handling is the context of a handler and what it finds there, in one allocation.
type handling struct {
	context.Context
	Execution

	log    jobLog
	logger slog.Logger
}

func (in *instance) handling(ctx context.Context, e *store.Entry, p payload) *handling {
	s := e.Spec
	h := &handling{Context: ctx, Execution: Execution{
		ID: e.ID, Name: s.Name, Queue: shownQueue(s.Queue), Args: p.Args, Headers: p.Headers, Tags: slices.Clone(s.Tags),
		Attempt: e.Attempt, Failures: e.Failures, Losses: e.Losses, Token: e.Token, MutexToken: e.Mutex,
		Schedule: s.Schedule, Tick: s.Tick, Shard: Shard(s.Shard),
		entry: e, scheduler: in.scheduler,
	}}
	h.log = jobLog{in.log.Handler(), e}
	h.logger = *slog.New(&h.log)
	h.Logger = &h.logger
	return h
}

// Value is how [FromContext] finds the execution.
func (h *handling) Value(key any) any {
	if key == (executionKey{}) {
		return &h.Execution
	}
	return h.Context.Value(key)
}

// String keeps what a handler was given out of printed contexts.
func (h *handling) String() string { return "carillon: context of job " + h.log.entry.ID }

// jobLog adds to what a handler logs which attempt it is of. It does so when
// there is something to log, for most jobs log nothing.
type jobLog struct {
	slog.Handler

	entry *store.Entry
}

func (l *jobLog) Handle(ctx context.Context, r slog.Record) error { return l.named().Handle(ctx, r) }

func (l *jobLog) WithAttrs(attrs []slog.Attr) slog.Handler { return l.named().WithAttrs(attrs) }

func (l *jobLog) WithGroup(name string) slog.Handler { return l.named().WithGroup(name) }

func (l *jobLog) named() slog.Handler {
	return l.Handler.WithAttrs([]slog.Attr{
		slog.String("job", l.entry.ID), slog.String("name", l.entry.Spec.Name), slog.Int("attempt", l.entry.Attempt),
	})
}

func (in *instance) timeout(s *store.Spec, reg registration) time.Duration {
	switch {
	case s.Timeout > 0:
		return s.Timeout
	case reg.config.Timeout > 0:
		return reg.config.Timeout
	}
	return in.config.Timeout
}

// expire settles a job whose time has passed. Redis has the last word, and the
// job must not run while that is unknown.
func (in *instance) expire(e *store.Entry) bool {
	if in.clock.until(e.Spec.ExpiresAt) > time.Second {
		return false
	}
	late := store.Settlement{Entry: e, Outcome: store.Expire, Error: "not started in time"}
	for failures := 1; ; failures++ {
		ctx, cancel := context.WithTimeout(in.keeping, settleGrace)
		_, errs := in.store.Settle(ctx, in.id, []store.Settlement{late})
		cancel()
		switch err := errs[0]; {
		case errors.Is(err, ErrState):
			return false // there is time left
		case errors.Is(err, ErrUnavailable), errors.Is(err, ErrUncertain):
			pause(in.jobs, backoff(failures))
			if in.jobs.Err() != nil {
				in.release(e)
				return true
			}
		default:
			in.running.remove(e)
			return true
		}
	}
}

// settle decides what follows from an attempt's end.
func (in *instance) settle(run *handling, e *store.Entry, reg registration, elapsed time.Duration, err error) {
	s := store.Settlement{Entry: e, Elapsed: elapsed}
	if err == nil {
		s.Outcome, s.Result = store.Succeed, run.result
		in.settler.put(s)
		return
	}
	cause := context.Cause(run)
	if errors.Is(cause, ErrTimeout) && errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w after %v", ErrTimeout, in.timeout(e.Spec, reg))
	}
	s.Error = err.Error()
	var steer *steered
	_ = errors.As(err, &steer)
	switch {
	case errors.Is(cause, ErrCancelled):
		s.Outcome = store.Cancel
	case steer != nil && steer.snooze:
		s.Outcome, s.Delay = store.Snooze, steer.after
	case steer != nil && steer.permanent:
		s.Outcome = store.Fail
	case errors.Is(cause, ErrShutdown), errors.Is(cause, ErrLeaseLost):
		s.Outcome = store.Release
	default:
		policy := in.policy(e.Spec, reg)
		if e.Failures+1 >= policy.attempts() {
			s.Outcome = store.Fail
			break
		}
		s.Outcome = store.Retry
		if steer != nil && steer.hasAfter {
			s.Delay = steer.after
		} else {
			s.Delay = in.delay(policy, e.Failures+1, err)
		}
	}
	log := slog.New(&run.log) // the handler may have changed the execution's
	if s.Outcome == store.Fail {
		log.Error("carillon: job failed for good", "error", err)
	} else {
		log.Info("carillon: attempt ended", "outcome", string(outcomes[s.Outcome]), "delay", s.Delay, "error", err)
	}
	in.settler.put(s)
}

// policy finds the retry policy: the job's, the handler's, the scheduler's.
func (in *instance) policy(s *store.Spec, reg registration) *Retry {
	switch {
	case s.Retry != nil:
		return retryFromSpec(s.Retry)
	case reg.config.Retry != nil:
		return reg.config.Retry
	}
	return &in.config.Retry
}

// delay guards against a Backoff function that panics.
func (in *instance) delay(policy *Retry, failures int, err error) (d time.Duration) {
	defer func() {
		if v := recover(); v != nil {
			in.log.Error("carillon: Retry.Backoff panicked; using the default delays", "panic", v)
			d = (&Retry{}).delay(failures, err)
		}
	}()
	return policy.delay(failures, err)
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// backoff is the wait after so many failures in a row to reach Redis.
func backoff(failures int) time.Duration {
	return min(25*time.Millisecond<<min(failures, 8), time.Second)
}

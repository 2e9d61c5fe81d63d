package carillon

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/carillon-go/carillon/store"
)

// Lease is a lock on a name, held by this process. It is renewed three times in
// Config.LeaseTTL until it is released or lost.
//
// A lock in a distributed system cannot keep a paused holder from acting after
// its time. Hand the token to the system you write to and let it refuse smaller
// ones. All methods are safe for concurrent use.
type Lease struct {
	store *store.Store
	lease *store.Lease
	ttl   time.Duration

	ctx    context.Context
	cancel context.CancelCauseFunc
	once   sync.Once
	ended  chan struct{} // the renewal has ended
	err    error         // of the release
}

// errReleased is the cause for which the context of a released lease ends.
var errReleased = errors.New("the lease was released")

// Lock waits until name is free and takes it. It does not poll: it is told when
// the holder releases, and otherwise looks when the holder's lease lapses. It
// returns early when ctx ends. When Redis cannot be reached at first that is an
// error; once it waits, it waits through an outage. At most 200 bytes of name.
// Who waits longest is not necessarily first.
func (s *Scheduler) Lock(ctx context.Context, name string) (*Lease, error) {
	if err := validText("lock name", name, maxKeyBytes); err != nil {
		return nil, &Error{Op: "lock", Job: name, Err: err}
	}
	owner := store.NewID()
	start := time.Now()
	l, lapses, err := s.store.Acquire(ctx, name, owner, s.config.LeaseTTL)
	if l != nil || err != nil {
		return s.leased(l, err, "lock", name, start)
	}
	released, stop := s.store.Released(name)
	defer stop()
	failures := 0
	for {
		// A millisecond more, or the key may still be there.
		timer := time.NewTimer(max(lapses, 0) + time.Millisecond)
		select {
		case <-released:
		case <-timer.C:
		case <-s.store.Done():
		case <-ctx.Done():
			timer.Stop()
			return nil, &Error{Op: "lock", Job: name, Err: errors.Join(context.Cause(ctx), err)}
		}
		timer.Stop()
		start = time.Now()
		l, lapses, err = s.store.Acquire(ctx, name, owner, s.config.LeaseTTL)
		switch {
		case passing(err):
			failures++
			lapses = backoff(failures)
		case l != nil || err != nil:
			return s.leased(l, err, "lock", name, start)
		default:
			failures = 0
		}
	}
}

// passing reports whether an error passes by itself.
func passing(err error) bool {
	return (errors.Is(err, ErrUnavailable) || errors.Is(err, ErrUncertain)) &&
		!errors.Is(err, store.ErrDenied) && !errors.Is(err, ErrClosed)
}

// TryLock takes name if it is free, and returns [ErrLocked] if it is not.
func (s *Scheduler) TryLock(ctx context.Context, name string) (*Lease, error) {
	err := validText("lock name", name, maxKeyBytes)
	if err != nil {
		return nil, &Error{Op: "lock", Job: name, Err: err}
	}
	start := time.Now()
	l, _, err := s.store.Acquire(ctx, name, store.NewID(), s.config.LeaseTTL)
	if l == nil && err == nil {
		err = ErrLocked
	}
	return s.leased(l, err, "lock", name, start)
}

func (s *Scheduler) leased(l *store.Lease, err error, op, name string, start time.Time) (*Lease, error) {
	if err != nil {
		return nil, opError(op, name, err)
	}
	lease := &Lease{store: s.store, lease: l, ttl: s.config.LeaseTTL, ended: make(chan struct{})}
	lease.ctx, lease.cancel = context.WithCancelCause(context.Background())
	go lease.keep(start.Add(deadline(lease.ttl))) // ends when the lease is released or lost
	return lease, nil
}

// deadline is how long a holder trusts a lease after it asked for it. What is
// left of the lease is for clocks that run at different speeds.
func deadline(ttl time.Duration) time.Duration { return ttl - ttl/10 }

// keep renews the lease until it is released, lost, or too old to be trusted.
func (l *Lease) keep(trusted time.Time) {
	defer close(l.ended)
	every := l.ttl / 3
	next := time.NewTimer(every)
	defer next.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-l.store.Done():
			l.cancel(ErrLeaseLost) // nobody renews it any more
			return
		case <-next.C:
		}
		start := time.Now()
		ctx, cancel := context.WithDeadline(l.ctx, trusted)
		err := l.store.Renew(ctx, l.lease, l.ttl)
		cancel()
		switch {
		case err == nil:
			trusted = start.Add(deadline(l.ttl))
			next.Reset(every)
		case errors.Is(err, ErrFenced), errors.Is(err, ErrClosed), !time.Now().Before(trusted):
			l.cancel(ErrLeaseLost)
			return
		default:
			next.Reset(min(every/4, time.Until(trusted)))
		}
	}
}

// Token is larger for every later holder of the name.
func (l *Lease) Token() uint64 { return l.lease.Token }

// Context ends when the lease is released or, with cause [ErrLeaseLost], when it
// could not be renewed in time.
func (l *Lease) Context() context.Context { return l.ctx }

// Release gives the lease back. It returns [ErrFenced] when the lease had been
// lost before. Later calls return what the first did.
func (l *Lease) Release(ctx context.Context) error {
	l.once.Do(func() {
		l.cancel(errReleased)
		<-l.ended
		err := l.giveBack(ctx)
		if errors.Is(context.Cause(l.ctx), ErrLeaseLost) {
			err = ErrFenced // whatever became of the try to give back what may be left of it
		}
		l.err = opError("release", l.lease.Name, err)
	})
	return l.err
}

// releaseTries is how often a lease is given back when the outcome is unknown.
const releaseTries = 3

// giveBack may find that a try whose outcome was unknown has done it.
func (l *Lease) giveBack(ctx context.Context) error {
	for try := 1; ; try++ {
		err := l.store.Release(ctx, l.lease)
		if try > 1 && errors.Is(err, ErrFenced) {
			return nil
		}
		if !errors.Is(err, ErrUncertain) || try == releaseTries || ctx.Err() != nil {
			return err
		}
		pause(ctx, backoff(try))
	}
}

package carillon

import (
	"context"
	"sync"
	"time"

	"github.com/carillon-go/carillon/store"
)

// vigil is the waiting for the instance's own queue, its guest's, that is left to the
// reader of another queue, the host: one blocking read serves both. While the host
// has something else to do, or may not read, the guest waits by itself.
type vigil struct {
	guest *reader
	both  *store.Reader

	mu    sync.Mutex
	left  bool        // the guest reads nothing; only then may the host take what is for it
	kept  bool        // the host waits for both
	alone *time.Timer // rings when nobody has waited for the guest for a while
}

// apart is how long nobody needs to wait for the guest while the host starts what has
// come. Reads of the guest alone end half of it before the host's, so that the next
// one is for both.
const apart = 20 * time.Millisecond

// newVigil returns nil when no command reads the queues of both.
func newVigil(host, guest *reader) *vigil {
	both := host.source.With(guest.source)
	if both == nil {
		return nil
	}
	return &vigil{guest: guest, both: both, left: true, alone: time.NewTimer(apart)}
}

// leave is for the guest: it returns when the host does not wait for both.
func (v *vigil) leave(ctx context.Context) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.left = true
	if !v.kept {
		v.attend()
	}
	for v.left {
		v.mu.Unlock()
		select {
		case <-v.alone.C:
		case <-ctx.Done():
		}
		v.mu.Lock()
		v.left = v.kept && ctx.Err() == nil
	}
}

// attend sets the guest's alarm. It is called with mu held.
func (v *vigil) attend() {
	wait := apart
	if v.guest.doubt.Load() {
		wait = 0
	}
	v.alone.Reset(wait)
}

// wait is for the host: it waits for both if the guest leaves that to it, and starts
// what is for the guest.
func (v *vigil) wait(ctx context.Context, n int, limit time.Duration) (entries []*store.Entry, together bool, err error) {
	n = min(n, v.guest.pool.free())
	if n == 0 || !v.keep() {
		return nil, false, nil
	}
	defer v.release()
	all, err := v.both.Wait(ctx, n, limit)
	if err != nil {
		v.guest.doubt.Store(true)
		return nil, true, err
	}
	var others []*store.Entry
	for _, e := range all {
		if v.guest.source.Reads(e) {
			others = append(others, e)
		} else {
			entries = append(entries, e)
		}
	}
	v.guest.take(ctx, others)
	return entries, true, nil
}

func (v *vigil) keep() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	// What is delivered while the guest asks for what it has would be done twice.
	if !v.left || v.guest.doubt.Load() {
		return false
	}
	v.kept = true
	v.alone.Stop()
	return true
}

func (v *vigil) release() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.kept = false
	v.attend()
}

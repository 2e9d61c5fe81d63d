package carillon

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/carillon-go/carillon/store"
)

// roster knows every entry this instance holds, from its delivery until its
// outcome is recorded.
type roster struct {
	mu      sync.Mutex
	entries map[store.Key]*tenure
	empty   chan struct{} // closed when the last entry leaves; nil when nobody waits
	early   []attempt     // attempts that were cancelled and are not here, or not yet
	ended   error         // why all are to stop, also those that come later

	suspect store.Key     // of the one suspect that may run here, if there is one
	apart   chan struct{} // closed when no other suspect is left here
}

// attempt names one attempt of a job.
type attempt struct {
	id    string
	token uint64
}

// earlyLimit is how many attempts are remembered whose cancel came too soon.
const earlyLimit = 256

// tenure is the time an instance holds an entry.
type tenure struct {
	entry  *store.Entry
	cancel context.CancelCauseFunc // while its handler runs
	cause  error                   // why it is to stop
	ending bool                    // its outcome is on the way

	trial     *time.Timer // while it is the one suspect here
	acquitted bool        // it was, and did no harm
}

// add notes an entry and reports whether it is new.
func (r *roster) add(e *store.Entry) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.entries == nil {
		r.entries = make(map[store.Key]*tenure)
	}
	if _, known := r.entries[e.Key()]; known {
		return false
	}
	t := &tenure{entry: e}
	if slices.Contains(r.early, attempt{e.ID, e.Token}) {
		t.cause = ErrCancelled
	}
	r.entries[e.Key()] = t
	return true
}

// cancel stops an attempt. When the attempt is not here, it may be another
// instance's, or on its way: the hint can overtake the delivery.
func (r *roster) cancel(id string, token uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.entries {
		if t.entry.ID == id && t.entry.Token == token {
			t.stop(ErrCancelled)
			return
		}
	}
	if len(r.early) == earlyLimit {
		r.early = slices.Delete(r.early, 0, earlyLimit/2)
	}
	r.early = append(r.early, attempt{id, token})
}

// stop is called with the roster's lock held. Only the first cause counts.
func (t *tenure) stop(cause error) {
	if t.cause != nil {
		return
	}
	t.cause = cause
	if t.cancel != nil {
		t.cancel(cause)
	}
}

// begin notes that the entry's handler runs and how to stop it. It returns the
// cause when it is to stop at once.
func (r *roster) begin(e *store.Entry, cancel context.CancelCauseFunc) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.entries[e.Key()]; t != nil {
		t.cancel = cancel
		if t.cause != nil {
			return t.cause
		}
	}
	return r.ended
}

// ending notes that the entry's outcome is on the way. It reports false when
// one was before.
func (r *roster) ending(e *store.Entry) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.entries[e.Key()]
	if t == nil || t.ending {
		return false
	}
	t.ending = true
	return true
}

// isolate makes an entry the one suspect of this instance, for so long, and
// waits until no other one is left here. It reports false when there is one
// already, or when ctx ends. When a process dies, every job in its hands has lost
// a worker; apart from each other, suspects are not failed for what one of them
// did. A job that kills its process does so soon: after a while the next one has
// its turn, or a long job would hold up the others.
func (r *roster) isolate(ctx context.Context, e *store.Entry, while time.Duration) bool {
	r.mu.Lock()
	if r.suspect != (store.Key{}) {
		r.mu.Unlock()
		return false
	}
	r.suspect = e.Key()
	r.mu.Unlock()
	pause(ctx, while/10) // what was dispatched along with it comes by now, and is turned away
	apart := make(chan struct{})
	r.mu.Lock()
	r.apart = apart
	r.separate()
	r.mu.Unlock()
	select {
	case <-apart:
	case <-ctx.Done():
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.entries[e.Key()]; t != nil {
		t.trial = time.AfterFunc(while, func() { r.acquit(e) })
	}
	return true
}

// acquit ends the isolation of an entry.
func (r *roster) acquit(e *store.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.entries[e.Key()]; t != nil {
		t.acquitted = true
	}
	if r.suspect == e.Key() {
		r.suspect, r.apart = store.Key{}, nil
	}
	r.separate()
}

// separate is called with mu held.
func (r *roster) separate() {
	if r.apart == nil {
		return
	}
	for key, t := range r.entries {
		if key != r.suspect && suspected(t.entry) && !t.acquitted {
			return
		}
	}
	close(r.apart)
	r.apart = nil
}

// suspected tells whether the next loss of a worker is held to be the job's fault.
func suspected(e *store.Entry) bool { return e.Losses >= lossLimit-1 }

// remove forgets an entry whose outcome is recorded.
func (r *roster) remove(e *store.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.entries[e.Key()]; t != nil && t.trial != nil {
		t.trial.Stop()
	}
	delete(r.entries, e.Key())
	if r.suspect == e.Key() {
		r.suspect, r.apart = store.Key{}, nil
	}
	r.separate()
	if len(r.entries) == 0 && r.empty != nil {
		close(r.empty)
		r.empty = nil
	}
}

// stop ends the contexts of the entries that match, with a cause.
func (r *roster) stop(match func(*store.Entry) bool, cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.entries {
		if match(t.entry) {
			t.stop(cause)
		}
	}
}

// end ends the contexts of all entries, and of those that come later.
func (r *roster) end(cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = cause
	for _, t := range r.entries {
		t.stop(cause)
	}
}

// abandon returns the entries whose handler has not returned. Their outcome is
// up to the caller.
func (r *roster) abandon() []*store.Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	var left []*store.Entry
	for _, t := range r.entries {
		if !t.ending {
			left = append(left, t.entry)
		}
	}
	return left
}

// keys returns the keys of all entries.
func (r *roster) keys() map[store.Key]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	keys := make(map[store.Key]bool, len(r.entries))
	for key := range r.entries {
		keys[key] = true
	}
	return keys
}

// all returns every entry, for the heartbeat to compare.
func (r *roster) all() []*store.Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	entries := make([]*store.Entry, 0, len(r.entries))
	for _, t := range r.entries {
		entries = append(entries, t.entry)
	}
	return entries
}

// wait waits until no entry is left or ctx ends, and returns how many are left.
func (r *roster) wait(ctx context.Context) int {
	r.mu.Lock()
	n := len(r.entries)
	if n > 0 && r.empty == nil {
		r.empty = make(chan struct{})
	}
	empty := r.empty
	r.mu.Unlock()
	if n == 0 {
		return 0
	}
	select {
	case <-empty:
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.entries)
}

package carillon

import (
	"context"
	"sync"
)

// pool is the slots of one queue in this instance.
type pool struct {
	mu       sync.Mutex
	open     int
	reserved int // by reads under way; most of them come back at once
	paused   bool
	change   chan struct{} // closed when a slot is freed or the pause ends; nil while nobody waits
}

func newPool(slots int) *pool { return &pool{open: slots} }

// ready waits until there is a free slot and the queue is not paused. It
// reports false when ctx ends.
func (p *pool) ready(ctx context.Context) bool {
	for {
		p.mu.Lock()
		var change <-chan struct{}
		if p.open == 0 || p.paused {
			change = p.changed()
		}
		p.mu.Unlock()
		if ctx.Err() != nil {
			return false
		}
		if change == nil {
			return true
		}
		select {
		case <-change:
		case <-ctx.Done():
		}
	}
}

func (p *pool) free() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paused {
		return 0
	}
	return p.open
}

// reserve takes up to n slots for a read and returns how many it got.
func (p *pool) reserve(n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paused {
		return 0
	}
	return p.book(n)
}

// claim is reserve for entries that were delivered already. What other readers
// have reserved and may not need is worth the wait.
func (p *pool) claim(ctx context.Context, n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.paused && p.open < n && p.reserved > 0 && ctx.Err() == nil {
		change := p.changed()
		p.mu.Unlock()
		select {
		case <-change:
		case <-ctx.Done():
		}
		p.mu.Lock()
	}
	if p.paused {
		return 0
	}
	return p.book(n)
}

// book is called with mu held.
func (p *pool) book(n int) int {
	n = min(n, p.open)
	p.open -= n
	p.reserved += n
	return n
}

// restore ends a reservation of n slots, of which some were not used.
func (p *pool) restore(n, unused int) {
	if n == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reserved -= n
	p.open += unused
	p.wake()
}

// give frees the slot of an attempt.
func (p *pool) give() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open++
	if p.open == 1 || p.reserved > 0 {
		p.wake()
	}
}

func (p *pool) pause(paused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paused && !paused {
		p.wake()
	}
	p.paused = paused
}

// changed is called with mu held.
func (p *pool) changed() <-chan struct{} {
	if p.change == nil {
		p.change = make(chan struct{})
	}
	return p.change
}

// wake is called with mu held.
func (p *pool) wake() {
	if p.change != nil {
		close(p.change)
		p.change = nil
	}
}

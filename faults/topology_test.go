package faults_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
)

// pump submits jobs, paced, until it is stopped, and measures the longest time
// without an acknowledgement.
type pump struct {
	w     *world
	acked atomic.Int64
	end   context.CancelFunc
	done  sync.WaitGroup

	mu      sync.Mutex
	last    time.Time
	longest time.Duration
}

// pump starts to submit the jobs that next makes, some hundred a second.
func (w *world) pump(s *carillon.Scheduler, next func() carillon.Job) *pump {
	return w.flood(s, next, 4, 5*time.Millisecond)
}

// flood is pump with another number of goroutines, and another pause of each.
func (w *world) flood(s *carillon.Scheduler, next func() carillon.Job, goroutines int, pace time.Duration) *pump {
	ctx, end := context.WithCancel(w.t.Context())
	p := &pump{w: w, end: end, last: time.Now()}
	for range goroutines {
		p.done.Go(func() {
			for ctx.Err() == nil {
				if _, err := w.insist(ctx, s, next()); err == nil {
					p.count()
				} else if ctx.Err() == nil {
					assert.Failf(w.t, "cannot submit", "%v", err)
				}
				_ = wait(ctx, pace)
			}
		})
	}
	w.t.Cleanup(end)
	return p
}

func (p *pump) count() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.longest, p.last = max(p.longest, now.Sub(p.last)), now
	p.acked.Add(1)
}

// more waits until n more jobs are acknowledged.
func (p *pump) more(n int64) {
	p.w.t.Helper()
	target := p.acked.Load() + n
	p.w.eventually("jobs are acknowledged", func() bool { return p.acked.Load() >= target })
}

// stop ends the pump, which gives up what cannot be submitted now. It returns the
// longest time without an acknowledgement.
func (p *pump) stop() time.Duration {
	p.end()
	p.done.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.longest
}

// always makes the same job again and again.
func always(job carillon.Job) func() carillon.Job { return func() carillon.Job { return job } }

// route is a way to a server that the test can close, or lead to another one.
type route struct {
	mu    sync.Mutex
	to    *redistest.Server
	conns []net.Conn
}

var errClosed = errors.New("the test has closed this way")

// leads makes new connections go to a server, and ends those there are; nil
// closes the way.
func (r *route) leads(to *redistest.Server) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conn := range r.conns {
		_ = conn.Close()
	}
	r.to, r.conns = to, nil
}

func (r *route) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.to == nil {
		return nil, errClosed
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, r.to.Addr())
	if err == nil {
		r.conns = append(r.conns, conn)
	}
	return conn, err
}

func (r *route) client(t testing.TB) *redis.Client {
	t.Helper()
	opts := r.to.Options()
	opts.Dialer = r.dial
	c := redis.NewClient(opts)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

package faults_test

import (
	"context"
	"testing"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
)

// durable is a server that keeps what it acknowledged.
var durable = []string{"appendonly yes", "appendfsync always"}

// work is a handler that takes a moment.
func work(ctx context.Context, _ *carillon.Execution) error {
	return wait(ctx, 2*time.Millisecond)
}

// B1: the server is killed and restarted, five times, while jobs are submitted
// and executed. Everything it acknowledged is in its append-only file.
func TestB1_ServerKilled(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t, durable...)
	w := newWorld(t, server.Client(t))
	producer := w.scheduler(server.Client(t))
	for range 2 {
		w.instance(server.Client(t), handlers{"work": work})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.load(producer, 400, carillon.Job{Name: "work"})
	}()
	random := dice(t)
	for range 5 {
		before := len(w.queue.Acked())
		w.eventually("jobs are accepted", func() bool { return len(w.queue.Acked()) > before+random.IntN(20) || isClosed(done) })
		server.Restart(t)
		w.fault(1)
	}
	<-done
	w.finish(400)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

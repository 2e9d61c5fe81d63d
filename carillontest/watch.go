package carillontest

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// watch tells when the clock takes long to move, for a test that hangs says
// nothing by itself. It lives outside of the bubble, in real time.
type watch struct {
	name string
	out  io.Writer

	mu   sync.Mutex
	what string // what moves the clock now
	turn int    // counts those

	ended  chan struct{}
	joined sync.WaitGroup
}

// long is a time in which years pass in a bubble.
const long = 10 * time.Second

func startWatch(test string) *watch {
	w := &watch{name: test, out: os.Stderr, ended: make(chan struct{})}
	w.joined.Go(func() { w.run(long) })
	return w
}

func (w *watch) stop() {
	close(w.ended)
	w.joined.Wait()
}

// during notes what moves the clock until done is called. A nil watch does not
// watch.
func (w *watch) during(what string) (done func()) {
	if w == nil {
		return func() {}
	}
	w.note(what)
	return func() { w.note("") }
}

func (w *watch) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.what = what
	w.turn++
}

func (w *watch) run(every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	seen, told := 0, 0
	for {
		select {
		case <-ticker.C:
		case <-w.ended:
			return
		}
		w.mu.Lock()
		what, turn := w.what, w.turn
		w.mu.Unlock()
		if what != "" && turn == seen && turn != told {
			told = turn
			_, _ = fmt.Fprintf(w.out, "carillontest: %s: %s takes more than %v of real time. Either there is very much to do, "+
				"or virtual time stands still because a goroutine of the test waits for something outside of the bubble, "+
				"such as a network, a process or a channel that was made outside.\n", w.name, what, every)
		}
		seen = turn
	}
}

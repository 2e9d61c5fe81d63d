package carillontest

import (
	"context"
	"fmt"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon"
)

// Elapsed is the virtual time since the first Start, or 0 before.
func (e *Env) Elapsed() time.Duration { return e.offset(time.Now()) }

// offset gives an instant as a duration since the first Start.
func (e *Env) offset(t time.Time) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.origin.IsZero() {
		return 0
	}
	return t.Sub(e.origin)
}

// moment describes an instant in messages.
func (e *Env) moment(t time.Time) string {
	date := t.UTC().Format("2006-01-02 15:04:05.999 MST")
	if !e.started() {
		return date
	}
	return fmt.Sprintf("+%v (%s)", e.offset(t), date)
}

func (e *Env) started() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.origin.IsZero()
}

// Advance lets the clock run for d. It returns when all that was due until then
// is done, or waits for a later time. What is due at the very end is done too.
// Advance(0) finishes what can be done now.
func (e *Env) Advance(d time.Duration) {
	e.t.Helper()
	if d < 0 {
		e.t.Fatalf("carillontest: Advance(%v): the clock does not run backwards", d)
	}
	done := e.watch.during("Advance(" + d.String() + ")")
	defer done()
	synctest.Wait()
	time.Sleep(d)
	synctest.Wait()
}

// AdvanceTo lets the clock run up to an instant, as Advance does. Before Start it
// sets the date on which the test begins, and years cost nothing.
func (e *Env) AdvanceTo(t time.Time) {
	e.t.Helper()
	if d := time.Until(t); d >= 0 {
		e.Advance(d)
		return
	}
	e.t.Fatalf("carillontest: AdvanceTo(%v): it is %v already", t.UTC(), time.Now().UTC())
}

// Await lets the clock run until a job is finished, for at most the given time,
// and returns it. Use it where the moment does not matter or is not known, as
// with retries whose delays are random.
func (e *Env) Await(id string, atMost time.Duration) *carillon.JobInfo {
	e.t.Helper()
	done := e.watch.during("Await(" + id + ")")
	defer done()
	ctx, cancel := context.WithTimeout(e.ctx, atMost)
	defer cancel()
	job, err := e.inspect.Await(ctx, id)
	if ctx.Err() != nil {
		e.failf("%s; want it finished within %v", e.describe(id), atMost)
	}
	if err != nil {
		e.failf("%v", err)
	}
	synctest.Wait()
	return job
}

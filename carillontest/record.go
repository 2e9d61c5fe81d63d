package carillontest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/carillon-go/carillon"
)

// Run is one call of a handler.
type Run struct {
	ID      string // of the job
	Name    string
	Args    json.RawMessage
	Attempt int
	At      time.Time     // when the handler was called, in virtual time
	Offset  time.Duration // the same, since the first Start
	Tick    time.Time     // the planned time, if a schedule made the job
	Done    bool          // the handler has returned
	Took    time.Duration // virtual time until it did
	Err     error         // what it returned; a panic is an error here
}

// Decode decodes the arguments into v.
func (r Run) Decode(v any) error { return json.Unmarshal(r.Args, v) }

// String describes the run on one line.
func (r Run) String() string {
	s := fmt.Sprintf("+%v %s %s attempt %d args %s: ", r.Offset, r.Name, r.ID, r.Attempt, clip(r.Args))
	switch {
	case !r.Done:
		return s + "running"
	case r.Err != nil:
		return s + "error: " + firstLine(r.Err.Error())
	}
	return s + "ok"
}

// recorder keeps the runs in the order in which they began.
type recorder struct {
	mu   sync.Mutex
	list []*Run
	open int
}

func (r *recorder) begin(run Run) *Run {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, &run)
	r.open++
	return &run
}

func (r *recorder) end(run *Run, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	run.Done, run.Took, run.Err = true, time.Since(run.At), err
	r.open--
}

func (r *recorder) running() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open
}

// runs copies those of a name, or all when it is empty.
func (r *recorder) runs(name string) []Run {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Run
	for _, run := range r.list {
		if name == "" || run.Name == name {
			out = append(out, *run)
		}
	}
	return out
}

var (
	errExited = errors.New("the handler ended its goroutine")
	errPanic  = errors.New("panic")
)

// Record is the middleware that sees every run. Schedulers made by an Env have
// it; give it to the Use of others, before any other middleware.
func (e *Env) Record(next carillon.Handler) carillon.Handler {
	return carillon.HandlerFunc(func(ctx context.Context, x *carillon.Execution) (err error) {
		now := time.Now()
		run := e.record.begin(Run{
			ID: x.ID, Name: x.Name, Args: x.Args, Attempt: x.Attempt, At: now, Offset: e.offset(now), Tick: x.Tick,
		})
		returned := false
		defer func() {
			if returned {
				e.record.end(run, err)
				return
			}
			v := recover()
			if v == nil { // runtime.Goexit, as by t.FailNow
				e.record.end(run, errExited)
				return
			}
			e.record.end(run, fmt.Errorf("%w: %v", errPanic, v))
			panic(v)
		}()
		err = next.ServeJob(ctx, x)
		returned = true
		return err
	})
}

// Runs returns what ran so far, in the order in which it began: the runs of one
// handler, or all when name is empty.
func (e *Env) Runs(name string) []Run { return e.record.runs(name) }

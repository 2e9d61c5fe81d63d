package carillon

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/carillon-go/carillon/store"
)

// Handler executes jobs. It returns nil when the job is done; any other error
// is a failed attempt, which [Permanent], [RetryAfter] and [Snooze] steer. A
// panic is a failure with its stack. The context ends when the job should stop,
// and context.Cause tells why: [ErrCancelled], [ErrTimeout], [ErrShutdown] or
// [ErrLeaseLost]. Handlers run concurrently.
type Handler interface {
	ServeJob(ctx context.Context, x *Execution) error
}

// HandlerFunc lets a function be a [Handler].
type HandlerFunc func(ctx context.Context, x *Execution) error

// ServeJob calls f.
func (f HandlerFunc) ServeJob(ctx context.Context, x *Execution) error { return f(ctx, x) }

// Middleware wraps a handler, as for tracing or metrics.
type Middleware func(Handler) Handler

// Func makes a handler of a function whose argument is decoded from the job's
// Args. Arguments that cannot be decoded into A fail the job for good.
func Func[A any](f func(ctx context.Context, args A) error) Handler {
	if f == nil {
		return nil
	}
	return HandlerFunc(func(ctx context.Context, x *Execution) error {
		var args A
		if err := x.Decode(&args); err != nil {
			return err
		}
		return f(ctx, args)
	})
}

// FuncResult is like [Func] for functions with a result, which is kept with the
// finished job as JSON.
func FuncResult[A, R any](f func(ctx context.Context, args A) (R, error)) Handler {
	if f == nil {
		return nil
	}
	return HandlerFunc(func(ctx context.Context, x *Execution) error {
		var args A
		if err := x.Decode(&args); err != nil {
			return err
		}
		result, err := f(ctx, args)
		if err != nil {
			return err
		}
		return x.SetResult(result)
	})
}

// HandlerConfig holds what jobs of one handler have in common.
type HandlerConfig struct {
	// Retry replaces the policy of Config.
	Retry *Retry
	// Timeout bounds an attempt; 0 means Config.Timeout.
	Timeout time.Duration
}

// Execution is a running attempt. [FromContext] finds it in a handler. Its
// methods, except SetResult, are safe for concurrent use until the handler
// returns. What it holds is the handler's own copy.
type Execution struct {
	ID      string
	Name    string
	Queue   string
	Args    json.RawMessage
	Headers map[string]string
	Tags    []string

	// Attempt counts the executions of the job, from 1. Failures and Losses
	// tell how many of those before failed or lost their worker.
	Attempt  int
	Failures int
	Losses   int

	// Token is larger for every later attempt of the same job. A resource that
	// remembers the largest token it has seen can refuse a worker that was
	// thought dead and comes back.
	Token uint64

	// MutexToken is larger for every later holder of the job's mutex, whichever
	// job that is. 0 when the job has no mutex.
	MutexToken uint64

	// Schedule and Tick tell which planned time the job was created for.
	Schedule string
	Tick     time.Time

	// Shard tells which part of the tick's work this is.
	Shard Shard

	// Logger carries the job's ID, name and attempt.
	Logger *slog.Logger

	entry     *store.Entry
	scheduler *Scheduler
	result    []byte
}

type executionKey struct{}

// FromContext returns the execution a handler's context belongs to, or nil
// outside of a handler.
func FromContext(ctx context.Context) *Execution {
	x, _ := ctx.Value(executionKey{}).(*Execution)
	return x
}

// Decode decodes the arguments into v. An error is permanent and does not show
// the arguments.
func (x *Execution) Decode(v any) error {
	if err := json.Unmarshal(x.Args, v); err != nil {
		return Permanent(fmt.Errorf("the arguments of %s cannot be decoded into %T", x.Name, v))
	}
	return nil
}

// SetResult sets what is kept as the job's result when the handler returns nil.
// A later call replaces an earlier one. It is not safe for concurrent use.
func (x *Execution) SetResult(v any) error {
	data, err := encode("result", v, x.scheduler.config.MaxPayload)
	if err != nil {
		return Permanent(err)
	}
	x.result = x.scheduler.vault.seal(x.ID, x.Name, fieldResult, data)
	return nil
}

// Progress publishes how far the attempt is; v is encoded as JSON and shown by
// Get. It is refused with [ErrFenced] when a newer attempt exists.
func (x *Execution) Progress(ctx context.Context, v any) error {
	return x.note(ctx, fieldProgress, v, true)
}

// Checkpoint stores what a later attempt needs to go on from here; v is encoded
// as JSON. It is refused with [ErrFenced] when a newer attempt exists.
func (x *Execution) Checkpoint(ctx context.Context, v any) error {
	return x.note(ctx, fieldCheckpoint, v, false)
}

func (x *Execution) note(ctx context.Context, field string, v any, progress bool) error {
	data, err := encode(field, v, x.scheduler.config.MaxPayload)
	if err == nil {
		err = x.scheduler.store.Note(ctx, x.entry, progress, x.scheduler.vault.seal(x.ID, x.Name, field, data))
	}
	return opError(field, x.ID, err)
}

// Restore decodes the last checkpoint of the job into v and reports whether
// there is one. With encryption, one that was altered is an [ErrDecrypt].
func (x *Execution) Restore(ctx context.Context, v any) (bool, error) {
	job, err := x.scheduler.store.Get(ctx, x.ID)
	if err != nil {
		return false, opError("restore", x.ID, err)
	}
	data, err := x.scheduler.vault.field(x.ID, x.Name, fieldCheckpoint, job.Checkpoint)
	if err != nil || data == nil {
		return false, opError("restore", x.ID, err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return false, opError("restore", x.ID, fmt.Errorf("the checkpoint cannot be decoded into %T", v))
	}
	return true, nil
}

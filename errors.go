package carillon

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/carillon-go/carillon/internal/seal"
	"github.com/carillon-go/carillon/store"
)

// Conditions to test for with errors.Is.
var (
	// ErrInvalid: an argument is wrong. Nothing was sent. The text names the
	// field and its limit.
	ErrInvalid = errors.New("invalid")
	// ErrConflict: the ID belongs to a job with other content, which stays as it is.
	ErrConflict = store.ErrConflict
	// ErrNotFound: there is no such job or schedule, or its retention has passed.
	ErrNotFound = store.ErrNotFound
	// ErrState: the job's state does not allow the operation.
	ErrState = store.ErrState
	// ErrFenced: a newer attempt, or a newer holder of the lease, exists.
	ErrFenced = store.ErrFenced
	// ErrUnavailable: Redis refused or could not be reached. Surely nothing was done.
	ErrUnavailable = store.ErrUnavailable
	// ErrUncertain: the connection failed after the command may have been sent,
	// so it may have been done. Submitting again under the same ID is safe.
	ErrUncertain = store.ErrUncertain
	// ErrDamaged: what Redis holds under this key was not written by Carillon, or is torn.
	ErrDamaged = store.ErrDamaged
	// ErrDecrypt: encrypted data cannot be used here. With ErrDamaged as well, it was
	// altered or belongs to another job; otherwise this instance lacks the key, or
	// has keys and the data is not encrypted. See Encryption.
	ErrDecrypt = seal.ErrOpen
	// ErrLocked: TryLock found the lease held by somebody else.
	ErrLocked = errors.New("locked by another holder")
	// ErrClosed: the Scheduler was shut down, or Run was called twice.
	ErrClosed = store.ErrClosed
)

// Causes for which the context of a handler or of a lease ends; see [context.Cause].
var (
	// ErrCancelled: somebody cancelled the job.
	ErrCancelled = errors.New("the job was cancelled")
	// ErrTimeout: the attempt took longer than its timeout.
	ErrTimeout = errors.New("the attempt timed out")
	// ErrShutdown: the instance stops; the job goes to another one, uncharged.
	ErrShutdown = errors.New("the instance is shutting down")
	// ErrLeaseLost: the lease could not be renewed in time; another worker may
	// have the job, its mutex, or the lock.
	ErrLeaseLost = errors.New("the lease was lost")
)

// Error is the error of every operation on a job, queue, schedule or lock.
type Error struct {
	Op    string // "submit", "cancel", …
	Job   string // ID or handler name, if there is one
	Queue string
	Err   error
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("carillon: ")
	b.WriteString(e.Op)
	if e.Job != "" {
		b.WriteByte(' ')
		b.WriteString(shown(e.Job))
	}
	if e.Queue != "" {
		b.WriteString(" (queue ")
		b.WriteString(shown(e.Queue))
		b.WriteByte(')')
	}
	b.WriteString(": ")
	b.WriteString(e.Err.Error())
	return b.String()
}

// shown makes a name that may be hostile fit for a line of a log.
func shown(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) {
		return strconv.Quote(clipped(s))
	}
	return clipped(s)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func opError(op, job string, err error) error {
	if err == nil {
		return nil
	}
	var already *Error
	if errors.As(err, &already) {
		return err
	}
	return &Error{Op: op, Job: job, Err: err}
}

// invalid reports a bad argument by the name of its field.
func invalid(field, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrInvalid, field, fmt.Sprintf(format, args...))
}

// Permanent marks a handler's error as one that no retry can mend: the job
// fails at once, whatever attempts are left. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &steered{err: err, permanent: true}
}

// RetryAfter makes a failed attempt be followed by another one after d instead
// of the delay of the retry policy. It is charged like any failure. A negative
// d counts as 0; RetryAfter with a nil error is a failure all the same.
func RetryAfter(d time.Duration, err error) error {
	if err == nil {
		err = errors.New("to be tried again")
	}
	return &steered{err: err, after: max(0, d), hasAfter: true}
}

// Snooze puts the job off by d without a failure: no attempt is charged. A
// negative d counts as 0.
func Snooze(d time.Duration) error {
	return &steered{err: fmt.Errorf("snoozed for %v", d), after: max(0, d), snooze: true}
}

// steered is an error by which a handler decides what happens next.
type steered struct {
	err       error
	after     time.Duration
	hasAfter  bool
	permanent bool
	snooze    bool
}

func (s *steered) Error() string { return s.err.Error() }
func (s *steered) Unwrap() error { return s.err }

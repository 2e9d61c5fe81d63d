package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Conditions a caller can act on.
var (
	// ErrNotFound: there is no such job, lease or schedule.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the ID is taken by a job with other content.
	ErrConflict = errors.New("the ID belongs to another job")
	// ErrFenced: the token is not the current one; the job has moved on.
	ErrFenced = errors.New("fenced: a newer attempt or holder exists")
	// ErrNewer: the job was written by a newer release that this one must not run.
	ErrNewer = errors.New("written by a newer release")
	// ErrDamaged: what Redis holds for this job cannot be read.
	ErrDamaged = errors.New("damaged or foreign data")
	// ErrUnavailable: Redis refused or could not be reached; surely nothing was done.
	ErrUnavailable = errors.New("redis is unavailable; nothing was done")
	// ErrFull comes with ErrUnavailable.
	ErrFull = errors.New("redis is out of memory (maxmemory)")
	// ErrDenied comes with ErrUnavailable or ErrUncertain: a password, a
	// permission or a certificate is wrong, on either side.
	ErrDenied = errors.New("redis denies access or is not trusted")
	// ErrUncertain: the connection failed after the command may have been sent.
	ErrUncertain = errors.New("redis did not answer; it may have been done")
	// ErrState: the job's state does not allow the operation.
	ErrState = errors.New("not possible in the job's state")
	// ErrCursor: it is not one that an event of this namespace had.
	ErrCursor = errors.New("cursor")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("closed")
)

// verdict says what an error means for the command that got it.
type verdict int

const (
	final   verdict = iota // the server answered; asking again gives the same
	later                  // the server refused for now; nothing was done
	notSent                // the command never left
	unknown                // the command may have been executed
)

// Replies by which a server says: not now. None of them leaves a trace.
var laterReplies = []string{
	"LOADING", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "BUSY Redis", "NOREPLICAS", "MISCONF",
	"max number of clients", "UNBLOCKED",
}

func judge(err error) verdict {
	var reply redis.Error
	var op *net.OpError
	var dial *dialError
	switch {
	case errors.Is(err, ErrReplicas):
		return final // it has waited already
	case elsewhere(err):
		return later
	case errors.As(err, &dial), refusesCertificate(err):
		return notSent
	case errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, redis.ErrClosed), errors.Is(err, redis.ErrPoolExhausted):
		return notSent
	case errors.As(err, &reply):
		for _, code := range laterReplies {
			if strings.Contains(reply.Error(), code) {
				return later
			}
		}
		return final
	case errors.As(err, &op) && op.Op == "dial":
		return notSent
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.As(err, &op):
		return unknown
	}
	var timeout net.Error
	if errors.As(err, &timeout) {
		return unknown
	}
	if strings.HasPrefix(err.Error(), "redis: ") {
		return notSent
	}
	return unknown
}

// elsewhere reports whether a node of a cluster said that the slot is not, or not
// only, its own. Nothing was done.
func elsewhere(err error) bool {
	_, moved := redis.IsMovedError(err)
	_, ask := redis.IsAskError(err)
	return moved || ask
}

// hasReply looks for a server's error code. Errors from within a script carry
// it somewhere in the text, depending on the server's release.
func hasReply(err error, code string) bool {
	if err == nil { // as after most commands; looking for a type allocates
		return false
	}
	var reply redis.Error
	return errors.As(err, &reply) && strings.Contains(reply.Error(), code)
}

// classify wraps err with the sentinel that tells whether the command may have
// been executed. sent is true when an earlier try may have been.
func classify(err error, sent bool) error {
	v, denied := judge(err), shutOut(err)
	if denied {
		err = fmt.Errorf("%w: %w", ErrDenied, err)
	}
	switch {
	case v == unknown || sent:
		return fmt.Errorf("%w: %w", ErrUncertain, err)
	case v == later || v == notSent || denied:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case hasReply(err, "OOM"):
		return fmt.Errorf("%w: %w: %w", ErrUnavailable, ErrFull, err)
	case hasReply(err, "WRONGTYPE"):
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// dialError is an error of making a connection, of which the handshake of TLS is
// a part; go-redis passes it on as it is. Nothing was sent.
type dialError struct {
	addr string
	err  error
}

func (e *dialError) Error() string { return fmt.Sprintf("dial %s: %v", e.addr, e.err) }
func (e *dialError) Unwrap() error { return e.err }

// shutOut tells errors that waiting does not mend from those of an outage.
func shutOut(err error) bool {
	if hasReply(err, "NOAUTH") || hasReply(err, "WRONGPASS") || hasReply(err, "NOPERM") {
		return true
	}
	var dial *dialError // crypto/tls has few types of errors, but a prefix for all
	return refusesCertificate(err) || errors.As(err, &dial) && strings.Contains(dial.err.Error(), "tls: ")
}

// refusesCertificate tells that the server did not like ours. With TLS 1.3 it
// says so only after the dial, in place of the first reply.
func refusesCertificate(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), "certificate")
}

// surelyNot reports an error of a command that prepares another one. Whatever
// became of the first, the other was not sent.
func surelyNot(what string, err error) error {
	if errors.Is(err, ErrUncertain) && errors.Is(err, ErrDenied) {
		return fmt.Errorf("%s: %w: %w: %v", what, ErrUnavailable, ErrDenied, err) //nolint:errorlint // as below
	}
	if errors.Is(err, ErrUncertain) {
		return fmt.Errorf("%s: %w: %v", what, ErrUnavailable, err) //nolint:errorlint // it must not be ErrUncertain any more
	}
	return fmt.Errorf("%s: %w", what, err)
}

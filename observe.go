package carillon

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/carillon-go/carillon/store"
)

// EventType is what happened.
type EventType string

// The events. Submissions and starts of jobs give none: they would cost more
// than the jobs.
const (
	EventSucceeded   EventType = "succeeded"
	EventFailed      EventType = "failed" // no attempt is left
	EventCancelled   EventType = "cancelled"
	EventExpired     EventType = "expired"
	EventRetrying    EventType = "retrying"    // an attempt failed, another follows
	EventRevived     EventType = "revived"     // by Retry
	EventQuarantined EventType = "quarantined" // its data could not be used
	EventPaused      EventType = "paused"      // a queue
	EventResumed     EventType = "resumed"     // a queue
)

// Event is something that happened in the namespace.
type Event struct {
	Cursor  string // to resume after this event
	Time    time.Time
	Type    EventType
	ID      string // of the job
	Name    string
	Queue   string
	Attempt int
	Error   string
}

// Subscribe yields the events of the whole namespace: those after this call when
// cursor is empty, otherwise those after the event the cursor is of, as far as
// they are kept. It asks Redis for its place at once, so nothing is missed that
// happens between the call and the loop. The sequence ends with an error, at the
// latest when ctx ends, or when the loop is left. Events of one job come in
// their order, every one once. Each subscription has a connection of its own (on
// Redis Cluster one a segment).
func (s *Scheduler) Subscribe(ctx context.Context, cursor string) iter.Seq2[Event, error] {
	events := s.store.Events(ctx, cursor)
	return func(yield func(Event, error) bool) {
		for e, err := range events {
			if err != nil {
				if errors.Is(err, store.ErrCursor) {
					err = fmt.Errorf("%w: %w", ErrInvalid, err)
				}
				yield(Event{}, opError("subscribe", "", err))
				return
			}
			event := Event{
				Cursor: e.Cursor, Time: e.Time, Type: EventType(e.Type), ID: e.ID, Name: e.Name,
				Queue: shownQueue(e.Queue), Attempt: e.Attempt, Error: e.Error,
			}
			if !yield(event, nil) {
				return
			}
		}
	}
}

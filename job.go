package carillon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/carillon-go/carillon/store"
)

// Job is a unit of work to be done by the handler of its name. It is a value:
// it can be submitted, listed in a batch, put in a schedule, and read from JSON.
// Only Name is required.
type Job struct {
	// Name selects the handler. At most 200 bytes.
	Name string `json:"name"`

	// Args is encoded as JSON and handed to the handler. The encoding may be as
	// long as Config.MaxPayload. nil is encoded as null.
	Args any `json:"args,omitempty"`

	// ID makes the submission idempotent: a second submission of the same job
	// is a duplicate, of another job under the same ID a conflict, for as long
	// as the job is known. Empty: one is made. At most 200 bytes, without '~'.
	ID string `json:"id,omitempty"`

	// Queue is the lane of the job; empty means "default". At most 100 bytes.
	Queue string `json:"queue,omitempty"`

	// Priority orders the jobs of a queue; the zero value is Normal.
	Priority Priority `json:"priority,omitempty"`

	// RunAt is the earliest start by Redis' clock; Delay is the same, counted
	// from the moment Redis accepts the job. At most one of them can be set.
	// The resolution is 1 ms; up to the year 2200 and 100 years.
	RunAt time.Time     `json:"runAt,omitzero"`
	Delay time.Duration `json:"delay,omitempty"`

	// ExpiresAt: an attempt that has not started by then, by Redis' clock, is
	// not made; the job becomes expired when its turn comes. Zero: never.
	ExpiresAt time.Time `json:"expiresAt,omitzero"`

	// Timeout bounds an attempt: its context ends with cause ErrTimeout, which
	// is a failure. 0: the handler's, else none.
	Timeout time.Duration `json:"timeout,omitempty"`

	// Retry replaces the handler's retry policy.
	Retry *Retry `json:"retry,omitempty"`

	// Unique refuses a second job with the same key; see [Unique].
	Unique Unique `json:"unique,omitzero"`

	// Mutex lets at most one job with this key run at a time, in the whole
	// namespace. The others wait in the order of their turn, without holding a
	// worker's slot. At most 200 bytes.
	Mutex string `json:"mutex,omitempty"`

	// Retain is how long the finished job is kept, instead of Config.Retention.
	Retain time.Duration `json:"retain,omitempty"`

	// Tags index the job while it is unfinished; see [Filter]. At most 20, each
	// at most 100 bytes.
	Tags []string `json:"tags,omitempty"`

	// Headers travel with the job, for trace IDs and the like. At most 64 KiB.
	Headers map[string]string `json:"headers,omitempty"`
}

// Unique keeps a second job with the same key from being accepted. Submit then
// returns the first one's ID and Duplicate.
type Unique struct {
	// Key, at most 200 bytes. Empty: not unique.
	Key string `json:"key,omitempty"`
	// For holds the key for this long from the submission even when the job is
	// finished earlier. 0: until it is finished. It never frees the key of an
	// unfinished job.
	For time.Duration `json:"for,omitempty"`
}

// Priority orders the jobs of a queue. The order is strict but for the batch that is being
// read, and for one start in eight, which is kept for the lower priorities, so that none starves.
type Priority int

// The priorities.
const (
	Low      Priority = -1
	Normal   Priority = 0
	High     Priority = 1
	Critical Priority = 2
)

var priorityLetters = map[Priority]byte{Critical: 'c', High: 'h', Normal: 'n', Low: 'l'}

// String returns the priority's name.
func (p Priority) String() string {
	switch p {
	case Low:
		return "low"
	case Normal:
		return "normal"
	case High:
		return "high"
	case Critical:
		return "critical"
	}
	return "Priority(" + strconv.Itoa(int(p)) + ")"
}

// Receipt tells what became of a submitted job.
type Receipt struct {
	// ID of the job. It is set even when the submission failed with
	// ErrUncertain, so that the same job can be submitted again.
	ID string
	// Duplicate: the same job was there already, or another one holds the
	// unique key, in which case ID is that one's. Nothing was stored.
	Duplicate bool
	// Err is the job's own error, in the receipts of SubmitMany only.
	Err error
}

// Limits of a job's fields, in bytes unless said otherwise.
const (
	maxNameBytes   = 200
	maxIDBytes     = 200
	maxKeyBytes    = 200
	maxQueueBytes  = 100
	maxTagBytes    = 100
	maxTags        = 20 // each costs an index entry
	maxHeaderBytes = 64 << 10
	maxDelay       = 100 * 365 * 24 * time.Hour
)

// Times outside of this range are taken for mistakes; Redis' sorted sets could
// hold more.
var (
	minTime = time.Unix(0, 0)
	maxTime = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
)

// validate checks everything but Args, which [Job.spec] encodes.
func (j *Job) validate() (errs []error) {
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	add(validText("Name", j.Name, maxNameBytes))
	if j.ID != "" {
		add(validText("ID", j.ID, maxIDBytes))
		if strings.Contains(j.ID, "~") && !store.MadeID(j.ID) {
			add(invalid("ID", "must not contain '~', which marks IDs that Carillon makes"))
		}
	}
	if j.Queue != "" {
		add(validText("Queue", j.Queue, maxQueueBytes))
	}
	if _, ok := priorityLetters[j.Priority]; !ok {
		add(invalid("Priority", "%d is unknown; use Low, Normal, High or Critical", j.Priority))
	}
	add(validTime("RunAt", j.RunAt))
	add(validTime("ExpiresAt", j.ExpiresAt))
	add(validDuration("Delay", j.Delay))
	add(validDuration("Timeout", j.Timeout))
	add(validDuration("Retain", j.Retain))
	add(validDuration("Unique.For", j.Unique.For))
	if !j.RunAt.IsZero() && j.Delay != 0 {
		add(invalid("Delay", "set either Delay or RunAt, not both"))
	}
	if !j.ExpiresAt.IsZero() && !j.RunAt.IsZero() && !j.ExpiresAt.After(j.RunAt) {
		add(invalid("ExpiresAt", "is not after RunAt, so the job could never run"))
	}
	errs = append(errs, j.Retry.validate("Retry", true)...)
	if j.Unique.Key != "" {
		add(validText("Unique.Key", j.Unique.Key, maxKeyBytes))
	} else if j.Unique.For != 0 {
		add(invalid("Unique.Key", "is empty although Unique.For is set"))
	}
	if j.Mutex != "" {
		add(validText("Mutex", j.Mutex, maxKeyBytes))
	}
	if len(j.Tags) > maxTags {
		add(invalid("Tags", "%d are more than %d", len(j.Tags), maxTags))
	}
	seen := make(map[string]bool, len(j.Tags))
	for i, tag := range j.Tags {
		add(validText(fmt.Sprintf("Tags[%d]", i), tag, maxTagBytes))
		if seen[tag] {
			add(invalid(fmt.Sprintf("Tags[%d]", i), "%q is there twice", tag))
		}
		seen[tag] = true
	}
	size := 0
	for k, v := range j.Headers {
		size += len(k) + len(v)
		if k == "" || !utf8.ValidString(k) || !utf8.ValidString(v) {
			add(invalid("Headers", "a key is empty, or a key or value is not UTF-8"))
		}
	}
	if size > maxHeaderBytes {
		add(invalid("Headers", "%d bytes are more than %d", size, maxHeaderBytes))
	}
	return errs
}

// spec encodes the job for the store.
func (j *Job) spec(maxPayload int) (*store.Spec, error) {
	args, err := encode("Args", j.Args, maxPayload)
	if err != nil {
		return nil, err
	}
	queue := j.Queue
	if queue == "" {
		queue = store.DefaultQueue
	}
	return &store.Spec{
		Name: j.Name, Args: args, Queue: queue, Priority: priorityLetters[j.Priority],
		RunAt: ceilMilli(j.RunAt), Delay: j.Delay, ExpiresAt: j.ExpiresAt, Timeout: j.Timeout, Retry: j.Retry.spec(),
		Unique: j.Unique.Key, UniqueFor: j.Unique.For, Mutex: j.Mutex, Retain: j.Retain,
		Tags: slices.Clone(j.Tags), Headers: maps.Clone(j.Headers),
	}, nil
}

// encode turns a value into JSON within a limit. The error does not show the
// value, which may be a secret.
func encode(field string, v any, limit int) ([]byte, error) {
	data, err := toJSON(v)
	if err != nil {
		return nil, invalid(field, "cannot be encoded as JSON: %v", jsonProblem(err))
	}
	if len(data) > limit {
		return nil, invalid(field, "%d bytes of JSON are more than the limit of %d (Config.MaxPayload)", len(data), limit)
	}
	return data, nil
}

// toJSON is json.Marshal, which takes twice as long as json.Valid for what is JSON
// already and stays as it is.
func toJSON(v any) ([]byte, error) {
	if raw, ok := v.(json.RawMessage); ok && !rewritten(raw) && json.Valid(raw) {
		return slices.Clone(raw), nil
	}
	return json.Marshal(v)
}

// rewritten tells whether JSON may have bytes that json.Marshal leaves out or
// escapes: space, what is special in HTML, and the first byte of U+2028 and U+2029.
func rewritten(raw []byte) bool {
	for _, b := range []byte(" \t\r\n<>&\xe2") {
		if bytes.IndexByte(raw, b) >= 0 {
			return true
		}
	}
	return false
}

// jsonProblem describes an encoding error by type, without the value.
func jsonProblem(err error) string {
	switch err := err.(type) { //nolint:errorlint // json returns them bare
	case *json.UnsupportedTypeError:
		return "unsupported type " + err.Type.String()
	case *json.UnsupportedValueError:
		return "unsupported value"
	case *json.MarshalerError:
		return "its MarshalJSON failed for type " + err.Type.String()
	}
	return "unsupported value"
}

// ceilMilli rounds up, so that no job starts before its time.
func ceilMilli(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(time.Millisecond - 1).Truncate(time.Millisecond)
}

func validText(field, s string, limit int) error {
	switch {
	case s == "":
		return invalid(field, "is empty")
	case len(s) > limit:
		return invalid(field, "%d bytes are more than %d", len(s), limit)
	case !utf8.ValidString(s):
		return invalid(field, "is not valid UTF-8")
	}
	if i := strings.IndexFunc(s, unicode.IsControl); i >= 0 {
		return invalid(field, "has a control character at byte %d", i)
	}
	return nil
}

func validTime(field string, t time.Time) error {
	if !t.IsZero() && (t.Before(minTime) || t.After(maxTime)) {
		return invalid(field, "%s is not between the years 1970 and 2200", t.Format(time.RFC3339))
	}
	return nil
}

func validDuration(field string, d time.Duration) error {
	if d < 0 || d > maxDelay {
		return invalid(field, "%v is not between 0 and %v", d, maxDelay)
	}
	return nil
}

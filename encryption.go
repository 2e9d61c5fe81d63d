package carillon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/carillon-go/carillon/internal/seal"
	"github.com/carillon-go/carillon/store"
)

// Encryption keeps payloads from whoever can read Redis, its files or the network:
// arguments, headers, results, progress and checkpoints are encrypted before they
// leave the process, with AES-256-GCM, and bound to the namespace, the ID of the
// job and the name of its handler. The zero value is off.
//
// Everything else stays readable: names, IDs, queues, tags, parameters of shards,
// unique keys, mutexes, times, retry policies, states, plans of schedules, reasons
// of pauses, and the texts of errors. So does the length of a payload, and whether two writes of the same field of the
// same job are equal.
//
// An instance with keys takes only what is encrypted, and one without only what
// is not: they leave the other jobs and schedules to each other, uncharged, and so
// does an instance that lacks the key of one. What was altered or moved from another
// job fails for good, before it reaches a handler, with [ErrDecrypt].
//
// To rotate, add the new key to Keys on every instance, then make it Current on
// every instance, then remove the old one when nothing is encrypted under it any
// more: finished jobs are forgotten by their retention, and schedules are encrypted
// anew when they are stored again.
//
// It does not show its keys when it is printed or logged.
type Encryption struct {
	// Keys are the keys by ID, of 32 bytes each; all of them decrypt. An ID, at
	// most 100 bytes, is stored with the data.
	Keys map[string][]byte
	// Current is the ID of the key that encrypts.
	Current string
}

// Format implements fmt.Formatter without showing keys.
func (e Encryption) Format(f fmt.State, _ rune) {
	text, _ := e.MarshalText()
	_, _ = f.Write(text)
}

// MarshalText implements encoding.TextMarshaler, which loggers and JSON use,
// without showing keys.
func (e Encryption) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "{%d keys, current %q}", len(e.Keys), clipped(e.Current)), nil
}

func (e Encryption) validate() (errs []error) {
	if len(e.Keys) == 0 && e.Current == "" {
		return nil
	}
	for id, key := range e.Keys {
		if err := validText("Encryption.Keys", id, seal.MaxID); err != nil {
			errs = append(errs, err)
		}
		if len(key) != seal.KeySize {
			errs = append(errs, invalid(fmt.Sprintf("Encryption.Keys[%q]", clipped(id)), "has %d bytes, not %d", len(key), seal.KeySize))
		}
	}
	if e.Keys[e.Current] == nil {
		errs = append(errs, invalid("Encryption.Current", "%q is not among Encryption.Keys", clipped(e.Current)))
	}
	return errs
}

// vault encrypts and decrypts for one namespace. Without keys it passes on what
// is plain and refuses what is not.
type vault struct {
	ring      *seal.Ring // nil without keys
	namespace string
}

func newVault(c *Config) *vault {
	v := &vault{namespace: c.Namespace}
	if len(c.Encryption.Keys) > 0 {
		v.ring = seal.New(c.Encryption.Keys, c.Encryption.Current)
	}
	return v
}

// Fields that are encrypted apart, and must not be taken for each other.
const (
	fieldArgs       = "args" // and headers
	fieldResult     = "result"
	fieldProgress   = "progress"
	fieldCheckpoint = "checkpoint"
)

// payload is what is encrypted of a submitted job, in one piece.
type payload struct {
	Args    json.RawMessage   `json:"args"`
	Headers map[string]string `json:"headers,omitempty"`
}

// take removes the payload from spec and returns what encrypts it; without keys
// nothing does.
func (v *vault) take(spec *store.Spec) store.Seal {
	if v.ring == nil {
		return nil
	}
	plain := marshal(payload{spec.Args, spec.Headers})
	spec.Args, spec.Headers = nil, nil
	name := spec.Name
	return func(id string) []byte { return v.ring.Seal(plain, v.ofJob(id, name, fieldArgs)...) }
}

// repeats reports whether job has the payload that is stored under its ID, with
// another key, and makes it the same bytes.
func (v *vault) repeats(job *store.NewJob, stored *store.Spec) bool {
	if v.ring == nil {
		return false
	}
	binding := v.ofJob(job.ID, job.Spec.Name, fieldArgs)
	plain, err := v.ring.Open(job.Seal(job.ID), binding...)
	if err != nil {
		return false
	}
	sealed, ok := v.ring.SealLike(stored.Args, plain, binding...)
	job.Seal = func(string) []byte { return sealed }
	return ok && bytes.Equal(sealed, stored.Args)
}

// payloadOf reads the payload of a stored job.
func (v *vault) payloadOf(id string, spec *store.Spec) (payload, error) {
	if v.ring == nil && !seal.Sealed(spec.Args) {
		return payload{spec.Args, spec.Headers}, nil
	}
	return v.unpack(payload{spec.Args, spec.Headers}, spec.Args, v.ofJob(id, spec.Name, fieldArgs))
}

func (v *vault) unpack(plain payload, sealed []byte, binding []string) (p payload, err error) {
	data, err := v.open(sealed, binding)
	if err != nil || v.ring == nil {
		return plain, err
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return p, fmt.Errorf("%w: the payload is not ours", ErrDamaged) // not by anybody without a key
	}
	return p, nil
}

// seal encrypts a field of a running job.
func (v *vault) seal(id, name, field string, data []byte) []byte {
	if v.ring == nil || data == nil {
		return data
	}
	return v.ring.Seal(data, v.ofJob(id, name, field)...)
}

// field reads what seal wrote; nothing stays nothing.
func (v *vault) field(id, name, field string, data []byte) ([]byte, error) {
	if data == nil {
		return nil, nil
	}
	return v.open(data, v.ofJob(id, name, field))
}

func (v *vault) open(data []byte, binding []string) ([]byte, error) {
	plain, err := v.ring.Open(data, binding...)
	if errors.Is(err, seal.ErrAltered) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return plain, err
}

func (v *vault) ofJob(id, name, field string) []string {
	return []string{"job", v.namespace, id, name, field}
}

func (v *vault) ofSchedule(schedule, name string) []string {
	return []string{"schedule", v.namespace, schedule, name}
}

// ofThen binds the payload of the job that follows a schedule's jobs.
const ofThen = "then"

// lock encrypts the payloads of a schedule's jobs.
func (v *vault) lock(d definition, schedule string) definition {
	if v.ring == nil {
		return d
	}
	d.Job = v.locked(d.Job, v.ofSchedule(schedule, d.Job.Name))
	if d.Then != nil {
		then := v.locked(*d.Then, append(v.ofSchedule(schedule, d.Then.Name), ofThen))
		d.Then = &then
	}
	return d
}

func (v *vault) locked(j storedJob, binding []string) storedJob {
	plain := marshal(payload{j.Args, j.Headers})
	j.Args, j.Headers = nil, nil
	j.Sealed = v.ring.Seal(plain, binding...)
	return j
}

// unlock decrypts the payloads of a schedule's jobs.
func (v *vault) unlock(d *definition, schedule string) error {
	if err := v.unlocked(&d.Job, v.ofSchedule(schedule, d.Job.Name)); err != nil || d.Then == nil {
		return err
	}
	return v.unlocked(d.Then, append(v.ofSchedule(schedule, d.Then.Name), ofThen))
}

func (v *vault) unlocked(j *storedJob, binding []string) error {
	p, err := v.unpack(payload{j.Args, j.Headers}, j.Sealed, binding)
	j.Args, j.Headers, j.Sealed = p.Args, p.Headers, nil
	return err
}

// marshal encodes what is made of JSON and plain texts only, so it cannot fail.
func marshal(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("carillon: %T: %s", v, jsonProblem(err)))
	}
	return data
}

package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// Spec is a job as it was submitted. It is written once and never changed.
type Spec struct {
	Name      string
	Args      []byte // as encoded by the submitter; JSON unless a codec says otherwise
	Queue     string
	Priority  byte          // one of c, h, n, l
	RunAt     time.Time     // absolute start, or zero
	Delay     time.Duration // start relative to the submission, or zero
	ExpiresAt time.Time     // not started by then: expired
	Timeout   time.Duration // for one attempt; 0 = the handler's
	Retry     *RetrySpec    // nil = the handler's
	Unique    string        // unique key, or empty
	UniqueFor time.Duration // how long the key is held at least; 0 = while unfinished
	Mutex     string        // mutex key, or empty
	Retain    time.Duration // how long the finished record is kept; 0 = the namespace's
	Tags      []string
	Headers   map[string]string
	Schedule  string    // name of the schedule that created the job
	Tick      time.Time // planned time, for a job of a schedule
	Shard     Shard     // which part of a tick's work it is
	Then      []string  // IDs of the jobs it follows, in the order of their shards
}

// Shard is one of the jobs that share the work of a tick. Zero Total: it is none.
type Shard struct {
	Index int // from 0
	Total int
	Param string
}

// RetrySpec is a retry policy that travels with a job.
type RetrySpec struct {
	MaxAttempts int
	Delays      []time.Duration // fixed list; the last one repeats
	Initial     time.Duration
	Max         time.Duration
	Factor      float64
	NoJitter    bool
}

// The format of a Spec is a version byte and then fields, each as tag, length
// and bytes. A reader skips tags it does not know, so fields can be added; the
// version changes only when an old reader must not run the job at all: one that
// does not know of shards would do the work of all of them.
const (
	plainVersion = 1
	specVersion  = 2 // of a shard
)

// Tags are never reused.
const (
	tagName = iota + 1
	tagArgs
	tagQueue
	tagPriority
	tagRunAt
	tagDelay
	tagExpiresAt
	tagTimeout
	tagRetry
	tagUnique
	tagUniqueFor
	tagMutex
	tagRetain
	tagTag
	tagHeader
	tagSchedule
	tagTick
	tagWatched // of a note in relay, not of a job
	tagShard
	tagThen
	tagLine // of a note in relay, not of a job
)

const (
	tagMaxAttempts = iota + 1
	tagDelayOf
	tagInitial
	tagMax
	tagFactor
	tagNoJitter
)

const (
	tagIndex = iota + 1
	tagTotal
	tagParam
)

// Defaults that are left out of the encoding.
const (
	DefaultQueue    = "default"
	DefaultPriority = 'n'
)

var errTruncated = errors.New("truncated")

// appendSpec encodes a spec behind what is there already. It is deterministic:
// equal specs give equal bytes, which is how a second submission under the same ID
// is compared with the first.
func appendSpec(to []byte, s *Spec) []byte {
	b := fields{to}
	if s.Shard == (Shard{}) {
		b.buf = append(b.buf, plainVersion)
	} else {
		b.buf = append(b.buf, specVersion)
	}
	b.str(tagName, s.Name)
	b.bytes(tagArgs, s.Args)
	if s.Queue != DefaultQueue {
		b.str(tagQueue, s.Queue)
	}
	if s.Priority != DefaultPriority {
		b.bytes(tagPriority, []byte{s.Priority})
	}
	b.time(tagRunAt, s.RunAt)
	b.dur(tagDelay, s.Delay)
	b.time(tagExpiresAt, s.ExpiresAt)
	b.dur(tagTimeout, s.Timeout)
	if s.Retry != nil {
		b.bytes(tagRetry, encodeRetry(s.Retry))
	}
	b.str(tagUnique, s.Unique)
	b.dur(tagUniqueFor, s.UniqueFor)
	b.str(tagMutex, s.Mutex)
	b.dur(tagRetain, s.Retain)
	for _, tag := range s.Tags {
		b.str(tagTag, tag)
	}
	if len(s.Headers) > 0 { // most jobs have none, and sorting none allocates
		for _, k := range slices.Sorted(maps.Keys(s.Headers)) {
			pair := fields{}
			pair.bytes(1, []byte(k))
			pair.bytes(2, []byte(s.Headers[k]))
			b.bytes(tagHeader, pair.buf)
		}
	}
	b.str(tagSchedule, s.Schedule)
	b.time(tagTick, s.Tick)
	if s.Shard != (Shard{}) {
		b.bytes(tagShard, encodeShard(s.Shard))
	}
	for _, id := range s.Then {
		b.str(tagThen, id)
	}
	return b.buf
}

func encodeShard(s Shard) []byte {
	b := fields{}
	b.num(tagIndex, int64(s.Index))
	b.num(tagTotal, int64(s.Total))
	b.str(tagParam, s.Param)
	return b.buf
}

func encodeRetry(r *RetrySpec) []byte {
	b := fields{}
	b.num(tagMaxAttempts, int64(r.MaxAttempts))
	for _, d := range r.Delays {
		b.bytes(tagDelayOf, binary.AppendVarint(nil, int64(d)))
	}
	b.dur(tagInitial, r.Initial)
	b.dur(tagMax, r.Max)
	if r.Factor != 0 {
		b.bytes(tagFactor, binary.BigEndian.AppendUint64(nil, math.Float64bits(r.Factor)))
	}
	if r.NoJitter {
		b.num(tagNoJitter, 1)
	}
	return b.buf
}

// specFields are the fields of a record that hold its spec. One of 65 to 128 bytes is cut in
// two, for Redis keeps a small hash in one compact block only while no value is longer than 64.
var specFields = []string{"j", "j1"}

const specPart = 64

// joined puts the spec in specFields together, as lib/dispatch does.
func joined(j, j1 string) string {
	if len(j) == specPart {
		return j + j1
	}
	return j
}

// decodeSpec reads what [appendSpec] of this or any later compatible version
// wrote. Damaged bytes give an error, never a panic. A version that this code
// must not run gives [ErrNewer] along with what can be read of the spec.
func decodeSpec(data string) (*Spec, error) {
	s := &Spec{}
	err := s.decode(data)
	if err != nil && !errors.Is(err, ErrNewer) {
		return nil, err
	}
	return s, err
}

// decode is decodeSpec into an empty spec.
func (s *Spec) decode(data string) error {
	if data == "" {
		return fmt.Errorf("decode job: %w", errTruncated)
	}
	s.Queue, s.Priority = DefaultQueue, DefaultPriority
	err := eachField(data[1:], func(tag uint64, v string) error {
		switch tag {
		case tagName:
			s.Name = v
		case tagArgs:
			s.Args = []byte(v)
		case tagQueue:
			s.Queue = v
		case tagPriority:
			if len(v) != 1 || !slices.Contains(priorities, v[0]) {
				return fmt.Errorf("unknown priority %q", v)
			}
			s.Priority = v[0]
		case tagUnique:
			s.Unique = v
		case tagMutex:
			s.Mutex = v
		case tagTag:
			s.Tags = append(s.Tags, v)
		case tagSchedule:
			s.Schedule = v
		case tagRetry:
			r, err := decodeRetry(v)
			s.Retry = r
			return err
		case tagHeader:
			return s.decodeHeader(v)
		case tagShard:
			return s.Shard.decode(v)
		case tagThen:
			s.Then = append(s.Then, v)
		case tagRunAt:
			return readTime(v, &s.RunAt)
		case tagExpiresAt:
			return readTime(v, &s.ExpiresAt)
		case tagTick:
			return readTime(v, &s.Tick)
		case tagDelay:
			return readDur(v, &s.Delay)
		case tagTimeout:
			return readDur(v, &s.Timeout)
		case tagUniqueFor:
			return readDur(v, &s.UniqueFor)
		case tagRetain:
			return readDur(v, &s.Retain)
		}
		return nil
	})
	if err == nil && (s.Name == "" || s.Queue == "") {
		err = errors.New("no name or no queue")
	}
	if err != nil {
		return fmt.Errorf("decode job: %w", err)
	}
	if data[0] < plainVersion || data[0] > specVersion {
		return fmt.Errorf("decode job: format %d: %w", data[0], ErrNewer)
	}
	return nil
}

func (s *Spec) decodeHeader(v string) error {
	var key, value string
	err := eachField(v, func(tag uint64, v string) error {
		switch tag {
		case 1:
			key = v
		case 2:
			value = v
		}
		return nil
	})
	if s.Headers == nil {
		s.Headers = make(map[string]string)
	}
	s.Headers[key] = value
	return err
}

func (s *Shard) decode(data string) error {
	err := eachField(data, func(tag uint64, v string) error {
		switch tag {
		case tagIndex, tagTotal:
			n, err := readNum(v)
			if tag == tagIndex {
				s.Index = int(n)
			} else {
				s.Total = int(n)
			}
			return err
		case tagParam:
			s.Param = v
		}
		return nil
	})
	if err == nil && (s.Index < 0 || s.Index >= s.Total) {
		err = fmt.Errorf("shard %d of %d", s.Index, s.Total)
	}
	return err
}

func decodeRetry(data string) (*RetrySpec, error) {
	r := &RetrySpec{}
	err := eachField(data, func(tag uint64, v string) error {
		switch tag {
		case tagDelayOf:
			var d time.Duration
			if err := readDur(v, &d); err != nil {
				return err
			}
			r.Delays = append(r.Delays, d)
		case tagInitial:
			return readDur(v, &r.Initial)
		case tagMax:
			return readDur(v, &r.Max)
		case tagFactor:
			if len(v) != 8 {
				return errTruncated
			}
			r.Factor = math.Float64frombits(binary.BigEndian.Uint64([]byte(v)))
		case tagMaxAttempts, tagNoJitter:
			n, err := readNum(v)
			if tag == tagMaxAttempts {
				r.MaxAttempts = int(n)
			} else {
				r.NoJitter = n != 0
			}
			return err
		}
		return nil
	})
	return r, err
}

// fields appends tagged values; empty values are left out.
type fields struct{ buf []byte }

func (f *fields) bytes(tag uint64, v []byte) {
	f.buf = binary.AppendUvarint(f.buf, tag)
	f.buf = binary.AppendUvarint(f.buf, uint64(len(v)))
	f.buf = append(f.buf, v...)
}

func (f *fields) str(tag uint64, v string) {
	if v != "" {
		f.bytes(tag, []byte(v))
	}
}

func (f *fields) num(tag uint64, v int64) {
	if v != 0 {
		f.bytes(tag, binary.AppendVarint(nil, v))
	}
}

func (f *fields) dur(tag uint64, d time.Duration) { f.num(tag, int64(d)) }

func (f *fields) time(tag uint64, t time.Time) {
	if !t.IsZero() { // the epoch is a time, too
		f.bytes(tag, binary.AppendVarint(nil, t.UnixMilli()))
	}
}

func eachField(data string, visit func(tag uint64, v string) error) error {
	for len(data) > 0 {
		tag, n := uvarint(data)
		if n <= 0 {
			return errTruncated
		}
		data = data[n:]
		size, n := uvarint(data)
		if n <= 0 || size > uint64(len(data[n:])) {
			return errTruncated
		}
		data = data[n:]
		if err := visit(tag, data[:size]); err != nil {
			return err
		}
		data = data[size:]
	}
	return nil
}

// uvarint is binary.Uvarint of a string.
func uvarint(data string) (uint64, int) {
	if data != "" && data[0] < 0x80 {
		return uint64(data[0]), 1
	}
	var head [binary.MaxVarintLen64]byte
	return binary.Uvarint(head[:copy(head[:], data)])
}

func readNum(v string) (int64, error) {
	n, size := binary.Varint([]byte(v))
	if size <= 0 {
		return 0, errTruncated
	}
	return n, nil
}

func readDur(v string, d *time.Duration) error {
	n, err := readNum(v)
	*d = time.Duration(n)
	return err
}

func readTime(v string, t *time.Time) error {
	n, err := readNum(v)
	*t = time.UnixMilli(n)
	return err
}

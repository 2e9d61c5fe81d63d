package store

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
)

// group is the one consumer group of every dispatch stream.
const group = "w"

// maxSegments bounds the partitions of a namespace; more would cost an idle
// instance more commands than they gain.
const maxSegments = 256

// priorities lists the lanes of a queue in the order in which they are read.
// The letter is part of the stream's key and of every [ref].
var priorities = []byte{'c', 'h', 'n', 'l'}

// slots is how many hash slots the masters of a Redis Cluster share.
const slots = 1 << 14

// tagNumbers returns the number in the hash tag of each of n segments. The slots are
// n equal ranges, rounded as redis-cli --cluster create rounds the shares of
// masters, and every segment has the least number whose slot lies in its range.
// So equal masters have equally many segments, if their number divides n. Counting
// begins with the range of number 0: it is always that of segment 0, where meta
// is found by whoever expects another n.
func tagNumbers(namespace string, n int) []int {
	head := crc16(0, escape(namespace)+":")
	rangeOf := func(number int) int {
		slot := int(crc16(head, strconv.Itoa(number)) % slots)
		return (2*slot + 1) * n / (2 * slots) // where the middle of the slot lies
	}
	numbers := make([]int, n)
	first := rangeOf(0)
	for number, found := 1, 1; found < n; number++ {
		segment := (rangeOf(number) - first + n) % n
		if segment != 0 && numbers[segment] == 0 {
			numbers[segment] = number
			found++
		}
	}
	return numbers
}

// crc16 continues the checksum (XMODEM) that maps hash tags to slots.
func crc16(crc uint16, s string) uint16 {
	for i := range len(s) {
		crc ^= uint16(s[i]) << 8
		for range 8 {
			carry := crc&0x8000 != 0
			crc <<= 1
			if carry {
				crc ^= 0x1021
			}
		}
	}
	return crc
}

// keys builds every key name of one segment of a namespace. All of them start
// with the same hash tag, so a script that touches one segment touches one
// Redis Cluster slot.
type keys struct {
	prefix string
}

func newKeys(namespace string, number int) keys {
	return keys{prefix: fmt.Sprintf("{%s:%d}:", escape(namespace), number)}
}

func (k keys) meta() string                { return k.prefix + "meta" }
func (k keys) record(id string) string     { return k.prefix + "j:" + escape(id) }
func (k keys) locator(id string) string    { return k.prefix + "l:" + escape(id) }
func (k keys) due() string                 { return k.prefix + "due" }
func (k keys) wait() string                { return k.prefix + "wait" }
func (k keys) taken() string               { return k.prefix + "taken" }
func (k keys) grant() string               { return k.prefix + "grant" }
func (k keys) tend() string                { return k.prefix + "tend" }
func (k keys) relay() string               { return k.prefix + "relay" }
func (k keys) mutex(name string) string    { return k.prefix + "m:" + escape(name) }
func (k keys) unique(name string) string   { return k.prefix + "u:" + escape(name) }
func (k keys) tag(name string) string      { return k.prefix + "t:" + escape(name) }
func (k keys) workers() string             { return k.prefix + "workers" }
func (k keys) instances() string           { return k.prefix + "inst" }
func (k keys) cancels() string             { return k.prefix + "cancels" }
func (k keys) awaited() string             { return k.prefix + "awaited" }
func (k keys) history(s State) string      { return k.prefix + "h:" + s.letter() }
func (k keys) events() string              { return k.prefix + "ev" }
func (k keys) paused() string              { return k.prefix + "paused" }
func (k keys) queues() string              { return k.prefix + "queues" }
func (k keys) lease(name string) string    { return k.prefix + "k:" + escape(name) }
func (k keys) token(name string) string    { return k.prefix + "kt:" + escape(name) }
func (k keys) own() string                 { return k.prefix + "own" }
func (k keys) plan() string                { return k.prefix + "plan" }
func (k keys) schedule(name string) string { return k.prefix + "s:" + escape(name) }
func (k keys) versions(name string) string { return k.prefix + "sv:" + escape(name) }
func (k keys) ledger(name string) string   { return k.prefix + "sl:" + escape(name) }
func (k keys) members(group string) string { return k.prefix + "sg:" + escape(group) }
func (k keys) schedules() string           { return k.members("") }
func (k keys) groupMarks() string          { return k.prefix + "gm" }
func (k keys) calendars() string           { return k.prefix + "cal" }
func (k keys) users(name string) string    { return k.prefix + "cu:" + escape(name) }

func (k keys) stream(queue string, priority byte) string {
	return k.prefix + "q:" + string(priority) + ":" + escape(queue)
}

// markOf is the key, seen by nobody, that a mark is written to: in the slot of
// another key.
func markOf(key string) string { return key[:strings.IndexByte(key, '}')+1] + ":mark" }

// Channels carry hints only: everything they say is also found by asking.

func (k keys) control() string             { return k.prefix + "ctl" }
func (k keys) inbox(awaiter string) string { return k.prefix + "in:" + awaiter }
func (k keys) released(name string) string { return k.prefix + "free:" + escape(name) }

// ref names a live job together with the way to its stream: priority, queue,
// mutex and ID. It is the member of the sorted set due, so that promoting a
// job needs no look at its record before all keys can be declared. The default
// queue is left out, which is its only spelling.
type ref struct {
	priority byte
	queue    string
	mutex    string
	id       string
}

func (r ref) String() string {
	return r.lane() + ":" + escape(r.mutex) + ":" + r.id
}

// route is the end of a waiting list's member: priority, queue and ID.
func (r ref) route() string { return r.lane() + ":" + r.id }

func (r ref) lane() string {
	if r.queue == DefaultQueue {
		return string(r.priority) + ":"
	}
	return string(r.priority) + ":" + escape(r.queue)
}

func parseRef(s string) (ref, error) {
	part := strings.SplitN(s, ":", 4)
	if len(part) != 4 || len(part[0]) != 1 || part[3] == "" ||
		bytes.IndexByte(priorities, part[0][0]) < 0 {
		return ref{}, fmt.Errorf("malformed reference %q", clip(s, 64))
	}
	queue, okQueue := unescape(part[1])
	mutex, okMutex := unescape(part[2])
	if !okQueue || !okMutex || queue == DefaultQueue {
		return ref{}, fmt.Errorf("malformed reference %q", clip(s, 64))
	}
	if queue == "" {
		queue = DefaultQueue
	}
	return ref{priority: part[0][0], queue: queue, mutex: mutex, id: part[3]}, nil
}

// A member of the sorted set wait is mutex:ticket:priority:queue:id. All scores
// are 0, so the members are ordered by mutex and then by ticket.
func parseWaiter(s string) (ref, error) {
	part := strings.SplitN(s, ":", 5)
	if len(part) != 5 {
		return ref{}, fmt.Errorf("malformed waiter %q", clip(s, 64))
	}
	return parseRef(part[2] + ":" + part[3] + ":" + part[0] + ":" + part[4])
}

// escape makes s safe inside a key: no character of it can end the hash tag or
// separate parts. Everything else stays readable.
func escape(s string) string {
	n := 0
	for i := range len(s) {
		if special(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 2*n)
	for i := range len(s) {
		if special(s[i]) {
			fmt.Fprintf(&b, "%%%02X", s[i])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func special(c byte) bool {
	return c <= ' ' || c == 0x7f || c == '%' || c == ':' || c == '{' || c == '}'
}

func unescape(s string) (string, bool) {
	if strings.IndexByte(s, '%') < 0 {
		return s, true
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", false
		}
		c, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", false
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String(), true
}

// hashSegment maps an affinity key to one of n segments.
func hashSegment(affinity string, n int) int {
	if n <= 1 {
		return 0
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(affinity))
	return int(h.Sum32() % uint32(n)) //nolint:gosec // n is at most maxSegments
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}

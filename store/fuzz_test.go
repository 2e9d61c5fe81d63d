package store

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What is fuzzed here is read from Redis, where anybody may have written. The
// codec's and the keys' own targets are beside their tests.

// FuzzSpecFields encodes and decodes specs of any content.
func FuzzSpecFields(f *testing.F) {
	f.Add("test", []byte(`{"n":1}`), "default", byte(2), int64(0), int64(0), "", "", "", "", "", "", 1.5)
	f.Add("a", []byte{}, "ü", byte(0), int64(-1), int64(1), "u", "m", "tag", "", "v", "s", math.Inf(1))
	f.Add("\x00", []byte{0}, "{}", byte(9), int64(1<<62), int64(math.MinInt64), "%", ":", " ", "k", "\xff", "~", math.NaN())
	f.Fuzz(func(t *testing.T, name string, args []byte, queue string, priority byte, at, d int64, unique, mutex, tag, key, value, schedule string, factor float64) {
		if name == "" || queue == "" {
			return // jobs have both
		}
		when, long := time.UnixMilli(at), time.Duration(d)
		want := &Spec{
			Name: name, Args: args, Queue: queue, Priority: priorities[int(priority)%len(priorities)], RunAt: when, Delay: long,
			ExpiresAt: when, Timeout: long, Unique: unique, UniqueFor: long, Mutex: mutex, Retain: long, Schedule: schedule, Tick: when,
			Headers: map[string]string{key: value, value: key},
			Retry:   &RetrySpec{MaxAttempts: int(d), Delays: []time.Duration{long, 0}, Initial: long, Max: long, Factor: factor, NoJitter: d%2 == 0},
		}
		if tag != "" {
			want.Tags = []string{tag, tag}
		}
		data := encodeSpec(want)
		got, err := decodeSpec(string(data))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, encodeSpec(got)) {
			t.Fatalf("%+v became %+v", want, got)
		}
		if got.Name != name || !bytes.Equal(got.Args, args) || got.Queue != queue || got.Unique != unique || got.Mutex != mutex ||
			!got.RunAt.Equal(when) || !got.ExpiresAt.Equal(when) || !got.Tick.Equal(when) ||
			got.Delay != long || got.UniqueFor != long || got.Retain != long || got.Headers[key] != want.Headers[key] ||
			!slices.Equal(got.Tags, want.Tags) || !slices.Equal(got.Retry.Delays, want.Retry.Delays) || got.Retry.MaxAttempts != int(d) {
			t.Fatalf("%+v became %+v", want, got)
		}
	})
}

// FuzzWaiter reads members of the waiting list, made ones and any other.
func FuzzWaiter(f *testing.F) {
	for _, s := range hostile {
		f.Add(s+":1:n:"+s+":"+s, s, s, s)
		f.Add(escape(s)+":1700000000000000:h:"+escape(s)+":"+s, s, s, s)
	}
	f.Fuzz(func(t *testing.T, member, queue, mutex, id string) {
		if r, err := parseWaiter(member); err == nil {
			again, err := parseWaiter(escape(r.mutex) + ":7:" + r.route())
			if err != nil || again != r {
				t.Fatalf("%q: %+v, then %+v, %v", member, r, again, err)
			}
		}
		if queue == "" || id == "" {
			return
		}
		want := ref{'l', queue, mutex, id}
		if got, err := parseWaiter(escape(mutex) + ":7:" + want.route()); err != nil || got != want {
			t.Fatalf("%+v became %+v, %v", want, got, err)
		}
	})
}

// FuzzAttempt reads lines of an attempts log, as settle.lua writes them and any other.
func FuzzAttempt(f *testing.F) {
	f.Add("1700000000000-3 f 12 1700000000123 01jabc because of this", uint32(1), uint32(2), byte('s'), "instance", "it  failed\nbadly ")
	f.Add("", uint32(0), uint32(0), byte(0), "", "")
	f.Add("- - - - -", uint32(9), uint32(1), byte(' '), "x", " ")
	f.Fuzz(func(t *testing.T, log string, ms, elapsed uint32, outcome byte, instance, message string) {
		_ = decodeAttempt(1, log)
		if outcome == ' ' || strings.Contains(instance, " ") {
			return
		}
		entry, end := strconv.Itoa(int(ms))+"-5", int64(ms)+int64(elapsed)
		got := decodeAttempt(3, strings.Join([]string{entry, string([]byte{outcome}), strconv.Itoa(int(elapsed)), strconv.FormatInt(end, 10), instance, message}, " "))
		want := Attempt{3, uint64(ms)<<20 + 5, instance, time.UnixMilli(int64(ms)), time.UnixMilli(int64(ms)), time.UnixMilli(end), Outcome(outcome), message}
		if got != want {
			t.Fatalf("%+v instead of %+v", got, want)
		}
	})
}

// FuzzRecord reads records of jobs with any fields.
func FuzzRecord(f *testing.F) {
	spec := string(encodeSpec(job()))
	f.Add(spec, "1700000000000-0", "", "", "", "", "")
	f.Add(spec, "1700000000000-0", "1700000000000", "1", "0", "0", "1700000000000-0 r 1 1700000000001 i e")
	f.Add(spec, "d", "x", "-1", "99999999999999999999", "1e9", "")
	f.Add(spec, "s", "", "9223372036854775807", "", "", " ")
	f.Add("", "v", "", "", "", "", "")
	f.Fuzz(func(t *testing.T, spec, place, submitted, attempts, failures, losses, log string) {
		j, err := decodeJob("id", map[string]string{
			"j": spec, "p": place, "s": submitted, "a": attempts, "f": failures, "l": losses, "x1": log, "x" + attempts: log,
		})
		if err != nil {
			return
		}
		if j.Spec == nil || !slices.Contains(States, j.State) || len(j.Attempts) > attemptsKept+1 {
			t.Fatalf("%+v", j)
		}
	})
}

// FuzzEvent reads entries of histories and of the stream of events.
func FuzzEvent(f *testing.F) {
	f.Add("1700000000000-0", 4, "retrying", "id", "name", "queue", "2", "because")
	f.Add("-", 0, "", "", "", "", "-1", "")
	f.Fuzz(func(t *testing.T, entry string, stream int, kind, id, name, queue, attempt, message string) {
		if stream < 0 {
			return // the position in a list
		}
		e := streamEntry{stream, entry, map[string]any{"t": kind, "i": id, "n": name, "q": queue, "a": attempt, "e": message}}.event()
		if e.ID != id || e.Name != name || e.Queue != queue || e.Error != message {
			t.Fatalf("%+v", e)
		}
		if per := len(FinalStates) + 1; stream%per < len(FinalStates) && e.Type != string(FinalStates[stream%per]) {
			t.Fatalf("%+v from stream %d", e, stream)
		}
		h := streamEntry{stream, entry, map[string]any{"i": id, "d": fmt.Sprint(e.Attempt, " ", len(name), " ", name, queue), "e": message}}.event()
		if h.Type = e.Type; h != e {
			t.Fatalf("%+v in a history, %+v", h, e)
		}
		_ = streamEntry{stream, entry, map[string]any{"d": message, "n": name}}.event()
		_ = streamEntry{stream, entry, nil}.event()
		_ = streamEntry{stream, entry, map[string]any{"i": 1}}.event()
	})
}

// FuzzCursor reads cursors that users kept.
func FuzzCursor(f *testing.F) {
	f.Add("loyw3v28-0.0-0", uint64(1700000000000), uint64(3))
	f.Add(".-.", uint64(0), uint64(math.MaxUint64))
	f.Fuzz(func(t *testing.T, cursor string, ms, seq uint64) {
		if p, err := decodeCursor(cursor); err == nil {
			if again, err := decodeCursor(encodeCursor(p)); err != nil || !slices.Equal(again, p) {
				t.Fatalf("%q: %v, then %v, %v", cursor, p, again, err)
			}
		}
		want := []string{strconv.FormatUint(ms, 10) + "-" + strconv.FormatUint(seq, 10), "0-0"}
		if got, err := decodeCursor(encodeCursor(want)); err != nil || !slices.Equal(got, want) {
			t.Fatalf("%v became %v, %v", want, got, err)
		}
	})
}

// FuzzClaim reads the values of claims and the members of tend.
func FuzzClaim(f *testing.F) {
	s := &Store{segments: make([]keys, 5)}
	f.Add(foreignMark+"3:1500:a:b", "u:one:id", "name", "id")
	f.Add(foreignMark+"-1:0:", "l:%:", "%", ":")
	f.Add("id", "x", "", "")
	f.Fuzz(func(t *testing.T, value, member, name, id string) {
		if segment, until, holder, err := parseHolder(value); err == nil {
			made := foreignMark + strconv.Itoa(segment) + ":" + strconv.FormatInt(until.UnixMilli(), 10) + ":" + holder
			s2, u2, h2, err := parseHolder(made)
			if err != nil || s2 != segment || !u2.Equal(until) || h2 != holder {
				t.Fatalf("%q: %d %v %q, %v", value, s2, u2, h2, err)
			}
		}
		if c, _, ok := s.parseTended(member); ok && (c.segment < 0 || c.segment >= len(s.segments)) {
			t.Fatalf("%q: %+v", member, c)
		}
		var a argList
		a.tend(&submission{id: id, foreign: []foreignClaim{{'u', name, 0}, {'l', name, 0}}})
		for i, kind := range []byte{'u', 'l'} {
			c, got, ok := s.parseTended(text(a.args[i+1]))
			if !ok || c.kind != kind || c.name != name || got != id {
				t.Fatalf("%q: %+v %q %v", a.args[i+1], c, got, ok)
			}
		}
	})
}

// FuzzSchedule reads records of schedules.
func FuzzSchedule(f *testing.F) {
	f.Add("definition", "1", "1700000000000", "1700000000000", "")
	f.Add("", "-1", "x", "99999999999999999999", "parked")
	f.Fuzz(func(t *testing.T, definition, generation, next, last, parked string) {
		record := map[string]string{"d": definition, "g": generation, "n": next, "l": last, "k": next, "x": last, "e": parked}
		s, err := decodeSchedule("name", record)
		if err != nil || string(s.Definition) != definition || string(s.State) != last || parked != "" && s.Parked != parked {
			t.Fatalf("%+v, %v", s, err)
		}
		if s.Parked == "" && (stamp(s.Next) != next || stamp(s.Look) != next || stamp(s.Last) != last || strconv.FormatInt(s.Generation, 10) != generation) {
			t.Fatalf("%+v is not what %v says", s, record)
		}
		v, ok := decodeVersion(generation, definition)
		if ok && v.Generation <= 0 {
			t.Fatalf("%+v", v)
		}
		if again, ok := decodeVersion("1", string(Version{Meta: []byte(next), Definition: []byte(definition)}.encode())); !ok || string(again.Definition) != definition || string(again.Meta) != next {
			t.Fatalf("%+v", again)
		}
		if spec, watched, line, err := readNote(string(note(encodeSpec(job(func(s *Spec) { s.Args = []byte(definition) })), parked != "", parked))); err != nil || watched != (parked != "") || line != parked || string(spec.Args) != definition {
			t.Fatalf("%+v, %v, %v", spec, watched, err)
		}
	})
}

// FuzzReply reads replies of scripts of any shape.
func FuzzReply(f *testing.F) {
	f.Add([]byte("[1[[s[sisisi"))
	f.Add([]byte("[11[]2"))
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 1))
		data := make([]byte, 60)
		for i := range data {
			data[i] = "[[[]]iiass123"[r.IntN(13)]
		}
		f.Add(data)
	}
	r := &Reader{streams: []string{"one", "two"}, of: []int{0, 1}}
	f.Fuzz(func(t *testing.T, data []byte) {
		reply, _ := anyReply(data, 0)
		for _, e := range r.unpack(reply, r.streams) {
			if e.Err == nil && (e.ID == "" || e.Attempt < 1) {
				t.Fatalf("%+v", e)
			}
		}
		_, _, _ = number(at(reply, 0)), millis(at(reply, 1)), texts(at(reply, 2))
		_, _ = settled(number(reply))
		(&submission{}).answer(text(at(reply, 0)))
	})
}

// anyReply builds a nested reply: [ and ] are lists, digits integers, i and a
// names of fields, s a spec, others nil.
func anyReply(data []byte, depth int) (reply any, rest []byte) {
	if len(data) == 0 {
		return nil, nil
	}
	c := data[0]
	data = data[1:]
	switch {
	case c == '[' && depth < 8:
		l := []any{}
		for len(data) > 0 && data[0] != ']' {
			var v any
			v, data = anyReply(data, depth+1)
			l = append(l, v)
		}
		return l, bytes.TrimPrefix(data, []byte("]"))
	case c >= '0' && c <= '9':
		return int64(c - '0'), data
	case c == 'i' || c == 'a' || c == 'j' || c == 'm':
		return string([]byte{c}), data
	case c == 's':
		return string(encodeSpec(job())), data
	case c == 'e':
		return "1700000000000-0", data
	}
	return nil, data
}

package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Fetch takes up to n entries without waiting: a share for low priorities
// first, then by priority. A few calls in a row leave out low priorities that seemed to
// have no jobs; then shared is false. [Reader.Wait] leaves out none.
func (r *Reader) Fetch(ctx context.Context, n, share int) (entries []*Entry, shared bool, err error) {
	ctx, cancel := landed(ctx)
	defer cancel()
	streams := r.plain(n)
	refused := false
	if streams != nil {
		entries, refused, err = r.fetchPlain(ctx, n, streams)
	}
	if streams == nil || refused && len(entries) == 0 { // the script finds out why
		shared = true
		entries, err = r.fetchByScript(ctx, n, share)
	}
	if err != nil {
		r.alone = alone{}
		return nil, false, err // what was delivered is pending and found there
	}
	return entries, shared, r.store.complete(ctx, entries)
}

func (r *Reader) fetchByScript(ctx context.Context, n, share int) ([]*Entry, error) {
	var a argList
	a.arg(r.instance, n, share, len(r.streams))
	a.key(r.rotated()...)
	order := r.shareOrder()
	for _, i := range order {
		a.arg(i + 1)
	}
	reply, err := r.store.runOnce(ctx, call{scriptFetch, a.keys, a.args})
	if err != nil {
		return nil, err
	}
	entries := r.unpack(reply, a.keys)
	r.turn++
	if len(r.segments) == 1 {
		r.alone.note(entries, r.streams, share)
	}
	return entries, nil
}

// unpack reads a reply of fetch.
func (r *Reader) unpack(reply any, streams []string) []*Entry {
	var entries []*Entry
	got := list(reply)
	for ; len(got) > 2; got = got[3:] {
		index, n, rest := int(number(got[0]))-1, int(number(got[1])), text(got[2])
		if index < 0 || index >= len(streams) {
			break
		}
		stream, segment := streams[index], r.segmentOf(streams[index])
		for ; n > 0; n-- {
			id, after, _ := strings.Cut(rest, " ")
			length, after, ok := strings.Cut(after, " ")
			size, err := strconv.Atoi(length)
			if !ok || err != nil || size < 0 || size > len(after) {
				break // what is pending is found there
			}
			own := strings.Clone(rest[:len(rest)-len(after)+size]) // which does not keep the others
			entries = append(entries, decodeEntry(segment, stream, own[:len(id)], own[len(own)-size:]))
			rest = after[size:]
		}
	}
	return entries
}

// rotated gives the streams by priority, and within a priority another segment
// first each time.
func (r *Reader) rotated() []string {
	n := len(r.segments)
	out := make([]string, 0, len(r.streams))
	for p := 0; p < len(r.streams); p += n {
		for i := range n {
			out = append(out, r.streams[p+(i+r.turn)%n])
		}
	}
	return out
}

// shareOrder serves the share to the low, normal and high priorities in turn. One that
// may be alone comes last, so that others show.
func (r *Reader) shareOrder() []int {
	n := len(r.segments)
	lanes := []int{3, 2, 1}
	order := make([]int, 0, len(r.streams))
	for i := range lanes {
		lane := lanes[(i+r.turn)%len(lanes)]
		for j := range n {
			order = append(order, lane*n+j)
		}
	}
	for j := range n {
		order = append(order, j)
	}
	if r.alone.seen > 0 {
		order = slices.DeleteFunc(order, func(i int) bool { return i == r.alone.index })
		order = append(order, r.alone.index)
	}
	return order
}

// While all jobs of a queue have the same priority, nothing has to be chosen among
// streams, and plain XREADGROUPs do, for half of what the script costs Redis. They
// leave room for what comes in streams of higher priorities; of more than that, one
// read passes the rest by. They read no lower ones, whose jobs would jump the queue; the
// script looks for these now and then, and takes turns among segments where several are
// read together.
const (
	plainFrom  = 16 // entries asked for; fewer are not worth it
	plainAfter = 2  // scripts in a row that found one priority alone
	plainRun   = 7  // plain reads before the next script
	plainRoom  = 8  // the part of a read that each higher priority may take is one in so many
)

// alone is the one stream in which the last fetches found entries.
type alone struct {
	index int
	seen  int // fetches in a row
}

// note takes what a script found. Without a share, it does not see what is lower.
func (a *alone) note(entries []*Entry, streams []string, share int) {
	if len(entries) == 0 || share == 0 {
		return
	}
	first := entries[0].stream
	if slices.ContainsFunc(entries, func(e *Entry) bool { return e.stream != first }) {
		*a = alone{}
		return
	}
	if i := slices.Index(streams, first); i != a.index {
		*a = alone{index: i}
	}
	a.seen = min(a.seen+1, plainAfter)
}

// plain tells which streams to read without the script; none when it has to choose.
func (r *Reader) plain(n int) []string {
	a := &r.alone
	if n < plainFrom || a.seen < plainAfter || a.seen >= plainAfter+plainRun {
		return nil
	}
	return r.streams[:a.index+1]
}

// fetchPlain takes up to n entries of streams, most of them from the last one. refused
// tells that Redis did not do all of it.
func (r *Reader) fetchPlain(ctx context.Context, n int, streams []string) (entries []*Entry, refused bool, err error) {
	last := len(streams) - 1
	room := n / plainRoom
	var cmds []*redis.RawCmd
	if last > 0 {
		cmds = append(cmds, r.rawRead(ctx, room, streams[:last]))
	}
	cmds = append(cmds, r.rawRead(ctx, n-last*room, streams[last:]))
	rdb, err := r.store.client()
	if err != nil {
		return nil, false, err
	}
	_, _, err = within(ctx, func() ([]redis.Cmder, error) {
		return rdb.Pipelined(sentOnce(ctx), func(p redis.Pipeliner) error {
			for _, cmd := range cmds {
				_ = p.Process(ctx, cmd) // which is sent later
			}
			return nil
		})
	})
	if err != nil {
		return nil, false, fmt.Errorf("read: %w", classify(err, false))
	}
	for _, cmd := range cmds {
		reply := string(cmd.Val())
		if reply != "" && (reply[0] == '-' || reply[0] == '!') {
			refused = true
			continue
		}
		if entries, err = r.unpackRaw(entries, reply); err != nil {
			return nil, false, fmt.Errorf("read: %w", err)
		}
	}
	r.alone.seen++
	switch {
	case refused, len(entries) > 0 && entries[0].stream != streams[last]: // they come by priority
		r.alone = alone{}
	case len(entries) == 0: // what comes after a pause may be anything
		r.alone.seen = plainAfter + plainRun
	}
	return entries, refused, nil
}

func (r *Reader) rawRead(ctx context.Context, n int, streams []string) *redis.RawCmd {
	args := make([]any, 0, 7+2*len(streams))
	args = append(args, "xreadgroup", "group", group, r.instance, "count", n, "streams")
	for _, s := range streams {
		args = append(args, s)
	}
	for range streams {
		args = append(args, ">")
	}
	return redis.NewRawCmd(ctx, args...)
}

// errShape leads to a look at what is pending, as every failed read does.
var errShape = errors.New("a reply of an unexpected shape")

// unpackRaw adds the entries of a reply of XREADGROUP as the server sent it; go-redis
// would make five allocations more of each one.
func (r *Reader) unpackRaw(entries []*Entry, reply string) ([]*Entry, error) {
	if reply == "*-1\r\n" || reply == "_\r\n" {
		return entries, nil
	}
	outer := byte('*')
	if strings.HasPrefix(reply, "%") {
		outer = '%' // RESP3 has a map where RESP2 has a list of pairs
	}
	c := resp{rest: reply}
	for range c.head(outer) {
		if outer == '*' {
			c.head('*')
		}
		stream := c.text()
		i := slices.Index(r.streams, stream)
		if i < 0 {
			return nil, errShape
		}
		for range c.head('*') {
			c.head('*')
			id, data := c.text(), ""
			for words := c.head('*'); words > 0 && !c.bad; words -= 2 {
				if field, value := c.text(), c.text(); field == entryField {
					data = value
				}
			}
			if c.bad {
				return nil, errShape
			}
			own := id + data // which does not keep the others
			entries = append(entries, decodeEntry(r.of[i], r.streams[i], own[:len(id)], own[len(id):]))
		}
	}
	if c.bad || c.rest != "" {
		return nil, errShape
	}
	return entries, nil
}

// resp is what is left of a reply in Redis' protocol.
type resp struct {
	rest string
	bad  bool
}

// head reads the number or length of a value of that kind.
func (c *resp) head(kind byte) int {
	line, rest, _ := strings.Cut(c.rest, "\r\n")
	if c.rest = rest; line != "" && line[0] == kind {
		if n, err := strconv.Atoi(line[1:]); err == nil && n >= 0 {
			return n
		}
	}
	c.bad, c.rest = true, ""
	return 0
}

// text reads a string.
func (c *resp) text() string {
	n := c.head('$')
	if n > len(c.rest)-len("\r\n") {
		c.bad, c.rest = true, ""
		return ""
	}
	s := c.rest[:n]
	c.rest = c.rest[n+len("\r\n"):]
	return s
}

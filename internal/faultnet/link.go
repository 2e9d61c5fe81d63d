package faultnet

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

var errCut = errors.New("the network is cut")

// message stands for the command when there was none.
var message = []string{""}

// direction is up for requests, down for replies.
type direction int

const (
	up direction = iota
	down
)

// conn is a connection through the network: an end at the client, one at the
// server, and a link each way.
type conn struct {
	net  *Net
	ends [2]net.Conn // by the direction that leads to them
	dead [2]atomic.Bool
	done chan struct{}
	once sync.Once

	mu         sync.Mutex
	asked      [][]string // commands without a reply yet
	subscribed bool       // what comes down now is messages
}

// hangUp closes both ends. What is on its way is lost.
func (c *conn) hangUp() {
	c.once.Do(func() {
		close(c.done)
		for _, end := range c.ends {
			_ = end.Close()
		}
	})
}

// ask notes a command that is about to be sent.
func (c *conn) ask(words []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subscribed = c.subscribed || isSubscribe(words)
	if !c.subscribed {
		c.asked = append(c.asked, words)
	}
}

// answer returns the command that a reply belongs to.
func (c *conn) answer(reply []byte) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.asked) == 0 || reply[0] == '>' {
		return message
	}
	words := c.asked[0]
	c.asked = c.asked[1:]
	return words
}

// link is one direction of a connection. What receive reads waits in pieces
// until deliver passes it on, so that a sender is never held up, as by the
// buffers of a kernel.
type link struct {
	conn     *conn
	dir      direction
	from, to net.Conn
	pieces   chan piece
	random   *rand.Rand
	frames   splitter
	last     time.Time // when the piece before was due
}

// piece is data, or the end of the sender's data.
type piece struct {
	data []byte
	at   time.Time
	end  bool
}

func (l *link) receive() {
	defer close(l.pieces)
	buffer := make([]byte, 16<<10)
	for {
		n, err := l.from.Read(buffer)
		select {
		case l.pieces <- piece{data: bytes.Clone(buffer[:n]), at: time.Now(), end: err != nil}:
		case <-l.conn.done:
			return
		}
		if err != nil {
			return
		}
	}
}

// deliver passes pieces on. When the sender has closed the connection and the
// receiver is told, both directions end.
func (l *link) deliver() {
	for p := range l.pieces {
		if !l.arrives() {
			continue
		}
		f, _ := l.conn.net.state()
		l.delay(f, p.at)
		for _, frame := range l.frames.split(p.data) {
			if !l.pass(f, frame) {
				break
			}
		}
		if p.end && !l.dead().Load() {
			l.conn.hangUp()
		}
	}
}

func (l *link) dead() *atomic.Bool { return &l.conn.dead[l.dir] }

// arrives reports whether what was sent now, or its end, comes through. In a
// Late blackhole it waits for its end.
func (l *link) arrives() bool {
	for !l.dead().Load() {
		f, changed := l.conn.net.state()
		if l.dir == up && !f.Up || l.dir == down && !f.Down {
			return true
		}
		l.conn.net.took.Add(1)
		if !f.Late {
			l.dead().Store(true)
			return false
		}
		select {
		case <-changed:
		case <-l.conn.done:
			return false
		}
	}
	return false
}

// delay waits until a piece that was sent at a time is due. Pieces do not
// overtake each other.
func (l *link) delay(f Faults, sent time.Time) {
	if f.Latency <= 0 && f.Jitter <= 0 {
		return
	}
	l.conn.net.took.Add(1)
	due := sent.Add(f.Latency)
	if f.Jitter > 0 {
		due = due.Add(time.Duration(l.random.Int64N(int64(f.Jitter))))
	}
	if due.Before(l.last) {
		due = l.last
	}
	l.last = due
	l.wait(time.Until(due))
}

func (l *link) wait(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.conn.done:
	}
}

// pass sends one command or reply on, as far as its fate allows, and reports
// whether the link still works.
func (l *link) pass(f Faults, frame []byte) bool {
	fate, lost := l.judge(f, frame), false
	switch {
	case fate == Pass:
	case fate == HangUp:
		lost, frame = true, nil
	case fate > 0 && int(fate) < len(frame):
		lost, frame = true, frame[:fate]
	case fate > 0:
		lost = true
	default:
		l.conn.net.took.Add(1)
		return !l.dead().Load()
	}
	if l.write(f, frame) != nil {
		l.dead().Store(true) // the receiver is gone, and what it sent last may be on its way
	}
	if lost {
		l.conn.net.took.Add(1)
		l.conn.hangUp()
	}
	return !lost && !l.dead().Load()
}

// judge asks what becomes of a frame, and keeps track of which reply belongs to
// which command.
func (l *link) judge(f Faults, frame []byte) (fate Fate) {
	if l.frames.raw {
		return Pass
	}
	if l.dir == down {
		words := l.conn.answer(frame)
		if f.Reply != nil {
			fate = f.Reply(words, frame)
		}
		if fate == Swallow && words[0] != "" {
			l.dead().Store(true)
		}
		return fate
	}
	words := wordsOf(frame)
	if f.Command != nil {
		fate = f.Command(words)
	}
	switch fate {
	case Pass:
		l.conn.ask(words)
	case Swallow:
		l.dead().Store(true)
	case HangUp:
	}
	return fate
}

// write sends a frame in the slices and at the pace of the network.
func (l *link) write(f Faults, frame []byte) error {
	size := len(frame)
	if f.Bandwidth > 0 {
		size = max(f.Bandwidth/50, 1)
	}
	if f.Slice > 0 {
		size = min(size, f.Slice)
	}
	if size < len(frame) || f.Bandwidth > 0 {
		l.conn.net.took.Add(1)
	}
	for len(frame) > 0 {
		slice := frame[:min(size, len(frame))]
		if _, err := l.to.Write(slice); err != nil {
			return err
		}
		frame = frame[len(slice):]
		if f.Bandwidth > 0 {
			l.wait(time.Duration(len(slice)) * time.Second / time.Duration(f.Bandwidth))
		}
		select {
		case <-l.conn.done:
			return io.ErrClosedPipe
		default:
		}
	}
	return nil
}

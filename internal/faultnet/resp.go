package faultnet

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// splitter cuts a stream into whole commands or replies. When it meets
// something that is not the Redis protocol, TLS for example, it gives up and
// passes on what comes.
type splitter struct {
	rest []byte
	raw  bool
}

// split returns what is whole now. A frame stays valid for ever.
func (s *splitter) split(data []byte) (frames [][]byte) {
	if len(s.rest) > 0 {
		data = append(s.rest, data...)
		s.rest = nil
	}
	for len(data) > 0 && !s.raw {
		n, err := frameLen(data)
		switch {
		case err != nil:
			s.raw = true
		case n == 0:
			s.rest = data
			return frames
		default:
			frames = append(frames, data[:n:n])
			data = data[n:]
		}
	}
	if len(data) > 0 {
		frames = append(frames, data)
	}
	return frames
}

var errNotRESP = errors.New("not the Redis protocol")

// frameLen returns the length of the command or reply that b begins with, 0
// when it is not whole.
func frameLen(b []byte) (int, error) {
	at := 0
	for left := 1; left > 0; left-- {
		if at == len(b) {
			return 0, nil
		}
		kind := b[at]
		if !strings.ContainsRune("+-:_,#($!=*~>%|", rune(kind)) {
			return 0, errNotRESP
		}
		end := bytes.Index(b[at:], []byte("\r\n"))
		if end < 0 {
			return 0, nil
		}
		line := b[at+1 : at+end]
		at += end + 2
		if !strings.ContainsRune("$!=*~>%|", rune(kind)) {
			continue
		}
		n, err := strconv.Atoi(string(line))
		if err != nil {
			return 0, errNotRESP
		}
		switch {
		case n < 0: // null
		case kind == '$' || kind == '!' || kind == '=':
			at += n + 2
			if at > len(b) {
				return 0, nil
			}
		case kind == '%':
			left += 2 * n
		case kind == '|':
			left += 2*n + 1 // it precedes a reply
		default:
			left += n
		}
	}
	return at, nil
}

// wordsOf returns the words of a command, its name in lower case.
func wordsOf(frame []byte) (words []string) {
	lines := frame
	next := func() (string, bool) {
		line, rest, ok := bytes.Cut(lines, []byte("\r\n"))
		lines = rest
		return string(line), ok
	}
	next() // how many
	for {
		head, ok := next()
		if !ok {
			break
		}
		n, err := strconv.Atoi(strings.TrimPrefix(head, "$"))
		if err != nil || n < 0 || n > len(lines) {
			break
		}
		words = append(words, string(lines[:n]))
		lines = lines[min(n+2, len(lines)):]
	}
	if len(words) == 0 {
		return message
	}
	words[0] = strings.ToLower(words[0])
	return words
}

func isSubscribe(words []string) bool {
	return slices.Contains([]string{"subscribe", "psubscribe", "ssubscribe", "monitor"}, words[0])
}

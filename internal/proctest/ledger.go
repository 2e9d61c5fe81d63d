package proctest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Line is one thing that a process did.
type Line struct {
	Event   string        `json:"event"` // "start", "done", "effect", …
	Job     string        `json:"job,omitempty"`
	Attempt int           `json:"attempt,omitempty"`
	Token   uint64        `json:"token,omitempty"`
	Note    string        `json:"note,omitempty"`
	PID     int           `json:"pid"`
	At      time.Duration `json:"at"` // by Uptime
}

// Ledger is where a process writes down what it does. A line is on the disk
// when Add returns, so it outlives the process, and Redis has no part in it.
type Ledger struct {
	mu   sync.Mutex
	file *os.File
}

// ledgerName matches the ledgers of a directory.
const ledgerName = "*.ledger"

// OpenLedger makes a ledger of its own in dir.
func OpenLedger(dir string) (*Ledger, error) {
	f, err := os.CreateTemp(dir, ledgerName)
	if err != nil {
		return nil, err
	}
	return &Ledger{file: f}, nil
}

// Add appends a line. PID and At are filled in.
func (l *Ledger) Add(line Line) error {
	line.PID, line.At = os.Getpid(), Uptime()
	data, err := json.Marshal(line)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.file.Write(append(data, '\n')); err != nil {
		return err
	}
	return l.file.Sync()
}

// Close closes the file.
func (l *Ledger) Close() error { return l.file.Close() }

// ReadLedgers returns the lines of all ledgers in dir, by time. A last line that
// is torn, because its process was killed while it wrote, did not happen.
func ReadLedgers(dir string) ([]Line, error) {
	names, err := filepath.Glob(filepath.Join(dir, ledgerName))
	if err != nil {
		return nil, err
	}
	var lines []Line
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		data = data[:bytes.LastIndexByte(data, '\n')+1]
		for text := range bytes.Lines(data) {
			var line Line
			if err := json.Unmarshal(text, &line); err != nil {
				return nil, fmt.Errorf("%s: %q: %w", name, text, err)
			}
			lines = append(lines, line)
		}
	}
	slices.SortStableFunc(lines, func(a, b Line) int { return cmp.Compare(a.At, b.At) })
	return lines, nil
}

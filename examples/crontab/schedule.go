package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/carillon-go/carillon"
)

// schedule is what Carillon keeps of an entry. Its name is made of what the line
// says and not of where it is, so that a reload touches only lines that changed:
// to move a line does not disturb its plan.
func (e *entry) schedule() carillon.Schedule {
	return carillon.Schedule{
		Name:     e.name(),
		Group:    printable(e.file, 100),
		Spec:     spec(e.when),
		TimeZone: e.zone,
		// As cron, which makes up for minutes in which it did not come to look.
		Misfire:   carillon.FireAll,
		ReplayAge: maxLate, ReplayMax: int(maxLate / time.Second),
		Job: carillon.Job{
			Name:  jobName,
			Args:  e.task,
			Retry: &carillon.Retry{MaxAttempts: 1}, // as cron: the next tick is the next try
		},
	}
}

// maxLate bounds by how much a tick is late that is made up for, say because the
// instance that had to fire it was killed. Older ones are left out.
const maxLate = 5 * time.Minute

func (e *entry) name() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", e.content(), e.copy))
	return fmt.Sprintf("%s:%x", printable(filepath.Base(e.file), 80), sum[:10])
}

// printable makes a path fit for a name, of so many bytes.
func printable(path string, limit int) string {
	text := strings.Map(func(r rune) rune {
		if r > ' ' && r < '~' {
			return r
		}
		return '_'
	}, path)
	return text[:min(len(text), limit)]
}

// content is all that a line says.
func (e *entry) content() string {
	data, err := json.Marshal([]any{e.when, e.zone, e.task})
	if err != nil {
		panic(err) // strings are always encoded
	}
	return string(data)
}

// check refuses what cannot be planned.
func (e *entry) check() error {
	if e.when == reboot {
		return nil
	}
	_, err := e.ticks(time.Now())
	return err
}

// ticks are the planned times after an instant.
func (e *entry) ticks(after time.Time) (iter.Seq[time.Time], error) {
	s := e.schedule()
	ticks, err := s.Ticks(after)
	var detail *carillon.Error
	if errors.As(err, &detail) {
		err = detail.Err // without the name that schedule made up
	}
	return ticks, err
}

// spec reads time fields by the rules of Vixie's cron where Carillon's are
// others:
//   - Either day field may match, as with Carillon, but both have to if one of
//     them begins with *, as in */2. A * further on is only a range.
//   - A step may be longer than what it divides: */60 is the minute 0.
func spec(when string) carillon.Spec {
	fields := strings.Fields(when)
	if len(fields) < len(ranges) {
		return carillon.Cron(when) // a macro
	}
	last := fields[len(fields)-len(ranges):]
	both := strings.HasPrefix(last[2], "*") || strings.HasPrefix(last[4], "*")
	for i, r := range ranges {
		last[i] = plain(last[i], r.low, r.high)
	}
	s := carillon.Cron(strings.Join(fields, " "))
	if both {
		s = s.BothDays()
	}
	return s
}

// ranges are those of minute, hour, day of month, month and day of week.
var ranges = []struct{ low, high int }{{0, 59}, {0, 23}, {1, 31}, {1, 12}, {0, 6}}

// plain writes the items of a field that Carillon reads in another way.
func plain(field string, low, high int) string {
	items := strings.Split(field, ",")
	for i, item := range items {
		span, step, _ := strings.Cut(item, "/")
		if span == "*" && i > 0 {
			items[i] = strings.Replace(item, "*", fmt.Sprintf("%d-%d", low, high), 1)
		}
		if n, err := strconv.Atoi(step); err == nil && n > high-low {
			items[i], _, _ = strings.Cut(span, "-") // the step leaves only the first
			if span == "*" {
				items[i] = strconv.Itoa(low)
			}
		}
	}
	return strings.Join(items, ",")
}

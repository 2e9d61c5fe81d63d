package main

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// planned is a line of the plan.
type planned struct {
	at    time.Time
	entry *entry
}

// plan returns what runs from an instant on and before another one, in order.
func plan(t table, from, until time.Time) ([]planned, error) {
	var all []planned
	for i := range t.entries {
		e := &t.entries[i]
		if e.when == reboot {
			continue
		}
		ticks, err := e.ticks(from.Add(-time.Millisecond)) // from itself may be one
		if err != nil {
			return nil, err
		}
		for at := range ticks {
			if !at.Before(until) {
				break
			}
			all = append(all, planned{at, e})
		}
	}
	slices.SortStableFunc(all, func(a, b planned) int { return a.at.Compare(b.at) })
	return all, nil
}

// list prints the plan: time, file and line, user and command, with tabs between
// them. What runs at the start of each instance comes first.
func list(out io.Writer, t table, from, until time.Time) error {
	show := func(when string, e *entry) error {
		_, err := fmt.Fprintf(out, "%s\t%s:%d\t%s\t%s\n", when, e.file, e.line, e.task.User, e.task.Command)
		return err
	}
	for i := range t.entries {
		if e := &t.entries[i]; e.when == reboot {
			if err := show(reboot, e); err != nil {
				return err
			}
		}
	}
	all, err := plan(t, from, until)
	for _, p := range all {
		if err == nil {
			err = show(p.at.In(from.Location()).Format(time.RFC3339), p.entry)
		}
	}
	return err
}

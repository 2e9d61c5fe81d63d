package carillon

import (
	"context"
	"iter"
	"time"
)

// Ticks yields the instants that the schedule plans after the given one, in order and
// without end unless the spec has one. It asks nobody: not whether it is stored,
// nor whether it has fired, and it leaves out the calendar and the jitter. Specs
// that count from the moment they are stored count from after; those of EveryAfter
// have no ticks that are known. The error is the one that Scheduler.Schedule would
// return.
func (sched *Schedule) Ticks(after time.Time) (iter.Seq[time.Time], error) {
	plain := *sched
	plain.Calendar, plain.OnExcluded = "", SkipExcluded
	offline := &Scheduler{config: Config{MaxPayload: maxPayload}}
	d, err := offline.define(&plain)
	var p *program
	if err == nil {
		d.AnchorMS = after.UnixMilli()
		p, err = offline.compile(context.Background(), sched.Name, d, nil)
	}
	if err != nil {
		return nil, &Error{Op: "plan", Job: clipped(sched.Name), Err: err}
	}
	return func(yield func(time.Time) bool) {
		tick, _, _ := p.Next(after)
		for !tick.IsZero() && yield(tick) {
			tick, _, _ = p.Next(tick)
		}
	}, nil
}

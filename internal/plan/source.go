package plan

import (
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/cron"
	"github.com/carillon-go/carillon/internal/zone"
)

// A source has ticks. next returns the first one strictly after an instant, and
// never if there is none before the horizon. So next never falls as its argument
// grows, on which [lastTick] relies.
type source interface{ next(after int64) int64 }

// none is the source of a spec whose ticks are not known beforehand.
type none struct{}

func (none) next(int64) int64 { return never }

// every has the ticks first, first+step, and so on.
type every struct{ first, step int64 }

func (e every) next(after int64) int64 {
	if after < e.first {
		return e.first
	}
	return after + e.step - (after-e.first)%e.step
}

// at has single ticks, ascending.
type at []int64

func (a at) next(after int64) int64 {
	if i, _ := slices.BinarySearch(a, after+1); i < len(a) {
		return a[i]
	}
	return never
}

// crontab has the ticks of a cron expression.
type crontab struct {
	schedule cron.Schedule
	zone     *time.Location
	rules    zone.Rules
}

func (c crontab) next(after int64) int64 {
	if next := c.schedule.Next(time.UnixMilli(after), c.zone, c.rules); !next.IsZero() {
		return next.UnixMilli()
	}
	return never
}

// bounded has the ticks of a source from start to end, both included.
type bounded struct {
	source
	start, end int64
}

func (b bounded) next(after int64) int64 {
	if next := b.source.next(max(after, b.start-1)); next <= b.end {
		return next
	}
	return never
}

// lastTick returns the last tick of a source in (after, before), and false if there is
// none. It asks for about as many ticks as their distance, divided by reach, has
// bits, and for few if reach is the distance of the tick from before.
func lastTick(s source, after, before, reach int64) (int64, bool) {
	var found int64
	for reach = max(reach, 1); ; reach *= 2 {
		from := before - 1 - min(reach, before-1-after)
		if found = s.next(from); found < before {
			break
		}
		if from <= after {
			return 0, false
		}
	}
	// There is none between limit and before; the search halves what is between.
	for limit := before; ; {
		next := s.next(found)
		if next >= limit {
			return found, true
		}
		found = next
		middle := found + (limit-found)/2
		if next := s.next(middle); next < before {
			found = next
		} else {
			limit = middle + 1
		}
	}
}

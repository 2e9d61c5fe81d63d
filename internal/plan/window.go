package plan

import "time"

// window is a [Window] made ready.
type window struct {
	every    int64
	from, to int64 // in milliseconds of the day on which it began, so to may lie beyond its end
	weekdays weekdays
	zone     *time.Location
}

func newWindow(w Window, zone *time.Location) window {
	from, _ := timeOfDay(w.From) // validated
	to, _ := timeOfDay(w.To)
	if to < from {
		to += dayMS
	}
	set := weekdaySet(w.Weekdays)
	if set == 0 {
		set = 1<<7 - 1
	}
	return window{w.Every, from, to, set, zone}
}

func (w window) next(after int64) int64 {
	// A window may have begun on the day before, which may come back when the clock
	// is set back over midnight.
	today, _ := localTime(after, w.zone)
	best := int64(never)
	for d := today - 1; begins(d, w.zone) < min(best, horizon); d++ {
		best = min(best, w.on(d, after))
	}
	if best < horizon {
		return best
	}
	return never
}

// on returns the first tick after an instant while the clock shows one day.
func (w window) on(d day, after int64) int64 {
	best := int64(never)
	parts := spans(d, w.zone)
	for began := d - 1; began <= d; began++ {
		if !w.weekdays.has(began.weekday()) {
			continue
		}
		midnight := dayMS * int64(d-began) // as the window counts
		for _, s := range parts {
			least := max(s.lo, s.local(after)+1) + midnight
			step := max(0, (least-w.from+w.every-1)/w.every)
			tick := w.from + step*w.every
			if tick <= w.to && tick-midnight < s.hi {
				best = min(best, s.instant(tick-midnight))
			}
		}
	}
	return best
}

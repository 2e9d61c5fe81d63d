package difftest

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/carillon-go/carillon/internal/zone"
	"github.com/carillon-go/carillon/internal/zonetest"
)

// The instants of a run.
var (
	earliest = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	latest   = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
)

// zones are all IANA zones with their clock changes.
type zones struct {
	locations []*time.Location
	changes   []func() []int64 // of each, seconds since 1970
}

func loadZones(t *testing.T) zones {
	t.Helper()
	var z zones
	for _, name := range zonetest.Names(t) {
		loc := zonetest.Load(t, name)
		z.locations = append(z.locations, loc)
		z.changes = append(z.changes, sync.OnceValue(func() []int64 { return changesOf(loc) }))
	}
	return z
}

// changesOf finds clock changes by looking at the clock every ten days and again in between. A change that is taken back
// within ten days is missed, and hit by other instants.
func changesOf(loc *time.Location) []int64 {
	offset := func(at int64) int64 { return zone.Offset(time.Unix(at, 0).In(loc)) }
	const step = 10 * 86400
	var all []int64
	for at := earliest.Unix(); at < latest.Unix(); at += step {
		if offset(at) == offset(at+step) {
			continue
		}
		low, high := at, at+step
		for high-low > 1 {
			if middle := (low + high) / 2; offset(middle) == offset(at) {
				low = middle
			} else {
				high = middle
			}
		}
		all = append(all, high)
	}
	return all
}

// draw returns a zone and an instant, every other time just before a change of its clock or after it.
func (z zones) draw(r *rand.Rand) (*time.Location, time.Time) {
	n := r.IntN(len(z.locations))
	at := earliest.Unix() + r.Int64N(latest.Unix()-earliest.Unix())
	if changes := z.changes[n](); r.IntN(2) == 0 && len(changes) > 0 {
		at = changes[r.IntN(len(changes))] + int64(r.IntN(30*3600)) - 27*3600
	}
	return z.locations[n], time.Unix(at, 0).In(z.locations[n])
}

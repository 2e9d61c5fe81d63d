package carillon_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/faulthook"
	"github.com/carillon-go/carillon/internal/knobs"
)

// blockingRead is which queues one read waits for.
type blockingRead struct{ common, own bool }

// hooked is a client of the place whose commands h sees.
func (p *place) hooked(t testing.TB, h *faulthook.Hook) redis.UniversalClient {
	t.Helper()
	o := *p.rdb.(*redis.Client).Options() //nolint:errcheck,forcetypeassert // not for clusters
	rdb := redis.NewClient(&o)
	t.Cleanup(func() { _ = rdb.Close() })
	knobs.Hook(rdb, h)
	return rdb
}

// hookedReads is a client of the place whose blocking reads h sees; match says which of
// them count.
func hookedReads(t testing.TB, p *place, h *faulthook.Hook, match func(blockingRead) bool) redis.UniversalClient {
	t.Helper()
	h.Match = func(words []string) bool {
		if words[0] != "xreadgroup" || !slices.Contains(words, "block") {
			return false
		}
		var r blockingRead
		for _, w := range words {
			r.common = r.common || strings.Contains(w, ":q:n:default")
			r.own = r.own || strings.Contains(w, ":q:n:%00")
		}
		return match(r)
	}
	return p.hooked(t, h)
}

// An idle instance blocks in one read for all its queues. Each queue is waited for
// while the other one is paused or has no free slots.
func TestOneReadWaitsForBothQueues(t *testing.T) {
	t.Parallel()
	fastPlaces(t, func(t *testing.T, p *place) {
		reads := make(chan blockingRead, 1000)
		rdb := hookedReads(t, p, &faulthook.Hook{}, func(r blockingRead) bool {
			reads <- r
			return true
		})
		next := func(want blockingRead) {
			t.Helper()
			for deadline := time.After(soon); ; {
				select {
				case r := <-reads:
					if r == want {
						return
					}
				case <-deadline:
					require.Fail(t, "no such read", "%+v", want)
				}
			}
		}
		both, own := blockingRead{common: true, own: true}, blockingRead{own: true}
		s := p.run2(t, rdb, handlers{"job": succeed})
		id := joined(t, s, map[string]bool{})
		sender := p.sender(t)
		next(both)
		ends := func(ids ...string) {
			t.Helper()
			for _, info := range awaitAll(t, s, ids) {
				assert.Equal(t, carillon.StateSucceeded, info.State)
			}
		}
		ends(sender.send(id), submit(t, s, carillon.Job{Name: "job"}), sender.send(id))
		for range 3 {
			next(both)
		}
		require.NoError(t, s.PauseQueue(t.Context(), "default"))
		next(own)
		ends(sender.send(id))
		require.NoError(t, s.ResumeQueue(t.Context(), "default"))
		next(both)
		ends(submit(t, s, carillon.Job{Name: "job"}), sender.send(id))
		shutdown(t, s)
		if p.real {
			auditDrained(t, p.rdb, p.namespace)
		}
	})
}

// What Redis delivered to a read for both queues whose reply was lost is taken up,
// whichever queue it was for, long before a heartbeat could tell.
func TestLostReplyOfAReadForBothQueues(t *testing.T) {
	t.Parallel()
	fastPlaces(t, func(t *testing.T, p *place) {
		h := &faulthook.Hook{At: 1, Fault: faulthook.After}
		rdb := hookedReads(t, p, h, func(r blockingRead) bool { return r.common && r.own })
		s := p.run2(t, rdb, handlers{"job": succeed}, lease(10*time.Minute))
		id := joined(t, s, map[string]bool{})
		eventually(t, "a read for both", func() bool { return h.Count() > 0 })
		job := p.sender(t).send(id)
		assert.Equal(t, carillon.StateSucceeded, await(t, s, job).State)
		require.NotEmpty(t, h.Fired())
		assert.Len(t, get(t, s, job).Attempts, 1)
	})
}

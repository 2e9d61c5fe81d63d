package carillon_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
)

// backlog stores n jobs of each priority, the lowest first, for one worker that
// starts afterwards. It returns the attempts in the order of their starts.
func backlog(t *testing.T, p *place, n map[carillon.Priority]int) []*carillon.Execution {
	t.Helper()
	var d diary
	s := p.new(t, handlers{"job": d.run}, concurrency(1))
	var jobs []carillon.Job
	for _, priority := range []carillon.Priority{carillon.Low, carillon.Normal, carillon.High, carillon.Critical} {
		for range n[priority] {
			jobs = append(jobs, carillon.Job{Name: "job", Priority: priority, Headers: map[string]string{"p": priority.String()[:1]}})
		}
	}
	ids := submitAll(t, s, jobs)
	start(t, s)
	awaitAll(t, s, ids)
	require.Len(t, d.all(), len(jobs), "an attempt too many")
	return d.all()
}

// starts spells the priorities of attempts: c, h, n or l.
func starts(all []*carillon.Execution) string {
	var order strings.Builder
	for _, x := range all {
		order.WriteString(x.Headers["p"])
	}
	return order.String()
}

func TestPriority(t *testing.T) {
	t.Run("is strict but for one start in eight", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			if p.segments == 0 {
				p.segments = 1 // on a cluster each segment is read on its own
			}
			got := starts(backlog(t, p, map[carillon.Priority]int{
				carillon.Critical: 21, carillon.High: 21, carillon.Normal: 21, carillon.Low: 21,
			}))
			// Of each eight starts, seven follow the order strictly.
			var strict, shared strings.Builder
			for i, c := range got {
				if i%8 == 7 {
					shared.WriteRune(c)
				} else {
					strict.WriteRune(c)
				}
			}
			rank := func(a, b byte) int { return strings.IndexByte("chnl", a) - strings.IndexByte("chnl", b) }
			assert.True(t, slices.IsSortedFunc([]byte(strict.String()), rank), got)
			assert.NotContains(t, shared.String()[:2], "c", "%s: nothing is kept for the low ones", got)
		})
	})

	t.Run("starves nobody", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			if p.segments == 0 {
				p.segments = 1
			}
			for _, low := range []carillon.Priority{carillon.Low, carillon.Normal, carillon.High} {
				p.namespace += "x"
				got := starts(backlog(t, p, map[carillon.Priority]int{carillon.Critical: 30, low: 2}))
				assert.Less(t, strings.LastIndex(got, low.String()[:1]), 25, "%s: %s", low, got)
			}
		})
	})

	t.Run("holds over all segments that are read together", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			got := backlog(t, p, map[carillon.Priority]int{carillon.Critical: 32, carillon.Low: 32})
			if _, cluster := p.rdb.(*redis.ClusterClient); !cluster {
				assert.GreaterOrEqual(t, strings.Count(starts(got)[:32], "c"), 28, starts(got))
				return
			}
			// There each segment has a reader, and its own order.
			segments := map[string][]*carillon.Execution{}
			for _, key := range keysOf(t, p.rdb, p.namespace) {
				tag, id, ok := strings.Cut(key, "}:j:")
				for _, x := range got {
					if ok && x.ID == id {
						segments[tag] = append(segments[tag], x)
					}
				}
			}
			assert.Greater(t, len(segments), 3)
			for tag, in := range segments {
				slices.SortFunc(in, func(a, b *carillon.Execution) int { return slices.Index(got, a) - slices.Index(got, b) })
				order := starts(in)
				early := strings.Count(order[:strings.LastIndex(order, "c")+1], "l")
				assert.LessOrEqual(t, early, len(order)/8, "%s: %s", tag, order)
			}
		})
	})
}

func TestQueues(t *testing.T) {
	t.Run("have a concurrency of their own and do not block each other", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			gates := map[string]*gate{"a": newGate(), "b": newGate()}
			var now, most [2]atomic.Int32
			hold := func(ctx context.Context, x *carillon.Execution) error {
				i := int(x.Queue[0] - 'a')
				n := now[i].Add(1)
				for m := most[i].Load(); n > m; m = most[i].Load() {
					most[i].CompareAndSwap(m, n)
				}
				defer now[i].Add(-1)
				return gates[x.Queue].run(ctx, x)
			}
			s := p.run(t, handlers{"hold": hold}, queues(map[string]int{"a": 1, "b": 3}))
			var ids []string
			for range 6 {
				for _, q := range []string{"a", "b"} {
					ids = append(ids, submit(t, s, carillon.Job{Name: "hold", Queue: q}))
				}
			}
			gates["a"].next(t)
			for range 3 {
				gates["b"].next(t)
			}
			gates["b"].open()
			for range 3 {
				gates["b"].next(t) // while a is full
			}
			n, err := s.Counts(t.Context())
			require.NoError(t, err)
			assert.Equal(t, 5, n.Queues["a"].Queued+n.Queues["a"].Running-1)
			gates["a"].open()
			for _, info := range awaitAll(t, s, ids) {
				assert.Equal(t, carillon.StateSucceeded, info.State)
			}
			assert.EqualValues(t, 1, most[0].Load())
			assert.EqualValues(t, 3, most[1].Load())
		})
	})

	t.Run("that nobody reads keep their jobs until somebody does", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"job": succeed})
			id := submit(t, s, carillon.Job{Name: "job", Queue: "late"})
			await(t, s, submit(t, s, carillon.Job{Name: "job"}))
			assert.Equal(t, carillon.StateQueued, get(t, s, id).State)
			p.run(t, handlers{"job": succeed}, queues(map[string]int{"late": 1}))
			assert.Equal(t, carillon.StateSucceeded, await(t, s, id).State)
		})
	})

	t.Run("jobs of one queue start in the order of their submission", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			p.segments = 1
			var d diary
			s := p.run(t, handlers{"job": d.run}, concurrency(1))
			var ids []string
			for i := range 30 {
				ids = append(ids, submit(t, s, carillon.Job{Name: "job", ID: fmt.Sprint("job-", i)}))
			}
			awaitAll(t, s, ids)
			assert.Equal(t, ids, d.ids())
		})
	})

	t.Run("a full instance leaves jobs to the others", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			first, second := newGate(), newGate()
			s := p.run(t, handlers{"hold": first.run}, concurrency(1))
			ids := []string{submit(t, s, carillon.Job{Name: "hold"})}
			first.next(t)
			for range 20 {
				ids = append(ids, submit(t, s, carillon.Job{Name: "hold"}))
			}
			second.open()
			p.run(t, handlers{"hold": second.run}, concurrency(2), lease(time.Minute))
			for _, info := range awaitAll(t, s, ids[1:]) {
				assert.Equal(t, carillon.StateSucceeded, info.State)
			}
			first.open()
			assert.Equal(t, carillon.StateSucceeded, await(t, s, ids[0]).State)
			assert.Empty(t, first.started, "the full instance took another")
		})
	})
}

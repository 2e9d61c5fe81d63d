package carillon_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
)

// zoo is a namespace with one job in each state, and two where they could be
// mistaken for each other.
type zoo struct {
	s    *carillon.Scheduler
	gate *gate
	ids  map[carillon.State]string
}

func newZoo(t *testing.T, p *place) *zoo {
	t.Helper()
	z := &zoo{gate: newGate(), ids: make(map[carillon.State]string)}
	z.s = p.run(t, handlers{
		"hold": z.gate.run, "later": later, "ok": succeed,
		"bad": func(context.Context, *carillon.Execution) error { return carillon.Permanent(errBoom) },
	}, queues(map[string]int{"default": 2, "side": 1}))
	put := func(state carillon.State, job carillon.Job) {
		t.Helper()
		job.Tags = []string{"zoo", string(state)}
		z.ids[state] = submit(t, z.s, job)
		inState(t, z.s, z.ids[state], state)
	}
	put(carillon.StateScheduled, carillon.Job{Name: "ok", Delay: time.Hour})
	put(carillon.StateRetrying, carillon.Job{Name: "later"})
	put(carillon.StateRunning, carillon.Job{Name: "hold", Mutex: "m"})
	put(carillon.StateWaiting, carillon.Job{Name: "ok", Mutex: "m"})
	put(carillon.StateQueued, carillon.Job{Name: "ok", Queue: "nobody's"})
	put(carillon.StateSucceeded, carillon.Job{Name: "ok", Queue: "side"})
	put(carillon.StateFailed, carillon.Job{Name: "bad", Queue: "side"})
	put(carillon.StateExpired, carillon.Job{Name: "ok", ExpiresAt: time.Unix(1, 0)})
	z.ids[carillon.StateCancelled] = submit(t, z.s, carillon.Job{Name: "ok", Delay: time.Hour, Tags: []string{"zoo", "cancelled"}})
	require.NoError(t, z.s.Cancel(t.Context(), z.ids[carillon.StateCancelled]))
	inState(t, z.s, z.ids[carillon.StateCancelled], carillon.StateCancelled)
	return z
}

var liveStates = []carillon.State{
	carillon.StateScheduled, carillon.StateRetrying, carillon.StateRunning, carillon.StateWaiting, carillon.StateQueued,
}

var finalStates = []carillon.State{
	carillon.StateSucceeded, carillon.StateFailed, carillon.StateCancelled, carillon.StateExpired,
}

func TestStates(t *testing.T) {
	eachPlace(t, func(t *testing.T, p *place) {
		z := newZoo(t, p)
		var all []string
		for state, id := range z.ids {
			all = append(all, id)
			assert.Equal(t, []string{id}, listed(t, z.s, carillon.Filter{States: []carillon.State{state}}), state)
			info := get(t, z.s, id)
			assert.Equal(t, state, info.State)
			assert.Equal(t, slices.Contains(finalStates, state), !info.FinishedAt.IsZero(), "%s: finished at %v", state, info.FinishedAt)
			due := state == carillon.StateScheduled || state == carillon.StateRetrying
			assert.Equal(t, due, !info.DueAt.IsZero(), "%s: due at %v", state, info.DueAt)
			assert.Equal(t, slices.Contains(finalStates, state), state.Final())
		}
		slices.Sort(all)
		assert.Equal(t, all, listed(t, z.s, carillon.Filter{}))
		assert.Equal(t, sorted(z.ids[carillon.StateRunning], z.ids[carillon.StateFailed]),
			listed(t, z.s, carillon.Filter{States: []carillon.State{carillon.StateRunning, carillon.StateFailed}}))
		assert.Equal(t, sorted(z.ids[carillon.StateSucceeded], z.ids[carillon.StateFailed]),
			listed(t, z.s, carillon.Filter{Queue: "side"}))
		assert.Equal(t, []string{z.ids[carillon.StateSucceeded]},
			listed(t, z.s, carillon.Filter{Queue: "side", Name: "ok"}))
		for _, err := range z.s.List(t.Context(), carillon.Filter{States: []carillon.State{"asleep"}}) {
			assert.ErrorIs(t, err, carillon.ErrInvalid)
		}

		running := get(t, z.s, z.ids[carillon.StateRunning])
		a := last(t, running)
		assert.Equal(t, carillon.OutcomeRunning, a.Outcome)
		instances, err := z.s.Instances(t.Context())
		require.NoError(t, err)
		require.Len(t, instances, 1)
		assert.Equal(t, instances[0].ID, a.Instance)
		assert.WithinRange(t, a.StartedAt, running.SubmittedAt.Add(-short), p.redisNow(t).Add(short)) // it is told in milliseconds ago

		n, err := z.s.Counts(t.Context())
		require.NoError(t, err)
		assert.Equal(t, carillon.Counts{
			Scheduled: 2, Waiting: 1, Queued: 1, Running: 1, Succeeded: 1, Failed: 1, Cancelled: 1, Expired: 1,
			Queues: map[string]carillon.QueueCounts{"default": {Running: 1}, "side": {}, "nobody's": {Queued: 1}},
		}, n)

		z.gate.open()
		for _, state := range []carillon.State{carillon.StateRunning, carillon.StateWaiting} {
			assert.Equal(t, carillon.StateSucceeded, await(t, z.s, z.ids[state]).State)
		}
		n, err = z.s.Counts(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 3, n.Succeeded)
		assert.Zero(t, n.Running+n.Waiting)
	})
}

func TestTags(t *testing.T) {
	t.Run("find the unfinished jobs, in every state and segment", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			z := newZoo(t, p)
			var live []string
			for _, state := range liveStates {
				id := z.ids[state]
				live = append(live, id)
				assert.Equal(t, []string{id}, listed(t, z.s, carillon.Filter{Tag: string(state)}))
			}
			for _, state := range finalStates {
				assert.Empty(t, listed(t, z.s, carillon.Filter{Tag: string(state)}), state)
			}
			assert.Equal(t, sorted(live...), listed(t, z.s, carillon.Filter{Tag: "zoo"}))
			assert.Empty(t, listed(t, z.s, carillon.Filter{Tag: "zo"}))
			assert.Equal(t, []string{z.ids[carillon.StateRetrying]}, listed(t, z.s, carillon.Filter{Tag: "zoo", Name: "later"}))
			assert.Equal(t, []string{z.ids[carillon.StateQueued]}, listed(t, z.s, carillon.Filter{Tag: "zoo", Queue: "nobody's"}))
			assert.Equal(t, []string{z.ids[carillon.StateWaiting]},
				listed(t, z.s, carillon.Filter{Tag: "zoo", States: []carillon.State{carillon.StateWaiting}}))

			require.NoError(t, z.s.Retry(t.Context(), z.ids[carillon.StateExpired]), "a second life is found again")
			inState(t, z.s, z.ids[carillon.StateExpired], carillon.StateExpired)
			z.gate.open()
			await(t, z.s, z.ids[carillon.StateRunning])
			assert.NotContains(t, listed(t, z.s, carillon.Filter{Tag: "zoo"}), z.ids[carillon.StateRunning])
		})
	})

	t.Run("find more jobs than fit a page", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.new(t, nil)
			jobs := make([]carillon.Job, 250)
			for i := range jobs {
				jobs[i] = carillon.Job{Name: "job", Tags: []string{"u003"}, Delay: time.Hour}
			}
			ids := submitAll(t, s, jobs)
			submit(t, s, carillon.Job{Name: "job", Tags: []string{"u004"}, Delay: time.Hour})
			assert.Equal(t, sorted(ids...), slices.Compact(listed(t, s, carillon.Filter{Tag: "u003"})))
			assert.Len(t, listed(t, s, carillon.Filter{}), 251)
		})
	})
}

func TestListOrder(t *testing.T) {
	t.Run("planned jobs by time, finished ones newest first", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			p.segments = 1 // the order holds within a segment
			s := p.run(t, handlers{"job": succeed})
			order := func(state carillon.State) (ids []string) {
				for info, err := range s.List(t.Context(), carillon.Filter{States: []carillon.State{state}}) {
					require.NoError(t, err)
					ids = append(ids, info.ID)
				}
				return ids
			}
			for _, id := range []string{"2", "3", "1"} {
				d, err := time.ParseDuration(id + "h")
				require.NoError(t, err)
				submit(t, s, carillon.Job{Name: "job", ID: id, Delay: d})
			}
			assert.Equal(t, []string{"1", "2", "3"}, order(carillon.StateScheduled))
			for _, id := range []string{"2", "3", "1"} {
				require.NoError(t, s.RunNow(t.Context(), id))
				await(t, s, id)
			}
			assert.Equal(t, []string{"1", "3", "2"}, order(carillon.StateSucceeded))
		})
	})
}

func TestRetain(t *testing.T) {
	t.Run("bounds by time how long a finished job is known", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"job": succeed, "bad": goesWrong})
			retain := 300 * time.Millisecond
			one := &carillon.Retry{MaxAttempts: 1}
			ids := submitAll(t, s, []carillon.Job{
				{Name: "job", ID: "a", Retain: retain}, {Name: "bad", ID: "b", Retain: retain, Retry: one},
				{Name: "job", ID: "c", Retain: retain, Delay: time.Hour},
			})
			stays := submit(t, s, carillon.Job{Name: "job"})
			require.NoError(t, s.Cancel(t.Context(), "c"))
			for _, id := range ids {
				eventually(t, id+" is forgotten", func() bool {
					at := p.redisNow(t)
					info, err := s.Get(t.Context(), id)
					if err == nil {
						assert.False(t, info.State.Final() && at.Sub(info.FinishedAt) > retain+tardy, "%v after its end", at.Sub(info.FinishedAt))
						return false
					}
					assert.ErrorIs(t, err, carillon.ErrNotFound)
					return true
				})
			}
			await(t, s, stays)
			_, err := s.Await(t.Context(), "a")
			require.ErrorIs(t, err, carillon.ErrNotFound)
			r, err := s.Submit(t.Context(), carillon.Job{Name: "job", ID: "a", Args: "other"})
			require.NoError(t, err, "the ID is free again")
			assert.False(t, r.Duplicate)
		})
	})

	t.Run("the namespace bounds by number as well", func(t *testing.T) {
		realPlaces(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"job": succeed}, concurrency(64), func(c *carillon.Config) {
				c.Retention.Succeeded.Count = 10
			})
			jobs := make([]carillon.Job, 400)
			for i := range jobs {
				jobs[i] = carillon.Job{Name: "job"}
			}
			for range 3 {
				submitAll(t, s, jobs)
				eventually(t, "they are done", func() bool {
					n, err := s.Counts(t.Context())
					require.NoError(t, err)
					return n.Queued+n.Running == 0
				})
			}
			eventually(t, "the oldest are forgotten", func() bool {
				n, err := s.Counts(t.Context())
				require.NoError(t, err)
				return n.Succeeded < 400
			})
			assert.GreaterOrEqual(t, len(listed(t, s, carillon.Filter{})), 10, "too much is forgotten")
		})
	})
}

package carillon_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/faultnet"
)

func TestPauseQueue(t *testing.T) {
	t.Run("keeps its jobs from starting, those of others not, until it is resumed", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			var ran counter
			h := handlers{
				"job": func(_ context.Context, x *carillon.Execution) error {
					ran.add(x.ID)
					return nil
				},
			}
			both := queues(map[string]int{"paused": 4, "open": 4})
			producer := p.new(t, nil)
			fast := lease(1500 * time.Millisecond)
			instances := []*carillon.Scheduler{p.run(t, h, both, fast), p.run(t, h, both, fast)}
			require.NoError(t, producer.PauseQueue(t.Context(), "paused"))
			require.NoError(t, producer.PauseQueue(t.Context(), "paused"), "again changes nothing")
			// At the latest the next heartbeat tells, and the one after it follows what it told.
			nextBeats(t, producer)
			nextBeats(t, producer)
			var held []string
			for i := range 6 {
				held = append(held, submit(t, producer, carillon.Job{Name: "job", Queue: "paused", ID: fmt.Sprint("held-", i)}))
			}
			third := p.run(t, h, both) // one that starts later knows as well
			for range 6 {
				await(t, producer, submit(t, producer, carillon.Job{Name: "job", Queue: "open"}))
			}
			counts, err := producer.Counts(t.Context())
			require.NoError(t, err)
			assert.True(t, counts.Queues["paused"].Paused)
			assert.False(t, counts.Queues["open"].Paused)
			for _, id := range held {
				assert.Zero(t, ran.of(id))
				info := get(t, producer, id)
				assert.Zero(t, info.Failures)
			}
			require.NoError(t, producer.ResumeQueue(t.Context(), "paused"))
			for _, id := range held {
				assert.Equal(t, carillon.StateSucceeded, await(t, producer, id).State)
				assert.Equal(t, 1, ran.of(id))
			}
			require.NoError(t, producer.ResumeQueue(t.Context(), "paused"), "one that is not paused is left as it is")
			for _, s := range append(instances, third) {
				shutdown(t, s)
			}
			auditDrained(t, p.rdb, p.namespace)
		})
	})

	t.Run("lets running jobs go on", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			begun, proceed := make(chan struct{}, 1), make(chan struct{})
			s := p.run(t, handlers{"job": func(ctx context.Context, _ *carillon.Execution) error {
				begun <- struct{}{}
				<-proceed
				return ctx.Err()
			}})
			id := submit(t, s, carillon.Job{Name: "job"})
			receive(t, begun, "the job starts")
			require.NoError(t, s.PauseQueue(t.Context(), "default"))
			close(proceed)
			info := await(t, s, id)
			assert.Equal(t, carillon.StateSucceeded, info.State)
			assert.Equal(t, 1, info.Attempt)
		})
	})

	t.Run("is learnt from the heartbeat when the hint is lost", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			rdb, wire := wireTo(t, p.rdb)
			var ran counter
			p.run2(t, rdb, handlers{"job": func(_ context.Context, x *carillon.Execution) error {
				ran.add(x.ID)
				return nil
			}}, lease(time.Second))
			producer := p.new(t, nil)
			await(t, producer, submit(t, producer, carillon.Job{Name: "job"}))
			wire.Set(faultnet.Faults{Reply: func(_ []string, reply []byte) faultnet.Fate {
				if has(reply, "$7\r\nmessage\r\n") {
					return faultnet.Swallow
				}
				return faultnet.Pass
			}})
			require.NoError(t, producer.PauseQueue(t.Context(), "default"))
			nextBeats(t, producer) // tells
			nextBeats(t, producer) // follows what was told
			id := submit(t, producer, carillon.Job{Name: "job", Delay: time.Millisecond})
			eventually(t, "it is promoted", func() bool { return get(t, producer, id).State == carillon.StateQueued })
			assert.Zero(t, ran.of(id))
			require.NoError(t, producer.ResumeQueue(t.Context(), "default"))
			await(t, producer, id)
		})
	})

	t.Run("refuses names that are none", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			s := p.new(t, nil)
			assert.ErrorIs(t, s.PauseQueue(t.Context(), ""), carillon.ErrInvalid)
			assert.ErrorIs(t, s.ResumeQueue(t.Context(), "\n"), carillon.ErrInvalid)
			assert.Empty(t, keysOf(t, p.rdb, p.namespace))
		})
	})
}

func TestRunNow(t *testing.T) {
	t.Run("starts what is planned for later, scheduled or retrying", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"job": func(_ context.Context, x *carillon.Execution) error {
				if x.Failures == 0 {
					return carillon.RetryAfter(time.Hour, errors.New("later"))
				}
				return nil
			}})
			for _, job := range []carillon.Job{
				{Name: "job", Delay: time.Hour},
				{Name: "job", RunAt: time.Now().Add(time.Hour), Mutex: "m", Priority: carillon.Low},
			} {
				id := submit(t, s, job)
				require.NoError(t, s.RunNow(t.Context(), id))
				eventually(t, "it fails", func() bool { return get(t, s, id).State == carillon.StateRetrying })
				assert.WithinDuration(t, time.Now().Add(time.Hour), get(t, s, id).DueAt, soon)
				require.NoError(t, s.RunNow(t.Context(), id))
				info := await(t, s, id)
				assert.Equal(t, carillon.StateSucceeded, info.State)
				assert.Equal(t, 2, info.Attempt)
				assert.ErrorIs(t, s.RunNow(t.Context(), id), carillon.ErrState)
			}
			assert.ErrorIs(t, s.RunNow(t.Context(), "unknown"), carillon.ErrNotFound)
		})
	})

	t.Run("is refused when the job is not planned", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.new(t, nil)
			queued := submit(t, s, carillon.Job{Name: "job"})
			assert.ErrorIs(t, s.RunNow(t.Context(), queued), carillon.ErrState)
			assert.Equal(t, carillon.StateQueued, get(t, s, queued).State)
		})
	})
}

// finish ends jobs in one of the four ways and returns their IDs.
func finish(t testing.TB, s *carillon.Scheduler, state carillon.State, n int) []string {
	t.Helper()
	job := carillon.Job{Name: "works"}
	switch state {
	case carillon.StateFailed:
		job.Name = "fails"
	case carillon.StateExpired:
		job.ExpiresAt = time.Unix(1, 0)
	case carillon.StateCancelled:
		job.Delay = time.Hour
	}
	jobs := make([]carillon.Job, n)
	for i := range jobs {
		jobs[i] = job
	}
	receipts, err := s.SubmitMany(t.Context(), jobs)
	require.NoError(t, err)
	ids := make([]string, n)
	for i, r := range receipts {
		ids[i] = r.ID
		if state == carillon.StateCancelled {
			require.NoError(t, s.Cancel(t.Context(), r.ID))
		}
	}
	for _, id := range ids {
		info := await(t, s, id)
		require.Equal(t, state, info.State)
	}
	return ids
}

var finishing = handlers{
	"works": func(context.Context, *carillon.Execution) error { return nil },
	"fails": func(context.Context, *carillon.Execution) error { return carillon.Permanent(errors.New("no")) },
}

func TestRetention(t *testing.T) {
	t.Run("bounds finished jobs by count, for each outcome", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			segments := max(1, p.segments)
			if _, cluster := p.rdb.(*redis.ClusterClient); cluster {
				segments = clusterSegments
			}
			keep := carillon.Keep{Count: 16}
			bounded := func(c *carillon.Config) {
				c.Retention = carillon.Retention{Succeeded: keep, Failed: keep, Cancelled: keep, Expired: keep}
			}
			s := p.run(t, finishing)
			ids := make(map[carillon.State][]string)
			for _, state := range finalStates {
				ids[state] = finish(t, s, state, 40)
			}
			shutdown(t, s)
			s = p.run(t, finishing, bounded) // tidies up when it starts
			eventually(t, "the bounds are kept", func() bool {
				n, err := s.Counts(t.Context())
				require.NoError(t, err)
				return max(n.Succeeded, n.Failed, n.Cancelled, n.Expired) <= 16
			})
			for _, state := range finalStates {
				var kept []string
				for i, id := range ids[state] {
					info, err := s.Get(t.Context(), id)
					if errors.Is(err, carillon.ErrNotFound) {
						continue
					}
					require.NoError(t, err)
					assert.Equal(t, state, info.State)
					kept = append(kept, id)
					if segments == 1 && state == carillon.StateCancelled {
						assert.GreaterOrEqual(t, i, 40-16, "the oldest go first")
					}
				}
				assert.LessOrEqual(t, len(kept), 16, state)
				assert.NotEmpty(t, kept, state)
				n := 0
				for info, err := range s.List(t.Context(), carillon.Filter{States: []carillon.State{state}}) {
					require.NoError(t, err)
					assert.Contains(t, kept, info.ID)
					n++
				}
				assert.Len(t, kept, n, "what is listed and what can be read differ")
			}
		})
	})

	t.Run("bounds finished jobs by age, for each outcome", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, finishing, func(c *carillon.Config) {
				c.Retention = carillon.Retention{
					Succeeded: carillon.Keep{Age: 10 * time.Minute}, Failed: carillon.Keep{Age: 20 * time.Minute},
					Cancelled: carillon.Keep{Age: 30 * time.Minute}, Expired: carillon.Keep{Age: 40 * time.Minute},
				}
			})
			for i, state := range finalStates {
				id := finish(t, s, state, 1)[0]
				ttl := p.rdb.PTTL(t.Context(), keyLike(t, p.rdb, p.namespace, "j:"+id)).Val()
				assert.InDelta(t, time.Duration(i+1)*10*time.Minute, ttl, float64(soon), state)
			}
		})
	})

	t.Run("forgets all of them when their time is over", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			keep := carillon.Keep{Age: 3 * time.Second} // longer than it takes to see that they have ended
			s := p.run(t, finishing, func(c *carillon.Config) {
				c.Retention = carillon.Retention{Succeeded: keep, Failed: keep, Cancelled: keep, Expired: keep}
			})
			var ids []string
			for _, state := range finalStates {
				ids = append(ids, finish(t, s, state, 2)...)
			}
			shutdown(t, s)
			eventually(t, "nothing is left of them", func() bool {
				for _, key := range keysOf(t, p.rdb, p.namespace) {
					_, name, _ := strings.Cut(key, "}:")
					if kind, _, _ := strings.Cut(name, ":"); kind == "j" || kind == "h" || kind == "ev" {
						return false
					}
				}
				return true
			})
			reader := p.new(t, nil)
			for _, id := range ids {
				_, err := reader.Get(t.Context(), id)
				assert.ErrorIs(t, err, carillon.ErrNotFound)
			}
			n, err := reader.Counts(t.Context())
			require.NoError(t, err)
			assert.Zero(t, n.Succeeded+n.Failed+n.Cancelled+n.Expired)
			auditDrained(t, p.rdb, p.namespace)
		})
	})

	t.Run("does not touch what is unfinished or lives again", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			var works atomic.Bool
			s := p.run(t, handlers{"job": func(context.Context, *carillon.Execution) error {
				if works.Load() {
					return nil
				}
				return carillon.Permanent(errors.New("no"))
			}})
			planned := submit(t, s, carillon.Job{Name: "job", Delay: time.Hour})
			id := submit(t, s, carillon.Job{Name: "job"})
			await(t, s, id)
			record := keyLike(t, p.rdb, p.namespace, "j:"+id)
			assert.Positive(t, p.rdb.PTTL(t.Context(), record).Val())
			require.NoError(t, s.PauseQueue(t.Context(), "default"))
			require.NoError(t, s.Retry(t.Context(), id))
			for _, id := range []string{id, planned} {
				ttl := p.rdb.PTTL(t.Context(), keyLike(t, p.rdb, p.namespace, "j:"+id)).Val()
				assert.Negative(t, ttl, "an unfinished job would pass")
			}
			works.Store(true)
			require.NoError(t, s.ResumeQueue(t.Context(), "default"))
			eventually(t, "it succeeds", func() bool { return get(t, s, id).State == carillon.StateSucceeded })
			assert.Positive(t, p.rdb.PTTL(t.Context(), record).Val())
		})
	})
}

// nextBeats waits until every instance has sent another heartbeat.
func nextBeats(t testing.TB, s *carillon.Scheduler) {
	t.Helper()
	beats := func() map[string]time.Time {
		all, err := s.Instances(t.Context())
		require.NoError(t, err)
		last := make(map[string]time.Time, len(all))
		for _, one := range all {
			last[one.ID] = one.Heartbeat
		}
		return last
	}
	before := beats()
	eventually(t, "heartbeats", func() bool {
		for id, at := range beats() {
			if !at.After(before[id]) {
				return false
			}
		}
		return true
	})
}

package carillon_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
)

// placements are jobs whose unique key, mutex and ID belong to the same or to
// different segments. What Unique promises must not depend on it, so cases run
// with several of each kind, of which some cross segments when there are 16.
var placements = map[string]func(i int, job carillon.Job) carillon.Job{
	"alone": func(_ int, job carillon.Job) carillon.Job { return job },
	"with an ID": func(i int, job carillon.Job) carillon.Job {
		job.ID = fmt.Sprint("my-", i)
		return job
	},
	"with a mutex": func(i int, job carillon.Job) carillon.Job {
		job.Mutex = fmt.Sprint("mutex-", i)
		return job
	},
	"with both": func(i int, job carillon.Job) carillon.Job {
		job.Mutex, job.ID = fmt.Sprint("mutex-", i), fmt.Sprint("my-", i)
		return job
	},
}

// eachPlacement runs a case on each backend and placement, with numbers that
// make the names in it different.
func eachPlacement(t *testing.T, f func(t *testing.T, p *place, job func(i int, job carillon.Job) carillon.Job)) {
	t.Helper()
	eachPlace(t, func(t *testing.T, p *place) {
		for name, job := range placements {
			t.Run(name, func(t *testing.T) {
				q := *p
				q.namespace += "-" + name[len(name)-2:]
				f(t, &q, job)
			})
		}
	})
}

// duplicate submits a job whose unique key is held.
func duplicate(t *testing.T, s *carillon.Scheduler, holder string, job carillon.Job) {
	t.Helper()
	r, err := s.Submit(t.Context(), job)
	require.NoError(t, err)
	assert.Equal(t, carillon.Receipt{ID: holder, Duplicate: true}, r)
}

func TestUnique(t *testing.T) {
	const rounds = 3 // with 16 segments, 15 of 16 cross

	t.Run("refuses a second job in every unfinished state", func(t *testing.T) {
		eachPlacement(t, func(t *testing.T, p *place, place func(int, carillon.Job) carillon.Job) {
			g := newGate()
			s := p.run(t, handlers{"hold": g.run, "later": later})
			var running []string
			for i := range rounds {
				n := 10 * i
				unique := func(kind string, job carillon.Job) carillon.Job {
					n++
					job.Unique.Key = fmt.Sprint(kind, i)
					return place(n, job)
				}
				try := func(kind string, state carillon.State, job carillon.Job) string {
					id := submit(t, s, unique(kind, job))
					inState(t, s, id, state)
					for _, other := range []carillon.Job{{Name: "x", Delay: time.Hour}, {Name: "x", Args: 1, Queue: "y"}} {
						duplicate(t, s, id, unique(kind, other))
						if id[0] != 'm' { // an ID of its own is known, or it would be no duplicate
							continue
						}
						_, err := s.Get(t.Context(), fmt.Sprint("my-", n))
						assert.ErrorIs(t, err, carillon.ErrNotFound, "the refused job left something")
					}
					return id
				}
				try("scheduled", carillon.StateScheduled, carillon.Job{Name: "hold", Delay: time.Hour})
				try("queued", carillon.StateQueued, carillon.Job{Name: "hold", Queue: "nobody's"})
				try("retrying", carillon.StateRetrying, carillon.Job{Name: "later"})
				running = append(running, try("running", carillon.StateRunning, carillon.Job{Name: "hold"}))
			}
			g.open()
			awaitAll(t, s, running)
		})
	})

	t.Run("is released on every way to finish", func(t *testing.T) {
		eachPlacement(t, func(t *testing.T, p *place, place func(int, carillon.Job) carillon.Job) {
			s := p.run(t, handlers{
				"ok":  succeed,
				"bad": func(context.Context, *carillon.Execution) error { return carillon.Permanent(errBoom) },
			})
			n := 0
			for i := range rounds {
				unique := func(job carillon.Job) carillon.Job {
					n++
					job.Unique.Key = fmt.Sprint("key-", i)
					return place(n, job)
				}
				for state, job := range map[carillon.State]carillon.Job{
					carillon.StateSucceeded: {Name: "ok"},
					carillon.StateFailed:    {Name: "bad"},
					carillon.StateCancelled: {Name: "ok", Delay: time.Hour},
					carillon.StateExpired:   {Name: "ok", ExpiresAt: time.Unix(1, 0)},
				} {
					id := submit(t, s, unique(job))
					if state == carillon.StateCancelled {
						require.NoError(t, s.Cancel(t.Context(), id))
					}
					assert.Equal(t, state, await(t, s, id).State)
				}
				submit(t, s, unique(carillon.Job{Name: "ok", Delay: time.Hour}))
			}
		})
	})

	t.Run("for a period holds when the job is finished earlier", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"ok": succeed})
			const period = 2 * time.Second
			n := 0
			job := func(place func(int, carillon.Job) carillon.Job, key string) carillon.Job {
				n++
				return place(n, carillon.Job{Name: "ok", Args: n, Unique: carillon.Unique{Key: key, For: period}})
			}
			type held struct {
				place   func(int, carillon.Job) carillon.Job
				key, id string
			}
			var all []held
			for name, place := range placements {
				for i := range rounds {
					h := held{place, fmt.Sprint(name, i), ""}
					h.id = submit(t, s, job(place, h.key))
					info := await(t, s, h.id)
					if p.redisNow(t).Sub(info.SubmittedAt) < period/2 { // or this machine is very slow
						duplicate(t, s, h.id, job(place, h.key))
					}
					all = append(all, h)
				}
			}
			for _, h := range all {
				var r carillon.Receipt
				eventually(t, "the period passes", func() bool {
					var err error
					r, err = s.Submit(t.Context(), job(h.place, h.key))
					require.NoError(t, err)
					return !r.Duplicate
				})
				if p.real { // in embedded keys may expire early
					apart := get(t, s, r.ID).SubmittedAt.Sub(get(t, s, h.id).SubmittedAt)
					assert.GreaterOrEqual(t, apart, period, h.key)
				}
			}
		})
	})

	t.Run("for a period never frees the key of an unfinished job", func(t *testing.T) {
		eachPlacement(t, func(t *testing.T, p *place, place func(int, carillon.Job) carillon.Job) {
			s := p.run(t, handlers{"ok": succeed})
			const period = 20 * time.Millisecond
			job := func(n, i int) carillon.Job {
				return place(n, carillon.Job{
					Name: "ok", Delay: time.Hour, Unique: carillon.Unique{Key: fmt.Sprint("key-", i), For: period},
				})
			}
			ids := make([]string, rounds)
			for i := range rounds {
				ids[i] = submit(t, s, job(i, i))
			}
			end := get(t, s, ids[rounds-1]).SubmittedAt.Add(period)
			eventually(t, "the period passes", func() bool { return p.redisNow(t).After(end) })
			for i := range rounds {
				duplicate(t, s, ids[i], job(100+i, i))
				require.NoError(t, s.RunNow(t.Context(), ids[i]))
				await(t, s, ids[i])
				submit(t, s, job(200+i, i))
			}
		})
	})

	t.Run("holds against concurrent submissions", func(t *testing.T) {
		eachPlacement(t, func(t *testing.T, p *place, place func(int, carillon.Job) carillon.Job) {
			one, other := p.new(t, nil), p.new(t, nil)
			for round := range 3 {
				var mu sync.Mutex
				stored, named := map[string]bool{}, map[string]bool{}
				var wg sync.WaitGroup
				for i := range 16 {
					wg.Go(func() {
						s := []*carillon.Scheduler{one, other}[i%2]
						r, err := s.Submit(t.Context(), place(100*round+i, carillon.Job{
							Name: "ok", Args: i, Delay: time.Hour, Unique: carillon.Unique{Key: fmt.Sprint("key-", round)},
						}))
						assert.NoError(t, err)
						mu.Lock()
						defer mu.Unlock()
						named[r.ID] = true
						if !r.Duplicate {
							stored[r.ID] = true
						}
					})
				}
				wg.Wait()
				assert.Len(t, stored, 1, "jobs with one key")
				assert.Equal(t, stored, named, "who was refused is told of the holder")
				assert.Len(t, listed(t, one, carillon.Filter{}), round+1)
			}
		})
	})

	t.Run("keeps a dead job from a second life while another holds the key", func(t *testing.T) {
		eachPlacement(t, func(t *testing.T, p *place, place func(int, carillon.Job) carillon.Job) {
			g := newGate()
			s := p.run(t, handlers{"hold": g.run})
			for i := range rounds {
				unique := func(n int) carillon.Job {
					return place(n, carillon.Job{Name: "hold", Delay: time.Hour, Unique: carillon.Unique{Key: fmt.Sprint("key-", i)}})
				}
				dead := submit(t, s, unique(i))
				require.NoError(t, s.Cancel(t.Context(), dead))
				holder := submit(t, s, unique(100+i))
				require.ErrorIs(t, s.Retry(t.Context(), dead), carillon.ErrState)
				assert.Equal(t, carillon.StateCancelled, get(t, s, dead).State)

				require.NoError(t, s.Cancel(t.Context(), holder))
				require.NoError(t, s.Retry(t.Context(), dead))
				assert.Equal(t, dead, g.next(t).ID)
				duplicate(t, s, dead, unique(200+i))
				g.pass <- nil
				assert.Equal(t, carillon.StateSucceeded, await(t, s, dead).State)
				submit(t, s, unique(300+i))
			}
		})
	})

	t.Run("lets the same job be found again by its ID", func(t *testing.T) {
		eachPlacement(t, func(t *testing.T, p *place, place func(int, carillon.Job) carillon.Job) {
			s := p.new(t, nil)
			for i := range rounds {
				job := place(i, carillon.Job{Name: "ok", Unique: carillon.Unique{Key: fmt.Sprint("key-", i)}})
				id := submit(t, s, job)
				duplicate(t, s, id, job)
				assert.Equal(t, job.Mutex, get(t, s, id).Mutex)
				assert.Equal(t, job.Unique, get(t, s, id).Unique)
				require.NoError(t, s.Cancel(t.Context(), id))
				if job.ID == "" {
					continue
				}
				duplicate(t, s, id, job) // the ID is known though the key is free
				job.Args = "other"
				_, err := s.Submit(t.Context(), job)
				require.ErrorIs(t, err, carillon.ErrConflict)
				// The refused one must not have taken the key.
				next := place(100+i, carillon.Job{Name: "ok", Unique: job.Unique})
				submit(t, s, next)
			}
		})
	})
}

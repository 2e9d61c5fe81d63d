package carillon_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/faultnet"
)

func TestSubmit(t *testing.T) {
	t.Run("the job runs as submitted and keeps its record", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			got := make(chan carillon.Execution, 1)
			s := p.run(t, handlers{"greet": func(_ context.Context, x *carillon.Execution) error {
				got <- *x
				return x.SetResult(map[string]int{"n": 7})
			}}, queues(map[string]int{"mail {%:1}": 2}))
			job := carillon.Job{
				Name: "greet", ID: "öne/1 {a}:%", Args: map[string]string{"to": "ada <ä>"}, Queue: "mail {%:1}",
				Priority: carillon.High, Timeout: time.Minute, Tags: []string{"u:1", "{x}"},
				Headers: map[string]string{"trace": "a\nb", "Ü": ""},
			}
			require.Equal(t, job.ID, submit(t, s, job))
			x := receive(t, got, "the attempt")
			assert.Equal(t, job.ID, x.ID)
			assert.Equal(t, job.Name, x.Name)
			assert.Equal(t, job.Queue, x.Queue)
			assert.JSONEq(t, `{"to":"ada <ä>"}`, string(x.Args))
			assert.Equal(t, job.Headers, x.Headers)
			assert.Equal(t, job.Tags, x.Tags)
			assert.Equal(t, 1, x.Attempt)
			assert.Zero(t, x.Failures+x.Losses)
			assert.NotZero(t, x.Token)
			assert.Zero(t, x.MutexToken)

			info := await(t, s, job.ID)
			assert.Equal(t, carillon.StateSucceeded, info.State)
			assert.JSONEq(t, `{"n":7}`, string(info.Result))
			assert.JSONEq(t, `{"to":"ada <ä>"}`, string(info.Args))
			assert.Equal(t, job.Name, info.Name)
			assert.Equal(t, job.Queue, info.Queue)
			assert.Equal(t, job.Priority, info.Priority)
			assert.Equal(t, job.Timeout, info.Timeout)
			assert.Equal(t, job.Headers, info.Headers)
			assert.Equal(t, job.Tags, info.Tags)
			require.Len(t, info.Attempts, 1)
			a := info.Attempts[0]
			assert.Equal(t, 1, a.Number)
			assert.Equal(t, x.Token, a.Token)
			assert.NotEmpty(t, a.Instance)
			assert.Equal(t, carillon.OutcomeSucceeded, a.Outcome)
			moments := []time.Time{info.SubmittedAt, a.DispatchedAt, a.StartedAt, a.FinishedAt}
			assert.True(t, slices.IsSortedFunc(moments, time.Time.Compare), "%v", moments)
			assert.WithinDuration(t, a.FinishedAt, info.FinishedAt, tardy)
		})
	})

	t.Run("large arguments arrive whole", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"job": func(_ context.Context, x *carillon.Execution) error {
				return x.SetResult(len(x.Args))
			}})
			for _, n := range []int{4000, 4200, 900_000} { // around the size that entries carry, and beyond
				text := string(slices.Repeat([]byte("x"), n))
				info := await(t, s, submit(t, s, carillon.Job{Name: "job", Args: text}))
				assert.JSONEq(t, fmt.Sprint(n+2), string(info.Result))
				assert.Len(t, info.Args, n+2)
			}
		})
	})

	t.Run("the same ID and content is a duplicate, other content a conflict", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.new(t, handlers{"job": succeed})
			job := carillon.Job{Name: "job", ID: "invoice-1", Args: 1, Tags: []string{"a"}, Headers: map[string]string{"x": "1", "y": "2"}}
			submit(t, s, job)
			other := job
			other.Args = 2
			check := func(t *testing.T) {
				t.Helper()
				r, err := s.Submit(t.Context(), job)
				require.NoError(t, err)
				assert.Equal(t, carillon.Receipt{ID: job.ID, Duplicate: true}, r)
				_, err = s.Submit(t.Context(), other)
				require.ErrorIs(t, err, carillon.ErrConflict)
				assert.JSONEq(t, "1", string(get(t, s, job.ID).Args))
			}
			check(t)
			start(t, s)
			assert.Equal(t, carillon.StateSucceeded, await(t, s, job.ID).State)
			check(t)
			assert.Equal(t, 1, get(t, s, job.ID).Attempt, "it ran again")
		})
	})

	t.Run("of concurrent submissions of one ID one is stored", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			var ran counter
			s := p.run(t, handlers{"job": func(_ context.Context, x *carillon.Execution) error {
				ran.add(x.ID)
				return nil
			}})
			other := p.new(t, nil)
			var first atomic.Int32
			var wg sync.WaitGroup
			for i := range 40 {
				wg.Go(func() {
					from := []*carillon.Scheduler{s, other}[i%2]
					r, err := from.Submit(t.Context(), carillon.Job{Name: "job", ID: "one", Mutex: "m", Unique: carillon.Unique{Key: "u"}})
					assert.NoError(t, err)
					assert.Equal(t, "one", r.ID)
					if !r.Duplicate {
						first.Add(1)
					}
				})
			}
			wg.Wait()
			assert.EqualValues(t, 1, first.Load())
			await(t, s, "one")
			assert.Equal(t, 1, ran.of("one"))
		})
	})

	t.Run("concurrent submissions share round trips", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			rdb, wire := wireTo(t, p.rdb)
			s := p.over(t, rdb, nil)
			submit(t, s, carillon.Job{Name: "job"}) // loads the script
			const n = 200
			var calls atomic.Int32
			var entered sync.WaitGroup
			entered.Add(n)
			wire.Set(faultnet.Faults{Reply: func(sent []string, _ []byte) faultnet.Fate {
				if sent[0] == "evalsha" {
					if calls.Add(1) == 1 {
						entered.Wait() // the others gather meanwhile
					}
				}
				return faultnet.Pass
			}})
			var wg sync.WaitGroup
			for range n {
				wg.Go(func() {
					entered.Done()
					_, err := s.Submit(t.Context(), carillon.Job{Name: "job"})
					assert.NoError(t, err)
				})
			}
			wg.Wait()
			assert.Less(t, int(calls.Load()), n/4, "calls for %d submissions", n)
			assert.Len(t, listed(t, s, carillon.Filter{Name: "job"}), n+1)
		})
	})
}

func TestSubmitMany(t *testing.T) {
	t.Run("reports job by job and stores the others", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"job": succeed})
			submit(t, s, carillon.Job{Name: "job", ID: "old", Args: 1})
			held := submit(t, s, carillon.Job{Name: "job", Delay: time.Hour, Unique: carillon.Unique{Key: "k"}})
			receipts, err := s.SubmitMany(t.Context(), []carillon.Job{
				{Name: "job", ID: "a"},
				{Name: "job", ID: "old", Args: 2},
				{Name: "job", ID: "old", Args: 1},
				{Name: "job", Unique: carillon.Unique{Key: "k"}},
				{Name: "job", ID: "a"},
				{Name: "job", ID: "b", Mutex: "m"},
				{Name: "job"},
			})
			require.ErrorIs(t, err, carillon.ErrConflict)
			assert.ErrorContains(t, err, "jobs[1]")
			assert.NotContains(t, err.Error(), "jobs[0]")
			require.Len(t, receipts, 7)
			for i, r := range receipts {
				if i == 1 {
					assert.ErrorIs(t, r.Err, carillon.ErrConflict)
					var e *carillon.Error
					if assert.ErrorAs(t, r.Err, &e) {
						assert.Equal(t, "submit", e.Op)
						assert.Equal(t, "job", e.Job)
					}
					continue
				}
				assert.NoError(t, r.Err)
				assert.Equal(t, slices.Contains([]int{2, 3, 4}, i), r.Duplicate, "jobs[%d]", i)
			}
			assert.Equal(t, "old", receipts[2].ID)
			assert.Equal(t, held, receipts[3].ID)
			for _, id := range []string{"a", "b", receipts[6].ID} {
				assert.Equal(t, carillon.StateSucceeded, await(t, s, id).State)
			}
		})
	})

	t.Run("sends nothing when a job is invalid, and names all that are", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.new(t, nil)
			receipts, err := s.SubmitMany(t.Context(), []carillon.Job{
				{Name: "job", ID: "good"}, {Name: ""}, {Name: "job", Args: func() {}}, {Name: "job", Delay: -1},
			})
			require.ErrorIs(t, err, carillon.ErrInvalid)
			assert.Nil(t, receipts)
			for _, want := range []string{"jobs[1]", "jobs[2]", "jobs[3]", "Name", "Args", "Delay"} {
				assert.ErrorContains(t, err, want)
			}
			_, err = s.Get(t.Context(), "good")
			assert.ErrorIs(t, err, carillon.ErrNotFound)
		})
	})

	t.Run("takes more jobs than fit a call, and keeps their order", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			var d diary
			s := p.new(t, handlers{"job": d.run})
			jobs := make([]carillon.Job, 600)
			for i := range jobs {
				jobs[i] = carillon.Job{Name: "job", Args: i}
				if i%30 == 0 {
					jobs[i].Mutex = "m"
				}
			}
			ids := submitAll(t, s, jobs)
			n, err := s.Counts(t.Context())
			require.NoError(t, err)
			assert.Equal(t, len(jobs), n.Queued+n.Waiting)
			start(t, s)
			eventually(t, "all have succeeded", func() bool {
				n, err := s.Counts(t.Context())
				require.NoError(t, err)
				return n.Succeeded == len(jobs)
			})
			ran := d.ids()
			assert.Len(t, ran, len(jobs))
			var ordered []string
			for i := 0; i < len(ids); i += 30 {
				ordered = append(ordered, ids[i])
			}
			ran = slices.DeleteFunc(ran, func(id string) bool { return !slices.Contains(ordered, id) })
			assert.Equal(t, ordered, ran)
		})
	})
}

func TestFuncHandlers(t *testing.T) {
	eachPlace(t, func(t *testing.T, p *place) {
		type sum struct{ A, B int }
		s := p.new(t, nil)
		require.NoError(t, s.Handle("add", carillon.FuncResult(func(ctx context.Context, args sum) (int, error) {
			if carillon.FromContext(ctx) == nil {
				return 0, errors.New("no execution in the context")
			}
			return args.A + args.B, nil
		})))
		start(t, s)
		info := await(t, s, submit(t, s, carillon.Job{Name: "add", Args: sum{2, 3}}))
		assert.JSONEq(t, "5", string(info.Result))

		bad := await(t, s, submit(t, s, carillon.Job{Name: "add", Args: "secret-7"}))
		assert.Equal(t, carillon.StateFailed, bad.State, "no retry can mend arguments")
		assert.Equal(t, 1, bad.Attempt)
		assert.NotContains(t, last(t, bad).Error, "secret-7")
	})
}

package carillon_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/faultnet"
)

// listening hears n events, from cursor on.
func listening(t testing.TB, s *carillon.Scheduler, cursor string, n int) <-chan carillon.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	events := s.Subscribe(ctx, cursor) // from here on, not from the first step of the loop on
	heard := make(chan carillon.Event, n)
	go func() {
		defer close(heard)
		defer cancel()
		left := n
		for e, err := range events {
			if !assert.NoError(t, err, "%d of %d events are missing", left, n) {
				return
			}
			heard <- e
			if left--; left == 0 {
				return
			}
		}
	}()
	return heard
}

// heardBy collects what was heard until the listener left.
func heardBy(t testing.TB, events <-chan carillon.Event) []carillon.Event {
	t.Helper()
	limit := time.After(soon)
	var all []carillon.Event
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return all
			}
			all = append(all, e)
		case <-limit:
			require.FailNow(t, "the listener did not leave")
		}
	}
}

func typesOf(events []carillon.Event) []carillon.EventType {
	var all []carillon.EventType
	for _, e := range events {
		all = append(all, e.Type)
	}
	return all
}

func TestSubscribe(t *testing.T) {
	t.Run("tells what happens from now on, each job in its order", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{
				"twice": func(_ context.Context, x *carillon.Execution) error {
					if x.Failures == 0 {
						return carillon.RetryAfter(0, errors.New("not yet"))
					}
					return nil
				},
				"fails": func(context.Context, *carillon.Execution) error { return carillon.Permanent(errors.New("no")) },
			})
			await(t, s, submit(t, s, carillon.Job{Name: "fails"}))
			before := time.Now()
			heard := listening(t, s, "", 9)

			twice := submit(t, s, carillon.Job{Name: "twice"})
			await(t, s, twice)
			fails := submit(t, s, carillon.Job{Name: "fails"})
			eventually(t, "the failure is heard", func() bool { return len(heard) == 3 }) // a retry deletes what is not heard yet
			require.NoError(t, s.Retry(t.Context(), fails))
			eventually(t, "it fails again", func() bool { return get(t, s, fails).State == carillon.StateFailed })
			cancelled := submit(t, s, carillon.Job{Name: "job", Delay: time.Hour})
			require.NoError(t, s.Cancel(t.Context(), cancelled))
			expired := submit(t, s, carillon.Job{Name: "twice", Queue: "default", ExpiresAt: time.Unix(1, 0)})
			await(t, s, expired)
			require.NoError(t, s.PauseQueue(t.Context(), "q"))
			require.NoError(t, s.PauseQueue(t.Context(), "q")) // changes nothing
			require.NoError(t, s.ResumeQueue(t.Context(), "q"))

			byJob := make(map[string][]carillon.Event)
			for _, e := range heardBy(t, heard) {
				byJob[e.ID] = append(byJob[e.ID], e)
				assert.NotEmpty(t, e.Cursor)
				assert.WithinDuration(t, before, e.Time, soon)
			}
			assert.Equal(t, []carillon.EventType{carillon.EventRetrying, carillon.EventSucceeded}, typesOf(byJob[twice]))
			assert.Equal(t, []carillon.EventType{carillon.EventFailed, carillon.EventRevived, carillon.EventFailed}, typesOf(byJob[fails]))
			assert.Equal(t, []carillon.EventType{carillon.EventCancelled}, typesOf(byJob[cancelled]))
			assert.Equal(t, []carillon.EventType{carillon.EventExpired}, typesOf(byJob[expired]))
			assert.Equal(t, []carillon.EventType{carillon.EventPaused, carillon.EventResumed}, typesOf(byJob[""]))
			assert.Len(t, byJob, 5)
			first := byJob[twice][0]
			assert.Equal(t, "twice", first.Name)
			assert.Equal(t, "default", first.Queue)
			assert.Equal(t, 1, first.Attempt)
			assert.Equal(t, "not yet", first.Error)
			assert.Equal(t, 2, byJob[twice][1].Attempt)
			assert.Equal(t, "q", byJob[""][0].Queue)
		})
	})

	t.Run("goes on after a cursor, with no gap and nothing twice", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"job": func(_ context.Context, x *carillon.Execution) error {
				if x.Failures == 0 {
					return carillon.RetryAfter(0, errors.New("again"))
				}
				return nil
			}})
			const jobs = 60
			first := listening(t, s, "", 1)
			var batch []carillon.Job
			for i := range jobs {
				batch = append(batch, carillon.Job{Name: "job", ID: fmt.Sprint("job-", i)})
			}
			_, err := s.SubmitMany(t.Context(), batch)
			require.NoError(t, err)
			all := heardBy(t, first)
			// Each subscription is left in the midst of things, also by another instance.
			others := []*carillon.Scheduler{s, p.new(t, nil)}
			for i, n := range []int{1, 2, 30, 40} {
				cursor := all[len(all)-1].Cursor
				got := heardBy(t, listening(t, others[i%2], cursor, n))
				require.Len(t, got, n)
				all = append(all, got...)
			}
			all = append(all, heardBy(t, listening(t, s, all[len(all)-1].Cursor, 2*jobs-len(all)))...)
			seen := make(map[string]carillon.EventType)
			for _, e := range all {
				switch e.Type {
				case carillon.EventRetrying:
					assert.Empty(t, seen[e.ID], "%s twice or late", e.ID)
				default:
					assert.Equal(t, carillon.EventSucceeded, e.Type)
					assert.Equal(t, carillon.EventRetrying, seen[e.ID], "%s twice or early", e.ID)
				}
				seen[e.ID] = e.Type
			}
			assert.Len(t, seen, jobs)
			for _, e := range heardBy(t, listening(t, s, all[jobs].Cursor, 2*jobs-jobs-1)) {
				delete(seen, e.ID)
			}
			for _, e := range all[:jobs+1] {
				if e.Type == carillon.EventSucceeded {
					assert.Contains(t, seen, e.ID, "an event before the cursor came again")
				}
			}
		})
	})

	t.Run("keeps the order of a job however far it is behind", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			s := p.run(t, handlers{"job": func(_ context.Context, x *carillon.Execution) error {
				if x.Failures == 0 {
					return carillon.RetryAfter(0, errors.New("again"))
				}
				return nil
			}}, func(c *carillon.Config) { c.Concurrency = 64 })
			const jobs = 700 // more than one read takes from a stream
			first := listening(t, s, "", 1)
			var batch []carillon.Job
			for i := range jobs {
				batch = append(batch, carillon.Job{Name: "job", ID: fmt.Sprint("job-", i)})
			}
			_, err := s.SubmitMany(t.Context(), batch)
			require.NoError(t, err)
			head := heardBy(t, first)
			eventually(t, "all are done", func() bool {
				n, err := s.Counts(t.Context())
				require.NoError(t, err)
				return n.Succeeded == jobs
			})
			rest := heardBy(t, listening(t, s, head[0].Cursor, 2*jobs-1))
			seen := map[string]bool{head[0].ID: true}
			for _, e := range rest {
				if e.Type == carillon.EventSucceeded {
					require.True(t, seen[e.ID], "%s succeeded before it was retried", e.ID)
				}
				seen[e.ID] = true
			}
			assert.Len(t, seen, jobs)
		})
	})

	t.Run("goes on when its connection breaks", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			s := p.new(t, nil)
			rdb, wire := wireTo(t, p.rdb)
			heard := listening(t, p.over(t, rdb, nil), "", 4)
			end := func() string {
				id := submit(t, s, carillon.Job{Name: "job", Delay: time.Hour})
				require.NoError(t, s.Cancel(t.Context(), id))
				return id
			}
			want := []string{end()}
			wire.Set(faultnet.Faults{Cut: true})
			want = append(want, end(), end())
			wire.Set(faultnet.Faults{})
			want = append(want, end())
			var got []string
			for _, e := range heardBy(t, heard) {
				got = append(got, e.ID)
			}
			assert.Equal(t, want, got)
		})
	})

	t.Run("ends with an error: of its context, of a cursor that is none", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.new(t, nil)
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(assert.AnError)
			n := 0
			for _, err := range s.Subscribe(ctx, "") {
				assert.ErrorIs(t, err, assert.AnError)
				n++
			}
			assert.Equal(t, 1, n)
			for _, cursor := range []string{"x", "0-0", "0-0.0-0.0-0", "!-!"} {
				n := 0
				for _, err := range s.Subscribe(t.Context(), cursor) {
					assert.ErrorIs(t, err, carillon.ErrInvalid, "%q", cursor)
					n++
				}
				assert.Equal(t, 1, n)
			}
		})
	})
}

package carillon_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/faultnet"
	"github.com/carillon-go/carillon/internal/redistest"
	"github.com/carillon-go/carillon/store"
)

// sender submits jobs to the own queues of instances.
type sender struct {
	*store.Store
	t testing.TB
}

func (p *place) sender(t testing.TB) *sender {
	t.Helper()
	s, err := store.New(redistest.Limited(t, p.rdb), store.Options{
		Namespace: p.namespace, Segments: p.segments,
		Retention: store.Retention{store.Cancelled: {Age: time.Hour, Count: 1000}},
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return &sender{s, t}
}

// send makes one shard of a broadcast for an instance, and returns its ID.
func (s *sender) send(instance string, edit ...func(*store.NewJob)) string {
	s.t.Helper()
	j := store.NewJob{Spec: &store.Spec{
		Name: "job", Args: []byte("null"), Queue: store.OwnQueue(instance), Priority: store.DefaultPriority,
		Shard: store.Shard{Index: 1, Total: 3, Param: "b"},
	}}
	for _, f := range edit {
		f(&j)
	}
	receipts, errs := s.Submit(s.t.Context(), []store.NewJob{j})
	require.NoError(s.t, errs[0])
	return receipts[0].ID
}

func inAnHour(j *store.NewJob) { j.Spec.Delay = time.Hour }

// crew starts n instances and returns them by their ID. What one of them runs is
// told to ran.
func crew(t testing.TB, p *place, n int, ran func(instance string, x *carillon.Execution) error, edit ...func(*carillon.Config)) map[string]*carillon.Scheduler {
	t.Helper()
	all := make(map[string]*carillon.Scheduler)
	for range n {
		id := ""
		s := p.run(t, handlers{"job": func(_ context.Context, x *carillon.Execution) error { return ran(id, x) }}, edit...)
		id = joined(t, s, all)
		all[id] = s
	}
	return all
}

// joined finds the one instance that is not among the known ones.
func joined[V any](t testing.TB, s *carillon.Scheduler, known map[string]V) string {
	t.Helper()
	instances, err := s.Instances(t.Context())
	require.NoError(t, err)
	var fresh []string
	for _, in := range instances {
		if _, ok := known[in.ID]; !ok {
			fresh = append(fresh, in.ID)
		}
	}
	require.Len(t, fresh, 1)
	return fresh[0]
}

// assertLeft checks that a job ended because its instance had gone.
func assertLeft(t testing.TB, s *carillon.Scheduler, id, instance string) {
	t.Helper()
	info := await(t, s, id)
	assert.Equal(t, carillon.StateCancelled, info.State)
	assert.Equal(t, "instance "+instance+" left before it ran this", info.Reason)
	assert.Equal(t, instance, info.Instance)
}

func TestOwnQueue(t *testing.T) {
	t.Run("each instance runs exactly what is for it", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			type run struct {
				instance string
				x        *carillon.Execution
			}
			runs := make(chan run, 100)
			all := crew(t, p, 3, func(instance string, x *carillon.Execution) error {
				runs <- run{instance, x}
				return nil
			})
			sender := p.sender(t)
			want := map[string]string{}
			for instance := range all {
				for i := range 4 {
					want[sender.send(instance, func(j *store.NewJob) {
						j.ID = fmt.Sprint(instance, "/", i) // which lives anywhere
					})] = instance
				}
				want[sender.send(instance)] = instance
			}
			for range len(want) {
				r := receive(t, runs, "a run")
				assert.Equal(t, want[r.x.ID], r.instance)
				assert.Equal(t, carillon.Shard{Index: 1, Total: 3, Param: "b"}, r.x.Shard)
				assert.Empty(t, r.x.Queue)
			}
			for id, instance := range want {
				info := await(t, all[instance], id)
				assert.Equal(t, carillon.StateSucceeded, info.State)
				assert.Equal(t, 1, info.Attempt)
				assert.Equal(t, carillon.Shard{Index: 1, Total: 3, Param: "b"}, info.Shard)
				assert.Equal(t, instance, info.Instance)
			}
			assert.Empty(t, runs)
			for _, s := range all {
				shutdown(t, s)
			}
			auditDrained(t, p.rdb, p.namespace)
		})
	})

	t.Run("what a lost instance did not run is cancelled", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			const ttl = 2 * time.Second
			rdb, wire := wireTo(t, p.rdb)
			g := newGate()
			doomed := p.run2(t, rdb, handlers{"job": g.run}, lease(ttl), concurrency(1))
			t.Cleanup(func() { heal(t, wire, doomed) })
			lost := joined(t, doomed, map[string]bool{})
			survivor := p.run(t, handlers{"job": succeed}, lease(ttl))
			sender := p.sender(t)
			running := sender.send(lost)
			g.next(t)
			queued := sender.send(lost)
			inState(t, survivor, queued, carillon.StateQueued)
			planned := sender.send(lost, inAnHour)
			seasoned(t, survivor, ttl)

			wire.Set(faultnet.Faults{Cut: true})
			for _, id := range []string{running, queued, planned} {
				assertLeft(t, survivor, id, lost)
			}
			assert.Equal(t, []carillon.Outcome{carillon.OutcomeLost}, outcomesOf(get(t, survivor, running)))
			late := sender.send(lost)
			assertLeft(t, survivor, late, lost)
			g.open()
			heal(t, wire, doomed)
			shutdown(t, doomed)
			shutdown(t, survivor)
			auditDrained(t, p.rdb, p.namespace)
		})
	})

	t.Run("what is left at a shutdown is cancelled, also by the last one", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			g := newGate()
			s := p.run(t, handlers{"job": g.run, "fails": later}, concurrency(1), func(c *carillon.Config) {
				c.ShutdownTimeout = 50 * time.Millisecond
			})
			id := joined(t, s, map[string]bool{})
			sender := p.sender(t)
			failed := sender.send(id, func(j *store.NewJob) { j.Spec.Name = "fails" })
			inState(t, s, failed, carillon.StateRetrying)
			running := sender.send(id)
			g.next(t)
			queued, planned := sender.send(id), sender.send(id, inAnHour)
			inState(t, s, queued, carillon.StateQueued)
			counts, err := s.Counts(t.Context())
			require.NoError(t, err)
			assert.Equal(t, 1, counts.Queued)
			assert.Equal(t, 1, counts.Running)
			assert.NotContains(t, counts.Queues, store.OwnQueue(id))
			assert.Equal(t, sorted(running, queued), listed(t, s, carillon.Filter{
				States: []carillon.State{carillon.StateRunning, carillon.StateQueued},
			}))
			shutdown(t, s)
			watcher := p.new(t, nil)
			for _, job := range []string{failed, running, queued, planned} {
				assertLeft(t, watcher, job, id)
			}
			auditDrained(t, p.rdb, p.namespace)
		})
	})

	t.Run("neither long jobs nor pauses of other queues hold it up", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			g := newGate()
			s := p.run(t, handlers{"long": g.run, "job": succeed}, concurrency(1))
			id := joined(t, s, map[string]bool{})
			submit(t, s, carillon.Job{Name: "long"})
			g.next(t)
			require.NoError(t, s.PauseQueue(t.Context(), "default"))
			assert.Equal(t, carillon.StateSucceeded, await(t, s, p.sender(t).send(id)).State)
			g.open()
		})
	})

	t.Run("a job without a handler there fails", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			s := p.run(t, nil)
			id := joined(t, s, map[string]bool{})
			info := await(t, s, p.sender(t).send(id))
			assert.Equal(t, carillon.StateFailed, info.State)
			assert.Contains(t, last(t, info).Error, "instance "+id+", which alone may run job, cannot")
		})
	})

	t.Run("jobs can be cancelled, and revived while the instance is there", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			g := newGate()
			s := p.run(t, handlers{"job": g.run}, concurrency(1))
			id := joined(t, s, map[string]bool{})
			sender := p.sender(t)
			running := sender.send(id)
			g.next(t)
			queued, planned := sender.send(id), sender.send(id, inAnHour)
			inState(t, s, queued, carillon.StateQueued)
			for _, job := range []string{queued, planned, running} {
				require.NoError(t, s.Cancel(t.Context(), job))
				assert.Equal(t, carillon.StateCancelled, await(t, s, job).State)
			}
			require.NoError(t, s.Retry(t.Context(), queued))
			assert.Equal(t, queued, g.next(t).ID)
			g.open()
			assert.Equal(t, carillon.StateSucceeded, await(t, s, queued).State)
			shutdown(t, s)
			watcher := p.run(t, nil)
			require.NoError(t, watcher.Retry(t.Context(), planned))
			assertLeft(t, watcher, planned, id)
			shutdown(t, watcher)
			auditDrained(t, p.rdb, p.namespace)
		})
	})
}

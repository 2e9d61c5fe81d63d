package carillon_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
)

func TestVersions(t *testing.T) {
	inTime(t, carillon.Config{Version: "v1"}, func(w *world) {
		ctx := w.t.Context()
		sched := func(n int) carillon.Schedule {
			return carillon.Schedule{
				Name: "s", Spec: carillon.Every(time.Duration(n) * time.Minute), Overlap: carillon.Skip,
				Job: carillon.Job{Args: n, Headers: map[string]string{"n": fmt.Sprint(n)}},
			}
		}
		w.begin(sched(1))
		w.Advance(time.Minute)
		two := sched(2)
		two.Job.Name, two.Group, two.TimeZone, two.Overlap = "tick", "g", "", carillon.Allow
		require.NoError(w.t, w.Scheduler.Schedule(carillon.WithActor(ctx, "ada"), two))
		require.NoError(w.t, w.Scheduler.Schedule(ctx, two), "the same is no new version")
		versions, err := w.Scheduler.Versions(ctx, "s")
		require.NoError(w.t, err)
		require.Len(w.t, versions, 2)
		for i, want := range []struct {
			actor string
			at    time.Duration
		}{{"v1", 0}, {"ada", time.Minute}} {
			v := versions[i]
			assert.EqualValues(w.t, i+1, v.Generation)
			assert.Equal(w.t, want.actor, v.Actor)
			assert.True(w.t, v.At.Equal(w.at(want.at)), "%v", v.At)
			assert.Empty(w.t, v.Problem)
			assert.Equal(w.t, carillon.Every(time.Duration(i+1)*time.Minute), v.Schedule.Spec)
		}
		assert.Equal(w.t, []string{
			`Group: none -> "g"`, "Job.args differ", "Job.headers.n differ", "Overlap: 1 -> none", "Spec.everyMs: 60000 -> 120000",
		}, versions[1].Diff(versions[0]))
		assert.Contains(w.t, versions[0].Diff(versions[1]), `Group: "g" -> none`)
		assert.Empty(w.t, versions[1].Diff(versions[1]))

		for n := 3; n <= 30; n++ {
			w.store(sched(n))
		}
		versions, err = w.Scheduler.Versions(ctx, "s")
		require.NoError(w.t, err)
		require.Len(w.t, versions, 20)
		for i, v := range versions {
			assert.EqualValues(w.t, 11+i, v.Generation)
			assert.Equal(w.t, carillon.Every(time.Duration(11+i)*time.Minute), v.Schedule.Spec)
		}
		_, err = w.Scheduler.Versions(ctx, "nobody")
		assert.NoError(w.t, err, "it has had none")
	})
}

func TestRollback(t *testing.T) {
	inTime(t, carillon.Config{}, func(w *world) {
		ctx := w.t.Context()
		w.begin(
			carillon.Schedule{Name: "s", Spec: carillon.Every(time.Minute), Job: carillon.Job{Args: time.Second}},
			carillon.Schedule{Name: "s", Spec: carillon.Every(10 * time.Minute), Job: carillon.Job{Args: time.Second}},
		)
		w.Advance(30 * time.Second)
		require.NoError(w.t, w.Scheduler.Rollback(carillon.WithActor(ctx, "ada"), "s", 1))
		info := w.info("s")
		assert.EqualValues(w.t, 3, info.Generation)
		assert.Equal(w.t, carillon.Every(time.Minute), info.Spec)
		assert.True(w.t, info.Next.Equal(w.at(90*time.Second)), "from now on")
		versions, err := w.Scheduler.Versions(ctx, "s")
		require.NoError(w.t, err)
		assert.Equal(w.t, "ada", versions[2].Actor)
		assert.Empty(w.t, versions[2].Diff(versions[0]))
		w.Advance(time.Minute)
		assert.Equal(w.t, seconds(90), w.ran())

		// What the code declares was before, so the decision stays, for a day and a restart.
		w.store(carillon.Schedule{Name: "s", Spec: carillon.Every(10 * time.Minute), Job: carillon.Job{Args: time.Second}})
		restarted := w.another(carillon.Config{})
		plan(w.t, restarted, carillon.Schedule{Name: "s", Spec: carillon.Every(10 * time.Minute), Job: carillon.Job{Args: time.Second}})
		w.Start(restarted)
		w.Advance(10 * time.Minute)
		assert.EqualValues(w.t, 3, w.info("s").Generation)
		// Something new is applied.
		w.store(carillon.Schedule{Name: "s", Spec: carillon.Every(7 * time.Minute)})
		assert.EqualValues(w.t, 4, w.info("s").Generation)
		assert.Equal(w.t, carillon.Every(7*time.Minute), w.info("s").Spec)

		assert.ErrorIs(w.t, w.Scheduler.Rollback(ctx, "s", 99), carillon.ErrNotFound)
		assert.ErrorIs(w.t, w.Scheduler.Rollback(ctx, "nobody", 1), carillon.ErrNotFound)
	})
}

// A rolling deployment: B supersedes A, and instances of both are there.
func TestRollingDeployment(t *testing.T) {
	inTime(t, carillon.Config{}, func(w *world) {
		var logs [3]logbook
		a := carillon.Schedule{Name: "s", Spec: carillon.Every(30 * 24 * time.Hour), Job: carillon.Job{Args: 0}}
		b, c := a, a
		b.Spec, c.Spec = carillon.Every(31*24*time.Hour), carillon.Every(32*24*time.Hour)
		instance := func(sched carillon.Schedule, log *logbook) *carillon.Scheduler {
			config := carillon.Config{}
			logTo(log)(&config)
			s := w.another(config)
			plan(w.t, s, sched)
			w.Start(s)
			return s
		}
		instance(a, &logs[0])
		b1 := instance(b, &logs[1])
		assert.EqualValues(w.t, 2, w.info("s").Generation)
		plan(w.t, b1, b)
		b2 := instance(b, &logs[1])

		again := instance(a, &logs[2]) // crashed, and restarted
		assert.EqualValues(w.t, 2, w.info("s").Generation)
		assert.Equal(w.t, b.Spec, w.info("s").Spec)
		assert.Equal(w.t, 1, logs[2].count("this program declares an earlier definition"))
		assert.Positive(w.t, logs[1].count("another program declares an earlier definition"))
		assert.Zero(w.t, logs[0].count("declares an earlier"), "it stands by nothing any more and has not asked")

		shutdown(w.t, b1)
		w.Advance(10 * time.Minute)
		assert.EqualValues(w.t, 2, w.info("s").Generation, "one still runs")
		shutdown(w.t, b2)
		w.Advance(time.Minute + 2*time.Second)
		assert.EqualValues(w.t, 3, w.info("s").Generation, "the deployment was taken back")
		assert.Equal(w.t, a.Spec, w.info("s").Spec)

		last := instance(c, &logs[1])
		assert.EqualValues(w.t, 4, w.info("s").Generation, "what is new is applied at once")
		w.Advance(10 * time.Minute)
		assert.Equal(w.t, c.Spec, w.info("s").Spec)
		shutdown(w.t, last)
		shutdown(w.t, again)
	})
}

func TestAnEditThatWasMeant(t *testing.T) {
	inTime(t, carillon.Config{}, func(w *world) {
		// Nobody stands by the edit of a tool, and nobody runs the present one.
		w.Start()
		tool := w.Instance(carillon.Config{})
		one := carillon.Schedule{Name: "s", Spec: carillon.Every(time.Hour)}
		two := carillon.Schedule{Name: "s", Spec: carillon.Every(2 * time.Hour)}
		for n, sched := range []carillon.Schedule{one, two, one, two} {
			plan(w.t, tool, sched)
			assert.EqualValues(w.t, n+1, w.info("s").Generation)
		}
		// Unscheduled, it is stored as if it had never been.
		w.store(one)
		w.store(two)
		before := w.info("s").Generation
		require.NoError(w.t, w.Scheduler.Unschedule(w.t.Context(), "s"))
		w.store(one)
		assert.Greater(w.t, w.info("s").Generation, before)
		assert.Equal(w.t, one.Spec, w.info("s").Spec)
	})
}

func TestConcurrentEdits(t *testing.T) {
	eachPlace(t, func(t *testing.T, p *place) {
		var c ticks
		const writers, edits = 4, 5
		all := make([]*carillon.Scheduler, writers)
		for i := range all {
			all[i] = p.run(t, c.handlers())
		}
		var wg sync.WaitGroup
		for i, s := range all {
			wg.Go(func() {
				for n := range edits {
					err := s.Schedule(t.Context(), carillon.Schedule{
						Name: "s", Spec: carillon.Every(100 * time.Millisecond), Job: carillon.Job{Name: "tick", Args: fmt.Sprint(i, "-", n)},
					})
					assert.NoError(t, err)
				}
			})
		}
		wg.Wait()
		info := planned(t, all[0], "s")
		assert.EqualValues(t, writers*edits, info.Generation, "none was lost")
		versions, err := all[0].Versions(t.Context(), "s")
		require.NoError(t, err)
		require.Len(t, versions, 20)
		seen := map[string]bool{}
		for i, v := range versions {
			assert.EqualValues(t, i+1, v.Generation)
			seen[fmt.Sprintf("%s", v.Schedule.Job.Args)] = true
		}
		assert.Len(t, seen, 20)
		assert.Equal(t, versions[19].Schedule.Job.Args, info.Job.Args, "the newest is in force")

		// Once an edit is acknowledged, older generations fire no more.
		const last = "the last"
		plan(t, all[1], carillon.Schedule{Name: "s", Spec: carillon.Every(100 * time.Millisecond), Job: carillon.Job{Args: last}})
		stored := p.redisNow(t)
		eventually(t, "the last fires", func() bool {
			n := 0
			for _, x := range c.of("s") {
				if string(x.Args) == `"`+last+`"` {
					n++
				}
			}
			return n >= 3
		})
		for _, x := range c.of("s") {
			if string(x.Args) != `"`+last+`"` {
				submitted := get(t, all[0], x.ID).SubmittedAt
				assert.False(t, submitted.After(stored), "%s of an older generation was submitted %v after the edit", x.ID, submitted.Sub(stored))
			}
		}
		require.NoError(t, all[0].Unschedule(t.Context(), "s"))
	})
}

func TestUnscheduledAndStoredAgain(t *testing.T) {
	inTime(t, carillon.Config{}, func(w *world) {
		ctx := w.t.Context()
		var ids []string
		w.Start()
		for range 3 {
			w.store(carillon.Schedule{Name: "s", Spec: carillon.Cron("* * * * *")})
			r, err := w.Scheduler.Trigger(ctx, "s", nil)
			require.NoError(w.t, err)
			ids = append(ids, r.ID)
			require.NoError(w.t, w.Scheduler.Unschedule(ctx, "s"))
		}
		w.store(carillon.Schedule{Name: "s", Spec: carillon.Cron("* * * * *")})
		assert.EqualValues(w.t, 4, w.info("s").Generation)
		w.Advance(time.Minute)
		for _, r := range w.Runs("tick") {
			ids = append(ids, r.ID)
		}
		slices.Sort(ids)
		assert.Len(w.t, slices.Compact(ids), 4)
		assert.NotEmpty(w.t, w.lines("s"))
		require.NoError(w.t, w.Scheduler.Unschedule(ctx, "s"))
		assert.NotEmpty(w.t, w.lines("s"), "the ledger outlives it")
		assert.Contains(w.t, w.explain("s", w.lines("s")[0].Tick.Sub(w.began)), "It was")
		versions, err := w.Scheduler.Versions(ctx, "s")
		require.NoError(w.t, err)
		assert.Len(w.t, versions, 4, "as do the versions")
		assert.Contains(w.t, w.explain("s", time.Hour), "There is no schedule s")
	})
}

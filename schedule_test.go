package carillon_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/embedded"
)

// ticks collects the executions of scheduled jobs.
type ticks struct {
	mu  sync.Mutex
	all []carillon.Execution
}

func (c *ticks) handle(_ context.Context, x *carillon.Execution) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, carillon.Execution{
		ID: x.ID, Schedule: x.Schedule, Tick: x.Tick, Args: x.Args, MutexToken: x.MutexToken,
		Failures: x.Failures, Losses: x.Losses,
	})
	return nil
}

func (c *ticks) handlers() handlers { return handlers{"tick": c.handle} }

// of lists the executions of a schedule by tick.
func (c *ticks) of(schedule string) []carillon.Execution {
	c.mu.Lock()
	defer c.mu.Unlock()
	var got []carillon.Execution
	for _, x := range c.all {
		if x.Schedule == schedule {
			got = append(got, x)
		}
	}
	slices.SortFunc(got, func(a, b carillon.Execution) int { return a.Tick.Compare(b.Tick) })
	return got
}

func (c *ticks) wait(t testing.TB, schedule string, n int) []carillon.Execution {
	t.Helper()
	eventually(t, "the schedule fires", func() bool { return len(c.of(schedule)) >= n })
	return c.of(schedule)
}

func plan(t testing.TB, s *carillon.Scheduler, sched carillon.Schedule) {
	t.Helper()
	sched.Job.Name = "tick"
	require.NoError(t, s.Schedule(t.Context(), sched))
}

func planned(t testing.TB, s *carillon.Scheduler, name string) *carillon.ScheduleInfo {
	t.Helper()
	info, err := s.GetSchedule(t.Context(), name)
	require.NoError(t, err)
	return info
}

// assertRhythm checks that ticks follow each other at an interval and none is
// there twice. On a busy machine some may be missed; TestEveryTick looks at that.
func assertRhythm(t testing.TB, got []carillon.Execution, interval time.Duration) {
	t.Helper()
	for i, x := range got {
		assert.Zero(t, x.Failures+x.Losses) // what an instance gave back when it stopped has another attempt
		if i > 0 {
			gap := x.Tick.Sub(got[i-1].Tick)
			assert.Positive(t, gap, "ticks %d and %d", i-1, i)
			assert.Zero(t, gap%interval, "ticks %d and %d", i-1, i)
			assert.NotEqual(t, got[i-1].ID, x.ID)
		}
	}
}

func TestEvery(t *testing.T) {
	t.Run("creates one job a tick, whatever the number of instances", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			const every = 150 * time.Millisecond
			var c ticks
			var all []*carillon.Scheduler
			for range 3 {
				all = append(all, p.run(t, c.handlers()))
			}
			before := time.Now()
			var wg sync.WaitGroup
			for _, s := range all { // as services do at their start
				wg.Go(func() {
					for range 3 {
						plan(t, s, carillon.Schedule{Name: "beat", Spec: carillon.Every(every), Job: carillon.Job{Args: "hello"}})
					}
				})
			}
			wg.Wait()
			c.wait(t, "beat", 5)
			require.NoError(t, all[1].Unschedule(t.Context(), "beat"))
			for _, s := range all {
				shutdown(t, s) // drains
			}
			got := c.of("beat")
			assertRhythm(t, got, every)
			assert.False(t, got[0].Tick.Before(before.Add(every-2*time.Millisecond)), "the first tick comes after one interval")
			for _, x := range got {
				info := get(t, p.new(t, nil), x.ID)
				assert.Equal(t, "beat", info.Schedule)
				assert.True(t, x.Tick.Equal(info.Tick))
				assert.False(t, info.SubmittedAt.Before(info.Tick), "early")
				assert.JSONEq(t, `"hello"`, string(x.Args))
			}
			auditDrained(t, p.rdb, p.namespace)
		})
	})
}

func TestEveryTick(t *testing.T) {
	t.Run("has its job and none has two, on time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			rdb, stop := embedded.Open()
			t.Cleanup(stop)
			p := &place{rdb: rdb, namespace: "virtual", segments: 2}
			var c ticks
			specs := map[string]carillon.Spec{
				"every second": carillon.Every(time.Second),
				"cron":         carillon.Cron("*/5 * * * * *"),
				"relayed":      carillon.Every(time.Second),
			}
			var all []*carillon.Scheduler
			for range 3 {
				s := p.run(t, c.handlers(), lease(10*time.Second))
				all = append(all, s)
				for name, spec := range specs {
					sched := carillon.Schedule{Name: name, Spec: spec}
					if name == "relayed" {
						sched.Job.Mutex = "m"
					}
					plan(t, s, sched)
				}
			}
			began := time.Now()
			time.Sleep(30*time.Second + 500*time.Millisecond)
			shutdown(t, all[0]) // the others take over
			time.Sleep(30 * time.Second)
			for name, interval := range map[string]time.Duration{"every second": time.Second, "cron": 5 * time.Second, "relayed": time.Second} {
				got := c.of(name)
				assert.Len(t, got, int(time.Minute/interval), name)
				for i, x := range got {
					if i > 0 {
						assert.Equal(t, interval, x.Tick.Sub(got[i-1].Tick), name)
					}
					info := get(t, all[1], x.ID)
					assert.Less(t, info.SubmittedAt.Sub(x.Tick), 20*time.Millisecond, "%s %v after the start", name, x.Tick.Sub(began))
				}
			}
		})
	})
}

func TestCron(t *testing.T) {
	t.Run("fires at its seconds", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			var c ticks
			s := p.run(t, c.handlers())
			plan(t, s, carillon.Schedule{Name: "each second", Spec: carillon.Cron("* * * * * *")})
			got := c.wait(t, "each second", 2)
			assertRhythm(t, got, time.Second)
			for _, x := range got {
				assert.Zero(t, x.Tick.Nanosecond())
			}
		})
	})

	t.Run("is read in its time zone", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.new(t, nil)
			plan(t, s, carillon.Schedule{Name: "utc", Spec: carillon.Cron("30 3 * * *")})
			plan(t, s, carillon.Schedule{Name: "shanghai", Spec: carillon.Cron("30 3 * * *"), TimeZone: "Asia/Shanghai"})
			utc, shanghai := planned(t, s, "utc"), planned(t, s, "shanghai")
			assert.Equal(t, "03:30", utc.Next.UTC().Format("15:04"))
			assert.Equal(t, "19:30", shanghai.Next.UTC().Format("15:04"), "Shanghai is 8 hours ahead")
			assert.Equal(t, "Asia/Shanghai", shanghai.TimeZone)
			for _, info := range []*carillon.ScheduleInfo{utc, shanghai} {
				assert.True(t, info.Next.After(time.Now()))
				assert.True(t, info.Next.Before(time.Now().Add(25*time.Hour)))
			}
		})
	})
}

func TestAt(t *testing.T) {
	t.Run("fires at each instant once and then never again", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			var c ticks
			s := p.run(t, c.handlers())
			now := time.Now().Truncate(time.Millisecond)
			first, second := now.Add(2*time.Second), now.Add(2150*time.Millisecond)
			sched := carillon.Schedule{Name: "twice", Spec: carillon.At(second, now.Add(-time.Hour), first)}
			plan(t, s, sched)
			assert.True(t, first.Equal(planned(t, s, "twice").Next))
			got := c.wait(t, "twice", 2)
			require.Len(t, got, 2)
			assert.True(t, first.Equal(got[0].Tick))
			assert.True(t, second.Equal(got[1].Tick))
			info := planned(t, s, "twice")
			assert.Zero(t, info.Next)
			assert.True(t, second.Equal(info.Last))
			all, err := s.Schedules(t.Context())
			require.NoError(t, err)
			require.Len(t, all, 1, "it is listed, though it has ended")

			plan(t, s, sched) // an instance that starts late
			assert.Zero(t, planned(t, s, "twice").Next)
			assert.EqualValues(t, 1, planned(t, s, "twice").Generation)
			sched.Name, sched.Job.Name = "never", "tick"
			assert.ErrorIs(t, s.Schedule(t.Context(), sched), carillon.ErrInvalid, "it would never fire")
		})
	})
}

func TestScheduleIsStored(t *testing.T) {
	full := carillon.Schedule{
		Name: "full", Spec: carillon.Every(time.Hour),
		Job: carillon.Job{
			Name: "tick", Args: map[string]any{"a": 1}, Queue: "q", Priority: carillon.High, Timeout: time.Minute,
			Retry: &carillon.Retry{MaxAttempts: 3, Initial: time.Second}, Tags: []string{"x", "y"},
			Headers: map[string]string{"b": "2", "a": "1", "c": "3"}, Delay: time.Second,
		},
	}

	t.Run("by every instance, without moving its plan", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			plan(t, p.new(t, nil), full)
			before := planned(t, p.new(t, nil), "full")
			for range 3 {
				s := p.new(t, nil)
				plan(t, s, full)
				assert.Equal(t, before, planned(t, s, "full"))
			}
			assert.EqualValues(t, 1, before.Generation)
			assert.WithinDuration(t, time.Now().Add(time.Hour), before.Next, soon)
			assert.Zero(t, before.Last)
			assert.Empty(t, before.Problem)
			assert.Equal(t, full.Spec, before.Spec)
			assert.Equal(t, full.Job.Headers, before.Job.Headers)
			assert.Equal(t, full.Job.Retry, before.Job.Retry)
			assert.Equal(t, full.Job.Priority, before.Job.Priority)
		})
	})

	t.Run("anew as another generation, from now on", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			var c ticks
			s := p.run(t, c.handlers())
			plan(t, s, carillon.Schedule{Name: "s", Spec: carillon.Every(time.Hour)})
			plan(t, s, carillon.Schedule{Name: "s", Spec: carillon.Every(100 * time.Millisecond), Job: carillon.Job{Args: 2}})
			assert.EqualValues(t, 2, planned(t, s, "s").Generation)
			for _, x := range c.wait(t, "s", 2) {
				assert.JSONEq(t, "2", string(x.Args))
			}
			plan(t, s, carillon.Schedule{Name: "s", Spec: carillon.Every(time.Hour)})
			info := planned(t, s, "s")
			assert.EqualValues(t, 3, info.Generation)
			assert.WithinDuration(t, time.Now().Add(time.Hour), info.Next, soon)
		})
	})

	t.Run("until it is unscheduled", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.new(t, nil)
			for _, name := range []string{"a", "b", "c"} {
				plan(t, s, carillon.Schedule{Name: name, Spec: carillon.Every(time.Hour)})
			}
			require.NoError(t, s.Unschedule(t.Context(), "b"))
			assert.ErrorIs(t, s.Unschedule(t.Context(), "b"), carillon.ErrNotFound)
			_, err := s.GetSchedule(t.Context(), "b")
			assert.ErrorIs(t, err, carillon.ErrNotFound)
			all, err := s.Schedules(t.Context())
			require.NoError(t, err)
			var names []string
			for _, info := range all {
				names = append(names, info.Name)
			}
			assert.ElementsMatch(t, []string{"a", "c"}, names)
		})
	})

	t.Run("and goes on after a restart; of the ticks that were missed one fires", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			const every = 100 * time.Millisecond
			sched := carillon.Schedule{Name: "s", Spec: carillon.Every(every), MisfireAfter: every / 2}
			producer := p.new(t, nil)
			plan(t, producer, sched)
			first := planned(t, producer, "s").Next
			eventually(t, "three ticks are missed", func() bool { return time.Since(first) > 3*every })
			var c ticks
			s := p.new(t, c.handlers())
			plan(t, s, sched)
			started := time.Now()
			start(t, s)
			got := c.wait(t, "s", 3)
			assert.True(t, first.Equal(got[0].Tick), "the earliest that was missed")
			assert.True(t, got[1].Tick.After(started.Add(-every/2)), "and then none of those that were missed, too")
			assert.Zero(t, got[1].Tick.Sub(first)%every, "in the same rhythm")
			assertRhythm(t, got[1:], every)
			last := got[len(got)-1].Tick
			shutdown(t, s)

			again := p.run(t, c.handlers())
			eventually(t, "it goes on", func() bool { g := c.of("s"); return g[len(g)-1].Tick.After(last.Add(every)) })
			assert.EqualValues(t, 1, planned(t, again, "s").Generation)
			seen := make(map[int64]bool)
			for _, x := range c.of("s") {
				assert.False(t, seen[x.Tick.UnixMilli()], "a tick fired twice")
				seen[x.Tick.UnixMilli()] = true
				assert.Zero(t, x.Tick.Sub(first)%every)
			}
		})
	})
}

func TestScheduleOfAnotherSegment(t *testing.T) {
	t.Run("passes its jobs on, each exactly once", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			const every, runs = 200 * time.Millisecond, 3 // no more, or they queue up at the mutex of a busy machine
			var c ticks
			all := []*carillon.Scheduler{p.run(t, c.handlers()), p.run(t, c.handlers()), p.run(t, c.handlers())}
			names := []string{"a", "b", "c", "d"} // with 16 segments hardly any is in that of the mutex
			for _, name := range names {
				plan(t, all[0], carillon.Schedule{Name: name, Spec: carillon.Every(every), MaxRuns: runs, Job: carillon.Job{Mutex: "shared"}})
				plan(t, all[0], carillon.Schedule{Name: name + "u", Spec: carillon.Every(every), MaxRuns: 2 * runs, Job: carillon.Job{
					Mutex: "shared", Unique: carillon.Unique{Key: name},
				}})
			}
			for _, name := range names {
				assert.Len(t, c.wait(t, name, runs), runs)
				c.wait(t, name+"u", 1) // those that find the key held have no job
			}
			for _, name := range names {
				require.NoError(t, all[0].Unschedule(t.Context(), name))
				require.NoError(t, all[0].Unschedule(t.Context(), name+"u"))
			}
			eventually(t, "no job is left", func() bool {
				if slices.ContainsFunc(keysOf(t, p.rdb, p.namespace), func(key string) bool { return strings.HasSuffix(key, "}:relay") }) {
					return false // some are on their way
				}
				n, err := all[0].Counts(t.Context())
				require.NoError(t, err)
				return n.Scheduled+n.Waiting+n.Queued+n.Running == 0
			})
			for _, s := range all {
				shutdown(t, s)
			}
			for _, name := range names {
				got := c.of(name)
				assertRhythm(t, got, every)
				for _, x := range got {
					assert.NotZero(t, x.MutexToken)
					assert.Equal(t, carillon.StateSucceeded, get(t, p.new(t, nil), x.ID).State)
				}
			}
			auditDrained(t, p.rdb, p.namespace)
		})
	})
}

func TestBrokenSchedule(t *testing.T) {
	// Each case breaks a stored schedule that is about to fire.
	cases := map[string]func(t *testing.T, p *place, key string) error{
		"another type": func(t *testing.T, p *place, key string) error {
			require.NoError(t, p.rdb.Del(t.Context(), key).Err())
			return p.rdb.Set(t.Context(), key, "foreign", 0).Err()
		},
		"no JSON": func(t *testing.T, p *place, key string) error {
			return p.rdb.HSet(t.Context(), key, "d", `{"v":1,"cron":`).Err()
		},
		"a spec that cannot be parsed": func(t *testing.T, p *place, key string) error {
			return p.rdb.HSet(t.Context(), key, "d", `{"v":1,"cron":"TZ=UTC","job":{"name":"tick"}}`).Err()
		},
		"a job without a name": func(t *testing.T, p *place, key string) error {
			return p.rdb.HSet(t.Context(), key, "d", `{"v":1,"everyMs":100,"job":{}}`).Err()
		},
		"no next tick": func(t *testing.T, p *place, key string) error {
			return p.rdb.HDel(t.Context(), key, "n").Err()
		},
		"no record": func(t *testing.T, p *place, key string) error {
			return p.rdb.Del(t.Context(), key).Err()
		},
	}
	t.Run("is parked, stops no other, and can be stored again", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			const every = 200 * time.Millisecond
			var c ticks
			var log logbook
			producer := p.new(t, nil)
			for name, destroy := range cases {
				plan(t, producer, carillon.Schedule{Name: name, Spec: carillon.Every(every)})
				require.NoError(t, destroy(t, p, keyLike(t, p.rdb, p.namespace, "}:s:"+strings.ReplaceAll(name, " ", "%20"))))
			}
			// Several of them, so that some share a segment with a broken one.
			names := []string{"v", "w", "x", "y", "z"}
			for _, name := range names {
				plan(t, producer, carillon.Schedule{Name: name, Spec: carillon.Every(every)})
			}
			all, err := producer.Schedules(t.Context())
			assert.NoError(t, err, "they hide the others")
			assert.GreaterOrEqual(t, len(all), len(names))

			s := p.run(t, c.handlers(), logTo(&log))
			for _, name := range names {
				assertRhythm(t, c.wait(t, name, 2), every)
			}
			eventually(t, "they are parked", func() bool {
				all, err := s.Schedules(t.Context())
				require.NoError(t, err)
				all = slices.DeleteFunc(all, func(i *carillon.ScheduleInfo) bool { return i.Problem == "" })
				return len(all) == len(cases)-1 // and shown, but the one that is lost
			})
			said := func() int { return log.count("a schedule cannot be used") }
			eventually(t, "each is said", func() bool { return said() >= len(cases) })
			assert.Equal(t, len(cases), said(), "once")
			for name := range cases {
				assert.Empty(t, c.of(name))
				if info, err := s.GetSchedule(t.Context(), name); err == nil {
					assert.NotEmpty(t, info.Problem, name)
				}
				_ = s.Unschedule(t.Context(), name) // a foreign key has to go first
				plan(t, s, carillon.Schedule{Name: name, Spec: carillon.Every(every)})
				assert.Empty(t, planned(t, s, name).Problem)
			}
			for name := range cases {
				c.wait(t, name, 1)
			}
		})
	})

	t.Run("is mended by storing it again", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			var c ticks
			sched := carillon.Schedule{Name: "broken", Spec: carillon.Every(100 * time.Millisecond)}
			s := p.run(t, c.handlers())
			for _, field := range []string{"d", "n"} {
				plan(t, s, sched)
				require.NoError(t, p.rdb.HSet(t.Context(), keyLike(t, p.rdb, p.namespace, "s:broken"), field, "").Err())
				eventually(t, "it is parked", func() bool { return planned(t, s, "broken").Problem != "" })
				n := len(c.of("broken"))
				plan(t, s, sched)
				assert.Empty(t, planned(t, s, "broken").Problem)
				c.wait(t, "broken", n+1)
			}
		})
	})

	t.Run("of a newer release is left to that", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			var c ticks
			producer := p.new(t, nil)
			plan(t, producer, carillon.Schedule{Name: "newer", Spec: carillon.Every(100 * time.Millisecond)})
			key := keyLike(t, p.rdb, p.namespace, "s:newer")
			definition := p.rdb.HGet(t.Context(), key, "d").Val()
			require.Contains(t, definition, `"v":2`)
			require.NoError(t, p.rdb.HSet(t.Context(), key, "d", strings.Replace(definition, `"v":2`, `"v":99`, 1)).Err())
			plan(t, producer, carillon.Schedule{Name: "older", Spec: carillon.Every(100 * time.Millisecond)})
			s := p.run(t, c.handlers())
			c.wait(t, "older", 3)
			assert.Empty(t, c.of("newer"))
			assert.NotEmpty(t, planned(t, s, "newer").Problem)
			require.NoError(t, p.rdb.HSet(t.Context(), key, "d", definition).Err()) // by the newer release
			c.wait(t, "newer", 1)
		})
	})

	t.Run("whose job cannot be created waits until it can", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			var c ticks
			var log logbook
			s := p.run(t, c.handlers(), logTo(&log))
			sched := carillon.Schedule{
				Name: "blocked", Spec: carillon.Every(100 * time.Millisecond),
				Job: carillon.Job{Unique: carillon.Unique{Key: "key"}},
			}
			plan(t, s, sched)
			c.wait(t, "blocked", 1)
			key := strings.Replace(keyLike(t, p.rdb, p.namespace, "s:blocked"), "s:blocked", "u:key", 1)
			eventually(t, "the key is foreign", func() bool {
				// A job may hold it at the moment.
				return p.rdb.Exists(t.Context(), key).Val() == 0 && p.rdb.RPush(t.Context(), key, "foreign").Err() == nil
			})
			plan(t, s, carillon.Schedule{Name: "other", Spec: carillon.Every(100 * time.Millisecond)})
			c.wait(t, "other", 4)
			eventually(t, "it is said", func() bool { return log.count("could not be created") > 0 })
			assert.Equal(t, 1, log.count("could not be created"), "once")
			n := len(c.of("blocked"))
			require.NoError(t, p.rdb.Del(t.Context(), key).Err())
			c.wait(t, "blocked", n+2)
			assert.EqualValues(t, 1, planned(t, s, "blocked").Generation)
		})
	})
}

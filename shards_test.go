package carillon_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/faultnet"
)

// herd is a handler of shards that notes who ran what.
type herd struct {
	mu   sync.Mutex
	seen map[time.Time]map[int][]string // by tick and shard: instances
	fail func(x *carillon.Execution) error
}

func (h *herd) on(instance string) carillon.HandlerFunc {
	return func(_ context.Context, x *carillon.Execution) error {
		h.mu.Lock()
		if h.seen == nil {
			h.seen = map[time.Time]map[int][]string{}
		}
		of := h.seen[x.Tick]
		if of == nil {
			of = map[int][]string{}
			h.seen[x.Tick] = of
		}
		of[x.Shard.Index] = append(of[x.Shard.Index], instance)
		h.mu.Unlock()
		if h.fail != nil {
			if err := h.fail(x); err != nil {
				return err
			}
		}
		return x.SetResult(fmt.Sprintf("%d of %d is %s", x.Shard.Index, x.Shard.Total, x.Shard.Param))
	}
}

func (h *herd) ticks() map[time.Time]map[int][]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[time.Time]map[int][]string{}
	for tick, of := range h.seen {
		out[tick] = map[int][]string{}
		for i, by := range of {
			out[tick][i] = slices.Clone(by)
		}
	}
	return out
}

// sums is a handler of Sharding.Then that notes the shards.
type sums struct {
	mu  sync.Mutex
	all map[time.Time][][]*carillon.JobInfo
}

func (s *sums) run(ctx context.Context, x *carillon.Execution) error {
	shards, err := x.Shards(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[time.Time][][]*carillon.JobInfo{}
	}
	s.all[x.Tick] = append(s.all[x.Tick], shards)
	return nil
}

func (s *sums) ticks() map[time.Time][][]*carillon.JobInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.all)
}

func TestShards(t *testing.T) {
	eachPlace(t, func(t *testing.T, p *place) {
		h, then := &herd{}, &sums{}
		var failed sync.Map
		h.fail = func(x *carillon.Execution) error {
			switch x.Shard.Index {
			case 1: // fails for good
				return errBoom
			case 2: // once
				if _, again := failed.LoadOrStore(x.ID, true); !again {
					return errBoom
				}
			}
			return nil
		}
		var all []*carillon.Scheduler
		for i := range 3 {
			all = append(all, p.run(t, handlers{"tick": h.on(fmt.Sprint(i)), "then": then.run}, concurrency(2)))
		}
		params := []string{"eu", "us", "asia", "antarctica"}
		plan(t, all[0], carillon.Schedule{
			Name: "s", Spec: carillon.Every(300 * time.Millisecond), Overlap: carillon.Skip,
			Job:      carillon.Job{Retry: &carillon.Retry{MaxAttempts: 2, Delays: []time.Duration{time.Millisecond}}},
			Sharding: carillon.Sharding{Params: params, Then: &carillon.Job{Name: "then"}},
		})
		eventually(t, "three runs are summed up", func() bool { return len(then.ticks()) >= 3 })
		require.NoError(t, all[0].PauseSchedule(t.Context(), "s", ""))
		eventually(t, "no run is left", func() bool { return len(h.ticks()) == len(then.ticks()) })
		summed := then.ticks()
		ran := h.ticks() // later, for a run that begins meanwhile
		for tick, sum := range summed {
			require.Len(t, sum, 1, "once")
			require.Len(t, sum[0], len(params))
			for i, job := range sum[0] {
				require.NotNil(t, job)
				attempts := []int{1, 2, 2, 1}[i]
				assert.Len(t, ran[tick][i], attempts, "only what failed is tried again")
				if i == 1 {
					assert.Equal(t, carillon.StateFailed, job.State)
					continue
				}
				assert.Equal(t, carillon.StateSucceeded, job.State)
				assert.JSONEq(t, fmt.Sprintf(`"%d of 4 is %s"`, i, params[i]), string(job.Result))
				assert.Equal(t, carillon.Shard{Index: i, Total: 4, Param: params[i]}, job.Shard)
			}
		}
		lines, err := all[0].Ledger(t.Context(), "s", time.Time{}, time.Time{})
		require.NoError(t, err)
		for _, l := range lines {
			if l.Outcome == carillon.TickFired {
				assert.True(t, get(t, all[0], l.JobID).Tick.Equal(l.Tick), "the ledger has the first shard")
			}
		}
	})
}

func TestShardsSpread(t *testing.T) {
	inTime(t, carillon.Config{Concurrency: 2}, func(w *world) {
		var h herd
		var all []*carillon.Scheduler
		for i := range 3 {
			s := w.Instance(carillon.Config{Concurrency: 2})
			require.NoError(w.t, s.Handle("shard", carillon.HandlerFunc(func(ctx context.Context, x *carillon.Execution) error {
				_ = h.on(fmt.Sprint(i))(ctx, x)
				<-time.After(10 * time.Second)
				return ctx.Err()
			})))
			all = append(all, s)
		}
		w.Start(all...)
		w.began = time.Now()
		require.NoError(w.t, w.Scheduler.Schedule(w.t.Context(), carillon.Schedule{
			Name: "s", Spec: carillon.Every(time.Minute), Job: carillon.Job{Name: "shard"}, Sharding: carillon.Sharding{Shards: 6},
		}))
		w.Advance(time.Minute + time.Second)
		got := h.ticks()[w.at(time.Minute)]
		load := map[string]int{}
		for i := range 6 {
			require.Len(w.t, got[i], 1)
			load[got[i][0]]++
		}
		assert.Equal(w.t, map[string]int{"0": 2, "1": 2, "2": 2}, load, "any instance with a free place takes one")
	})
}

func TestShardsOfALostInstanceMove(t *testing.T) {
	realPlaces(t, func(t *testing.T, p *place) {
		h, then := &herd{}, &sums{}
		// The first instance takes shards, and then is cut off from Redis.
		rdb, wire := wireTo(t, p.rdb)
		stuck := make(chan struct{}, 10)
		lost := p.over(t, rdb, nil, lease(2*time.Second), concurrency(2))
		require.NoError(t, lost.Handle("tick", carillon.HandlerFunc(func(ctx context.Context, _ *carillon.Execution) error {
			stuck <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		})))
		start(t, lost)
		plan(t, lost, carillon.Schedule{
			Name: "s", Spec: carillon.Every(time.Hour), Sharding: carillon.Sharding{Shards: 4, Then: &carillon.Job{Name: "then"}},
		})
		_, err := lost.Trigger(t.Context(), "s", nil)
		require.NoError(t, err)
		for range 2 {
			receive(t, stuck, "it has two shards")
		}
		wire.Set(faultnet.Faults{Cut: true})
		p.run(t, handlers{"tick": h.on("other"), "then": then.run}, lease(2*time.Second))
		eventually(t, "the other has summed up", func() bool { return len(then.ticks()) == 1 })
		for _, of := range h.ticks() {
			assert.Len(t, of, 4)
			for i := range 4 {
				assert.Equal(t, []string{"other"}, of[i])
			}
		}
		heal(t, wire, lost)
	})
}

func TestThenWithEncryption(t *testing.T) {
	fastPlaces(t, func(t *testing.T, p *place) {
		keys := func(c *carillon.Config) {
			c.Encryption = carillon.Encryption{Keys: map[string][]byte{"k": bytes.Repeat([]byte{7}, 32)}, Current: "k"}
		}
		h, then := &herd{}, &sums{}
		args := make(chan json.RawMessage, 10)
		s := p.run(t, handlers{"tick": h.on("0"), "then": func(ctx context.Context, x *carillon.Execution) error {
			args <- x.Args
			return then.run(ctx, x)
		}}, keys)
		plan(t, s, carillon.Schedule{
			Name: "s", Spec: carillon.Every(time.Hour), Job: carillon.Job{Args: "hush-job"},
			Sharding: carillon.Sharding{Params: []string{"eu", "us"}, Then: &carillon.Job{Name: "then", Args: "hush-then", Headers: map[string]string{"h": "hush-header"}}},
		})
		info := planned(t, s, "s")
		assert.JSONEq(t, `"hush-then"`, fmt.Sprintf("%s", info.Sharding.Then.Args))
		assert.Equal(t, "hush-header", info.Sharding.Then.Headers["h"])
		_, err := s.Trigger(t.Context(), "s", nil)
		require.NoError(t, err)
		assert.JSONEq(t, `"hush-then"`, string(receive(t, args, "Then runs")))
		eventually(t, "it is summed up", func() bool { return len(then.ticks()) == 1 })
		for _, sum := range then.ticks() {
			assert.JSONEq(t, `"1 of 2 is us"`, string(sum[0][1].Result))
		}
		for _, key := range keysOf(t, p.rdb, p.namespace) {
			if p.rdb.Type(t.Context(), key).Val() == "hash" {
				assert.NotContains(t, strings.Join(p.rdb.HVals(t.Context(), key).Val(), " "), "hush", key)
			}
		}
		stranger := p.new(t, nil)
		assert.NotEmpty(t, planned(t, stranger, "s").Problem)
	})
}

func TestThenWithoutShards(t *testing.T) {
	inTime(t, carillon.Config{}, func(w *world) {
		var asked atomic.Int32
		require.NoError(w.t, w.Scheduler.Handle("then", carillon.HandlerFunc(func(ctx context.Context, x *carillon.Execution) error {
			shards, err := x.Shards(ctx)
			if err != nil || len(shards) != 1 || shards[0].State != carillon.StateFailed {
				return errors.New("not the job it follows")
			}
			<-time.After(20 * time.Second)
			asked.Add(1)
			return nil
		})))
		w.begin(carillon.Schedule{
			Name: "s", Spec: carillon.Every(10 * time.Second), Overlap: carillon.Skip,
			Job:      carillon.Job{Args: -5 * time.Second, Retry: &carillon.Retry{MaxAttempts: 1}},
			Sharding: carillon.Sharding{Then: &carillon.Job{Name: "then"}},
		})
		w.Advance(75 * time.Second)
		assert.Equal(w.t, seconds(10, 40, 70), w.ran(), "Then belongs to the run")
		then := w.RequireRunsAt("then", seconds(15, 45, 75)...)
		assert.True(w.t, then[0].Tick.Equal(w.at(10*time.Second)))
		assert.EqualValues(w.t, 2, asked.Load())
		require.NoError(w.t, w.Scheduler.Unschedule(w.t.Context(), "s"))
	})
}

func TestBroadcast(t *testing.T) {
	inTime(t, carillon.Config{Segments: 4}, func(w *world) {
		ctx := w.t.Context()
		var h herd
		worker := func(name string) *carillon.Scheduler {
			s := w.Instance(carillon.Config{})
			require.NoError(w.t, s.Handle("refresh", h.on(name)))
			w.Start(s)
			return s
		}
		w.begin() // has no handler of that name
		require.NoError(w.t, w.Scheduler.Schedule(ctx, carillon.Schedule{
			Name: "all", Spec: carillon.Every(time.Minute), Job: carillon.Job{Name: "refresh"}, Sharding: carillon.Sharding{Broadcast: true},
		}))
		w.Advance(time.Minute)
		assert.Equal(w.t, []string{"1m0s skipped"}, w.ledger("all"))
		assert.Equal(w.t, "It did not run: no instance that was alive had the handler.", w.explain("all", time.Minute))

		first, second := worker("a"), worker("b")
		w.Advance(time.Minute + time.Second)
		who := func(tick time.Duration) (out []string) {
			for _, by := range h.ticks()[w.at(tick)] {
				out = append(out, by...)
			}
			slices.Sort(out)
			return out
		}
		assert.Equal(w.t, []string{"a", "b"}, who(2*time.Minute), "each once")
		worker("c")
		require.NoError(w.t, first.Shutdown(ctx))
		w.Advance(time.Minute)
		assert.Equal(w.t, []string{"b", "c"}, who(3*time.Minute))
		_, err := second.Trigger(ctx, "all", nil)
		require.NoError(w.t, err)
		w.Advance(time.Second)
		assert.Equal(w.t, []string{"b", "c"}, who(3*time.Minute+time.Second))
		assert.Equal(w.t, []string{"1m0s skipped", "2m0s fired", "3m0s fired", "3m1s fired"}, w.ledger("all"))
	})
}

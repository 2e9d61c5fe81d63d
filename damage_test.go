package carillon_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
)

// ruin is a namespace on a real Redis in which something gets damaged while a
// Scheduler works.
type ruin struct {
	*carillon.Scheduler
	t   *testing.T
	ctx context.Context
	rdb *redis.Client
	ns  string
	log *logbook
	ran counter

	hold    chan struct{} // "hold" jobs run until it is closed
	holding chan string   // IDs of "hold" jobs that run
}

func ruins(t *testing.T) *ruin {
	t.Helper()
	r := &ruin{
		t: t, ctx: t.Context(), rdb: redistest.Shared(t).Client(t), ns: redistest.Namespace(t), log: &logbook{},
		hold: make(chan struct{}), holding: make(chan string, 100),
	}
	p := &place{rdb: r.rdb, namespace: r.ns, real: true}
	r.Scheduler = p.new(t, handlers{
		"ok": func(_ context.Context, x *carillon.Execution) error {
			r.ran.add(x.ID)
			return nil
		},
		"fails": func(_ context.Context, x *carillon.Execution) error {
			r.ran.add(x.ID)
			return errors.New("no")
		},
		"hold": func(ctx context.Context, x *carillon.Execution) error {
			r.ran.add(x.ID)
			r.holding <- x.ID
			select {
			case <-r.hold:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	}, logTo(r.log), lease(500*time.Millisecond))
	return r
}

func (r *ruin) key(name string) string { return "{" + r.ns + ":0}:" + name }

func (r *ruin) record(id string) string { return r.key("j:" + id) }

func (r *ruin) start() { start(r.t, r.Scheduler) }

// foreign puts something of another type in the place of a key.
func (r *ruin) foreign(name string) {
	r.t.Helper()
	_, err := r.rdb.TxPipelined(r.ctx, func(p redis.Pipeliner) error {
		p.Del(r.ctx, r.key(name))
		p.Set(r.ctx, r.key(name), "something else", 0)
		return nil
	})
	require.NoError(r.t, err)
}

func (r *ruin) do(j carillon.Job) string {
	r.t.Helper()
	return submit(r.t, r.Scheduler, j)
}

// runs checks that a job of each kind still goes through: at once, with a
// mutex and unique key of its own, and, unless it is later that is damaged, later.
func (r *ruin) runs(without ...string) {
	r.t.Helper()
	tag := fmt.Sprintf("-%d", time.Now().UnixNano())
	var ids []string
	for id, j := range map[string]carillon.Job{
		"plain":    {},
		"critical": {Priority: carillon.Critical},
		"later":    {Delay: time.Millisecond},
		"mutex":    {Mutex: "m" + tag},
		"unique":   {Unique: carillon.Unique{Key: "u" + tag}},
		"tagged":   {Tags: []string{"t" + tag}},
	} {
		if !strings.Contains(strings.Join(without, " "), id) {
			j.Name, j.ID = "ok", id+tag
			ids = append(ids, r.do(j))
		}
	}
	for _, id := range ids {
		eventually(r.t, id+" runs", func() bool { return r.ran.of(id) == 1 })
	}
}

// quarantined waits for the event that says why a job was put aside.
func (r *ruin) quarantined(id, reason string) {
	r.t.Helper()
	eventually(r.t, id+" is quarantined", func() bool {
		for _, m := range r.rdb.XRange(r.ctx, r.key("ev"), "-", "+").Val() {
			if m.Values["t"] == "quarantined" && m.Values["i"] == id && strings.Contains(fmt.Sprint(m.Values["e"]), reason) {
				return true
			}
		}
		return false
	})
}

// failed checks that a job ended in failed with a reason.
func (r *ruin) failed(id, reason string) {
	r.t.Helper()
	info := await(r.t, r.Scheduler, id)
	assert.Equal(r.t, carillon.StateFailed, info.State)
	assert.Contains(r.t, info.Reason, "quarantined")
	assert.Contains(r.t, info.Reason, reason)
	assert.Zero(r.t, r.ran.of(id))
}

// logged checks how often something was logged.
func (r *ruin) logged(text string, times int) {
	r.t.Helper()
	eventually(r.t, "it is logged: "+text, func() bool { return r.log.count(text) >= times })
	assert.Equal(r.t, times, r.log.count(text), text)
}

// aside is what is logged for a job that was put aside.
const aside = "put in quarantine"

func TestRecordOfAForeignType(t *testing.T) {
	for _, state := range []string{"queued", "scheduled", "running", "waiting"} {
		t.Run(state, func(t *testing.T) {
			r := ruins(t)
			id := r.live(state)
			r.foreign("j:" + id)
			_, err := r.Get(r.ctx, id)
			require.ErrorIs(t, err, carillon.ErrDamaged)
			assert.ErrorIs(t, r.Cancel(r.ctx, id), carillon.ErrDamaged)
			assert.ErrorIs(t, r.Retry(r.ctx, id), carillon.ErrDamaged)
			assert.ErrorIs(t, r.RunNow(r.ctx, id), carillon.ErrDamaged)
			_, err = r.Await(r.ctx, id)
			assert.ErrorIs(t, err, carillon.ErrDamaged)
			_, err = r.Submit(r.ctx, carillon.Job{Name: "ok", ID: id})
			assert.ErrorIs(t, err, carillon.ErrDamaged)
			r.goOn(state)
			r.quarantined(id, "WRONGTYPE")
			r.runs()
			assert.Equal(t, "something else", r.rdb.Get(r.ctx, r.record(id)).Val(), "what is not ours is left alone")
		})
	}
}

func TestRecordDeleted(t *testing.T) {
	for _, state := range []string{"queued", "scheduled", "running", "waiting"} {
		t.Run(state, func(t *testing.T) {
			r := ruins(t)
			id := r.live(state)
			require.NoError(t, r.rdb.Del(r.ctx, r.record(id)).Err())
			_, err := r.Get(r.ctx, id)
			require.ErrorIs(t, err, carillon.ErrNotFound)
			r.goOn(state)
			r.quarantined(id, "gone")
			r.runs()
			logged := func() int {
				return r.log.count(aside) + r.log.count("could not be recorded") + r.log.count("data was passed over")
			}
			eventually(t, "it is logged", func() bool { return logged() > 0 })
			assert.Equal(t, 1, logged(), "once")
			// The job's unique key is free again.
			again := r.do(carillon.Job{Name: "ok", Unique: carillon.Unique{Key: "of " + id}})
			eventually(t, "the next one with its unique key runs", func() bool { return r.ran.of(again) == 1 })
			eventually(t, "what waited runs", func() bool { return state != "running" || r.ran.of("next") == 1 })
			assert.Zero(t, r.rdb.ZCard(r.ctx, r.key("due")).Val())
			assert.Zero(t, r.rdb.ZCard(r.ctx, r.key("wait")).Val())
		})
	}
}

// live brings a job into a state, with the instance not started, unless the
// state needs it.
func (r *ruin) live(state string) string {
	r.t.Helper()
	id := "victim"
	j := carillon.Job{Name: "ok", ID: id, Unique: carillon.Unique{Key: "of " + id}}
	switch state {
	case "queued":
		// Too large for its stream entry, so the worker needs the record.
		j.Args = strings.Repeat("x", 10_000)
		r.do(j)
	case "scheduled":
		j.RunAt = time.Unix(1, 0)
		r.do(j)
	case "running":
		j.Name, j.Mutex = "hold", "door"
		r.do(j)
		r.start()
		receive(r.t, r.holding, "the job runs")
		r.do(carillon.Job{Name: "ok", ID: "next", Mutex: "door"})
	case "waiting":
		r.do(carillon.Job{Name: "hold", ID: "holder", Mutex: "door"})
		j.Mutex = "door"
		r.do(j)
		r.do(carillon.Job{Name: "ok", ID: "behind", Mutex: "door"})
		r.start()
		receive(r.t, r.holding, "the holder runs")
	}
	return id
}

// goOn lets what live has prepared come to its end.
func (r *ruin) goOn(state string) {
	r.t.Helper()
	if state == "queued" || state == "scheduled" {
		r.start()
	}
	close(r.hold)
	switch state {
	case "running":
		eventually(r.t, "the next holder runs", func() bool { return r.ran.of("next") == 1 })
	case "waiting":
		eventually(r.t, "the one behind runs", func() bool { return r.ran.of("behind") == 1 })
	}
}

func TestGarbageInTheRecord(t *testing.T) {
	sound := func(r *ruin) string { return r.rdb.HGet(r.ctx, r.record("victim"), "j").Val() }
	for name, garble := range map[string]func(*ruin) string{
		"empty":    func(*ruin) string { return "" },
		"JSON":     func(*ruin) string { return `{"name":"ok"}` },
		"cut":      func(r *ruin) string { return sound(r)[:len(sound(r))/2] },
		"one byte": func(r *ruin) string { return sound(r)[:1] },
		"binary":   func(*ruin) string { return "\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" },
	} {
		for _, state := range []string{"queued", "scheduled"} {
			t.Run(name+" "+state, func(t *testing.T) {
				r := ruins(t)
				id := r.live(state)
				require.NoError(t, r.rdb.HSet(r.ctx, r.record(id), "j", garble(r)).Err())
				_, err := r.Get(r.ctx, id)
				require.ErrorIs(t, err, carillon.ErrDamaged)
				r.goOn(state)
				r.quarantined(id, "")
				r.runs()
				r.logged(aside, 1)
				assert.Zero(t, r.ran.of(id))
				assert.Regexp(t, "^f", r.rdb.HGet(r.ctx, r.record(id), "p").Val(), "it is failed")
				assert.Contains(t, r.rdb.HGet(r.ctx, r.record(id), "e").Val(), "quarantined")
				assert.Positive(t, r.rdb.PTTL(r.ctx, r.record(id)).Val(), "and passes")
				for j, err := range r.List(r.ctx, carillon.Filter{}) {
					require.NoError(t, err, "a list passes over it")
					assert.NotEqual(t, id, j.ID)
				}
			})
		}
	}
}

func TestGarbledPlaces(t *testing.T) {
	for _, place := range []string{"", "?", "q", "0", "0x", "0-0", "w", "zzz", "s", "\x00"} {
		t.Run(place, func(t *testing.T) {
			r := ruins(t)
			id := r.live("queued")
			require.NoError(t, r.rdb.HSet(r.ctx, r.record(id), "p", place).Err())
			_, _ = r.Get(r.ctx, id) // must not panic
			_ = r.Cancel(r.ctx, id)
			for _, err := range r.List(r.ctx, carillon.Filter{}) {
				require.NoError(t, err)
			}
			r.start()
			r.runs()
		})
	}
}

func TestForeignEntriesInAStream(t *testing.T) {
	r := ruins(t)
	stream := r.key("q:n:default")
	first := r.do(carillon.Job{Name: "ok"})
	foreign := 0
	add := func(values ...any) {
		require.NoError(t, r.rdb.XAdd(r.ctx, &redis.XAddArgs{Stream: stream, Values: values}).Err())
		foreign++
	}
	add("hello", "world")
	add("e", "1 - 7 unknown") // its record is gone
	add("e", "-1 - 7 unknown{}")
	add("e", "1/2/3/4/5 - 7 unknown{}")
	add("e", "1 - 0 \x01\x01\x02ok")
	add("e", "1 - 1048576 "+strings.Repeat("x", 1<<20))
	add("e", "1 - 7 unknown"+strings.Repeat("{", 1<<20))
	add("e", "1 - 7 }{:%\x00\n")
	add("e", "1 x 7 unknown", "i", "another field")
	add("e", "1 - 99999999999999999999 unknown")
	last := r.do(carillon.Job{Name: "ok"})
	r.start()
	for _, id := range []string{first, last} {
		eventually(t, "ours run", func() bool { return r.ran.of(id) == 1 })
	}
	eventually(t, "the stream is clean", func() bool { return r.rdb.XLen(r.ctx, stream).Val() == 0 })
	r.quarantined("unknown", "")
	r.quarantined("", "")
	assert.EqualValues(t, foreign, r.rdb.XLen(r.ctx, r.key("ev")).Val(), "each is quarantined")
	pending, err := r.rdb.XPending(r.ctx, stream, "w").Result()
	require.NoError(t, err)
	assert.Zero(t, pending.Count)
	r.runs()
}

func TestDeletedEntriesArePassedOver(t *testing.T) {
	r := ruins(t)
	id := r.live("running")
	stream := r.key("q:n:default")
	entry := r.rdb.XRange(r.ctx, stream, "-", "+").Val()[0].ID
	require.NoError(t, r.rdb.XDel(r.ctx, stream, entry).Err())
	r.goOn("running")
	eventually(t, "it is settled", func() bool { return get(t, r.Scheduler, id).State == carillon.StateSucceeded })
	r.runs()
}

func TestForeignMembersOfDueAndWait(t *testing.T) {
	r := ruins(t)
	for _, m := range []string{"", ":", "hello", "n:::unknown", "x:default::y", "n::m:y", "n:default:m:y", "n:%:%:y", strings.Repeat("x", 1<<16)} {
		require.NoError(t, r.rdb.ZAdd(r.ctx, r.key("due"), redis.Z{Score: 1, Member: m}).Err())
	}
	r.do(carillon.Job{Name: "hold", ID: "holder", Mutex: "door"})
	for _, m := range []string{"door:1:hello", "door:2:n::unknown", "door:3:n:default:unknown", "door:4"} {
		require.NoError(t, r.rdb.ZAdd(r.ctx, r.key("wait"), redis.Z{Member: m}).Err())
	}
	r.do(carillon.Job{Name: "ok", ID: "behind", Mutex: "door"})
	r.start()
	receive(t, r.holding, "the holder runs")
	close(r.hold)
	eventually(t, "the one behind runs", func() bool { return r.ran.of("behind") == 1 })
	r.runs()
	eventually(t, "due is empty", func() bool { return r.rdb.ZCard(r.ctx, r.key("due")).Val() == 0 })
	assert.Zero(t, r.rdb.Exists(r.ctx, r.key("wait")).Val())
}

func TestForeignStructures(t *testing.T) {
	t.Run("due", func(t *testing.T) {
		r := ruins(t)
		r.foreign("due")
		_, err := r.Submit(r.ctx, carillon.Job{Name: "ok", Delay: time.Second})
		require.ErrorIs(t, err, carillon.ErrDamaged)
		r.start()
		r.runs("later")
		id := r.do(carillon.Job{Name: "fails"})
		info := await(t, r.Scheduler, id)
		assert.Equal(t, carillon.StateFailed, info.State, "it cannot be planned again, and must not be lost")
		assert.Contains(t, info.Reason, "quarantined")
		r.runs("later")
		r.logged("damaged data was passed over", 1)
		require.NoError(t, r.rdb.Del(r.ctx, r.key("due")).Err())
		r.runs()
	})
	t.Run("stream", func(t *testing.T) {
		r := ruins(t)
		r.foreign("q:h:default")
		r.start()
		r.runs()
		_, err := r.Submit(r.ctx, carillon.Job{Name: "ok", Priority: carillon.High})
		require.ErrorIs(t, err, carillon.ErrDamaged)
		later := r.do(carillon.Job{Name: "ok", Priority: carillon.High, Delay: time.Millisecond})
		r.failed(later, "WRONGTYPE")
		r.runs()
		require.NoError(t, r.rdb.Del(r.ctx, r.key("q:h:default")).Err())
		id := r.do(carillon.Job{Name: "ok", Priority: carillon.High})
		eventually(t, "it is read again once it is ours", func() bool { return r.ran.of(id) == 1 })
	})
	t.Run("stream of a running instance", func(t *testing.T) {
		r := ruins(t)
		r.start()
		r.runs()
		r.foreign("q:l:default")
		r.runs()
	})
	t.Run("unique", func(t *testing.T) {
		r := ruins(t)
		r.start()
		r.do(carillon.Job{Name: "hold", ID: "victim", Unique: carillon.Unique{Key: "u"}, Tags: []string{"tag"}})
		receive(t, r.holding, "it runs")
		r.foreignSet("u:u")
		r.foreign("t:tag")
		_, err := r.Submit(r.ctx, carillon.Job{Name: "ok", Unique: carillon.Unique{Key: "u"}})
		require.ErrorIs(t, err, carillon.ErrDamaged)
		_, err = r.Submit(r.ctx, carillon.Job{Name: "ok", Tags: []string{"tag"}})
		require.ErrorIs(t, err, carillon.ErrDamaged)
		close(r.hold)
		assert.Equal(t, carillon.StateSucceeded, await(t, r.Scheduler, "victim").State)
		r.runs()
	})
	t.Run("mutex", func(t *testing.T) {
		r := ruins(t)
		r.do(carillon.Job{Name: "hold", ID: "holder", Mutex: "door"})
		r.do(carillon.Job{Name: "ok", ID: "waits", Mutex: "door"})
		r.do(carillon.Job{Name: "ok", ID: "due", Mutex: "door", RunAt: time.Now().Add(time.Second)})
		r.start()
		receive(t, r.holding, "it runs")
		r.foreign("m:door")
		_, err := r.Submit(r.ctx, carillon.Job{Name: "ok", Mutex: "door"})
		require.ErrorIs(t, err, carillon.ErrDamaged)
		require.NoError(t, r.RunNow(r.ctx, "due"))
		r.failed("due", "WRONGTYPE")
		close(r.hold)
		assert.Equal(t, carillon.StateSucceeded, await(t, r.Scheduler, "holder").State)
		r.runs()
		require.NoError(t, r.Cancel(r.ctx, "waits"))
		assert.Equal(t, carillon.StateCancelled, get(t, r.Scheduler, "waits").State)
	})
	t.Run("wait", func(t *testing.T) {
		r := ruins(t)
		r.do(carillon.Job{Name: "hold", ID: "holder", Mutex: "door"})
		r.start()
		receive(t, r.holding, "it runs")
		r.foreign("wait")
		_, err := r.Submit(r.ctx, carillon.Job{Name: "ok", Mutex: "door"})
		require.ErrorIs(t, err, carillon.ErrDamaged)
		close(r.hold)
		assert.Equal(t, carillon.StateSucceeded, await(t, r.Scheduler, "holder").State)
		r.runs("mutex")
	})
	t.Run("history and events", func(t *testing.T) {
		r := ruins(t)
		for _, name := range []string{"h:s", "h:f", "h:c", "h:x", "ev"} {
			r.foreign(name)
		}
		r.start()
		r.runs()
		for name, want := range map[string]carillon.State{"ok": carillon.StateSucceeded, "fails": carillon.StateFailed} {
			id := r.do(carillon.Job{Name: name, Retry: &carillon.Retry{MaxAttempts: 2, Delays: []time.Duration{time.Millisecond}}})
			info := await(t, r.Scheduler, id)
			assert.Equal(t, want, info.State)
			assert.False(t, info.FinishedAt.IsZero())
		}
		id := r.do(carillon.Job{Name: "ok", Delay: time.Hour})
		require.NoError(t, r.Cancel(r.ctx, id))
		_, err := r.Counts(r.ctx)
		require.NoError(t, err)
		r.runs()
	})
	t.Run("schedule", func(t *testing.T) {
		r := ruins(t)
		every := func(name string) carillon.Schedule {
			return carillon.Schedule{Name: name, Spec: carillon.Every(100 * time.Millisecond), Job: carillon.Job{Name: "ok"}}
		}
		for _, name := range []string{"foreign", "garbled", "cut", "sound"} {
			require.NoError(t, r.Schedule(r.ctx, every(name)))
		}
		r.foreign("s:foreign")
		require.NoError(t, r.rdb.HSet(r.ctx, r.key("s:garbled"), "d", "garbage").Err())
		require.NoError(t, r.rdb.HDel(r.ctx, r.key("s:cut"), "n", "g").Err())
		require.NoError(t, r.rdb.ZAdd(r.ctx, r.key("plan"), redis.Z{Score: 1, Member: "unknown"}).Err())
		r.start()
		eventually(t, "the sound one fires on", func() bool {
			info, err := r.GetSchedule(r.ctx, "sound")
			return err == nil && !info.Last.IsZero() && len(r.ran.all()) >= 3
		})
		eventually(t, "the others are out of the plan", func() bool {
			return r.rdb.ZCard(r.ctx, r.key("plan")).Val() == 1
		})
		_, err := r.GetSchedule(r.ctx, "foreign")
		require.ErrorIs(t, err, carillon.ErrDamaged)
		info, err := r.GetSchedule(r.ctx, "garbled")
		require.NoError(t, err)
		assert.NotEmpty(t, info.Problem)
		require.NoError(t, r.Schedule(r.ctx, every("garbled")), "storing it again mends it")
		r.runs()
	})
	t.Run("plan", func(t *testing.T) {
		r := ruins(t)
		r.foreign("plan")
		r.start()
		r.runs()
		err := r.Schedule(r.ctx, carillon.Schedule{Name: "s", Spec: carillon.Every(time.Hour), Job: carillon.Job{Name: "ok"}})
		require.ErrorIs(t, err, carillon.ErrDamaged)
		_, err = r.GetSchedule(r.ctx, "s")
		assert.ErrorIs(t, err, carillon.ErrNotFound, "nothing half done")
	})
	t.Run("grant", func(t *testing.T) {
		r := ruins(t)
		r.foreign("grant")
		r.start()
		r.runs("mutex")
	})
}

// foreignSet puts a set in the place of a key that is a string when it is ours.
func (r *ruin) foreignSet(name string) {
	r.t.Helper()
	require.NoError(r.t, r.rdb.Del(r.ctx, r.key(name)).Err())
	require.NoError(r.t, r.rdb.SAdd(r.ctx, r.key(name), "something else").Err())
}

package carillon_test

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/faultnet"
	"github.com/carillon-go/carillon/internal/redistest"
)

// try takes a lock that must be free.
func try(t testing.TB, s *carillon.Scheduler, name string) *carillon.Lease {
	t.Helper()
	l, err := s.TryLock(t.Context(), name)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Release(context.Background()) })
	return l
}

// locking waits for a lock on another goroutine.
func locking(ctx context.Context, t testing.TB, s *carillon.Scheduler, name string) <-chan *carillon.Lease {
	t.Helper()
	got := make(chan *carillon.Lease, 1)
	go func() {
		if l, err := s.Lock(ctx, name); assert.NoError(t, err) {
			got <- l
		}
	}()
	return got
}

func TestLock(t *testing.T) {
	t.Run("is held by one, and tokens grow with every holder", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			a, b := p.new(t, nil), p.new(t, nil)
			var last uint64
			try(t, a, "another name")
			for _, s := range []*carillon.Scheduler{a, b, b, a} {
				l := try(t, s, "name")
				assert.Greater(t, l.Token(), last)
				last = l.Token()
				for _, other := range []*carillon.Scheduler{a, b} {
					_, err := other.TryLock(t.Context(), "name")
					assert.ErrorIs(t, err, carillon.ErrLocked)
				}
				assert.NoError(t, l.Context().Err())
				assert.NoError(t, l.Release(t.Context()))
				assert.Error(t, l.Context().Err())
				assert.NotErrorIs(t, context.Cause(l.Context()), carillon.ErrLeaseLost)
				assert.NoError(t, l.Release(t.Context()), "a later call returns what the first did")
			}
		})
	})

	t.Run("keeps contenders apart", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			all := []*carillon.Scheduler{p.new(t, nil), p.new(t, nil), p.new(t, nil)}
			var inside, served atomic.Int32
			var mu sync.Mutex
			var last uint64
			var wg sync.WaitGroup
			for i := range 12 {
				wg.Go(func() {
					l, err := all[i%len(all)].Lock(t.Context(), "name")
					if !assert.NoError(t, err) {
						return
					}
					assert.EqualValues(t, 1, inside.Add(1), "two hold it")
					mu.Lock()
					assert.Greater(t, l.Token(), last)
					last = l.Token()
					mu.Unlock()
					served.Add(1)
					inside.Add(-1)
					assert.NoError(t, l.Release(t.Context()))
				})
			}
			wg.Wait()
			assert.EqualValues(t, 12, served.Load())
		})
	})

	t.Run("is renewed while it is held", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			const ttl = 2 * time.Second
			s := p.new(t, nil, lease(ttl))
			l := try(t, s, "name")
			key := keyLike(t, p.rdb, p.namespace, "k:name")
			at := time.Now()
			eventually(t, "three leases pass", func() bool {
				assert.EqualValues(t, 1, p.rdb.Exists(t.Context(), key).Val())
				return time.Since(at) > 3*ttl
			})
			_, err := s.TryLock(t.Context(), "name")
			assert.ErrorIs(t, err, carillon.ErrLocked)
			assert.NoError(t, l.Context().Err())
			assert.NoError(t, l.Release(t.Context()))
		})
	})

	t.Run("wakes the one who waits, well before the lease would lapse", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.new(t, nil, lease(time.Minute))
			held := try(t, s, "name")
			waiting := locking(t.Context(), t, p.new(t, nil, lease(time.Minute)), "name")
			assert.Empty(t, waiting)
			require.NoError(t, held.Release(t.Context()))
			got := receive(t, waiting, "the lock")
			assert.Greater(t, got.Token(), held.Token())
			assert.NoError(t, got.Release(t.Context()))
		})
	})

	t.Run("goes over when its holder dies", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			const ttl = 3 * time.Second // a tenth of it is the margin
			rdb, wire := wireTo(t, p.rdb)
			holder := p.over(t, rdb, nil, lease(ttl))
			held := try(t, holder, "name")
			waiting := locking(t.Context(), t, p.new(t, nil, lease(ttl)), "name")
			at := time.Now()
			wire.Set(faultnet.Faults{Cut: true})
			receive(t, held.Context().Done(), "the end of the lease's context")
			lost := time.Since(at)
			assert.ErrorIs(t, context.Cause(held.Context()), carillon.ErrLeaseLost)
			assert.Less(t, lost, ttl, "somebody else may hold it by now")
			got := receive(t, waiting, "the lock")
			assert.Less(t, time.Since(at), ttl+ttl/2)
			assert.Greater(t, got.Token(), held.Token())
			heal(t, wire, holder)
			assert.ErrorIs(t, held.Release(t.Context()), carillon.ErrFenced)
			assert.ErrorIs(t, held.Release(t.Context()), carillon.ErrFenced, "a later call returns what the first did")
			_, err := p.new(t, nil).TryLock(t.Context(), "name")
			assert.ErrorIs(t, err, carillon.ErrLocked, "the stale release freed it")
			assert.NoError(t, got.Release(t.Context()))
		})
	})

	t.Run("waits through an outage, and is given back though replies are lost", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			rdb, wire := wireTo(t, p.rdb)
			held := try(t, p.new(t, nil, lease(time.Minute)), "name")
			waiter := p.over(t, rdb, nil, lease(time.Minute))
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			var got *carillon.Lease
			done := make(chan error, 1)
			go func() {
				var err error
				got, err = waiter.Lock(ctx, "name")
				done <- err
			}()
			channel := keyChannel(t, p, "free:name")
			eventually(t, "it waits", func() bool { return p.rdb.PubSubNumSub(t.Context(), channel).Val()[channel] == 1 })
			wire.Set(faultnet.Faults{Cut: true})
			require.NoError(t, p.rdb.Publish(t.Context(), channel, "").Err())
			require.NoError(t, held.Release(t.Context()))
			eventually(t, "it cannot ask", func() bool { return wire.Took() > 3 })
			assert.Empty(t, done, "it gave up")
			wire.Set(faultnet.Faults{})
			require.NoError(t, receive(t, done, "the lock"))

			var lost atomic.Int64
			wire.Set(faultnet.Faults{Reply: func(words []string, _ []byte) faultnet.Fate {
				if strings.HasPrefix(words[0], "eval") && lost.Add(1) <= 5 {
					return faultnet.HangUp
				}
				return faultnet.Pass
			}})
			assert.NoError(t, got.Release(t.Context()))
			assert.Greater(t, lost.Load(), int64(4), "more than one try lost its reply")
			wire.Set(faultnet.Faults{})
			assert.NoError(t, try(t, waiter, "name").Release(t.Context()))
		})
	})

	t.Run("ends its context when the key is taken away", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			s := p.new(t, nil, lease(300*time.Millisecond))
			l := try(t, s, "name")
			require.NoError(t, p.rdb.Del(t.Context(), keyLike(t, p.rdb, p.namespace, "k:name")).Err())
			next := try(t, s, "name")
			receive(t, l.Context().Done(), "the end of its context")
			assert.ErrorIs(t, context.Cause(l.Context()), carillon.ErrLeaseLost)
			assert.ErrorIs(t, l.Release(t.Context()), carillon.ErrFenced)
			assert.NoError(t, next.Context().Err())
			assert.NoError(t, next.Release(t.Context()))
		})
	})

	t.Run("gives up when its context ends", func(t *testing.T) {
		eachPlace(t, func(t *testing.T, p *place) {
			s := p.new(t, nil)
			held := try(t, s, "name")
			ctx, cancel := context.WithCancelCause(t.Context())
			done := make(chan error, 1)
			go func() {
				_, err := s.Lock(ctx, "name")
				done <- err
			}()
			why := assert.AnError
			cancel(why)
			assert.ErrorIs(t, receive(t, done, "the end of Lock"), why)
			assert.NoError(t, held.Release(t.Context()))
			assert.NoError(t, try(t, s, "name").Release(t.Context()), "the one who gave up does not hold it")
		})
	})

	t.Run("refuses names that are none", func(t *testing.T) {
		fastPlaces(t, func(t *testing.T, p *place) {
			s := p.new(t, nil)
			for _, name := range []string{"", "\x00", "\xff", strings.Repeat("x", 201)} {
				_, err := s.Lock(t.Context(), name)
				assert.ErrorIs(t, err, carillon.ErrInvalid, "%q", name)
				_, err = s.TryLock(t.Context(), name)
				assert.ErrorIs(t, err, carillon.ErrInvalid, "%q", name)
			}
			assert.Empty(t, keysOf(t, p.rdb, p.namespace))
			a, b := try(t, s, "a:b}{%"), try(t, s, "a")
			assert.NoError(t, a.Release(t.Context()))
			assert.NoError(t, b.Release(t.Context()))
		})
	})
}

func TestLockDoesNotPoll(t *testing.T) {
	// A server of its own: it counts commands.
	server := singleServer(t)
	p := &place{rdb: server.Client(t), namespace: redistest.Namespace(t), real: true}
	const ttl = time.Second
	held := try(t, p.new(t, nil, lease(ttl)), "name")
	waiter := p.new(t, nil, lease(ttl))
	waiting := locking(t.Context(), t, waiter, "name")
	channel := keyChannel(t, p, "free:name")
	// The waiter has asked, subscribed, and asked again.
	eventually(t, "the waiter waits", func() bool {
		return p.rdb.PubSubNumSub(t.Context(), channel).Val()[channel] == 1
	})
	before, at := scriptCalls(t, p.rdb), time.Now()
	eventually(t, "it is renewed", func() bool { return scriptCalls(t, p.rdb)-before >= 15 })
	calls, leases := scriptCalls(t, p.rdb)-before, float64(time.Since(at))/float64(ttl)
	// The holder renews three times a lease; the waiter looks when a lease would
	// lapse, which a renewal has put off by then: at most once in two thirds.
	assert.LessOrEqual(t, float64(calls), 1+3*leases+1.5*leases+2, "it polls")
	assert.Empty(t, waiting)
	require.NoError(t, held.Release(t.Context()))
	assert.NoError(t, receive(t, waiting, "the lock").Release(t.Context()))
}

func keyChannel(t testing.TB, p *place, suffix string) string {
	t.Helper()
	key := keyLike(t, p.rdb, p.namespace, "k:name")
	prefix, _, _ := strings.Cut(key, "}:")
	return prefix + "}:" + suffix
}

// scriptCalls counts the scripts a server has run.
func scriptCalls(t testing.TB, rdb redis.UniversalClient) int {
	t.Helper()
	info, err := rdb.Info(t.Context(), "commandstats").Result()
	require.NoError(t, err)
	n := 0
	for line := range strings.Lines(info) {
		for _, command := range []string{"eval", "evalsha"} {
			if rest, ok := strings.CutPrefix(line, "cmdstat_"+command+":calls="); ok {
				digits, _, _ := strings.Cut(rest, ",")
				calls, err := strconv.Atoi(digits)
				require.NoError(t, err)
				n += calls
			}
		}
	}
	return n
}

package embedded_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/carillon-go/carillon/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T) *redis.Client {
	t.Helper()
	rdb, stop := embedded.Open()
	t.Cleanup(stop)
	return rdb
}

func group(t *testing.T, rdb *redis.Client) {
	t.Helper()
	require.NoError(t, rdb.XGroupCreateMkStream(t.Context(), "stream", "group", "0").Err())
}

func read(ctx context.Context, rdb *redis.Client, block time.Duration) ([]redis.XStream, error) {
	return rdb.XReadGroup(ctx, &redis.XReadGroupArgs{
		Group: "group", Consumer: "me", Streams: []string{"stream", ">"}, Block: block,
	}).Result()
}

func TestTimeToLiveRunsDownInRealTime(t *testing.T) {
	rdb := open(t)
	began := time.Now()
	require.NoError(t, rdb.Set(t.Context(), "key", "value", 100*time.Millisecond).Err())
	require.Eventually(t, func() bool {
		return rdb.Exists(t.Context(), "key").Val() == 0
	}, 30*time.Second, 5*time.Millisecond)
	assert.GreaterOrEqual(t, time.Since(began), 100*time.Millisecond)
}

func TestTimeToLiveRunsDownInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb, ctx := open(t), t.Context()
		require.NoError(t, rdb.SetNX(ctx, "lease", "me", time.Hour).Err())
		require.NoError(t, rdb.HSet(ctx, "record", "field", "value").Err())
		require.NoError(t, rdb.PExpire(ctx, "record", time.Hour).Err())
		group(t, rdb)
		require.NoError(t, rdb.PExpire(ctx, "stream", time.Hour).Err())

		time.Sleep(time.Hour - time.Millisecond)
		assert.EqualValues(t, 3, rdb.Exists(ctx, "lease", "record", "stream").Val())
		assert.Equal(t, time.Millisecond, rdb.PTTL(ctx, "lease").Val())
		time.Sleep(time.Millisecond)
		assert.Zero(t, rdb.Exists(ctx, "lease", "record", "stream").Val())
	})
}

func TestBlockedReadWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb, ctx := open(t), t.Context()
		group(t, rdb)
		go func() {
			time.Sleep(2 * time.Second)
			rdb.Eval(ctx, `return redis.call('XADD', KEYS[1], '*', 'k', 'v')`, []string{"stream"})
		}()
		began := time.Now()
		got, err := read(ctx, rdb, 5*time.Second)
		require.NoError(t, err)
		assert.Len(t, got[0].Messages, 1)
		assert.Equal(t, 2*time.Second, time.Since(began))

		_, err = read(ctx, rdb, 5*time.Second)
		assert.ErrorIs(t, err, redis.Nil)
		assert.Equal(t, 7*time.Second, time.Since(began))
	})
}

func TestCopiesOfTheClient(t *testing.T) {
	rdb, stop := embedded.Open()
	defer stop()
	opts := *rdb.Options()
	opts.PoolSize, opts.MaxRetries, opts.ContextTimeoutEnabled = 1, -1, true
	second := redis.NewClient(&opts)
	defer second.Close()

	require.NoError(t, rdb.Set(t.Context(), "key", "value", 0).Err())
	assert.Equal(t, "value", second.Get(t.Context(), "key").Val())

	require.NoError(t, rdb.Close())
	assert.Equal(t, "value", second.Get(t.Context(), "key").Val(), "a copy lives on its own")

	stop()
	assert.Error(t, second.Ping(t.Context()).Err(), "its connection is closed")
	_, err := opts.Dialer(t.Context(), "", "")
	assert.Error(t, err, "and there is no new one")
}

func TestEachOpenIsItsOwnRedis(t *testing.T) {
	a, b := open(t), open(t)
	require.NoError(t, a.Set(t.Context(), "key", "value", 0).Err())
	assert.Zero(t, b.Exists(t.Context(), "key").Val())
}

func TestLargePipeline(t *testing.T) {
	rdb := open(t)
	_, err := rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
		for i := range 2000 {
			p.Set(t.Context(), fmt.Sprint("key", i), strings.Repeat("x", 100), 0)
		}
		return nil
	})
	require.NoError(t, err)
	assert.EqualValues(t, 2000, rdb.DBSize(t.Context()).Val())
}

func TestSubscriberThatDoesNotReadHoldsUpNobody(t *testing.T) {
	rdb := open(t)
	sub := rdb.Subscribe(t.Context(), "news")
	defer sub.Close()
	_, err := sub.Receive(t.Context())
	require.NoError(t, err)

	for i := range 100 {
		require.NoError(t, rdb.Publish(t.Context(), "news", i).Err())
	}
	for i := range 100 {
		got, err := sub.ReceiveMessage(t.Context())
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprint(i), got.Payload)
	}
}

func TestStop(t *testing.T) {
	t.Run("may be called again, at the same time too", func(t *testing.T) {
		_, stop := embedded.Open()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(stop)
		}
		wg.Wait()
		stop()
	})

	t.Run("ends a blocked read at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			rdb, stop := embedded.Open()
			group(t, rdb)
			opts := *rdb.Options()
			opts.MaxRetries = -1
			second := redis.NewClient(&opts)
			defer second.Close()
			failed := make(chan error, 2)
			for _, c := range []*redis.Client{rdb, second} {
				go func() {
					_, err := read(t.Context(), c, time.Hour)
					failed <- err
				}()
			}
			synctest.Wait()
			began := time.Now()
			stop()
			for range 2 {
				err := <-failed
				assert.Error(t, err)
				assert.NotErrorIs(t, err, redis.Nil)
			}
			assert.Less(t, time.Since(began), time.Second)
		})
	})
}

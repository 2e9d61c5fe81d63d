package store

import (
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/redistest"
)

// Redis' clock is what counts, however wrong the local one is.
func TestRedisTimeDecides(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"a day ahead": 24 * time.Hour, "a day behind": -24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			server := miniredis.RunT(t)
			now := time.Now().Add(ahead).Truncate(time.Millisecond)
			server.SetTime(now)
			rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), DisableIdentity: true})
			t.Cleanup(func() { _ = rdb.Close() })
			s, err := New(rdb, Options{Namespace: redistest.Namespace(t), Retention: testRetention})
			require.NoError(t, err)
			t.Cleanup(func() { s.Close() })
			submit(t, s, "delayed", job(later1h))
			submit(t, s, "planned", job(func(s *Spec) { s.RunAt = now.Add(time.Hour) }))

			server.SetTime(now.Add(time.Hour - time.Millisecond))
			tick, err := s.Promote(t.Context(), 0, func(string, error) {})
			require.NoError(t, err)
			assert.Zero(t, tick.Promoted)
			assert.Equal(t, now.Add(time.Hour).UnixMilli(), tick.NextDue.UnixMilli())

			server.SetTime(now.Add(time.Hour))
			tick, err = s.Promote(t.Context(), 0, func(string, error) {})
			require.NoError(t, err)
			assert.Equal(t, 2, tick.Promoted)
		})
	}
}

package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/redistest"
)

// BenchmarkHotPath measures the time of Redis in the scripts of each step of a job's
// life, which does not depend on what else the machine does as much as rates do.
func BenchmarkHotPath(b *testing.B) {
	const jobs, instance = 100_000, "06gzxpyf2xy3qcrrdvpkvj2c00"
	payload := []byte(`{"user_id":1234567,"template":"welcome-mail","n":12}`)
	for b.Loop() {
		rdb := redistest.Single(b).Client(b)
		s, err := New(rdb, Options{Namespace: "carillon", Retention: Retention{Succeeded: {Age: time.Hour, Count: 2 * jobs}}})
		require.NoError(b, err)
		b.Cleanup(func() { _ = s.Close() })
		_, err = s.Join(b.Context(), instance, time.Hour, nil, []string{DefaultQueue})
		require.NoError(b, err)
		last := inScripts(b, rdb)
		report := func(step string) {
			now := inScripts(b, rdb)
			b.ReportMetric(float64((now-last).Nanoseconds())/1000/jobs, step+"-µs/job")
			last = now
		}

		batch := make([]NewJob, maxBatch)
		for i := range batch {
			batch[i].Spec = &Spec{Name: "bench", Args: payload, Queue: DefaultQueue, Priority: DefaultPriority}
		}
		for range jobs / maxBatch {
			_, errs := s.Submit(b.Context(), batch)
			require.NoError(b, Distinct(errs))
		}
		report("submit")

		r := s.Readers(instance, []string{DefaultQueue})[0]
		b.Cleanup(func() { _ = r.Close() })
		var all []Settlement
		for len(all) < jobs {
			entries, _, err := r.Fetch(b.Context(), 256, 32)
			require.NoError(b, err)
			for _, e := range entries {
				all = append(all, Settlement{Entry: e, Outcome: Succeed})
			}
		}
		report("fetch")

		for ; len(all) > 0; all = all[min(256, len(all)):] {
			_, errs := s.Settle(b.Context(), instance, all[:min(256, len(all))])
			require.NoError(b, Distinct(errs))
		}
		report("settle")
	}
	b.ReportMetric(0, "ns/op")
}

// inScripts is how long the server has spent in scripts.
func inScripts(b *testing.B, rdb *redis.Client) time.Duration {
	b.Helper()
	info, err := rdb.InfoMap(b.Context(), "commandstats").Result()
	require.NoError(b, err)
	var calls, usec int64
	if stats := info["Commandstats"]["cmdstat_evalsha"]; stats != "" {
		_, err = fmt.Sscanf(stats, "calls=%d,usec=%d", &calls, &usec)
		require.NoError(b, err)
	}
	return time.Duration(usec) * time.Microsecond
}

package carillon_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
)

// BenchmarkTick fires many schedules that are due on the same tick, and measures
// how long after it their jobs start: each of 50,000, and with many schedules more
// that are parked in the future. BENCH_PARKED is how many these are; a million
// takes minutes to store.
func BenchmarkTick(b *testing.B) {
	parked := 100_000
	if n, err := strconv.Atoi(os.Getenv("BENCH_PARKED")); err == nil {
		parked = n
	}
	b.Run("due=50000", func(b *testing.B) { benchTick(b, 50_000, 0) })
	b.Run(fmt.Sprintf("due=50000/parked=%d", parked), func(b *testing.B) { benchTick(b, 50_000, parked) })
}

func benchTick(b *testing.B, due, parked int) {
	b.Helper()
	server := redistest.Single(b)
	s, err := carillon.New(server.Client(b), carillon.Config{Logger: slog.New(slog.DiscardHandler), Concurrency: 256})
	require.NoError(b, err)
	late := make([]time.Duration, due)
	var tick time.Time
	var n atomic.Int64
	all := make(chan struct{})
	require.NoError(b, s.Handle("stamp", carillon.HandlerFunc(func(context.Context, *carillon.Execution) error {
		if i := n.Add(1); i <= int64(due) {
			late[i-1] = time.Since(tick)
			if i == int64(due) {
				close(all)
			}
		}
		return nil
	})))
	store := func(kind string, count int, start func() time.Time) {
		var wg sync.WaitGroup
		for w := range 64 {
			wg.Go(func() {
				for i := w; i < count; i += 64 {
					err := s.Schedule(b.Context(), carillon.Schedule{
						Name: kind + strconv.Itoa(i), Spec: carillon.Every(24 * time.Hour), Start: start(), Job: carillon.Job{Name: "stamp"},
					})
					if !assert.NoError(b, err) {
						return
					}
				}
			})
		}
		wg.Wait()
	}
	begun := time.Now()
	store("parked", parked, func() time.Time { return begun.Add(100 * time.Hour) })
	rate := float64(parked) / time.Since(begun).Seconds()
	perSchedule := 150 * time.Microsecond // generous
	tick = time.Now().Add(time.Duration(due)*perSchedule + 2*time.Second).Truncate(time.Millisecond)
	store("due", due, func() time.Time { return tick })
	require.True(b, time.Now().Before(tick), "storing took too long for this machine")
	require.NoError(b, s.Start(b.Context()))
	<-all
	b.ReportMetric(float64(due)/late[due-1].Seconds(), "starts/s")
	if parked > 0 {
		b.ReportMetric(rate, "stored/s")
	}
	report(b, late)
	require.NoError(b, s.Shutdown(context.Background()))
}

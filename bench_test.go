package carillon_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
)

// The benchmarks show what the README says about time: `make bench`.

// started returns a scheduler on a Redis of its own and a channel that gets the
// moment each job of the name "stamp" starts.
func started(b *testing.B) (*carillon.Scheduler, *redistest.Server, <-chan time.Time) {
	b.Helper()
	server := redistest.Single(b)
	s, err := carillon.New(server.Client(b), carillon.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	stamps := make(chan time.Time, 1)
	require.NoError(b, s.Handle("stamp", carillon.HandlerFunc(func(context.Context, *carillon.Execution) error {
		stamps <- time.Now()
		return nil
	})))
	require.NoError(b, s.Start(b.Context()))
	b.Cleanup(func() { require.NoError(b, s.Shutdown(context.Background())) })
	return s, server, stamps
}

// report prints percentiles instead of the mean time of an iteration.
func report(b *testing.B, took []time.Duration) {
	b.Helper()
	slices.Sort(took)
	for name, q := range map[string]float64{"p50-ms": 0.50, "p99-ms": 0.99, "max-ms": 1} {
		i := min(int(q*float64(len(took))), len(took)-1)
		b.ReportMetric(float64(took[i].Microseconds())/1000, name)
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkPickup measures the time from Submit on an idle system to the start
// of the handler.
func BenchmarkPickup(b *testing.B) {
	s, _, stamps := started(b)
	var took []time.Duration
	for b.Loop() {
		<-time.After(5 * time.Millisecond) // idle again
		begun := time.Now()
		_, err := s.Submit(b.Context(), carillon.Job{Name: "stamp"})
		require.NoError(b, err)
		took = append(took, (<-stamps).Sub(begun))
	}
	report(b, took)
}

// BenchmarkLateness measures how long after its time a delayed job starts.
func BenchmarkLateness(b *testing.B) {
	s, _, stamps := started(b)
	var took []time.Duration
	for b.Loop() {
		at := time.Now().Add(30 * time.Millisecond)
		_, err := s.Submit(b.Context(), carillon.Job{Name: "stamp", RunAt: at})
		require.NoError(b, err)
		took = append(took, (<-stamps).Sub(at))
	}
	report(b, took)
}

// BenchmarkIdle counts the commands an idle instance sends.
func BenchmarkIdle(b *testing.B) {
	_, server, _ := started(b)
	rdb := server.Client(b)
	processed := func() int {
		n := 0
		for line := range strings.Lines(rdb.Info(b.Context(), "commandstats").Val()) {
			// Commands within scripts count for the script.
			for _, sent := range []string{"evalsha", "eval", "xreadgroup", "ping", "subscribe", "info", "smembers"} {
				if rest, ok := strings.CutPrefix(line, "cmdstat_"+sent+":calls="); ok {
					n += atoi(rest)
				}
			}
		}
		return n
	}
	for b.Loop() {
		before, begun := processed(), time.Now()
		<-time.After(10 * time.Second)
		b.ReportMetric(float64(processed()-before)/time.Since(begun).Seconds(), "commands/s")
	}
	b.ReportMetric(0, "ns/op")
}

func atoi(s string) int {
	n := 0
	for _, c := range s {
		if c < '0' || c > '9' {
			break
		}
		n = 10*n + int(c-'0')
	}
	return n
}

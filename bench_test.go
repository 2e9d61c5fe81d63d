package carillon_test

import (
	"bufio"
	"context"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
)

// The benchmarks show what the README says about time: `make bench-go`.

// started returns a scheduler on a Redis of its own and a channel that gets the
// moment each job of the name "stamp" starts.
func started(b *testing.B) (*carillon.Scheduler, <-chan time.Time) {
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
	return s, stamps
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
	s, stamps := started(b)
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
	s, stamps := started(b)
	var took []time.Duration
	for b.Loop() {
		at := time.Now().Add(30 * time.Millisecond)
		_, err := s.Submit(b.Context(), carillon.Job{Name: "stamp", RunAt: at})
		require.NoError(b, err)
		took = append(took, (<-stamps).Sub(at))
	}
	report(b, took)
}

// BenchmarkIdle counts the commands that an instance sends while there is
// nothing to do, those of go-redis itself included.
func BenchmarkIdle(b *testing.B) {
	b.Run("single", func(b *testing.B) {
		server := redistest.Single(b)
		idle(b, server.Client(b), server)
	})
	b.Run("cluster", func(b *testing.B) {
		cluster := redistest.NewCluster(b)
		idle(b, cluster.Client(b), cluster.Nodes()[:3]...) // the masters; replicas only repeat
	})
}

func idle(b *testing.B, rdb redis.UniversalClient, servers ...*redistest.Server) {
	b.Helper()
	s, err := carillon.New(rdb, carillon.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	require.NoError(b, s.Handle("stamp", carillon.HandlerFunc(func(context.Context, *carillon.Execution) error { return nil })))
	require.NoError(b, s.Start(b.Context()))
	defer func() { require.NoError(b, s.Shutdown(context.Background())) }()
	var count atomic.Int64
	for _, server := range servers {
		watch(b, server, func(line string) {
			// Other commands run within scripts, or between the servers.
			if !strings.Contains(line, " lua]") && !strings.Contains(strings.ToLower(line), "replconf") {
				count.Add(1)
			}
		})
	}
	sent := func() int64 { return count.Load() }
	for b.Loop() {
		<-time.After(time.Second) // the start is over
		before, begun := sent(), time.Now()
		<-time.After(20 * time.Second)
		b.ReportMetric(float64(sent()-before)/time.Since(begun).Seconds(), "commands/s")
	}
	b.ReportMetric(0, "ns/op")
}

// watch shows every command a server executes, until the test ends.
func watch(b testing.TB, server *redistest.Server, see func(line string)) {
	b.Helper()
	conn, err := net.Dial("tcp", server.Addr())
	require.NoError(b, err)
	b.Cleanup(func() { _ = conn.Close() })
	_, err = conn.Write([]byte("MONITOR\r\n"))
	require.NoError(b, err)
	lines := bufio.NewScanner(conn)
	require.True(b, lines.Scan())
	require.Equal(b, "+OK", lines.Text())
	go func() { // ends with the connection
		for lines.Scan() {
			see(lines.Text())
		}
	}()
}

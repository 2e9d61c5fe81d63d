package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/redistest"
)

// BenchmarkTurns takes turns of 50,000 schedules that are due together, each with
// one watched job and one tick to record.
func BenchmarkTurns(b *testing.B) {
	const schedules = 50_000
	server := redistest.Single(b)
	s := open(b, server.Client(b), Options{})
	stored := make([]*Schedule, schedules)
	for i := range stored {
		p := definition(fmt.Sprint("schedule-", i), time.UnixMilli(1000))
		_, done, err := s.PutSchedule(b.Context(), p)
		require.NoError(b, err)
		require.True(b, done)
		stored[i] = &Schedule{Name: p.Name, Generation: 1, Next: p.Next}
	}
	var took time.Duration
	for b.Loop() {
		turns := make([]Turn, schedules)
		for i, one := range stored {
			turns[i] = tickTurn(one, one.Next.Add(time.Second), job())
			turns[i].Jobs[0].Watched = true
			turns[i].State = []byte(one.Name)
			turns[i].Ledger = []LedgerEntry{{time.Now(), "fired 12"}}
		}
		begun := time.Now()
		for _, r := range s.Turns(b.Context(), 0, turns) {
			require.NoError(b, r.Err)
			require.True(b, r.Done)
		}
		took += time.Since(begun)
		for i, one := range stored {
			one.Next, one.State = one.Next.Add(time.Second), turns[i].State
		}
	}
	b.ReportMetric(schedules*float64(b.N)/took.Seconds(), "turns/s")
	b.ReportMetric(0, "ns/op")
}

package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// flight is one call of a grouper under test; it lands when told to.
type flight struct {
	ctx   context.Context
	batch []*submission
	land  chan struct{}
}

func newTestGrouper() (*grouper, chan flight) {
	flights := make(chan flight)
	// One call at a time, as if another one lasted.
	g := &grouper{flying: maxTrips - 1, flush: func(ctx context.Context, batch []*submission) {
		f := flight{ctx, batch, make(chan struct{})}
		flights <- f
		<-f.land
		for _, it := range batch {
			it.receipt.ID = "stored " + it.id
		}
	}}
	return g, flights
}

func handed(ids ...string) []*submission {
	var items []*submission
	for _, id := range ids {
		items = append(items, &submission{id: id, data: []byte("x")})
	}
	return items
}

func TestGrouperGathersWhileOneIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, flights := newTestGrouper()
		var callers sync.WaitGroup
		do := func(ids ...string) {
			callers.Go(func() {
				items := handed(ids...)
				assert.NoError(t, g.do(t.Context(), items))
				for i, it := range items {
					assert.Equal(t, "stored "+ids[i], it.receipt.ID)
				}
			})
			synctest.Wait()
		}
		do("first")
		f := <-flights
		assert.Len(t, f.batch, 1, "an idle grouper sends at once")
		do("a", "b")
		do("c")
		close(f.land)
		f = <-flights
		require.Len(t, f.batch, 3)
		assert.Equal(t, "a", f.batch[0].id)
		assert.Equal(t, "c", f.batch[2].id)
		close(f.land)
		callers.Wait()
		g.close()
		assert.Equal(t, maxTrips-1, g.flying)
		assert.ErrorIs(t, g.do(t.Context(), handed("late")), ErrClosed)
	})
}

// The context of a caller rules the flight that has its items alone, and no other.
func TestGrouperFliesUnderWhoseContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, flights := newTestGrouper()
		ctx, cancel := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		do := func(ctx context.Context, id string, want error) {
			callers.Go(func() { assert.ErrorIs(t, g.do(ctx, handed(id)), want) })
			synctest.Wait()
		}
		do(ctx, "alone", nil)
		alone := <-flights
		do(ctx, "leaves", ErrUncertain)
		do(t.Context(), "stays", nil)
		close(alone.land)
		together := <-flights
		require.NoError(t, alone.ctx.Err())
		cancel()
		synctest.Wait()
		require.ErrorIs(t, alone.ctx.Err(), context.Canceled)
		assert.NoError(t, together.ctx.Err())
		assert.Len(t, together.batch, 2)
		close(together.land)
		callers.Wait()
		do(t.Context(), "last", nil)
		close((<-flights).land)
		callers.Wait()
		g.close()
	})
}

func TestGrouperHasSomeCallsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, flights := newTestGrouper()
		g.flying = 0
		var callers sync.WaitGroup
		for i := range maxTrips + 2 {
			callers.Go(func() { assert.NoError(t, g.do(t.Context(), handed(fmt.Sprint(i)))) })
			synctest.Wait()
		}
		var up []flight
		for range maxTrips {
			up = append(up, <-flights)
		}
		synctest.Wait()
		select {
		case f := <-flights:
			t.Errorf("%d more jobs are in flight", len(f.batch))
		default:
		}
		close(up[0].land)
		f := <-flights
		assert.Len(t, f.batch, 2, "those that waited travel together")
		close(f.land)
		close(up[1].land)
		callers.Wait()
		g.close()
		assert.Zero(t, g.flying)
	})
}

func TestGrouperWithdrawsWhatWasNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, flights := newTestGrouper()
		result := make(chan error, 2)
		go func() { result <- g.do(t.Context(), handed("in flight")) }()
		f := <-flights
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { result <- g.do(ctx, handed("waiting")) }()
		synctest.Wait()
		gone := errors.New("the caller has gone")
		cancel(gone)
		err := <-result
		require.ErrorIs(t, err, ErrUnavailable, "it was surely not sent")
		assert.NotErrorIs(t, err, ErrUncertain)
		assert.ErrorIs(t, err, gone)
		close(f.land)
		require.NoError(t, <-result)
		g.close()
		select {
		case f := <-flights:
			t.Errorf("%s was sent after its caller was told that it was not", f.batch[0].id)
		default:
		}
	})
}

func TestGrouperDoesNotKnowWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, flights := newTestGrouper()
		var first sync.WaitGroup
		first.Go(func() { assert.NoError(t, g.do(t.Context(), handed("first"))) })
		before := <-flights
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		result := make(chan error)
		go func() { result <- g.do(ctx, handed("x")) }()
		synctest.Wait()
		close(before.land)
		f := <-flights
		began := time.Now()
		err := <-result
		assert.Equal(t, time.Second, time.Since(began), "it returns when the context ends")
		require.ErrorIs(t, err, ErrUncertain)
		assert.NotErrorIs(t, err, ErrUnavailable)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		close(f.land)
		first.Wait()
		g.close()
	})
}

func TestGrouperRefusesAnEndedContext(t *testing.T) {
	g, _ := newTestGrouper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := g.do(ctx, handed("x"))
	require.ErrorIs(t, err, ErrUnavailable)
	assert.ErrorIs(t, err, context.Canceled)
	g.close()
	assert.NoError(t, g.do(ctx, nil), "nothing to do is done")
}

func TestGrouperBoundsABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, flights := newTestGrouper()
		var callers sync.WaitGroup
		callers.Go(func() { assert.NoError(t, g.do(t.Context(), handed("first"))) })
		f := <-flights
		for i := range 2*maxBatch + 10 {
			callers.Go(func() { assert.NoError(t, g.do(t.Context(), handed(fmt.Sprint(i)))) })
		}
		synctest.Wait()
		close(f.land)
		for _, want := range []int{maxBatch, maxBatch, 10} {
			f := <-flights
			assert.Len(t, f.batch, want)
			close(f.land)
		}
		callers.Wait()
		g.close()
	})
}

func TestChunk(t *testing.T) {
	size := func(n int) int { return n }
	sizes := func(parts [][]int) (out []int) {
		for _, p := range parts {
			out = append(out, len(p))
		}
		return out
	}
	assert.Nil(t, chunk(nil, size))
	assert.Equal(t, []int{maxBatch, 1}, sizes(chunk(make([]int, maxBatch+1), size)))
	assert.Equal(t, []int{1, 1, 1}, sizes(chunk([]int{maxBatchBytes + 1, maxBatchBytes + 1, 1}, size)))
	assert.Equal(t, []int{2, 1}, sizes(chunk([]int{maxBatchBytes - 1, 1, 1}, size)))
}

// What a user put into the client may panic, in the goroutine of a caller who recovers.
func TestGrouperSurvivesAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		panics := true
		g := &grouper{flush: func(context.Context, []*submission) {
			if panics {
				panic("a hook")
			}
		}}
		for range maxTrips + 1 {
			assert.Panics(t, func() { _ = g.do(context.Background(), handed("x")) })
		}
		panics = false
		assert.NoError(t, g.do(context.Background(), handed("y")))
		assert.Zero(t, g.flying)
		g.close()
	})
}

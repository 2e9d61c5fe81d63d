package embedded

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestClockTakesASmallShareOfTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ran, spent time.Duration
		cost := 5 * time.Millisecond
		c := newClock(func(d time.Duration) {
			ran += d
			spent += cost
			time.Sleep(cost)
		})
		began := time.Now()
		for time.Since(began) < 10*time.Second {
			c.advance()
			time.Sleep(100 * time.Microsecond)
		}
		assert.InDelta(t, 10*time.Second, ran, float64(200*time.Millisecond))
		assert.LessOrEqual(t, spent, 10*time.Second/share)
	})
}

func TestClockStandsStillBetweenCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var moves []time.Duration
		c := newClock(func(d time.Duration) { moves = append(moves, d) })
		time.Sleep(time.Hour)
		assert.Empty(t, moves)
		c.advance()
		c.advance()
		assert.Equal(t, []time.Duration{time.Hour}, moves)
	})
}

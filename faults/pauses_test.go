package faults_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
	"github.com/carillon-go/carillon/internal/verify"
)

// A7: etcd's experiment (Jepsen, etcd 3.4.3). Five workers add to a number, one
// at a time by a mutex, and one of them after the other is paused for longer
// than its lease. A register that takes every write loses updates. One that is
// handed the token of the mutex, and refuses older ones, loses none.
func TestA7_RandomPausesMutex(t *testing.T) {
	t.Parallel()
	if full {
		randomPauses(t, false, 2*time.Second, 5*time.Second, 3*time.Second, 200*time.Second)
	} else {
		randomPauses(t, false, 400*time.Millisecond, 900*time.Millisecond, 700*time.Millisecond, 3*time.Second)
	}
}

// A7 with a Lock instead of the mutex.
func TestA7_RandomPausesLock(t *testing.T) {
	onlyFull(t)
	t.Parallel()
	randomPauses(t, true, 2*time.Second, 5*time.Second, 3*time.Second, 200*time.Second)
}

// randomPauses pauses a worker every so often, each time for pause.
func randomPauses(t *testing.T, lock bool, lease, every, pause, lasts time.Duration) {
	c := newCrew(t, redistest.Shared(t), func(w *world) { w.lease = lease })
	register := verify.NewRegister(t)
	for range 5 {
		c.worker(func(a *workerArgs) {
			a.Register, a.Lock, a.Think, a.Concurrency = register.Addr(), lock, lease/20, 1
		})
	}
	job := carillon.Job{Name: "count", Mutex: "count"}
	if lock {
		job.Mutex = ""
	}
	random := dice(t)
	stop := time.Now().Add(lasts)
	submitted := make(chan int)
	go func() { // a few jobs always wait
		n := 0
		for ; time.Now().Before(stop) && t.Context().Err() == nil; n++ {
			c.persist(c.producer, job)
			for n-len(register.Log())/2 > 20 && time.Now().Before(stop) {
				_ = wait(t.Context(), lease/40)
			}
		}
		submitted <- n
	}()
	for time.Now().Before(stop) {
		// Whoever holds the mutex would be the best choice; a random one is fairer.
		p := c.workers[random.IntN(len(c.workers))]
		p.Stop(t)
		_ = wait(t.Context(), pause)
		p.Cont(t)
		c.fault(1)
		_ = wait(t.Context(), every-pause)
	}
	n := <-submitted
	c.finish(min(n, 20))

	var bare, safe int
	for _, a := range register.Log() {
		if a.Key == "unfenced" {
			bare++
		} else if !a.Refused {
			safe++
		}
	}
	lost := bare - register.Value("unfenced")
	t.Logf("A7: %d updates acknowledged, unfenced lost %d (%.1f %%), fenced lost %d, refused %d (lease %v, pause of %v every %v, for %v, lock %v)",
		bare, lost, 100*float64(lost)/float64(max(bare, 1)), safe-register.Value("fenced"), bare-safe, lease, pause, every, lasts, lock)
	assert.Greater(t, safe, 5, "too few updates")
	assert.Equal(t, safe, register.Value("fenced"), "updates lost at the fenced register")
	if full {
		assert.Positive(t, lost, "no pause took effect")
	}
}

package main

import (
	"errors"
	"fmt"
	"time"
)

var drainScenarios = []scenario{
	{name: "drain", quick: 2, run: func(t *trial) error {
		for _, instances := range []int{1, 4} {
			if t.size == quick && instances > 1 {
				break
			}
			q, _, err := t.open()
			if err != nil {
				return err
			}
			row := fmt.Sprintf("drain/%d", instances)
			if err := t.drained(q, row, t.share(200_000, 30_000), standardPayload, work{instances: instances}); err != nil {
				return err
			}
		}
		return nil
	}},
	{name: "sustained", run: sustained},
	{name: "handler", run: func(t *trial) error {
		for _, h := range []struct {
			takes time.Duration
			n     int
		}{{time.Millisecond, 100_000}, {10 * time.Millisecond, 50_000}} {
			q, _, err := t.open()
			if err != nil {
				return err
			}
			takes := func(int, []byte) error { <-time.After(h.takes); return nil }
			row := fmt.Sprintf("handler/%v", h.takes)
			if err := t.drained(q, row, t.share(h.n, 10_000), standardPayload, work{instances: 1, workers: 256, do: takes}); err != nil {
				return err
			}
		}
		return nil
	}, only: []string{ours, "asynq", "gocraft", "river"}}, // bare streams have no pool of workers
	{name: "payload", run: func(t *trial) error {
		for _, p := range []struct {
			name    string
			size, n int
		}{{"50B", standardPayload, 100_000}, {"1KiB", 1 << 10, 100_000}, {"64KiB", 64 << 10, 5_000}} {
			q, _, err := t.open()
			if err != nil {
				return err
			}
			n := t.share(p.n, 5_000)
			if err := t.drained(q, "payload/"+p.name+"/drain", n, p.size, work{instances: 1}); err != nil {
				return err
			}
			if err := t.bulk(q, "payload/"+p.name+"/submit", n, p.size); err != nil {
				return err
			}
		}
		return nil
	}},
	{name: "retry-storm", run: func(t *trial) error {
		q, _, err := t.open()
		if err != nil {
			return err
		}
		failFirst := func(attempt int, _ []byte) error {
			if attempt == 1 {
				return errFirst
			}
			return nil
		}
		if err := t.warm(q); err != nil {
			return err
		}
		all := jobs(t.share(50_000, 10_000), standardPayload, time.Time{})
		begun := time.Now() // retries may only begin when all have failed
		done, err := t.drain(q, all, work{instances: 1, do: failFirst}, len(all))
		if err != nil {
			return err
		}
		t.put("retry-storm", "jobs/s", perSecond(len(all), done.last.Sub(begun)))
		return nil
	}, only: []string{ours, "asynq-eager", "gocraft", "river"}},
}

var errFirst = errors.New("the first attempt fails")

// drained measures how fast a full queue is worked off.
func (t *trial) drained(q queue, row string, n, size int, w work) error {
	if err := t.warm(q); err != nil {
		return err
	}
	done, err := t.drain(q, jobs(n, size, time.Time{}), w, n)
	if err != nil {
		return err
	}
	t.put(row, "jobs/s", done.rate())
	return nil
}

// sustained measures how fast jobs go all the way while 64 goroutines submit
// them one at a time, and pause while 10,000 wait.
func sustained(t *trial) error {
	q, _, err := t.open()
	if err != nil {
		return err
	}
	if err := t.warm(q); err != nil {
		return err
	}
	all := jobs(t.share(200_000, 20_000), standardPayload, time.Time{})
	done := newTally(len(all))
	backlog := make(chan struct{}, 10_000)
	stop, err := q.start(t.ctx, work{instances: 1, do: func(int, []byte) error {
		<-backlog
		done.add()
		return nil
	}})
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := spread(64, len(all), func(i int) error {
		select {
		case backlog <- struct{}{}:
			return q.submit(t.ctx, all[i])
		case <-t.ctx.Done():
			return t.ctx.Err()
		}
	}); err != nil {
		return errors.Join(err, stop())
	}
	if err := errors.Join(done.wait(t.ctx), stop()); err != nil {
		return err
	}
	t.put("sustained", "jobs/s", perSecond(len(all), done.last.Sub(begun)))
	return nil
}

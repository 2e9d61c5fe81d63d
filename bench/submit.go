package main

import (
	"fmt"
	"time"
)

var submitScenarios = []scenario{
	{name: "submit/bulk", quick: 2, run: func(t *trial) error {
		q, _, err := t.open()
		if err != nil {
			return err
		}
		return t.bulk(q, "submit/bulk", t.share(200_000, 50_000), standardPayload)
	}},
	{name: "submit/single", quick: 2, run: func(t *trial) error {
		q, _, err := t.open()
		if err != nil {
			return err
		}
		return t.singles(q, "submit/single", t.share(200_000, 30_000))
	}},
}

// bulk measures how fast n jobs are stored together.
func (t *trial) bulk(q queue, row string, n, size int) error {
	all := jobs(n, size, time.Time{})
	if err := q.submitMany(t.ctx, all[:n/10]); err != nil { // warm
		return err
	}
	begun := time.Now()
	if err := q.submitMany(t.ctx, all); err != nil {
		return err
	}
	t.put(row, "jobs/s", perSecond(n, time.Since(begun)))
	return nil
}

// singles measures how fast jobs are stored that are submitted one at a time.
// One goroutine submits a tenth of them, because it would take long.
func (t *trial) singles(q queue, row string, many int) error {
	for _, goroutines := range []int{1, 16, 256} {
		n := many
		if goroutines == 1 {
			n = many / 10
		}
		all := jobs(n, standardPayload, time.Time{})
		submit := func(i int) error { return q.submit(t.ctx, all[i]) }
		if err := spread(goroutines, n/10, submit); err != nil { // warm
			return err
		}
		begun := time.Now()
		if err := spread(goroutines, n, submit); err != nil {
			return err
		}
		t.put(fmt.Sprintf("%s/%d", row, goroutines), "jobs/s", perSecond(n, time.Since(begun)))
	}
	return nil
}

package verify

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
)

// ended is a job that succeeded in the last of some attempts.
func ended(tokens ...uint64) *carillon.JobInfo {
	j := &carillon.JobInfo{State: carillon.StateSucceeded, Attempt: len(tokens)}
	for i, token := range tokens {
		a := carillon.Attempt{Number: i + 1, Token: token, Outcome: carillon.OutcomeRetrying}
		if i == len(tokens)-1 {
			a.Outcome = carillon.OutcomeSucceeded
		}
		j.Attempts = append(j.Attempts, a)
	}
	return j
}

// Every mistake an engine can make shows in the verdict, and in one word of it.
func TestJudge(t *testing.T) {
	t.Parallel()
	ran := func(q *Queue, tokens ...uint64) {
		for i, token := range tokens {
			q.Ran("a", Run{Attempt: i + 1, Token: token})
		}
	}
	for name, c := range map[string]struct {
		note     func(q *Queue)
		info     *carillon.JobInfo
		outcomes map[string]int
		want     string
	}{
		"done":          {func(q *Queue) { q.Submitted("a", nil); ran(q, 5) }, ended(5), map[string]int{"a": 1}, ""},
		"done at last":  {func(q *Queue) { q.Submitted("a", nil); ran(q, 5, 6) }, ended(5, 6), map[string]int{"a": 1}, ""},
		"perhaps":       {func(q *Queue) { q.Trying("a") }, nil, nil, ""},
		"forgotten":     {func(q *Queue) { q.Submitted("a", nil) }, nil, nil, "forgotten"},
		"stalled":       {func(q *Queue) { q.Submitted("a", nil) }, &carillon.JobInfo{State: carillon.StateQueued}, nil, "lost"},
		"never ran":     {func(q *Queue) { q.Submitted("a", nil) }, ended(5), map[string]int{"a": 1}, "lost"},
		"from nowhere":  {func(q *Queue) { ran(q, 5) }, ended(5), nil, "phantom"},
		"only an end":   {func(*Queue) {}, nil, map[string]int{"a": 1}, "phantom"},
		"ended twice":   {func(q *Queue) { q.Submitted("a", nil); ran(q, 5) }, ended(5), map[string]int{"a": 2}, "twice"},
		"token shrinks": {func(q *Queue) { q.Submitted("a", nil); ran(q, 6, 5) }, ended(6, 5), map[string]int{"a": 1}, "stale"},
		"token repeats": {func(q *Queue) { q.Submitted("a", nil); ran(q, 5, 5) }, ended(5, 5), map[string]int{"a": 1}, "stale"},
		"old one won":   {func(q *Queue) { q.Submitted("a", nil); ran(q, 7) }, ended(5), map[string]int{"a": 1}, "stale"},
	} {
		var q Queue
		c.note(&q)
		v, err := q.Judge(c.outcomes, func(string) (*carillon.JobInfo, error) {
			if c.info == nil {
				return nil, carillon.ErrNotFound
			}
			return c.info, nil
		})
		require.NoError(t, err)
		for word, found := range map[string][]string{
			"lost": v.Lost, "forgotten": v.Forgotten, "phantom": v.Phantom, "twice": v.Twice, "stale": v.Stale,
		} {
			assert.Equal(t, word == c.want, len(found) > 0, "%s: %s: %v", name, word, found)
		}
	}
}

func TestTicks(t *testing.T) {
	t.Parallel()
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	job := func(tick, created int) *carillon.JobInfo {
		return &carillon.JobInfo{ID: "job", Tick: at(tick), SubmittedAt: at(created)}
	}
	planned := []time.Time{at(10), at(20)}
	for name, c := range map[string]struct {
		jobs []*carillon.JobInfo
		want string
	}{
		"all":     {[]*carillon.JobInfo{job(10, 10), job(20, 21)}, ""},
		"missing": {[]*carillon.JobInfo{job(10, 10)}, "has no job"},
		"double":  {[]*carillon.JobInfo{job(10, 10), job(20, 20), job(20, 20)}, "has 2 jobs"},
		"early":   {[]*carillon.JobInfo{job(10, 9), job(20, 20)}, "early"},
		"late":    {[]*carillon.JobInfo{job(10, 10), job(20, 25)}, "late"},
		"extra":   {[]*carillon.JobInfo{job(10, 10), job(20, 20), job(30, 30)}, "no planned tick"},
	} {
		found := Ticks(planned, c.jobs, 2*time.Second)
		if c.want == "" {
			assert.Empty(t, found, name)
			continue
		}
		require.Len(t, found, 1, name)
		assert.Contains(t, found[0], c.want, name)
	}
}

package carillon_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/faulthook"
)

// While a call is under way, the outcomes that come do not wait for it once they are
// many, and none of them is left behind.
func TestOutcomesPassACallThatHangs(t *testing.T) {
	t.Parallel()
	const half, all = 128, 2*128 + 100
	fastPlaces(t, func(t *testing.T, p *place) {
		held, release := make(chan struct{}), make(chan struct{})
		rdb := p.hooked(t, &faulthook.Hook{
			At: 1, Fault: faulthook.KillBefore, Kill: func() { close(held); <-release },
			Match: func(words []string) bool {
				return words[0] == "evalsha" && slices.ContainsFunc(words, func(w string) bool { return strings.HasSuffix(w, ":h:s") })
			},
		})
		gate := make(chan struct{})
		s := p.run2(t, rdb, handlers{
			"first": succeed,
			"job":   func(context.Context, *carillon.Execution) error { <-gate; return nil },
		}, func(c *carillon.Config) { c.Concurrency = all + 1 })
		first := submit(t, s, carillon.Job{Name: "first"})
		receive(t, held, "the first outcome is on its way")

		jobs := make([]carillon.Job, all)
		for i := range jobs {
			jobs[i].Name = "job"
		}
		_, err := s.SubmitMany(t.Context(), jobs)
		require.NoError(t, err)
		close(gate)
		succeeded := func() int {
			c, err := s.Counts(t.Context())
			require.NoError(t, err)
			return c.Succeeded
		}
		eventually(t, "others are recorded", func() bool { return succeeded() >= half })
		assert.Equal(t, carillon.StateRunning, get(t, s, first).State)
		close(release)
		eventually(t, "all are recorded", func() bool { return succeeded() == all+1 })
		shutdown(t, s)
		auditDrained(t, p.rdb, p.namespace)
	})
}

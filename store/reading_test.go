package store

import (
	"slices"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/faulthook"
	"github.com/carillon-go/carillon/internal/knobs"
)

// A job that moves on while it is read is seen as it was before or after, not as
// a mix of both.
func TestReadWhileTheJobMovesOn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		asks  string // with which command the reader looks where the record says the job is
		start func(w *worker)
		moves func(w *worker, e *Entry) // after the record was read, before that command
		want  Job
	}{
		"a worker ends its attempt": {
			"xpending", func(*worker) {},
			func(w *worker, e *Entry) { require.NoError(w.t, w.settle(e, Decline)) },
			Job{State: Scheduled, Attempts: []Attempt{{Outcome: Decline}}},
		},
		"a worker ends it": {
			"xpending", func(*worker) {},
			func(w *worker, e *Entry) { require.NoError(w.t, w.settle(e, Succeed)) },
			Job{State: Succeeded, Attempts: []Attempt{{Outcome: Succeed}}},
		},
		"a worker gives it back and takes it again": {
			"xpending", func(*worker) {},
			func(w *worker, e *Entry) {
				require.NoError(w.t, w.settle(e, Release))
				w.take(1)
			},
			Job{State: Running, Attempts: []Attempt{{Outcome: Release}, {Outcome: Underway}}},
		},
		"it is promoted": {
			"zscore", func(w *worker) { require.NoError(w.t, w.settle(w.take(1)[0], Retry)) },
			func(w *worker, _ *Entry) {
				_, err := w.Promote(w.t.Context(), 0, func(string, error) {})
				require.NoError(w.t, err)
			},
			Job{State: Queued, Attempts: []Attempt{{Outcome: Retry}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, rdb := inMemory(t, Options{})
			w := work(t, s, "worker")
			submit(t, s, "job", job())
			c.start(w)
			var held *Entry
			if c.asks == "xpending" {
				held = w.take(1)[0]
			}
			moves := &faulthook.Hook{
				At: 1, Fault: faulthook.KillBefore,
				Match: func(words []string) bool { return slices.Contains(words, c.asks) },
				Kill:  func() { c.moves(w, held) },
			}
			slow := redis.NewClient(rdb.Options())
			t.Cleanup(func() { _ = slow.Close() })
			knobs.Hook(slow, moves)
			reader := open(t, slow, Options{Namespace: s.options.Namespace})
			j, err := reader.Get(t.Context(), "job")
			require.NoError(t, err)
			require.NotEmpty(t, moves.Fired())
			assert.Equal(t, c.want.State, j.State)
			require.Len(t, j.Attempts, len(c.want.Attempts))
			for i, a := range c.want.Attempts {
				assert.Equal(t, a.Outcome, j.Attempts[i].Outcome)
			}
		})
	}
}

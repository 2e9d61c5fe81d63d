package carillontest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
)

// witness is a test that fails without failing the test.
type witness struct {
	testing.TB
	fatal, errors []string
}

func (w *witness) Helper() {}

func (w *witness) Fatalf(format string, args ...any) {
	w.fatal = append(w.fatal, fmt.Sprintf(format, args...))
	runtime.Goexit()
}

func (w *witness) Errorf(format string, args ...any) {
	w.errors = append(w.errors, fmt.Sprintf(format, args...))
}

// fails runs f in an Env that it does not fail for good, and returns with which
// message it failed.
func fails(t *testing.T, f func(env *Env)) (message string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &witness{TB: t}
		env := New(w, carillon.Config{})
		require.NoError(t, env.Scheduler.Handle("remind", carillon.HandlerFunc(func(_ context.Context, x *carillon.Execution) error {
			if x.Attempt == 1 {
				return errors.New("the mail server is busy\nsecond line")
			}
			return nil
		})))
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			f(env)
		}()
		<-ended
		require.Len(t, w.fatal, 1, "it is to fail once")
		message = w.fatal[0]
	})
	return message
}

var reminder = carillon.Job{
	Name: "remind", ID: "r1", Args: map[string]string{"to": "ada"}, Delay: time.Hour,
	Retry: &carillon.Retry{MaxAttempts: 2, Delays: []time.Duration{2 * time.Hour}},
}

func TestFailureMessages(t *testing.T) {
	for _, c := range []struct {
		name string
		f    func(env *Env)
		want string
	}{
		{
			"too few runs, before the job is due", func(env *Env) {
				env.Start()
				env.Submit(reminder)
				env.Advance(59 * time.Minute)
				env.RequireRuns("remind", 1)
			},
			`carillontest: at +59m0s (2000-01-01 00:59:00 UTC): "remind" ran 0 times, want 1
runs of "remind": none
jobs of "remind":
	job r1 of "remind" is scheduled, due at +1h0m0s (2000-01-01 01:00:00 UTC)`,
		},
		{
			"too many runs, of which one failed", func(env *Env) {
				env.Start()
				env.Submit(reminder)
				env.Advance(3 * time.Hour)
				env.RequireRuns("remind", 1)
			},
			`carillontest: at +3h0m0s (2000-01-01 03:00:00 UTC): "remind" ran 2 times, want 1
runs of "remind":
	+1h0m0s remind r1 attempt 1 args {"to":"ada"}: error: the mail server is busy
	+3h0m0s remind r1 attempt 2 args {"to":"ada"}: ok
jobs of "remind":
	job r1 of "remind" is succeeded since +3h0m0s (2000-01-01 03:00:00 UTC)`,
		},
		{
			"another name", func(env *Env) {
				env.Start()
				env.Submit(reminder)
				env.Advance(time.Hour)
				env.RequireRunsAt("remember", time.Hour)
			},
			`carillontest: at +1h0m0s (2000-01-01 01:00:00 UTC): "remember" ran at
	no time, want
	+1h0m0s
runs of "remember": none
runs of others: map[remind:1]
jobs of "remember": none`,
		},
		{
			"not started", func(env *Env) {
				env.Submit(carillon.Job{Name: "remind", ID: "r1"})
				env.RequireRuns("", 1)
			},
			`carillontest: at 2000-01-01 00:00:00 UTC: all handlers ran 0 times, want 1
nothing was started: call Start
runs of all handlers: none
jobs of all handlers:
	job r1 of "remind" is queued`,
		},
		{
			"another state", func(env *Env) {
				env.Start()
				env.Submit(reminder)
				env.Advance(2 * time.Hour)
				env.RequireState("r1", carillon.StateFailed)
			},
			`carillontest: at +2h0m0s (2000-01-01 02:00:00 UTC): job r1 of "remind" is retrying, ` +
				`due at +3h0m0s (2000-01-01 03:00:00 UTC), want failed
	attempt 1: retrying the mail server is busy`,
		},
		{
			"an unknown job", func(env *Env) { env.RequireState("r2", carillon.StateQueued) },
			"carillontest: at 2000-01-01 00:00:00 UTC: job r2 is not known; it was never submitted in this namespace, or its retention has passed",
		},
		{
			"a job that is not gone", func(env *Env) {
				env.Submit(reminder)
				env.RequireGone("r1")
			},
			`carillontest: at 2000-01-01 00:00:00 UTC: job r1 of "remind" is scheduled, due at 2000-01-01 01:00:00 UTC, want it gone`,
		},
		{
			"a job that does not finish in time", func(env *Env) {
				env.Start()
				env.Submit(reminder)
				env.Await("r1", time.Minute)
			},
			`carillontest: at +1m0s (2000-01-01 00:01:00 UTC): job r1 of "remind" is scheduled, ` +
				`due at +1h0m0s (2000-01-01 01:00:00 UTC); want it finished within 1m0s`,
		},
		{
			"an invalid job", func(env *Env) { env.Submit(carillon.Job{}) },
			"carillontest: carillon: submit: invalid: Name: is empty",
		},
		{
			"an invalid Config", func(env *Env) { env.Instance(carillon.Config{Concurrency: -1}) },
			"carillontest: carillon: new: invalid: Concurrency: -1 is not between 0 and 100000",
		},
		{
			"back in time", func(env *Env) { env.Advance(-time.Second) },
			"carillontest: Advance(-1s): the clock does not run backwards",
		},
		{
			"back to a date", func(env *Env) { env.AdvanceTo(time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC)) },
			"carillontest: AdvanceTo(1999-12-31 00:00:00 +0000 UTC): it is 2000-01-01 00:00:00 +0000 UTC already",
		},
		{
			"started twice", func(env *Env) {
				env.Start()
				env.Start()
			},
			"carillontest: carillon: start: closed: a Scheduler runs once",
		},
	} {
		t.Run(c.name, func(t *testing.T) { assert.Equal(t, c.want, fails(t, c.f)) })
	}
}

func TestLongListsAreCut(t *testing.T) {
	got := fails(t, func(env *Env) {
		env.Start()
		for i := range 30 {
			env.Submit(carillon.Job{Name: "remind", Args: strings.Repeat("é", 200), Delay: time.Duration(i)})
		}
		env.Advance(time.Minute)
		env.RequireRunsAt("remind")
	})
	assert.Less(t, strings.Count(got, "\n"), 60)
	assert.Contains(t, got, "more\n")
	assert.Contains(t, got, "é…")
	assert.True(t, strings.HasSuffix(got, "… and more"))
}

func TestHandlerThatNeverEnds(t *testing.T) {
	var w *witness
	forever := make(chan struct{})
	synctest.Test(t, func(t *testing.T) {
		w = &witness{TB: t}
		forever = make(chan struct{})
		t.Cleanup(func() { close(forever) }) // runs after the Env has looked
		env := New(w, carillon.Config{})
		require.NoError(t, env.Scheduler.Handle("stuck", carillon.HandlerFunc(func(context.Context, *carillon.Execution) error {
			<-forever
			return nil
		})))
		env.Start()
		env.Submit(carillon.Job{Name: "stuck", ID: "s1"})
		env.Advance(0)
	})
	require.Len(t, w.errors, 1)
	assert.Equal(t, `carillontest: the handler of "stuck" (job s1, attempt 1) is still running 24h0m0s after the end of the test; `+
		"it ignores the end of its context", w.errors[0])
}

func TestOutsideOfABubble(t *testing.T) {
	w := &witness{TB: t}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		New(w, carillon.Config{})
	}()
	<-ended
	require.Len(t, w.fatal, 1)
	assert.Contains(t, w.fatal[0], "not in a bubble")
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		w := &watch{name: "TestX", out: &out, ended: make(chan struct{})}
		w.joined.Go(func() { w.run(time.Minute) })
		done := w.during("Advance(1h0m0s)")
		time.Sleep(time.Hour)
		done()
		for range 100 {
			done := w.during("Advance(1s)")
			time.Sleep(30 * time.Second)
			done()
		}
		time.Sleep(time.Hour)
		w.stop()
		assert.Equal(t, 1, strings.Count(out.String(), "\n"), "once, and only of what takes long")
		assert.Contains(t, out.String(), "carillontest: TestX: Advance(1h0m0s) takes more than 1m0s of real time.")
	})
}

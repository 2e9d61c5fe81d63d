package faults_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/audit"
	"github.com/carillon-go/carillon/internal/faulthook"
	"github.com/carillon-go/carillon/internal/knobs"
	"github.com/carillon-go/carillon/internal/proctest"
	"github.com/carillon-go/carillon/internal/redistest"
	"github.com/carillon-go/carillon/internal/verify"
)

// playerArgs tell a process which scenario to play, and where to die.
type playerArgs struct {
	Addr, Namespace, Ledger string
	Scenario                string
	At                      int
	Fault                   faulthook.Fault
}

// runPlayer is a process that plays a scenario and writes down what it does. It
// kills itself at a command, and otherwise ends well.
func runPlayer(args playerArgs) error {
	logging.Disable()
	ledger, err := proctest.OpenLedger(args.Ledger)
	if err != nil {
		return err
	}
	sc := scenarios[args.Scenario]
	rdb := redis.NewClient(&redis.Options{Addr: args.Addr})
	hook := &faulthook.Hook{At: args.At, Fault: args.Fault}
	knobs.Hook(rdb, hook)
	s, err := carillon.New(rdb, carillon.Config{
		Namespace: args.Namespace, Segments: sc.segments, LeaseTTL: sweepLease, Concurrency: 16,
		Retry:  carillon.Retry{Delays: []time.Duration{20 * time.Millisecond}},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	book := bookkeeper{ledger}
	if err := s.Use(noted(book)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	if err := perform(ctx, sc, s, book, sweepLease); err != nil {
		return err
	}
	return ledger.Add(proctest.Line{Event: "curtain", Attempt: hook.Count()})
}

// bookkeeper takes notes in a ledger.
type bookkeeper struct{ ledger *proctest.Ledger }

func (b bookkeeper) Trying(id string) { b.add(proctest.Line{Event: "trying", Job: id}) }
func (b bookkeeper) Ran(id string, r verify.Run) {
	b.add(proctest.Line{Event: "ran", Job: id, Attempt: r.Attempt, Token: r.Token})
}
func (b bookkeeper) Submitted(id string, err error) {
	line := proctest.Line{Event: "uncertain", Job: id}
	switch {
	case err == nil:
		line.Event = "acked"
	case errors.Is(err, carillon.ErrUnavailable):
		line.Event = "refused"
	}
	b.add(line)
}

func (b bookkeeper) add(line proctest.Line) {
	if err := b.ledger.Add(line); err != nil {
		panic(err) // without a ledger nothing can be proved
	}
}

// readInto repeats to a checker what ledgers say.
func readInto(q *verify.Queue, lines []proctest.Line) {
	for _, l := range lines {
		switch l.Event {
		case "trying":
			q.Trying(l.Job)
		case "ran":
			q.Ran(l.Job, verify.Run{Attempt: l.Attempt, Token: l.Token})
		case "acked":
			q.Submitted(l.Job, nil)
		case "refused":
			q.Submitted(l.Job, carillon.ErrUnavailable)
		case "uncertain":
			q.Submitted(l.Job, carillon.ErrUncertain)
		}
	}
}

// A4: for every command that a scenario sends, a process that plays it is
// killed just before it is sent and just after it was executed. Another
// instance finishes what the dead one left.
func TestA4_KilledAtEveryCommand(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t)
	for _, sc := range scenarios {
		for _, how := range []faulthook.Fault{faulthook.KillBefore, faulthook.KillAfter} {
			t.Run(sc.name+"/"+how.String(), func(t *testing.T) {
				t.Parallel()
				sweep(t, sc, func(t *testing.T, w *world, k int) (sent int, at string) {
					dir := t.TempDir()
					p := proctest.Start(t, "player", playerArgs{
						Addr: server.Addr(), Namespace: w.namespace, Ledger: dir, Scenario: sc.name, At: k, Fault: how,
					})
					state := p.Wait(t, soon)
					lines, err := proctest.ReadLedgers(dir)
					require.NoError(t, err)
					readInto(&w.queue, lines)
					if state.Success() {
						return lines[len(lines)-1].Attempt, ""
					}
					require.False(t, state.Exited(), "it was killed by a signal")
					w.rescue(sc)
					return 0, "killed"
				}, server)
			})
		}
	}
}

// outlived waits until the one instance that is left has removed the others.
func (w *world) outlived() {
	w.t.Helper()
	w.eventually("the dead are buried", func() bool {
		r, err := audit.Take(w.t.Context(), w.admin, w.namespace)
		return err == nil && len(r.Instances) == 1
	})
}

// rescue lets another instance finish what a dead process left.
func (w *world) rescue(sc *scenario) {
	p := &play{s: w.scheduler(w.admin), notes: &w.queue, lease: w.lease, running: make(chan string, 16)}
	for name, h := range sc.handlers(p) {
		require.NoError(w.t, p.s.Handle(name, h))
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), soon)
	defer cancel()
	require.NoError(w.t, p.s.Start(ctx))
	w.outlived()
	if sc.rescued != nil {
		sc.rescued(w, p.s)
	}
}

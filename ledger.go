package carillon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/carillon-go/carillon/internal/policy"
	"github.com/carillon-go/carillon/store"
)

// TickOutcome is what became of a planned time.
type TickOutcome string

// The outcomes of a tick.
const (
	TickFired    TickOutcome = "fired"
	TickSkipped  TickOutcome = "skipped"
	TickMerged   TickOutcome = "merged"   // with an earlier tick, whose run was for both
	TickWaiting  TickOutcome = "waiting"  // for the end of a run
	TickReplayed TickOutcome = "replayed" // by a backfill
)

// TickInfo is a line of a schedule's ledger: what became of a tick, or of all
// ticks from From to Tick.
type TickInfo struct {
	Tick    time.Time
	From    time.Time // zero: the line is about Tick alone
	Outcome TickOutcome
	Reason  string        // in words, for what was skipped or merged
	At      time.Time     // when that was decided, by Redis' clock
	Late    time.Duration // how long after Tick it was fired
	JobID   string        // of the job, or of the first shard; empty if there is none
}

// Ledger returns the recorded ticks of a schedule between two instants, both
// included, oldest first; zero instants are open ends. The last 200 lines of 30
// days are kept, also when the schedule is deleted. Ticks in the future are not
// recorded.
func (s *Scheduler) Ledger(ctx context.Context, name string, from, to time.Time) ([]TickInfo, error) {
	err := validText("Name", name, maxScheduleBytes)
	var stored *store.Schedule
	if err == nil { // before its ledger: what is recorded meanwhile is of this definition or a later one
		if stored, err = s.scheduleIfAny(ctx, name); errors.Is(err, ErrDamaged) {
			err = nil // its ledger can be read all the same
		}
	}
	var entries []store.LedgerEntry
	if err == nil {
		entries, err = s.store.Ledger(ctx, name, from, to, ledgerPage)
	}
	if err != nil {
		return nil, opError("ledger", clipped(name), err)
	}
	out := make([]TickInfo, 0, len(entries))
	for _, e := range entries {
		r, err := policy.ParseRecord(e.Tick, e.Text)
		if err != nil {
			continue // a foreign hand
		}
		out = append(out, tickInfo(name, r.Now(generationOf(stored))))
	}
	return out, nil
}

const ledgerPage = 10_000

// scheduleIfAny reads a schedule, nil if there is none.
func (s *Scheduler) scheduleIfAny(ctx context.Context, name string) (*store.Schedule, error) {
	stored, err := s.store.GetSchedule(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return nil, nil //nolint:nilnil // as documented
	}
	return stored, err
}

// generationOf is that of a schedule, 0 if there is none.
func generationOf(stored *store.Schedule) int64 {
	if stored == nil {
		return 0
	}
	return stored.Generation
}

func tickInfo(name string, r policy.Record) TickInfo {
	t := TickInfo{Tick: r.Tick, From: r.From, At: r.At}
	switch r.Outcome {
	case policy.Fired, policy.Replayed:
		t.Outcome = TickFired
		if r.Outcome == policy.Replayed {
			t.Outcome = TickReplayed
		} else {
			t.Late = max(0, r.At.Sub(r.Tick))
		}
		of := suffix(r.Tick, r.Kind)
		if r.Sharded {
			of = shardSuffix(of, 0)
		}
		t.JobID = store.TickID(name, r.Generation, of) + r.Home
	case policy.Merged:
		t.Outcome, t.Reason = TickMerged, "with the missed tick "+stamp(r.Into)+", which ran for all of them"
	case policy.Waiting:
		t.Outcome, t.Reason = TickWaiting, "for the end of a run"
	default:
		t.Outcome, t.Reason = TickSkipped, reasonOf(r)
	}
	return t
}

func reasonOf(r policy.Record) string {
	switch r.Why {
	case policy.Missed:
		return "it was missed: no instance fired it in time, and the misfire policy leaves it out"
	case policy.TooOld:
		return "it was missed, and is beyond the bounds of what is made up for"
	case policy.Overlapped:
		return "the run of " + stamp(r.Into) + " was unfinished"
	case policy.BufferFull:
		return "a run was unfinished, and no further tick may wait"
	case policy.Replaced:
		return "while it waited for the end of a run, the tick " + stamp(r.Into) + " took its place"
	case policy.RunFailed:
		return "the run it waited for failed"
	case policy.Excluded:
		return "the calendar excludes it"
	case policy.Paused:
		return "the schedule was paused"
	case policy.Changed:
		return "the schedule was changed or deleted before it ran"
	case policy.Refused:
		return "its job could not be created: its unique key was held, or its ID or a key it needs is not ours"
	case policy.Nobody:
		return "no instance that was alive had the handler"
	}
	return "for a reason that this release does not know"
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.999 MST") }

// Explain says in a sentence why a schedule did or did not run at an instant.
func (s *Scheduler) Explain(ctx context.Context, name string, at time.Time) (string, error) {
	text, err := s.explain(ctx, name, at)
	return text, opError("explain", clipped(name), err)
}

func (s *Scheduler) explain(ctx context.Context, name string, at time.Time) (string, error) {
	if err := validText("Name", name, maxScheduleBytes); err != nil {
		return "", err
	}
	if err := validTime("at", at); err != nil {
		return "", err
	}
	at = at.Truncate(time.Millisecond)
	stored, err := s.scheduleIfAny(ctx, name)
	if err != nil {
		return "", err
	}
	r, err := s.recordOf(ctx, name, at)
	if err != nil {
		return "", err
	}
	if r != nil {
		return s.explainRecord(ctx, name, at, *r, stored), nil
	}
	if stored == nil {
		return "There is no schedule " + name + ", and nothing is recorded about that time.", nil
	}
	if stored.Parked != "" {
		return "The schedule cannot be used, so it does not fire: " + stored.Parked + ".", nil
	}
	p, err := s.programOf(ctx, stored)
	if passing(err) {
		return "", err
	}
	if err != nil {
		return "The schedule cannot be used, so it does not fire: " + err.Error() + ".", nil //nolint:nilerr // that is the answer
	}
	now, err := s.store.Now(ctx)
	if err != nil {
		return "", err
	}
	return p.explain(at, now, stored), nil
}

// recordOf finds the line of the ledger that speaks of an instant: the one of the
// tick alone before one of a range, for a tick can be run again. nil: there is none.
func (s *Scheduler) recordOf(ctx context.Context, name string, at time.Time) (*policy.Record, error) {
	entries, err := s.store.Ledger(ctx, name, at, time.Time{}, ledgerPage)
	var found *policy.Record
	for _, e := range entries {
		r, err := policy.ParseRecord(e.Tick, e.Text)
		switch {
		case err != nil: // a foreign hand
		case r.From.IsZero() && r.Tick.Equal(at):
			return &r, nil
		case found == nil && !r.From.IsZero() && !r.From.After(at):
			found = &r
		}
	}
	return found, err
}

// explainRecord puts a line of the ledger into words.
func (s *Scheduler) explainRecord(ctx context.Context, name string, at time.Time, r policy.Record, stored *store.Schedule) string {
	t := tickInfo(name, r.Now(generationOf(stored)))
	if !r.From.IsZero() && r.Why != policy.Excluded {
		if p := s.programThen(ctx, name, r.Generation, stored); p != nil && !p.plan.Planned(at) {
			return p.unplanned(at)
		}
	}
	switch t.Outcome {
	case TickFired:
		how := fmt.Sprintf("It was fired %v late, at %s", t.Late, stamp(t.At))
		if r.Kind != "" {
			how = "It was run by hand"
		}
		return how + ", as job " + t.JobID + "."
	case TickReplayed:
		return "It was run by a backfill at " + stamp(t.At) + ", as job " + t.JobID + "."
	case TickMerged:
		return "It did not run by itself: it was merged " + t.Reason + "."
	case TickWaiting:
		return "It waits " + t.Reason + "."
	}
	return "It did not run: " + t.Reason + "."
}

// programThen compiles the definition of a generation, or returns nil when it
// cannot be used any more.
func (s *Scheduler) programThen(ctx context.Context, name string, generation int64, stored *store.Schedule) *program {
	if stored == nil || stored.Generation != generation {
		versions, _ := s.store.Versions(ctx, name)
		v := versionOf(versions, generation)
		if v == nil {
			return nil
		}
		stored = &store.Schedule{Name: name, Definition: v.Definition}
	}
	p, err := s.programOf(ctx, stored)
	if err != nil {
		return nil
	}
	return p
}

// explain is about an instant of which nothing is recorded.
func (p *program) explain(at, now time.Time, stored *store.Schedule) string {
	state, _ := readState(stored.State)
	began := time.UnixMilli(p.AnchorMS)
	if p.After > 0 {
		if at.Equal(stored.Next) {
			return "It is planned: the pause after the last run ends then."
		}
		return "Nothing is recorded about that time; the next tick depends on the end of a run."
	}
	switch {
	case !p.plan.Planned(at):
		return p.unplanned(at)
	case at.Before(began):
		return fmt.Sprintf("It was before generation %d was stored, at %s, and nothing is recorded about it.", stored.Generation, stamp(began))
	case state.Pause != nil && (stored.Next.IsZero() || !at.Before(stored.Next)):
		text := "It does not run: the schedule is paused since " + stamp(time.UnixMilli(state.Pause.At))
		if state.Pause.Actor != "" {
			text += " by " + state.Pause.Actor
		}
		if state.Pause.Reason != "" {
			text += " (" + state.Pause.Reason + ")"
		}
		return text + "."
	case !stored.Next.IsZero() && !at.Before(stored.Next) && at.After(now):
		return "It is planned: it will be fired at " + stamp(p.rules.At(p, at)) + "."
	case !stored.Next.IsZero() && !at.Before(stored.Next):
		if when := p.rules.At(p, at); when.After(now) {
			return "It is planned: jitter delays it to " + stamp(when) + "."
		}
		return "It is due and was not fired yet: no instance has come to it. Instances lists those that run."
	case p.MaxRuns > 0 && state.Runs >= p.MaxRuns && stored.Next.IsZero():
		return fmt.Sprintf("It does not run: the schedule has run %d times, which is its MaxRuns.", state.Runs)
	case stored.Next.IsZero():
		return "It does not run: the schedule has ended."
	}
	return "Nothing is recorded about it any more: the ledger keeps 200 lines of 30 days."
}

// unplanned says which ticks are around an instant that is none.
func (p *program) unplanned(at time.Time) string {
	if _, first, last := p.Next(at.Add(-time.Millisecond)); !first.IsZero() && !first.After(at) && !last.Before(at) {
		return "It is not planned: the calendar " + p.Calendar + " excludes it."
	}
	text := "No tick is planned then"
	before := at.AddDate(-1, 0, 0)
	if _, last, _ := p.Between(before, at, 1); len(last) > 0 {
		text += "; the one before is " + stamp(last[0])
	}
	if next, _, _ := p.Next(at); !next.IsZero() {
		text += "; the next one is " + stamp(next)
	}
	return text + "."
}

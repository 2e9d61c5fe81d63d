package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Turn is one step of a schedule, decided on what was read of it. It is taken as
// a whole, or not at all when the schedule is not as it was read any more.
//
// A turn whose reply got lost is sent again and finds its own work: that looks
// as if somebody else had taken it. Whoever has to know reads the schedule.
type Turn struct {
	Schedule  *Schedule // as it was read: generation, next tick and state are compared
	NotBefore time.Time // refused while Redis' clock is behind it; zero: any time
	Next      time.Time // next tick; zero: none
	Look      time.Time // when to look again; zero: out of the plan
	Last      time.Time // last tick that was fired; zero: unchanged
	State     []byte    // empty: none
	Jobs      []TickJob
	Ledger    []LedgerEntry
}

// TickJob is a job that a turn creates.
type TickJob struct {
	Suffix     string // completes the ID: see TickJobID
	Generation int64  // of the ID; 0: the schedule's
	Spec       *Spec
	Seal       Seal
	Watched    bool // Ended tells when it ends
	Line       int  // counted from 1, that of the ledger which says that it was fired: it says otherwise when it cannot be created; 0: none
}

// LedgerEntry is what became of a tick, or of a range of ticks up to it. It
// replaces what was recorded for it; a range and the tick at its end are apart.
type LedgerEntry struct {
	Tick time.Time
	Text string
}

// TurnResult is what became of a turn.
type TurnResult struct {
	Done bool     // false: somebody else took it, or the schedule was changed, or it is too early
	IDs  []string // one a job, also when it was not done
	Errs []error  // one a job: why it could not be created
	Err  error    // of the turn; with Done, its ticks could not be recorded, or replicas lag
}

// One call takes turns up to this weight; a turn weighs one and one more for
// each job. So that no script holds Redis for much longer than a millisecond.
const maxTurns = 200

// maxFlight is how many calls travel in one pipeline, and maxFlights how many
// pipelines are under way: while Redis works on one, the next is made ready.
const (
	maxFlight  = 8
	maxFlights = 2
)

// Turns takes steps of schedules of one segment, many in one call, in any order.
func (s *Store) Turns(ctx context.Context, segment int, turns []Turn) []TurnResult {
	return s.takeTurns(unpromised(ctx), segment, turns)
}

// TakeTurn is Turns for one turn that a caller waits for, and for replicas if
// there is Options.WaitReplicas.
func (s *Store) TakeTurn(ctx context.Context, t Turn) TurnResult {
	return s.takeTurns(ctx, s.scheduleSegment(t.Schedule.Name), []Turn{t})[0]
}

// TickJobID is the ID of a job that a turn creates. It is made of schedule,
// generation and suffix, so that a turn never creates a job twice.
func (s *Store) TickJobID(schedule string, generation int64, suffix string, spec *Spec) string {
	return s.tickSubmission(s.scheduleSegment(schedule), schedule, generation, TickJob{Suffix: suffix, Spec: spec}).id
}

// TickID is the part of such an ID that does not depend on where the job lives; it
// begins with it.
func TickID(schedule string, generation int64, suffix string) string {
	return schedule + "~" + strconv.FormatInt(generation, 10) + "~" + suffix
}

func (s *Store) tickSubmission(segment int, schedule string, generation int64, j TickJob) *submission {
	it := &submission{spec: j.Spec, seal: j.Seal, made: true}
	it.id = TickID(schedule, generation, j.Suffix)
	s.route(it)
	if j.Spec.Mutex == "" && j.Spec.Unique == "" && InstanceOf(j.Spec.Queue) == "" { // it lives with its schedule
		it.segment = segment
		it.id = s.inSegment(it.id, segment)
	}
	return it
}

// step is a turn on its way.
type step struct {
	*Turn
	result *TurnResult
	jobs   []*submission
	relays bool // some of the jobs
	bytes  int
}

// relayed tells whether a job goes by way of relay. A unique key can have to be
// healed first, and a crash between must not lose the tick.
func relayed(it *submission, segment int) bool {
	return it.segment != segment || len(it.foreign) > 0 || it.spec.Unique != ""
}

// lineOf is the ledger's line of a job.
func (st *step) lineOf(job int) string {
	if n := st.Jobs[job].Line; n > 0 {
		return st.Ledger[n-1].Text
	}
	return ""
}

func (s *Store) newStep(segment int, t *Turn, result *TurnResult) *step {
	st := &step{Turn: t, result: result, bytes: len(t.Schedule.Name) + len(t.Schedule.State) + len(t.State) + 256}
	result.IDs, result.Errs = make([]string, len(t.Jobs)), make([]error, len(t.Jobs))
	for i, j := range t.Jobs {
		it := s.tickSubmission(segment, t.Schedule.Name, cmp.Or(j.Generation, t.Schedule.Generation), j)
		it.named()
		st.jobs = append(st.jobs, it)
		st.relays = st.relays || relayed(it, segment)
		st.bytes += it.size()
		result.IDs[i] = it.id
	}
	for _, e := range t.Ledger {
		st.bytes += len(e.Text) + 32
	}
	return st
}

func (s *Store) takeTurns(ctx context.Context, segment int, turns []Turn) []TurnResult {
	results := make([]TurnResult, len(turns))
	steps := make([]*step, len(turns))
	var jobs []NewJob
	for i := range turns {
		steps[i] = s.newStep(segment, &turns[i], &results[i])
		for _, j := range turns[i].Jobs {
			jobs = append(jobs, NewJob{Spec: j.Spec})
		}
	}
	if err := s.announce(ctx, jobs); err != nil && !errors.Is(err, ErrDamaged) {
		for i := range results {
			results[i].Err = err
		}
		return results
	}
	parts := chunkOf(steps, maxTurns, func(st *step) (int, int) { return 1 + len(st.jobs), st.bytes })
	var flights sync.WaitGroup
	free := make(chan struct{}, maxFlights)
	for flight := range slices.Chunk(parts, maxFlight) {
		free <- struct{}{}
		flights.Go(func() { // ends with ctx at the latest
			s.fly(ctx, segment, flight)
			<-free
		})
	}
	flights.Wait()
	s.relayOf(ctx, segment, steps)
	return results
}

// fly sends some calls in one pipeline.
func (s *Store) fly(ctx context.Context, segment int, flight [][]*step) {
	calls := make([]call, len(flight))
	for i, part := range flight {
		calls[i] = s.fireCall(segment, part)
	}
	replies, errs := s.runAll(ctx, calls)
	for i, part := range flight {
		for j, st := range part {
			s.took(ctx, segment, st, at(replies[i], j), errs[i])
		}
	}
}

func (s *Store) fireCall(segment int, steps []*step) call {
	k := s.segments[segment]
	var streams streamSet
	turns := argList{make([]string, 0, 3*len(steps)), make([]any, 0, 10*len(steps))}
	for _, st := range steps {
		turns.turn(k, segment, st, &streams)
	}
	var a argList
	a.key(k.due(), k.wait(), k.grant(), k.tend(), k.relay(), k.plan(), k.awaited())
	a.key(streams.names...)
	a.key(turns.keys...)
	a.arg(s.control(), segment, watchers, s.options.Ledger.Age.Milliseconds(), s.options.Ledger.Count, len(streams.names), len(steps))
	a.arg(turns.args...)
	return call{scriptFire, a.keys, a.args}
}

// turn adds one turn as fire.lua reads it.
func (a *argList) turn(k keys, segment int, st *step, streams *streamSet) {
	read := st.Schedule
	a.key(k.schedule(read.Name), k.ledger(read.Name))
	head := len(a.args)
	a.arg("", read.Name, read.State, st.State)
	keys, args := len(a.keys), len(a.args)
	for i, it := range st.jobs {
		job := st.Jobs[i]
		switch {
		case relayed(it, segment):
			a.arg("r", it.id, note(it.data, job.Watched, st.lineOf(i)))
			continue
		case job.Watched:
			a.arg("w" + strconv.Itoa(job.Line))
		default:
			a.arg(job.Line)
		}
		a.accept(k, it, streams)
	}
	a.ledger(st.Ledger)
	earliest := int64(0)
	if !st.NotBefore.IsZero() {
		earliest = st.NotBefore.UnixMilli()
	}
	a.args[head] = words(read.Generation, earliest, int64(flag(st.relays)), int64(len(a.keys)-keys), int64(len(a.args)-args),
		int64(len(st.jobs)), int64(len(st.Ledger))) +
		" " + stamp(read.Next) + " " + stamp(st.Next) + " " + stamp(read.Look) + " " + stamp(st.Look) + " " + stamp(st.Last)
}

// ledger adds lines as lib/ledger reads them.
func (a *argList) ledger(entries []LedgerEntry) {
	for _, e := range entries {
		a.arg(strconv.FormatInt(e.Tick.UnixMilli(), 10) + " " + e.Text)
	}
}

// took turns the script's answer for a turn into its result.
func (s *Store) took(ctx context.Context, segment int, st *step, answers any, err error) {
	r := st.result
	if err != nil && !errors.Is(err, ErrReplicas) {
		r.Err = err
		return
	}
	switch head := text(at(answers, 0)); {
	case len(list(answers)) == 0:
		r.Err = fmt.Errorf("fire: %w: short reply", ErrUncertain)
		return
	case head == "-": // perhaps by an earlier try of this call
		r.Err = err
		return
	case head == "": // what it was answered may not be safe yet
		r.Done, r.Err = true, err
	case head[0] == 'l':
		r.Done, r.Err = true, fmt.Errorf("fire: the ticks of schedule %s are not recorded: %w", clip(st.Schedule.Name, 64), s.foreignOf(ctx, segment, st, head[1:]))
	default:
		r.Err = fmt.Errorf("fire: schedule %s: %w", clip(st.Schedule.Name, 64), s.foreignOf(ctx, segment, st, head[1:]))
		return
	}
	for i, it := range st.jobs {
		if relayed(it, segment) {
			continue
		}
		it.answer(text(at(answers, 1+i)))
		r.IDs[i], r.Errs[i] = it.receipt.ID, it.err
		if errors.Is(it.err, ErrDamaged) {
			if key := s.foreignFor(ctx, it); key != "" {
				r.Errs[i] = fmt.Errorf("%s: %w", key, it.err)
			}
		}
	}
}

// foreignOf names the key whose type kept a turn from something.
func (s *Store) foreignOf(ctx context.Context, segment int, st *step, message string) error {
	k := s.segments[segment]
	err := fmt.Errorf("%w: %s", ErrDamaged, message)
	if key := s.foreignAmong(ctx, []string{k.schedule(st.Schedule.Name), k.ledger(st.Schedule.Name), k.relay()}); key != "" {
		err = fmt.Errorf("%s: %w", key, err)
	}
	return err
}

// relayOf submits what turns have noted for other segments, also in an earlier
// try whose reply was lost. What cannot be submitted now stays noted.
func (s *Store) relayOf(ctx context.Context, segment int, steps []*step) {
	if !slices.ContainsFunc(steps, func(st *step) bool { return st.relays && (st.result.Done || st.result.Err == nil) }) {
		return
	}
	failed, _ := s.relay(ctx, segment)
	for _, st := range steps {
		for i, it := range st.jobs {
			if err := failed[it.id]; err != nil {
				st.result.Errs[i] = err
			}
		}
	}
}

// stamp writes a time for a script; ” is none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.UnixMilli(), 10)
}

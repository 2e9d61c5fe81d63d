package policy

import (
	"slices"
	"strconv"
	"time"
)

// step is a decision in the making.
type step struct {
	*Rules
	plan Plan
	in   Input
	Decision
	more bool // there is something left to do at once
}

// newStep begins with what is: the same state, the same next tick.
func newStep(r *Rules, p Plan, in Input) step {
	return step{Rules: r, plan: p, in: in, Decision: Decision{State: in.State, Next: in.Next}}
}

// Decide says what a schedule does at an instant.
func Decide(r *Rules, p Plan, in Input) Decision {
	d := newStep(r, p, in)
	d.State.Buffer = slices.Clone(in.State.Buffer)
	d.State.Backfills = slices.Clone(in.State.Backfills)
	d.ends()
	if d.State.Pause == nil {
		d.release()
		d.due()
		d.release() // what a tick replaced may have been cancelled at once
		d.refill()
	}
	d.look()
	return d.Decision
}

// ends takes note of the runs that have ended.
func (d *step) ends() {
	type ended struct {
		run Run
		end End
	}
	var done []ended
	var open []Run
	for i, run := range d.in.State.Open {
		end := d.in.Ends[i]
		switch {
		case !end.Shards:
		case d.Rules.Then && !run.Then:
			run.Then = true
			d.Decision.Then = append(d.Decision.Then, run)
		case end.Done:
			done = append(done, ended{run, end})
			continue
		}
		open = append(open, run)
	}
	d.State.Open = open
	slices.SortStableFunc(done, func(a, b ended) int { return a.end.At.Compare(b.end.At) })
	var last time.Time
	for _, e := range done {
		if e.run.Kind != "" {
			continue // it is beside the plan
		}
		last = latest(last, e.end.At)
		switch {
		case e.end.Good:
			d.State.Failures = 0
		case e.end.Failed:
			d.State.Failures++
			if d.DropOnFailure {
				d.drop(RunFailed)
				if d.Next.IsZero() && d.After == 0 && !d.spent() { // they had been counted for MaxRuns
					d.advance(d.in.Now)
				}
			}
		}
		if d.PauseAfter > 0 && d.State.Failures >= d.PauseAfter && d.State.Pause == nil {
			d.State.Pause = &Pause{
				At:     d.in.Now.UnixMilli(),
				Reason: strconv.Itoa(d.State.Failures) + " runs in a row have failed",
			}
		}
	}
	if d.PauseAfter == 0 {
		d.State.Failures = 0
	}
	if d.After > 0 && d.Next.IsZero() && !d.busy() && len(d.State.Buffer) == 0 && !d.spent() {
		if last.IsZero() {
			last = d.in.Now
		}
		d.Next = d.following(last)
	}
}

// following returns the tick after the end of a run.
func (d *step) following(end time.Time) time.Time {
	return d.plan.Open(ceil(end.Add(d.After)))
}

// drop empties the buffer.
func (d *step) drop(why Why) {
	for _, tick := range d.State.Buffer {
		d.record(Record{Tick: time.UnixMilli(tick), Outcome: Skipped, Why: why})
	}
	d.State.Buffer = nil
}

// busy reports whether a run of the plan is unfinished.
func (d *step) busy() bool {
	return slices.ContainsFunc(d.State.Open, func(r Run) bool { return r.Kind == "" })
}

func (d *step) spent() bool { return d.MaxRuns > 0 && d.State.Runs+len(d.State.Buffer) >= d.MaxRuns }

// release fires a tick that waits, when no run is left.
func (d *step) release() {
	if len(d.State.Buffer) > 0 && d.busy() && d.Overlap == Replace {
		d.replace() // whoever was to do it may have crashed
	}
	if len(d.State.Buffer) > 0 && !d.busy() {
		tick := time.UnixMilli(d.State.Buffer[0])
		d.State.Buffer = d.State.Buffer[1:]
		d.fire(tick, "")
	}
}

// due deals with the ticks that have come: those that come too late by the
// misfire policy, the others one by one.
func (d *step) due() {
	if d.Next.IsZero() || d.At(d.plan, d.Next).After(d.in.Now) {
		return
	}
	if d.After > 0 { // a single tick, which cannot be missed
		tick := d.plan.Open(d.Next)
		if !tick.Equal(d.Next) { // a calendar has changed
			d.Next = tick
			return
		}
		d.Next = time.Time{}
		d.place(tick)
		if !d.busy() && len(d.State.Buffer) == 0 && !d.spent() { // nobody could run it
			d.Next = d.following(d.in.Now)
		}
		return
	}
	d.passed()
	if tick, _, _ := d.plan.Next(d.Next.Add(-time.Millisecond)); !tick.Equal(d.Next) { // a calendar has changed
		d.advance(d.Next.Add(-time.Millisecond))
	}
	limit := d.in.Now.Add(-d.MisfireAfter - d.Jitter)
	if d.Next.Before(limit) && !d.missed(limit) {
		return
	}
	for n := 0; !d.Next.IsZero() && !d.spent() && !d.At(d.plan, d.Next).After(d.in.Now); n++ {
		if n >= batch || d.enough() {
			d.more = true
			return
		}
		d.passed()
		tick := d.Next
		d.place(tick)
		d.advance(tick)
	}
	if d.spent() {
		d.Next, d.State.Passed = time.Time{}, nil
	}
}

// missed applies the misfire policy to the ticks from Next to limit. It reports
// false when some of them are left for the next step.
func (d *step) missed(limit time.Time) bool {
	n := 1
	if d.Misfire == FireAll {
		n = max(1, d.ReplayMax)
	}
	first, last, more := d.plan.Between(d.Next.Add(-time.Millisecond), limit, n)
	if len(last) == 0 { // the plan has changed under it, as when a calendar did
		d.advance(limit)
		return true
	}
	end := last[len(last)-1]
	switch d.Misfire {
	case SkipMissed:
		d.passOver(first, end, Missed)
	case FireOnce:
		d.place(first)
		if second, _, _ := d.plan.Next(first); !second.IsZero() && !second.After(end) {
			rest := Record{Outcome: Merged, Into: first}
			if of := d.Record[len(d.Record)-1]; of.Outcome == Skipped { // there is no run for all of them
				rest = of
			}
			rest.Tick, rest.From = end, second
			d.record(rest)
		}
	case FireLast:
		if more {
			d.passOver(first, end.Add(-time.Millisecond), Missed)
		}
		d.place(end)
	case FireAll:
		if d.ReplayAge > 0 {
			old := d.in.Now.Add(-d.ReplayAge)
			keep := slices.IndexFunc(last, func(t time.Time) bool { return !t.Before(old) })
			if keep != 0 {
				more = true
			}
			if keep < 0 {
				keep = len(last)
			}
			last = last[keep:]
		}
		if more {
			until := end
			if len(last) > 0 {
				until = last[0].Add(-time.Millisecond)
			}
			d.passOver(first, until, TooOld)
		}
		for i, tick := range last {
			if i >= batch || d.enough() {
				d.Next, d.more = tick, true
				return false
			}
			if d.spent() {
				break
			}
			d.place(tick)
		}
	}
	d.advance(end)
	return true
}

// passOver records that all ticks of a range, whose first one is given, were left out.
func (d *step) passOver(first, until time.Time, why Why) {
	_, last, _ := d.plan.Between(first.Add(-time.Millisecond), until, 1)
	if len(last) == 0 {
		return
	}
	r := Record{Tick: last[0], Outcome: Skipped, Why: why}
	if first.Before(last[0]) {
		r.From = first
	}
	d.record(r)
}

// passed records what a calendar took away before the next tick, as time has
// come to it.
func (d *step) passed() {
	if len(d.State.Passed) == 2 {
		r := Record{Tick: time.UnixMilli(d.State.Passed[1]), Outcome: Skipped, Why: Excluded}
		if d.State.Passed[0] != d.State.Passed[1] {
			r.From = time.UnixMilli(d.State.Passed[0])
		}
		d.record(r)
	}
	d.State.Passed = nil
}

// advance moves on to the first tick after an instant.
func (d *step) advance(after time.Time) {
	next, first, last := d.plan.Next(after)
	d.Next, d.State.Passed = next, nil
	if !first.IsZero() {
		d.State.Passed = []int64{first.UnixMilli(), last.UnixMilli()}
	}
}

// place gives a tick what the overlap policy says.
func (d *step) place(tick time.Time) {
	if d.Rules.Then && len(d.State.Open) >= d.maxOpen() { // its further job would be forgotten
		d.record(Record{Tick: tick, Outcome: Skipped, Why: BufferFull})
		return
	}
	if !d.busy() && len(d.State.Buffer) == 0 || d.Overlap == Allow {
		d.fire(tick, "")
		return
	}
	waiting := Record{Tick: tick, Outcome: Waiting, Generation: d.in.Generation}
	left := Record{Tick: tick, Outcome: Skipped, Why: Overlapped}
	if i := slices.IndexFunc(d.State.Open, func(r Run) bool { return r.Kind == "" }); i >= 0 {
		left.Into = time.UnixMilli(d.State.Open[i].Tick)
	}
	switch d.Overlap {
	case Skip:
		d.record(left)
	case BufferOne, BufferAll:
		room := 1
		if d.Overlap == BufferAll {
			room = d.BufferMax
		}
		if len(d.State.Buffer) >= room {
			left.Why = BufferFull
			d.record(left)
			return
		}
		d.State.Buffer = append(d.State.Buffer, tick.UnixMilli())
		d.record(waiting)
	case Replace:
		for _, before := range d.State.Buffer {
			d.record(Record{Tick: time.UnixMilli(before), Outcome: Skipped, Why: Replaced, Into: tick})
		}
		d.State.Buffer = []int64{tick.UnixMilli()}
		d.record(waiting)
		d.replace()
	}
}

// replace has the runs of the plan cancelled.
func (d *step) replace() {
	d.Cancel = slices.DeleteFunc(slices.Clone(d.State.Open), func(r Run) bool { return r.Kind != "" })
}

// fire starts a run.
func (d *step) fire(tick time.Time, kind string) {
	if d.Broadcast && len(d.Targets) == 0 {
		d.record(Record{Tick: tick, Outcome: Skipped, Why: Nobody})
		return
	}
	d.Fire = append(d.Fire, Fire{Tick: tick, Kind: kind})
	outcome := Fired
	if kind == "" {
		if d.MaxRuns > 0 {
			d.State.Runs++
		}
		d.Last = latest(d.Last, tick)
	} else if kind[0] == 'r' {
		outcome = Replayed
	}
	d.record(Record{Tick: tick, Outcome: outcome, Generation: d.in.Generation, Kind: kind, Sharded: d.Broadcast || d.Shards > 0})
	if !d.watches(kind) {
		return
	}
	d.State.Open = append(slices.Clone(d.State.Open), Run{
		Tick: tick.UnixMilli(), Generation: d.in.Generation, Kind: kind, At: d.in.Now.UnixMilli(),
		Shards: d.Shards, Targets: d.Targets, Affinity: d.Affinity,
	})
	if len(d.State.Open) > d.maxOpen() { // one that is only counted, not waited for
		i := max(0, slices.IndexFunc(d.State.Open, func(r Run) bool { return r.Kind != "" }))
		d.State.Open = slices.Delete(d.State.Open, i, i+1)
	}
}

// enough reports whether a step starts no further run.
func (d *step) enough() bool { return len(d.Fire) >= max(1, min(batch, batchJobs/d.jobs())) }

// jobs is how many jobs a run has.
func (r *Rules) jobs() int { return max(1, r.Shards, len(r.Targets)) }

// maxOpen is how many unfinished runs are watched.
func (r *Rules) maxOpen() int { return max(2, min(maxOpen, maxOpenJobs/r.jobs())) }

// watches reports whether the end of a run matters.
func (d *step) watches(kind string) bool {
	return d.Rules.Then || kind == "" && d.watched() ||
		slices.ContainsFunc(d.State.Backfills, func(b Backfill) bool { return b.kind() == kind && b.Overlap != Allow })
}

// full reports whether a backfill has to wait, so that it pushes out no run that
// is watched, and leaves room for those of the plan.
func (d *step) full(b Backfill) bool {
	return len(d.State.Open) >= d.maxOpen()/2 && d.watches(b.kind())
}

func (b Backfill) kind() string { return "r" + b.Key }

// waits reports whether its runs begin only when the one before has ended.
func (b Backfill) waits() bool { return b.Overlap != Allow && b.Overlap != Skip }

// openOf lists the unfinished runs of a backfill.
func (d *step) openOf(b Backfill) []Run {
	return slices.DeleteFunc(slices.Clone(d.State.Open), func(r Run) bool { return r.Kind != b.kind() })
}

// refill takes the backfills on, each as its own rules allow.
func (d *step) refill() {
	left := d.State.Backfills[:0:0]
	for _, b := range d.State.Backfills {
		for n := 0; ; n++ {
			found, _, _ := d.plan.Next(time.UnixMilli(b.Next - 1))
			if found.IsZero() || found.UnixMilli() > b.To {
				break
			}
			early := time.UnixMilli(b.At).After(d.in.Now) || n >= batch || d.enough() || d.full(b)
			open := d.openOf(b)
			if early || len(open) > 0 && b.waits() {
				if !early && b.Overlap == Replace {
					d.Cancel = append(d.Cancel, open...)
				}
				left = append(left, b)
				break
			}
			if len(open) == 0 || b.Overlap == Allow {
				d.fire(found, b.kind())
			} // otherwise what the ledger says of the tick stays true
			b.Next = found.UnixMilli() + 1
			b.At = d.in.Now.UnixMilli() + b.Every
		}
	}
	d.State.Backfills = left
}

// look says when to decide again.
func (d *step) look() {
	if d.more {
		d.Look = d.in.Now
		return
	}
	var at time.Time
	soonest := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	if n := len(d.State.Open); n > 0 {
		age := d.in.Now.Sub(time.UnixMilli(d.State.Open[n-1].At))
		soonest(d.in.Now.Add(min(max(age/4, pollSoonest), pollLatest)))
	}
	if d.State.Pause == nil {
		soonest(d.At(d.plan, d.Next))
		for _, b := range d.State.Backfills {
			begin := time.UnixMilli(b.At)
			waits := d.full(b) || b.waits() && len(d.openOf(b)) > 0 // for the end of a run
			if !waits || b.Overlap == Replace && begin.After(d.in.Now) {
				soonest(begin)
			}
		}
		if len(d.State.Buffer) > 0 && !d.busy() {
			soonest(d.in.Now)
		}
	}
	d.Look = at
}

func (d *step) record(r Record) {
	if r.At.IsZero() {
		r.At = d.in.Now
	}
	d.Record = append(d.Record, r)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func ceil(t time.Time) time.Time { return t.Add(time.Millisecond - 1).Truncate(time.Millisecond) }

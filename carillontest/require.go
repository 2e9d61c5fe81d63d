package carillontest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/carillon-go/carillon"
)

// RequireRuns fails the test unless the handler of that name was called exactly
// n times so far, attempts included. It returns the runs. An empty name counts
// all handlers.
func (e *Env) RequireRuns(name string, n int) []Run {
	e.t.Helper()
	runs := e.Runs(name)
	if len(runs) != n {
		e.failf("%s ran %d times, want %d\n%s", handlerOf(name), len(runs), n, e.report(name))
	}
	return runs
}

// RequireRunsAt fails the test unless the handler of that name was called
// exactly at these times since the first Start, in this order. It returns the
// runs.
func (e *Env) RequireRunsAt(name string, offsets ...time.Duration) []Run {
	e.t.Helper()
	runs := e.Runs(name)
	got := make([]time.Duration, len(runs))
	for i, r := range runs {
		got[i] = r.Offset
	}
	if !slices.Equal(got, offsets) {
		e.failf("%s ran at\n\t%s, want\n\t%s\n%s", handlerOf(name), times(got), times(offsets), e.report(name))
	}
	return runs
}

// RequireState fails the test unless the job is in that state. It returns the
// job.
func (e *Env) RequireState(id string, want carillon.State) *carillon.JobInfo {
	e.t.Helper()
	job := e.Job(id)
	if job.State != want {
		e.failf("%s, want %s%s", e.describe(id), want, history(job))
	}
	return job
}

// RequireGone fails the test if the job is still known. It is gone when its
// retention has passed.
func (e *Env) RequireGone(id string) {
	e.t.Helper()
	_, err := e.inspect.Get(e.ctx, id)
	switch {
	case err == nil:
		e.failf("%s, want it gone", e.describe(id))
	case !errors.Is(err, carillon.ErrNotFound):
		e.failf("%v", err)
	}
}

// State returns the state of a job, or "" when there is no such job or its
// retention has passed.
func (e *Env) State(id string) carillon.State {
	e.t.Helper()
	job, err := e.inspect.Get(e.ctx, id)
	switch {
	case err == nil:
		return job.State
	case !errors.Is(err, carillon.ErrNotFound):
		e.failf("%v", err)
	}
	return ""
}

// Job returns what is known about a job, and fails the test when that is
// nothing.
func (e *Env) Job(id string) *carillon.JobInfo {
	e.t.Helper()
	job, err := e.inspect.Get(e.ctx, id)
	if errors.Is(err, carillon.ErrNotFound) {
		e.failf("job %s is not known; it was never submitted in this namespace, or its retention has passed", id)
	}
	if err != nil {
		e.failf("%v", err)
	}
	return job
}

// Jobs returns the jobs that match.
func (e *Env) Jobs(f carillon.Filter) []*carillon.JobInfo {
	e.t.Helper()
	var jobs []*carillon.JobInfo
	for job, err := range e.inspect.List(e.ctx, f) {
		if err != nil {
			e.failf("%v", err)
		}
		jobs = append(jobs, job)
	}
	return jobs
}

// failf ends the test with a message that says what time it is.
func (e *Env) failf(format string, args ...any) {
	e.t.Helper()
	e.t.Fatalf("carillontest: at %s: %s", e.moment(time.Now()), fmt.Sprintf(format, args...))
}

// shown is how many runs or jobs a message lists.
const shown = 20

// report lists what ran and which jobs of a name there are.
func (e *Env) report(name string) string {
	var b strings.Builder
	if !e.started() {
		b.WriteString("nothing was started: call Start\n")
	}
	runs := e.Runs(name)
	b.WriteString("runs of " + handlerOf(name) + ":" + none(len(runs)))
	for i, r := range runs {
		if i == shown {
			fmt.Fprintf(&b, "\t… and %d more\n", len(runs)-shown)
			break
		}
		fmt.Fprintf(&b, "\t%v\n", r)
	}
	if others := e.Runs(""); len(runs) == 0 && len(others) > 0 {
		names := map[string]int{}
		for _, r := range others {
			names[r.Name]++
		}
		fmt.Fprintf(&b, "runs of others: %v\n", names)
	}
	jobs := make([]string, 0, shown+1)
	for job, err := range e.inspect.List(e.ctx, carillon.Filter{Name: name}) {
		if err != nil {
			jobs = append(jobs, err.Error())
			break
		}
		if len(jobs) == shown {
			jobs = append(jobs, "… and more")
			break
		}
		jobs = append(jobs, e.summary(job))
	}
	b.WriteString("jobs of " + handlerOf(name) + ":" + none(len(jobs)))
	for _, job := range jobs {
		b.WriteString("\t" + job + "\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// describe says on one line how a job is.
func (e *Env) describe(id string) string {
	job, err := e.inspect.Get(e.ctx, id)
	if err != nil {
		return "job " + id + " (" + err.Error() + ")"
	}
	return e.summary(job)
}

func (e *Env) summary(job *carillon.JobInfo) string {
	s := fmt.Sprintf("job %s of %q is %s", job.ID, job.Name, job.State)
	switch {
	case !job.DueAt.IsZero():
		s += ", due at " + e.moment(job.DueAt)
	case !job.FinishedAt.IsZero():
		s += " since " + e.moment(job.FinishedAt)
	}
	if job.Reason != "" {
		s += " (" + job.Reason + ")"
	}
	return s
}

// history lists a job's attempts.
func history(job *carillon.JobInfo) string {
	var b strings.Builder
	for _, a := range job.Attempts {
		fmt.Fprintf(&b, "\n\tattempt %d: %s %s", a.Number, a.Outcome, firstLine(a.Error))
	}
	return b.String()
}

func handlerOf(name string) string { return cmp.Or(quoted(name), "all handlers") }

func quoted(name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf("%q", name)
}

func none(n int) string {
	if n == 0 {
		return " none\n"
	}
	return "\n"
}

func times(offsets []time.Duration) string {
	if len(offsets) == 0 {
		return "no time"
	}
	out := make([]string, 0, len(offsets))
	for i, d := range offsets {
		if i == shown {
			out = append(out, fmt.Sprintf("… (%d in all)", len(offsets)))
			break
		}
		out = append(out, "+"+d.String())
	}
	return strings.Join(out, ", ")
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return clip(line)
}

// clip shortens what may be long.
func clip[T ~string | ~[]byte](text T) string {
	const limit = 200
	if len(text) > limit {
		return strings.ToValidUTF8(string(text[:limit]), "") + "…"
	}
	return string(text)
}

package difftest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carillon-go/carillon/internal/cron"
)

const (
	fullRun  = 1_000_000
	shortRun = 20_000
	chain    = 8 // instants in a row for each expression and zone

	slowReach = 10 * 24 * time.Hour // how far a slow one is asked to look, most times
)

// difference is an answer that is not ours.
type difference struct {
	oracle *oracle
	expr   expr
	after  time.Time // in the zone
	ours   time.Time
	theirs time.Time
	err    error // instead of theirs
}

func (d difference) String() string {
	text := fmt.Sprintf("%q after %s in %s: %s, ", d.expr, stamp(d.after), d.after.Location(), stamp(d.ours))
	if d.err != nil {
		return text + "they: " + d.err.Error()
	}
	return text + "they " + stamp(d.theirs)
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Format("Mon 2006-01-02T15:04:05Z07:00")
}

// TestCron holds cron expressions against other implementations and against their definition.
func TestCron(t *testing.T) {
	t.Parallel()
	seed, cases := uint64(time.Now().UnixNano()), uint64(fullRun)
	if testing.Short() {
		seed, cases = 1, shortRun
	}
	seed, cases = setting(t, "DIFFTEST_SEED", seed), setting(t, "DIFFTEST_CASES", cases)
	r := &run{
		seed: seed, wanted: int(cases), zones: loadZones(t),
		classes: map[*class]int{}, examples: map[*class]difference{},
	}
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(r.work)
	}
	workers.Wait()
	r.report(t)
}

// setting reads a number from the environment.
func setting(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// run is a run, and what it has found.
type run struct {
	seed   uint64
	wanted int
	zones  zones

	mu          sync.Mutex
	drawn       uint64
	cases       int
	differences int
	classes     map[*class]int
	examples    map[*class]difference
	unknown     []difference // of no class
	wrong       []difference // theirs is the definition's answer
}

func (r *run) work() {
	for {
		r.mu.Lock()
		r.drawn++
		n, done := r.drawn, r.cases >= r.wanted || len(r.unknown)+len(r.wrong) > 100
		r.mu.Unlock()
		if done {
			return
		}
		r.compare(rand.New(rand.NewPCG(r.seed, n)))
	}
}

// compare draws an expression, a zone and an instant, and asks everybody for the next ticks in a row.
func (r *run) compare(random *rand.Rand) {
	e := drawExpr(random)
	loc, after := r.zones.draw(random)
	ours, err := cron.Parse(e.text(carillonDialect), e.both)
	if err != nil {
		if !strings.Contains(err.Error(), "never fires") || e.fires() {
			r.unlike(difference{oracle: &oracles[0], expr: e, after: after, err: err})
		}
		return
	}
	asked := map[*oracle]nextFunc{}
	for i := range oracles {
		o := &oracles[i]
		if e.both && !o.both {
			continue
		}
		if asked[o], err = o.compile(e.text(o.dialect), e.both, loc); err != nil {
			r.differ(difference{oracle: o, expr: e, after: after, ours: ours.Next(after, loc, o.rules), err: err})
			delete(asked, o)
		}
	}
	patient := random.IntN(32) == 0
	for step := range chain {
		answers := 0
		for i := range oracles {
			o := &oracles[i]
			d := difference{oracle: o, expr: e, after: after, ours: ours.Next(after, loc, o.rules)}
			if asked[o] == nil || o.slow && !patient && (step >= 2 && answers >= 2 || d.ours.Sub(after) > slowReach) {
				continue
			}
			if !o.kin {
				answers++
			}
			if d.theirs, d.err = o.ask(asked[o], d); d.err != nil || !d.theirs.Equal(d.ours) {
				r.check(d)
				if r.differ(d) {
					delete(asked, o) // reads the expression otherwise: nothing more comes of it
				}
			}
			if random.IntN(500) == 0 {
				r.check(d)
			}
		}
		if answers >= 2 {
			r.mu.Lock()
			r.cases++
			r.mu.Unlock()
		}
		if after = ours.Next(after, loc, oracles[step%len(oracles)].rules); after.IsZero() || after.After(latest) {
			return
		}
	}
}

var (
	errHangs  = errors.New("never returns")
	errPanics = errors.New("panics")
)

// ask returns their answer.
func (o *oracle) ask(next nextFunc, d difference) (at time.Time, err error) {
	if o.hangs != nil && o.hangs(d) {
		return time.Time{}, errHangs
	}
	watchdog := time.AfterFunc(time.Minute, func() { panic(fmt.Sprintf("%s never returns: %s", o.name, d)) })
	defer watchdog.Stop()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errPanics, p)
		}
	}()
	return next(d.after)
}

// differ counts a difference, and tells whether it is of the words of the expression.
func (r *run) differ(d difference) bool {
	c, ofWords := classify(d)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.differences++
	if c == nil {
		r.unknown = append(r.unknown, d)
		return false
	}
	if r.classes[c]++; r.classes[c] == 1 || d.simplicity() < r.examples[c].simplicity() {
		r.examples[c] = d
	}
	return ofWords
}

// simplicity is less for what is easier to read.
func (d difference) simplicity() int {
	return len(d.expr.String()) + len(d.after.Location().String())
}

// check holds our answer against the definition.
func (r *run) check(d difference) {
	want, found := d.expr.next(d.after, d.after.Location(), d.oracle.rules)
	if !found && (d.ours.IsZero() || d.ours.Sub(d.after) > 59*366*24*time.Hour) || want.Equal(d.ours) {
		return
	}
	d.theirs, d.err = want, nil
	r.unlike(d)
}

// unlike takes down that our answer is not that of the definition.
func (r *run) unlike(d difference) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrong = append(r.wrong, d)
}

// report prints what was found, and fails the test for what has no reason.
func (r *run) report(t *testing.T) {
	t.Helper()
	const most = 10 // with the same cause, usually
	for _, d := range r.wrong[:min(len(r.wrong), most)] {
		d = minimal(d, func(d *difference) bool {
			ours, err := cron.Parse(d.expr.text(carillonDialect), d.expr.both)
			if err != nil {
				return false
			}
			d.ours = ours.Next(d.after, d.after.Location(), d.oracle.rules)
			d.theirs, _ = d.expr.next(d.after, d.after.Location(), d.oracle.rules)
			return !d.theirs.Equal(d.ours)
		})
		t.Errorf("not by the definition (they), with %+v: %s", d.oracle.rules, d)
	}
	for _, d := range r.unknown[:min(len(r.unknown), most)] {
		d = minimal(d, func(d *difference) bool {
			ours, err := cron.Parse(d.expr.text(carillonDialect), d.expr.both)
			if err != nil {
				return false
			}
			d.ours = ours.Next(d.after, d.after.Location(), d.oracle.rules)
			var next nextFunc
			if next, d.err = d.oracle.compile(d.expr.text(d.oracle.dialect), d.expr.both, d.after.Location()); d.err == nil {
				d.theirs, d.err = d.oracle.ask(next, *d)
			}
			c, _ := classify(*d)
			return c == nil && (d.err != nil || !d.theirs.Equal(d.ours))
		})
		t.Errorf("no class for %s: %s", d.oracle.name, d)
	}
	if t.Failed() {
		t.Logf("DIFFTEST_SEED=%d repeats this run", r.seed)
	}
	found := slices.Collect(maps.Keys(r.classes))
	slices.SortFunc(found, func(a, b *class) int { return r.classes[b] - r.classes[a] })
	var table strings.Builder
	fmt.Fprintf(&table, "difftest: %d cases, %d differences in %d classes (DIFFTEST_SEED=%d)\n", r.cases, r.differences, len(found), r.seed)
	for _, c := range found {
		fmt.Fprintf(&table, "%7d  %s\n         e.g. %s\n         %s\n", r.classes[c], c, r.examples[c], c.reason)
	}
	fmt.Print(table.String())
}

// minimal makes the expression of a difference as simple as it can be for the difference to hold.
func minimal(d difference, holds func(d *difference) bool) difference {
	for again := true; again; {
		again = false
		for _, simpler := range d.expr.simpler() {
			candidate := d
			candidate.expr = simpler
			if holds(&candidate) {
				d, again = candidate, true
				break
			}
		}
	}
	return d
}

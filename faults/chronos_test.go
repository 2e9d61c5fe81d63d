package faults_test

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/faultnet"
	"github.com/carillon-go/carillon/internal/proctest"
	"github.com/carillon-go/carillon/internal/redistest"
	"github.com/carillon-go/carillon/internal/verify"
)

// machine is one of the five of G8: a process with a clock and a network of its own.
type machine struct {
	process *proctest.Process
	net     *faultnet.Net
	addr    string
	skew    time.Duration
	trouble string    // what it has now; "": nothing
	until   time.Time // when that ends
}

// chronos is G8: five machines and their troubles.
type chronos struct {
	*clockwork
	crew     *crew
	random   *rand.Rand
	machines []*machine
	lasts    time.Duration // of a trouble
	did      map[string]int
}

// troubles are what can be wrong with a machine.
var troubles = []string{"cut off", "killed", "frozen"}

// G8: Jepsen's test of Chronos. Schedules of random kinds and policies on five
// machines, whose clocks are wrong, that are cut off, killed and frozen at random;
// then all heals. Each planned tick has been run, once, or there is the reason
// that the policy gives.
func TestG8_Chronos(t *testing.T) {
	t.Parallel()
	server := redistest.Shared(t)
	c := newCrew(t, server, func(w *world) {
		w.segments, w.lease = 4, longer(600*time.Millisecond, 3*time.Second)
	})
	r := &chronos{crew: c, random: dice(t), lasts: longer(3*time.Second, 20*time.Second), did: map[string]int{}}
	for range 5 {
		m := &machine{net: faultnet.New(t, seed)}
		if canSkew {
			m.skew = time.Duration(r.random.IntN(61)-30) * time.Second
		}
		m.addr = m.net.Proxy(t, server.Addr())
		m.process = r.boot(m)
		r.machines = append(r.machines, m)
	}
	r.clockwork = c.clockwork(c.producer, longer(12*time.Second, 4*time.Minute))
	n := 30
	if full {
		n = 60
	}
	for i := range n {
		r.draw(i)
	}
	for _, d := range []time.Duration{100 * time.Millisecond, 700 * time.Millisecond} {
		r.putAfter(carillon.Schedule{Name: "after " + d.String(), Job: carillon.Job{Name: "nap"}}, d)
	}
	r.began()
	r.passes(r.start.Sub(r.now()))
	r.torment()
	r.heal()
	r.over()
	all, each := r.match(300)
	r.print(all, each)
	assert.Empty(t, c.lines(func(l proctest.Line) bool {
		return l.Event == "return" && strings.HasPrefix(l.Note, errTooSoon.Error())
	}), "a follower before its shards")
	for _, what := range troubles {
		assert.Positive(t, r.did[what], "nobody was "+what)
	}
	c.finish(0)
}

func (r *chronos) boot(m *machine) *proctest.Process {
	return r.crew.worker(func(a *workerArgs) {
		a.Addr, a.Skew, a.Patience = m.addr, m.skew, r.crew.lease
	})
}

// draw puts a random schedule. Jobs of some that may not overlap last for longer
// than their interval.
func (r *chronos) draw(i int) {
	pick := r.random.IntN
	sched := carillon.Schedule{
		Name: fmt.Sprintf("s%d", i), Job: carillon.Job{Name: "work"},
		MisfireAfter: time.Duration(500+pick(1000)) * time.Millisecond,
	}
	if i%2 == 0 { // none of their ticks may be left out
		sched.Misfire = carillon.FireAll
	} else {
		sched.Misfire = carillon.Misfire(pick(3))
		sched.Overlap = carillon.Overlap(pick(5))
		sched.BufferMax = 1000
	}
	if sched.Overlap != carillon.Allow && pick(2) == 0 {
		sched.Job.Name = "nap"
	}
	sched.ReplayMax = 10_000
	switch pick(4) {
	case 0: // its jobs belong to another segment
		sched.Job.Mutex = sched.Name
	case 1:
		sched.Sharding = carillon.Sharding{Shards: 1 + pick(3), Then: &carillon.Job{Name: "follow"}}
	}
	var spec carillon.Spec
	var planned []time.Time
	step := time.Duration(200+10*pick(81)) * time.Millisecond
	if sched.Overlap == carillon.BufferAll {
		step += 800 * time.Millisecond // or its jobs would need longer than its ticks
	}
	switch pick(5) {
	case 0:
		spec, planned = r.cron("* * * * * *")
	case 1:
		spec, planned = r.cron(fmt.Sprintf("%d/%d * * * * *", pick(2), 2+pick(3)))
	case 2:
		spec, planned = r.every(step)
	case 3:
		spec, planned = r.aligned(step)
	case 4:
		spec, planned = r.at(step)
	}
	sched.Spec = spec
	r.put(sched, planned)
}

// torment breaks machines until the last tick is near. It begins with one of each
// trouble, for a slow machine may not come to many.
func (r *chronos) torment() {
	for i, trouble := range troubles {
		r.hurt(r.machines[i], trouble)
	}
	pick := func() string { return troubles[r.random.IntN(len(troubles))] }
	for stop := r.end.Add(-time.Second); r.now().Before(stop); {
		for _, m := range r.machines {
			if m.trouble != "" && time.Now().After(m.until) {
				r.mend(m)
			}
		}
		if r.random.IntN(12) == 0 { // all are gone together
			for _, m := range r.machines {
				r.hurt(m, pick())
			}
		} else {
			r.hurt(r.machines[r.random.IntN(len(r.machines))], pick())
		}
		r.passes(time.Duration(r.random.Int64N(int64(r.lasts/3))) + 100*time.Millisecond)
	}
}

func (r *chronos) hurt(m *machine, trouble string) {
	if m.trouble != "" {
		return
	}
	m.trouble = trouble
	lasts := r.lasts/4 + time.Duration(r.random.Int64N(int64(r.lasts*3/4)))
	switch trouble {
	case "cut off":
		lasts = r.lasts
		m.net.Set(faultnet.Faults{Up: true, Down: true, Late: r.random.IntN(2) == 0})
	case "killed":
		m.process.Kill()
	case "frozen":
		m.process.Stop(r.t)
	}
	m.until = time.Now().Add(lasts)
	r.did[m.trouble]++
	r.fault(1)
}

func (r *chronos) mend(m *machine) {
	switch m.trouble {
	case "cut off":
		m.net.Set(faultnet.Faults{})
	case "killed":
		m.process = r.boot(m)
	case "frozen":
		m.process.Cont(r.t)
	}
	m.trouble = ""
}

func (r *chronos) heal() {
	for _, m := range r.machines {
		r.mend(m)
	}
	for _, m := range r.machines {
		require.False(r.t, m.process.Exited(), "a machine has ended by itself")
	}
}

var misfires = [...]string{"FireOnce", "SkipMissed", "FireLast", "FireAll"}
var overlaps = [...]string{"Allow", "Skip", "BufferOne", "BufferAll", "Replace"}

// print shows what became of the ticks by policy.
func (r *chronos) print(all verify.Match, each []verify.Match) {
	by := map[string]*verify.Match{}
	for i, m := range each {
		s := r.plans[i].Schedule
		name := misfires[s.Misfire] + ", " + overlaps[s.Overlap]
		by[name] = cmp.Or(by[name], &verify.Match{})
		by[name].Add(m)
		if s.Misfire == carillon.FireAll && s.Overlap == carillon.Allow {
			assert.Equal(r.t, m.Planned, m.Fired, "%s: all ticks run", s.Name)
		}
	}
	var b strings.Builder
	row := func(name string, m *verify.Match) {
		late := func(p int) time.Duration { return m.LateAt(p).Round(time.Millisecond) }
		fmt.Fprintf(&b, "| %-22s | %9d | %7d | %6d | %6d | %7d | %7d | %5d | %8v | %8v | %8v |\n", name, m.Schedules, m.Planned, m.Fired, m.Merged, m.Skipped,
			len(m.Missing), len(m.Extra), late(50), late(99), late(100))
	}
	fmt.Fprintf(&b, "G8: five machines, clocks up to 30 s off, %d times cut off, %d times killed, %d times frozen, each for up to %v, in %v\n",
		r.did["cut off"], r.did["killed"], r.did["frozen"], r.lasts, r.end.Sub(r.start))
	b.WriteString("| policies               | schedules | planned |  fired | merged | skipped | missing | extra | late p50 |      p99 |      max |\n")
	b.WriteString("|------------------------|-----------|---------|--------|--------|---------|---------|-------|----------|----------|----------|\n")
	for _, name := range slices.Sorted(maps.Keys(by)) {
		row(name, by[name])
	}
	row("all", &all)
	r.t.Log("\n" + b.String())
	_, _ = tables.Write([]byte(b.String()))
}

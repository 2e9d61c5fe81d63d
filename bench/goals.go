package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// goal is something that is to be reached: mostly a ratio of two figures of one
// run, because absolute values move with the machine.
type goal struct {
	what   string
	bound  float64
	atMost bool
	unit   string
	value  func(r *results) (float64, bool)
}

var goals = []goal{
	{what: "drain, of asynq", bound: 10, unit: "×", value: against("drain/1", "drain/1", "asynq")},
	{what: "drain, of the floor", bound: 0.45, unit: "×", value: against("drain/1", "drain/1", "floor")},
	{what: "sustained, of asynq", bound: 6, unit: "×", value: against("sustained", "sustained", "asynq")},
	{what: "bulk submission, of pipelined XADD", bound: 0.6, unit: "×", value: against("submit/bulk", "submit/bulk", "floor")},
	{what: "bulk submission, of asynq's single one", bound: 3, unit: "×", value: bestSingle},
	{what: "single submission, 1 goroutine, of asynq", bound: 1, unit: "×", value: against("submit/single/1", "submit/single/1", "asynq")},
	{what: "single submission, 16 goroutines, of asynq", bound: 1.3, unit: "×", value: against("submit/single/16", "submit/single/16", "asynq")},
	{what: "single submission, 256 goroutines, of asynq", bound: 2.5, unit: "×", value: against("submit/single/256", "submit/single/256", "asynq")},
	{what: "idle pick-up p99, of asynq", bound: 0.01, atMost: true, unit: "×", value: ratio("pickup", "pickup", "asynq", "p99 ms")},
	{what: "lateness p99", bound: 10, atMost: true, unit: "ms", value: own("lateness", "p99 ms")},
	{what: "50,000 delayed jobs due at once, the last one", bound: 1000, atMost: true, unit: "ms", value: own("burst/50000", "max ms")},
	{what: "bytes of a scheduled job, of asynq", bound: 0.6, atMost: true, unit: "×", value: ratio("bytes/scheduled", "bytes/scheduled", "asynq", bytesUnit)},
	{what: "bytes of a queued job, of asynq", bound: 0.55, atMost: true, unit: "×", value: ratio("bytes/queued", "bytes/queued", "asynq", bytesUnit)},
	{what: "drain with 1,000,000 parked, of 1,000 parked", bound: 1.1, atMost: true, unit: "×", value: ratio("parked/1000000", "parked/1000", ours, redisCPU)},
	{what: "256 idle instances", bound: 1, atMost: true, unit: "% of a core of Redis", value: own("idle/256", "% of a core, Redis")},
	{what: "allocations of an executed job, arguments included", bound: 12, atMost: true, unit: "", value: own("allocations/drain", "allocations a job")},
	{what: "Cluster: busiest master over the idlest", bound: 10, atMost: true, unit: "% more", value: imbalance},
	{what: "Cluster: Redis CPU of a job, of one node", bound: 1.1, atMost: true, unit: "×", value: ratio("cluster/3", "cluster/none", ours, redisCPU)},
	{what: "Cluster: time in commands of a job, of one node", bound: 1.1, atMost: true, unit: "×", value: ratio("cluster/3", "cluster/none", ours, inCommands)},
}

// against is ratio for throughput.
func against(scenario, other, contestant string) func(*results) (float64, bool) {
	return ratio(scenario, other, contestant, "jobs/s")
}

// ratio compares our figure in a scenario with another's in another.
func ratio(scenario, other, contestant, unit string) func(*results) (float64, bool) {
	return func(r *results) (float64, bool) {
		a, b := r.find(scenario, ours, unit), r.find(other, contestant, unit)
		if a == nil || b == nil {
			return 0, false
		}
		return a.Median / b.Median, true
	}
}

func own(scenario, unit string) func(*results) (float64, bool) {
	return func(r *results) (float64, bool) {
		if a := r.find(scenario, ours, unit); a != nil {
			return a.Median, true
		}
		return 0, false
	}
}

// bestSingle compares with asynq's single submission from as many goroutines as suit it.
func bestSingle(r *results) (least float64, ok bool) {
	for _, single := range []string{"submit/single/1", "submit/single/16", "submit/single/256"} {
		if v, found := against("submit/bulk", single, "asynq")(r); found && (!ok || v < least) {
			least, ok = v, true
		}
	}
	return least, ok
}

func imbalance(r *results) (float64, bool) {
	busiest, idlest := r.find("cluster/3/share", ours, busiestMaster), r.find("cluster/3/share", ours, idlestMaster)
	if busiest == nil || idlest == nil {
		return 0, false
	}
	return (busiest.Median/idlest.Median - 1) * 100, true
}

// met reports whether a value reaches the goal.
func (g *goal) met(v float64) bool {
	if g.atMost {
		return v <= g.bound
	}
	return v >= g.bound
}

// printGoals prints the goals whose figures were measured.
func (r *results) printGoals(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, g := range goals {
		v, ok := g.value(r)
		if !ok {
			continue
		}
		bound, verdict := "≥ ", "missed"
		if g.atMost {
			bound = "≤ "
		}
		if g.met(v) {
			verdict = "met"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s%s %s\t%s\n", g.what, figure(v), bound, figure(g.bound), g.unit, verdict)
	}
	_ = w.Flush()
}

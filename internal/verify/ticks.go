package verify

import (
	"fmt"
	"slices"
	"time"

	"github.com/carillon-go/carillon"
)

// Ticks is the schedule matcher (after Jepsen's for Chronos): it pairs the ticks
// that were planned with the jobs that are there. The plan comes from the
// caller, computed by something else than the scheduler under test.
func Ticks(planned []time.Time, jobs []*carillon.JobInfo, late time.Duration) []string {
	var findings []string
	runs := map[int64][]*carillon.JobInfo{}
	for _, j := range jobs {
		runs[j.Tick.UnixMilli()] = append(runs[j.Tick.UnixMilli()], j)
	}
	for _, tick := range planned {
		at := tick.UnixMilli()
		switch found := runs[at]; {
		case len(found) == 0:
			findings = append(findings, fmt.Sprintf("tick %s has no job", tick.Format(time.RFC3339Nano)))
		case len(found) > 1:
			findings = append(findings, fmt.Sprintf("tick %s has %d jobs", tick.Format(time.RFC3339Nano), len(found)))
		default:
			if created := found[0].SubmittedAt; created.Before(tick) {
				findings = append(findings, fmt.Sprintf("tick %s was fired %v early", tick.Format(time.RFC3339Nano), tick.Sub(created)))
			} else if d := created.Sub(tick); d > late {
				findings = append(findings, fmt.Sprintf("tick %s was fired %v late", tick.Format(time.RFC3339Nano), d))
			}
		}
		delete(runs, at)
	}
	for _, extra := range runs {
		findings = append(findings, fmt.Sprintf("%s belongs to no planned tick", extra[0].ID))
	}
	slices.Sort(findings)
	return findings
}

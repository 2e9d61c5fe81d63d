package plan_test

import (
	"fmt"
	"time"
	_ "time/tzdata"

	"github.com/carillon-go/carillon/internal/plan"
)

// The National Day of China in 2026: a week off, and work on the Saturday after.
func ExampleCompile() {
	calendar, err := plan.Compile(plan.Calendar{
		Name: "cn",
		Exclude: plan.Rules{
			Weekdays: []time.Weekday{time.Saturday, time.Sunday},
			Dates:    []string{"2026-10-01/2026-10-07"},
		},
		Include: plan.Rules{Dates: []string{"2026-09-20", "2026-10-10"}},
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	shanghai, err := time.LoadLocation("Asia/Shanghai")
	if err != nil {
		fmt.Println(err)
		return
	}
	stored := time.Date(2026, 9, 29, 12, 0, 0, 0, shanghai)
	daily, errs := plan.New(plan.Spec{Cron: "30 8 * * *"}, plan.Options{Zone: shanghai, Anchor: stored, Calendar: calendar})
	if errs != nil {
		fmt.Println(errs)
		return
	}
	for at := stored; at.Before(stored.AddDate(0, 0, 12)); {
		tick, skipped := daily.Next(at)
		if !skipped.First.IsZero() {
			fmt.Println("no ticks from", skipped.First.Format("Mon 2 Jan"), "to", skipped.Last.Format("Mon 2 Jan"))
		}
		fmt.Println(tick.Format("Mon 2 Jan 15:04"))
		at = tick
	}
	// Output:
	// Wed 30 Sep 08:30
	// no ticks from Thu 1 Oct to Wed 7 Oct
	// Thu 8 Oct 08:30
	// Fri 9 Oct 08:30
	// Sat 10 Oct 08:30
	// no ticks from Sun 11 Oct to Sun 11 Oct
	// Mon 12 Oct 08:30
}

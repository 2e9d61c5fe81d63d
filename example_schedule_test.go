package carillon_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/embedded"
)

// open makes a Scheduler on a Redis of its own for an example.
func open() (*carillon.Scheduler, func()) {
	rdb, stop := embedded.Open()
	s, err := carillon.New(rdb, carillon.Config{Logger: slog.New(slog.DiscardHandler)})
	must(err)
	return s, func() {
		must(s.Shutdown(context.Background()))
		stop()
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// A schedule in a time zone, on the days on which clocks are changed.
func ExampleCron() {
	berlin, err := time.LoadLocation("Europe/Berlin")
	must(err)
	sched := carillon.Schedule{
		Name: "report", Spec: carillon.Cron("30 2 * * SUN"), TimeZone: "Europe/Berlin", Job: carillon.Job{Name: "report"},
	}
	fmt.Println(sched.Spec)
	ticks, err := sched.Ticks(time.Date(2030, 3, 20, 0, 0, 0, 0, berlin))
	must(err)
	n := 0
	for tick := range ticks {
		fmt.Println(tick.In(berlin).Format("2006-01-02 15:04 MST"))
		if n++; n == 3 {
			break
		}
	}
	// Output:
	// at 02:30 on Sunday
	// 2030-03-24 02:30 CET
	// 2030-03-31 03:00 CEST
	// 2030-04-07 02:30 CEST
}

// The last working day of each month.
func ExampleScheduler_PutCalendar() {
	ctx := context.Background()
	s, stop := open()
	defer stop()

	must(s.PutCalendar(ctx, carillon.Calendar{Name: "bank", Exclude: carillon.DaySet{
		Weekdays: []time.Weekday{time.Saturday, time.Sunday}, Yearly: []string{"12-31"},
	}}))
	must(s.Schedule(ctx, carillon.Schedule{
		Name: "payroll", Spec: carillon.Months(1, -1).At("09:00"), Calendar: "bank", OnExcluded: carillon.MovePrevious,
		Start: time.Date(2090, 10, 1, 0, 0, 0, 0, time.UTC), Job: carillon.Job{Name: "pay"},
	}))
	ticks, err := s.NextTicks(ctx, "payroll", 4)
	must(err)
	for _, tick := range ticks {
		fmt.Println(tick.UTC().Format("Mon 2006-01-02 15:04"))
	}
	// Output:
	// Tue 2090-10-31 09:00
	// Thu 2090-11-30 09:00
	// Fri 2090-12-29 09:00
	// Wed 2091-01-31 09:00
}

// With Skip, a tick that comes during a run is left out, whichever instance runs it.
func ExampleOverlap() {
	ctx := context.Background()
	s, stop := open()
	defer stop()

	var running, most atomic.Int32
	done := make(chan struct{}, 100)
	must(s.Handle("sync", carillon.HandlerFunc(func(context.Context, *carillon.Execution) error {
		most.Store(max(most.Load(), running.Add(1)))
		<-time.After(250 * time.Millisecond)
		running.Add(-1)
		done <- struct{}{}
		return nil
	})))
	must(s.Start(ctx))
	must(s.Schedule(ctx, carillon.Schedule{
		Name: "sync", Spec: carillon.Every(100 * time.Millisecond), Overlap: carillon.Skip, Job: carillon.Job{Name: "sync"},
	}))
	<-done
	<-done
	fmt.Println("at the same time:", most.Load())
	// Output:
	// at the same time: 1
}

// A tick is shared among instances, and summed up when all shards have ended.
func ExampleSharding() {
	ctx := context.Background()
	s, stop := open()
	defer stop()

	must(s.Handle("count", carillon.HandlerFunc(func(_ context.Context, x *carillon.Execution) error {
		return x.SetResult(len(x.Shard.Param))
	})))
	done := make(chan struct{})
	must(s.Handle("sum", carillon.HandlerFunc(func(ctx context.Context, x *carillon.Execution) error {
		shards, err := x.Shards(ctx)
		if err != nil {
			return err
		}
		for _, shard := range shards {
			fmt.Printf("%s: %s %s\n", shard.Shard.Param, shard.State, shard.Result)
		}
		close(done)
		return nil
	})))
	must(s.Start(ctx))
	must(s.Schedule(ctx, carillon.Schedule{
		Name: "census", Spec: carillon.Cron("@yearly"), Job: carillon.Job{Name: "count"},
		Sharding: carillon.Sharding{Params: []string{"Asia", "Europe", "Africa"}, Then: &carillon.Job{Name: "sum"}},
	}))
	_, err := s.Trigger(ctx, "census", nil) // it need not wait for New Year
	must(err)
	<-done
	// Output:
	// Asia: succeeded 4
	// Europe: succeeded 6
	// Africa: succeeded 6
}

// The runs of a past week, one after the other.
func ExampleScheduler_Backfill() {
	ctx := context.Background()
	s, stop := open()
	defer stop()

	done := make(chan string)
	must(s.Handle("import", carillon.HandlerFunc(func(_ context.Context, x *carillon.Execution) error {
		done <- x.Tick.UTC().Format("Mon 2006-01-02 15:04")
		return nil
	})))
	must(s.Start(ctx))
	must(s.Schedule(ctx, carillon.Schedule{
		Name: "import", Spec: carillon.Weeks(1, time.Monday, time.Thursday).At("04:00"), Start: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		Job: carillon.Job{Name: "import"},
	}))
	must(s.Backfill(ctx, "import", carillon.Backfill{
		From: time.Date(2025, 6, 2, 0, 0, 0, 0, time.UTC), To: time.Date(2025, 6, 9, 23, 0, 0, 0, time.UTC), Overlap: carillon.BufferAll,
	}))
	for range 3 {
		fmt.Println(<-done)
	}
	// Output:
	// Mon 2025-06-02 04:00
	// Thu 2025-06-05 04:00
	// Mon 2025-06-09 04:00
}

func ExampleScheduler_Explain() {
	ctx := context.Background()
	s, stop := open()
	defer stop()

	must(s.PutCalendar(ctx, carillon.Calendar{Name: "holidays", Exclude: carillon.DaySet{Yearly: []string{"12-25"}}}))
	must(s.Schedule(ctx, carillon.Schedule{
		Name: "mail", Spec: carillon.Cron("0 8 * * *"), Calendar: "holidays", Job: carillon.Job{Name: "mail"},
	}))
	for _, at := range []time.Time{
		time.Date(2090, 12, 24, 8, 0, 0, 0, time.UTC), time.Date(2090, 12, 24, 9, 0, 0, 0, time.UTC), time.Date(2090, 12, 25, 8, 0, 0, 0, time.UTC),
	} {
		text, err := s.Explain(ctx, "mail", at)
		must(err)
		fmt.Println(text)
	}
	// Output:
	// It is planned: it will be fired at 2090-12-24 08:00:00 UTC.
	// No tick is planned then; the one before is 2090-12-24 08:00:00 UTC; the next one is 2090-12-26 08:00:00 UTC.
	// It is not planned: the calendar holidays excludes it.
}

func ExampleScheduler_Rollback() {
	ctx := carillon.WithActor(context.Background(), "ada")
	s, stop := open()
	defer stop()

	sched := carillon.Schedule{Name: "poll", Spec: carillon.Every(time.Minute), Job: carillon.Job{Name: "poll"}}
	must(s.Schedule(ctx, sched))
	sched.Spec, sched.Overlap = carillon.Every(time.Hour), carillon.Skip
	must(s.Schedule(ctx, sched))
	must(s.Rollback(ctx, "poll", 1))
	versions, err := s.Versions(ctx, "poll")
	must(err)
	for i, v := range versions {
		fmt.Println("generation", v.Generation, "by", v.Actor, "-", v.Schedule.Spec)
		if i > 0 {
			fmt.Println("\t", v.Diff(versions[i-1]))
		}
	}
	// Output:
	// generation 1 by ada - every minute
	// generation 2 by ada - every hour
	// 	 [Overlap: none -> 1 Spec.everyMs: 60000 -> 3600000]
	// generation 3 by ada - every minute
	// 	 [Overlap: 1 -> none Spec.everyMs: 3600000 -> 60000]
}

func ExampleScheduler_PauseGroup() {
	ctx := carillon.WithActor(context.Background(), "ada")
	s, stop := open()
	defer stop()

	for _, name := range []string{"invoices", "reminders"} {
		must(s.Schedule(ctx, carillon.Schedule{Name: name, Group: "billing", Spec: carillon.Every(time.Hour), Job: carillon.Job{Name: name}}))
	}
	must(s.PauseGroup(ctx, "billing", "the bank moves house"))
	all, err := s.SchedulesOf(ctx, "billing")
	must(err)
	for _, sched := range all {
		fmt.Println(sched.Name, "was paused by", sched.Paused.Actor, "because", sched.Paused.Reason)
	}
	// Output:
	// invoices was paused by ada because the bank moves house
	// reminders was paused by ada because the bank moves house
}

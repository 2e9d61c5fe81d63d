package carillontest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/carillontest"
)

// The functions in the examples are tests. TestExamples runs them.
var runTest func(func(t *testing.T))

func TestExamples(t *testing.T) {
	for name, example := range map[string]func(){
		"Test": ExampleTest, "Runs": ExampleEnv_Runs, "Instance": ExampleEnv_Instance,
	} {
		runTest = func(f func(t *testing.T)) { t.Run(name, f) }
		example()
	}
}

// Shop is the service under test. It gets its Scheduler from outside.
type Shop struct {
	jobs *carillon.Scheduler
	sent []string
}

// NewShop registers the handlers of the shop.
func NewShop(jobs *carillon.Scheduler) (*Shop, error) {
	shop := &Shop{jobs: jobs}
	return shop, jobs.Handle("remind", carillon.Func(shop.remind))
}

// Order reminds the customer of the unpaid order a day later.
func (s *Shop) Order(ctx context.Context, customer string) error {
	_, err := s.jobs.Submit(ctx, carillon.Job{
		Name: "remind", Args: customer, Delay: 24 * time.Hour,
		Retry: &carillon.Retry{Delays: []time.Duration{10 * time.Minute}},
	})
	return err
}

func (s *Shop) remind(ctx context.Context, customer string) error {
	if carillon.FromContext(ctx).Attempt == 1 {
		return errors.New("the mail server is busy")
	}
	s.sent = append(s.sent, customer)
	return nil
}

// This is a test as it stands in a service's shop_test.go: an order is followed
// by a reminder a day later, and by another try when that fails.
func ExampleTest() {
	TestReminder := func(t *testing.T) {
		carillontest.Test(t, carillon.Config{}, func(t *testing.T, env *carillontest.Env) {
			shop, err := NewShop(env.Scheduler)
			if err != nil {
				t.Fatal(err)
			}
			env.Start()
			if err := shop.Order(t.Context(), "ada"); err != nil {
				t.Fatal(err)
			}

			env.Advance(23 * time.Hour)
			env.RequireRuns("remind", 0)

			env.Advance(2 * time.Hour)
			env.RequireRunsAt("remind", 24*time.Hour, 24*time.Hour+10*time.Minute)
			if len(shop.sent) != 1 || shop.sent[0] != "ada" {
				t.Errorf("sent to %v, want ada", shop.sent)
			}
		})
	}
	runTest(TestReminder)
}

// A schedule over a month, with the instants at which it fired.
func ExampleEnv_Runs() {
	TestNightly := func(t *testing.T) {
		carillontest.Test(t, carillon.Config{}, func(t *testing.T, env *carillontest.Env) {
			env.AdvanceTo(time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC))
			report := func(context.Context, struct{}) error { return nil }
			if err := env.Scheduler.Handle("report", carillon.Func(report)); err != nil {
				t.Fatal(err)
			}
			env.Start()
			err := env.Scheduler.Schedule(t.Context(), carillon.Schedule{
				Name: "nightly", Spec: carillon.Cron("0 3 * * *"), TimeZone: "Europe/Berlin",
				Job: carillon.Job{Name: "report"},
			})
			if err != nil {
				t.Fatal(err)
			}

			env.AdvanceTo(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC))
			for _, run := range env.Runs("report") {
				t.Log(run.At.UTC(), run.Err) // at 1:00 in summer, from the 25th on at 2:00
			}
			env.RequireRuns("report", 31)
		})
	}
	runTest(TestNightly)
}

// Two instances with a slot each share the work; a third one only submits.
func ExampleEnv_Instance() {
	TestTwoWorkers := func(t *testing.T) {
		carillontest.Test(t, carillon.Config{Concurrency: 1}, func(t *testing.T, env *carillontest.Env) {
			other := env.Instance(carillon.Config{Concurrency: 1})
			producer := env.Instance(carillon.Config{})
			for _, s := range []*carillon.Scheduler{env.Scheduler, other} {
				err := s.Handle("slow", carillon.HandlerFunc(func(context.Context, *carillon.Execution) error {
					<-time.After(time.Minute)
					return nil
				}))
				if err != nil {
					t.Fatal(err)
				}
			}
			env.Start(env.Scheduler, other)
			for range 4 {
				if _, err := producer.Submit(t.Context(), carillon.Job{Name: "slow"}); err != nil {
					t.Fatal(err)
				}
			}
			env.Advance(time.Hour)
			env.RequireRunsAt("slow", 0, 0, time.Minute, time.Minute)
		})
	}
	runTest(TestTwoWorkers)
}

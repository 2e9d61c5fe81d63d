// Quickstart runs a job, plans one for later that fails at first and is tried
// again, and puts one on a schedule. Nothing has to be installed for it: Redis
// is inside this process.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/embedded"
)

// Mail is what the jobs named "mail" are given.
type Mail struct{ To string }

func main() {
	ctx := context.Background()
	rdb, stop := embedded.Open() // in production: redis.NewClient
	defer stop()
	s := must(carillon.New(rdb, carillon.Config{Logger: slog.New(slog.DiscardHandler)}))
	check(s.Handle("mail", carillon.Func(sendMail)))
	reports := make(chan time.Time, 10)
	check(s.Handle("report", carillon.HandlerFunc(func(_ context.Context, x *carillon.Execution) error {
		fmt.Println("report: written")
		reports <- x.Tick
		return nil
	})))
	check(s.Start(ctx))

	ada := must(s.Submit(ctx, carillon.Job{Name: "mail", Args: Mail{To: "Ada"}}))
	fmt.Println("Ada's job has", must(s.Await(ctx, ada.ID)).State)

	bob := must(s.Submit(ctx, carillon.Job{Name: "mail", Args: Mail{To: "Bob"}, Delay: time.Second / 2}))
	fmt.Println("Bob's job is", must(s.Get(ctx, bob.ID)).State)
	fmt.Println("Bob's job has", must(s.Await(ctx, bob.ID)).State)

	check(s.Schedule(ctx, carillon.Schedule{Name: "reports", Spec: carillon.Every(time.Second / 2), Job: carillon.Job{Name: "report"}}))
	<-reports
	check(s.Shutdown(ctx))
}

// sendMail is an ordinary function. When it returns an error, the job is tried
// again: by default after a second or so, here sooner.
func sendMail(ctx context.Context, m Mail) error {
	attempt := carillon.FromContext(ctx).Attempt
	if m.To == "Bob" && attempt == 1 {
		fmt.Println("mail to Bob: the server is busy")
		return carillon.RetryAfter(100*time.Millisecond, errors.New("the server is busy"))
	}
	fmt.Printf("mail to %s: sent in attempt %d\n", m.To, attempt)
	return nil
}

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

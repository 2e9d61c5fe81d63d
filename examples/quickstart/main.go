// Quickstart shows a job, a delay, a retry and a schedule. It needs no server:
// Redis is inside this process.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/embedded"
)

type Welcome struct{ To string }

func main() {
	rdb, stop := embedded.Open()
	defer stop()
	s, err := carillon.New(rdb, carillon.Config{})
	check(err)
	done := make(chan string, 4)
	check(s.Handle("welcome", carillon.Func(func(ctx context.Context, w Welcome) error {
		if w.To == "Bob" && carillon.FromContext(ctx).Attempt == 1 {
			return carillon.RetryAfter(100*time.Millisecond, errors.New("mail server busy"))
		}
		done <- fmt.Sprintf("welcome, %s (attempt %d)", w.To, carillon.FromContext(ctx).Attempt)
		return nil
	})))
	ctx := context.Background()
	check(s.Start(ctx))
	submit(ctx, s, carillon.Job{Name: "welcome", Args: Welcome{"Ada"}})
	submit(ctx, s, carillon.Job{Name: "welcome", Args: Welcome{"Bob"}})
	submit(ctx, s, carillon.Job{Name: "welcome", Args: Welcome{"Cleo"}, Delay: 300 * time.Millisecond})
	check(s.Schedule(ctx, carillon.Schedule{Name: "tick", Spec: carillon.Every(500 * time.Millisecond), Job: carillon.Job{Name: "welcome", Args: Welcome{"everyone, on schedule"}}}))
	for range cap(done) {
		fmt.Println(<-done)
	}
	check(s.Shutdown(ctx))
}

func submit(ctx context.Context, s *carillon.Scheduler, job carillon.Job) {
	_, err := s.Submit(ctx, job)
	check(err)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

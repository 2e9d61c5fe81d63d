package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/carillon-go/carillon"
)

// The jobs of the service.
const (
	confirmOrder = "order.confirm" // args: Order
	writeReport  = "report.write"
)

// newJobs registers the handlers, plans the report and starts to work.
func newJobs(ctx context.Context, rdb redis.UniversalClient, drain time.Duration, mails *mailer) (*carillon.Scheduler, error) {
	s, err := carillon.New(rdb, carillon.Config{
		Namespace:       "shop",
		ShutdownTimeout: drain,
	})
	if err != nil {
		return nil, err
	}
	confirm := carillon.Func(func(ctx context.Context, o Order) error {
		return mails.send(ctx, o.Email, "We have your order "+o.ID+".")
	})
	report := carillon.HandlerFunc(func(_ context.Context, x *carillon.Execution) error {
		x.Logger.Info("report written", "night", x.Tick.Format(time.DateOnly))
		return nil
	})
	// Mistakes in registrations are reported by Start too.
	_ = s.Handle(confirmOrder, confirm)
	_ = s.HandleWith(writeReport, report, carillon.HandlerConfig{Timeout: 10 * time.Minute})
	if err := s.Start(ctx); err != nil {
		return nil, err
	}
	// Every instance says so at its start; in Redis it is one schedule, and a
	// night has one report however many instances there are.
	err = s.Schedule(ctx, carillon.Schedule{
		Name: "nightly", Spec: carillon.Cron("0 3 * * *"), TimeZone: "Europe/Berlin",
		Job: carillon.Job{Name: writeReport},
	})
	if err != nil {
		_ = s.Shutdown(context.WithoutCancel(ctx))
		return nil, err
	}
	return s, nil
}

// mailer stands for a mail server.
type mailer struct{ takes time.Duration }

// send heeds its context, so that a stop does not have to wait for it.
func (m *mailer) send(ctx context.Context, to, text string) error {
	slog.Info("sending mail", "to", to)
	select {
	case <-time.After(m.takes):
		slog.Info("mail sent", "to", to, "text", text)
		return nil
	case <-ctx.Done():
		slog.Info("mail not sent", "to", to, "why", context.Cause(ctx))
		return context.Cause(ctx)
	}
}

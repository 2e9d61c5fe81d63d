// Service is an order API on net/http to which jobs were added: an order is
// confirmed by mail, by whichever instance has time, and every night a report is
// written. Start as many as you like on one Redis:
//
//	service -redis localhost:6379 -addr localhost:8080
//	service -redis localhost:6379 -addr localhost:8081
//	curl -d '{"id": "A-17", "email": "ada@example.com"}' localhost:8080/orders
//	curl localhost:8081/orders/A-17
//
// Without -redis, Redis is inside the process. On SIGTERM it stops accepting
// requests, answers those that are under way, lets running jobs finish, gives
// the others back, and exits.
package main

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
	_ "time/tzdata" // the schedule's time zone, whatever the machine has

	"github.com/redis/go-redis/v9"

	"github.com/carillon-go/carillon/embedded"
)

func main() {
	addr := flag.String("addr", "localhost:8080", "where to serve HTTP, `host:port`")
	redisAddr := flag.String("redis", "", "the Redis server, `host:port`; empty: one inside this process")
	drain := flag.Duration("drain", 20*time.Second, "how long running jobs may take to finish when the service stops")
	mailTakes := flag.Duration("mail-takes", 100*time.Millisecond, "how long it takes to send a mail")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	rdb, closeRedis := connect(*redisAddr)
	err := run(ctx, rdb, *addr, *drain, &mailer{takes: *mailTakes})
	closeRedis()
	if err != nil {
		slog.Error("service", "error", err)
		os.Exit(1)
	}
}

// connect returns a client and what closes it.
func connect(addr string) (rdb *redis.Client, stop func()) {
	if addr == "" {
		return embedded.Open()
	}
	rdb = redis.NewClient(&redis.Options{Addr: addr})
	return rdb, func() { _ = rdb.Close() }
}

// run serves until ctx ends.
func run(ctx context.Context, rdb redis.UniversalClient, addr string, drain time.Duration, mails *mailer) error {
	jobs, err := newJobs(ctx, rdb, drain, mails)
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return errors.Join(err, jobs.Shutdown(context.WithoutCancel(ctx)))
	}
	server := &http.Server{Handler: routes(jobs), ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }() // ends with Shutdown
	slog.Info("serving", "addr", listener.Addr().String())

	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	// First the requests, which may still submit jobs, then the jobs.
	slog.Info("stopping")
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err = errors.Join(err, server.Shutdown(patience))
	err = errors.Join(err, jobs.Shutdown(context.WithoutCancel(ctx))) // takes as long as Config.ShutdownTimeout says
	slog.Info("stopped")
	return err
}

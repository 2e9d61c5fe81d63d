package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/carillon-go/carillon"
)

const (
	jobName = "report.write"
	nameEnv = "FENCING_WORKER_NAME"
)

// work does jobs until ctx ends, or standard input, which the parent holds.
func work(ctx context.Context, rdb *redis.Client, namespace, storage string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	s, err := carillon.New(rdb, carillon.Config{
		Namespace: namespace, LeaseTTL: lease, Logger: warnings(),
		Concurrency: 1, // a paused worker with room for more could be handed the job once more
	})
	if err != nil {
		return err
	}
	client := &reporter{name: os.Getenv(nameEnv), storage: storage}
	if err := s.Handle(jobName, carillon.HandlerFunc(client.writeReport)); err != nil {
		return err
	}
	return s.Run(ctx)
}

// warnings are what Carillon itself has to say in the story.
func warnings() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		Level: slog.LevelWarn,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.MessageKey || a.Key == "attempt" || a.Key == "error" {
				return a
			}
			return slog.Attr{}
		},
	}))
}

// reporter is a client of the storage.
type reporter struct{ name, storage string }

// writeReport is the handler: it reads, thinks, and writes.
func (r *reporter) writeReport(ctx context.Context, x *carillon.Execution) error {
	// Carillon ends ctx as soon as it knows that the lease is lost. That helps
	// often and not always: here the handler is past the point of looking.
	ctx = context.WithoutCancel(ctx)
	orders, err := r.send(ctx, x, http.MethodGet, "/orders", "")
	if err != nil {
		return err
	}
	if _, err := r.send(ctx, x, http.MethodPut, "/report", orders+" orders"); err != nil {
		// A good handler would return the error. This one claims success, to
		// show that Carillon has a fence too.
		return nil //nolint:nilerr // see above
	}
	return nil
}

// send makes a request that carries the token of the attempt.
func (r *reporter) send(ctx context.Context, x *carillon.Execution, method, path, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.storage+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Worker", r.name)
	req.Header.Set("Attempt", strconv.Itoa(x.Attempt))
	req.Header.Set("Token", strconv.FormatUint(x.Token, 10))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("storage: %s", strings.TrimSpace(string(answer)))
	}
	return string(answer), err
}

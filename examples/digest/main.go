// Digest computes the SHA-256 of every file below a directory, one job a file,
// worked on by as many processes as there are:
//
//	digest -redis localhost:6379 -worker        # several of these, where the files are
//	digest -redis localhost:6379 -dir /usr/src  # submits, waits, prints the report
//
// The report on standard output is, byte for byte, that of
//
//	find /usr/src -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
//
// Everything else goes to standard error. The exit code is 1 when a file could
// not be read. Workers can be started, stopped and killed at any time; what a
// killed one had begun, the others do.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/carillon-go/carillon"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit code: 0, 1 when something is missing from the report, 2
// when the arguments are wrong.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("digest", flag.ContinueOnError)
	flags.SetOutput(stderr)
	addr := flags.String("redis", "", "the Redis server, `host:port`")
	worker := flags.Bool("worker", false, "work until stopped")
	dir := flags.String("dir", "", "report on the files below this `directory`")
	name := flags.String("run", "", "`name` of the run; with the name of an interrupted run, go on with it (default a new one)")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if *addr == "" || *worker == (*dir != "") || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "digest needs -redis, and either -worker or -dir")
		flags.Usage()
		return 2
	}
	if *name == "" {
		*name = uuid.NewString()
	}

	rdb := redis.NewClient(&redis.Options{Addr: *addr})
	defer rdb.Close()
	level := slog.LevelWarn
	if *worker {
		level = slog.LevelInfo
	}
	s, err := carillon.New(rdb, carillon.Config{
		Namespace: "digest",
		Logger:    slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})),
	})
	if err != nil {
		return fail(stderr, err)
	}
	if *worker {
		if err := work(ctx, s); err != nil {
			return fail(stderr, err)
		}
		return 0
	}
	complete, err := report(ctx, s, *dir, *name, stdout, stderr)
	if ctx.Err() != nil {
		fmt.Fprintf(stderr, "digest: interrupted; -run %s goes on\n", *name)
	}
	err = errors.Join(err, s.Shutdown(context.WithoutCancel(ctx)))
	if err != nil {
		return fail(stderr, err)
	}
	if !complete {
		return 1
	}
	return 0
}

func fail(stderr io.Writer, err error) int {
	fmt.Fprintln(stderr, "digest:", err)
	return 1
}

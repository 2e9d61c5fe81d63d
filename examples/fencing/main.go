// Fencing shows what the token of an attempt is for.
//
// Two workers, each a process of its own, may write a report to a storage. The
// one that begins is paused, as garbage collection, a full disk or a virtual
// machine may pause a process at any time. Its lease lapses, the other one does
// the job. Then the first one wakes up and goes on where it was, not knowing
// that time has passed. No lease, lock or timeout can keep it from writing: it
// looked at them before the pause.
//
// The storage can. Each attempt has a larger token than the one before, a write
// carries its token, and the storage refuses tokens smaller than the largest it
// has seen. Carillon does the same with the outcome of the job.
//
//	fencing                        # on a redis-server that it starts by itself
//	fencing -redis localhost:6379
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/carillon-go/carillon"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := run(ctx, os.Args[1:], os.Stdout)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "fencing:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) (err error) {
	flags := flag.NewFlagSet("fencing", flag.ContinueOnError)
	addr := flags.String("redis", "", "the Redis server, `host:port`; empty: start one for the show")
	// For the workers, which are this program too.
	worker := flags.Bool("worker", false, "be a worker (the program starts them by itself)")
	namespace := flags.String("namespace", "fencing-"+uuid.NewString(), "")
	storageAddr := flags.String("storage", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *addr == "" {
		server, stop, err := startRedis(ctx)
		if err != nil {
			return err
		}
		defer stop()
		*addr = server
	}
	rdb := redis.NewClient(&redis.Options{Addr: *addr})
	defer rdb.Close()
	if *worker {
		return work(ctx, rdb, *namespace, *storageAddr)
	}
	return show(ctx, rdb, *namespace, stdout)
}

// lease is short for the sake of the show. The default is 10 s.
const lease = 2 * time.Second

// show lets it happen and tells.
func show(ctx context.Context, rdb *redis.Client, namespace string, stdout io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tell := newStory(stdout)
	s, err := carillon.New(rdb, carillon.Config{Namespace: namespace})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Shutdown(context.WithoutCancel(ctx))) }()
	store, err := openStorage(ctx, tell)
	if err != nil {
		return err
	}
	defer store.close()
	crew, err := hire(ctx, tell, "-redis", rdb.Options().Addr, "-namespace", namespace, "-storage", store.addr)
	defer crew.kill()
	if err != nil {
		return err
	}

	tell("job", "is submitted: count the orders and write a report")
	receipt, err := s.Submit(ctx, carillon.Job{Name: jobName})
	if err != nil {
		return err
	}
	first, err := next(ctx, store.firstReader)
	if err != nil {
		return err
	}
	if err := pause(crew[first].Process); err != nil {
		return err
	}
	tell(first, "is paused by SIGSTOP before the answer arrives: no heartbeat, and no idea of it")
	store.order()
	job, err := s.Await(ctx, receipt.ID)
	if err != nil {
		return err
	}
	tell("job", "has %s in attempt %d; attempt 1 is %s", job.State, job.Attempt, job.Attempts[0].Outcome)
	tell(first, "wakes up by SIGCONT and goes on where it was")
	if err := resume(crew[first].Process); err != nil {
		return err
	}
	close(store.release)
	if _, err := next(ctx, store.refused); err != nil {
		return err
	}
	// A worker that ends has settled what it did, or tried to.
	if err := crew.dismiss(); err != nil {
		return err
	}
	if job, err = s.Get(ctx, receipt.ID); err != nil {
		return err
	}
	tell("job", "has %s in attempt %d, as before", job.State, job.Attempt)
	tell("storage", "has the report %q, as before", store.content())
	return nil
}

func next[T any](ctx context.Context, c <-chan T) (T, error) {
	select {
	case v := <-c:
		return v, nil
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("the show does not go on: %w", context.Cause(ctx))
	}
}

// story tells who does what.
type story func(who, format string, args ...any)

func newStory(out io.Writer) story {
	begun := time.Now()
	var mu sync.Mutex
	return func(who, format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(out, "%4.1fs  %-8s  %s\n", time.Since(begun).Seconds(), who, fmt.Sprintf(format, args...))
	}
}

package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"syscall"
)

// collector is the GOGC of all contestants, unless the environment says otherwise. Beside
// the few MB that live here, the default collects a hundred times a second.
const collector = 400

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collector)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	cancel()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		_, _ = fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := flags.String("run", "", "regexp of the scenarios to run")
	with := flags.String("with", "", "regexp of the contestants")
	rounds := flags.Int("rounds", 0, "how often each trial is repeated; 0 means 5, or 1 or 2 when quick")
	isQuick := flags.Bool("quick", false, "the main scenarios with fewer jobs, without gocraft and River, in less than a minute")
	file := flags.String("json", "", "file to write the results to")
	plots := flags.String("plots", "", "directory to draw plots in")
	profile := flags.String("cpuprofile", "", "file to write a CPU profile of this process to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	b := &bench{rounds: *rounds, progress: os.Stderr}
	if *isQuick {
		b.size = quick
	}
	chosen, err1 := regexp.Compile(*only)
	invited, err2 := regexp.Compile(*with)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	stop, err := b.invite(ctx, out, invited)
	if err != nil {
		return err
	}
	defer stop()
	if *profile != "" {
		to, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer func() { _ = to.Close() }()
		if err := pprof.StartCPUProfile(to); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	// What fails is told at the end: an hour's results are worth keeping.
	err = b.all(ctx, chosen)
	report, err3 := newReport(ctx, b)
	if err := errors.Join(err, err3); report == nil {
		return err
	}
	report.print(out)
	if *file != "" {
		err = errors.Join(err, report.write(*file))
	}
	if *plots != "" {
		err = errors.Join(err, report.draw(*plots))
	}
	return err
}

// bench is one run of this program.
type bench struct {
	size        size
	rounds      int
	contestants []*contestant
	results     results
	progress    io.Writer
}

// invite finds out who takes part. The function it returns clears up.
func (b *bench) invite(ctx context.Context, out io.Writer, invited *regexp.Regexp) (stop func(), err error) {
	stop = func() {}
	b.contestants = []*contestant{carillonContestant(), asynqContestant(), floorContestant()}
	if b.size != quick {
		b.contestants = slices.Insert(b.contestants, 2, eagerAsynq(), gocraftContestant())
		if invited.MatchString("river") {
			server, err := findPostgres(ctx)
			switch {
			case err != nil:
				return stop, err
			case server == nil:
				_, _ = fmt.Fprintln(out, "River is left out, because there is no PostgreSQL on this machine.")
			default:
				stop = server.remove
				b.contestants = slices.Insert(b.contestants, 4, riverContestant(server))
			}
		}
	}
	b.contestants = slices.DeleteFunc(b.contestants, func(c *contestant) bool { return !invited.MatchString(c.name) })
	return stop, nil
}

// all measures the chosen scenarios.
func (b *bench) all(ctx context.Context, chosen *regexp.Regexp) error {
	var errs []error
	for _, s := range scenarios {
		rounds := 5
		switch {
		case !chosen.MatchString(s.name), b.size == quick && s.quick == 0:
			continue
		case b.size == quick:
			rounds = s.quick
		case s.once:
			rounds = 1
		}
		errs = append(errs, b.measure(ctx, &s, cmp.Or(b.rounds, rounds)))
	}
	return errors.Join(errs...)
}

// throughput are the contestants of a scenario that names none.
var throughput = []string{ours, "asynq", "gocraft", "river", "floor"}

// measure lets every contestant have a turn, and that so many times.
func (b *bench) measure(ctx context.Context, s *scenario, rounds int) error {
	names := s.only
	if names == nil {
		names = throughput
	}
	in := slices.DeleteFunc(slices.Clone(b.contestants), func(c *contestant) bool { return !slices.Contains(names, c.name) })
	var errs []error
	for round := range rounds {
		in = slices.DeleteFunc(in, func(who *contestant) bool {
			_, _ = fmt.Fprintf(b.progress, "%s, round %d of %d: %s\n", s.name, round+1, rounds, who.name)
			err := b.try(ctx, s, who)
			if err != nil && !errors.Is(err, errors.ErrUnsupported) {
				errs = append(errs, fmt.Errorf("%s, round %d: %s: %w", s.name, round+1, who.name, err))
			}
			return err != nil
		})
	}
	return errors.Join(errs...)
}

// try has one contestant do one scenario.
func (b *bench) try(ctx context.Context, s *scenario, who *contestant) error {
	t := &trial{who: who, size: b.size}
	t.put = func(row, unit string, value float64) { b.results.add(row, who.name, unit, value) }
	return t.run(ctx, s)
}

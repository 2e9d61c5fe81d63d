// Crontab is a cron for several machines. Each runs an instance with the same
// crontabs, and every planned command runs on one of them, whichever takes it:
//
//	crontab -redis localhost:6379     # on each machine, or in three terminals
//	crontab -list -for 24h            # shows the plan; needs no Redis
//
// It reads /etc/crontab and the files of /etc/cron.d, or those that are named as
// arguments; with -user, in the format of a user's own crontab, which has no
// column for the user. Lines mean what crontab(5) says. What a command printed
// and how it ended is kept with its job: in the result, or, if the exit code is
// not 0, which makes the job fail, in the progress.
//
// Each tick runs once. When the instance that had to start it was killed, another
// one does so as soon as it has noticed; what is more than five minutes late,
// because nothing ran at all, is left out. The exception is a command that is
// under way when its instance is killed or loses Redis: it begins again
// elsewhere. The command finds CARILLON_TICK, its planned time,
// CARILLON_JOB and CARILLON_ATTEMPT in its environment and can tell by them. On
// SIGTERM an instance lets its commands finish for as long as -drain says.
//
// Changed files are noticed within seconds and without a restart, on any
// instance; the last one to change or to start has its way, so bring all
// machines to the same state. Instances with other files need another
// -namespace. A wrong line is reported on standard error, with the reason.
//
// What differs from Debian's cron:
//   - no mail is sent, MAILTO or not;
//   - @reboot runs once on each instance, when that starts, and its output goes
//     to standard error;
//   - CRON_TZ = zone sets the time zone of the lines after it, as in cronie, and
//     -tz that of all others;
//   - a wrong line, or a last one without a newline, does not make the whole file
//     be ignored; a field with something after its value, as *5, is wrong;
//   - with -seconds, lines begin with a field for the second;
//   - Carillon's cron fields can say more, as "5L" for the last Friday;
//   - it runs commands as other users only as root, and on Linux. Any other
//     instance leaves the lines of other users to those who can run them.
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
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
	_ "time/tzdata" // the zones of CRON_TZ, whatever the machine has

	"github.com/redis/go-redis/v9"

	"github.com/carillon-go/carillon"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// options are the flags.
type options struct {
	redis, namespace   string
	lease, drain, poll time.Duration
	list               bool
	from               time.Time
	span               time.Duration
	source             source
}

// run returns the exit code: 0, 1 when something went wrong or a line is, 2 when
// the arguments are wrong.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parseArgs(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		if !errors.Is(err, errFlags) {
			fmt.Fprintln(stderr, "crontab:", err)
		}
		return 2
	}
	if o.list {
		t := o.source.load()
		for _, problem := range t.problems {
			fmt.Fprintln(stderr, "crontab:", problem)
		}
		err = list(stdout, t, o.from, o.from.Add(o.span))
		if err == nil && len(t.problems) > 0 {
			return 1
		}
	} else {
		err = o.serve(ctx, slog.New(slog.NewTextHandler(stderr, nil)))
	}
	if err != nil {
		fmt.Fprintln(stderr, "crontab:", err)
		return 1
	}
	return 0
}

// errFlags: the package flag has said what is wrong.
var errFlags = errors.New("wrong flags")

func parseArgs(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("crontab", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.redis, "redis", "", "the Redis server, `host:port`")
	flags.StringVar(&o.namespace, "namespace", "crontab", "`name` under which instances with the same files meet")
	flags.DurationVar(&o.lease, "lease", 10*time.Second, "how long after its last sign of life an instance is taken for dead")
	flags.DurationVar(&o.drain, "drain", 30*time.Second, "how long commands may take to finish when the instance stops")
	flags.DurationVar(&o.poll, "poll", 2*time.Second, "how often the files are read")
	own := flags.Bool("user", false, "the files have no column for the user; run their commands as the user who runs this")
	flags.BoolVar(&o.source.format.seconds, "seconds", false, "lines have six fields for the time, the second first")
	flags.StringVar(&o.source.format.zone, "tz", localZone(), "IANA `name` of the time zone where CRON_TZ does not say")
	flags.BoolVar(&o.list, "list", false, "print what is planned, and end")
	from := flags.String("from", "", "the first `instant` to list, as 2006-01-02T15:04:05Z07:00 (default now)")
	flags.DurationVar(&o.span, "for", 24*time.Hour, "how far to list")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil, err
	} else if err != nil {
		return nil, errFlags
	}
	zone, err := time.LoadLocation(o.source.format.zone)
	if err != nil {
		return nil, fmt.Errorf("-tz: %w", err)
	}
	o.from = time.Now().In(zone)
	if *from != "" {
		at, err := time.Parse(time.RFC3339, *from)
		if err != nil {
			return nil, fmt.Errorf("-from: %w", err)
		}
		o.from = at.In(zone)
	}
	if o.redis == "" && !o.list {
		return nil, errors.New("it needs -redis, or -list")
	}
	if o.poll <= 0 {
		return nil, errors.New("-poll has to be more than 0")
	}
	if *own {
		who, err := user.Current()
		if err != nil {
			return nil, err
		}
		o.source.format.user = who.Username
	}
	paths := flags.Args()
	if len(paths) == 0 {
		paths = []string{"/etc/crontab", "/etc/cron.d"}
	}
	for _, path := range paths {
		path, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		o.source.paths = append(o.source.paths, path)
	}
	o.source.strict = !o.list && os.Geteuid() == 0
	return o, nil
}

// serve is an instance until ctx ends.
func (o *options) serve(ctx context.Context, log *slog.Logger) error {
	rdb := redis.NewClient(&redis.Options{Addr: o.redis})
	defer rdb.Close()
	s, err := carillon.New(rdb, carillon.Config{
		Namespace: o.namespace, LeaseTTL: o.lease, ShutdownTimeout: o.drain,
		Concurrency: 256, // cron knows no limit
		Retention:   carillon.Retention{Succeeded: carillon.Keep{Age: 7 * 24 * time.Hour}},
		Logger:      log,
	})
	if err != nil {
		return err
	}
	if err := s.Handle(jobName, carillon.HandlerFunc(serve)); err != nil {
		return err
	}
	if err := s.Start(ctx); err != nil {
		return err
	}
	t := o.source.load()
	drained, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	var started sync.WaitGroup
	for _, e := range t.entries {
		if e.when == reboot {
			started.Go(func() { e.task.atStart(drained, log) })
		}
	}
	(&syncer{scheduler: s, source: o.source, log: log}).run(ctx, o.poll, t)
	defer time.AfterFunc(o.drain, giveUp).Stop()
	err = s.Shutdown(context.WithoutCancel(ctx))
	started.Wait()
	return err
}

// localZone is the name of the machine's time zone. Go knows the zone, but not
// its name, which the other instances need.
func localZone() string {
	if name := os.Getenv("TZ"); name != "" {
		return strings.TrimPrefix(name, ":")
	}
	if link, err := filepath.EvalSymlinks("/etc/localtime"); err == nil {
		if _, name, found := strings.Cut(filepath.ToSlash(link), "/zoneinfo/"); found {
			return name
		}
	}
	return "UTC"
}

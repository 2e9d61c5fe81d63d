package carillon

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/carillon-go/carillon/store"
)

// Config configures a [Scheduler]. The zero value is the documented default.
type Config struct {
	// Namespace separates applications on one Redis: every key begins with
	// {Namespace:. Empty means "carillon". At most 100 bytes.
	Namespace string

	// Segments is how many partitions the namespace has; jobs are spread over
	// them by their ID, mutex or unique key. 0 means 1, or 12 on Redis Cluster,
	// of which 2, 3, 4, 6 or 12 masters have equally many. Each adds to what an
	// idle instance sends. The number is fixed at the namespace's first start,
	// 256 at most; a namespace that may move to a Cluster sets 12 from the start.
	Segments int

	// Queues lists the queues this instance works on and how many jobs of each
	// it runs at a time; 0 means Concurrency. nil means the queue "default".
	Queues map[string]int

	// Concurrency is how many jobs of a queue run at a time where Queues does
	// not say. 0 means 32; at most 100,000.
	Concurrency int

	// Retry is the policy where neither job nor handler has one.
	Retry Retry

	// Timeout bounds an attempt where neither job nor handler says. 0: no bound.
	Timeout time.Duration

	// LeaseTTL is how long an instance is taken to be alive after its last
	// heartbeat, of which there are three in that time. The work of a crashed
	// instance runs elsewhere after at most one and a half LeaseTTL. 0 means
	// 10 s; from 100 ms to 1 h.
	LeaseTTL time.Duration

	// ShutdownTimeout is how long Shutdown lets running jobs finish before it
	// ends their contexts. 0 means 30 s.
	ShutdownTimeout time.Duration

	// MaxPayload bounds the JSON of arguments, results, progress and
	// checkpoints, in bytes. 0 means 1 MiB; at most 64 MiB.
	MaxPayload int

	// Encryption keeps payloads from whoever can read Redis. It is off by default.
	Encryption Encryption

	// Retention bounds what is kept of finished jobs.
	Retention Retention

	// WaitReplicas is how many replicas must have received a change before
	// Submit, SubmitMany, Schedule, Unschedule, Cancel, Retry, RunNow, PauseQueue
	// and ResumeQueue return without error; at most 16. 0, the default, waits for
	// none. It narrows what a failover can lose, and does not rule it out: a
	// failover may promote another replica. A call waits up to 1 s, or half of
	// the client's ReadTimeout or of what is left until its context's deadline
	// if that is less. When fewer replicas answer, it returns [ErrUncertain]: the
	// change is on the primary; submitting the same ID again is safe, and waits
	// again. When a key in another segment was not confirmed first, it returns
	// [ErrUnavailable] instead, and the job was not stored. Locks and what
	// instances do by themselves, as firing schedules, do not wait. Each call
	// costs the round trip between primary and replicas. What workers record does
	// not wait: losing it runs a job again. A server that has too few replicas, as
	// the embedded one, confirms nothing.
	WaitReplicas int

	// Version of the service, shown by Instances.
	Version string

	// Logger receives what the Scheduler has to say. nil means slog.Default().
	Logger *slog.Logger
}

// Retention bounds, for each way to finish, how long and how many jobs are kept.
// Whichever bound is reached first counts. The bound by count is enforced when an
// instance has finished 1,000 jobs since it last did, and every 5 minutes.
type Retention struct {
	Succeeded Keep // 0 means 1 h and 10,000 jobs
	Failed    Keep // 0 means 30 days and 100,000 jobs
	Cancelled Keep // 0 means 1 day and 10,000 jobs
	Expired   Keep // 0 means 1 day and 10,000 jobs
}

// Keep is a bound by age and by count. Its zero fields mean the default.
type Keep struct {
	Age   time.Duration // at least 1 s
	Count int           // at least 1
}

// Defaults and limits of [Config].
const (
	defaultNamespace   = "carillon"
	defaultConcurrency = 32
	maxConcurrency     = 100_000
	defaultLease       = 10 * time.Second
	minLease           = 100 * time.Millisecond
	maxLease           = time.Hour
	defaultShutdown    = 30 * time.Second
	defaultPayload     = 1 << 20
	maxPayload         = 64 << 20
	maxNamespaceBytes  = 100
	maxReplicas        = 16
	day                = 24 * time.Hour
)

// withDefaults fills in the defaults. It runs after validate.
func (c Config) withDefaults() Config {
	if c.Namespace == "" {
		c.Namespace = defaultNamespace
	}
	if c.Concurrency == 0 {
		c.Concurrency = defaultConcurrency
	}
	queues := map[string]int{}
	for q, n := range c.Queues {
		queues[q] = n
	}
	if c.Queues == nil {
		queues[store.DefaultQueue] = 0
	}
	for q, n := range queues {
		if n == 0 {
			queues[q] = c.Concurrency
		}
	}
	c.Queues = queues
	if c.LeaseTTL == 0 {
		c.LeaseTTL = defaultLease
	}
	if c.ShutdownTimeout == 0 {
		c.ShutdownTimeout = defaultShutdown
	}
	if c.MaxPayload == 0 {
		c.MaxPayload = defaultPayload
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	for _, k := range []struct {
		keep  *Keep
		age   time.Duration
		count int
	}{
		{&c.Retention.Succeeded, time.Hour, 10_000},
		{&c.Retention.Failed, 30 * day, 100_000},
		{&c.Retention.Cancelled, day, 10_000},
		{&c.Retention.Expired, day, 10_000},
	} {
		if k.keep.Age == 0 {
			k.keep.Age = k.age
		}
		if k.keep.Count == 0 {
			k.keep.Count = k.count
		}
	}
	return c
}

// validate reports every problem at once.
func (c *Config) validate() error {
	var errs []error
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	if c.Namespace != "" {
		add(validText("Namespace", c.Namespace, maxNamespaceBytes))
	}
	for q, n := range c.Queues {
		add(validText("Queues", q, maxQueueBytes))
		if n < 0 || n > maxConcurrency {
			add(invalid(fmt.Sprintf("Queues[%q]", q), "%d is not between 0 and %d", n, maxConcurrency))
		}
	}
	if c.Queues != nil && len(c.Queues) == 0 {
		add(invalid("Queues", "is empty; leave it nil for the default queue"))
	}
	if c.Concurrency < 0 || c.Concurrency > maxConcurrency {
		add(invalid("Concurrency", "%d is not between 0 and %d", c.Concurrency, maxConcurrency))
	}
	errs = append(errs, c.Retry.validate("Retry", false)...)
	add(validDuration("Timeout", c.Timeout))
	if c.LeaseTTL != 0 && (c.LeaseTTL < minLease || c.LeaseTTL > maxLease) {
		add(invalid("LeaseTTL", "%v is not between %v and %v", c.LeaseTTL, minLease, maxLease))
	}
	add(validDuration("ShutdownTimeout", c.ShutdownTimeout))
	if c.MaxPayload < 0 || c.MaxPayload > maxPayload {
		add(invalid("MaxPayload", "%d is not between 0 and %d", c.MaxPayload, maxPayload))
	}
	errs = append(errs, c.Encryption.validate()...)
	if c.WaitReplicas < 0 || c.WaitReplicas > maxReplicas {
		add(invalid("WaitReplicas", "%d is not between 0 and %d", c.WaitReplicas, maxReplicas))
	}
	for name, k := range map[string]Keep{
		"Succeeded": c.Retention.Succeeded, "Failed": c.Retention.Failed,
		"Cancelled": c.Retention.Cancelled, "Expired": c.Retention.Expired,
	} {
		add(validDuration("Retention."+name+".Age", k.Age))
		if k.Age > 0 && k.Age < time.Second {
			add(invalid("Retention."+name+".Age", "%v is less than 1s", k.Age))
		}
		if k.Count < 0 {
			add(invalid("Retention."+name+".Count", "%d is negative", k.Count))
		}
	}
	return errors.Join(errs...)
}

func (r Retention) bounds() store.Retention {
	bound := func(k Keep) store.Bound { return store.Bound{Age: k.Age, Count: k.Count} }
	return store.Retention{
		store.Succeeded: bound(r.Succeeded), store.Failed: bound(r.Failed),
		store.Cancelled: bound(r.Cancelled), store.Expired: bound(r.Expired),
	}
}

package carillon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/carillon-go/carillon/store"
)

// Scheduler submits jobs and, once it runs, works on them. Every instance of a
// service has one; they coordinate through Redis alone. A producer needs no
// handlers and never calls Run. All methods are safe for concurrent use.
type Scheduler struct {
	config Config
	store  *store.Store
	vault  *vault
	log    *slog.Logger

	mu         sync.Mutex
	handlers   map[string]registration
	middleware []Middleware
	problems   []error // of registrations, reported again by Run
	life       life
	instance   *instance // while it runs
	stands     stands
	stopped    chan struct{}
	stopErr    error
}

// life is how far a Scheduler has come. It only moves forward.
type life int

const (
	idle life = iota
	running
	stopping
	stopped
)

type registration struct {
	handler Handler
	config  HandlerConfig
}

// New checks the client and the configuration and reports all problems at once.
// It sends nothing and starts no goroutine.
//
// rdb is a *redis.Client, also one made by NewFailoverClient, or a
// *redis.ClusterClient. The Scheduler makes its own connections from rdb's
// options and never uses or closes rdb's; hooks that were added to rdb are not
// taken over.
func New(rdb redis.UniversalClient, config Config) (*Scheduler, error) {
	problem := config.validate()
	config = config.withDefaults()
	st, err := store.New(rdb, store.Options{
		Namespace: config.Namespace, Segments: config.Segments,
		Retention: config.Retention.bounds(), Logger: config.Logger, WaitReplicas: config.WaitReplicas,
	})
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := errors.Join(err, problem); err != nil {
		return nil, &Error{Op: "new", Err: err}
	}
	vault := newVault(&config)
	config.Encryption = Encryption{} // only the vault has the keys, so that nothing prints them
	return &Scheduler{
		config: config, store: st, vault: vault, log: config.Logger,
		handlers: make(map[string]registration), stopped: make(chan struct{}),
		stands: stands{again: make(chan struct{}, 1)},
	}, nil
}

// Handle registers the handler for jobs of a name, before Run. A name that is
// taken, a nil handler, or a call after Run is an error, which Run reports too.
func (s *Scheduler) Handle(name string, h Handler) error {
	return s.HandleWith(name, h, HandlerConfig{})
}

// HandleWith is Handle with settings for all jobs of the name.
func (s *Scheduler) HandleWith(name string, h Handler, c HandlerConfig) error {
	errs := append([]error{validText("handler name", name, maxNameBytes), validDuration("Timeout", c.Timeout)},
		c.Retry.validate("Retry", false)...)
	if isNil(h) {
		errs = append(errs, invalid("handler", "is nil"))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life != idle {
		errs = append(errs, invalid("handler", "cannot be registered once Run was called"))
	}
	if _, taken := s.handlers[name]; taken {
		errs = append(errs, invalid("handler name", "is registered twice"))
	}
	if err := errors.Join(errs...); err != nil {
		err = &Error{Op: "handle", Job: name, Err: err}
		s.problems = append(s.problems, err)
		return err
	}
	s.handlers[name] = registration{handler: h, config: c}
	return nil
}

func isNil(h Handler) bool {
	if f, ok := h.(HandlerFunc); ok {
		return f == nil
	}
	return h == nil
}

// Use wraps all handlers, before Run; the first middleware is the outermost. A
// nil middleware or a call after Run is an error, which Run reports too.
func (s *Scheduler) Use(m ...Middleware) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	switch {
	case s.life != idle:
		err = &Error{Op: "use", Err: invalid("middleware", "cannot be added once Run was called")}
	case slices.ContainsFunc(m, func(m Middleware) bool { return m == nil }):
		err = &Error{Op: "use", Err: invalid("middleware", "is nil")}
	}
	if err != nil {
		s.problems = append(s.problems, err)
		return err
	}
	s.middleware = append(s.middleware, m...)
	return nil
}

// Submit stores a job. When it returns without error, the job is in Redis and
// will run. The error says whether the job surely was not stored
// ([ErrInvalid], [ErrUnavailable]) or may have been ([ErrUncertain]); then the
// receipt has the ID under which it can be submitted again. A job whose ID or
// unique key is taken by its equal is a duplicate and no error; an ID taken by
// another job is an [ErrConflict]. Concurrent submissions share round trips.
//
// It returns when the deadline of ctx passes. A cancellation of ctx ends it, too,
// but not while it reads the answer to a round trip that it does not share; that
// takes as long as the client's ReadTimeout at most. A job without handler in any
// instance waits for one.
func (s *Scheduler) Submit(ctx context.Context, job Job) (Receipt, error) {
	if errs := job.validate(); len(errs) > 0 {
		return Receipt{ID: job.ID}, &Error{Op: "submit", Job: job.Name, Queue: job.Queue, Err: errors.Join(errs...)}
	}
	one, err := s.newJob(&job)
	if err != nil {
		return Receipt{ID: job.ID}, &Error{Op: "submit", Job: job.Name, Queue: job.Queue, Err: err}
	}
	receipts, errs := s.submit(ctx, []store.NewJob{one})
	r := Receipt{ID: receipts[0].ID, Duplicate: receipts[0].Duplicate}
	if errs[0] != nil {
		return r, &Error{Op: "submit", Job: job.Name, Queue: job.Queue, Err: errs[0]}
	}
	return r, nil
}

// SubmitMany stores jobs in as few round trips as possible. When any of them is
// invalid, none is sent and the error lists all problems. Otherwise each job
// succeeds or fails by itself: its receipt has its error, and the error joins
// them all.
func (s *Scheduler) SubmitMany(ctx context.Context, jobs []Job) ([]Receipt, error) {
	var problems []error
	news := make([]store.NewJob, len(jobs))
	for i := range jobs {
		errs := jobs[i].validate()
		if len(errs) == 0 {
			var err error
			if news[i], err = s.newJob(&jobs[i]); err != nil {
				errs = append(errs, err)
			}
		}
		for _, err := range errs {
			problems = append(problems, fmt.Errorf("jobs[%d]: %w", i, err))
		}
	}
	if len(problems) > 0 {
		return nil, &Error{Op: "submit many", Err: errors.Join(problems...)}
	}
	if len(jobs) == 0 {
		return nil, nil
	}
	stored, errs := s.submit(ctx, news)
	receipts := make([]Receipt, len(jobs))
	for i, r := range stored {
		receipts[i] = Receipt{ID: r.ID, Duplicate: r.Duplicate}
		if errs[i] != nil {
			receipts[i].Err = &Error{Op: "submit", Job: jobs[i].Name, Queue: jobs[i].Queue, Err: errs[i]}
			problems = append(problems, fmt.Errorf("jobs[%d]: %w", i, receipts[i].Err))
		}
	}
	return receipts, errors.Join(problems...)
}

// newJob encodes a job and prepares its encryption.
func (s *Scheduler) newJob(job *Job) (store.NewJob, error) {
	spec, err := job.spec(s.config.MaxPayload)
	if err != nil {
		return store.NewJob{}, err
	}
	return store.NewJob{ID: job.ID, Spec: spec, Seal: s.vault.take(spec)}, nil
}

// submit stores jobs. Redis compares bytes, so a job that was stored under an
// older key looks like another one at first.
func (s *Scheduler) submit(ctx context.Context, jobs []store.NewJob) ([]store.Receipt, []error) {
	receipts, errs := s.store.Submit(ctx, jobs)
	for i, job := range jobs {
		if !errors.Is(errs[i], ErrConflict) {
			continue
		}
		if stored, err := s.store.Get(ctx, job.ID); err == nil && s.vault.repeats(&job, stored.Spec) {
			again, err := s.store.Submit(ctx, []store.NewJob{job})
			receipts[i], errs[i] = again[0], err[0]
		}
	}
	return receipts, errs
}

// Run works until ctx ends and then shuts down: it stops taking jobs, lets the
// running ones finish for up to Config.ShutdownTimeout, ends the contexts of the
// rest with cause [ErrShutdown], gives what is unfinished to other instances
// without charging an attempt, and returns nil. It returns an error when it
// cannot start: a registration was wrong, the Scheduler ran before, or the
// server is not fit. A Scheduler runs once.
func (s *Scheduler) Run(ctx context.Context) error {
	if err := s.Start(ctx); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-s.stopped: // by Shutdown
		return s.stopErr
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.ShutdownTimeout+stuckGrace+settleGrace)
	defer cancel()
	return s.Shutdown(limit)
}

// Start is Run without waiting: it returns once the instance is registered and
// works. ctx bounds the start only. While Redis cannot be reached it keeps
// trying until ctx ends; when a password, a permission or a certificate is wrong,
// it returns that at once. It must be followed by [Scheduler.Shutdown], except after
// an error, which leaves the Scheduler closed.
func (s *Scheduler) Start(ctx context.Context) error {
	s.mu.Lock()
	problems := slices.Clone(s.problems)
	if s.life != idle {
		problems = append(problems, fmt.Errorf("%w: a Scheduler runs once", ErrClosed))
	}
	if len(problems) > 0 {
		s.mu.Unlock()
		return &Error{Op: "start", Err: errors.Join(problems...)}
	}
	s.life = running
	handlers, middleware := maps.Clone(s.handlers), slices.Clone(s.middleware)
	s.mu.Unlock()

	err := wrapAll(handlers, middleware)
	if err == nil {
		in := newInstance(ctx, s, handlers)
		s.mu.Lock()
		s.instance = in
		s.mu.Unlock()
		err = in.start(ctx)
	}
	if err == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life == running {
		s.life = stopped
		s.stopErr = errors.Join(s.store.Close())
		close(s.stopped)
	}
	return &Error{Op: "start", Err: err}
}

// wrapAll puts the middleware around every handler.
func wrapAll(handlers map[string]registration, middleware []Middleware) error {
	for name, r := range handlers {
		for _, m := range slices.Backward(middleware) {
			if r.handler = m(r.handler); isNil(r.handler) {
				return fmt.Errorf("handler %s: %w", name, invalid("middleware", "returned a nil handler"))
			}
		}
		handlers[name] = r
	}
	return nil
}

// Shutdown ends the instance by the steps of [Scheduler.Run]; when ctx ends
// first, it goes on to the next step at once, and has a second for the last words
// with Redis, also when Redis does not answer. A handler that ignores its context
// is left behind: its job goes to another instance, and what it does later is
// not settled. After Shutdown no goroutine, connection or command of the
// Scheduler is left; its methods return [ErrClosed]. Later calls wait for the
// first one. On a Scheduler that never ran, it closes its connections.
func (s *Scheduler) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	first := s.life == idle || s.life == running
	in := s.instance
	if first {
		s.life = stopping
	}
	s.mu.Unlock()
	if !first {
		select {
		case <-s.stopped:
			return s.stopErr
		case <-ctx.Done():
			return &Error{Op: "shutdown", Err: context.Cause(ctx)}
		}
	}
	var err error
	if in != nil {
		err = in.shutdown(ctx)
	}
	err = opError("shutdown", "", errors.Join(err, s.store.Close()))
	s.mu.Lock()
	s.life = stopped
	s.stopErr = err
	close(s.stopped)
	s.mu.Unlock()
	return err
}

// Grace periods of a shutdown, after the running jobs had their time.
const (
	stuckGrace   = 5 * time.Second        // for handlers whose context was ended
	obeyGrace    = 200 * time.Millisecond // the same, once the caller's context has ended
	settleGrace  = 5 * time.Second        // for the last outcomes, and again for the farewell
	unreadGrace  = 2 * time.Second        // for what was delivered and not begun, which others would reclaim
	hurriedGrace = time.Second            // the same, once the caller's context has ended
)

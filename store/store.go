package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
)

// Segments of a namespace where nothing else is asked for.
const (
	defaultSegments        = 1
	defaultClusterSegments = 12
)

// formatVersion is raised when an older release could not work on the keys.
const formatVersion = 1

// What is kept of a schedule's ticks where nothing else is asked for.
const (
	defaultLedgerAge   = 30 * 24 * time.Hour
	defaultLedgerCount = 200
)

// Options configure a [Store].
type Options struct {
	Namespace string
	Segments  int // 0 = 1, or 12 on Redis Cluster
	Retention Retention
	Ledger    Bound // of what is kept of each schedule's ticks; zero fields = 30 days, 200
	Logger    *slog.Logger

	// WaitReplicas is how many replicas must have received what a caller is told
	// to be done. 0: the primary alone decides.
	WaitReplicas int
}

// Retention bounds what is kept of finished jobs, for each final state.
type Retention map[State]Bound

// Bound is a limit by age and by count.
type Bound struct {
	Age   time.Duration
	Count int
}

// Store is a namespace in Redis. It makes its own connections from the options
// of the caller's client, at the first command, and closes only those. It is
// safe for concurrent use.
type Store struct {
	options  Options
	source   redis.UniversalClient
	cluster  bool
	primary  *primary // nil unless the client was made through Sentinel
	segments []keys
	inbox    string

	mu     sync.Mutex
	rdb    redis.UniversalClient // nil until the first command
	urgent redis.UniversalClient // for scripts that must not be late; nil until the first
	closed bool
	opened atomic.Bool // the meta key agrees

	queuesKnown sync.Map // queue -> time it was last announced
	damage      sync.Map // texts of damage that was logged
	submits     grouper
	life        context.Context // ends with Close
	end         context.CancelFunc
	tails       sync.WaitGroup // readers of events; they end with life
	signals     *signals
	replicaWait time.Duration
	suspected   []atomic.Bool // segments in which somebody else had a hand
}

// New checks the client and the options. It sends nothing.
func New(rdb redis.UniversalClient, o Options) (*Store, error) {
	o.Ledger.Age, o.Ledger.Count = cmp.Or(o.Ledger.Age, defaultLedgerAge), cmp.Or(o.Ledger.Count, defaultLedgerCount)
	s := &Store{options: o, source: rdb, inbox: NewID(), replicaWait: replicaWait}
	s.life, s.end = context.WithCancel(context.Background())
	switch c := rdb.(type) {
	case *redis.Client:
		if c == nil {
			return nil, errors.New("client: is nil")
		}
		if c.Options().Addr == "FailoverClient" {
			s.primary = &primary{store: s.life}
		}
	case *redis.ClusterClient:
		if c == nil {
			return nil, errors.New("client: is nil")
		}
		s.cluster = true
	case nil:
		return nil, errors.New("client: is nil")
	default:
		return nil, fmt.Errorf("client: %T is not supported; use *redis.Client (NewClient, NewFailoverClient) or *redis.ClusterClient", rdb)
	}
	n := o.Segments
	if n == 0 {
		n = defaultSegments
		if s.cluster {
			n = defaultClusterSegments
		}
	}
	if n < 0 || n > maxSegments {
		return nil, fmt.Errorf("Segments: %d is not between 1 and %d", n, maxSegments)
	}
	for _, number := range tagNumbers(o.Namespace, n) {
		s.segments = append(s.segments, newKeys(o.Namespace, number))
	}
	s.suspected = make([]atomic.Bool, n)
	s.submits.flush = s.submitTogether
	s.signals = newSignals(s)
	return s, nil
}

// Segments returns how many partitions the namespace has.
func (s *Store) Segments() int { return len(s.segments) }

// Close closes the connections the store made. Commands fail afterwards.
func (s *Store) Close() error {
	s.mu.Lock()
	clients := []redis.UniversalClient{s.rdb, s.urgent}
	s.rdb, s.urgent, s.closed = nil, nil, true
	s.mu.Unlock()
	s.end()
	s.signals.close()
	s.tails.Wait()
	var errs []error
	for _, rdb := range clients {
		if rdb != nil {
			errs = append(errs, rdb.Close())
		}
	}
	s.submits.close()
	return errors.Join(errs...)
}

// Done is closed when the store is, for those who wait for a hint.
func (s *Store) Done() <-chan struct{} { return s.life.Done() }

// The store tries a command this often while the server refuses or cannot be
// reached, waiting a little longer each time.
const (
	tries     = 4
	firstWait = 20 * time.Millisecond
)

// run sends one script and returns its reply. It returns when ctx ends, even
// when the connection hangs.
func (s *Store) run(ctx context.Context, c call) (any, error) {
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	return s.runUnopened(ctx, c)
}

func (s *Store) runUnopened(ctx context.Context, c call) (any, error) {
	reply, _, err := s.runTold(ctx, c)
	return reply, err
}

// runAgain is run for scripts whose second run answers that there was nothing to
// do. again reports that an earlier try, whose answer was lost, may have done it.
func (s *Store) runAgain(ctx context.Context, c call) (reply any, again bool, err error) {
	if err := s.open(ctx); err != nil {
		return nil, false, err
	}
	return s.runTold(ctx, c)
}

func (s *Store) runTold(ctx context.Context, c call) (reply any, sent bool, err error) {
	rdb, err := s.clientOf(c.script)
	if err != nil {
		return nil, false, err
	}
	sent, err = attempt(ctx, s, rdb, func(ctx context.Context, rdb redis.UniversalClient) (any, error) {
		if s.waits(ctx, c) {
			replies, errs := s.evalPromised(ctx, rdb, []call{c})
			return replies[0], errs[0]
		}
		return eval(ctx, rdb, c)
	}, func(r any) { reply = r })
	if err != nil {
		return nil, sent, fmt.Errorf("%s: %w", c.script.name, s.named(ctx, err, c.keys))
	}
	return reply, sent, nil
}

// runOnce sends a script that must not be repeated when its reply is lost.
func (s *Store) runOnce(ctx context.Context, c call) (any, error) {
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	rdb, err := s.client()
	if err != nil {
		return nil, err
	}
	reply, _, err := within(ctx, func() (any, error) { return eval(sentOnce(ctx), rdb, c) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.script.name, classify(err, false))
	}
	return reply, nil
}

// runAll sends a script several times in one pipeline; each call has its own
// error. Only those that got no answer are sent again.
func (s *Store) runAll(ctx context.Context, calls []call) ([]any, []error) {
	if len(calls) == 0 {
		return nil, nil
	}
	replies, errs := make([]any, len(calls)), make([]error, len(calls))
	left := make([]int, len(calls))
	for i := range left {
		left[i] = i
	}
	type answers struct {
		replies []any
		errs    []error
	}
	rdb, err := s.clientOf(calls[0].script)
	if err == nil {
		err = s.open(ctx)
	}
	if err == nil {
		_, err = attempt(ctx, s, rdb, func(ctx context.Context, rdb redis.UniversalClient) (answers, error) {
			part := make([]call, len(left))
			for i, n := range left {
				part[i] = calls[n]
			}
			send := evalAll
			if s.waits(ctx, part[0]) { // the calls of one batch run the same script
				send = s.evalPromised
			}
			r, e := send(ctx, rdb, part)
			return answers{r, e}, worst(e)
		}, func(got answers) {
			var again []int
			for i, n := range left {
				replies[n], errs[n] = got.replies[i], nil
				if e := got.errs[i]; e != nil && judge(e) == final {
					errs[n] = fmt.Errorf("%s: %w", calls[n].script.name, s.named(ctx, classify(e, false), calls[n].keys))
				} else if e != nil {
					again = append(again, n)
				}
			}
			left = again
		})
	}
	for _, n := range left {
		errs[n] = fmt.Errorf("%s: %w", calls[n].script.name, err)
	}
	return replies, errs
}

// Distinct joins errors, those of the same text once: all segments of a server
// that is away say the same.
func Distinct(errs []error) error {
	seen := make(map[string]bool)
	var different []error
	for _, err := range errs {
		if err != nil && !seen[err.Error()] {
			seen[err.Error()] = true
			different = append(different, err)
		}
	}
	return errors.Join(different...)
}

// worst picks the error that asks for another try, if there is one.
func worst(errs []error) error {
	for _, err := range errs {
		if err != nil && judge(err) != final {
			return err
		}
	}
	return nil
}

// read runs plain commands that change nothing, or that may be repeated.
func read[T any](ctx context.Context, s *Store, f func(context.Context, redis.UniversalClient) (T, error)) (T, error) {
	var out T
	if err := s.open(ctx); err != nil {
		return out, err
	}
	rdb, err := s.client()
	if err != nil {
		return out, err
	}
	_, err = attempt(ctx, s, rdb, f, func(v T) { out = v })
	return out, err
}

// attempt calls f until it got an answer, tries are used up, or ctx ends. All
// transitions may be repeated, so an unanswered one is. got receives what each
// try returned, in the caller's goroutine. sent reports whether a try before the
// last one may have been executed. That ctx ended does not say what is wrong, so
// the error has beside it what the try before was told.
func attempt[T any](
	ctx context.Context, s *Store, rdb redis.UniversalClient, f func(context.Context, redis.UniversalClient) (T, error), got func(T),
) (sent bool, err error) {
	if cause := context.Cause(ctx); cause != nil {
		return false, fmt.Errorf("%w: %w", ErrUnavailable, cause)
	}
	wait := firstWait
	var last error
	for i := 1; ; i++ {
		v, answered, err := within(ctx, func() (T, error) { return f(ctx, rdb) })
		if answered {
			got(v)
		}
		if err == nil || errors.Is(err, redis.Nil) {
			return sent, nil
		}
		verdict := judge(err)
		// A cluster client tries again by itself and does not tell.
		sent = sent || verdict == unknown || s.cluster && verdict == notSent
		if verdict != final && s.life.Err() != nil {
			return sent, fmt.Errorf("%w: %w", ErrClosed, classify(err, sent))
		}
		if last != nil && errors.Is(err, ctx.Err()) {
			err = fmt.Errorf("%w; before that: %w", err, last)
		}
		if verdict == final {
			return sent, classify(err, sent)
		}
		if i == tries || sleep(ctx, wait) != nil {
			err = classify(err, sent)
			if ctx.Err() != nil && !errors.Is(err, ctx.Err()) { // a connection only knows its deadline
				err = fmt.Errorf("%w: %w", err, endOf(ctx))
			}
			return sent, err
		}
		last = err
		wait *= 4
	}
}

// within runs f and waits for it or for ctx, whichever ends first: go-redis
// does not give up a read when its context is cancelled.
func within[T any](ctx context.Context, f func() (T, error)) (v T, answered bool, err error) {
	if patient, _ := ctx.Value(inPlace{}).(bool); patient || ctx.Done() == nil {
		v, err = f()
		return v, true, err
	}
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() { // ends with the command, at the latest by the client's read timeout
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, true, r.err
	case <-ctx.Done():
		return v, false, endOf(ctx)
	}
}

// endOf is the error of a context that has ended, with its cause.
func endOf(ctx context.Context) error {
	err := ctx.Err()
	if cause := context.Cause(ctx); !errors.Is(cause, err) {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	return err
}

// open fixes or checks the number of segments, once.
func (s *Store) open(ctx context.Context) error {
	if s.opened.Load() {
		return nil
	}
	k := s.segments[0]
	reply, err := s.runUnopened(ctx, call{scriptMeta, []string{k.meta()}, []any{len(s.segments), formatVersion}})
	if err != nil {
		return surelyNot(fmt.Sprintf("open namespace %q", s.options.Namespace), err) // the caller's command was not sent
	}
	got := texts(reply)
	if len(got) != 2 || number(got[0]) != int64(len(s.segments)) {
		return fmt.Errorf("Segments: namespace %q was started with %s segments, this instance asks for %d; "+
			"set Config.Segments to the same everywhere, it cannot be changed later",
			s.options.Namespace, first(got), len(s.segments))
	}
	if number(got[1]) != formatVersion {
		return fmt.Errorf("namespace %q has format %s, this release works with %d: %w",
			s.options.Namespace, got[1], formatVersion, ErrNewer)
	}
	s.opened.Store(true)
	return nil
}

// Forgotten is to be called when the server may have lost its data: the namespace
// is opened again, and its queues are announced again. It reports whether the
// namespace is gone.
func (s *Store) Forgotten(ctx context.Context) (gone bool, err error) {
	found, err := read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (int64, error) {
		return rdb.Exists(ctx, s.segments[0].meta()).Result()
	})
	s.opened.Store(false)
	s.queuesKnown.Clear()
	for i := range s.segments {
		s.suspect(i)
	}
	return err == nil && found == 0, err
}

// NewID returns a fresh ID: a version 7 UUID in 26 characters of base 32, so
// that IDs made later sort later.
func NewID() string {
	id, err := uuid.NewV7()
	if err != nil {
		panic(fmt.Sprintf("carillon: no random numbers: %v", err)) // crypto/rand does not fail
	}
	return idEncoding.EncodeToString(id[:])
}

// Now asks Redis for its time.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	return read(ctx, s, func(ctx context.Context, rdb redis.UniversalClient) (time.Time, error) {
		return rdb.Time(ctx).Result()
	})
}

// reportDamage logs foreign or damaged data that was found in passing, once.
func (s *Store) reportDamage(id string, err error) {
	if _, before := s.damage.LoadOrStore(id+" "+err.Error(), true); !before && s.options.Logger != nil {
		s.options.Logger.Error("carillon: foreign or damaged data was passed over", "job", id, "error", err)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return ctx.Err()
}

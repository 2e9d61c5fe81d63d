package carillon

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/carillon-go/carillon/store"
)

// Retry says how often and when a failed job is tried again. The zero value is
// the default: 10 attempts, with delays that double from 1 s to 1 h, each drawn
// evenly between 0 and that value ("full jitter", from Amazon's Exponential
// Backoff And Jitter, 2015).
//
// A policy on the [Job] beats the one of its handler, which beats the one in
// [Config]. Policies are taken whole; their fields are not mixed. Lost workers
// do not count as failures.
type Retry struct {
	// MaxAttempts bounds the attempts that end in failure, the first one
	// included. 0 means 10, 1 means no retry; at most 10,000.
	MaxAttempts int `json:"maxAttempts,omitempty"`

	// Delays is a fixed list, used as it is: the delay before the second
	// attempt, the third, and so on; the last one repeats. It excludes the
	// fields below.
	Delays []time.Duration `json:"delays,omitempty"`

	// Initial is the upper bound of the first delay; 0 means 1 s.
	Initial time.Duration `json:"initial,omitempty"`
	// Max is the cap of the upper bound; 0 means 1 h.
	Max time.Duration `json:"max,omitempty"`
	// Factor multiplies the bound from attempt to attempt; 0 means 2, at least 1.
	Factor float64 `json:"factor,omitempty"`
	// NoJitter waits for the full bound each time.
	NoJitter bool `json:"noJitter,omitempty"`

	// Backoff computes the delay after the given number of failures, 1 or more,
	// and the last error. It excludes all other delays. It is for handlers and
	// Config only: a function cannot travel with a job. It must be safe for
	// concurrent use.
	Backoff func(failures int, err error) time.Duration `json:"-"`
}

// Defaults and limits of [Retry].
const (
	defaultAttempts = 10
	defaultInitial  = time.Second
	defaultMaxDelay = time.Hour
	defaultFactor   = 2
	maxAttempts     = 10_000
)

func (r *Retry) validate(field string, travels bool) (errs []error) {
	if r == nil {
		return nil
	}
	if r.MaxAttempts < 0 || r.MaxAttempts > maxAttempts {
		errs = append(errs, invalid(field+".MaxAttempts", "%d is not between 0 and %d", r.MaxAttempts, maxAttempts))
	}
	for i, d := range r.Delays {
		if d < 0 || d > maxDelay {
			errs = append(errs, invalid(field+".Delays", "entry %d, %v, is not between 0 and %v", i, d, maxDelay))
			break
		}
	}
	if len(r.Delays) > 1000 {
		errs = append(errs, invalid(field+".Delays", "%d entries are more than 1000", len(r.Delays)))
	}
	if r.Initial < 0 || r.Initial > maxDelay {
		errs = append(errs, invalid(field+".Initial", "%v is not between 0 and %v", r.Initial, maxDelay))
	}
	if r.Max < 0 || r.Max > maxDelay {
		errs = append(errs, invalid(field+".Max", "%v is not between 0 and %v", r.Max, maxDelay))
	}
	if r.Factor != 0 && !(r.Factor >= 1 && r.Factor <= 1000) { // also refuses NaN
		errs = append(errs, invalid(field+".Factor", "%v is not between 1 and 1000", r.Factor))
	}
	formula := r.Initial != 0 || r.Max != 0 || r.Factor != 0 || r.NoJitter
	if len(r.Delays) > 0 && formula {
		errs = append(errs, invalid(field+".Delays", "excludes Initial, Max, Factor and NoJitter"))
	}
	if r.Backoff != nil && (travels || formula || len(r.Delays) > 0) {
		if travels {
			errs = append(errs, invalid(field+".Backoff", "a function cannot travel with a job; give it to the handler or to Config"))
		} else {
			errs = append(errs, invalid(field+".Backoff", "excludes Delays, Initial, Max, Factor and NoJitter"))
		}
	}
	return errs
}

// attempts returns how many failures end the job.
func (r *Retry) attempts() int {
	if r.MaxAttempts == 0 {
		return defaultAttempts
	}
	return r.MaxAttempts
}

// delay returns how long to wait after the given number of failures.
func (r *Retry) delay(failures int, err error) time.Duration {
	failures = max(1, failures)
	if r.Backoff != nil {
		return min(max(0, r.Backoff(failures, err)), maxDelay)
	}
	if n := len(r.Delays); n > 0 {
		return r.Delays[min(failures, n)-1]
	}
	initial, limit, factor := r.Initial, r.Max, r.Factor
	if initial == 0 {
		initial = defaultInitial
	}
	if limit == 0 {
		limit = max(defaultMaxDelay, initial)
	}
	if factor == 0 {
		factor = defaultFactor
	}
	bound := limit
	if f := float64(initial) * math.Pow(factor, float64(failures-1)); f < float64(limit) {
		bound = time.Duration(f)
	}
	if r.NoJitter || bound <= 0 {
		return bound
	}
	return rand.N(bound + 1)
}

func (r *Retry) spec() *store.RetrySpec {
	if r == nil {
		return nil
	}
	return &store.RetrySpec{
		MaxAttempts: r.MaxAttempts, Delays: r.Delays, Initial: r.Initial, Max: r.Max, Factor: r.Factor, NoJitter: r.NoJitter,
	}
}

func retryFromSpec(r *store.RetrySpec) *Retry {
	if r == nil {
		return nil
	}
	return &Retry{
		MaxAttempts: r.MaxAttempts, Delays: r.Delays, Initial: r.Initial, Max: r.Max, Factor: r.Factor, NoJitter: r.NoJitter,
	}
}

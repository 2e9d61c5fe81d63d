package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// contestant is one way to have jobs done.
type contestant struct {
	name    string
	version string
	setting string // what was chosen because it is best for it
	part    int    // slow ones do one in so many jobs where the rate is asked for; 0: all
	open    func(ctx context.Context, at place) (queue, error)

	postgres *postgres // runs during its trials
}

// place is where the jobs of a trial are kept.
type place struct {
	redis   []string // addresses
	cluster bool     // of a Redis Cluster
	keepAll bool     // finished jobs are kept, however many
}

// queue is a contestant at work. What it cannot do is an errors.ErrUnsupported,
// and leaves it out of the scenario.
type queue interface {
	// submit stores one job. Many goroutines call it at the same time.
	submit(ctx context.Context, j job) error
	// submitMany stores jobs in the way that is best for many.
	submitMany(ctx context.Context, jobs []job) error
	// start runs instances, until the function it returns is called.
	start(ctx context.Context, w work) (stop func() error, err error)
	close() error
}

type job struct {
	payload []byte    // JSON
	at      time.Time // zero: now
}

type work struct {
	instances int
	workers   int // of an instance; 0: what is best for a handler that does nothing
	do        handler
}

// handler is called with the number of the attempt, from 1, and the payload. A
// job that fails is to be tried again as soon as the contestant can.
type handler func(attempt int, payload []byte) error

const standardPayload = 52

// body is what payloads decode to.
type body struct {
	Due int64  `json:"due"` // in microseconds since 1970
	Pad string `json:"pad"`
}

// payload makes JSON of exactly so many bytes, if it is 40 or more.
func payload(size int, due time.Time) []byte {
	micros := int64(1e15) // as long as any of these centuries
	if !due.IsZero() {
		micros = due.UnixMicro()
	}
	frame := len(fmt.Sprintf(`{"due":%d,"pad":""}`, micros))
	return fmt.Appendf(nil, `{"due":%d,"pad":"%s"}`, micros, strings.Repeat("x", max(size-frame, 0)))
}

// dueOf is when the job of a payload was to start.
func dueOf(payload []byte) (time.Time, error) {
	var b body
	err := json.Unmarshal(payload, &b)
	return time.UnixMicro(b.Due), err
}

// jobs makes n jobs that are the same.
func jobs(n, size int, at time.Time) []job {
	all := make([]job, n)
	p := payload(size, at)
	for i := range all {
		all[i] = job{p, at}
	}
	return all
}

package carillon

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carillon-go/carillon/store"
)

// beat sends heartbeats until keeping ends, and one when an instance has left,
// for its reply tells who owns which segment now. When none got through to a
// segment for almost a lease, its jobs that hold a mutex are stopped: the mutex
// may be another's soon.
func (in *instance) beat() {
	every := in.config.LeaseTTL / 3
	failures := 0
	for {
		wait := every
		if failures > 0 {
			wait = min(every, max(backoff(failures), every/10))
		}
		timer := time.NewTimer(wait)
		limit := time.NewTimer(time.Until(in.trusted()))
		select {
		case <-timer.C:
		case <-in.left:
		case <-limit.C:
			in.stopDistrusted()
			select {
			case <-timer.C:
			case <-in.keeping.Done():
			}
		case <-in.keeping.Done():
		}
		timer.Stop()
		limit.Stop()
		if in.keeping.Err() != nil {
			return
		}
		in.stopDistrusted() // after a pause of the process, both timers have fired
		if err := in.pulseInTime(); err != nil {
			failures++
			if in.keeping.Err() == nil && in.warned.lately("heartbeat") {
				in.log.Warn("carillon: heartbeat failed, trying again", "error", err)
			}
			continue
		}
		failures = 0
	}
}

// trusted returns until when the lease of every segment can be relied on.
func (in *instance) trusted() time.Time {
	return slices.MinFunc(in.alive, time.Time.Compare).Add(deadline(in.config.LeaseTTL))
}

// stopDistrusted stops the jobs that hold a mutex in segments whose lease cannot
// be relied on any more.
func (in *instance) stopDistrusted() {
	if time.Now().Before(in.trusted()) {
		return
	}
	in.running.stop(func(e *store.Entry) bool {
		return e.Mutex != 0 && time.Since(in.alive[e.Segment]) >= deadline(in.config.LeaseTTL)
	}, ErrLeaseLost)
}

// pulseInTime is pulse, given up at the local deadline: what has to stop then
// must not wait for a heartbeat that hangs.
func (in *instance) pulseInTime() error {
	ctx := in.keeping
	if t := in.trusted(); time.Now().Before(t) {
		limit, cancel := context.WithDeadline(ctx, t)
		defer cancel()
		ctx = limit
	}
	return in.pulse(ctx)
}

// pulse sends one heartbeat to every segment and acts on the replies. A segment
// that cannot be reached does not keep the others from being served.
func (in *instance) pulse(ctx context.Context) error {
	limit, cancel := context.WithTimeout(ctx, max(in.config.LeaseTTL/3, 50*time.Millisecond))
	defer cancel()
	sent, hinted := time.Now(), in.pauseHints.Load()
	entries := in.running.all()
	p, errs := in.store.Heartbeat(limit, in.id, in.config.LeaseTTL, in.queues, len(entries), store.KnownBy(entries), in.census)
	for segment, err := range errs {
		if err == nil {
			in.alive[segment] = sent
			in.keepers[segment].grace.end(in.config.LeaseTTL) // its keeper may not look for long
		} else if in.keeping.Err() == nil {
			in.keepers[segment].grace.begin()
		}
	}
	in.stopCancelled(p.Cancelled)
	if p.Missed {
		for _, r := range in.readers {
			r.doubt.Store(true)
		}
	}
	if in.keeping.Err() != nil {
		return store.Distinct(errs)
	}
	// What follows registers this instance somewhere. Given up halfway by a
	// shutdown, it could take effect after the farewell.
	end, _ := limit.Deadline()
	whole, done := context.WithDeadline(context.WithoutCancel(limit), end)
	defer done()
	if len(p.Dead) > 0 {
		in.declaredDead(whole, p.Dead)
	}
	if errs[0] == nil { // the first segment tells what concerns all
		in.clock.learn(p.Now, sent)
		if in.pauseHints.Load() == hinted { // otherwise the reply may be older than what the hint led to
			in.applyPauses(p.Paused)
		}
		news := p.Census == "" || p.Census != in.census
		in.census = p.Census
		for _, k := range in.keepers {
			if news {
				k.share(p.Live)
			}
			k.own(whole)
		}
	}
	return store.Distinct(errs)
}

// declaredDead joins again.
func (in *instance) declaredDead(ctx context.Context, segments []int) {
	if in.keeping.Err() != nil {
		return // the instance is leaving
	}
	in.log.Warn("carillon: the lease had lapsed and the instance was declared dead; joining again", "segments", segments)
	in.stopLost(segments)
	if _, err := in.rejoin(ctx); err != nil && !errors.Is(err, ErrClosed) {
		in.log.Warn("carillon: joining again failed, the next heartbeat tries", "error", err)
	}
}

func (in *instance) stopCancelled(ids []string) {
	if len(ids) == 0 {
		return
	}
	wanted := make(map[string]bool, len(ids))
	for _, id := range ids {
		wanted[id] = true
	}
	in.running.stop(func(e *store.Entry) bool { return wanted[e.ID] }, ErrCancelled)
}

// pauseHere is what this instance's own call has led to, which needs no hint.
func (in *instance) pauseHere(queue string, paused bool) {
	select {
	case <-in.startEnded:
		in.pauseHints.Add(1)
		if p := in.pools[queue]; p != nil {
			p.pause(paused)
		}
	default: // the start asks which queues are paused
	}
}

func (in *instance) applyPauses(queues []string) {
	paused := make(map[string]bool, len(queues))
	for _, q := range queues {
		paused[q] = true
	}
	for q, p := range in.pools {
		p.pause(paused[q])
	}
}

// listen acts on hints. Everything they say is also found out without them.
func (in *instance) listen(hints <-chan string) {
	for {
		var hint string
		select {
		case hint = <-hints:
		case <-in.keeping.Done():
			return
		}
		kind, rest, _ := strings.Cut(hint, " ")
		switch kind {
		case "c":
			entry, id, _ := strings.Cut(rest, " ")
			if token, err := store.Token(entry); err == nil {
				in.running.cancel(id, token)
			}
		case "p", "":
			in.pauseHints.Add(1)
			ctx, cancel := context.WithTimeout(in.keeping, settleGrace)
			if paused, err := in.store.Paused(ctx); err == nil {
				in.applyPauses(paused)
			}
			cancel()
		case "v":
			in.defend(rest)
		case "l":
			select {
			case in.left <- struct{}{}:
			default: // a heartbeat is due already
			}
		case "d", "s":
			segment, ms, _ := strings.Cut(rest, " ")
			n, err1 := strconv.Atoi(segment)
			at, err2 := strconv.ParseInt(ms, 10, 64)
			if err1 == nil && err2 == nil && n >= 0 && n < len(in.keepers) {
				in.keepers[n].hint(time.UnixMilli(at))
			}
		}
		if hint == "" {
			for _, k := range in.keepers {
				k.hint(time.Time{})
			}
		}
	}
}

// hear passes on which jobs of schedules have ended, for policies that wait for
// that. Like all hints they may be lost.
func (in *instance) hear(ended <-chan string) {
	for {
		select {
		case id := <-ended:
			if schedule, _, ok := strings.Cut(id, "~"); ok {
				in.keepers[in.store.Segment(schedule)].poke(schedule)
			}
		case <-in.keeping.Done():
			return
		}
	}
}

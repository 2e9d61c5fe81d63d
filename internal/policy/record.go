package policy

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// Outcome is what became of a tick.
type Outcome byte

// The outcomes.
const (
	Fired    Outcome = 'f'
	Skipped  Outcome = 's'
	Merged   Outcome = 'm' // with an earlier one, which ran for both
	Waiting  Outcome = 'w' // for the end of a run
	Replayed Outcome = 'r' // by a backfill
)

// Why says why a tick was skipped.
type Why byte

// The reasons.
const (
	Missed     Why = 'm' // nobody was there in time, and the policy is to skip
	TooOld     Why = 'a' // missed, and beyond the bounds of what is replayed
	Overlapped Why = 'o'
	BufferFull Why = 'b'
	Replaced   Why = 'r' // by a later tick, while it waited
	RunFailed  Why = 'f' // the run it waited for failed
	Excluded   Why = 'c' // by a calendar
	Paused     Why = 'p'
	Changed    Why = 'g' // the definition was replaced or deleted before it ran; see Record.Now
	Refused    Why = 'e' // its job could not be created
	Nobody     Why = 'n' // a broadcast without an instance
)

// Record is the ledger's line for a tick, or for all ticks from From to Tick.
type Record struct {
	Tick       time.Time
	From       time.Time // zero: Tick alone
	At         time.Time // when it was recorded
	Outcome    Outcome
	Why        Why
	Into       time.Time // merged into, skipped for, or replaced by this tick
	Generation int64     // of the job, of the plan that had the range, or of the definition under which it waits
	Sharded    bool      // there is more than one job
	Kind       string    // as Run.Kind
	Home       string    // the end of the job's ID, by which it is found
}

// Now is what became of the tick, by the generation that is in force, 0 if there
// is none: a tick that waited is forgotten when the definition is replaced.
func (r Record) Now(generation int64) Record {
	if r.Outcome == Waiting && (generation == 0 || generation > r.Generation) {
		r.Outcome, r.Why = Skipped, Changed
	}
	return r
}

// String encodes a record but for its tick.
func (r Record) String() string {
	ms := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return strconv.FormatInt(t.UnixMilli(), 10)
	}
	code := string(r.Outcome)
	if r.Why != 0 {
		code += string(r.Why)
	}
	generation := ""
	if r.Generation != 0 {
		generation = strconv.FormatInt(r.Generation, 10)
	}
	if r.Sharded {
		generation += "s"
	}
	return strings.TrimRight(strings.Join([]string{code, ms(r.At), ms(r.From), ms(r.Into), generation, r.Kind, r.Home}, " "), " ")
}

// ParseRecord reads what String wrote.
func ParseRecord(tick time.Time, text string) (Record, error) {
	part := strings.Split(text, " ")
	for len(part) < 7 {
		part = append(part, "")
	}
	damaged := errors.New("the record is damaged")
	r := Record{Tick: tick, Kind: part[5], Home: part[6]}
	if len(part) > 7 || len(part[0]) == 0 || len(part[0]) > 2 {
		return r, damaged
	}
	r.Outcome = Outcome(part[0][0])
	if len(part[0]) == 2 {
		r.Why = Why(part[0][1])
	}
	for i, to := range []*time.Time{&r.At, &r.From, &r.Into} {
		if part[i+1] == "" {
			continue
		}
		n, err := strconv.ParseInt(part[i+1], 10, 64)
		if err != nil {
			return r, damaged
		}
		*to = time.UnixMilli(n)
	}
	generation, sharded := strings.CutSuffix(part[4], "s")
	r.Sharded = sharded
	if generation != "" {
		n, err := strconv.ParseInt(generation, 10, 64)
		if err != nil {
			return r, damaged
		}
		r.Generation = n
	}
	return r, nil
}

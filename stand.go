package carillon

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/carillon-go/carillon/store"
)

// stands are the definitions that this program has declared, so that it can say
// that it stands by one when another release asks. See ADR 16.
type stands struct {
	mu      sync.Mutex
	by      map[string]*definition
	refused map[string]*definition // superseded by one that others stand by
	again   chan struct{}          // something was refused
}

// Intervals of disagreement.
const (
	askFor  = time.Second // how long the others have to answer
	askEach = time.Minute
)

// declare notes what this program stands by now.
func (st *stands) declare(name string, d *definition) {
	st.mu.Lock()
	defer st.mu.Unlock()
	delete(st.refused, name)
	if st.by == nil {
		st.by = make(map[string]*definition)
	}
	st.by[name] = d
}

// settled notes that a definition is in force.
func (st *stands) settled(name string, d *definition) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.refused[name] == d {
		delete(st.refused, name)
	}
}

// forswear forgets a schedule.
func (st *stands) forswear(name string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	delete(st.by, name)
	delete(st.refused, name)
}

// superseded reports whether a definition is one that the schedule has had before
// and must not have again: somebody has chosen the present one, or a program that
// runs stands by it.
func (s *Scheduler) superseded(ctx context.Context, old *store.Schedule, d *definition) (bool, error) {
	versions, err := s.store.Versions(ctx, old.Name)
	if err != nil {
		return false, err
	}
	had := slices.ContainsFunc(versions, func(v store.Version) bool {
		was, err := s.vault.definition(old.Name, v.Definition)
		return err == nil && v.Generation != old.Generation && was.equal(d)
	})
	var present versionMeta
	if v := versionOf(versions, old.Generation); v != nil {
		_ = json.Unmarshal(v.Meta, &present) // damaged, it shows as empty
	}
	if !had || present.Why != restored && !s.defended(ctx, old) {
		return false, nil
	}
	s.stands.mu.Lock()
	defer s.stands.mu.Unlock()
	if s.stands.refused == nil {
		s.stands.refused = make(map[string]*definition)
	}
	if s.stands.refused[old.Name] == nil {
		s.log.Warn("carillon: this program declares an earlier definition of a schedule than others, and the newer one stays",
			"schedule", old.Name, "generation", old.Generation)
	}
	s.stands.refused[old.Name] = d
	select {
	case s.stands.again <- struct{}{}:
	default:
	}
	return true, nil
}

// defended asks whether an instance that runs stands by the present definition.
func (s *Scheduler) defended(ctx context.Context, stored *store.Schedule) bool {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	hints, stop := s.store.Control()
	defer stop()
	generation := strconv.FormatInt(stored.Generation, 10)
	yes := "y " + generation + " " + stored.Name
	asked := time.NewTicker(askFor / 4) // the subscription may not be there at first
	defer asked.Stop()
	for {
		s.store.Hint(ctx, "v "+generation+" "+stored.Name)
		for waiting := true; waiting; {
			select {
			case hint := <-hints:
				if hint == yes {
					return true
				}
			case <-asked.C:
				waiting = false
			case <-ctx.Done():
				return false
			}
		}
	}
}

// defend answers that question, if this program stands by the definition.
func (in *instance) defend(question string) {
	text, name, _ := strings.Cut(question, " ")
	generation, err := strconv.ParseInt(text, 10, 64)
	s := in.scheduler
	s.stands.mu.Lock()
	mine := s.stands.by[name]
	s.stands.mu.Unlock()
	if err != nil || mine == nil {
		return
	}
	ctx, cancel := context.WithTimeout(in.keeping, settleGrace)
	defer cancel()
	stored, err := in.store.GetSchedule(ctx, name)
	if err != nil || stored.Generation != generation {
		return
	}
	if now := s.vault.read(stored); now == nil || !now.equal(mine) {
		return
	}
	if in.warned.lately("disputed " + name) {
		in.log.Warn("carillon: another program declares an earlier definition of a schedule; the newer one stays", "schedule", name)
	}
	in.store.Hint(ctx, "y "+question)
}

// insist tries the refused definitions again: those who stood by the newer ones
// may be gone, as when a deployment was taken back.
func (in *instance) insist() {
	s := in.scheduler
	for {
		select {
		case <-s.stands.again:
		case <-in.keeping.Done():
			return
		}
		pause(in.keeping, askEach)
		s.stands.mu.Lock()
		again := maps.Clone(s.stands.refused)
		s.stands.mu.Unlock()
		for name, d := range again {
			ctx, cancel := context.WithTimeout(in.keeping, 10*time.Second)
			err := s.put(ctx, name, d, declared)
			cancel()
			if err != nil && in.keeping.Err() == nil {
				if in.warned.lately("insist") {
					in.log.Warn("carillon: a schedule could not be stored, trying again", "schedule", name, "error", err)
				}
				select {
				case s.stands.again <- struct{}{}:
				default:
				}
			}
		}
	}
}

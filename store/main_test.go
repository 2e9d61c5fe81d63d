package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/carillon-go/carillon/embedded"
	"github.com/carillon-go/carillon/internal/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(redistest.Wrap(m)) }

// patience is how long a test waits for what should happen soon.
const patience = 30 * time.Second

var testRetention = Retention{
	Succeeded: {Age: time.Hour, Count: 1000}, Failed: {Age: time.Hour, Count: 1000},
	Cancelled: {Age: time.Hour, Count: 1000}, Expired: {Age: time.Hour, Count: 1000},
}

// open makes a store that is closed when the test ends. On a real server it may
// do only what docs/operations.md grants, unless the test made a user of its own.
func open(t testing.TB, rdb redis.UniversalClient, o Options) *Store {
	t.Helper()
	if o.Namespace == "" {
		o.Namespace = redistest.Namespace(t)
	}
	if o.Retention == nil {
		o.Retention = testRetention
	}
	s, err := New(redistest.Limited(t, rdb), o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// inMemory opens a store on a Redis inside the process.
func inMemory(t testing.TB, o Options) (*Store, *redis.Client) {
	t.Helper()
	rdb, stop := embedded.Open()
	t.Cleanup(stop)
	return open(t, rdb, o), rdb
}

// job is a spec with the defaults, changed by edit.
func job(edit ...func(*Spec)) *Spec {
	s := &Spec{Name: "test", Args: []byte(`{"n":1}`), Queue: DefaultQueue, Priority: DefaultPriority}
	for _, e := range edit {
		e(s)
	}
	return s
}

// definition is what a new schedule needs, with its first tick.
func definition(name string, next time.Time) Put {
	return Put{Name: name, Definition: []byte("definition"), Next: next, Look: next}
}

// tickTurn fires the next tick of a schedule: it has one job, named by its time.
func tickTurn(sched *Schedule, following time.Time, spec *Spec) Turn {
	return Turn{
		Schedule: sched, NotBefore: sched.Next, Next: following, Look: following, Last: sched.Next,
		Jobs: []TickJob{{Suffix: stamp(sched.Next), Spec: spec}},
	}
}

// readDue reads schedules that are due.
func readDue(ctx context.Context, s *Store, segment, skip, limit int) ([]*Schedule, error) {
	names, err := s.DueSchedules(ctx, segment, skip, limit, time.Now())
	if err != nil {
		return nil, err
	}
	return s.ReadSchedules(ctx, names)
}

// fire takes the turn of one tick.
func fire(ctx context.Context, s *Store, sched *Schedule, following time.Time, spec *Spec) (id string, fired bool, err error) {
	r := s.Turns(ctx, s.Segment(sched.Name), []Turn{tickTurn(sched, following, spec)})[0]
	return r.IDs[0], r.Done, errors.Join(r.Err, r.Errs[0])
}

func submit(t testing.TB, s *Store, id string, spec *Spec) Receipt {
	t.Helper()
	receipts, errs := s.Submit(t.Context(), []NewJob{{ID: id, Spec: spec}})
	require.NoError(t, errs[0])
	return receipts[0]
}

// worker is an instance without a Scheduler: it takes what it is told to.
type worker struct {
	*Store
	t       testing.TB
	id      string
	readers []*Reader
}

func work(t testing.TB, s *Store, id string) *worker {
	t.Helper()
	_, err := s.Join(t.Context(), id, time.Minute, []byte(`{}`), []string{DefaultQueue})
	require.NoError(t, err)
	w := &worker{Store: s, t: t, id: id, readers: s.Readers(id, []string{DefaultQueue})}
	t.Cleanup(func() {
		for _, r := range w.readers {
			_ = r.Close()
		}
	})
	return w
}

// take fetches n entries.
func (w *worker) take(n int) []*Entry {
	w.t.Helper()
	var all []*Entry
	for _, r := range w.readers {
		entries, _, err := r.Fetch(w.t.Context(), n-len(all), 0)
		require.NoError(w.t, err)
		all = append(all, entries...)
	}
	require.Len(w.t, all, n)
	slices.SortFunc(all, func(a, b *Entry) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

func (w *worker) settle(e *Entry, o Outcome, edit ...func(*Settlement)) error {
	it := Settlement{Entry: e, Outcome: o, Elapsed: 5 * time.Millisecond}
	if o != Succeed {
		it.Error = "because"
	}
	for _, f := range edit {
		f(&it)
	}
	_, errs := w.Settle(w.t.Context(), w.id, []Settlement{it})
	return errs[0]
}

func (w *worker) state(id string) State {
	w.t.Helper()
	j, err := w.Get(w.t.Context(), id)
	require.NoError(w.t, err)
	return j.State
}

// dump describes all keys of a store's namespace, with everything that differs
// from run to run replaced, so that two runs can be compared.
func dump(t testing.TB, rdb redis.UniversalClient, s *Store) string {
	t.Helper()
	ctx := t.Context()
	names, err := rdb.Keys(ctx, "{"+escape(s.options.Namespace)+":*").Result()
	require.NoError(t, err)
	slices.Sort(names)
	var lines []string
	for _, name := range names {
		lines = append(lines, describe(ctx, rdb, name)...)
	}
	text := strings.Join(lines, "\n")
	for i, k := range s.segments {
		text = strings.ReplaceAll(text, k.prefix, fmt.Sprintf("{segment %d}:", i))
	}
	return clean(text)
}

func describe(ctx context.Context, rdb redis.UniversalClient, name string) []string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, name+" "+fmt.Sprintf(format, args...)) }
	add("has a time to live: %v", rdb.PTTL(ctx, name).Val() > 0)
	switch rdb.Type(ctx, name).Val() {
	case "string":
		add("= %s", rdb.Get(ctx, name).Val())
	case "hash":
		for k, v := range rdb.HGetAll(ctx, name).Val() {
			if k == "s" || k == "j" { // times differ in length
				v = "…"
			}
			add("[%s] = %q", k, v)
		}
	case "set":
		add("= %v", slices.Sorted(slices.Values(rdb.SMembers(ctx, name).Val())))
	case "zset":
		for _, z := range rdb.ZRangeWithScores(ctx, name, 0, -1).Val() {
			add("has %v at %.0f", z.Member, z.Score)
		}
	case "stream":
		for _, m := range rdb.XRange(ctx, name, "-", "+").Val() {
			delete(m.Values, "j")
			add("entry %v", m.Values)
		}
		for _, g := range rdb.XInfoGroups(ctx, name).Val() {
			add("group %s consumers %d pending %d", g.Name, g.Consumers, g.Pending)
		}
	}
	slices.Sort(lines)
	return lines
}

var (
	instants = regexp.MustCompile(`\d{13,}(-\d+)?`)
	madeIDs  = regexp.MustCompile(`0[0-9a-z]{25}`)
)

func clean(s string) string {
	return madeIDs.ReplaceAllString(instants.ReplaceAllString(s, "#"), "ID")
}

func z(score float64, member string) redis.Z { return redis.Z{Score: score, Member: member} }

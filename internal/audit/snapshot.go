package audit

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// jobAt is a job, or another name, of a segment. Here a segment goes by the number
// in its hash tag.
type jobAt struct {
	segment int
	id      string
}

type workerAt struct {
	segment  int
	instance string
}

type record struct {
	key     string
	segment int
	id      string
	place   string
}

func (r *record) at() jobAt { return jobAt{r.segment, r.id} }

// letter names the kind of the record's place, which is the ID of an entry for a
// job in a stream: q.
func (r *record) letter() byte {
	switch {
	case r.place == "":
		return 0
	case '0' <= r.place[0] && r.place[0] <= '9':
		return 'q'
	}
	return r.place[0]
}

type stream struct {
	key       string
	segment   int
	entries   map[string]string // entry -> job
	pending   map[string]string // entry -> consumer
	consumers []string
}

type history struct {
	key     string
	segment int
	state   string
	entries map[string]string // entry -> job
}

// held is a key with a holder, or with members.
type held struct {
	key     string
	segment int
	holder  string
	members []string
	awaited bool
}

// snapshot is everything in a namespace, as it was read.
type snapshot struct {
	prefix    string // of all keys, without the segment
	ttl       map[string]time.Duration
	records   map[jobAt]*record
	placesOf  map[jobAt][]string // d, w TICKET, q ENTRY
	streams   []*stream
	histories []*history
	uniques   []held
	mutexes   []held
	tags      []held
	cancels   map[jobAt]bool
	grants    []jobAt
	waiting   map[jobAt]bool // mutexes for which jobs wait
	workers   map[workerAt]bool
	reads     map[workerAt]bool // who reads its own queue
	owned     map[jobAt]string  // unfinished jobs of own queues: their instance
	placedFor map[jobAt]string  // the same, by the places of the jobs
	counted   []string          // streams that the books know
	described map[workerAt]bool
	plan      map[jobAt]string
	schedules map[jobAt]schedule
	versions  map[jobAt]versions
	groups    map[jobAt][]string // members
	calendars map[jobAt]bool
	users     map[jobAt]string // keys, by calendar
	relay     map[jobAt]bool
	passing   []string // keys that must have a time to live
	unknown   []string
	report    Report
}

func newSnapshot(namespace string) *snapshot {
	return &snapshot{
		prefix: "{" + namespace + ":", ttl: map[string]time.Duration{}, records: map[jobAt]*record{},
		placesOf: map[jobAt][]string{}, cancels: map[jobAt]bool{}, waiting: map[jobAt]bool{},
		workers: map[workerAt]bool{}, described: map[workerAt]bool{}, plan: map[jobAt]string{},
		reads: map[workerAt]bool{}, owned: map[jobAt]string{}, placedFor: map[jobAt]string{},
		schedules: map[jobAt]schedule{}, relay: map[jobAt]bool{}, versions: map[jobAt]versions{},
		groups: map[jobAt][]string{}, calendars: map[jobAt]bool{}, users: map[jobAt]string{},
		report: Report{States: map[byte]int{}, Outcomes: map[string]int{}, Instances: map[string]int{}},
	}
}

// load reads all keys. Mutexes come last, because whether somebody waits for
// one is read elsewhere.
func (s *snapshot) load(ctx context.Context, rdb redis.UniversalClient) error {
	keys, err := s.scan(ctx, rdb)
	if err != nil {
		return err
	}
	slices.SortFunc(keys, func(a, b string) int {
		if mutex := strings.Contains(a, "}:m:"); mutex != strings.Contains(b, "}:m:") {
			if mutex {
				return 1
			}
			return -1
		}
		return strings.Compare(a, b)
	})
	for some := range slices.Chunk(keys, 1000) {
		if err := s.readMany(ctx, rdb, some); err != nil {
			return err
		}
	}
	return nil
}

// readMany takes keys into the snapshot. Records are many and small, so they
// travel together, as do times to live.
func (s *snapshot) readMany(ctx context.Context, rdb redis.UniversalClient, keys []string) error {
	ttls, places := make([]*redis.DurationCmd, len(keys)), make([]*redis.StringCmd, len(keys))
	_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, key := range keys {
			ttls[i] = p.PTTL(ctx, key)
			if strings.Contains(key, "}:j:") {
				places[i] = p.HGet(ctx, key, "p")
			}
		}
		return nil
	})
	if maybe(err) != nil {
		return err
	}
	for i, key := range keys {
		s.ttl[key] = ttls[i].Val()
		if s.ttl[key] == -2 {
			continue // it has just passed
		}
		place := ""
		if places[i] != nil {
			place = places[i].Val()
		}
		if err := s.read(ctx, rdb, key, place); err != nil {
			return err
		}
	}
	return nil
}

func (s *snapshot) scan(ctx context.Context, rdb redis.UniversalClient) ([]string, error) {
	var mu sync.Mutex
	var keys []string
	node := func(ctx context.Context, c *redis.Client) error {
		it := c.Scan(ctx, 0, glob.Replace(s.prefix)+"*", 1000).Iterator()
		for it.Next(ctx) {
			mu.Lock()
			keys = append(keys, it.Val())
			mu.Unlock()
		}
		return it.Err()
	}
	var err error
	switch c := rdb.(type) {
	case *redis.ClusterClient:
		err = c.ForEachMaster(ctx, node)
	case *redis.Client:
		err = node(ctx, c)
	}
	slices.Sort(keys)
	return slices.Compact(keys), err
}

var glob = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// read takes one key into the snapshot; place is that of a record.
func (s *snapshot) read(ctx context.Context, rdb redis.UniversalClient, key, place string) error {
	number, name, ok := strings.Cut(strings.TrimPrefix(key, s.prefix), "}:")
	segment := segmentOf(number)
	if !ok || segment < 0 {
		s.unknown = append(s.unknown, key)
		return nil
	}
	kind, rest, _ := strings.Cut(name, ":")
	rest = unescape(rest)
	switch kind {
	case "meta", "queues", "paused", "gm":
		return nil
	case "j":
		s.records[jobAt{segment, rest}] = &record{key, segment, rest, place}
		return nil
	case "due":
		refs, err := rdb.ZRange(ctx, key, 0, -1).Result()
		for _, ref := range refs {
			s.put(segment, part(ref, 4, 3), "d")
			s.ownedBy(segment, part(ref, 4, 3), instanceOf(part(ref, 4, 1)))
		}
		return err
	case "wait":
		waiters, err := rdb.ZRange(ctx, key, 0, -1).Result()
		for _, w := range waiters {
			s.put(segment, part(w, 5, 4), "w"+part(w, 5, 1))
			s.waiting[jobAt{segment, unescape(part(w, 5, 0))}] = true
		}
		return err
	case "q":
		return s.readStream(ctx, rdb, key, segment)
	case "h":
		return s.readHistory(ctx, rdb, key, segment, rest)
	case "m":
		holder, err := rdb.HGet(ctx, key, "h").Result()
		s.mutexes = append(s.mutexes, held{
			key: key, segment: segment, holder: holder, awaited: s.waiting[jobAt{segment, rest}],
		})
		return maybe(err)
	case "u":
		holder, err := rdb.Get(ctx, key).Result()
		s.uniques = append(s.uniques, held{key: key, segment: segment, holder: holder})
		return maybe(err)
	case "t":
		members, err := rdb.SMembers(ctx, key).Result()
		s.tags = append(s.tags, held{key: key, segment: segment, members: members})
		return err
	case "cancels", "relay", "inst", "grant", "tend", "workers", "plan", "own", "taken":
		return s.readIndex(ctx, rdb, key, kind, segment)
	case "s", "sv", "sg", "cal", "cu":
		return s.readSchedule(ctx, rdb, key, kind, jobAt{segment, rest})
	case "ev", "l", "k", "kt", "sl", "awaited":
		s.passing = append(s.passing, key)
		return nil
	}
	s.unknown = append(s.unknown, key)
	return nil
}

func (s *snapshot) readIndex(ctx context.Context, rdb redis.UniversalClient, key, kind string, segment int) error {
	var names []string
	var err error
	if kind == "cancels" || kind == "relay" || kind == "inst" || kind == "taken" {
		names, err = rdb.HKeys(ctx, key).Result()
	} else {
		names, err = rdb.ZRange(ctx, key, 0, -1).Result()
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		at := jobAt{segment, name}
		switch kind {
		case "cancels":
			s.cancels[at] = true
		case "relay":
			s.relay[at] = true
		case "grant":
			s.grants = append(s.grants, at)
		case "inst":
			// Without an instance it says when the last one was added.
			if instance, _, _ := strings.Cut(name, " "); instance != "" {
				s.described[workerAt{segment, instance}] = true
			}
		case "workers":
			s.workers[workerAt{segment, name}] = true
		case "own":
			if instance, id, _ := strings.Cut(name, ":"); id == "" {
				s.reads[workerAt{segment, instance}] = true
			} else {
				s.owned[jobAt{segment, id}] = instance
			}
		case "taken":
			s.counted = append(s.counted, name)
		case "tend":
			if !strings.HasPrefix(name, "u:") && !strings.HasPrefix(name, "l:") {
				s.find("%s: %s is no claim", key, name)
			}
		case "plan":
			score, err := rdb.ZScore(ctx, key, name).Result()
			if err != nil {
				return maybe(err)
			}
			s.plan[at] = strconv.FormatInt(int64(score), 10)
		}
	}
	return nil
}

func (s *snapshot) readStream(ctx context.Context, rdb redis.UniversalClient, key string, segment int) error {
	q := &stream{key: key, segment: segment, entries: map[string]string{}, pending: map[string]string{}}
	s.streams = append(s.streams, q)
	entries, err := rdb.XRange(ctx, key, "-", "+").Result()
	if err != nil {
		return err
	}
	for _, e := range entries {
		id := jobIn(e)
		q.entries[e.ID] = id
		s.put(segment, id, e.ID)
		s.ownedBy(segment, id, instanceOf(key))
	}
	groups, err := rdb.XInfoGroups(ctx, key).Result()
	if err != nil || len(groups) == 0 {
		return err
	}
	pending, err := rdb.XPendingExt(ctx, &redis.XPendingExtArgs{
		Stream: key, Group: "w", Start: "-", End: "+", Count: 1_000_000,
	}).Result()
	if err != nil {
		return err
	}
	for _, p := range pending {
		q.pending[p.ID] = p.Consumer
	}
	consumers, err := rdb.XInfoConsumers(ctx, key, "w").Result()
	for _, c := range consumers {
		q.consumers = append(q.consumers, c.Name)
	}
	return err
}

// jobIn finds the ID in "attempt mutex length ID...".
func jobIn(e redis.XMessage) string {
	data, _ := e.Values["e"].(string)
	part := strings.SplitN(data, " ", 4)
	if len(part) < 4 {
		return ""
	}
	n, err := strconv.Atoi(part[2])
	if err != nil || n < 0 || n > len(part[3]) {
		return ""
	}
	return part[3][:n]
}

func (s *snapshot) readHistory(ctx context.Context, rdb redis.UniversalClient, key string, segment int, state string) error {
	h := &history{key: key, segment: segment, state: state, entries: map[string]string{}}
	s.histories = append(s.histories, h)
	entries, err := rdb.XRange(ctx, key, "-", "+").Result()
	for _, e := range entries {
		h.entries[e.ID], _ = e.Values["i"].(string)
	}
	return err
}

func (s *snapshot) put(segment int, id, place string) {
	at := jobAt{segment, id}
	s.placesOf[at] = append(s.placesOf[at], place)
}

// instanceOf tells whose own queue this is, or the stream of it; "" when it is
// anybody's.
func instanceOf(queue string) string {
	_, instance, _ := strings.Cut(queue, "%00")
	return instance
}

// ownedBy notes whose job it is, by its place.
func (s *snapshot) ownedBy(segment int, id, instance string) {
	if instance != "" {
		s.placedFor[jobAt{segment, id}] = instance
	}
}

// part returns the i-th of n parts of a member; the last part keeps its colons.
func part(member string, n, i int) string {
	parts := strings.SplitN(member, ":", n)
	if i >= len(parts) {
		return member
	}
	return parts[i]
}

// segmentOf returns -1 for what is no segment.
func segmentOf(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return n
}

// unescape undoes the %XX of keys. What is not escaped like that stays.
func unescape(s string) string {
	if plain, err := url.PathUnescape(s); err == nil {
		return plain
	}
	return s
}

// maybe takes a field or key that is not there for an empty one.
func maybe(err error) error {
	if err == redis.Nil { //nolint:errorlint // go-redis returns it bare
		return nil
	}
	return err
}

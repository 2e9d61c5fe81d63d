package carillon_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/embedded"
)

// secret must never be seen in an error.
const secret = "correct-horse-battery"

// untouched returns a client that fails the test when anything is sent.
func untouched(t testing.TB) *redis.Client {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{
		Addr: "nowhere", MaxRetries: -1, DialerRetries: 1,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		Dialer: func(context.Context, string, string) (net.Conn, error) {
			t.Error("something was sent to Redis")
			return nil, errors.New("unreachable")
		},
	})
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// silent makes a Scheduler that must refuse everything by itself.
func silent(t testing.TB, edit ...func(*carillon.Config)) *carillon.Scheduler {
	t.Helper()
	c := carillon.Config{Logger: slog.New(slog.DiscardHandler)}
	for _, f := range edit {
		f(&c)
	}
	s, err := carillon.New(untouched(t), c)
	require.NoError(t, err)
	return s
}

// refused checks an error about a bad argument.
func refused(t *testing.T, err error, field string) {
	t.Helper()
	require.ErrorIs(t, err, carillon.ErrInvalid)
	assert.ErrorContains(t, err, field+":")
	assert.NotContains(t, err.Error(), secret)
	assert.Less(t, len(err.Error()), 500)
	for _, other := range []error{carillon.ErrUnavailable, carillon.ErrUncertain} {
		assert.NotErrorIs(t, err, other)
	}
	var e *carillon.Error
	assert.ErrorAs(t, err, &e)
	assert.NotEmpty(t, e.Op)
}

// badTexts are names that nothing may have.
func badTexts(limit int) map[string]string {
	return map[string]string{
		"one byte too long":      strings.Repeat("x", limit+1),
		"too long in bytes only": strings.Repeat("😀", limit/4+1),
		"not UTF-8":              "a\xff",
		"cut UTF-8":              "\xe6\x97",
		"NUL":                    "a\x00b",
		"newline":                "a\nb",
		"escape":                 "\x1b[31m",
		"C1 control":             "a\u0085b",
		"DEL":                    "a\x7f",
	}
}

type failing struct{ Secret string }

func (failing) MarshalJSON() ([]byte, error) { return nil, errors.New(secret) }

type badJob struct {
	name, field string
	job         carillon.Job
}

func badJobs() []badJob {
	var all []badJob
	add := func(name, field string, edit func(*carillon.Job)) {
		j := carillon.Job{Name: "work", Args: map[string]string{"password": secret}}
		edit(&j)
		all = append(all, badJob{name, field, j})
	}
	texts := map[string]struct {
		limit int
		set   func(*carillon.Job, string)
	}{
		"Name":       {200, func(j *carillon.Job, s string) { j.Name = s }},
		"ID":         {200, func(j *carillon.Job, s string) { j.ID = s }},
		"Queue":      {100, func(j *carillon.Job, s string) { j.Queue = s }},
		"Unique.Key": {200, func(j *carillon.Job, s string) { j.Unique.Key = s }},
		"Mutex":      {200, func(j *carillon.Job, s string) { j.Mutex = s }},
		"Tags[1]":    {100, func(j *carillon.Job, s string) { j.Tags = []string{"fine", s} }},
	}
	for field, f := range texts {
		for name, text := range badTexts(f.limit) {
			add(name, field, func(j *carillon.Job) { f.set(j, text) })
		}
	}
	add("empty", "Name", func(j *carillon.Job) { j.Name = "" })
	add("empty", "Tags[0]", func(j *carillon.Job) { j.Tags = []string{""} })
	add("reserved character", "ID", func(j *carillon.Job) { j.ID = "a~1" })
	add("twice", "Tags[2]", func(j *carillon.Job) { j.Tags = []string{"a", "b", "a"} })
	add("too many", "Tags", func(j *carillon.Job) {
		for i := range 21 {
			j.Tags = append(j.Tags, fmt.Sprint(i))
		}
	})
	for _, p := range []carillon.Priority{-2, 3, 99, math.MinInt} {
		add(p.String(), "Priority", func(j *carillon.Job) { j.Priority = p })
	}
	century := 100 * 365 * 24 * time.Hour
	for name, d := range map[string]time.Duration{"negative": -1, "over a century": century + 1, "smallest": math.MinInt64, "largest": math.MaxInt64} {
		add(name, "Delay", func(j *carillon.Job) { j.Delay = d })
		add(name, "Timeout", func(j *carillon.Job) { j.Timeout = d })
		add(name, "Retain", func(j *carillon.Job) { j.Retain = d })
		add(name, "Unique.For", func(j *carillon.Job) { j.Unique.Key, j.Unique.For = "k", d })
		add(name, "Retry.Initial", func(j *carillon.Job) { j.Retry = &carillon.Retry{Initial: d} })
		add(name, "Retry.Max", func(j *carillon.Job) { j.Retry = &carillon.Retry{Max: d} })
		add(name, "Retry.Delays", func(j *carillon.Job) { j.Retry = &carillon.Retry{Delays: []time.Duration{1, d}} })
	}
	for name, at := range map[string]time.Time{
		"before 1970": time.Unix(-1, 0), "the year 1": time.Time{}.Add(1), "after 2200": time.Date(2200, 1, 1, 0, 0, 1, 0, time.UTC),
		"the end of time": time.Unix(math.MaxInt64, 0),
	} {
		add(name, "RunAt", func(j *carillon.Job) { j.RunAt = at })
		add(name, "ExpiresAt", func(j *carillon.Job) { j.ExpiresAt = at })
	}
	add("both", "Delay", func(j *carillon.Job) { j.RunAt, j.Delay = time.Now(), 1 })
	add("before RunAt", "ExpiresAt", func(j *carillon.Job) {
		j.RunAt = time.Now()
		j.ExpiresAt = j.RunAt
	})
	add("no key", "Unique.Key", func(j *carillon.Job) { j.Unique.For = time.Minute })
	for name, f := range map[string]float64{"below 1": 0.99, "negative": -1, "NaN": math.NaN(), "infinite": math.Inf(1), "huge": 1001} {
		add(name, "Retry.Factor", func(j *carillon.Job) { j.Retry = &carillon.Retry{Factor: f} })
	}
	for _, n := range []int{-1, 10_001} {
		add(fmt.Sprint(n), "Retry.MaxAttempts", func(j *carillon.Job) { j.Retry = &carillon.Retry{MaxAttempts: n} })
	}
	add("too many", "Retry.Delays", func(j *carillon.Job) { j.Retry = &carillon.Retry{Delays: make([]time.Duration, 1001)} })
	add("two ways", "Retry.Delays", func(j *carillon.Job) { j.Retry = &carillon.Retry{Delays: []time.Duration{1}, NoJitter: true} })
	add("cannot travel", "Retry.Backoff", func(j *carillon.Job) {
		j.Retry = &carillon.Retry{Backoff: func(int, error) time.Duration { return 0 }}
	})
	add("no key", "Headers", func(j *carillon.Job) { j.Headers = map[string]string{"": secret} })
	add("key not UTF-8", "Headers", func(j *carillon.Job) { j.Headers = map[string]string{"\xff": secret} })
	add("value not UTF-8", "Headers", func(j *carillon.Job) { j.Headers = map[string]string{"k": secret + "\xff"} })
	add("too large", "Headers", func(j *carillon.Job) { j.Headers = map[string]string{"k": strings.Repeat("x", 64<<10)} })
	for name, args := range map[string]any{
		"channel": make(chan int), "function": func() {}, "NaN": math.NaN(), "infinite": math.Inf(-1), "complex": complex(1, 1),
		"MarshalJSON fails": failing{secret}, "a channel inside": map[string]any{"secret": secret, "c": make(chan int)},
	} {
		add(name, "Args", func(j *carillon.Job) { j.Args = args })
	}
	add("too large", "Args", func(j *carillon.Job) { j.Args = secret + strings.Repeat("x", 1<<20) })
	return all
}

func TestBadJobsAreRefusedBeforeAnythingIsSent(t *testing.T) {
	s := silent(t)
	for _, bad := range badJobs() {
		t.Run(bad.field+" "+bad.name, func(t *testing.T) {
			_, err := s.Submit(t.Context(), bad.job)
			refused(t, err, bad.field)

			receipts, err := s.SubmitMany(t.Context(), []carillon.Job{{Name: "fine"}, bad.job})
			refused(t, err, bad.field)
			assert.ErrorContains(t, err, "jobs[1]")
			assert.NotContains(t, err.Error(), "jobs[0]")
			assert.Empty(t, receipts)

			err = s.Schedule(t.Context(), carillon.Schedule{Name: "s", Spec: carillon.Every(time.Hour), Job: bad.job})
			refused(t, err, bad.field)
		})
	}
}

func TestAllProblemsOfAJobAreReported(t *testing.T) {
	_, err := silent(t).Submit(t.Context(), carillon.Job{Queue: "\n", Priority: 9, Delay: -1, Tags: []string{""}, Retry: &carillon.Retry{MaxAttempts: -1}})
	for _, field := range []string{"Name", "Queue", "Priority", "Delay", "Tags[0]", "Retry.MaxAttempts"} {
		refused(t, err, field)
	}
}

func TestJobsAtTheirLimitsAreAccepted(t *testing.T) {
	rdb, stop := embedded.Open()
	defer stop()
	s, err := carillon.New(rdb, carillon.Config{Namespace: strings.Repeat("n", 100), MaxPayload: 1000, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer shutdown(t, s)
	tags := make([]string, 20)
	for i := range tags {
		tags[i] = fmt.Sprint(strings.Repeat("t", 98), 10+i)
	}
	century := 100 * 365 * 24 * time.Hour
	for name, j := range map[string]carillon.Job{
		"texts": {
			Name: strings.Repeat("n", 200), ID: strings.Repeat("😀", 50), Queue: strings.Repeat("q", 100),
			Mutex: strings.Repeat(":", 200), Unique: carillon.Unique{Key: strings.Repeat("{", 200), For: century}, Tags: tags,
			Headers: map[string]string{"k": strings.Repeat("x", 64<<10-1)},
		},
		"durations": {
			Name: "a", Delay: century, Timeout: century, Retain: century,
			Retry: &carillon.Retry{MaxAttempts: 10_000, Initial: century, Max: century, Factor: 1000},
		},
		"the last instant":  {Name: "a", RunAt: time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)},
		"the first instant": {Name: "a", RunAt: time.Unix(0, 0)},
		"a past expiry":     {Name: "a", ExpiresAt: time.Unix(0, 0)},
		"odd names":         {Name: "}{:%~ *", ID: "}{:% *", Queue: "\u202eabc ~", Tags: []string{"~", ":"}},
		"payload":           {Name: "a", Args: strings.Repeat("x", 998)},
		"nil":               {Name: "a"},
	} {
		r, err := s.Submit(t.Context(), j)
		require.NoError(t, err, name)
		info := get(t, s, r.ID)
		assert.Equal(t, j.Name, info.Name)
		assert.Equal(t, j.Tags, info.Tags)
		assert.Equal(t, j.Retry, info.Retry)
	}
	for n, fits := range map[int]bool{998: true, 999: false} { // with two quotes
		_, err := s.Submit(t.Context(), carillon.Job{Name: "a", Args: strings.Repeat("x", n)})
		assert.Equal(t, fits, err == nil, "%d: %v", n, err)
	}
}

func TestDefaultPayloadLimitIsExact(t *testing.T) {
	rdb, stop := embedded.Open()
	defer stop()
	s, err := carillon.New(rdb, carillon.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer shutdown(t, s)
	submit(t, s, carillon.Job{Name: "a", Args: strings.Repeat("x", 1<<20-2)})
	_, err = s.Submit(t.Context(), carillon.Job{Name: "a", Args: strings.Repeat("x", 1<<20-1)})
	refused(t, err, "Args")
	assert.ErrorContains(t, err, "1048577 bytes")
	assert.ErrorContains(t, err, "1048576")
}

func TestBadConfigurations(t *testing.T) {
	for name, c := range map[string]struct {
		config carillon.Config
		field  string
	}{
		"namespace too long":     {carillon.Config{Namespace: strings.Repeat("x", 101)}, "Namespace"},
		"namespace not UTF-8":    {carillon.Config{Namespace: "\xff"}, "Namespace"},
		"namespace with control": {carillon.Config{Namespace: "a\tb"}, "Namespace"},
		"negative segments":      {carillon.Config{Segments: -1}, "Segments"},
		"too many segments":      {carillon.Config{Segments: 257}, "Segments"},
		"empty queue":            {carillon.Config{Queues: map[string]int{"": 1}}, "Queues"},
		"queue with control":     {carillon.Config{Queues: map[string]int{"\x00": 1}}, "Queues"},
		"no queues":              {carillon.Config{Queues: map[string]int{}}, "Queues"},
		"negative capacity":      {carillon.Config{Queues: map[string]int{"mail": -1}}, `Queues["mail"]`},
		"too much capacity":      {carillon.Config{Queues: map[string]int{"mail": 100_001}}, `Queues["mail"]`},
		"negative concurrency":   {carillon.Config{Concurrency: -1}, "Concurrency"},
		"too much concurrency":   {carillon.Config{Concurrency: 100_001}, "Concurrency"},
		"negative attempts":      {carillon.Config{Retry: carillon.Retry{MaxAttempts: -1}}, "Retry.MaxAttempts"},
		"negative timeout":       {carillon.Config{Timeout: -1}, "Timeout"},
		"negative lease":         {carillon.Config{LeaseTTL: -1}, "LeaseTTL"},
		"short lease":            {carillon.Config{LeaseTTL: 99 * time.Millisecond}, "LeaseTTL"},
		"long lease":             {carillon.Config{LeaseTTL: time.Hour + 1}, "LeaseTTL"},
		"negative shutdown":      {carillon.Config{ShutdownTimeout: -1}, "ShutdownTimeout"},
		"negative replicas":      {carillon.Config{WaitReplicas: -1}, "WaitReplicas"},
		"too many replicas":      {carillon.Config{WaitReplicas: 17}, "WaitReplicas"},
		"negative payload":       {carillon.Config{MaxPayload: -1}, "MaxPayload"},
		"huge payload":           {carillon.Config{MaxPayload: 64<<20 + 1}, "MaxPayload"},
		"negative age":           {carillon.Config{Retention: carillon.Retention{Failed: carillon.Keep{Age: -1}}}, "Retention.Failed.Age"},
		"tiny age":               {carillon.Config{Retention: carillon.Retention{Expired: carillon.Keep{Age: 1}}}, "Retention.Expired.Age"},
		"negative count":         {carillon.Config{Retention: carillon.Retention{Succeeded: carillon.Keep{Count: -1}}}, "Retention.Succeeded.Count"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := carillon.New(untouched(t), c.config)
			refused(t, err, c.field)
			assert.Nil(t, s)
		})
	}
}

func TestNewReportsAllProblemsAtOnce(t *testing.T) {
	_, err := carillon.New(nil, carillon.Config{
		Namespace: "\x00", Segments: -1, Concurrency: -1, LeaseTTL: 1, MaxPayload: -1,
		Retry: carillon.Retry{Factor: 0.1}, Retention: carillon.Retention{Failed: carillon.Keep{Count: -1}},
	})
	for _, field := range []string{"client", "Namespace", "Concurrency", "LeaseTTL", "MaxPayload", "Retry.Factor", "Retention.Failed.Count"} {
		refused(t, err, field)
	}
	_, err = carillon.New(untouched(t), carillon.Config{Segments: -1, Concurrency: -1})
	refused(t, err, "Segments")
	refused(t, err, "Concurrency")
}

func TestClientsThatAreNone(t *testing.T) {
	var none *redis.Client
	var noCluster *redis.ClusterClient
	for _, c := range []redis.UniversalClient{nil, none, noCluster} {
		_, err := carillon.New(c, carillon.Config{})
		refused(t, err, "client")
	}
}

func TestBadRegistrations(t *testing.T) {
	nothing := carillon.HandlerFunc(func(context.Context, *carillon.Execution) error { return nil })
	var nilFunc carillon.HandlerFunc
	var typed func(context.Context, int) error
	var withResult func(context.Context, int) (int, error)
	for name, h := range map[string]carillon.Handler{
		"nil": nil, "nil function": nilFunc, "Func of nil": carillon.Func(typed), "FuncResult of nil": carillon.FuncResult(withResult),
	} {
		t.Run(name, func(t *testing.T) {
			s := silent(t)
			refused(t, s.Handle("x", h), "handler")
			refused(t, s.Start(t.Context()), "handler")
		})
	}
	for name, text := range badTexts(200) {
		t.Run("name "+name, func(t *testing.T) {
			refused(t, silent(t).Handle(text, nothing), "handler name")
		})
	}
	t.Run("empty name", func(t *testing.T) { refused(t, silent(t).Handle("", nothing), "handler name") })
	t.Run("twice", func(t *testing.T) {
		s := silent(t)
		require.NoError(t, s.Handle("x", nothing))
		err := s.Handle("x", nothing)
		refused(t, err, "handler name")
		assert.ErrorContains(t, err, "twice")
		refused(t, s.Run(t.Context()), "handler name")
	})
	t.Run("bad settings", func(t *testing.T) {
		refused(t, silent(t).HandleWith("x", nothing, carillon.HandlerConfig{Timeout: -1}), "Timeout")
		refused(t, silent(t).HandleWith("x", nothing, carillon.HandlerConfig{Retry: &carillon.Retry{MaxAttempts: -1}}), "Retry.MaxAttempts")
	})
	t.Run("nil middleware", func(t *testing.T) {
		s := silent(t)
		refused(t, s.Use(nil), "middleware")
		refused(t, s.Start(t.Context()), "middleware")
	})
	t.Run("a middleware that returns nothing", func(t *testing.T) {
		s := silent(t)
		require.NoError(t, s.Handle("x", nothing))
		require.NoError(t, s.Use(func(carillon.Handler) carillon.Handler { return nil }))
		refused(t, s.Start(t.Context()), "middleware")
	})
	t.Run("after Run", func(t *testing.T) {
		rdb, stop := embedded.Open()
		defer stop()
		s, err := carillon.New(rdb, carillon.Config{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		start(t, s)
		err = s.Handle("late", nothing)
		refused(t, err, "handler")
		assert.ErrorContains(t, err, "Run")
		refused(t, s.Use(func(h carillon.Handler) carillon.Handler { return h }), "middleware")
		require.ErrorIs(t, s.Start(t.Context()), carillon.ErrClosed, "it runs once")
		shutdown(t, s)
		refused(t, s.Handle("later", nothing), "handler")
	})
}

func TestBadSchedules(t *testing.T) {
	s := silent(t)
	job := carillon.Job{Name: "work", Args: secret}
	specs := map[string]carillon.Spec{
		"no spec": {}, "empty cron": carillon.Cron(""), "at never": carillon.At(), "too often": carillon.Every(99 * time.Millisecond),
		"negative": carillon.Every(-time.Hour), "no milliseconds": carillon.Every(time.Second + 1), "rarely": carillon.Every(math.MaxInt64),
		"zero instant": carillon.At(time.Time{}), "too many instants": carillon.At(make([]time.Time, 1001)...),
		"out of range": carillon.At(time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC)),
	}
	for _, e := range []string{
		"TZ=UTC", "CRON_TZ=", "TZ=0", "TZ=", "CRON_TZ=UTC", "TZ=Mars * * * * *", // robfig panics on some of these
		", * * * *", "* , * * *", ",,,,,", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *",
		"* * * * 8", "x * * * *", "* * * *", "* * * * * * * *", "*/0 * * * *", "-1 * * * *", "@", "@never", "@every", "@every -1s",
		"@every 0s", "@every x", " ", "\x00", "\xff * * * *", strings.Repeat("*,", 10_000) + "* * * * *", "1/99999999999999999999 * * * *", "@reboot",
		"L * * * *", "* * L-31 * *", "* * * * 1#6", "* * 32W * *", "* * * * * * 1969", "? * * * *",
	} {
		specs["cron "+e[:min(len(e), 40)]] = carillon.Cron(e)
	}
	for name, spec := range specs {
		t.Run(strings.ToValidUTF8(name, "?"), func(t *testing.T) {
			refused(t, s.Schedule(t.Context(), carillon.Schedule{Name: "s", Spec: spec, Job: job}), "Spec")
		})
	}
	hourly := carillon.Every(time.Hour)
	for name, c := range map[string]struct {
		schedule carillon.Schedule
		field    string
	}{
		"no name":            {carillon.Schedule{Spec: hourly, Job: job}, "Name"},
		"long name":          {carillon.Schedule{Name: strings.Repeat("x", 151), Spec: hourly, Job: job}, "Name"},
		"control":            {carillon.Schedule{Name: "a\nb", Spec: hourly, Job: job}, "Name"},
		"reserved character": {carillon.Schedule{Name: "a~b", Spec: hourly, Job: job}, "Name"},
		"no job":             {carillon.Schedule{Name: "s", Spec: hourly}, "Job: invalid: Name"},
		"job with an ID":     {carillon.Schedule{Name: "s", Spec: hourly, Job: carillon.Job{Name: "w", ID: "x"}}, "Job.ID"},
		"job with RunAt":     {carillon.Schedule{Name: "s", Spec: hourly, Job: carillon.Job{Name: "w", RunAt: time.Now()}}, "Job"},
		"job with ExpiresAt": {carillon.Schedule{Name: "s", Spec: hourly, Job: carillon.Job{Name: "w", ExpiresAt: time.Now()}}, "Job"},
		"unknown misfire":    {carillon.Schedule{Name: "s", Spec: hourly, Job: job, Misfire: 99}, "Misfire"},
		"unknown overlap":    {carillon.Schedule{Name: "s", Spec: hourly, Job: job, Overlap: -1}, "Overlap"},
		"group":              {carillon.Schedule{Name: "s", Group: strings.Repeat("g", 101), Spec: hourly, Job: job}, "Group"},
		"end before start":   {carillon.Schedule{Name: "s", Spec: hourly, Job: job, Start: time.Now(), End: time.Now().Add(-time.Hour)}, "End"},
		"negative runs":      {carillon.Schedule{Name: "s", Spec: hourly, Job: job, MaxRuns: -1}, "MaxRuns"},
		"negative jitter":    {carillon.Schedule{Name: "s", Spec: hourly, Job: job, Jitter: -1}, "Jitter"},
		"long replay":        {carillon.Schedule{Name: "s", Spec: hourly, Job: job, ReplayMax: 10_001}, "ReplayMax"},
		"large buffer":       {carillon.Schedule{Name: "s", Spec: hourly, Job: job, BufferMax: 1001}, "BufferMax"},
		"unknown gap":        {carillon.Schedule{Name: "s", Spec: hourly, Job: job, ClockChange: carillon.ClockChange{Gap: 2}}, "ClockChange.Gap"},
		"moves nowhere":      {carillon.Schedule{Name: "s", Spec: hourly, Job: job, OnExcluded: carillon.MoveNext}, "OnExcluded"},
		"too many shards":    {carillon.Schedule{Name: "s", Spec: hourly, Job: job, Sharding: carillon.Sharding{Shards: 1001}}, "Sharding.Shards"},
		"odd parameters":     {carillon.Schedule{Name: "s", Spec: hourly, Job: job, Sharding: carillon.Sharding{Shards: 2, Params: []string{"a"}}}, "Sharding.Params"},
		"broadcast shards":   {carillon.Schedule{Name: "s", Spec: hourly, Job: job, Sharding: carillon.Sharding{Shards: 2, Broadcast: true}}, "Sharding.Broadcast"},
		"unique shards":      {carillon.Schedule{Name: "s", Spec: hourly, Job: carillon.Job{Name: "w", Unique: carillon.Unique{Key: "k"}}, Sharding: carillon.Sharding{Shards: 2}}, "Sharding.Shards"},
		"then with an ID":    {carillon.Schedule{Name: "s", Spec: hourly, Job: job, Sharding: carillon.Sharding{Then: &carillon.Job{Name: "w", ID: "x"}}}, "Sharding.Then.ID"},
		"then with a mutex":  {carillon.Schedule{Name: "s", Spec: hourly, Job: job, Sharding: carillon.Sharding{Then: &carillon.Job{Name: "w", Mutex: "x"}}}, "Sharding.Then"},
		"no time of day":     {carillon.Schedule{Name: "s", Spec: carillon.Days(1).At("25:00"), Job: job}, "Spec"},
		"every zeroth day":   {carillon.Schedule{Name: "s", Spec: carillon.Days(0), Job: job}, "Spec"},
		"no window":          {carillon.Schedule{Name: "s", Spec: carillon.Window(time.Minute, "9", "10:00"), Job: job}, "Spec"},
		"aligned cron":       {carillon.Schedule{Name: "s", Spec: carillon.Cron("@daily").Aligned(), Job: job}, "Spec"},
		"two zones":          {carillon.Schedule{Name: "s", Spec: carillon.Cron("CRON_TZ=Asia/Tokyo @daily"), TimeZone: "UTC", Job: job}, "TimeZone"},
		"zone of Every":      {carillon.Schedule{Name: "s", Spec: hourly, Job: job, TimeZone: "UTC"}, "TimeZone"},
		"unknown zone":       {carillon.Schedule{Name: "s", Spec: carillon.Cron("@daily"), Job: job, TimeZone: "Mars/Olympus"}, "TimeZone"},
		"local zone":         {carillon.Schedule{Name: "s", Spec: carillon.Cron("@daily"), Job: job, TimeZone: "Local"}, "TimeZone"},
		"a path as a zone":   {carillon.Schedule{Name: "s", Spec: carillon.Cron("@daily"), Job: job, TimeZone: "../../etc/passwd"}, "TimeZone"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, s.Schedule(t.Context(), c.schedule), c.field) })
	}
}

func TestScheduleThatNeverFires(t *testing.T) {
	rdb, stop := embedded.Open()
	defer stop()
	s, err := carillon.New(rdb, carillon.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer shutdown(t, s)
	err = s.Schedule(t.Context(), carillon.Schedule{Name: "s", Spec: carillon.At(time.Unix(1000, 0)), Job: carillon.Job{Name: "w"}})
	refused(t, err, "Spec")
	_, err = s.GetSchedule(t.Context(), "s")
	assert.ErrorIs(t, err, carillon.ErrNotFound, "nothing half done")
}

func TestBadNamesOfOperations(t *testing.T) {
	s := silent(t)
	bad := badTexts(200)
	bad["empty"] = ""
	for name, text := range bad {
		t.Run(name, func(t *testing.T) {
			_, err := s.Lock(t.Context(), text)
			refused(t, err, "lock name")
			_, err = s.TryLock(t.Context(), text)
			refused(t, err, "lock name")
			refused(t, s.PauseQueue(t.Context(), text), "queue")
			refused(t, s.ResumeQueue(t.Context(), text), "queue")
		})
	}
	for _, err := range s.List(t.Context(), carillon.Filter{States: []carillon.State{"asleep"}}) {
		refused(t, err, "States")
	}
}

// What a handler hands over is checked like what a submitter does.
func TestBadOutputOfHandlers(t *testing.T) {
	rdb, stop := embedded.Open()
	defer stop()
	s, err := carillon.New(rdb, carillon.Config{MaxPayload: 100, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer shutdown(t, s)
	big := secret + strings.Repeat("x", 100)
	problems := make(chan error, 8)
	require.NoError(t, s.Handle("w", carillon.HandlerFunc(func(ctx context.Context, x *carillon.Execution) error {
		problems <- x.Progress(ctx, big)
		problems <- x.Checkpoint(ctx, make(chan int))
		err := x.SetResult(big)
		problems <- err
		var n int
		problems <- x.Decode(&n)
		return err
	})))
	id := submit(t, s, carillon.Job{Name: "w", Args: secret, Retry: &carillon.Retry{MaxAttempts: 5}})
	start(t, s)
	info := await(t, s, id)
	for _, field := range []string{"progress", "checkpoint", "result"} {
		err := receive(t, problems, "an error of "+field)
		require.ErrorIs(t, err, carillon.ErrInvalid)
		assert.ErrorContains(t, err, field+":")
		assert.NotContains(t, err.Error(), secret)
	}
	assert.NotContains(t, receive(t, problems, "an error of Decode").Error(), secret)
	assert.Equal(t, carillon.StateFailed, info.State, "no retry can mend it")
	assert.Equal(t, 1, info.Attempt)
	assert.NotContains(t, info.Attempts[0].Error, secret)
	assert.Nil(t, info.Result)
}

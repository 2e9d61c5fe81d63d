package carillon_test

import (
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/goleak"

	"github.com/carillon-go/carillon/embedded"
	"github.com/carillon-go/carillon/internal/redistest"
)

func TestMain(m *testing.M) {
	redistest.SideBySide(6)
	logging.Disable() // go-redis tells each time it asks a sentinel
	goleak.VerifyTestMain(redistest.Wrap(m))
}

// clusterSegments is how many segments a namespace has on Redis Cluster when
// Config does not say.
const clusterSegments = 12

// backend is a kind of Redis. Every case of the suite runs on each, with the
// same expectations.
type backend struct {
	name     string
	segments int  // for Config; 0 is the default
	real     bool // a real server, not miniredis
	open     func(testing.TB) redis.UniversalClient
}

var backends = []backend{
	{name: "miniredis", open: func(t testing.TB) redis.UniversalClient {
		t.Helper()
		rdb, stop := embedded.Open()
		t.Cleanup(stop)
		return rdb
	}},
	{name: "redis", real: true, open: shared},
	{name: "redis-16-segments", segments: 16, real: true, open: shared},
	{name: "sentinel", real: true, open: func(t testing.TB) redis.UniversalClient {
		t.Helper()
		return redistest.SharedSentinel(t).Client(t)
	}},
	{name: "cluster", real: true, open: func(t testing.TB) redis.UniversalClient {
		t.Helper()
		return redistest.SharedCluster(t).Client(t)
	}},
}

func shared(t testing.TB) redis.UniversalClient {
	t.Helper()
	return redistest.Shared(t).Client(t)
}

// eachBackend runs a case on every backend, some at the same time.
func eachBackend(t *testing.T, f func(t *testing.T, b backend)) {
	t.Helper()
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			f(t, b)
		})
	}
}

// eachPlace is eachBackend with a namespace of its own.
func eachPlace(t *testing.T, f func(t *testing.T, p *place)) {
	t.Helper()
	eachBackend(t, func(t *testing.T, b backend) { f(t, b.place(t)) })
}

// place makes a namespace of its own on the backend.
func (b backend) place(t testing.TB) *place {
	t.Helper()
	return &place{rdb: b.open(t), namespace: redistest.Namespace(t), segments: b.segments, real: b.real}
}

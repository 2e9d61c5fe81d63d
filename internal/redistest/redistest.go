// Package redistest starts real Redis servers for tests: a single server, a
// primary watched by sentinels, or a cluster.
//
// Single, NewSentinel and NewCluster start servers of their own for one test.
// Shared, SharedSentinel and SharedCluster start them once per test binary; a
// package which uses those needs a TestMain:
//
//	func TestMain(m *testing.M) { redistest.Main(m) }
//
// or, to look for leaked goroutines when the shared servers are gone:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(redistest.Wrap(m)) }
//
// Tests which share a server keep apart by Namespace. They do not flush it,
// and leave it as they found it: what they pause they resume, what they kill
// they restart or heal.
//
// Every server listens on loopback only, lives in a temporary directory, and
// is killed by its own process id. On Linux it also dies with the test binary,
// however that ends.
package redistest

import (
	"crypto/rand"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Main runs the tests of m, stops the shared servers, and exits. Call it from
// TestMain.
func Main(m *testing.M) {
	os.Exit(Wrap(m).Run())
}

// Wrap returns a runner which runs the tests of m and then stops the shared
// servers, for a TestMain which has more to do before it exits.
func Wrap(m goleak.TestingM) goleak.TestingM {
	return &runner{m}
}

// IgnoreLeaks makes goleak overlook the goroutines which wait for running
// servers. Only a check which runs before the servers stop needs it.
func IgnoreLeaks() goleak.Option {
	return goleak.IgnoreAnyFunction("github.com/carillon-go/carillon/internal/proctest.(*Process).run")
}

// SideBySide lets n tests run at a time, unless -parallel says how many: tests
// that wait for servers and leases leave the processors idle. TestMain calls it.
func SideBySide(n int) {
	flag.Parse()
	if p := flag.Lookup("test.parallel"); p.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = p.Value.Set(strconv.Itoa(n)) // a number is what it takes
	}
}

// Namespace returns a short name of lower-case letters and digits which no
// other call returns, and logs it.
func Namespace(t testing.TB) string {
	t.Helper()
	ns := namespaces.prefix + strconv.FormatUint(namespaces.count.Add(1), 36)
	t.Logf("namespace %s", ns)
	return ns
}

var namespaces = struct {
	prefix string
	count  atomic.Uint64
}{prefix: "t" + strings.ToLower(rand.Text()[:5])}

// Wait polls until cond returns nil. When that takes longer than within, the
// test fails with the last error.
func Wait(t testing.TB, within time.Duration, cond func() error) {
	t.Helper()
	if err := poll(within, cond); err != nil {
		t.Fatalf("not within %v: %v", within, err)
	}
}

func poll(within time.Duration, cond func() error) error {
	for deadline := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		err := cond()
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// rig is a group of servers which start and stop together.
type rig interface {
	stop()
}

// own starts a rig for one test.
func own[R rig](t testing.TB, start func(dir string) (R, error)) R {
	t.Helper()
	requireRedis(t)
	r, err := start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	return r
}

// shared is a rig which starts when the first test asks for it, and stops
// when all tests have run.
type shared[R rig] struct {
	once sync.Once
	rig  R
	err  error
}

func (s *shared[R]) get(t testing.TB, start func(dir string) (R, error)) R {
	t.Helper()
	requireRedis(t)
	if !running.Load() {
		t.Fatal("shared servers need a TestMain which calls redistest.Main or redistest.Wrap")
	}
	s.once.Do(func() {
		var dir string
		if dir, s.err = os.MkdirTemp("", "redistest-"); s.err != nil {
			return
		}
		if s.rig, s.err = start(dir); s.err != nil {
			_ = os.RemoveAll(dir)
			return
		}
		atEnd(func() {
			s.rig.stop()
			_ = os.RemoveAll(dir)
		})
	})
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.rig
}

// requireRedis skips the test where Redis is not installed. In CI that fails
// instead, or a broken image would look like success.
func requireRedis(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err == nil {
		return
	}
	const missing = "redis-server is not installed: apt-get install redis-server"
	if os.Getenv("CI") == "true" {
		t.Fatal(missing)
	}
	t.Skip(missing)
}

type runner struct {
	tests goleak.TestingM
}

func (r *runner) Run() int {
	running.Store(true)
	code := r.tests.Run()
	ends.Lock()
	defer ends.Unlock()
	for _, end := range ends.all {
		end()
	}
	denials.Lock()
	defer denials.Unlock()
	for _, d := range denials.all {
		fmt.Fprintln(os.Stderr, "FAIL: a limited client was denied:", d)
		code = 1
	}
	// A closed client of a dead server sleeps up to a second before it notices,
	// which is longer than goleak waits.
	_ = poll(2*time.Second, func() error { return goleak.Find() })
	return code
}

func atEnd(end func()) {
	ends.Lock()
	defer ends.Unlock()
	ends.all = append(ends.all, end)
}

var (
	running atomic.Bool
	ends    struct {
		sync.Mutex
		all []func()
	}
)

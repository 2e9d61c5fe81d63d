package redistest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(Wrap(m))
}

func TestSharedIsOneServer(t *testing.T) {
	a, b := Shared(t), Shared(t)
	assert.Same(t, a, b)
	require.NoError(t, a.Client(t).Ping(t.Context()).Err())
}

func TestIgnoreLeaks(t *testing.T) {
	Single(t)
	others := goleak.IgnoreCurrent() // tests which run in parallel
	s := Single(t)
	require.Error(t, goleak.Find(others, goleak.IgnoreAnyFunction("none")))
	require.NoError(t, goleak.Find(others, IgnoreLeaks()))
	s.Kill()
	require.NoError(t, goleak.Find(others))
}

func TestNamespaceIsUniqueAndPlain(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		ns := Namespace(quiet{t})
		assert.Regexp(t, "^[a-z0-9]{1,10}$", ns)
		assert.False(t, seen[ns])
		seen[ns] = true
	}
}

type quiet struct{ testing.TB }

func (quiet) Logf(string, ...any) {}

func TestWait(t *testing.T) {
	calls := 0
	Wait(t, time.Minute, func() error {
		if calls++; calls < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	assert.Equal(t, 3, calls)

	never := errors.New("never")
	require.ErrorIs(t, poll(time.Millisecond, func() error { return never }), never)
}

func TestMissingRedis(t *testing.T) {
	const missing = "redis-server is not installed: apt-get install redis-server"
	t.Setenv("PATH", t.TempDir())

	t.Setenv("CI", "")
	var r recorder
	requireRedis(&r)
	assert.Equal(t, recorder{skipped: missing}, r)

	t.Setenv("CI", "true")
	r = recorder{}
	requireRedis(&r)
	assert.Equal(t, missing, r.failed)
}

// recorder is a test which goes on when it is told to stop.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Helper()           {}
func (r *recorder) Skip(args ...any)  { r.skipped = fmt.Sprint(args...) }
func (r *recorder) Fatal(args ...any) { r.failed = fmt.Sprint(args...) }

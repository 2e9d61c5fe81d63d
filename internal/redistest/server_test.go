package redistest

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestServerForgetsByDefault(t *testing.T) {
	s := Single(t)
	c := s.Client(t)
	require.NoError(t, c.Set(t.Context(), "k", "v", 0).Err())
	s.Restart(t)
	assert.Zero(t, s.Client(t).Exists(t.Context(), "k").Val())
}

func TestServerKeepsDataWithAppendOnly(t *testing.T) {
	s := Single(t, "appendonly yes")
	addr := s.Addr()
	require.NoError(t, s.Client(t).Set(t.Context(), "k", "v", 0).Err())

	s.Kill()
	s.Kill() // harmless
	_, err := net.Dial("tcp", addr)
	require.Error(t, err)

	s.Restart(t)
	assert.Equal(t, addr, s.Addr())
	assert.Equal(t, "v", s.Client(t).Get(t.Context(), "k").Val())
}

func TestServerPauseAndResume(t *testing.T) {
	s := Single(t)
	opts := s.Options()
	opts.ReadTimeout = 50 * time.Millisecond
	opts.MaxRetries = -1
	c := redis.NewClient(opts)
	defer func() { _ = c.Close() }()
	s.Pause(t)
	var timeout net.Error
	require.ErrorAs(t, c.Ping(t.Context()).Err(), &timeout)
	assert.True(t, timeout.Timeout())

	s.Resume(t)
	Wait(t, patience, func() error { return c.Ping(t.Context()).Err() })
}

func TestServerDiesWhilePaused(t *testing.T) {
	s := Single(t)
	s.Pause(t)
	s.Kill()
	require.Error(t, s.process().Freeze())
	s.Restart(t)
	require.NoError(t, s.Client(t).Ping(t.Context()).Err())
}

func TestServerReportsBadConfig(t *testing.T) {
	requireRedis(t)
	_, err := startServer(t.TempDir(), "no-such-setting 1")
	require.ErrorContains(t, err, "it exited")
	require.ErrorContains(t, err, "no-such-setting")
}

func TestServerRefusesTheAnswerOfAnother(t *testing.T) {
	s := Single(t)
	var port int
	_, err := fmt.Sscanf(s.Addr(), host+":%d", &port)
	require.NoError(t, err)
	_, err = startAt(port, t.TempDir(), nil, nil)
	require.ErrorContains(t, err, "Address already in use")
}

// The kernel kills a server when the thread which started it ends. So this
// ends many threads, as each goroutine does which ends while it is locked.
func TestServerOutlivesOtherThreads(t *testing.T) {
	s := Single(t)
	for range 20 {
		var locked, ended sync.WaitGroup
		locked.Add(10)
		for range 10 {
			ended.Go(func() {
				runtime.LockOSThread()
				locked.Done()
				locked.Wait() // all at once, or one thread serves them all
			})
		}
		ended.Wait()
	}
	require.Never(t, s.process().Exited, 100*time.Millisecond, 10*time.Millisecond)
}

func TestStartAllStartsAllOrNone(t *testing.T) {
	requireRedis(t)
	var first *Server
	_, err := startAll(2, t.TempDir(), "node", func(dir string) (*Server, error) {
		if strings.HasSuffix(dir, "node1") {
			return nil, errors.New("no")
		}
		var err error
		first, err = startServer(dir)
		return first, err
	})
	require.EqualError(t, err, "no")
	assert.True(t, first.process().Exited())
}

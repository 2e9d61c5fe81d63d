//go:build unix

package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/carillon-go/carillon/internal/redistest"
)

// TestMain lets the test binary be a worker, for the show starts itself.
func TestMain(m *testing.M) {
	if os.Getenv(nameEnv) == "" {
		goleak.VerifyTestMain(redistest.Wrap(m))
	}
	main()
	os.Exit(0)
}

func TestShow(t *testing.T) {
	t.Setenv("GORACE", "atexit_sleep_ms=0") // of the workers
	redis := redistest.Single(t)
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-redis", redis.Addr()}, &out))
	t.Logf("\n%s", &out)
	story := regexp.MustCompile(`(?s)` +
		`(worker .)  begins attempt 1, token (\d+), and asks for the orders: there are 2\n.*` +
		`(worker .)  is paused by SIGSTOP .*` +
		`(worker .)  begins attempt 2, token (\d+), and asks for the orders: there are 3\n.*` +
		`(worker .)  writes "3 orders" with token (\d+)\n.*` +
		`storage   accepts it\n.*` +
		`job       has succeeded in attempt 2; attempt 1 is lost\n.*` +
		`(worker .)  wakes up by SIGCONT .*` +
		`(worker .)  writes "2 orders" with token (\d+)\n.*` +
		`storage   REFUSES it: it has seen token (\d+), which is larger\n.*` +
		`(worker .)  logs msg="carillon: an outcome was refused, the job has moved on" attempt=1\n.*` +
		`job       has succeeded in attempt 2, as before\n[^\n]*` +
		`storage   has the report "3 orders", as before\n$`).FindStringSubmatch(out.String())
	require.NotNil(t, story, "the story is another one")
	first, second := story[1], story[4]
	firstToken, secondToken := story[2], story[5]
	assert.NotEqual(t, first, second)
	for _, i := range []int{3, 8, 9, 12} {
		assert.Equal(t, first, story[i])
	}
	assert.Equal(t, second, story[6])
	assert.Equal(t, firstToken, story[10])
	assert.Equal(t, secondToken, story[7])
	assert.Equal(t, secondToken, story[11])
	a, err := strconv.ParseUint(firstToken, 10, 64)
	require.NoError(t, err)
	b, err := strconv.ParseUint(secondToken, 10, 64)
	require.NoError(t, err)
	assert.Greater(t, b, a)
}

func TestStartRedis(t *testing.T) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed")
	}
	addr, stop, err := startRedis(t.Context())
	require.NoError(t, err)
	conn, err := net.Dial("unix", addr)
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	stop()
	assert.NoDirExists(t, filepath.Dir(addr))
}

func TestNoRedis(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	require.ErrorContains(t, run(t.Context(), nil, nil), "-redis host:port, or install redis-server")
}

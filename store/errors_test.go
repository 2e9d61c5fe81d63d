package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/redistest"
)

// replied is an error that a server sent.
type replied string

func (e replied) Error() string { return string(e) }
func (e replied) RedisError()   {}

func TestJudgeAndClassify(t *testing.T) {
	dial := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	for name, c := range map[string]struct {
		err  error
		want verdict
		is   error // what a caller is told; nil = neither unavailable nor uncertain
	}{
		"loading":             {replied("LOADING Redis is loading the dataset in memory"), later, ErrUnavailable},
		"read only":           {replied("READONLY You can't write against a read only replica."), later, ErrUnavailable},
		"read only in script": {replied("READONLY You can't write against a read only replica. script: abc, on @user_script:1."), later, ErrUnavailable},
		"cluster down":        {replied("CLUSTERDOWN The cluster is down"), later, ErrUnavailable},
		"master down":         {replied("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."), later, ErrUnavailable},
		"try again":           {replied("TRYAGAIN Multiple keys request during rehashing of slot"), later, ErrUnavailable},
		"busy":                {replied("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."), later, ErrUnavailable},
		"no replicas":         {replied("NOREPLICAS Not enough good replicas to write."), later, ErrUnavailable},
		"misconf":             {replied("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk."), later, ErrUnavailable},
		"too many clients":    {replied("ERR max number of clients reached"), later, ErrUnavailable},
		"out of memory":       {replied("OOM command not allowed when used memory > 'maxmemory'."), final, ErrUnavailable},
		"no permission":       {replied("NOPERM User x has no permissions to run the 'evalsha' command"), final, ErrUnavailable},
		"wrong password":      {replied("WRONGPASS invalid username-password pair or user is disabled."), final, ErrUnavailable},
		"no password":         {replied("NOAUTH Authentication required."), final, ErrUnavailable},
		"wrong type":          {replied("WRONGTYPE Operation against a key holding the wrong kind of value"), final, ErrDamaged},
		"a mistake":           {replied("ERR Error running script"), final, nil},
		"a busy group":        {replied("BUSYGROUP Consumer Group name already exists"), final, nil},
		"refused":             {dial, notSent, ErrUnavailable},
		"refused, wrapped":    {fmt.Errorf("failed to dial after 5 attempts: %w", dial), notSent, ErrUnavailable},
		"no such host":        {&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host"}}, notSent, ErrUnavailable},
		"dial took too long":  {&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, notSent, ErrUnavailable},
		"pool exhausted":      {redis.ErrPoolTimeout, notSent, ErrUnavailable},
		"closed client":       {redis.ErrClosed, notSent, ErrUnavailable},
		"no sentinel":         {errors.New("redis: all sentinels specified in configuration are unreachable"), notSent, ErrUnavailable},
		"not trusted":         {&dialError{"h:1", errors.New("tls: failed to verify certificate")}, notSent, ErrUnavailable},
		"handshake broken":    {&dialError{"h:1", io.EOF}, notSent, ErrUnavailable},
		"not trusted by it":   {&net.OpError{Op: "remote error", Err: errors.New("tls: certificate required")}, notSent, ErrUnavailable},
		"another alert":       {&net.OpError{Op: "remote error", Err: errors.New("tls: internal error")}, unknown, ErrUncertain},
		"end of file":         {io.EOF, unknown, ErrUncertain},
		"cut reply":           {io.ErrUnexpectedEOF, unknown, ErrUncertain},
		"reset":               {&net.OpError{Op: "read", Err: syscall.ECONNRESET}, unknown, ErrUncertain},
		"broken pipe":         {&net.OpError{Op: "write", Err: syscall.EPIPE}, unknown, ErrUncertain},
		"no reply in time":    {&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, unknown, ErrUncertain},
		"closed connection":   {net.ErrClosed, unknown, ErrUncertain},
		"cancelled":           {context.Canceled, unknown, ErrUncertain},
		"deadline":            {context.DeadlineExceeded, unknown, ErrUncertain},
		"anything else":       {errors.New("what is this"), unknown, ErrUncertain},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, judge(c.err))
			got := classify(c.err, false)
			require.ErrorIs(t, got, c.err)
			for _, sentinel := range []error{ErrUnavailable, ErrUncertain, ErrDamaged} {
				assert.Equal(t, errors.Is(c.is, sentinel), errors.Is(got, sentinel), "%v: %v", sentinel, got)
			}
			denied := slices.Contains([]string{"no permission", "wrong password", "no password", "not trusted", "not trusted by it"}, name)
			assert.Equal(t, denied, errors.Is(got, ErrDenied), "%v", got)
			prepared := surelyNot("first", classify(c.err, true))
			assert.ErrorIs(t, prepared, ErrUnavailable)
			assert.NotErrorIs(t, prepared, ErrUncertain)
			assert.Equal(t, denied, errors.Is(prepared, ErrDenied), "%v", prepared)
			if c.want != final {
				again := classify(c.err, true)
				assert.ErrorIs(t, again, ErrUncertain, "after a try that may have been executed")
				assert.NotErrorIs(t, again, ErrUnavailable)
			}
		})
	}
}

// When time runs out during a later try, the error says what an earlier one was told.
func TestAttemptTellsTheCauseBesideTheDeadline(t *testing.T) {
	for name, c := range map[string]struct {
		told   error
		denied bool
	}{
		"refused":     {&net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}, false},
		"not trusted": {&dialError{"h:1", errors.New("tls: failed to verify certificate")}, true},
		"loading":     {replied("LOADING Redis is loading the dataset in memory"), false},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			tried := 0
			sent, err := attempt(ctx, &Store{life: t.Context()}, nil, func(ctx context.Context, _ redis.UniversalClient) (int, error) {
				if tried++; tried == 1 {
					return 0, c.told
				}
				cancel()
				<-ctx.Done()
				return 0, ctx.Err()
			}, func(int) {})
			assert.True(t, sent, "the second try may have been executed")
			assert.ErrorIs(t, err, ErrUncertain)
			assert.NotErrorIs(t, err, ErrUnavailable)
			assert.ErrorIs(t, err, context.Canceled)
			assert.ErrorIs(t, err, c.told)
			assert.Equal(t, c.denied, errors.Is(err, ErrDenied))
			assert.Equal(t, 2, tried)
		})
	}
}

// The socket has the deadline of the context, and may notice first that it has passed.
func TestAttemptTellsThatItsContextEnded(t *testing.T) {
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(context.WithValue(t.Context(), inPlace{}, true)) // what the socket says counts
	_, err := attempt(ctx, &Store{life: t.Context()}, nil, func(context.Context, redis.UniversalClient) (int, error) {
		cancel(why)
		return 0, &net.OpError{Op: "write", Net: "tcp", Err: os.ErrDeadlineExceeded}
	}, func(int) {})
	require.ErrorIs(t, err, ErrUncertain)
	assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
	assert.ErrorIs(t, err, context.Canceled)
	assert.ErrorIs(t, err, why)
}

// The verdicts of the table on errors that go-redis really makes.
func TestVerdictsOfRealErrors(t *testing.T) {
	server := redistest.Single(t)
	client := func(edit func(*redis.Options)) *redis.Client {
		o := server.Options()
		o.MaxRetries = -1
		o.ContextTimeoutEnabled = true
		o.DialerRetries = 1
		edit(o)
		c := redis.NewClient(o)
		t.Cleanup(func() { c.Close() })
		return c
	}
	ping := func(c *redis.Client) error { return c.Ping(t.Context()).Err() }

	wrong := client(func(o *redis.Options) { o.Username, o.Password = "nobody", "x" })
	assert.ErrorIs(t, classify(ping(wrong), false), ErrUnavailable)

	impatient := client(func(o *redis.Options) { o.ReadTimeout = 50 * time.Millisecond })
	require.NoError(t, ping(impatient))
	server.Pause(t)
	assert.Equal(t, unknown, judge(ping(impatient)))
	server.Resume(t)

	closed := client(func(*redis.Options) {})
	closed.Close()
	assert.Equal(t, notSent, judge(ping(closed)))

	one := client(func(o *redis.Options) { o.PoolSize, o.PoolTimeout = 1, 10*time.Millisecond })
	held := one.Conn()
	require.NoError(t, held.Ping(t.Context()).Err())
	assert.Equal(t, notSent, judge(ping(one)))
	held.Close()

	connected := client(func(*redis.Options) {})
	require.NoError(t, ping(connected))
	server.Kill()
	assert.Equal(t, notSent, judge(ping(connected)), "the dead connection is found before anything is written to it")
	fresh := client(func(*redis.Options) {})
	assert.Equal(t, notSent, judge(ping(fresh)))
}

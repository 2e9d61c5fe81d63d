package faultnet_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/carillon-go/carillon/internal/faultnet"
)

func TestMain(m *testing.M) {
	logging.Disable() // go-redis tells of every failed dial
	goleak.VerifyTestMain(m)
}

const (
	brief = time.Second // the client's patience
	soon  = 30 * time.Second
)

// rig is a server and a client with a network between them.
type rig struct {
	server *miniredis.Miniredis
	net    *faultnet.Net
	client *redis.Client
}

// eachWay runs a test with both ways into a network.
func eachWay(t *testing.T, f func(t *testing.T, r rig)) {
	t.Helper()
	ways := map[string]func(t *testing.T, n *faultnet.Net, o *redis.Options){
		"dialer": func(_ *testing.T, n *faultnet.Net, o *redis.Options) {
			o.Dialer = n.Dialer((&net.Dialer{}).DialContext)
		},
		"proxy": func(t *testing.T, n *faultnet.Net, o *redis.Options) { t.Helper(); o.Addr = n.Proxy(t, o.Addr) },
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rig{server: miniredis.RunT(t), net: faultnet.New(t, 1)}
			o := &redis.Options{Addr: r.server.Addr(), MaxRetries: -1, DialerRetries: 1, DialTimeout: brief, ReadTimeout: brief}
			way(t, r.net, o)
			r.client = redis.NewClient(o)
			t.Cleanup(func() { assert.NoError(t, r.client.Close()) })
			r.set(t, "before", nil)
			assert.Zero(t, r.net.Took(), "a healthy network")
			f(t, r)
		})
	}
}

// set writes a key and says what the client hears of it. Any error matches
// assert.AnError.
func (r rig) set(t *testing.T, key string, want error) {
	t.Helper()
	err := r.client.Set(t.Context(), key, "value of "+key, 0).Err()
	if want != assert.AnError { //nolint:errorlint // a mark
		require.ErrorIs(t, err, want)
		return
	}
	require.Error(t, err)
}

// has waits until the server has the key.
func (r rig) has(t *testing.T, key string) {
	t.Helper()
	require.Eventually(t, func() bool { return r.server.Exists(key) }, soon, time.Millisecond, key)
}

func TestCut(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, r rig) {
		r.net.Set(faultnet.Faults{Cut: true})
		r.set(t, "a", assert.AnError)
		r.set(t, "b", assert.AnError)
		require.Eventually(t, func() bool { return r.net.Took() >= 2 }, soon, time.Millisecond, "one closed, one refused")
		r.net.Set(faultnet.Faults{})
		r.set(t, "c", nil)
		assert.False(t, r.server.Exists("a"))
		assert.False(t, r.server.Exists("b"))
	})
}

func TestRequestsVanish(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, r rig) {
		r.net.Set(faultnet.Faults{Up: true})
		r.set(t, "a", assert.AnError)
		assert.Positive(t, r.net.Took())
		r.net.Set(faultnet.Faults{})
		r.set(t, "b", nil)
		assert.False(t, r.server.Exists("a"))
	})
}

func TestRepliesVanish(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, r rig) {
		r.net.Set(faultnet.Faults{Down: true})
		r.set(t, "a", assert.AnError)
		r.has(t, "a")
		assert.Positive(t, r.net.Took())
		r.net.Set(faultnet.Faults{})
		r.set(t, "b", nil)
	})
}

func TestLateRequestsArrive(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, r rig) {
		r.net.Set(faultnet.Faults{Up: true, Late: true})
		r.set(t, "a", assert.AnError)
		assert.False(t, r.server.Exists("a"))
		r.net.Set(faultnet.Faults{})
		r.has(t, "a")
		r.set(t, "b", nil)
	})
}

func TestHalfOpenConnectionsStaySilent(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, r rig) {
		r.net.Set(faultnet.Faults{HalfOpen: true})
		assert.Equal(t, 1, r.net.Took())
		r.set(t, "a", assert.AnError)
		r.set(t, "b", nil)
		assert.False(t, r.server.Exists("a"))
		assert.Equal(t, 2, r.server.CurrentConnectionCount(), "the server was not told of the end of the first")
	})
}

func TestDialsHang(t *testing.T) {
	t.Parallel()
	n, server := faultnet.New(t, 1), miniredis.RunT(t)
	dial := n.Dialer((&net.Dialer{}).DialContext)
	n.Set(faultnet.Faults{Hang: true})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := dial(ctx, "tcp", server.Addr())
	require.ErrorIs(t, err, context.DeadlineExceeded)
	var op *net.OpError
	require.ErrorAs(t, err, &op)
	assert.Equal(t, "dial", op.Op)
	made := make(chan error, 1)
	before := n.Took()
	go func() {
		c, err := dial(t.Context(), "tcp", server.Addr())
		if err == nil {
			err = c.Close()
		}
		made <- err
	}()
	require.Eventually(t, func() bool { return n.Took() > before }, soon, time.Millisecond)
	n.Set(faultnet.Faults{})
	require.NoError(t, <-made)
}

// when gives a fate to one command.
func when(key string, fate faultnet.Fate) func(words []string) faultnet.Fate {
	return func(words []string) faultnet.Fate {
		if len(words) == 3 && words[0] == "set" && words[1] == key {
			return fate
		}
		return faultnet.Pass
	}
}

func TestFatesOfCommands(t *testing.T) {
	t.Parallel()
	for _, fate := range []faultnet.Fate{faultnet.HangUp, faultnet.Swallow, faultnet.HangUpAfter(10)} {
		eachWay(t, func(t *testing.T, r rig) {
			r.net.Set(faultnet.Faults{Command: when("b", fate)})
			r.set(t, "a", nil)
			r.set(t, "b", assert.AnError)
			r.set(t, "c", nil)
			assert.False(t, r.server.Exists("b"))
			assert.Positive(t, r.net.Took())
		})
	}
}

func TestFatesOfReplies(t *testing.T) {
	t.Parallel()
	for _, fate := range []faultnet.Fate{faultnet.HangUp, faultnet.Swallow, faultnet.HangUpAfter(3)} {
		eachWay(t, func(t *testing.T, r rig) {
			r.net.Set(faultnet.Faults{Reply: func(words []string, reply []byte) faultnet.Fate {
				if words[0] == "set" {
					assert.Equal(t, "+OK\r\n", string(reply))
				}
				return when("b", fate)(words)
			}})
			r.set(t, "a", nil)
			r.set(t, "b", assert.AnError)
			r.has(t, "b")
			r.set(t, "c", nil)
			assert.Positive(t, r.net.Took())
		})
	}
}

func TestRepliesArePairedWithCommands(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, r rig) {
		var pairs atomic.Int32
		r.net.Set(faultnet.Faults{Slice: 1, Reply: func(words []string, reply []byte) faultnet.Fate {
			if words[0] == "echo" && strings.HasSuffix(string(reply), "\r\n"+words[1]+"\r\n") {
				pairs.Add(1)
			}
			return faultnet.Pass
		}})
		odd := []string{"", "x", "a\r\nb", "*1\r\n$4\r\nping\r\n", strings.Repeat("long ", 500)}
		cmds, err := r.client.WithTimeout(soon).Pipelined(t.Context(), func(p redis.Pipeliner) error {
			for _, s := range odd {
				p.Echo(t.Context(), s)
				p.Set(t.Context(), s, 1, 0)
				p.HGetAll(t.Context(), "none")
			}
			return nil
		})
		require.NoError(t, err)
		for i, s := range odd {
			assert.Equal(t, s, cmds[3*i].(*redis.StringCmd).Val()) //nolint:errcheck,forcetypeassert // as asked
		}
		assert.EqualValues(t, len(odd), pairs.Load())
	})
}

func TestMessagesCanBeLost(t *testing.T) {
	t.Parallel()
	for _, protocol := range []int{2, 3} {
		n, server := faultnet.New(t, 1), miniredis.RunT(t)
		client := redis.NewClient(&redis.Options{Addr: n.Proxy(t, server.Addr()), Protocol: protocol})
		t.Cleanup(func() { assert.NoError(t, client.Close()) })
		var lost atomic.Int32
		n.Set(faultnet.Faults{Reply: func(words []string, reply []byte) faultnet.Fate {
			if words[0] == "" && strings.Contains(string(reply), "odd") {
				lost.Add(1)
				return faultnet.Swallow
			}
			return faultnet.Pass
		}})
		sub := client.Subscribe(t.Context(), "c")
		_, err := sub.Receive(t.Context())
		require.NoError(t, err)
		for _, m := range []string{"odd 1", "even 2", "odd 3", "even 4"} {
			server.Publish("c", m)
		}
		for _, want := range []string{"even 2", "even 4"} {
			m, err := sub.ReceiveMessage(t.Context())
			require.NoError(t, err)
			assert.Equal(t, want, m.Payload)
		}
		assert.EqualValues(t, 2, lost.Load())
		assert.Equal(t, 2, n.Took())
		require.NoError(t, sub.Close())
	}
}

// echo is a server without a protocol. It sends everything back.
func echo(t *testing.T) faultnet.Dial {
	t.Helper()
	return func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() { // ends when the connection is closed
			_, _ = io.Copy(far, far)
			_ = far.Close()
		}()
		return near, nil
	}
}

// In virtual time: what it takes is exact, and with the same seed the same.
func TestPace(t *testing.T) {
	t.Parallel()
	took := func(t *testing.T, seed uint64, f faultnet.Faults) (times []time.Duration) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			n := faultnet.New(t, seed)
			c, err := n.Dialer(echo(t))(t.Context(), "", "")
			require.NoError(t, err)
			n.Set(f)
			for range 5 {
				began := time.Now()
				_, err = c.Write([]byte(strings.Repeat("x", 1000)))
				require.NoError(t, err)
				_, err = io.ReadFull(c, make([]byte, 1000))
				require.NoError(t, err)
				times = append(times, time.Since(began))
			}
			require.NoError(t, c.Close())
			assert.Positive(t, n.Took())
		})
		return times
	}
	for _, d := range took(t, 1, faultnet.Faults{Latency: time.Second}) {
		assert.Equal(t, 2*time.Second, d)
	}
	for _, d := range took(t, 1, faultnet.Faults{Bandwidth: 10_000}) {
		assert.InDelta(t, 100*time.Millisecond, d, float64(20*time.Millisecond), "both ways work at the same time")
	}
	jitter := faultnet.Faults{Latency: 200 * time.Millisecond, Jitter: 1800 * time.Millisecond}
	first := took(t, 7, jitter)
	assert.Equal(t, first, took(t, 7, jitter))
	assert.NotEqual(t, first, took(t, 8, jitter))
	for _, d := range first {
		assert.GreaterOrEqual(t, d, 400*time.Millisecond)
		assert.Less(t, d, 4*time.Second)
	}
}

// The store asks a connection where it leads to.
func TestAddressIsTheServers(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	c, err := faultnet.New(t, 1).Dialer((&net.Dialer{}).DialContext)(t.Context(), "tcp", server.Addr())
	require.NoError(t, err)
	assert.Equal(t, server.Addr(), c.RemoteAddr().String())
	_, isSocket := c.(syscall.Conn)
	assert.True(t, isSocket, "go-redis looks whether the peer has closed it")
	require.NoError(t, c.Close())
}

func TestSlices(t *testing.T) {
	t.Parallel()
	n := faultnet.New(t, 1)
	n.Set(faultnet.Faults{Slice: 3})
	c, err := n.Dialer(echo(t))(t.Context(), "", "")
	require.NoError(t, err)
	_, err = c.Write([]byte("0123456789"))
	require.NoError(t, err)
	b := make([]byte, 10)
	got, err := c.Read(b)
	require.NoError(t, err)
	assert.Equal(t, 3, got)
	require.NoError(t, c.Close())
}

func TestTheServersEndIsPassedOn(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { assert.NoError(t, l.Close()) }()
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, _ = c.Write([]byte("last words"))
			_ = c.Close()
		}
	}()
	n := faultnet.New(t, 1)
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", n.Proxy(t, l.Addr().String()))
	require.NoError(t, err)
	said, err := io.ReadAll(bufio.NewReader(c))
	require.NoError(t, err)
	assert.Equal(t, "last words", string(said))
	require.NoError(t, c.Close())
}

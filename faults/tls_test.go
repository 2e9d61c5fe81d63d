package faults_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/redistest"
)

// secured returns a client that speaks TLS, or plain text without a config.
func secured(t testing.TB, addr string, c *tls.Config) *redis.Client {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{Addr: addr, TLSConfig: c})
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// shutOut asserts that a Scheduler of a client can do nothing: what it submits
// surely was not stored, and it does not start. Unless it looks like an outage,
// Start says at once what is wrong.
func (w *world) shutOut(rdb redis.UniversalClient, says string, outage bool) {
	w.t.Helper()
	_, err := w.submit(w.scheduler(rdb), carillon.Job{Name: "work"})
	require.ErrorIs(w.t, err, carillon.ErrUnavailable)
	require.NotErrorIs(w.t, err, carillon.ErrUncertain)
	// The end of the connection can overtake what the server has to say.
	if text := err.Error(); !strings.Contains(text, "reset by peer") && !strings.Contains(text, "broken pipe") {
		assert.ErrorContains(w.t, err, says)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), soon)
	defer cancel()
	s, started := w.scheduler(rdb), make(chan error, 1)
	go func() { started <- s.Start(ctx) }()
	if outage {
		w.eventually("it waits", func() bool { return strings.Contains(w.said.String(), "waiting for Redis") })
		assert.Empty(w.t, started, "it did not wait")
		cancel()
	}
	err = <-started
	require.ErrorIs(w.t, err, carillon.ErrUnavailable)
	assert.ErrorContains(w.t, err, says)
	assert.Equal(w.t, outage, ctx.Err() != nil, "whether it waited")
	w.fault(1)
}

// H9: TLS and mutual TLS work, and whatever is wrong with them fails closed.
func TestH9_TLS(t *testing.T) {
	t.Parallel()
	ca, stranger := redistest.NewCA(t), redistest.NewCA(t)
	server, addr := redistest.SingleTLS(t, ca, ca.Issue(t), "tls-auth-clients no")
	_, mutual := redistest.SingleTLS(t, ca, ca.Issue(t), "tls-auth-clients yes")
	_, mutual12 := redistest.SingleTLS(t, ca, ca.Issue(t), "tls-auth-clients yes", "tls-protocols TLSv1.2")
	_, expired := redistest.SingleTLS(t, ca, ca.Issue(t, func(c *x509.Certificate) {
		c.NotAfter = time.Now().Add(-time.Minute)
	}), "tls-auth-clients no")
	_, elsewhere := redistest.SingleTLS(t, ca, ca.Issue(t, func(c *x509.Certificate) {
		c.IPAddresses = []net.IP{net.ParseIP("127.0.0.2")}
	}), "tls-auth-clients no")
	trusting := &tls.Config{RootCAs: ca.Pool()}
	as := func(c tls.Certificate) *tls.Config {
		return &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{c}}
	}

	for name, c := range map[string]struct {
		addr   string
		client *tls.Config
	}{
		"TLS":            {addr, trusting},
		"mutual TLS":     {mutual, as(ca.Issue(t))},
		"mutual TLS 1.2": {mutual12, as(ca.Issue(t))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rdb := secured(t, c.addr, c.client)
			w := newWorld(t, rdb)
			w.shutOut(secured(t, c.addr, &tls.Config{RootCAs: stranger.Pool()}), "unknown authority", false)
			w.load(w.instance(rdb, handlers{"work": work}), 20, carillon.Job{Name: "work"})
			w.finish(20)
		})
	}

	for name, c := range map[string]struct {
		addr   string
		client *tls.Config
		says   string
		outage bool
	}{
		"a server of another authority":         {addr, &tls.Config{RootCAs: stranger.Pool()}, "unknown authority", false},
		"an expired server":                     {expired, trusting, "expired", false},
		"a server for another host":             {elsewhere, trusting, "not 127.0.0.1", false},
		"no client certificate":                 {mutual, trusting, "certificate required", false},
		"no client certificate, TLS 1.2":        {mutual12, trusting, "handshake failure", false},
		"a client of another authority":         {mutual, as(stranger.Issue(t)), "unknown certificate authority", false},
		"a client of another authority, TLS1.2": {mutual12, as(stranger.Issue(t)), "unknown certificate authority", false},
		"an expired client": {mutual, as(ca.Issue(t, func(c *x509.Certificate) {
			c.NotAfter = time.Now().Add(-time.Minute)
		})), "expired certificate", false},
		"TLS 1.1":             {addr, &tls.Config{RootCAs: ca.Pool(), MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "protocol version", false},
		"plain text to TLS":   {addr, nil, "EOF", true},
		"TLS to a plain port": {server.Addr(), trusting, "dial " + server.Addr(), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, server.Client(t))
			rdb := secured(t, c.addr, c.client)
			if c.outage {
				rdb.Options().DialTimeout = 200 * time.Millisecond // a plain port does not answer to TLS at all
			}
			w.shutOut(rdb, c.says, c.outage)
			w.load(w.instance(secured(t, addr, trusting), handlers{"work": work}), 1, carillon.Job{Name: "work"})
			w.finish(1)
		})
	}
}

// H9: a server that refuses a certificate after the dial, as with TLS 1.3, can be
// faster than the first command, which meets a connection that is closed. It is
// no outage all the same.
func TestH9_RefusedBeforeTheFirstCommand(t *testing.T) {
	t.Parallel()
	ca := redistest.NewCA(t)
	server, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	refusing := &tls.Config{Certificates: []tls.Certificate{ca.Issue(t)}, ClientAuth: tls.RequireAnyClientCert}
	closed := make(chan struct{}, 100) // more than there are dials
	var served sync.WaitGroup
	served.Go(func() {
		for {
			raw, err := server.Accept()
			if err != nil {
				return // the test is over
			}
			assert.Error(t, tls.Server(raw, refusing).Handshake())
			assert.NoError(t, raw.(*net.TCPConn).SetLinger(0)) //nolint:errcheck // that is its type
			_ = raw.Close()
			closed <- struct{}{}
		}
	})
	t.Cleanup(func() {
		_ = server.Close()
		served.Wait()
	})
	rdb := redis.NewClient(&redis.Options{
		Addr: server.Addr().String(), PoolSize: 1,
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: ca.Pool()}}).DialContext(ctx, network, addr)
			if err == nil {
				<-closed
			}
			return conn, err
		},
	})
	t.Cleanup(func() { _ = rdb.Close() })
	w := newWorld(t, redistest.Shared(t).Client(t))
	w.shutOut(rdb, "certificate required", false)
	w.finish(0)
}

// H9: a certificate that becomes wrong while instances run is an outage: nothing
// is sent, and they go on when it was put right.
func TestH9_CertificateGoesWrongWhileInstancesRun(t *testing.T) {
	t.Parallel()
	ca := redistest.NewCA(t)
	server, addr := redistest.SingleTLS(t, ca, ca.Issue(t), append(durable, "tls-auth-clients no")...)
	admin := server.Client(t)
	rdb := secured(t, addr, &tls.Config{RootCAs: ca.Pool()})
	w := newWorld(t, admin)
	s := w.instance(rdb, handlers{"work": work})
	w.load(s, 20, carillon.Job{Name: "work"})

	right := admin.ConfigGet(t.Context(), "tls-*-file").Val()
	cert, key := redistest.WriteCertificate(t, redistest.NewCA(t).Issue(t))
	change := func(cert, key string) {
		require.NoError(t, admin.Do(t.Context(), "config", "set", "tls-cert-file", cert, "tls-key-file", key).Err())
		require.NoError(t, admin.Do(t.Context(), "client", "kill", "type", "normal", "skipme", "yes").Err())
	}
	change(cert, key)
	for range 10 {
		_, err := w.submit(s, carillon.Job{Name: "work"})
		if err != nil && assert.ErrorContains(t, err, "unknown authority") {
			w.fault(1)
		}
	}
	change(right["tls-cert-file"], right["tls-key-file"])
	w.load(s, 20, carillon.Job{Name: "work"})
	w.finish(40)
}

// H9: a wrong password is no outage either, in any topology.
func TestH9_WrongPassword(t *testing.T) {
	t.Parallel()
	single := redistest.Shared(t)
	sentinel, cluster := redistest.SharedSentinel(t), redistest.SharedCluster(t)
	forSingle, forSentinel, forCluster := *single.Options(), *sentinel.Options(), *cluster.Options()
	forSingle.Username, forSingle.Password = "nobody", "wrong"
	forSentinel.Username, forSentinel.Password = "nobody", "wrong"
	forCluster.Username, forCluster.Password = "nobody", "wrong"
	for name, c := range map[string]struct{ healthy, wrong redis.UniversalClient }{
		"one server": {single.Client(t), redis.NewClient(&forSingle)},
		"Sentinel":   {sentinel.Client(t), redis.NewFailoverClient(&forSentinel)},
		"Cluster":    {cluster.Client(t), redis.NewClusterClient(&forCluster)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Cleanup(func() { _ = c.wrong.Close() })
			w := newWorld(t, c.healthy)
			w.shutOut(c.wrong, "WRONGPASS", false)
			w.load(w.instance(c.healthy, handlers{"work": work}), 1, carillon.Job{Name: "work"})
			w.finish(1)
		})
	}
}

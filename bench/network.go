package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

var networkScenarios = []scenario{
	{name: "aof", run: func(t *trial) error {
		q, _, err := t.open("appendonly yes", "appendfsync everysec")
		if err != nil {
			return err
		}
		return t.some(q, "aof-everysec")
	}, only: onRedis},
	{name: "rtt", run: func(t *trial) error {
		server, err := t.redis()
		if err != nil {
			return err
		}
		p, err := startProxy(server.addr, time.Millisecond)
		if err != nil {
			return err
		}
		t.cleanup = append(t.cleanup, p.stop)
		q, err := t.openAt(place{redis: []string{p.addr}})
		if err != nil {
			return err
		}
		return t.some(q, "rtt-1ms")
	}, only: onRedis},
	{name: "cluster", run: cluster, only: []string{ours, "asynq"}},
}

var onRedis = []string{ours, "asynq", "gocraft", "floor"}

// some measures the main figures of throughput.
func (t *trial) some(q queue, row string) error {
	if err := t.drained(q, row+"/drain", t.share(100_000, 20_000), standardPayload, work{instances: 1}); err != nil {
		return err
	}
	if err := t.singles(q, row+"/single", t.share(20_000, 5_000)); err != nil {
		return err
	}
	return t.bulk(q, row+"/bulk", t.share(100_000, 20_000), standardPayload)
}

// proxy delays the replies that go through it by a round trip: not the requests
// too, because a timer of half a millisecond takes twice as long.
type proxy struct {
	addr     string
	to       string
	delay    time.Duration
	listener net.Listener
	work     sync.WaitGroup
	mu       sync.Mutex
	conns    []net.Conn
}

func startProxy(to string, delay time.Duration) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it lives until it is stopped
	if err != nil {
		return nil, err
	}
	p := &proxy{addr: l.Addr().String(), to: to, delay: delay, listener: l}
	p.work.Go(p.accept)
	return p, nil
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // stopped
		}
		server, err := net.Dial("tcp", p.to) //nolint:noctx // it lives until it is stopped
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		p.pipe(client, server, 0)
		p.pipe(server, client, p.delay)
	}
}

// pipe passes on what it reads, after a delay.
func (p *proxy) pipe(from, to net.Conn, delay time.Duration) {
	type piece struct {
		data []byte
		at   time.Time
	}
	way := make(chan piece, 1024)
	p.work.Go(func() {
		defer close(way)
		for {
			buf := make([]byte, 64<<10)
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			way <- piece{buf[:n], time.Now().Add(delay)}
		}
	})
	p.work.Go(func() {
		for piece := range way {
			if wait := time.Until(piece.at); wait > 0 {
				<-time.After(wait)
			}
			if _, err := to.Write(piece.data); err != nil {
				_ = from.Close()
			}
		}
		_ = to.Close()
	})
}

func (p *proxy) stop() error {
	_ = p.listener.Close()
	p.mu.Lock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.work.Wait()
	return nil
}

// cluster compares what jobs cost the masters of a cluster, together, with what
// they cost one server, and one that is a cluster by itself: the others also share the
// machine.
func cluster(t *trial) error {
	n := t.share(200_000, 20_000)
	measure := func(row string, servers []*redisServer, clustered bool) error {
		at := place{cluster: clustered}
		for _, s := range servers {
			at.redis = append(at.redis, s.addr)
		}
		q, err := t.openAt(at)
		if err != nil {
			return err
		}
		m, err := t.meter(q, servers...)
		if err != nil {
			return err
		}
		return m.during(t, row, n, func() error {
			done, err := t.drain(q, jobs(n, standardPayload, time.Time{}), work{instances: 1}, n)
			if err == nil {
				t.put(row, "jobs/s", done.rate())
			}
			return err
		})
	}
	one, err := t.redis()
	if err != nil {
		return err
	}
	if err := measure("cluster/none", []*redisServer{one}, false); err != nil {
		return err
	}
	for _, masters := range []int{1, 3} {
		nodes, err := t.redisCluster(masters)
		if err != nil {
			return err
		}
		if err := measure(fmt.Sprintf("cluster/%d", masters), nodes, true); err != nil {
			return err
		}
	}
	return nil
}

// redisCluster starts masters that share the slots evenly. They have no
// replicas, which would only take CPU from them here.
func (t *trial) redisCluster(masters int) ([]*redisServer, error) {
	const slots = 16384
	share := func(i int) int { return (i*slots + masters/2) / masters } // as redis-cli --cluster create deals them out
	nodes := make([]*redisServer, masters)
	for i := range nodes {
		bus, err := freePort()
		if err != nil {
			return nil, err
		}
		s, err := t.redis("cluster-enabled yes", fmt.Sprintf("cluster-port %d", bus))
		if err != nil {
			return nil, err
		}
		nodes[i] = s
		if err := errors.Join(
			s.rdb.Do(t.ctx, "cluster", "set-config-epoch", i+1).Err(), // distinct ones spare them a quarrel
			s.rdb.ClusterAddSlotsRange(t.ctx, share(i), share(i+1)-1).Err(),
			s.meet(t.ctx, nodes[0], bus),
		); err != nil {
			return nil, err
		}
	}
	for _, s := range nodes {
		if err := poll(t.ctx, 20*time.Second, func() error { return whole(t.ctx, s.rdb, masters) }); err != nil {
			return nil, err
		}
	}
	return nodes, nil
}

// meet lets the first node know the server, and by gossip all others.
func (s *redisServer) meet(ctx context.Context, first *redisServer, bus int) error {
	if s == first {
		return nil
	}
	host, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		return err
	}
	return first.rdb.Do(ctx, "cluster", "meet", host, port, bus).Err()
}

// whole reports whether a node knows all masters.
func whole(ctx context.Context, rdb *redis.Client, masters int) error {
	info, err := rdb.ClusterInfo(ctx).Result()
	if err == nil && (!strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, fmt.Sprintf("cluster_size:%d\r\n", masters))) {
		err = fmt.Errorf("the cluster is not ready: %s", info)
	}
	return err
}

// Package embedded runs a Redis inside the process, so that a first run, a demo or a test of code that uses
// Carillon needs nothing installed: no server, no container, no port.
//
//	rdb, stop := embedded.Open()
//	defer stop()
//	s, err := carillon.New(rdb, carillon.Config{Namespace: "demo"})
//
// It is miniredis with what a scheduler needs on top: time passes, so keys with a time to live expire by
// themselves; and connections are pipes in memory whose replies are buffered, as a socket's are. It works inside
// a testing/synctest bubble too, where time is the bubble's.
//
// It is not a Redis to rely on. Data lives in memory and is gone after stop or a crash; other processes cannot
// reach it, so it shows nothing of several instances on several machines; it is no Redis Cluster and refuses none
// of what a cluster refuses; it has no memory limit, no persistence, no access control; and its speed says
// nothing about that of Redis. Outside of a bubble a key can expire early, on a busy machine by some tenths of a
// second: do not rely on a lock with a short lease here. Change the one line that opens the client when the first run is over.
package embedded

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

var errStopped = errors.New("embedded: this Redis was stopped")

// Open starts an empty Redis inside this process and returns a client of it. stop closes the client, every other
// connection to this Redis, and the Redis; it returns when their goroutines have ended, and may be called again.
//
// The client is a plain one. Its options can be copied to make further clients, which are the caller's to close:
//
//	opts := *rdb.Options()
//	opts.PoolSize = 2
//	second := redis.NewClient(&opts)
//
// In a testing/synctest bubble PoolSize has to stay as it is: nobody may wait for a connection there.
func Open() (rdb *redis.Client, stop func()) {
	e := start()
	rdb = redis.NewClient(&redis.Options{
		Addr:   "embedded",
		Dialer: e.dial,
		// Nobody waits for a connection: those who do share timers, which belong to one
		// bubble of testing/synctest and end the process in another.
		PoolSize:        1000,
		DisableIdentity: true, // miniredis does not know CLIENT SETINFO
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled,
		},
	})
	return rdb, sync.OnceFunc(func() {
		_ = rdb.Close() // the connections are pipes, which close without fail
		e.stop()
	})
}

// engine is a running miniredis that is reached through pipes.
type engine struct {
	redis *miniredis.Miniredis
	srv   *server.Server
	clock *clock

	mu      sync.Mutex // held while serving a new connection: none may start once the server is closing
	stopped bool
}

func start() *engine {
	m := miniredis.NewMiniRedis()
	first, err := m.Dial() // the first Dial starts miniredis without a port
	if err != nil {
		panic("embedded: " + err.Error()) // cannot happen: it only registers commands in an empty server
	}
	_ = first.Close()
	return &engine{redis: m, srv: m.Server(), clock: newClock(m.FastForward)}
}

func (e *engine) dial(context.Context, string, string) (net.Conn, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped {
		return nil, errStopped
	}
	near, far := net.Pipe()
	e.srv.ServeConn(newBuffered(far))
	return &ticking{Conn: near, clock: e.clock}, nil
}

func (e *engine) stop() {
	e.mu.Lock()
	e.stopped = true
	e.mu.Unlock()
	e.redis.Close()
}

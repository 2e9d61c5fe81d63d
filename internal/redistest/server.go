package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/carillon-go/carillon/internal/proctest"
)

const (
	host = "127.0.0.1"

	// patience is how long servers may take to start or to join. It is long
	// because machines which run tests are often busy.
	patience = 30 * time.Second
)

// Server is one redis-server.
type Server struct {
	dir  string
	addr string
	args []string

	mu   sync.Mutex
	proc *proctest.Process
}

// Single starts a server for the test t. It persists nothing unless conf,
// which holds lines of redis.conf such as "appendonly yes", says so.
func Single(t testing.TB, conf ...string) *Server {
	t.Helper()
	return own(t, func(dir string) (*Server, error) { return startServer(dir, conf...) })
}

// Shared returns the one server which all tests of the binary share.
func Shared(t testing.TB) *Server {
	t.Helper()
	return sharedServer.get(t, func(dir string) (*Server, error) { return startServer(dir) })
}

var sharedServer shared[*Server]

func startServer(dir string, conf ...string) (*Server, error) {
	conf = append([]string{
		`save ""`,
		"appendonly no",
		"repl-diskless-sync-delay 0", // or a replica waits 5 s for company
		"repl-ping-replica-period 1", // or a cluster hides new replicas for 10 s
		limitedLine(),
	}, conf...)
	return start(dir, conf)
}

// start runs a server with conf in dir. A free port may be taken by someone
// else before the server listens there, so it tries several.
func start(dir string, conf []string, flags ...string) (*Server, error) {
	for attempt := 1; ; attempt++ {
		s, err := startAt(freePort(), dir, conf, flags)
		if err == nil || attempt == 5 || !strings.Contains(err.Error(), "Address already in use") {
			return s, err
		}
	}
}

func startAt(port int, dir string, conf, flags []string) (*Server, error) {
	lines := append([]string{
		"bind " + host,
		fmt.Sprintf("port %d", port),
		fmt.Sprintf("dir %q", dir),
	}, conf...)
	// A file rather than arguments, because sentinels and replicas rewrite
	// theirs, and a restart has to find what they wrote.
	file := filepath.Join(dir, "redis.conf")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return nil, err
	}
	s := &Server{
		dir:  dir,
		addr: fmt.Sprintf("%s:%d", host, port),
		args: append([]string{file}, flags...),
	}
	if err := s.launch(); err != nil {
		return nil, err
	}
	return s, nil
}

// Addr returns the address, host:port. It outlives Kill and Restart.
func (s *Server) Addr() string {
	return s.addr
}

// Options returns new client options for the server.
func (s *Server) Options() *redis.Options {
	return &redis.Options{
		Addr:                     s.addr,
		MaintNotificationsConfig: noMaintNotifications(),
	}
}

// noMaintNotifications spares each connection a command which only managed
// Redis services understand.
func noMaintNotifications() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

// Client returns a new client of the server, which is closed when t ends.
func (s *Server) Client(t testing.TB) *redis.Client {
	t.Helper()
	c := redis.NewClient(s.Options())
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Pause freezes the server, as a stalled machine would: connections stay open
// and nothing answers. It is frozen when Pause returns.
func (s *Server) Pause(t testing.TB) {
	t.Helper()
	if err := s.process().Freeze(); err != nil {
		t.Fatalf("pause %s: %v", s.addr, err)
	}
}

// Resume ends Pause.
func (s *Server) Resume(t testing.TB) {
	t.Helper()
	if err := s.process().Thaw(); err != nil {
		t.Fatalf("resume %s: %v", s.addr, err)
	}
}

// Kill ends the server at once, as kill -9 does, and waits until it is gone.
func (s *Server) Kill() {
	s.process().Kill()
}

// Restart kills the server if it runs and starts it again with the same
// address, directory and configuration. It answers when Restart returns.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Kill()
	if err := s.launch(); err != nil {
		t.Fatal(err)
	}
}

// launch starts the process and waits until it answers.
func (s *Server) launch() error {
	cmd := exec.Command("redis-server", s.args...)
	cmd.Dir = s.dir
	p, err := proctest.Launch(cmd, filepath.Join(s.dir, "redis.log"))
	if err != nil {
		return err
	}
	if err := s.ready(p); err != nil {
		p.Kill()
		return fmt.Errorf("redis-server at %s did not start: %w\n%s", s.addr, err, p.Log())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proc = p
	return nil
}

func (s *Server) ready(p *proctest.Process) error {
	var exited bool
	err := poll(patience, func() error {
		if exited = p.Exited(); exited {
			return nil
		}
		// go-redis logs each failed dial, and the first ones always fail.
		c, err := net.DialTimeout("tcp", s.addr, time.Second)
		if err != nil {
			return err
		}
		_ = c.Close()
		return s.ask(func(ctx context.Context, c *redis.Client) error {
			if err := c.Ping(ctx).Err(); err != nil {
				return err
			}
			// Another server may have been quicker to take the port.
			info, err := c.Info(ctx, "server").Result()
			if err == nil && !strings.Contains(info, fmt.Sprintf("process_id:%d\r\n", p.PID())) {
				err = errors.New("another process answers")
			}
			return err
		})
	})
	if exited {
		return errors.New("it exited")
	}
	return err
}

// ask runs f with a client of its own which gives up soon, because the server
// may be dead, frozen or still starting.
func (s *Server) ask(f func(context.Context, *redis.Client) error) error {
	c := redis.NewClient(s.askOptions())
	defer func() { _ = c.Close() }()
	return f(context.Background(), c)
}

func (s *Server) askOptions() *redis.Options {
	opts := s.Options()
	opts.MaxRetries = -1
	opts.DialerRetries = 1
	opts.DialTimeout = time.Second
	opts.ReadTimeout = time.Second
	return opts
}

// linked tells whether the server is a replica in step with primary.
func (s *Server) linked(primary string) error {
	h, p, err := net.SplitHostPort(primary)
	if err != nil {
		return err
	}
	return s.replication("role:slave", "master_host:"+h, "master_port:"+p, "master_link_status:up")
}

// replication tells whether the server reports all those fields.
func (s *Server) replication(fields ...string) error {
	if s.process().Exited() {
		return fmt.Errorf("%s is dead", s.addr)
	}
	return s.ask(func(ctx context.Context, c *redis.Client) error {
		info, err := c.Info(ctx, "replication").Result()
		if err != nil {
			return err
		}
		for _, f := range fields {
			if !strings.Contains(info, f+"\r\n") {
				return fmt.Errorf("%s does not report %s", s.addr, f)
			}
		}
		return nil
	})
}

func (s *Server) process() *proctest.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

func (s *Server) stop() {
	s.noteDenials()
	s.Kill()
}

// hostPort splits the address for the commands which want it in two.
func (s *Server) hostPort() (string, string) {
	h, p, _ := net.SplitHostPort(s.addr)
	return h, p
}

// startAll starts n servers at once, each in a directory of its own. It
// returns all of them or none.
func startAll(n int, dir, name string, start func(dir string) (*Server, error)) ([]*Server, error) {
	servers := make([]*Server, n)
	err := each(servers, func(i int, _ *Server) error {
		sub := filepath.Join(dir, fmt.Sprintf("%s%d", name, i))
		if err := os.Mkdir(sub, 0o700); err != nil {
			return err
		}
		s, err := start(sub)
		servers[i] = s
		return err
	})
	if err != nil {
		stopAll(servers)
		return nil, err
	}
	return servers, nil
}

// restartDead starts those servers again which do not run.
func restartDead(servers []*Server) error {
	return each(servers, func(_ int, s *Server) error {
		if !s.process().Exited() {
			return nil
		}
		return s.launch()
	})
}

func stopAll(servers []*Server) {
	_ = each(servers, func(_ int, s *Server) error {
		if s != nil {
			s.stop()
		}
		return nil
	})
}

// each calls f for all servers at once.
func each(servers []*Server, f func(i int, s *Server) error) error {
	errs := make([]error, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() { errs[i] = f(i, s) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/carillon-go/carillon/internal/proctest"
)

// postgres is a PostgreSQL server without durability, as Redis has none here
// either. It runs only while a trial needs it.
type postgres struct {
	version string
	bin     string // where its programs are
	dir     string
	port    int
	proc    *proctest.Process
	made    int // databases
}

// findPostgres makes the data directory of a server. Without PostgreSQL on this
// machine it returns nil.
func findPostgres(ctx context.Context) (*postgres, error) {
	p := &postgres{bin: postgresPrograms()}
	if p.bin == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	version, err := exec.CommandContext(ctx, filepath.Join(p.bin, "postgres"), "--version").Output() //nolint:gosec // a path that was looked up
	if err != nil {
		return nil, err
	}
	p.version = "PostgreSQL " + strings.Fields(string(version))[2]
	if p.dir, err = os.MkdirTemp("", "bench-postgres-"); err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 {
		if out, err := exec.CommandContext(ctx, "chown", "nobody", p.dir).CombinedOutput(); err != nil { //nolint:gosec // a path that was made here
			return nil, fmt.Errorf("%w: %s", err, out)
		}
	}
	if out, err := p.command("initdb", "-D", p.data(), "-U", "bench", "--auth=trust", "--no-sync").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	p.port, err = freePort()
	return p, err
}

// postgresPrograms returns the directory of the programs: of the newest version,
// where several are installed, or of those on the PATH.
func postgresPrograms() string {
	installed, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres") // fails only for a bad pattern
	if len(installed) > 0 {
		return filepath.Dir(installed[len(installed)-1])
	}
	found, err := exec.LookPath("postgres")
	if err != nil {
		return ""
	}
	return filepath.Dir(found)
}

func (p *postgres) data() string { return filepath.Join(p.dir, "data") }

// command is one that runs as somebody else than root, which PostgreSQL refuses.
func (p *postgres) command(name string, args ...string) *exec.Cmd {
	args = append([]string{filepath.Join(p.bin, name)}, args...)
	if os.Geteuid() == 0 {
		args = append([]string{"setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--pdeathsig=KILL"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...) //nolint:gosec,noctx // programs that were looked up; the server lives until it is stopped
	cmd.Dir = p.dir
	return cmd
}

func (p *postgres) start(ctx context.Context) error {
	args := []string{"-D", p.data(), "-p", fmt.Sprint(p.port), "-k", p.dir}
	for _, setting := range []string{
		"listen_addresses=127.0.0.1", "fsync=off", "synchronous_commit=off", "full_page_writes=off",
		"shared_buffers=512MB", "max_wal_size=4GB", "max_connections=500", "wal_level=minimal", "max_wal_senders=0",
	} {
		args = append(args, "-c", setting)
	}
	var err error
	if p.proc, err = proctest.Launch(p.command("postgres", args...), filepath.Join(p.dir, "log")); err != nil {
		return err
	}
	err = poll(ctx, 30*time.Second, func() error {
		c, err := pgx.Connect(ctx, p.dsn("postgres"))
		if err != nil {
			return err
		}
		return c.Close(ctx)
	})
	if err != nil {
		p.stop()
		return fmt.Errorf("postgres: %w\n%s", err, p.proc.Log())
	}
	return nil
}

// database makes an empty database and returns how to connect to it.
func (p *postgres) database(ctx context.Context) (string, error) {
	c, err := pgx.Connect(ctx, p.dsn("postgres"))
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close(ctx) }()
	p.made++
	name := fmt.Sprintf("bench%d", p.made)
	_, err = c.Exec(ctx, "CREATE DATABASE "+name)
	return p.dsn(name), err
}

func (p *postgres) dsn(database string) string {
	return fmt.Sprintf("postgres://bench@127.0.0.1:%d/%s", p.port, database)
}

// clear drops the databases of a trial.
func (p *postgres) clear(ctx context.Context) error {
	c, err := pgx.Connect(ctx, p.dsn("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(ctx) }()
	for ; p.made > 0; p.made-- {
		if _, err := c.Exec(ctx, fmt.Sprintf("DROP DATABASE bench%d WITH (FORCE)", p.made)); err != nil {
			return err
		}
	}
	return nil
}

func (p *postgres) stop() {
	// A fast shutdown, which also frees its shared memory.
	if syscall.Kill(p.proc.PID(), syscall.SIGINT) == nil {
		<-p.proc.Done()
	}
}

func (p *postgres) remove() { _ = os.RemoveAll(p.dir) }

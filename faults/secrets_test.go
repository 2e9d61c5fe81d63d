package faults_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
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

// keyed turns encryption on. The key depends on the ID and on what is added.
func keyed(id string, more ...byte) func(*carillon.Config) {
	return func(c *carillon.Config) {
		key := make([]byte, 32)
		copy(key, id+string(more))
		c.Encryption = carillon.Encryption{Keys: map[string][]byte{id: key}, Current: id}
	}
}

// listener collects text from several goroutines.
type listener struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *listener) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *listener) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// logged sends everything that is logged to l.
func logged(l *listener) func(*carillon.Config) {
	return func(c *carillon.Config) {
		c.Logger = slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
}

// canary is the beginning of every secret of these tests.
const canary = "canary-"

// canaries are in every place of a job that takes a payload.
var canaries = []string{"args", "header", "progress", "checkpoint", "result", "schedule", "late"}

// H10: the payload of jobs is looked for where a thief would: in the append-only
// file, in the snapshot, in what goes over the wire, in logs and in errors. With
// encryption it is nowhere. Without it Redis has all of it, so the search works;
// logs and errors show it in no case.
func TestH10_StolenFiles(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*carillon.Config){"plain": func(*carillon.Config) {}, "encrypted": keyed("2026-11")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Single(t, "appendonly yes", "appendfsync no", "aof-use-rdb-preamble no", "rdbcompression no")
			w := newWorld(t, server.Client(t))
			wire, logs, errs := &listener{}, &listener{}, &listener{}
			tap(t, server, wire)
			end := livesWithSecrets(w, errs, edit, logged(logs))

			rdb := server.Client(t)
			dir := rdb.ConfigGet(t.Context(), "dir").Val()["dir"]
			require.NoError(t, rdb.BgSave(t.Context()).Err()) // SAVE would stop the server for as long as a busy disk takes
			w.eventually("the snapshot is there", func() bool {
				return strings.Contains(rdb.Info(t.Context(), "persistence").Val(), "rdb_bgsave_in_progress:0") &&
					strings.Contains(filesOf(t, dir, "dump.rdb"), w.namespace)
			})
			require.NoError(t, rdb.Echo(t.Context(), "all was said").Err())
			w.eventually("all was heard", func() bool { return strings.Contains(wire.String(), "all was said") })
			for where, loot := range map[string]string{
				"the append-only file": filesOf(t, dir, "appendonly"), "the snapshot": filesOf(t, dir, "dump.rdb"), "the wire": wire.String(),
			} {
				require.Contains(t, loot, w.namespace, "%s was not found", where)
				w.fault(1)
				for _, what := range canaries {
					if name == "plain" {
						assert.Contains(t, loot, canary+what, "the search in %s finds nothing", where)
					} else {
						assert.NotContains(t, loot, canary+what, "in %s", where)
					}
				}
				if name == "encrypted" {
					assert.NotContains(t, loot, canary, "in %s", where)
				}
			}
			assert.Contains(t, logs.String(), "failed for good", "nothing was logged")
			assert.NotContains(t, logs.String(), canary)
			assert.Contains(t, errs.String(), "another job", "no error was seen")
			assert.NotContains(t, errs.String(), canary)
			end()
			w.finish(3)
		})
	}
}

// livesWithSecrets lets jobs succeed, fail and be refused, with secrets wherever
// there can be one.
func livesWithSecrets(w *world, errs *listener, edit ...func(*carillon.Config)) (end func()) {
	w.t.Helper()
	ctx := w.t.Context()
	type login struct{ Password string }
	note := func(err error) {
		require.Error(w.t, err)
		_, _ = fmt.Fprintf(errs, "%v %+v %#v\n", err, err, err)
	}
	s := w.instance(w.admin, handlers{
		"login": func(ctx context.Context, x *carillon.Execution) error {
			if err := errors.Join(x.Progress(ctx, canary+"progress"), x.Checkpoint(ctx, canary+"checkpoint")); err != nil {
				return err
			}
			if x.Attempt == 1 {
				return carillon.RetryAfter(time.Millisecond, errors.New("not yet"))
			}
			return x.SetResult(login{canary + "result"})
		},
		"count": carillon.Func(func(context.Context, int) error { return nil }).ServeJob,
	}, edit...)
	job := carillon.Job{
		ID: "login", Name: "login", Args: login{canary + "args"}, Headers: map[string]string{"token": canary + "header"},
	}
	w.persist(s, job)
	other := job
	other.Args = login{canary + "other"}
	_, err := s.Submit(ctx, other)
	note(err)
	_, err = s.SubmitMany(ctx, []carillon.Job{other, other})
	note(err)
	_, err = s.Submit(ctx, carillon.Job{Name: "login", Args: canary + strings.Repeat("x", 2<<20)})
	note(err)
	_, err = s.Submit(ctx, carillon.Job{Name: "login", Args: map[string]any{canary: func() {}}})
	note(err)
	_, err = s.Submit(ctx, carillon.Job{Name: "login", Headers: map[string]string{canary: "\xff"}})
	note(err)
	w.persist(s, carillon.Job{Name: "count", Args: canary + "late", Delay: time.Millisecond}) // cannot be decoded
	require.NoError(w.t, s.Schedule(ctx, carillon.Schedule{
		Name: "nightly", Spec: carillon.Every(time.Hour), Job: carillon.Job{Name: "login", Args: login{canary + "schedule"}},
	}))
	info, err := s.GetSchedule(ctx, "nightly")
	require.NoError(w.t, err)
	assert.Contains(w.t, fmt.Sprintf("%s", info.Job.Args), canary, "those who have the key read it")
	w.persist(s, carillon.Job{Name: "login", Args: canary + "again", Mutex: "m", Unique: carillon.Unique{Key: "u"}})
	w.settled()
	done, err := s.Get(ctx, "login")
	require.NoError(w.t, err)
	assert.Contains(w.t, string(done.Result)+string(done.Progress), canary+"progress")
	return func() { require.NoError(w.t, s.Unschedule(ctx, "nightly")) }
}

// tap listens to every command that a server executes, until the test ends.
func tap(t testing.TB, server *redistest.Server, into *listener) {
	t.Helper()
	conn, err := net.Dial("tcp", server.Addr())
	require.NoError(t, err)
	_, err = conn.Write([]byte("MONITOR\r\n"))
	require.NoError(t, err)
	reader := bufio.NewReader(conn)
	line, err := reader.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "+OK\r\n", line)
	ended := make(chan struct{})
	go func() { // ends with the connection
		_, _ = reader.WriteTo(into)
		close(ended)
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-ended
	})
}

// filesOf reads the files of a server whose names contain a text.
func filesOf(t testing.TB, dir, like string) string {
	t.Helper()
	var all bytes.Buffer
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(d.Name(), like) {
			return err
		}
		data, err := os.ReadFile(path)
		all.Write(data)
		return err
	}))
	return all.String()
}

// H12: passwords of the connection, in options and in URLs, on servers that
// refuse them, accept them, or cannot be reached: no error and no log shows them.
func TestH12_SecretsInLogsAndErrors(t *testing.T) {
	t.Parallel()
	const password, user = canary + "password", "operator"
	server := redistest.Single(t)
	open := server.Client(t)
	require.NoError(t, open.Do(t.Context(), "ACL", "SETUSER", user, "on", ">"+password, "~*", "&*", "+@all").Err())
	gone := redistest.Single(t)
	gone.Kill()

	url := func(format, addr string) *redis.Options {
		o, err := redis.ParseURL(fmt.Sprintf(format, addr))
		require.NoError(t, err)
		o.DialTimeout = 300 * time.Millisecond // bounds a TLS handshake that nobody answers
		return o
	}
	clients := map[string]redis.UniversalClient{
		"wrong password":          redis.NewClient(url("redis://"+user+":"+password+"-wrong@%s/0", server.Addr())),
		"wrong user and password": redis.NewClient(url("redis://nobody:"+password+"@%s/0", server.Addr())),
		"nobody there":            redis.NewClient(url("redis://"+user+":"+password+"@%s/0", gone.Addr())),
		"no such host":            redis.NewClient(url("redis://"+user+":"+password+"@%s/0", "carillon.invalid:6379")),
		"TLS to a plain server":   redis.NewClient(url("rediss://"+user+":"+password+"@%s/0", server.Addr())),
		"a database too far":      redis.NewClient(url("redis://"+user+":"+password+"@%s/9999", server.Addr())),
		"cluster":                 redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{gone.Addr()}, Username: user, Password: password}),
		"sentinel": redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: "main", SentinelAddrs: []string{gone.Addr()}, Password: password, SentinelPassword: password,
		}),
		"credentials on demand": redis.NewClient(&redis.Options{
			Addr: server.Addr(), CredentialsProviderContext: func(context.Context) (string, string, error) {
				return "nobody", password, nil
			},
		}),
	}
	var wg sync.WaitGroup
	for name, rdb := range clients {
		t.Cleanup(func() { _ = rdb.Close() })
		wg.Go(func() {
			logs, errs := &listener{}, &listener{}
			fails(t, name, rdb, errs, logs)
			assert.NotContains(t, logs.String(), canary, name)
			assert.NotContains(t, errs.String(), canary, name)
			if strings.HasPrefix(name, "wrong") {
				assert.Contains(t, errs.String(), "WRONGPASS", name)
			}
		})
	}
	wg.Wait()

	// With the right password everything works, and Redis is told nothing of it.
	rdb := redis.NewClient(url("redis://"+user+":"+password+"@%s/0", server.Addr()))
	t.Cleanup(func() { _ = rdb.Close() })
	w := newWorld(t, open)
	logs := &listener{}
	s := w.instance(rdb, handlers{"work": work}, logged(logs))
	w.load(s, 5, carillon.Job{Name: "work", Args: canary + "args"})
	w.fault(len(clients))
	instances, err := s.Instances(t.Context())
	require.NoError(t, err)
	assert.NotContains(t, fmt.Sprintf("%+v %#v", instances, instances), canary)
	for _, key := range keysOf(t, open, w.namespace) {
		if strings.HasSuffix(key, "}:inst") {
			assert.NotContains(t, fmt.Sprint(open.HGetAll(t.Context(), key).Val()), canary, key)
		}
	}
	w.finish(5)
	assert.NotContains(t, logs.String(), canary)
}

// fails calls everything on a Redis that does not answer.
func fails(t *testing.T, name string, rdb redis.UniversalClient, errs, logs *listener) {
	c := carillon.Config{LeaseTTL: time.Second}
	logged(logs)(&c)
	keyed(canary + "k")(&c)
	c.Encryption.Keys["k"], c.Encryption.Current = c.Encryption.Keys[c.Encryption.Current], "k"
	delete(c.Encryption.Keys, canary+"k")
	s, err := carillon.New(rdb, c)
	if !assert.NoError(t, err) {
		return
	}
	assert.NoError(t, s.Handle("work", carillon.HandlerFunc(work)))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	job := carillon.Job{Name: "work", Args: canary + "args", Headers: map[string]string{"h": canary + "header"}}
	_, submitted := s.Submit(ctx, job)
	_, many := s.SubmitMany(ctx, []carillon.Job{job, job})
	_, got := s.Get(ctx, "id")
	_, awaited := s.Await(ctx, "id")
	_, counted := s.Counts(ctx)
	_, leased := s.TryLock(ctx, "lock")
	for i, err := range []error{
		submitted, many, got, awaited, counted, leased, s.Cancel(ctx, "id"), s.Retry(ctx, "id"),
		s.Schedule(ctx, carillon.Schedule{Name: "s", Spec: carillon.Every(time.Hour), Job: job}), s.PauseQueue(ctx, "q"), s.Start(ctx),
	} {
		if assert.Error(t, err, "%s: call %d", name, i) {
			_, _ = fmt.Fprintf(errs, "%v %+v %#v\n", err, err, err)
			for unwrapped := errors.Unwrap(err); unwrapped != nil; unwrapped = errors.Unwrap(unwrapped) {
				_, _ = fmt.Fprintf(errs, "%v %+v\n", unwrapped, unwrapped)
			}
		}
	}
	_, _ = fmt.Fprintf(errs, "%+v %+v\n", s, c)
	limit, stop := context.WithTimeout(context.Background(), soon)
	defer stop()
	_ = s.Shutdown(limit)
}

// keysOf lists the keys of a namespace on one server.
func keysOf(t testing.TB, rdb redis.UniversalClient, namespace string) []string {
	t.Helper()
	keys, err := rdb.Keys(t.Context(), "{"+namespace+":*").Result()
	require.NoError(t, err)
	slices.Sort(keys)
	return keys
}

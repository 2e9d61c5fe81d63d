package redistest

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the ACL into docs/operations.md")

// H8: the page that operators copy from grants what the tests ran with.
func TestOperationsACL(t *testing.T) {
	const page, begin, end = "../../docs/operations.md", "<!-- acl: written by go test ./internal/redistest -run TestOperationsACL -update -->\n", "<!-- acl end -->\n"
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(text), begin)
	require.True(t, ok)
	got, after, ok := strings.Cut(rest, end)
	require.True(t, ok)
	want := "```\nuser carillon on >PASSWORD " + Rules("NAMESPACE") + "\n```\n"
	if *update {
		require.NoError(t, os.WriteFile(page, []byte(before+begin+want+end+after), 0o600))
		return
	}
	assert.Equal(t, want, got, "run it with -update")
}

// H8: what is denied to a limited client is noticed, or an empty list means nothing.
func TestDenialsAreNoticed(t *testing.T) {
	s := Single(t)
	rdb := s.Client(t)
	limited, ns := Limited(t, rdb), Namespace(t)
	mine := "{" + ns + ":0}:k"
	require.NoError(t, limited.Set(t.Context(), mine, "v", 0).Err())
	denied, err := s.denied()
	require.NoError(t, err)
	assert.Empty(t, denied)

	for what, cmd := range map[string]error{
		"a command":              limited.FlushAll(t.Context()).Err(),
		"another key":            limited.Set(t.Context(), "foreign", "v", 0).Err(),
		"another channel":        limited.Publish(t.Context(), "foreign", "v").Err(),
		"a command of a script":  limited.Eval(t.Context(), "return redis.call('INCR', KEYS[1])", []string{mine}).Err(),
		"a key no script is for": limited.Eval(t.Context(), "return redis.pcall('SET', 'foreign', 'v')", nil).Err(),
	} {
		assert.Error(t, cmd, what)
	}
	denied, err = s.denied()
	require.NoError(t, err)
	assert.Len(t, denied, 5)
	require.NoError(t, rdb.ACLLogReset(t.Context()).Err()) // or this binary would fail
}

// H8: nothing is granted that Carillon does not send.
func TestEveryGrantIsUsed(t *testing.T) {
	used := map[string]string{
		"ping":           "go-redis, on a silent subscription",
		"select":         "go-redis, for another database than 0",
		"client|setname": "go-redis, when the options have a ClientName",
		"cluster|slots":  "go-redis, on Redis Cluster",
		"command":        "go-redis, on Redis Cluster",
		"wait":           "store/replicas.go, in a pipeline",
	}
	inScript := regexp.MustCompile(`(?:call|try)\('([A-Z]+)'(?:, '([A-Z]+)')?`)
	inGo := regexp.MustCompile(`\b(?:rdb|node|c|p|pipe|g\.pubsub)\.([A-Z]\w+)\(`)
	for pattern, calls := range map[string]*regexp.Regexp{
		"../../store/*.go": inGo, "../../store/lua/*.lua": inScript, "../../store/lua/lib/*.lua": inScript,
	} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, m := range calls.FindAllStringSubmatch(string(text), -1) {
				name := strings.ToLower(m[1])
				used[name] = file
				if len(m) > 2 && m[2] != "" {
					used[name+"|"+strings.ToLower(m[2])] = file
				}
			}
		}
	}
	for _, grant := range Grants {
		flat := strings.ReplaceAll(grant, "|", "")
		assert.True(t, used[grant] != "" || used[flat] != "" || used[flat+"n"] != "", "%s is granted but not used", grant)
	}
}

// H8: a database other than 0 and a client with a name need no more than that.
func TestLimitedClientOfAnotherDatabase(t *testing.T) {
	s := Single(t)
	o := s.Options()
	o.DB, o.ClientName = 3, "shop"
	rdb := redis.NewClient(o)
	t.Cleanup(func() { _ = rdb.Close() })
	require.NoError(t, Limited(t, rdb).Set(t.Context(), "{"+Namespace(t)+":0}:k", "v", 0).Err())
	denied, err := s.denied()
	require.NoError(t, err)
	assert.Empty(t, denied)
}

package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const (
	module  = "github.com/carillon-go/carillon"
	goRedis = "github.com/redis/go-redis/v9"
)

// rules are what the repository is held to.
var rules = []struct {
	name   string
	reason string
	check  func([]file) []string
}{
	{
		"imports run one way", "a lower layer that knows a higher one cannot be read, tested or replaced alone; " +
			"examples show only what users can copy; test rigs would drag their dependencies into users' binaries",
		checkDirection,
	},
	{
		"few dependencies", "every module that production code needs becomes a dependency of every user",
		checkDependencies,
	},
	{
		"only store talks to Redis", "keys, slots and scripts stay safe only if one package knows them; " +
			"the root takes a redis.UniversalClient in New and passes it on",
		checkRedis,
	},
	{"files are chapters", "a file that nobody reads to its end hides what it does", checkSize},
	{
		"tests never sleep", "a sleep is slow on a good day and wrong on a bad one: " +
			"use testing/synctest, wait for a signal, or poll with a deadline",
		checkSleep,
	},
	{"scripts have a header", "a script is a function, and the header is its signature", checkLuaHeader},
	{
		"keys are not built in Lua", "Redis Cluster routes a script by the keys it declares; " +
			"a key that is put together inside the script may live on another node",
		checkLuaKeys,
	},
	{"no machine paths", "what names one developer's machine is wrong everywhere else", checkMachinePaths},
}

func TestArchitecture(t *testing.T) {
	files := load(t, os.DirFS("../.."))
	for _, rule := range rules {
		t.Run(rule.name, func(t *testing.T) {
			for _, violation := range rule.check(files) {
				t.Errorf("%s\n\treason: %s", violation, rule.reason)
			}
		})
	}
}

// A file of the repository.
type file struct {
	path   string // from the root of the repository, with slashes
	text   string
	fset   *token.FileSet
	syntax *ast.File // of Go files that belong to this module, else nil
}

func (f file) dir() string  { return path.Dir(f.path) }
func (f file) ext() string  { return path.Ext(f.path) }
func (f file) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// production reports whether f is compiled into what imports its package.
func (f file) production() bool { return f.syntax != nil && !f.isTest() }

func (f file) violation(pos token.Pos, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: ", f.path, f.fset.Position(pos).Line) + fmt.Sprintf(format, args...)
}

type imported struct {
	path string
	name string // by which the file calls it
	pos  token.Pos
}

func (f file) imports() []imported {
	var all []imported
	for _, spec := range f.syntax.Imports {
		target, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue
		}
		name := path.Base(target)
		if target == goRedis {
			name = "redis"
		}
		if spec.Name != nil {
			name = spec.Name.Name
		}
		all = append(all, imported{target, name, spec.Pos()})
	}
	return all
}

// load reads the text files of a repository. It walks the tree instead of asking git, so that go test notices a new
// file and does not answer from its cache.
func load(t *testing.T, repo fs.FS) []file {
	t.Helper()
	var files []file
	var nested []string // directories of other modules
	err := fs.WalkDir(repo, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := path.Base(name)
		if entry.IsDir() {
			if strings.HasPrefix(base, ".") && !slices.Contains([]string{".", ".ci", ".github"}, base) {
				return fs.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() || base == ".git" { // in a worktree it is a file
			return nil
		}
		if base == "go.mod" && name != base {
			nested = append(nested, path.Dir(name))
		}
		text, err := fs.ReadFile(repo, name)
		if err != nil {
			return err
		}
		if !bytes.ContainsRune(text, 0) {
			files = append(files, file{path: name, text: string(text), fset: token.NewFileSet()})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range files {
		foreign := slices.ContainsFunc(nested, func(dir string) bool { return within(f.path, dir) })
		if f.ext() == ".go" && !foreign && !strings.Contains("/"+f.path, "/testdata/") {
			// A file that does not parse fails the build anyway; what could be parsed is checked.
			files[i].syntax, _ = parser.ParseFile(f.fset, f.path, f.text, parser.SkipObjectResolution)
		}
	}
	return files
}

func within(name, dir string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }

// A layer is a level of the architecture.
type layer string

const (
	leaf    layer = "an internal leaf"
	store   layer = "store"
	root    layer = "the root package"
	helper  layer = "embedded and carillontest"
	example layer = "an example"
	rig     layer = "a test rig"
	unknown layer = "no layer (add the directory to layerOf, with the rules it has to keep)"
)

// rigs are the internal packages for tests whose names do not end in test.
var rigs = []string{"audit", "faulthook", "faultnet", "mutants", "verify"}

func layerOf(dir string) layer {
	first, rest, _ := strings.Cut(dir, "/")
	second, _, _ := strings.Cut(rest, "/")
	switch {
	case dir == ".":
		return root
	case first == "store":
		return store
	case first == "embedded", first == "carillontest":
		return helper
	case first == "examples":
		return example
	case first == "faults", first == "internal" && (strings.HasSuffix(second, "test") || slices.Contains(rigs, second)):
		return rig
	case first == "internal":
		return leaf
	}
	return unknown
}

// mayImport lists what the production files of a layer may import from this module.
var mayImport = map[layer][]layer{
	leaf:    {leaf},
	store:   {leaf, store},
	root:    {leaf, store},
	helper:  {leaf, store, root, helper},
	example: {root, helper, example},
	rig:     {leaf, store, root, helper, rig},
}

func checkDirection(files []file) (violations []string) {
	for _, f := range files {
		if !f.production() {
			continue
		}
		from := layerOf(f.dir())
		for _, imp := range f.imports() {
			if !within(imp.path, module) {
				continue
			}
			dir := strings.TrimPrefix(strings.TrimPrefix(imp.path, module), "/")
			to := layerOf(path.Clean(dir))
			if !slices.Contains(mayImport[from], to) {
				violations = append(violations, f.violation(imp.pos, "%s imports %s, which is %s", from, imp.path, to))
			}
		}
	}
	return violations
}

// mayNeed lists the other modules that the production files of a layer may import. What these pull in themselves is
// their affair. Test rigs are not listed: they may use what they like.
var mayNeed = map[layer][]string{
	leaf:    {"github.com/robfig/cron/v3", "github.com/google/uuid"},
	store:   {goRedis, "github.com/google/uuid"},
	root:    {goRedis, "github.com/robfig/cron/v3", "github.com/google/uuid"},
	helper:  {goRedis, "github.com/alicebob/miniredis/v2"},
	example: {goRedis, "github.com/google/uuid"},
}

func checkDependencies(files []file) (violations []string) {
	for _, f := range files {
		from := layerOf(f.dir())
		if !f.production() || from == rig {
			continue
		}
		for _, imp := range f.imports() {
			first, _, _ := strings.Cut(imp.path, "/")
			switch {
			case within(imp.path, module):
			case !strings.Contains(first, "."): // the standard library
				if first == "testing" && within(imp.path, "testing") && !within(f.path, "carillontest") {
					violations = append(violations, f.violation(imp.pos, "%s imports %s outside of its tests", from, imp.path))
				}
			case !slices.ContainsFunc(mayNeed[from], func(m string) bool { return within(imp.path, m) }):
				violations = append(violations, f.violation(imp.pos, "%s may not depend on %s", from, imp.path))
			}
		}
	}
	return violations
}

func checkRedis(files []file) (violations []string) {
	for _, f := range files {
		if !f.production() {
			continue
		}
		for _, imp := range f.imports() {
			if !within(imp.path, path.Dir(goRedis)) {
				continue
			}
			switch layerOf(f.dir()) {
			case store, helper, example, rig: // they create clients, or know Redis
			case root:
				violations = append(violations, checkPassedOn(f, imp)...)
			default:
				violations = append(violations, f.violation(imp.pos, "%s imports %s", layerOf(f.dir()), imp.path))
			}
		}
	}
	return violations
}

// checkPassedOn finds what a file of the root does with go-redis beyond taking a redis.UniversalClient as a parameter
// and passing it on. It goes by names, so a file that imports go-redis cannot call anything else redis.
func checkPassedOn(f file, imp imported) (violations []string) {
	if imp.path != goRedis || imp.name == "." {
		return []string{f.violation(imp.pos, "the root imports %s as %s", imp.path, imp.name)}
	}
	isClient := func(expr ast.Expr) bool {
		pkg, name := selector(expr)
		return pkg == imp.name && name == "UniversalClient"
	}
	parameters := map[ast.Expr]bool{} // where the type may be named
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		var signature *ast.FuncType
		var body *ast.BlockStmt
		switch n := n.(type) {
		case *ast.FuncDecl:
			signature, body = n.Type, n.Body
		case *ast.FuncLit:
			signature, body = n.Type, n.Body
		default:
			return true
		}
		for _, param := range signature.Params.List {
			if !isClient(param.Type) {
				continue
			}
			parameters[param.Type] = true
			if body == nil {
				continue
			}
			for _, client := range param.Names {
				ast.Inspect(body, func(n ast.Node) bool {
					if expr, ok := n.(*ast.SelectorExpr); ok {
						if x, name := selector(expr); x == client.Name {
							violations = append(violations, f.violation(n.Pos(), "the root calls %s.%s", x, name))
						}
					}
					return true
				})
			}
		}
		return true
	})
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		if expr, ok := n.(*ast.SelectorExpr); ok && !parameters[expr] {
			if pkg, name := selector(expr); pkg == imp.name {
				violations = append(violations, f.violation(n.Pos(), "the root uses %s.%s other than as a parameter", pkg, name))
			}
		}
		return true
	})
	return violations
}

// selector splits x.name, where x is an identifier.
func selector(expr ast.Expr) (x, name string) {
	if sel, ok := expr.(*ast.SelectorExpr); ok {
		if ident, ok := sel.X.(*ast.Ident); ok {
			return ident.Name, sel.Sel.Name
		}
	}
	return "", ""
}

func checkSize(files []file) (violations []string) {
	limits := map[string]int{".go": 500, ".lua": 200}
	for _, f := range files {
		limit, limited := limits[f.ext()]
		if lines := strings.Count(f.text, "\n"); limited && !f.isTest() && lines > limit {
			violations = append(violations, fmt.Sprintf("%s: %d lines, the limit is %d", f.path, lines, limit))
		}
	}
	return violations
}

func checkSleep(files []file) (violations []string) {
	for _, f := range files {
		if f.syntax == nil || !f.isTest() {
			continue
		}
		imports := f.imports()
		if slices.ContainsFunc(imports, func(imp imported) bool { return imp.path == "testing/synctest" }) {
			continue // time.Sleep only moves the clock of the bubble
		}
		for _, imp := range imports {
			if imp.path != "time" {
				continue
			}
			ast.Inspect(f.syntax, func(n ast.Node) bool {
				if expr, ok := n.(*ast.SelectorExpr); ok {
					if pkg, name := selector(expr); pkg == imp.name && name == "Sleep" {
						violations = append(violations, f.violation(n.Pos(), "calls time.Sleep"))
					}
				}
				return true
			})
		}
	}
	return violations
}

// checkLuaHeader exempts store/lua/lib, whose fragments are parts of scripts.
func checkLuaHeader(files []file) (violations []string) {
	for _, f := range files {
		if f.dir() != "store/lua" || f.ext() != ".lua" {
			continue
		}
		var header strings.Builder
		for i, line := range strings.Split(f.text, "\n") {
			if i == 0 && strings.HasPrefix(line, "#!") {
				continue // flags
			}
			if !strings.HasPrefix(line, "--") {
				break
			}
			header.WriteString(line + "\n")
		}
		for _, word := range []string{"KEYS", "ARGV", "Returns", "Idempotent"} {
			if !strings.Contains(header.String(), word) {
				violations = append(violations, fmt.Sprintf("%s:1: the comment at the top does not name %s", f.path, word))
			}
		}
	}
	return violations
}

var (
	luaComment = regexp.MustCompile(`(?s:--\[\[.*?\]\])|--.*`)
	// A literal with a brace that is joined to something, or that formats something.
	luaHashTag = regexp.MustCompile(`"[^"\n]*\{[^"\n]*"\s*\.\.|'[^'\n]*\{[^'\n]*'\s*\.\.|` +
		`\.\.\s*"[^"\n]*\{|\.\.\s*'[^'\n]*\{|format\s*\(\s*("[^"\n]*|'[^'\n]*)\{`)
)

func checkLuaKeys(files []file) (violations []string) {
	for _, f := range files {
		if f.ext() != ".lua" {
			continue
		}
		for _, found := range luaHashTag.FindAllString(luaComment.ReplaceAllString(f.text, ""), -1) {
			violations = append(violations, fmt.Sprintf("%s: puts a hash tag together: %s", f.path, found))
		}
	}
	return violations
}

func checkMachinePaths(files []file) (violations []string) {
	// Joined here so that this file keeps its own rule.
	machine := []string{"/" + "work/", "/" + "tmp/studio"}
	for _, f := range files {
		for i, line := range strings.Split(f.text, "\n") {
			for _, prefix := range machine {
				if strings.Contains(line, prefix) {
					violations = append(violations, fmt.Sprintf("%s:%d: names %s", f.path, i+1, prefix))
				}
			}
		}
	}
	return violations
}

// A fixture is a small repository and what a rule has to say about it; nothing, when want is empty.
type fixture struct {
	name string
	file string
	text string
	want string
}

func try(t *testing.T, check func([]file) []string, fixtures []fixture) {
	t.Helper()
	for _, fix := range fixtures {
		t.Run(fix.name, func(t *testing.T) {
			repo := fstest.MapFS{
				fix.file:       {Data: []byte(fix.text)},
				"bench/go.mod": {Data: []byte("module bench\n")},
			}
			got := strings.Join(check(load(t, repo)), "\n")
			if !strings.Contains(got, fix.want) || (fix.want == "") != (got == "") {
				t.Errorf("got %q, want %q", got, fix.want)
			}
		})
	}
}

// importing is a Go file that imports the paths.
func importing(paths ...string) string {
	text := "package p\n"
	for _, p := range paths {
		text += fmt.Sprintf("import %q\n", p)
	}
	return text
}

func TestCheckDirection(t *testing.T) {
	const wrong = module + "/"
	try(t, checkDirection, []fixture{
		{"a leaf knows store", "internal/cron/c.go", importing(wrong + "store"), "internal/cron/c.go:2: an internal leaf imports"},
		{"a leaf knows the root", "internal/cron/c.go", importing(module), "which is the root package"},
		{"store knows the root", "store/s.go", importing(module), "store imports"},
		{"a part of store knows the root", "store/lua/s.go", importing(module), "store imports"},
		{"the root knows embedded", "scheduler.go", importing(wrong + "embedded"), "the root package imports"},
		{"the root knows a rig", "scheduler.go", importing(wrong + "internal/redistest"), "which is a test rig"},
		{"carillontest knows a rig", "carillontest/c.go", importing(wrong + "internal/faultnet"), "which is a test rig"},
		{"an example uses internals", "examples/a/main.go", importing(wrong + "internal/cron"), "which is an internal leaf"},
		{"nobody knows examples", "carillontest/c.go", importing(wrong + "examples/a"), "which is an example"},
		{"a new directory", "console/c.go", importing(module), "no layer"},
		{"downwards", "scheduler.go", importing(wrong+"store", wrong+"internal/cron"), ""},
		{"helpers", "carillontest/c.go", importing(module, wrong+"store", wrong+"embedded"), ""},
		{"tests are free", "store/s_test.go", importing(module, wrong+"internal/redistest"), ""},
		{"another module", "bench/b.go", importing(wrong + "internal/redistest"), ""},
		{"another module with our prefix", "store/s.go", importing(module + "-extra"), ""},
	})
}

func TestCheckDependencies(t *testing.T) {
	try(t, checkDependencies, []fixture{
		{"testify in the root", "scheduler.go", importing("github.com/stretchr/testify/require"), "scheduler.go:2: the root package may not"},
		{"miniredis in store", "store/s.go", importing("github.com/alicebob/miniredis/v2"), "store may not"},
		{"go-redis in a leaf", "internal/cron/c.go", importing(goRedis), "an internal leaf may not"},
		{"an extra of go-redis", "store/s.go", importing("github.com/redis/go-redis/extra/redisotel/v9"), "store may not"},
		{"testify in carillontest", "carillontest/c.go", importing("github.com/stretchr/testify/require"), "may not"},
		{"testing in the root", "scheduler.go", importing("testing/synctest"), "outside of its tests"},
		{"what the root needs", "scheduler.go", importing("time", goRedis, "github.com/robfig/cron/v3", "github.com/google/uuid"), ""},
		{"a package of a module", "store/s.go", importing(goRedis + "/maintnotifications"), ""},
		{"testing in carillontest", "carillontest/c.go", importing("testing", "github.com/alicebob/miniredis/v2"), ""},
		{"rigs are free", "internal/redistest/r.go", importing("testing", "github.com/stretchr/testify/require"), ""},
		{"tests are free", "scheduler_test.go", importing("testing", "github.com/stretchr/testify/require"), ""},
	})
}

func TestCheckRedis(t *testing.T) {
	in := func(code string) string { return importing(goRedis) + code }
	const newFunc = "func New(rdb redis.UniversalClient) *S "
	try(t, checkRedis, []fixture{
		{"a leaf", "internal/cron/c.go", importing(goRedis), "an internal leaf imports"},
		{"the root names another type", "s.go", in("var c *redis.Client"), "s.go:3: the root uses redis.Client"},
		{"the root makes a client", "s.go", in(newFunc + "{ redis.NewClient(nil) }"), "redis.NewClient"},
		{"the root compares an error", "s.go", in("func f(err error) bool { return err == redis.Nil }"), "redis.Nil"},
		{"the root keeps the client", "s.go", in("type S struct { rdb redis.UniversalClient }"), "other than as a parameter"},
		{"the root sends a command", "s.go", in(newFunc + "{ rdb.Get(nil, `k`) }"), "the root calls rdb.Get"},
		{"a closure sends a command", "s.go", in("var f = func(c redis.UniversalClient) { go func() { c.Ping(nil) }() }"), "c.Ping"},
		{"by another name", "s.go", "package p\nimport r \"" + goRedis + "\"\nvar e = r.Nil", "r.Nil"},
		{"by no name", "s.go", "package p\nimport . \"" + goRedis + "\"", "as ."},
		{"a part of go-redis", "s.go", importing(goRedis + "/maintnotifications"), "the root imports"},
		{"the root passes it on", "s.go", in(newFunc + "{ if rdb == nil { return nil }; return &S{store.Open(rdb)} }"), ""},
		{"store", "store/s.go", in("var c redis.Cmdable"), ""},
		{"a rig", "internal/faultnet/f.go", in("var h redis.Hook"), ""},
		{"tests are free", "s_test.go", in("var c = redis.NewClient(nil)"), ""},
	})
}

func TestCheckSize(t *testing.T) {
	try(t, checkSize, []fixture{
		{"a long file", "s.go", strings.Repeat("\n", 501), "s.go: 501 lines, the limit is 500"},
		{"a long script", "store/lua/lib/l.lua", strings.Repeat("\n", 201), "201 lines, the limit is 200"},
		{"another module", "bench/b.go", strings.Repeat("\n", 501), "501 lines"},
		{"just fits", "s.go", strings.Repeat("\n", 500), ""},
		{"a long test", "s_test.go", strings.Repeat("\n", 5000), ""},
	})
}

func TestCheckSleep(t *testing.T) {
	const sleeps = "func f() { time.Sleep(1) }"
	try(t, checkSleep, []fixture{
		{"a test", "s_test.go", importing("time") + sleeps, "s_test.go:3: calls time.Sleep"},
		{"by another name", "s_test.go", "package p\nimport clock \"time\"\nfunc f() { clock.Sleep(1) }", "calls time.Sleep"},
		{"as a value", "s_test.go", importing("time") + "var nap = time.Sleep", "calls time.Sleep"},
		{"in a bubble", "s_test.go", importing("time", "testing/synctest") + sleeps, ""},
		{"no test", "examples/a/main.go", importing("time") + sleeps, ""},
		{"something else called so", "s_test.go", importing("time") + "func f(c clock) { c.Sleep(1) }", ""},
		{"in a comment", "s_test.go", importing("time") + "// time.Sleep", ""},
	})
}

func TestCheckLuaHeader(t *testing.T) {
	const header = "-- KEYS: due\n-- ARGV: none\n--\n-- Returns: 1\n-- Idempotent: by ID\n"
	try(t, checkLuaHeader, []fixture{
		{"none", "store/lua/s.lua", "return KEYS[1]\n", "store/lua/s.lua:1: the comment at the top does not name KEYS"},
		{"one word short", "store/lua/s.lua", strings.Replace(header, "Idempotent", "Safe", 1), "does not name Idempotent"},
		{"too late", "store/lua/s.lua", "local x\n" + header, "does not name Returns"},
		{"complete", "store/lua/s.lua", header + "return 1\n", ""},
		{"after flags", "store/lua/s.lua", "#!lua flags=allow-oom\n" + header, ""},
		{"a fragment", "store/lua/lib/l.lua", "local x\n", ""},
	})
}

func TestCheckLuaKeys(t *testing.T) {
	try(t, checkLuaKeys, []fixture{
		{"before", "store/lua/s.lua", `local k = "cn:{" .. tag`, "store/lua/s.lua: puts a hash tag together"},
		{"after", "store/lua/lib/l.lua", `local k = ns ..'{a}'`, "puts a hash tag together"},
		{"on the next line", "store/lua/s.lua", "local k = '{'\n\t.. tag", "puts a hash tag together"},
		{"by format", "store/lua/s.lua", `local k = string.format("cn:{%s}", tag)`, "puts a hash tag together"},
		{"a table", "store/lua/s.lua", `local t = {"a" .. b, {c .. "d"}}`, ""},
		{"a comment", "store/lua/s.lua", "--[[ \"{\" .. a\n ]] -- '{' .. b", ""},
		{"a suffix", "store/lua/s.lua", `local k = KEYS[1] .. ":x"`, ""},
	})
}

func TestCheckMachinePaths(t *testing.T) {
	try(t, checkMachinePaths, []fixture{
		{"in prose", "docs/a.md", "see\n/" + "work/main", "docs/a.md:2: names"},
		{"in CI", ".ci/run", "cd /" + "tmp/studio", ".ci/run:1: names"},
		{"in another module", "bench/b.go", "// /" + "work/x", "bench/b.go:1: names"},
		{"other paths", "docs/a.md", "/var/lib/redis and work/x", ""},
		{"not text", "a.test", "\x00/" + "work/", ""},
		{"hidden", ".git/config", "/" + "work/main", ""},
		{"hidden, of a worktree", ".git", "/" + "work/main", ""},
	})
}

package faults_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A12, without running anything: what time.Now returned has a monotonic reading,
// by which Go compares and subtracts. It is lost, and the wall clock shows, where
// such a value becomes a number, text or another time zone, and where it meets a
// time that is not local, such as one of Redis. The engine does that in the
// places listed here only.
func TestA12_WallClockIsNotUsed(t *testing.T) {
	t.Parallel()
	allowed := map[string]bool{
		"instance.go: in.started.UnixMilli": true, // shown to people by Instances
		// These are local, though it takes more than one function to see it.
		"clock.go: now.Sub(asked)":                      true,
		"clock.go: time.Since(c.at)":                    true,
		"clock.go: time.Now().Before(o.until)":          true,
		"heartbeat.go: time.Until(in.trusted())":        true,
		"heartbeat.go: time.Now().Before(in.trusted())": true,
		"heartbeat.go: time.Now().Before(t)":            true, // in.trusted()
		"instance.go: now.Sub(at)":                      true, // of onceEach
		"submit.go: time.Since(at)":                     true, // of queuesKnown
	}
	reads := 0
	found := map[string]bool{}
	for _, dir := range []string{"..", "../store", "../internal/cron", "../internal/zone"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		require.NoError(t, err)
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
			require.NoError(t, err)
			for _, decl := range file.Decls {
				n, uses := wallClockUses(decl)
				reads += n
				for _, use := range uses {
					use = filepath.Base(name) + ": " + use
					assert.True(t, allowed[use], "%s may use the wall clock of the machine", use)
					found[use] = true
				}
			}
		}
	}
	assert.Greater(t, reads, 15, "the clock is read where it is expected")
	for use := range allowed {
		assert.True(t, found[use], "%s is not there any more", use)
	}
}

// wall are the methods of time.Time that look at the wall clock.
var wall = map[string]bool{
	"Unix": true, "UnixMilli": true, "UnixMicro": true, "UnixNano": true, "Format": true, "AppendFormat": true, "String": true,
	"UTC": true, "Local": true, "In": true, "Round": true, "Truncate": true, "AddDate": true, "Date": true, "Clock": true,
	"Year": true, "Month": true, "Day": true, "Hour": true, "Minute": true, "Second": true, "Nanosecond": true,
	"YearDay": true, "Weekday": true, "MarshalJSON": true, "MarshalText": true, "MarshalBinary": true,
}

// meets are the methods of time.Time by which two of them meet.
var meets = map[string]bool{"Sub": true, "Before": true, "After": true, "Compare": true, "Equal": true}

// local are fields that hold what time.Now returned; see wallClockUses.
var local = map[string]bool{
	"started": true, "alive": true, "renewed": true, "trimmed": true, "swept": true, "tended": true, "audited": true, "heard": true,
}

// wallClockUses finds, in one declaration, how often the local clock is read and
// where a reading is asked for the wall clock. It goes by names: what is
// assigned from an expression with time.Now in it, directly or over other names.
func wallClockUses(decl ast.Decl) (reads int, uses []string) {
	tainted := map[string]bool{}
	holds := func(root ast.Node) (yes bool) {
		ast.Inspect(root, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				switch name(n.Fun) {
				case "time.Now":
					yes = true
				case "time.Since", "time.Until": // durations
					return false
				}
				if s, ok := n.Fun.(*ast.SelectorExpr); ok && (s.Sel.Name == "Sub" || s.Sel.Name == "Before" || s.Sel.Name == "After") {
					return false // no times any more
				}
			case *ast.SelectorExpr:
				yes = yes || local[n.Sel.Name]
				return true
			case *ast.Ident:
				yes = yes || tainted[n.Name]
			}
			return true
		})
		return yes
	}
	for range 3 { // over other names
		reads, uses = 0, nil
		ast.Inspect(decl, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if call, ok := n.Rhs[0].(*ast.CallExpr); ok && strings.HasSuffix(name(call.Fun), ".Deadline") { // of a context
					tainted[name(n.Lhs[0])] = true
				}
				for i, target := range n.Lhs {
					id, ok := target.(*ast.Ident)
					if ok && len(n.Lhs) == len(n.Rhs) && holds(n.Rhs[i]) {
						tainted[id.Name] = true
					}
				}
			case *ast.CallExpr:
				if name(n.Fun) == "time.Now" {
					reads++
				}
				s, ok := n.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				switch {
				case wall[s.Sel.Name] && holds(s.X):
					uses = append(uses, name(s))
				case name(s) == "time.Since" || name(s) == "time.Until":
					if !holds(n.Args[0]) {
						uses = append(uses, name(s)+"("+name(n.Args[0])+")")
					}
				case meets[s.Sel.Name] && len(n.Args) == 1 && holds(s.X) != holds(n.Args[0]):
					uses = append(uses, name(s)+"("+name(n.Args[0])+")")
				}
			}
			return true
		})
	}
	return reads, uses
}

// name returns an expression of identifiers and dots, "time.Now".
func name(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return name(e.X) + "." + e.Sel.Name
	case *ast.CallExpr:
		return name(e.Fun) + "()"
	}
	return "…"
}

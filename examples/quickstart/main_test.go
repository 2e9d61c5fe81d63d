package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const want = `mail to Ada: sent in attempt 1
Ada's job has succeeded
Bob's job is scheduled
mail to Bob: the server is busy
mail to Bob: sent in attempt 2
Bob's job has succeeded
report: written
`

func TestQuickstart(t *testing.T) {
	begun := time.Now()
	out := printed(t, main)
	// A machine that stalls may come to a second tick before the end.
	assert.Equal(t, want, strings.TrimSuffix(out, strings.Repeat("report: written\n", strings.Count(out, "report")-1)))
	assert.GreaterOrEqual(t, time.Since(begun), time.Second, "delay, retry and schedule have their times")
}

// printed returns what f writes to standard output.
func printed(t *testing.T, f func()) string {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	stdout := os.Stdout
	os.Stdout = w
	defer func() { os.Stdout = stdout }()
	done := make(chan string)
	go func() {
		var out bytes.Buffer
		_, _ = io.Copy(&out, r)
		done <- out.String()
	}()
	f()
	require.NoError(t, w.Close())
	return <-done
}

// The quick start stays short, or it is none.
func TestMainIsShort(t *testing.T) {
	const limit = 25
	source, err := os.ReadFile("main.go")
	require.NoError(t, err)
	fset := token.NewFileSet()
	syntax, err := parser.ParseFile(fset, "main.go", source, parser.SkipObjectResolution)
	require.NoError(t, err)
	var from, to int // lines of main's braces
	for _, decl := range syntax.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Name.Name == "main" {
			from, to = fset.Position(f.Body.Lbrace).Line, fset.Position(f.Body.Rbrace).Line
		}
	}
	lines := map[int]bool{} // those with code
	var s scanner.Scanner
	file := fset.AddFile("again", -1, len(source))
	s.Init(file, source, nil, 0)
	for {
		pos, tok, _ := s.Scan()
		if tok == token.EOF {
			break
		}
		if line := file.Line(pos); line > from && line < to {
			lines[line] = true
		}
	}
	assert.NotEmpty(t, lines)
	assert.LessOrEqual(t, len(lines), limit)
}

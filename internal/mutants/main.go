// Mutants tests the tests: it makes one mistake at a time, in a copy that only
// the compiler sees, and runs the tests that have to find it.
//
//	go run ./internal/mutants           all of them
//	go run ./internal/mutants lease     those with "lease" in their name
//
// A mistake counts as caught when the tests compile, pass without it, and fail
// with it by an assertion: a failed build, a panic or a test that hangs says
// nothing about what the tests look at.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	atOnce = 2               // mutants that are tried at the same time
	limit  = 2 * time.Minute // of one run of tests
)

func main() {
	scratch, err := os.MkdirTemp("", "mutants-")
	if err == nil {
		err = errors.Join(try(scratch, strings.Join(os.Args[1:], " ")), os.RemoveAll(scratch))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// try tries the mutants with a text in their name.
func try(scratch, text string) error {
	var chosen []mutant
	sound := make(map[string]string) // the tests of a package, built without a mutant
	for _, m := range mutants {
		if !strings.Contains(m.name, text) {
			continue
		}
		chosen = append(chosen, m)
		if sound[m.pkg] == "" {
			sound[m.pkg] = filepath.Join(scratch, fmt.Sprint("sound", len(sound)))
			if err := build(m.pkg, sound[m.pkg]); err != nil {
				return err
			}
		}
	}
	survivors := make([]error, len(chosen))
	slots := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i, m := range chosen {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			began := time.Now()
			if survivors[i] = m.survives(filepath.Join(scratch, fmt.Sprint(i)), sound[m.pkg]); survivors[i] != nil {
				fmt.Printf("NOT CAUGHT: %s: %v\n", m.name, survivors[i])
				return
			}
			fmt.Printf("caught in %2.0f s: %s, by %s of %s\n", time.Since(began).Seconds(), m.name, m.run, m.pkg)
		})
	}
	all.Wait()
	caught := 0
	for _, err := range survivors {
		if err == nil {
			caught++
		}
	}
	fmt.Printf("mutants: %d of %d caught\n", caught, len(chosen))
	if caught < len(chosen) || caught == 0 {
		return errors.New("the tests do not find every mistake")
	}
	return nil
}

// survives returns nil when the tests catch the mutant. sound are the tests
// without it.
func (m mutant) survives(dir, sound string) error {
	overlay, err := m.overlay(dir)
	if err != nil {
		return err
	}
	out, err := m.test(sound)
	if err != nil {
		return fmt.Errorf("%s of %s fails without it:\n%s", m.run, m.pkg, out)
	}
	if !ran(out, strings.Count(m.run, "/")) {
		return fmt.Errorf("%s has no test %s", m.pkg, m.run)
	}
	binary := filepath.Join(dir, "tests")
	if err := build(m.pkg, binary, "-overlay", overlay); err != nil {
		return err
	}
	out, err = m.test(binary)
	switch {
	case err == nil:
		return fmt.Errorf("%s of %s passes", m.run, m.pkg)
	case !strings.Contains(out, "--- FAIL: "), strings.Contains(out, "panic: "):
		return fmt.Errorf("%s of %s ends without a failed assertion:\n%s", m.run, m.pkg, out)
	}
	return nil
}

// ran tells whether a test so deep has passed. A pattern that matches no subtest
// leaves a test that passes because it is empty.
func ran(out string, depth int) bool {
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "--- PASS: "); ok && strings.Count(name, "/") >= depth {
			return true
		}
	}
	return false
}

// overlay writes the mutated files, and a list of them for go test -overlay.
func (m mutant) overlay(dir string) (string, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	replace := make(map[string]string)
	for _, e := range m.edits {
		original, err := filepath.Abs(e.file)
		if err != nil {
			return "", err
		}
		from := original
		if replace[original] != "" {
			from = replace[original] // the second edit of a file
		}
		text, err := os.ReadFile(from) //nolint:gosec // a file of the table
		if err != nil {
			return "", err
		}
		if n := strings.Count(string(text), e.old); n != 1 {
			return "", fmt.Errorf("stale mutant: %q occurs %d times in %s", e.old, n, e.file)
		}
		replace[original] = filepath.Join(dir, strings.ReplaceAll(e.file, "/", "-"))
		if err := os.WriteFile(replace[original], []byte(strings.Replace(string(text), e.old, e.new, 1)), 0o600); err != nil { //nolint:gosec // as above
			return "", err
		}
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, list, 0o600)
}

// build compiles the tests of a package.
func build(pkg, binary string, flags ...string) error {
	args := append([]string{"test", "-c", "-o", binary}, flags...)
	out, err := exec.CommandContext(context.Background(), "go", append(args, pkg)...).CombinedOutput() //nolint:gosec // as above
	if err != nil {
		return fmt.Errorf("the tests of %s do not build: %w\n%s", pkg, err, out)
	}
	return nil
}

// test runs the mutant's tests.
func (m mutant) test(binary string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.run", m.run, "-test.v", "-test.failfast", "-test.timeout", limit.String()) //nolint:gosec // as above
	cmd.Dir = m.pkg
	out, err := cmd.CombinedOutput()
	return string(out), err
}

package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/carillon-go/carillon"
)

// report submits a job for every file below dir, waits for all of them and
// prints. It reports whether every file has a line.
func report(ctx context.Context, s *carillon.Scheduler, dir, run string, stdout, stderr io.Writer) (complete bool, err error) {
	begun := time.Now()
	files, missing, err := walk(dir)
	if err != nil {
		return false, err
	}
	if err := collect(ctx, s, run, files, stderr); err != nil {
		return false, err
	}
	out := bufio.NewWriter(stdout)
	lines := int64(0)
	for _, f := range files {
		if f.problem != "" {
			missing = append(missing, f)
			continue
		}
		fmt.Fprint(out, line(f.digest.SHA256, f.name))
		lines += f.digest.Lines
	}
	if err := out.Flush(); err != nil {
		return false, err
	}
	slices.SortFunc(missing, byName)
	for _, f := range missing {
		fmt.Fprintf(stderr, "digest: %s: %s\n", printable(f.name), f.problem)
	}
	fmt.Fprintf(stderr, "digest: %d files, %d lines, in %v\n", len(files), lines, time.Since(begun).Round(time.Millisecond))
	return len(missing) == 0, nil
}

// file is one line of the report.
type file struct {
	name    string // as it is printed
	path    string // absolute, for the workers
	job     string // ID
	digest  Digest
	problem string // why there is no digest
}

func byName(a, b *file) int { return cmp.Compare(a.name, b.name) }

// walk finds the regular files below dir, sorted by name. Names are those that
// find prints. missing are the directories that cannot be read.
func walk(dir string) (files, missing []*file, err error) {
	root, err := filepath.Abs(dir)
	if err != nil {
		return nil, nil, err
	}
	if info, err := os.Stat(root); err != nil {
		return nil, nil, err
	} else if !info.IsDir() {
		return nil, nil, fmt.Errorf("%s is not a directory", dir)
	}
	prefix := strings.TrimSuffix(dir, "/") + "/"
	// With a slash, because dir itself may be a symbolic link.
	err = filepath.WalkDir(root+string(filepath.Separator), func(path string, entry fs.DirEntry, err error) error {
		inside, _ := filepath.Rel(root, path)
		f := &file{name: prefix + inside, path: path}
		switch {
		case err != nil:
			f.problem = cause(err)
			missing = append(missing, f)
		case entry.Type().IsRegular():
			files = append(files, f)
		}
		return nil
	})
	slices.SortFunc(files, byName)
	return files, missing, err
}

func cause(err error) string {
	if e, ok := err.(*fs.PathError); ok { //nolint:errorlint // the text should not repeat the path
		return e.Err.Error()
	}
	return err.Error()
}

// line is what sha256sum prints for a file. A name that would break the line is
// escaped, and a backslash in front says so.
func line(sum, name string) string {
	escaped := strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`).Replace(name)
	if escaped != name {
		sum = `\` + sum
	}
	return sum + "  " + escaped + "\n"
}

// printable is for messages, in which a name cannot play tricks on a terminal.
func printable(name string) string {
	if quoted := fmt.Sprintf("%q", name); quoted != `"`+name+`"` {
		return quoted
	}
	return name
}

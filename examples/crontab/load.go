package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
)

// source says what is read and how.
type source struct {
	paths  []string // absolute; of files, and of directories with files
	format format
	strict bool // only what nobody but us can have written
}

// table is what the files of a source say.
type table struct {
	entries  []entry
	problems []string
	unread   []string // paths of which we do not know what they say
}

const maxFile = 1 << 20

// fileName matches what is read in a directory: what run-parts would take. That
// leaves out what editors and dpkg put beside a file.
var fileName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// load reads all files.
func (s source) load() table {
	var t table
	for _, path := range s.paths {
		info, err := os.Stat(path)
		if err == nil && info.IsDir() {
			t.loadDir(path, s)
		} else {
			t.loadFile(path, s)
		}
	}
	return t
}

func (t *table) loadDir(dir string, s source) {
	names, err := os.ReadDir(dir)
	if err != nil {
		t.unread = append(t.unread, dir)
		t.problems = append(t.problems, err.Error())
		return
	}
	for _, name := range names {
		path := filepath.Join(dir, name.Name())
		info, err := os.Stat(path) // of what a link leads to
		if fileName.MatchString(name.Name()) && (err != nil || info.Mode().IsRegular()) {
			t.loadFile(path, s)
		}
	}
}

func (t *table) loadFile(path string, s source) {
	text, err := s.read(path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			t.unread = append(t.unread, path)
		}
		t.problems = append(t.problems, err.Error())
		return
	}
	entries, problems := parse(path, text, s.format)
	t.entries = append(t.entries, entries...)
	t.problems = append(t.problems, problems...)
}

func (s source) read(path string) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // as the arguments say
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && s.strict {
		err = trusted(info)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s: is longer than %d bytes", path, maxFile)
	}
	return text, err
}

// covers tells whether a file is one of those that the table stands for, so that
// what the table does not have of it is not wanted any more.
func (s source) covers(t table, file string) bool {
	dir := filepath.Dir(file)
	ours := slices.Contains(s.paths, file) || slices.Contains(s.paths, dir)
	return ours && !slices.Contains(t.unread, file) && !slices.Contains(t.unread, dir)
}

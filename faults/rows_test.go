package faults_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// rows are the faults that docs/faults.md promises to try.
const rows = `A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A11 A12 A14 A15 A16 A17
	B1 B2 B3 B4 B5 B6 B7 B8 B9 B10 B11 B12 B14 B16 B17 B18 B19
	C1 C2 C3 C4 C5 C6 C7 C8 D1 D2 D3 D5 E1 E2 E3 E4 E5 E6
	F1 F2 F3 F4 F5 F6 F7 F8 G1 G2 G3 G4 G5 G6 G7 G8 H8 H9 H10 H11 H12`

// Every row is in the table of docs/faults.md, and names tests that exist.
func TestRowsHaveTests(t *testing.T) {
	t.Parallel()
	tests := map[string]bool{}
	root := os.DirFS("..")
	require.NoError(t, fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := fs.ReadFile(root, path)
		for _, found := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(text, -1) {
			tests[string(found[1])] = true
		}
		return err
	}))
	page, err := os.ReadFile(filepath.Join("..", "docs", "faults.md"))
	require.NoError(t, err)
	listed := map[string]string{}
	for line := range strings.Lines(string(page)) {
		if cells := strings.SplitN(line, "|", 4); len(cells) == 4 {
			listed[strings.TrimSpace(cells[1])] = cells[3]
		}
	}
	for _, row := range strings.Fields(rows) {
		named := regexp.MustCompile("`(Test\\w+)").FindAllStringSubmatch(listed[row], -1)
		assert.NotEmptyf(t, named, "row %s has no test", row)
		for _, n := range named {
			assert.Truef(t, tests[n[1]], "row %s: there is no %s", row, n[1])
		}
	}
}

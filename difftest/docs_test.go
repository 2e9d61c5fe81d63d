package difftest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDocument holds the documentation to the classes: every one has its line under the name of the implementation, and
// every line its class.
func TestDocument(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../docs/schedules*.md")
	require.NoError(t, err)
	listed := map[string][]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		heading := ""
		for line := range strings.Lines(string(text)) {
			if after, ok := strings.CutPrefix(line, "#"); ok {
				heading = strings.TrimSpace(strings.TrimLeft(after, "#"))
			}
			if cells := strings.Split(line, " | "); strings.HasPrefix(line, "| ") && len(cells) == 3 {
				listed[heading] = append(listed[heading], strings.TrimPrefix(cells[0], "| "))
			}
		}
	}
	want := map[string][]string{}
	for _, c := range append(slices.Clone(classes), ofRFC) {
		want[c.oracle] = append(want[c.oracle], c.name)
	}
	for oracle, names := range want {
		assert.ElementsMatch(t, append([]string{"what it does"}, names...), listed[oracle], oracle)
	}
}

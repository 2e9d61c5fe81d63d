package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A mutant whose text is not there any more would be found stale only by `make mutants`.
func TestMutantsApply(t *testing.T) {
	texts := map[string]string{}
	for _, m := range mutants {
		for _, e := range m.edits {
			text, read := texts[e.file]
			if !read {
				data, err := os.ReadFile(filepath.Join("..", "..", e.file))
				require.NoError(t, err)
				text = string(data)
			}
			assert.Equal(t, 1, strings.Count(text, e.old), "%s: %q in %s", m.name, e.old, e.file)
			texts[e.file] = strings.Replace(text, e.old, e.new, 1) // for its next edit
		}
		clear(texts)
	}
}

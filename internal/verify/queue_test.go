package verify

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
)

// A try that surely stored nothing says nothing about the one before it.
func TestRefusedJobsAreNotThere(t *testing.T) {
	t.Parallel()
	refused := fmt.Errorf("submit: %w", carillon.ErrUnavailable)
	unknown := fmt.Errorf("submit: %w", carillon.ErrUncertain)
	for name, c := range map[string]struct {
		tries   []error
		phantom bool
	}{
		"refused":                   {[]error{refused}, true},
		"refused twice":             {[]error{refused, refused}, true},
		"unknown, then refused":     {[]error{unknown, refused}, false},
		"refused, then accepted":    {[]error{refused, nil}, false},
		"unknown, refused, then in": {[]error{unknown, refused, nil}, false},
	} {
		var q Queue
		for _, err := range c.tries {
			q.Submitted("a", err)
		}
		v, err := q.Judge(nil, func(string) (*carillon.JobInfo, error) {
			return &carillon.JobInfo{State: carillon.StateFailed}, nil
		})
		require.NoError(t, err)
		assert.Equal(t, c.phantom, len(v.Phantom) > 0, name)
	}
}

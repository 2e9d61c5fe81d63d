package carillon

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What is JSON already becomes what json.Marshal makes of it, however it is encoded.
func TestRawJSONIsEncodedLikeAnyOther(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		`null`, `1`, `"text"`, `[1,2,{"a":[]}]`, // as they are
		` 1`, "[1,\t2]", "{\r\n}", `"with space"`, `"<&>"`, "\"\u2028\u2029\"", `"é and €"`, // rewritten
		"\"\xff\"", "\"\xe2\"", // not UTF-8
	} {
		want, err := json.Marshal(json.RawMessage(raw))
		require.NoError(t, err, raw)
		got, err := encode("Args", json.RawMessage(raw), 100)
		require.NoError(t, err, raw)
		assert.Equal(t, string(want), string(got))
	}
	for _, raw := range []string{``, `{`, `"`, `1,2`, "\"\n\"", `nul`} {
		_, err := encode("Args", json.RawMessage(raw), 100)
		assert.ErrorContains(t, err, "Args: cannot be encoded as JSON", raw)
	}
	got, err := encode("Args", json.RawMessage(nil), 100)
	require.NoError(t, err)
	assert.Equal(t, "null", string(got))
}

// The job is still to be encrypted, or submitted again, when the caller's bytes may change.
func TestRawJSONIsNotShared(t *testing.T) {
	t.Parallel()
	raw := json.RawMessage(`[1]`)
	got, err := encode("Args", raw, 100)
	require.NoError(t, err)
	raw[1] = '2'
	assert.Equal(t, `[1]`, string(got))
}

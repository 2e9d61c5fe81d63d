package store

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon/internal/redistest"
)

// A heartbeat names the live instances when they are not those it named before,
// and at no other time.
func TestCensus(t *testing.T) {
	t.Parallel()
	rdb := redistest.Shared(t).Client(t)
	s := open(t, rdb, Options{})
	queues := []string{DefaultQueue}
	beat := func(instance, census string) Pulse {
		t.Helper()
		p, errs := s.Heartbeat(t.Context(), instance, time.Minute, queues, 0, nil, census)
		require.NoError(t, Distinct(errs))
		return p
	}
	join := func(instance string) {
		t.Helper()
		_, err := s.Join(t.Context(), instance, time.Minute, []byte(`{}`), queues)
		require.NoError(t, err)
	}
	lapse := func(instance string) {
		t.Helper()
		require.NoError(t, rdb.ZAdd(t.Context(), s.segments[0].workers(), z(1, instance)).Err())
	}
	join("a")
	census := ""
	hears := func(what string, live ...string) {
		t.Helper()
		p := beat("a", census)
		assert.ElementsMatch(t, live, p.Live, what)
		assert.NotEmpty(t, p.Census)
		census = p.Census
		p = beat("a", census)
		assert.Empty(t, p.Live, "%s is no news any more", what)
		assert.Equal(t, census, p.Census)
	}
	hears("the first", "a")
	join("b")
	join("c")
	hears("two more", "a", "b", "c")
	join("c")
	assert.Empty(t, beat("a", census).Live, "one that was there joins again")
	require.NoError(t, s.Leave(t.Context(), "b", queues))
	hears("one fewer", "a", "c")
	require.NoError(t, s.Leave(t.Context(), "c", queues))
	join("d")
	hears("another in the place of one", "a", "d")
	join("e")
	lapse("e")
	hears("one that has lapsed", "a", "d")
	beat("e", "")
	lapse("d")
	hears("one comes back while another lapses", "a", "e")

	require.NoError(t, rdb.Del(t.Context(), s.segments[0].instances()).Err())
	require.NoError(t, rdb.Set(t.Context(), s.segments[0].instances(), "foreign", 0).Err())
	for range 2 {
		p := beat("a", census)
		assert.ElementsMatch(t, []string{"a", "e"}, p.Live, "a foreign key in the place of what tells")
		census = p.Census
	}
}

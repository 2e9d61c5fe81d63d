package main

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// tinyRun measures the scenarios with 100 jobs.
func tinyRun(t *testing.T, chosen, invited string) *bench {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("redis-server is not installed")
	}
	b := &bench{size: tiny, rounds: 1, progress: t.Output()}
	stop, err := b.invite(t.Context(), io.Discard, regexp.MustCompile(invited))
	require.NoError(t, err)
	t.Cleanup(stop)
	require.NoError(t, b.all(t.Context(), regexp.MustCompile(chosen)))
	return b
}

// Every scenario has figures of every contestant that can take part.
func TestScenarios(t *testing.T) {
	chosen := "^(submit|drain|sustained|retry|payload|redis-time|bytes|parked|rtt|cluster)"
	if testing.Short() {
		chosen = "^(submit|drain|retry|bytes)"
	}
	b := tinyRun(t, chosen, "carillon|asynq|gocraft|floor")
	for scenario, names := range map[string]string{
		"submit/bulk":         "carillon asynq gocraft floor",
		"submit/single/16":    "carillon asynq gocraft floor",
		"drain/1":             "carillon asynq gocraft floor",
		"drain/4":             "carillon asynq gocraft floor",
		"sustained":           "carillon asynq gocraft floor",
		"payload/64KiB/drain": "carillon asynq gocraft floor",
		"redis-time/drain":    "carillon asynq gocraft floor",
		"bytes/queued":        "carillon asynq gocraft floor",
		"bytes/scheduled":     "carillon asynq gocraft",
		"bytes/finished":      "carillon asynq",
		"retry-storm":         "carillon asynq-eager gocraft",
		"rtt-1ms/drain":       "carillon asynq gocraft floor",
		"cluster/3":           "carillon asynq",
		"parked/1000":         "carillon asynq gocraft",
	} {
		if !regexp.MustCompile(chosen).MatchString(scenario) {
			continue
		}
		for _, c := range b.contestants {
			found := ""
			for _, w := range b.results.rows {
				if w.Scenario == scenario && w.Contestant == c.name {
					found = w.Unit
					if !strings.HasPrefix(scenario, "bytes") { // of 100 jobs they drown
						assert.Positive(t, w.Median, "%s %s %s", scenario, c.name, w.Unit)
					}
				}
			}
			part := strings.Contains(" "+names+" ", " "+c.name+" ")
			assert.Equal(t, part, found != "", "%s of %s", scenario, c.name)
		}
	}
}

func TestLatency(t *testing.T) {
	b := tinyRun(t, "^(pickup|lateness|burst|idle|schedules)", "carillon")
	for _, scenario := range []string{"pickup", "lateness", "burst/100", "schedules/100", "schedules/100/parked=100"} {
		p50, longest := b.results.find(scenario, ours, "p50 ms"), b.results.find(scenario, ours, "max ms")
		require.NotNil(t, p50, scenario)
		assert.Positive(t, p50.Median, scenario)
		assert.GreaterOrEqual(t, longest.Median, p50.Median, scenario)
	}
	require.NotNil(t, b.results.find("idle/1", ours, "commands/s"))
}

func TestRiver(t *testing.T) {
	if testing.Short() {
		t.Skip("a database cluster takes seconds to make")
	}
	if postgresPrograms() == "" {
		t.Skip("PostgreSQL is not installed")
	}
	b := tinyRun(t, "^(submit|drain|retry|lateness)", "river")
	for _, scenario := range []string{"submit/bulk", "submit/single/1", "drain/1", "retry-storm"} {
		w := b.results.find(scenario, "river", "jobs/s")
		require.NotNil(t, w, scenario)
		assert.Positive(t, w.Median, scenario)
	}
}

// A contestant that fails is told of, and does not keep others from being measured.
func TestFailureIsTold(t *testing.T) {
	broken := errors.New("broken")
	b := &bench{size: tiny, rounds: 1, progress: io.Discard, contestants: []*contestant{
		{name: "asynq", open: func(context.Context, place) (queue, error) { return nil, broken }}, floorContestant(),
	}}
	b.results.add("drain/1", ours, "jobs/s", 1)
	err := b.measure(t.Context(), &scenario{name: "s", run: func(t *trial) error {
		if t.who.name == "floor" {
			t.put("s", "u", 1)
			return nil
		}
		_, err := t.openAt(place{})
		return err
	}}, 2)
	require.ErrorIs(t, err, broken)
	assert.NotNil(t, b.results.find("s", "floor", "u"))
	assert.Nil(t, b.results.find("s", "asynq", "u"))
}

func TestMedian(t *testing.T) {
	var r results
	for _, v := range []float64{5, 1, 9} {
		r.add("s", "c", "u", v)
	}
	assert.InDelta(t, 5, r.find("s", "c", "u").Median, 0)
	r.add("s", "c", "u", 2)
	w := r.find("s", "c", "u")
	assert.Equal(t, []float64{3.5, 1, 9}, []float64{w.Median, w.Min, w.Max})
}

func TestPayloadSize(t *testing.T) {
	for _, size := range []int{standardPayload, 1 << 10, 64 << 10} {
		due := time.UnixMilli(1_800_000_000_123)
		p := payload(size, due)
		assert.True(t, len(p) == size && len(payload(size, time.Time{})) == size, size) // which prints no 64 KiB
		got, err := dueOf(p)
		require.NoError(t, err)
		assert.True(t, due.Equal(got))
	}
}

func TestGoals(t *testing.T) {
	var r results
	r.add("drain/1", ours, "jobs/s", 100)
	r.add("drain/1", "asynq", "jobs/s", 11)
	r.add("drain/1", "floor", "jobs/s", 200)
	r.add("lateness", ours, "p99 ms", 12)
	var out strings.Builder
	r.printGoals(&out)
	assert.Regexp(t, `drain, of asynq +9.09 +≥ 10.0 × +missed`, out.String())
	assert.Regexp(t, `drain, of the floor +0.5 +≥ 0.45 × +met`, out.String())
	assert.Regexp(t, `lateness p99 +12.0 +≤ 10.0 ms +missed`, out.String())
	assert.NotContains(t, out.String(), "sustained", "what was not measured is not judged")
}

func TestPlots(t *testing.T) {
	r := &report{Contestants: []participant{{Name: ours}, {Name: "asynq"}}, results: &results{}}
	r.results.add("drain/1", ours, "jobs/s", 120_000)
	r.results.add("drain/1", "asynq", "jobs/s", 12_000)
	r.results.add("pickup", ours, "p50 ms", 0.4)
	r.results.add("pickup", "asynq", "p50 ms", -3)
	dir := t.TempDir()
	require.NoError(t, r.draw(dir))
	for name, want := range map[string]int{"throughput.svg": 2, "latency.svg": 1} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.NoError(t, xml.Unmarshal(text, new(struct{})))
		assert.Equal(t, want, strings.Count(string(text), "<title>"), name)
		assert.NotContains(t, string(text), "NaN")
	}
	assert.NoFileExists(t, filepath.Join(dir, "parked.svg"), "nothing of it was measured")
}

func TestTicksEnclose(t *testing.T) {
	for _, log := range []bool{false, true} {
		for _, most := range []float64{0.7, 1, 9, 10, 99, 120_000, 850_000} {
			p := &plot{log: log, series: []series{{values: []float64{most / 7, math.NaN(), most}}}}
			ticks := p.ticks()
			assert.GreaterOrEqual(t, len(ticks), 2)
			assert.LessOrEqual(t, len(ticks), 12)
			assert.LessOrEqual(t, ticks[0], most/7*1.001)
			assert.GreaterOrEqual(t, ticks[len(ticks)-1], most)
		}
	}
}

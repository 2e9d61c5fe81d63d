package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write testdata/*.golden")

// debian is a copy of Debian's own files.
func debian(t testing.TB) source {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("testdata", "debian", "etc"))
	require.NoError(t, err)
	return source{
		paths:  []string{filepath.Join(root, "crontab"), filepath.Join(root, "cron.d")},
		format: format{zone: "UTC"},
	}
}

// The planned times of Debian's own crontabs are, for every minute of more than
// a year, those of the other implementation, and so are lines, users and
// commands.
func TestDebiansCrontabs(t *testing.T) {
	t.Parallel()
	s := debian(t)
	tab := s.load()
	require.Empty(t, tab.problems)

	var other []vixie
	var file []string // of which it is
	names, err := filepath.Glob(filepath.Join(s.paths[1], "*"))
	require.NoError(t, err)
	for _, name := range append([]string{s.paths[0]}, names...) {
		if strings.Contains(filepath.Base(name), ".") {
			continue
		}
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		for _, e := range readVixie(string(text), true) {
			other, file = append(other, e), append(file, name)
		}
	}
	require.Len(t, tab.entries, len(other))
	require.Greater(t, len(other), 20)
	for i, e := range tab.entries {
		assert.Equal(t, fmt.Sprint(file[i], other[i].line, other[i].user), fmt.Sprint(e.file, e.line, e.task.User))
		assert.Equal(t, strings.ReplaceAll(strings.ReplaceAll(other[i].command, `\%`, "%"), `\\`, `\`), e.task.Command)
		assert.Equal(t, other[i].reboot, e.when == reboot)
	}

	for _, c := range []struct {
		zone   string
		months []time.Month // from January 2026 on
	}{
		{"UTC", []time.Month{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}},
		{"Europe/Berlin", []time.Month{3, 10}},       // 2:00 is 3:00, 3:00 is 2:00
		{"America/New_York", []time.Month{3, 11}},    // 2:00 is 3:00, 2:00 is 1:00
		{"Africa/Cairo", []time.Month{4, 10}},        // 0:00 is 1:00, 0:00 is 23:00
		{"Australia/Lord_Howe", []time.Month{4, 10}}, // by half an hour
	} {
		s.format.zone = c.zone
		tab := s.load()
		require.Empty(t, tab.problems)
		zone, err := time.LoadLocation(c.zone)
		require.NoError(t, err)
		for _, month := range c.months {
			from := time.Date(2026, month, 1, 0, 0, 0, 0, zone)
			until := from.AddDate(0, 1, 0)
			got := map[time.Time][]string{}
			all, err := plan(tab, from, until)
			require.NoError(t, err)
			for _, p := range all {
				got[p.at.UTC()] = append(got[p.at.UTC()], fmt.Sprintf("%s:%d", p.entry.file, p.entry.line))
			}
			want := runVixie(other, zone, from.UTC(), until)
			require.Greater(t, len(want), 40_000, "a line that runs each minute is among them")
			for at := from.UTC(); at.Before(until); at = at.Add(time.Minute) {
				var lines []string
				for _, i := range want[at] {
					lines = append(lines, fmt.Sprintf("%s:%d", file[i], other[i].line))
				}
				slices.Sort(lines)
				slices.Sort(got[at])
				require.Equal(t, lines, got[at], "%v", at.In(zone))
				delete(got, at)
			}
			require.Empty(t, got, "cron runs nothing then")
		}
	}
}

// Any line that cron takes is planned as cron does it.
func TestPlanIsCrons(t *testing.T) {
	t.Parallel()
	item := func(low, high int, names string) *rapid.Generator[string] {
		return rapid.Custom(func(t *rapid.T) string {
			number := rapid.IntRange(low, high)
			step := rapid.SampledFrom([]string{"", "", fmt.Sprintf("/%d", rapid.IntRange(1, high).Draw(t, "step"))})
			switch a, b := number.Draw(t, "a"), number.Draw(t, "b"); rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				return "*" + step.Draw(t, "step")
			case 1:
				return fmt.Sprintf("%d-%d%s", min(a, b), max(a, b), step.Draw(t, "step"))
			case 2:
				if list := strings.Fields(names); len(list) > 0 {
					return rapid.SampledFrom(list).Draw(t, "name")
				}
			}
			return fmt.Sprint(number.Draw(t, "number"))
		})
	}
	field := func(low, high int, names string) *rapid.Generator[string] {
		list := rapid.SliceOfN(item(low, high, names), 1, 3)
		return rapid.Map(list, func(items []string) string { return strings.Join(items, ",") })
	}
	minute, hour, date := field(0, 59, ""), field(0, 23, ""), field(1, 31, "")
	month, weekday := field(1, 12, "jan Feb MAR dec"), field(0, 7, "sun Mon FRI sat")
	blank := rapid.SampledFrom([]string{" ", "\t", "  "})
	refused := 0
	rapid.Check(t, func(t *rapid.T) {
		var line strings.Builder
		for _, f := range []*rapid.Generator[string]{minute, hour, date, month, weekday} {
			line.WriteString(f.Draw(t, "field") + blank.Draw(t, "blank"))
		}
		line.WriteString("true\n")
		other := readVixie(line.String(), false)
		require.Len(t, other, 1)
		entries, problems := parse("f", []byte(line.String()), format{user: "u", zone: "UTC"})
		from := time.Date(2027, time.Month(rapid.IntRange(1, 12).Draw(t, "month")), rapid.IntRange(1, 28).Draw(t, "day"), 0, 0, 0, 0, time.UTC)
		until := from.AddDate(0, 0, 9)
		if len(problems) > 0 { // only what never comes may be refused
			refused++
			for at := from; at.Before(until); at = at.Add(time.Minute) {
				require.False(t, other[0].due(at), "%s: %v", problems[0], at)
			}
			return
		}
		got, err := plan(table{entries: entries}, from, until)
		require.NoError(t, err)
		n := 0
		for at := from; at.Before(until); at = at.Add(time.Minute) {
			if other[0].due(at) {
				require.True(t, n < len(got) && got[n].at.Equal(at), "%q at %v", line.String(), at)
				n++
			}
		}
		require.Len(t, got, n, line.String())
	})
	assert.Less(t, refused, 50)
}

func TestList(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := debian(t)
	require.NoError(t, list(&out, s.load(), time.Date(2026, 3, 1, 6, 0, 0, 0, time.UTC), time.Date(2026, 3, 1, 7, 0, 0, 0, time.UTC)))
	got := strings.ReplaceAll(out.String(), filepath.Dir(s.paths[0]), "/etc")
	golden := filepath.Join("testdata", "list.golden")
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(got), 0o600))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	assert.Equal(t, string(want), got, "run it with -update")
	assert.Error(t, list(full{}, s.load(), time.Now(), time.Now()))
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// shown is what a test compares: line, times, zone, and task.
func (e entry) shown() string {
	s := fmt.Sprintf("%d [%s %s] %s: %s", e.line, e.when, e.zone, e.task.User, e.task.Command)
	if e.task.Stdin != "" {
		s += fmt.Sprintf(" < %q", e.task.Stdin)
	}
	return strings.Join(append([]string{s}, e.task.Env...), " ")
}

func TestParse(t *testing.T) {
	t.Parallel()
	own := format{user: "ada", zone: "UTC"}
	for _, c := range []struct {
		name, text string
		format     format
		want       []string
		problems   []string
	}{
		{name: "nothing", format: own},
		{name: "comments and blank lines", format: own, text: "# a\n\n \t\n  # b\n"},
		{
			name: "a user's crontab", format: own,
			text: "\t 5 4\t* *  1-5 \techo  a # b \n",
			want: []string{"1 [5 4 * * 1-5 UTC] ada: echo  a # b "},
		},
		{
			name: "a system crontab", format: format{zone: "UTC"},
			text: "5 4 * * * root\techo a\n@daily www-data x\n@reboot\troot\ty\n",
			want: []string{"1 [5 4 * * * UTC] root: echo a", "2 [@daily UTC] www-data: x", "3 [@reboot UTC] root: y"},
		},
		{
			name: "seconds", format: format{user: "ada", zone: "UTC", seconds: true},
			text: "*/2 0 0 * * * x\n@hourly y\n0 0 * * * *\n",
			want: []string{"1 [*/2 0 0 * * * UTC] ada: x", "2 [@hourly UTC] ada: y"},
			problems: []string{
				"f:3: the line ends before the time; expected 6 time fields, and a command",
			},
		},
		{
			name: "variables are for the lines after them", format: own,
			text: "@daily a\nA=1\nB = x  y \n@daily b\n\"C D\"='  z '\nA=\"\"\n@daily c\n E=a\"b\n'F'\t= \"it's\"\n@daily d\n",
			want: []string{
				"1 [@daily UTC] ada: a",
				"4 [@daily UTC] ada: b A=1 B=x  y",
				"7 [@daily UTC] ada: c A= B=x  y C D=  z ",
				`10 [@daily UTC] ada: d A= B=x  y C D=  z  E=a"b F=it's`,
			},
		},
		{
			name: "what only looks like a variable", format: format{zone: "UTC"},
			text: "* * * * * root A=1 b\n",
			want: []string{"1 [* * * * * UTC] root: A=1 b"},
		},
		{
			name: "wrong variables", format: own,
			text: "A=\nB='x\nC=\"x\" y\n=d\nD='\n@daily a\n",
			want: []string{"6 [@daily UTC] ada: a"},
			problems: []string{
				`f:1: A has no value; write A="" for an empty one`,
				"f:2: the value of B begins with ' and has to end with the next one",
				`f:3: the value of C begins with " and has to end with the next one`,
				`f:4: the line ends before the time; expected 5 time fields, and a command`,
				"f:5: the value of D begins with ' and has to end with the next one",
			},
		},
		{
			name: "zones", format: own,
			text: "@daily a\nCRON_TZ=Asia/Shanghai\n@daily b\nCRON_TZ=\"\"\n@daily c\nCRON_TZ=Mars\n@daily d\nCRON_TZ=UTC\n@daily e\n",
			want: []string{
				"1 [@daily UTC] ada: a", "3 [@daily Asia/Shanghai] ada: b CRON_TZ=Asia/Shanghai",
				"5 [@daily UTC] ada: c CRON_TZ=", "9 [@daily UTC] ada: e CRON_TZ=UTC",
			},
			problems: []string{`f:7: … unknown time zone "Mars"`},
		},
		{
			name: "percent signs", format: own,
			text: "@daily date +\\%s\n@daily mail joe%Joe,%%Where?%\n@daily cat%a\\%b\\c%\\\\%\n@daily a\\b \\\\ \\\"%\n@daily x%\\\n@daily y\\\n",
			want: []string{
				"1 [@daily UTC] ada: date +%s",
				`2 [@daily UTC] ada: mail joe < "Joe,\n\nWhere?\n"`,
				`3 [@daily UTC] ada: cat < "a%b\\c\n\\%\n"`,
				`4 [@daily UTC] ada: a\b \ \"`,
				`5 [@daily UTC] ada: x < "\\\n"`,
				`6 [@daily UTC] ada: y\`,
			},
		},
		{
			name: "wrong lines do not stop good ones", format: format{zone: "UTC"},
			text: "@daily root a\n61 * * * * root b\n@fortnightly root c\n* * * *\n* * * * * root\n* * * * * * root d\n@daily root\n@daily root e\n",
			want: []string{"1 [@daily UTC] root: a", "8 [@daily UTC] root: e"},
			problems: []string{
				"f:2: … 61 is above 59",
				"f:3: … unknown macro @fortnightly",
				"f:4: the line ends before the time; expected 5 time fields, the user, and a command",
				"f:5: the line ends before the command; expected 5 time fields, the user, and a command",
				"f:6: the command begins with *, as if there were more than 5 time fields",
				"f:7: the line ends before the command; expected a macro, the user, and a command",
			},
		},
		{
			name: "a column too many", format: own,
			text:     "* * * * * * a\n",
			problems: []string{"f:1: the command begins with *, as if there were more than 5 time fields"},
		},
		{
			name: "text that would become another command", format: own,
			text: "@daily a\r\n@daily \xff\n@daily \x00\n@daily b\n@daily rm -rf /tmp/",
			want: []string{"4 [@daily UTC] ada: b"},
			problems: []string{
				"f:1: the line ends in a carriage return", "f:2: the line is not UTF-8 text", "f:3: the line is not UTF-8 text",
				"f:5: the last line does not end in a newline, so a part of it may be missing; add one",
			},
		},
		{name: "a comment without a newline", format: own, text: "@daily a\n#", want: []string{"1 [@daily UTC] ada: a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			entries, problems := parse("f", []byte(c.text), c.format)
			var got []string
			for _, e := range entries {
				got = append(got, e.shown())
			}
			assert.Equal(t, c.want, got)
			require.Len(t, problems, len(c.problems), "%q", problems)
			for i, want := range c.problems {
				begin, more, _ := strings.Cut(want, "…")
				assert.True(t, strings.HasPrefix(problems[i], begin) && strings.Contains(problems[i], more), "%s\ninstead of\n%s", problems[i], want)
			}
		})
	}
}

// The name of a schedule says what a line says: not where it is.
func TestNames(t *testing.T) {
	t.Parallel()
	names := func(file, text string) (all []string) {
		entries, problems := parse(file, []byte(text), format{user: "ada", zone: "UTC"})
		assert.Empty(t, problems)
		for _, e := range entries {
			all = append(all, e.name())
		}
		return all
	}
	before := names("/etc/cron.d/f", "@daily a\n@daily b\n@daily a\n")
	require.Len(t, before, 3)
	assert.NotEqual(t, before[0], before[1])
	assert.NotEqual(t, before[0], before[2], "equal lines run as often as they are there")
	assert.Regexp(t, `^f:[0-9a-f]{20}$`, before[0])

	after := names("/etc/cron.d/f", "# moved\n@daily b\n@daily a\nA=1\n@daily b\n")
	assert.Equal(t, []string{before[1], before[0]}, after[:2])
	assert.NotContains(t, before, after[2], "another environment is another schedule")
	assert.NotEqual(t, before[0], names("/etc/cron.e/f", "@daily a\n")[0])
	assert.NotEqual(t, before[0], names("/etc/cron.d/f", "@weekly a\n")[0])
	assert.Regexp(t, `^a_b_:`, names("/x/a b~", "@daily a\n")[0], "a name that Carillon takes")
	assert.Less(t, len(names(strings.Repeat("x", 300), "@daily a\n")[0]), 150)
}

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	for _, name := range []string{"good", "G-o_2", "a.dpkg-old", "backup~", ".hidden", "with space"} {
		write(name, "@daily "+name+"\n")
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "directory"), 0o700))
	require.NoError(t, os.Symlink("good", filepath.Join(dir, "link")))
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "dangling")))
	write("long", strings.Repeat("\n", maxFile+1))
	s := source{paths: []string{dir, filepath.Join(dir, "a.dpkg-old"), filepath.Join(dir, "none")}, format: format{user: "ada", zone: "UTC"}}
	tab := s.load()
	var got []string
	for _, e := range tab.entries {
		got = append(got, filepath.Base(e.file)+" runs "+e.task.Command)
	}
	assert.Equal(t, []string{"G-o_2 runs G-o_2", "good runs good", "link runs good", "a.dpkg-old runs a.dpkg-old"}, got)
	require.Len(t, tab.problems, 3)
	assert.Contains(t, tab.problems[0], "dangling: no such file")
	assert.Contains(t, tab.problems[1], "long: is longer than 1048576 bytes")
	assert.Contains(t, tab.problems[2], "none: no such file")

	assert.True(t, s.covers(tab, filepath.Join(dir, "good")))
	assert.True(t, s.covers(tab, filepath.Join(dir, "was-there")))
	assert.True(t, s.covers(tab, filepath.Join(dir, "none")))
	assert.False(t, s.covers(tab, filepath.Join(dir, "long")), "nobody knows what it says")
	assert.False(t, s.covers(tab, filepath.Join(filepath.Dir(dir), "other")))
}

func FuzzParse(f *testing.F) {
	f.Add("A = \"x\"\n*/5 1-3 * jan mon root a%b\\%c\n@reboot root x\n", true)
	f.Add("@daily x\n=\n'=\n* * * * * y", false)
	f.Fuzz(func(t *testing.T, text string, system bool) {
		how := format{user: "ada", zone: "UTC"}
		if system {
			how.user = ""
		}
		entries, problems := parse("f", []byte(text), how)
		if lines := strings.Count(text, "\n") + 1; len(entries)+len(problems) > lines {
			t.Fatalf("%d entries and %d problems in %d lines", len(entries), len(problems), lines)
		}
		for _, e := range entries {
			if e.task.Command == "" && !strings.Contains(text, "%") || e.task.User == "" || strings.Contains(e.task.Command, "\n") {
				t.Fatalf("%+v", e)
			}
		}
	})
}

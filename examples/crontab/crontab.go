package main

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// entry is a line with a command.
type entry struct {
	file string
	line int
	copy int    // how many equal lines of the file come before it
	when string // the time fields, or a macro
	zone string // in which they are read
	task Task
}

// reboot marks what runs when an instance starts.
const reboot = "@reboot"

// format is how the lines of a file are written.
type format struct {
	user    string // who runs the commands; empty: a column of each line says
	seconds bool   // a field for the second comes before that for the minute
	zone    string // where CRON_TZ does not say
}

func (f format) fields() int {
	if f.seconds {
		return 6
	}
	return 5
}

// parse reads a crontab as crontab(5) of Debian describes it, and as its cron
// does where the page is silent. Lines that are wrong become problems and do
// not stop the others.
func parse(file string, text []byte, f format) (entries []entry, problems []string) {
	env := environment{}
	zone := f.zone
	copies := map[string]int{}
	number := 0
	for raw := range bytes.Lines(text) {
		number++
		line := strings.TrimLeft(string(raw), " \t\n")
		if line == "" || line[0] == '#' {
			continue
		}
		e := entry{file: file, line: number, zone: zone}
		line, err := whole(line)
		if err == nil {
			if set := assignment.FindStringSubmatch(line); set != nil {
				if err = env.set(set); err == nil {
					zone = env.zone(f.zone)
					continue
				}
			} else if err = e.read(line, f); err == nil {
				e.task.Env = env.list()
				err = e.check()
			}
		}
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s:%d: %v", file, number, err))
			continue
		}
		content := e.content()
		e.copy = copies[content]
		copies[content]++
		entries = append(entries, e)
	}
	return entries, problems
}

// whole returns a line without its end.
func whole(line string) (string, error) {
	text, ended := strings.CutSuffix(line, "\n")
	switch {
	case !ended:
		return "", errors.New("the last line does not end in a newline, so a part of it may be missing; add one")
	case strings.HasSuffix(text, "\r"):
		return "", errors.New("the line ends in a carriage return, which would become a part of it; save the file with Unix line ends")
	case !utf8.ValidString(text) || strings.Contains(text, "\x00"):
		return "", errors.New("the line is not UTF-8 text")
	}
	return text, nil
}

// read takes a line apart.
func (e *entry) read(line string, f format) error {
	n := f.fields()
	if line[0] == '@' {
		n = 1
	}
	expected := "the time" // what the line lacks when it is too short
	for range n {
		var field string
		field, line = word(line)
		e.when = strings.TrimLeft(e.when+" "+field, " ")
	}
	e.task = Task{File: e.file, User: f.user}
	if f.user == "" && line != "" {
		expected = "the command"
		e.task.User, line = word(line)
	}
	switch {
	case line == "" && n > 1:
		return fmt.Errorf("the line ends before %s; expected %d time fields, %s", expected, n, f.rest())
	case line == "":
		return fmt.Errorf("the line ends before %s; expected a macro, %s", expected, f.rest())
	case line[0] == '*' || e.task.User == "*":
		return fmt.Errorf("the command begins with *, as if there were more than %d time fields", n)
	}
	e.task.Command, e.task.Stdin = percent(line)
	return nil
}

func (f format) rest() string {
	if f.user == "" {
		return "the user, and a command"
	}
	return "and a command"
}

// word cuts off the first word. Only spaces and tabs are between words.
func word(s string) (first, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], " \t")
}

// percent splits a command at its first %. What follows is standard input, in
// which each further % ends a line. With a backslash before it, % is itself.
func percent(s string) (command, stdin string) {
	var out strings.Builder
	i := 0
	for ; i < len(s) && s[i] != '%'; i++ {
		// A backslash keeps its meaning for the shell, except before these.
		if s[i] == '\\' && i+1 < len(s) {
			if i++; s[i] != '%' && s[i] != '\\' {
				out.WriteByte('\\')
			}
		}
		out.WriteByte(s[i])
	}
	command = out.String()
	if i >= len(s)-1 {
		return command, ""
	}
	stdin = strings.NewReplacer(`\%`, "%", "%", "\n").Replace(s[i+1:])
	if !strings.HasSuffix(stdin, "\n") {
		stdin += "\n"
	}
	return command, stdin
}

// environment is the variables that a file has set so far.
type environment []variable

type variable struct{ name, value string }

// assignment matches what is meant to set a variable: a name, perhaps in
// quotes, an equals sign, and a value. No line with a command looks like that.
var assignment = regexp.MustCompile(`^(?:"([^"=]*)"|'([^'=]*)'|([^\s="'][^\s=]*))\s*=\s*(.*?)\s*$`)

func (v *environment) set(match []string) error {
	name, value := match[1]+match[2]+match[3], match[4]
	switch {
	case name == "":
		return errors.New("the variable has no name")
	case value == "":
		return fmt.Errorf(`%s has no value; write %s="" for an empty one`, name, name)
	case value[0] == '"' || value[0] == '\'':
		end := strings.IndexByte(value[1:], value[0]) + 1
		if end != len(value)-1 || end == 0 {
			return fmt.Errorf("the value of %s begins with %c and has to end with the next one", name, value[0])
		}
		value = value[1:end]
	}
	for i := range *v {
		if (*v)[i].name == name {
			(*v)[i].value = value
			return nil
		}
	}
	*v = append(*v, variable{name, value})
	return nil
}

// zone is what CRON_TZ says.
func (v environment) zone(otherwise string) string {
	for _, one := range v {
		if one.name == "CRON_TZ" && one.value != "" {
			return one.value
		}
	}
	return otherwise
}

// list is in the form of os.Environ.
func (v environment) list() []string {
	var all []string
	for _, one := range v {
		all = append(all, one.name+"="+one.value)
	}
	return all
}

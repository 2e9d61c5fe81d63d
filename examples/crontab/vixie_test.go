package main

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// vixie is another implementation of crontabs, to compare with: one that looks at
// every minute and asks each line whether it is its time, as cron.c of Debian's
// cron 3.0pl1 does, with sets that are filled as in its entry.c and lines that
// are told apart as in its env.c. It shares no code with the program, and knows
// no seconds, zones or clock changes.
type vixie struct {
	line                          int
	reboot                        bool
	minute, hour, dom, month, dow map[int]bool
	domStar, dowStar, wild        bool
	user, command                 string // as written
}

func readVixie(text string, withUser bool) (lines []vixie) {
	rest := strings.Split(text, "\n")
	for i, line := range rest[:len(rest)-1] { // what comes after the last newline does not count
		line = strings.TrimLeft(line, " \t")
		if line == "" || line[0] == '#' || vixieSetsVariable(line) {
			continue
		}
		if e, ok := readVixieEntry(line, withUser); ok {
			e.line = i + 1
			lines = append(lines, e)
		}
	}
	return lines
}

// vixieSetsVariable is load_env, a machine of states.
func vixieSetsVariable(line string) bool {
	const nameI, name, eq1, eq2, valueI, value, fini = 0, 1, 2, 3, 4, 5, 6
	space := func(c byte) bool { return strings.IndexByte(" \t\n\v\f\r", c) >= 0 }
	state, quote := nameI, byte(0)
	for i := 0; i < len(line); {
		c := line[i]
		switch state {
		case nameI, valueI:
			if c == '\'' || c == '"' {
				quote = c
				i++
			}
			state++
		case name, value:
			switch {
			case quote != 0 && c == quote:
				state++
				i++
			case quote != 0 && state == name && c == '=':
				return false
			case quote == 0 && state == name && space(c):
				state++
				i++
			case quote == 0 && state == name && c == '=':
				state++
			default:
				i++
			}
		case eq1:
			if c == '=' {
				state, quote = eq2, 0
			} else if !space(c) {
				return false
			}
			i++
		case eq2:
			if space(c) {
				i++
			} else {
				state++
			}
		case fini:
			if !space(c) {
				return false
			}
			i++
		}
	}
	return state == fini || state == value && quote == 0
}

func readVixieEntry(line string, withUser bool) (e vixie, ok bool) {
	all := func(low, high int) map[int]bool {
		set := map[int]bool{}
		for i := low; i <= high; i++ {
			set[i] = true
		}
		return set
	}
	one := func(n int) map[int]bool { return map[int]bool{n: true} }
	next := func() string {
		end := strings.IndexAny(line, " \t")
		if end < 0 {
			end = len(line)
		}
		field := line[:end]
		line = strings.TrimLeft(line[end:], " \t")
		return field
	}
	if line[0] == '@' {
		e = vixie{minute: one(0), hour: one(0), dom: all(1, 31), month: all(1, 12), dow: all(0, 7)}
		switch next() {
		case "@reboot":
			e.reboot = true
		case "@yearly", "@annually":
			e.dom, e.month, e.dowStar = one(1), one(1), true
		case "@monthly":
			e.dom, e.dowStar = one(1), true
		case "@weekly":
			e.dow, e.domStar = one(0), true
		case "@daily", "@midnight":
		case "@hourly":
			e.hour, e.wild = all(0, 23), true
		default:
			return e, false
		}
	} else {
		var minStar, hourStar bool
		months := strings.Fields("jan feb mar apr may jun jul aug sep oct nov dec")
		days := strings.Fields("sun mon tue wed thu fri sat sun")
		for _, f := range []struct {
			set       *map[int]bool
			star      *bool
			low, high int
			names     []string
		}{
			{&e.minute, &minStar, 0, 59, nil},
			{&e.hour, &hourStar, 0, 23, nil},
			{&e.dom, &e.domStar, 1, 31, nil},
			{&e.month, new(bool), 1, 12, months},
			{&e.dow, &e.dowStar, 0, 7, days},
		} {
			field := next()
			*f.star = strings.HasPrefix(field, "*")
			if *f.set, ok = vixieList(field, f.low, f.high, f.names); !ok {
				return e, false
			}
		}
		e.wild = minStar || hourStar
	}
	if e.dow[0] || e.dow[7] {
		e.dow[0], e.dow[7] = true, true
	}
	if withUser {
		e.user = next()
	} else if strings.HasPrefix(line, "*") {
		return e, false
	}
	e.command = line
	return e, line != ""
}

func vixieList(field string, low, high int, names []string) (map[int]bool, bool) {
	set := map[int]bool{}
	number := func(text string) (int, bool) {
		if i := slices.Index(names, strings.ToLower(text)); i >= 0 {
			return i + low, true
		}
		n, err := strconv.Atoi(text)
		return n, err == nil && text[0] >= '0' && text[0] <= '9'
	}
	for item := range strings.SplitSeq(field, ",") {
		span, steps, stepped := strings.Cut(item, "/")
		from, to, step := low, high, 1
		var good, isRange bool
		if span == "*" {
			isRange = true
		} else {
			var a, b string
			a, b, isRange = strings.Cut(span, "-")
			if from, good = number(a); !good {
				return nil, false
			}
			if to = from; isRange {
				if to, good = number(b); !good {
					return nil, false
				}
			}
		}
		if stepped {
			n, err := strconv.Atoi(steps)
			if !isRange || err != nil || n <= 0 {
				return nil, false
			}
			step = n
		}
		if from < low || from > high || to < low || to > high {
			return nil, false
		}
		for i := from; i <= to; i += step {
			set[i] = true
		}
	}
	return set, true
}

// due is the condition of find_jobs.
func (e *vixie) due(at time.Time) bool {
	date, weekday := e.dom[at.Day()], e.dow[int(at.Weekday())]
	day := date || weekday
	if e.domStar || e.dowStar {
		day = date && weekday
	}
	return !e.reboot && day && e.minute[at.Minute()] && e.hour[at.Hour()] && e.month[int(at.Month())]
}

// runVixie is the main loop of a cron that looks once a minute at a clock of the
// zone. It returns which lines run at each minute.
func runVixie(lines []vixie, zone *time.Location, from, until time.Time) map[time.Time][]int {
	runs := map[time.Time][]int{}
	shown := func(at time.Time) int64 { // minutes
		_, offset := at.In(zone).Zone()
		return (at.Unix() + int64(offset)) / 60
	}
	virtual := shown(from) - 1
	for at := from; at.Before(until); at = at.Add(time.Minute) {
		find := func(minute int64, wild, fixed bool) {
			local := time.Unix(minute*60, 0).UTC()
			for i := range lines {
				e := &lines[i]
				if (e.wild && wild || !e.wild && fixed) && e.due(local) && !slices.Contains(runs[at], i) {
					runs[at] = append(runs[at], i)
				}
			}
		}
		running := shown(at)
		switch diff := running - virtual; {
		case diff > 180, diff <= -180: // not a change between summer and winter
			virtual = running
			find(virtual, true, true)
		case diff > 5: // set forward
			find(running, true, false)
			for virtual < running {
				virtual++
				find(virtual, false, true)
			}
		case diff > 0:
			for virtual < running {
				virtual++
				find(virtual, true, true)
			}
		default: // set back
			find(running, true, false)
		}
	}
	return runs
}

package store

import (
	"encoding/base32"
	"strconv"
	"time"
)

var idEncoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// Replies of scripts are nested lists of strings and integers. A reply of an
// unexpected shape reads as empty, never as a panic.

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

func at(v any, i int) any {
	if l := list(v); i < len(l) {
		return l[i]
	}
	return nil
}

func text(v any) string {
	switch t := v.(type) {
	case string:
		return t
	case int64:
		return strconv.FormatInt(t, 10)
	}
	return ""
}

func texts(v any) []string {
	l := list(v)
	out := make([]string, len(l))
	for i := range l {
		out[i] = text(l[i])
	}
	return out
}

func number(v any) int64 {
	switch t := v.(type) {
	case int64:
		return t
	case string:
		n, _ := strconv.ParseInt(t, 10, 64)
		return n
	}
	return 0
}

func millis(v any) time.Time {
	n := number(v)
	if n < 0 {
		return time.Time{}
	}
	return time.UnixMilli(n)
}

// flag is a condition as scripts read it.
func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

func first(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[0]
}

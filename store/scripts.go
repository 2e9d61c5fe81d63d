package store

import (
	"context"
	"crypto/sha1" //nolint:gosec // the name Redis gives a script, not a secret
	"embed"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Each transition is one file of lua; fragments they share are in lua/lib and
// are put in front as the header's include line says.
//
//go:embed lua/*.lua lua/lib/*.lua
var luaFiles embed.FS

// script is a transition as Redis knows it: a text and its digest.
type script struct {
	name string
	text string
	sha  string
	// promised: its callers are told that it is done, and with Options.WaitReplicas
	// only after replicas have it.
	promised bool
}

var (
	scriptMeta         = mustScript("meta")
	scriptMark         = mustScript("mark")
	scriptSubmit       = promise("submit")
	scriptSubmitPlain  = promise("submit_plain")
	scriptPromote      = mustScript("promote")
	scriptGrant        = mustScript("grant")
	scriptAudit        = mustScript("audit")
	scriptFetch        = mustScript("fetch")
	scriptSettle       = mustScript("settle")
	scriptJoin         = mustScript("join")
	scriptLeave        = mustScript("leave")
	scriptHeartbeat    = mustScript("heartbeat")
	scriptReclaim      = mustScript("reclaim")
	scriptCancel       = promise("cancel")
	scriptRevive       = promise("revive")
	scriptHurry        = promise("hurry")
	scriptNote         = mustScript("note")
	scriptAwait        = mustScript("await")
	scriptForget       = mustScript("forget")
	scriptQuarantine   = mustScript("quarantine")
	scriptPause        = promise("pause")
	scriptLeaseAcquire = mustScript("lease_acquire")
	scriptLeaseRenew   = mustScript("lease_renew")
	scriptLeaseRelease = mustScript("lease_release")
	scriptSchedulePut  = promise("schedule_put")
	scriptScheduleDrop = promise("schedule_drop")
	scriptSchedulePark = mustScript("schedule_park")
	scriptFire         = promise("fire")
	scriptRefuse       = mustScript("refuse")
	scriptGroupMark    = promise("group_mark")
	scriptCalendarPut  = promise("calendar_put")
	scriptCalendarUse  = promise("calendar_use")
	scriptCalendarDrop = promise("calendar_drop")
	scriptClaim        = promise("claim")
	scriptVoid         = promise("void")
	scriptUnclaim      = mustScript("unclaim")
	scriptFreeUnique   = mustScript("free_unique")
	scriptFreeMutex    = mustScript("free_mutex")
)

// urgent tells whether a lease is lost or kept too long, or a job done again, when
// the script comes late.
func (s *script) urgent() bool {
	switch s {
	case scriptHeartbeat, scriptSettle, scriptLeaseAcquire, scriptLeaseRenew, scriptLeaseRelease:
		return true
	}
	return false
}

func mustScript(name string) *script {
	text, err := assemble(name)
	if err != nil {
		panic(err) // an embedded file is wrong; no input can cause it
	}
	sum := sha1.Sum([]byte(text)) //nolint:gosec // see the import
	return &script{name: name, text: text, sha: hex.EncodeToString(sum[:])}
}

// promise is mustScript for what is acknowledged to callers.
func promise(name string) *script {
	s := mustScript(name)
	s.promised = true
	return s
}

// assemble puts the fragments a script includes in front of it.
func assemble(name string) (string, error) {
	body, err := luaFiles.ReadFile("lua/" + name + ".lua")
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for line := range strings.Lines(string(body)) {
		names, ok := strings.CutPrefix(line, "-- include:")
		if !ok {
			continue
		}
		for _, fragment := range strings.Fields(names) {
			lib, err := luaFiles.ReadFile("lua/lib/" + fragment + ".lua")
			if err != nil {
				return "", fmt.Errorf("script %s: %w", name, err)
			}
			text.Write(lib)
		}
	}
	text.Write(body)
	return text.String(), nil
}

// call is one run of a script on one segment.
type call struct {
	script *script
	keys   []string
	args   []any
}

// on sends a call, by the digest of its script or by its text.
func (c call) on(ctx context.Context, rdb redis.Scripter, byText bool) *redis.Cmd {
	if byText {
		return rdb.Eval(ctx, c.script.text, c.keys, c.args...)
	}
	return rdb.EvalSha(ctx, c.script.sha, c.keys, c.args...)
}

// eval runs a script by its digest and, when the server does not know it (a
// restart, a failover, SCRIPT FLUSH), by its text.
func eval(ctx context.Context, rdb redis.Scripter, c call) (any, error) {
	reply, err := c.on(ctx, rdb, false).Result()
	if hasReply(err, "NOSCRIPT") {
		reply, err = c.on(ctx, rdb, true).Result()
	}
	if err == redis.Nil { //nolint:errorlint // a nil reply is not an error here
		err = nil
	}
	return reply, err
}

// evalAll runs scripts in one pipeline. In a pipeline NOSCRIPT comes back as
// the reply of one command while the others are executed, so just those that
// got it are run again by their text, in another one.
func evalAll(ctx context.Context, rdb redis.UniversalClient, calls []call) ([]any, []error) {
	replies, errs := make([]any, len(calls)), make([]error, len(calls))
	if len(calls) == 1 {
		replies[0], errs[0] = eval(ctx, rdb, calls[0])
		return replies, errs
	}
	all := make([]int, len(calls))
	for i := range all {
		all[i] = i
	}
	if unknown := sendAll(ctx, rdb, calls, all, false, replies, errs); len(unknown) > 0 {
		sendAll(ctx, rdb, calls, unknown, true, replies, errs)
	}
	return replies, errs
}

// sendAll sends those of calls that part lists, by their digests or by their
// texts. It returns which of them the server did not know.
func sendAll(ctx context.Context, rdb redis.UniversalClient, calls []call, part []int, byText bool, replies []any, errs []error) (unknown []int) {
	cmds := make([]*redis.Cmd, len(part))
	_, _ = rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, n := range part {
			cmds[i] = calls[n].on(ctx, p, byText)
		}
		return nil
	})
	for i, n := range part {
		replies[n], errs[n] = cmds[i].Result()
		if hasReply(errs[n], "NOSCRIPT") {
			unknown = append(unknown, n)
		}
		if errs[n] == redis.Nil { //nolint:errorlint // as above
			errs[n] = nil
		}
	}
	return unknown
}

// argList collects the keys and arguments of one call in the order in which
// the script's cursors read them.
type argList struct {
	keys []string
	args []any
}

// words writes numbers as one argument: each one costs Redis and Lua, and most
// calls have thousands.
func words(numbers ...int64) string {
	out := make([]byte, 0, 16*len(numbers))
	for i, n := range numbers {
		if i > 0 {
			out = append(out, ' ')
		}
		out = strconv.AppendInt(out, n, 10)
	}
	return string(out)
}

func (a *argList) key(k ...string) { a.keys = append(a.keys, k...) }
func (a *argList) arg(v ...any)    { a.args = append(a.args, v...) }

// claims adds the keys a job holds beside its record, as lib/claims reads them.
func (a *argList) claims(k keys, s *Spec) { a.claimsAnd(k, s, "") }

// claims tells whether a job holds keys beside its record.
func (s *Spec) claims() bool {
	return s.Unique != "" || s.Mutex != "" || len(s.Tags) > 0 || InstanceOf(s.Queue) != ""
}

// claimsAnd is claims with the locator of a new job's ID, unless that is empty.
func (a *argList) claimsAnd(k keys, s *Spec, locator string) {
	flags := ""
	if s.Unique != "" {
		flags += "u"
	}
	if s.Mutex != "" {
		flags += "m"
	}
	if len(s.Tags) > 0 {
		flags += "t"
	}
	if locator != "" {
		flags += "l"
	}
	instance := InstanceOf(s.Queue)
	if instance != "" {
		flags += "o"
	}
	a.arg(flags)
	if s.Unique != "" {
		a.key(k.unique(s.Unique))
		a.arg(s.UniqueFor.Milliseconds())
	}
	if s.Mutex != "" {
		a.key(k.mutex(s.Mutex))
		a.arg(escape(s.Mutex))
	}
	if len(s.Tags) > 0 {
		a.arg(len(s.Tags))
		for _, tag := range s.Tags {
			a.key(k.tag(tag))
		}
	}
	if locator != "" {
		a.key(locator)
	}
	if instance != "" {
		a.key(k.own())
		a.arg(instance)
	}
}

// streamSet numbers the streams a call declares; scripts refer to them by
// index, starting at 1.
type streamSet struct {
	names []string
	index map[string]int
}

func (s *streamSet) of(name string) int {
	if i, ok := s.index[name]; ok {
		return i
	}
	if s.index == nil {
		s.index = make(map[string]int)
	}
	s.names = append(s.names, name)
	s.index[name] = len(s.names)
	return len(s.names)
}

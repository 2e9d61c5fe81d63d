//go:build unix

package proctest

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	Main(map[string]Role{
		"count":  With(count),
		"fail":   func([]byte) error { return errors.New("the role failed") },
		"parent": With(parent),
		"gentle": func([]byte) error {
			asked := make(chan os.Signal, 1)
			signal.Notify(asked, syscall.SIGTERM)
			fmt.Println("ready")
			<-asked
			return nil
		},
	})
	goleak.VerifyTestMain(m)
}

// count writes numbers to its ledger until it dies.
func count(dir string) error {
	ledger, err := OpenLedger(dir)
	for n := 0; err == nil; n++ {
		err = ledger.Add(Line{Event: "count", Attempt: n})
	}
	return err
}

// parent has a child, and says which.
func parent(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	data := strconv.Quote(dir)
	cmd := command(self, "count", []byte(data))
	if _, err := Launch(cmd, filepath.Join(dir, "log")); err != nil {
		return err
	}
	select {}
}

func lines(t *testing.T, dir string) []Line {
	all, err := ReadLedgers(dir)
	require.NoError(t, err)
	return all
}

// grows waits until there is a line after the n-th one.
func grows(t *testing.T, dir string, n int) {
	require.Eventually(t, func() bool { return len(lines(t, dir)) > n }, patience, time.Millisecond)
}

func TestSignals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := Start(t, "count", dir)
	grows(t, dir, 0)

	p.Stop(t)
	n := len(lines(t, dir))
	require.Never(t, func() bool { return len(lines(t, dir)) > n }, 100*time.Millisecond, 10*time.Millisecond)
	p.Cont(t)
	grows(t, dir, n)

	require.False(t, p.Exited())
	p.Kill()
	require.True(t, p.Exited())
	how := p.Wait(t, patience).Sys().(syscall.WaitStatus) //nolint:errcheck // that is its type on unix
	require.Equal(t, syscall.SIGKILL, how.Signal())
	for i, line := range lines(t, dir) {
		require.Equal(t, Line{Event: "count", Attempt: i, PID: p.PID(), At: line.At}, line)
	}
}

func TestTerm(t *testing.T) {
	t.Parallel()
	p := Start(t, "gentle", nil)
	require.Eventually(t, func() bool { return strings.Contains(p.Log(), "ready") }, patience, time.Millisecond)
	p.Term(t)
	require.True(t, p.Wait(t, patience).Success())
}

func TestRolesFail(t *testing.T) {
	t.Parallel()
	for role, says := range map[string]string{
		"fail": "the role failed", "count": "arguments of the role", "unheard of": "no role",
	} {
		p := Start(t, role, 1)
		require.False(t, p.Wait(t, patience).Success(), role)
		require.Contains(t, p.Log(), says)
	}
}

// A test binary that is killed takes its children along.
func TestChildrenDieWithTheBinary(t *testing.T) {
	t.Parallel()
	if procAttr() == nil {
		t.Skip("only Linux has a death signal")
	}
	dir := t.TempDir()
	p := Start(t, "parent", dir)
	grows(t, dir, 0)
	child := lines(t, dir)[0].PID
	require.NotEqual(t, p.PID(), child)
	p.Kill()
	require.Eventually(t, func() bool { return gone(child) }, patience, time.Millisecond)
}

// gone also holds for a process that nobody has waited for yet.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func TestLedgersAreMergedByTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, err := OpenLedger(dir)
	require.NoError(t, err)
	b, err := OpenLedger(dir)
	require.NoError(t, err)
	for i := range 3 {
		require.NoError(t, a.Add(Line{Event: "start", Job: "j", Attempt: 2 * i}))
		require.NoError(t, b.Add(Line{Event: "done", Job: "j", Attempt: 2*i + 1, Token: 1 << 63}))
	}
	_, err = b.file.WriteString(`{"event":"torn","at":`)
	require.NoError(t, err)
	require.NoError(t, a.Close())
	require.NoError(t, b.Close())

	all := lines(t, dir)
	require.Len(t, all, 6)
	for i, line := range all {
		require.Equal(t, i, line.Attempt)
		require.Equal(t, os.Getpid(), line.PID)
	}
	require.Equal(t, uint64(1<<63), all[1].Token)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "x.ledger"), []byte("torn in the middle\n{}\n"), 0o600))
	_, err = ReadLedgers(dir)
	require.ErrorContains(t, err, "torn in the middle")
}

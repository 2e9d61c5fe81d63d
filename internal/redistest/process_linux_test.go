package redistest

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const victimEnv = "REDISTEST_VICTIM"

// TestVictim is the test binary which TestServersDieWithTheBinary kills.
func TestVictim(t *testing.T) {
	if os.Getenv(victimEnv) == "" {
		t.Skip("runs only for TestServersDieWithTheBinary")
	}
	// Nothing cleans this up, so it uses the directory of the other test.
	s, err := startServer(os.Getenv(victimEnv))
	require.NoError(t, err)
	fmt.Println("\naddr", s.Addr())
	select {}
}

func TestServersDieWithTheBinary(t *testing.T) {
	requireRedis(t)
	self, err := os.Executable()
	require.NoError(t, err)
	victim := exec.Command(self, "-test.run=^TestVictim$")
	victim.Env = append(os.Environ(), victimEnv+"="+t.TempDir())
	out, err := victim.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, victim.Start())
	var addr string
	for lines := bufio.NewScanner(out); addr == "" && lines.Scan(); {
		addr, _ = strings.CutPrefix(lines.Text(), "addr ")
		if addr == lines.Text() {
			addr = ""
		}
	}
	_ = victim.Process.Kill()
	_ = victim.Wait()
	require.NotEmpty(t, addr)

	Wait(t, patience, func() error {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
			return errors.New("the server still answers")
		}
		return nil
	})
}

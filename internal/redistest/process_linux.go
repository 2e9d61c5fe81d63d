package redistest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"
)

const (
	sigStop = syscall.SIGSTOP
	sigCont = syscall.SIGCONT
)

// procAttr makes the kernel kill the server when the test binary dies, even
// when that is killed and cannot clean up.
func procAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// frozen tells whether SIGSTOP has taken effect.
func frozen(pid int) error {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil && !bytes.Contains(stat, []byte(") T ")) {
		err = errors.New("it still runs")
	}
	return err
}

package proctest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"
)

const (
	sigStop = syscall.SIGSTOP
	sigCont = syscall.SIGCONT
	sigTerm = syscall.SIGTERM
)

// procAttr makes the kernel kill the process when the test binary dies, even
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

// Uptime is a clock that all processes of the machine share and nobody sets.
func Uptime() time.Duration {
	const monotonic = 1
	var now syscall.Timespec
	// The arguments are always good, so it cannot fail.
	_, _, _ = syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, monotonic, uintptr(unsafe.Pointer(&now)), 0)
	return time.Duration(now.Nano())
}

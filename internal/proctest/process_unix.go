//go:build unix && !linux

package proctest

import (
	"syscall"
	"time"
)

const (
	sigStop = syscall.SIGSTOP
	sigCont = syscall.SIGCONT
	sigTerm = syscall.SIGTERM
)

// There is no death signal here: processes outlive a test binary which is killed.
func procAttr() *syscall.SysProcAttr { return nil }

// There is no simple way to ask, and the signal takes effect within moments.
func frozen(int) error { return nil }

// Uptime is a clock that all processes of the machine share.
func Uptime() time.Duration { return time.Duration(time.Now().UnixNano()) }

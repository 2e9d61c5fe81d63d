//go:build unix && !linux

package redistest

import "syscall"

const (
	sigStop = syscall.SIGSTOP
	sigCont = syscall.SIGCONT
)

// There is no death signal here: servers outlive a test binary which is killed.
func procAttr() *syscall.SysProcAttr { return nil }

// There is no simple way to ask, and the signal takes effect within moments.
func frozen(int) error { return nil }

//go:build !unix

package proctest

import (
	"errors"
	"syscall"
	"time"
)

// Redis does not run here. This only lets the tests compile, and skip.
const (
	sigStop = syscall.Signal(-1)
	sigCont = syscall.Signal(-1)
	sigTerm = syscall.Signal(-1)
)

func procAttr() *syscall.SysProcAttr { return nil }

func frozen(int) error { return errors.ErrUnsupported }

// Uptime is a clock that all processes of the machine share.
func Uptime() time.Duration { return time.Duration(time.Now().UnixNano()) }

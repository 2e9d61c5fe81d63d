//go:build !unix

package redistest

import (
	"errors"
	"syscall"
)

// Redis does not run here. This only lets the tests compile, and skip.
const (
	sigStop = syscall.Signal(-1)
	sigCont = syscall.Signal(-1)
)

func procAttr() *syscall.SysProcAttr { return nil }

func frozen(int) error { return errors.ErrUnsupported }

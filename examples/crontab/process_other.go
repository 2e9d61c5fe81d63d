//go:build !linux

package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

func attributes(account *user.User) (*syscall.SysProcAttr, error) {
	if account.Uid != strconv.Itoa(os.Geteuid()) {
		return nil, fmt.Errorf("to run commands as %s, from another user, works on Linux only", account.Username)
	}
	return nil, nil
}

func terminate(p *os.Process) error { return p.Signal(os.Interrupt) }

func kill(p *os.Process) error { return p.Kill() }

func signalOf(*os.ProcessState) string { return "" }

func trusted(fs.FileInfo) error { return nil }

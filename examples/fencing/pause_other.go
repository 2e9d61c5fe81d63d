//go:build !unix

package main

import (
	"fmt"
	"os"
)

func pause(p *os.Process) error {
	return fmt.Errorf("process %d cannot be paused: this system has no SIGSTOP", p.Pid)
}

func resume(p *os.Process) error {
	return fmt.Errorf("process %d cannot be resumed: this system has no SIGCONT", p.Pid)
}

//go:build !(linux && amd64)

package faults_test

import (
	"errors"
	"time"
)

// canSkew tells whether processes can be given another wall clock here.
const canSkew = false

func skewWallClock(d time.Duration) error {
	if d != 0 {
		return errors.ErrUnsupported
	}
	return nil
}

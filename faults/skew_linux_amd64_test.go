package faults_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// canSkew tells whether processes can be given another wall clock here.
const canSkew = true

// clockGettime replaces the function of the vDSO, the page of the kernel in every
// process by which a process asks for the time. It makes the system call and adds
// seconds to the wall clock's answer.
const clockGettime = "\xb8\xe4\x00\x00\x00" + // mov eax, 228
	"\x0f\x05" + // syscall
	"\x85\xff" + // test edi, edi: CLOCK_REALTIME is 0
	"\x75\x0d" + // jnz over the next two
	"\x48\xb8" + seconds + // mov rax, seconds
	"\x48\x01\x06" + // add [rsi], rax
	"\x31\xc0" + // xor eax, eax
	"\xc3" // ret

const seconds = "SECONDS_" // 8 bytes

// skewWallClock sets the wall clock of this process off by d, for everything in
// it; the clock of the machine stays. It is what a machine whose clock is wrong
// looks like to a program.
func skewWallClock(d time.Duration) error {
	if d == 0 {
		return nil
	}
	before := time.Now()
	mem, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = mem.Close() }()
	at, err := vdsoSymbol(mem, "__vdso_clock_gettime")
	if err != nil {
		return err
	}
	offset := binary.LittleEndian.AppendUint64(nil, uint64(d/time.Second))
	if _, err := mem.WriteAt([]byte(strings.ReplaceAll(clockGettime, seconds, string(offset))), at); err != nil {
		return fmt.Errorf("write to the vDSO: %w", err)
	}
	now := time.Now()
	wall, monotonic := now.Round(0).Sub(before.Round(0)), now.Sub(before)
	if (wall-d).Abs() > time.Minute/2 || monotonic > time.Minute/2 {
		return fmt.Errorf("the wall clock moved by %v instead of %v, the monotonic one by %v", wall, d, monotonic)
	}
	return nil
}

// vdsoSymbol returns where a function of the vDSO is in memory.
func vdsoSymbol(mem *os.File, name string) (int64, error) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		if !strings.Contains(line, "[vdso]") {
			continue
		}
		if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err != nil {
			return 0, err
		}
		image := make([]byte, to-from)
		if _, err := mem.ReadAt(image, from); err != nil {
			return 0, err
		}
		lib, err := elf.NewFile(bytes.NewReader(image))
		if err != nil {
			return 0, err
		}
		symbols, err := lib.DynamicSymbols()
		for _, s := range symbols {
			if s.Name == name {
				return from + int64(s.Value), nil
			}
		}
		return 0, errors.Join(err, fmt.Errorf("the vDSO has no %s", name))
	}
	return 0, errors.New("there is no vDSO")
}

package faults_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/goleak"

	"github.com/carillon-go/carillon/internal/proctest"
	"github.com/carillon-go/carillon/internal/redistest"
	"github.com/carillon-go/carillon/internal/verify"
)

// tally is what all tests of this run found.
var tally verify.Tally

// tables are what tests have to show beside.
var tables transcript

// full tells whether the long variants run.
var full = os.Getenv("FAULTS") == "full"

// seed makes the random choices of a run.
var seed = func() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("FAULTS_SEED"), 10, 64); err == nil {
		return n
	}
	return uint64(time.Now().UnixNano()) % 1_000_000
}()

// dice returns the random numbers of one test: the same for the same seed.
func dice(t testing.TB) *rand.Rand {
	t.Helper()
	t.Logf("FAULTS_SEED=%d", seed)
	var name uint64
	for _, c := range t.Name() {
		name = name*31 + uint64(c)
	}
	return rand.New(rand.NewPCG(seed, name))
}

// onlyFull skips the test in the quick tier.
func onlyFull(t testing.TB) {
	t.Helper()
	if !full {
		t.Skip("runs with FAULTS=full")
	}
}

func TestMain(m *testing.M) {
	proctest.Main(roles)
	redistest.SideBySide(12)
	logging.Disable() // go-redis tells of every failed dial
	goleak.VerifyTestMain(summed{redistest.Wrap(m)})
}

// summed prints the summary after the tests.
type summed struct{ tests goleak.TestingM }

func (s summed) Run() int {
	fmt.Printf("FAULTS_SEED=%d\n", seed)
	code := s.tests.Run()
	summary := tables.String() + tally.String()
	fmt.Println(summary)
	// `make test` shows it, because go test hides what a package that passed printed.
	if file := os.Getenv("FAULTS_SUMMARY"); file != "" {
		if err := os.WriteFile(file, []byte(summary+"\n"), 0o600); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

// Package faults has no code, only tests: each breaks something (a process, a
// server, the network, the data) while jobs run, heals it, and then asks
// whether the promises of docs/guarantees.md were kept. The letter and number
// in a test's name is its row in docs/faults.md.
//
//	go test ./faults                    what runs on every change
//	FAULTS=full go test ./faults        everything; make faults calls it
//	FAULTS_SEED=7 go test ./faults      the same random choices as a run that printed seed 7
//
// A test notes what it submitted and what was executed in a [verify.Queue],
// outside of Redis, and ends with world.finish, which waits for every
// acknowledged job, compares, and audits the key space. A test in which no
// fault took effect, or that did too little, fails.
//
// [verify.Queue]: https://pkg.go.dev/github.com/carillon-go/carillon/internal/verify#Queue
package faults

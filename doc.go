// Package carillon runs distributed jobs and schedules inside existing
// services. Every instance of a service imports the package and runs the same
// code; they coordinate through Redis alone. There is no server to deploy and
// no leader.
//
// A job whose submission was acknowledged is executed at least once and gets
// one outcome, for as long as Redis keeps what it acknowledged.
//
// # Usage
//
//	s, err := carillon.New(rdb, carillon.Config{Namespace: "shop"})
//	err = s.Handle("email.welcome", carillon.Func(sendWelcome)) // func(ctx, Welcome) error
//	r, err := s.Submit(ctx, carillon.Job{Name: "email.welcome", Args: Welcome{To: "ada@example.com"}})
//	err = s.Schedule(ctx, carillon.Schedule{Name: "nightly", Spec: carillon.Cron("0 3 * * *"),
//		Job: carillon.Job{Name: "report"}})
//	err = s.Run(ctx) // works until ctx ends, then drains
//
// New sends nothing and starts nothing. A process that only submits registers
// no handlers and never calls Run; it calls Shutdown to close its connections.
// An instance without the handler of a job leaves it to the others.
//
// # The model
//
// A [Job] names a handler and carries its arguments. A [Handler] executes jobs
// of one name; one execution is an attempt. A job has one attempt or more. To
// dispatch a job is to append an entry to the stream of its queue and priority;
// each dispatch is one attempt, and the ID of the entry is the attempt's token.
// Tokens of a job grow from attempt to attempt.
//
// A queue is a named lane with four priorities. A [Schedule] creates a job, or
// several shards, at each of its planned times, the ticks; its policies say what
// becomes of ticks that are missed or come while a run is unfinished, and its
// ledger says what became of each. A mutex lets one job of a key run at a
// time. A [Lease] is a lock that a process holds and renews, with a token too.
//
// A [Scheduler] that runs is an instance. Instances send heartbeats; one whose
// last heartbeat is older than Config.LeaseTTL is taken to be dead. The keys of
// a namespace are split into segments, each within one Redis Cluster slot; a
// job and all that it touches in one step lie in one segment.
//
// # Guarantees
//
//  1. A job is in Redis when Submit returns without error. The same job
//     submitted again under its ID, while its record is kept, is not stored
//     twice.
//  2. A job that can be run is executed until its handler succeeds, it fails
//     for good, it is cancelled or it expires. Exactly one of these is recorded.
//  3. Only the attempt with the current token records an outcome, progress or a
//     checkpoint. An older one is refused with [ErrFenced].
//  4. No job starts before its time, and no tick creates two jobs, by Redis'
//     clock. Clocks of instances decide nothing.
//  5. Failures are bounded by [Retry], lost workers by 3: a job that kills its
//     process three times fails.
//  6. No attempt of a job starts after its cancellation was recorded by Redis,
//     except one that a worker had received before.
//
// Executions can overlap or repeat: a worker that was paused or cut off goes on
// while another one has its job. Handlers must be idempotent, or hand
// Execution.Token to a system that refuses smaller ones. docs/guarantees.md
// says what holds on which topology of Redis, and how long recovery takes.
//
// # Concurrency
//
//  1. All methods of [Scheduler], [Lease] and [Execution] may be called from
//     several goroutines, except Execution.SetResult.
//  2. Handlers run concurrently, each in a goroutine of its own, as many of a
//     queue as Config says.
//  3. A handler's context ends when it should stop; [context.Cause] is
//     [ErrCancelled], [ErrTimeout], [ErrShutdown] or [ErrLeaseLost].
//  4. No goroutine runs before Submit, Lock, Await, Subscribe, Start or Run is
//     called. Shutdown ends those that Start began, except handlers that ignore
//     the end of their context.
//
// # Failures
//
// An error or a panic of a handler is a failed attempt; see [Permanent],
// [RetryAfter] and [Snooze]. When a process dies, others take its jobs over
// within LeaseTTL and a few seconds, 12 s by default.
//
// While Redis cannot be reached, a call tries four times, 20, 80 and 320 ms
// apart, and ends at the latest with its context. [ErrUnavailable] says that
// nothing was done, [ErrUncertain] that it may have been. Running handlers go
// on, and their outcomes are sent when Redis is back; those that hold a mutex
// are stopped before the lease of their instance lapses.
//
// Data in Redis that cannot be read fails the one job it belongs to, with a
// reason that begins with "quarantined".
//
// # Encryption
//
// With Config.Encryption the payloads of jobs and schedules are encrypted before
// they leave the process, and bound to their job; see [Encryption] for what is
// covered and what is not, and for the rotation of keys.
//
// # Testing
//
// Package carillontest runs a Scheduler on a Redis inside the test whose clock
// the test moves: a month of a schedule takes milliseconds. Package embedded
// runs a Redis inside the process for a first try.
package carillon

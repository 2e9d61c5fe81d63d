// Package carillontest tests code that uses Carillon in virtual time: submit a
// job for next month, advance the clock a month, and look at what ran, to the
// millisecond. It takes next to no time and needs neither Redis nor a sleep.
//
//	func TestReminder(t *testing.T) {
//		carillontest.Test(t, carillon.Config{}, func(t *testing.T, env *carillontest.Env) {
//			shop := NewShop(env.Scheduler) // the service registers its handlers
//			env.Start()
//			shop.Order(t.Context(), "ada")
//
//			env.Advance(23 * time.Hour)
//			env.RequireRuns("remind", 0)
//			env.Advance(time.Hour)
//			env.RequireRuns("remind", 1)
//		})
//	}
//
// # How it works
//
// The test runs in a bubble of testing/synctest with a Redis of its own inside
// (see package embedded). All that Carillon does is real: the scripts, the
// connections, leases, heartbeats, any number of instances. Only the clock is
// virtual. It stands still while anything is being done, and jumps to the next
// timer once all goroutines of the bubble wait. [Env.Advance] lets it run for a
// duration; times to live in Redis pass with it. The clock starts at midnight
// UTC on 2000-01-01. [Env.AdvanceTo] before [Env.Start] begins elsewhere, at no
// cost.
//
// Whatever code calls time.Now, time.Sleep or a context with a deadline inside
// of the bubble sees the virtual time. At the end of the test all schedulers are
// shut down, which waits in virtual time for handlers that still run.
//
// # Limits
//
// Nothing in the bubble may wait for something outside of it, such as a network,
// a process, or a channel made outside: time cannot pass meanwhile, and if that
// never ends the test hangs. Handlers that call other systems need a fake one
// (an http.RoundTripper, a net.Pipe). In the bubble t.Run and t.Parallel are not
// allowed; call [Test] within a subtest instead. Goroutines that the test
// starts have to end with it, at the latest when t.Context() does.
//
// Speed in the bubble says nothing about real Redis, nor does it show what a
// network, a crash or a failover does.
//
// # Cost
//
// A command takes as long as in real time (some 0.2 ms for a script), so what
// happens often in virtual time is not free. An idle instance does next to
// nothing here: it wakes for work, for signals, and otherwise every 12 h, so a
// month without jobs takes milliseconds and one of an hourly job about a second.
// To that end instances send heartbeats every 12 h whatever Config.LeaseTTL
// says, which is 1 h by default here and the time to live of locks. A lock with
// a LeaseTTL of 10 s is renewed every 3.3 s, and holding it for a day takes
// seconds; so does a ticker in the code under test. Bounds of Retention by age
// are exact; those by count are enforced every 12 h, if not sooner.
package carillontest

// Package store is everything of Carillon that knows Redis: keys, scripts, the
// encoding of jobs, and which errors leave an outcome unknown. It decides
// nothing about handlers, retries or time; the root package does.
//
// A state of a job is a structure in Redis. Each transition between two of them
// is one Lua script in the directory lua, whose header is its signature.
//
// # Segments
//
// Every key begins with a hash tag, {NAMESPACE:NUMBER}, which stands for one of
// the namespace's segments. A script touches the keys of one segment only, so it
// runs within one Redis Cluster slot. The number of segments is fixed in meta at
// the namespace's first start.
//
// The slots are as many equal ranges as there are segments, and the NUMBER of a
// segment is the least one whose slot lies in the segment's range: so the masters
// of a cluster have equally many segments when they have equally many slots.
// Segment 0 has NUMBER 0, whose range is the first; the others follow by slot,
// and after the last slot from slot 0.
//
// A job of an instance's own queue lives in the segment that the instance's ID
// hashes to, any other in that of its mutex, else its unique key, else its ID; a job of a schedule with neither lives with the schedule. An ID
// that was made for a job whose segment does not follow from the ID ends in ~
// and the segment in base 36. Where a job's unique key or its ID belongs to
// another segment, that segment holds a claim; claims.go has the protocol.
//
// Names are escaped: control characters, space, and the characters % : { } are
// written as %XX. No name can leave its part of a key.
//
// # Keys
//
// All names follow the hash tag and a colon.
//
//	key        type         holds                                         goes by
//	meta       hash         segments, format; in segment 0                nothing
//	j:ID       hash         record of a job, see below                    TTL once the job is final; trim by count
//	q:P:QUEUE  stream       dispatched jobs of priority P: c h n l        entries: settle, cancel, reclaim; key: nothing
//	due        sorted set   P:QUEUE:MUTEX:ID, score = start in ms; QUEUE  promote, cancel
//	                        is empty for the default one, here and in wait
//	wait       sorted set   MUTEX:TICKET:P:QUEUE:ID, all scores 0         grant, cancel
//	grant      sorted set   mutexes that are free while jobs wait         grant
//	m:MUTEX    hash         h holder, t last token, n last ticket         TTL 1 h once free with nobody waiting
//	u:KEY      string       ID of the job that holds the unique key       end of the job; TTL to the end of Unique.For
//	t:TAG      set          IDs of unfinished jobs with the tag           end of the jobs
//	taken      hash         how many entries left each stream by our hand, nothing
//	                        by its key: see audit.lua
//	cancels    hash         running jobs to be cancelled, by ID           settle, reclaim
//	awaited    hash         inboxes of those who await a job, by ID       end of the job; TTL 30 days
//	h:s h:f    stream       one entry for each job that succeeded,        TTL = age of the retention; trim by count
//	h:c h:x                 failed, was cancelled, expired
//	ev         stream       all other events                              TTL as h:f; about 10,000 entries
//	own        sorted set   INSTANCE: for who reads its own queue, INSTANCE:ID for  leave; end of the job
//	                        its unfinished jobs, all scores 0
//	workers    sorted set   instances, score = end of the lease in ms     leave, reclaim
//	inst       hash         what instances say of themselves, when one    leave, reclaim
//	                        was added last
//	queues     set          every queue ever used; in segment 0           nothing
//	paused     set          queues that are not read; in segment 0        pause
//	s:NAME     hash         schedule, see below                           schedule_drop
//	plan       sorted set   names of schedules, score = when to look at   fire, schedule_put, schedule_drop,
//	                        them, in ms                                   schedule_park
//	sv:NAME    hash         the last 20 definitions, by generation        TTL = age of ledgers once the schedule is dropped
//	sl:NAME    sorted set   what became of ticks: MS TEXT, score = the    TTL = age of ledgers, from the last turn that
//	                        tick in ms                                    recorded something; bounded by count
//	sg:GROUP   set          names of this segment's schedules in a group, schedule_put, schedule_drop
//	                        of all of them in sg:
//	gm         hash         what is noted of groups; in segment 0         group_mark
//	relay      hash         fired jobs that are still to be submitted     Relay
//	cal        hash         calendars of this segment, by name            calendar_drop
//	cu:NAME    set          names of schedules that noted that they use   calendar_drop
//	                        a calendar, and some that did
//	l:ID       string       claim: where the job with this ID is          TTL 48 h, renewed hourly while known
//	u:KEY      string       claim of a job in another segment             TTL 48 h, renewed hourly while it holds
//	tend       sorted set   claims to renew, score = when in ms           Tend
//	k:NAME     string       lease: owner and token                        TTL = the lease
//	mark       string       nothing: see mark.lua                         the script that writes it
//	kt:NAME    string       last token of a lease                         TTL 24 h after the last holder took it
//
// A claim is the character U+0001 and then SEGMENT:PERIOD:ID, the period of
// Unique.For in ms.
//
// An instance's own queue is named by U+0000 and the instance. Its streams, and
// their counts in taken, go with the instance.
//
// The keys that nothing removes are bounded by the number of queues: four
// streams for each queue and segment, with their counts in taken, one member of
// queues. Do not put user or
// order numbers into queue names.
//
// Channels: ctl (to all instances), in:AWAITER (an awaited job is final; in:@ is
// for watched jobs of schedules),
// free:NAME (a lease was given back). They carry hints; whoever listens also
// asks.
//
// # The record of a job
//
//	j   the job as submitted, see codec.go     r   result
//	j1  the rest of it, see below              g   progress
//	s   when it was submitted, ms              k   checkpoint
//	p   place                                  c   reason of a cancel request
//	a   attempts so far                        e   why it was quarantined
//	f   failures since the last revive         l   lost workers since the last revive
//	xN  end of attempt N, of the last 20: entry, outcome, ms it took, time, instance, error
//
// Redis keeps a small hash in one block while no value is longer than 64 bytes, which takes half
// of the memory. So a job of 65 to 128 bytes is cut in two. More parts would cost more time, at
// each submission and promotion, than they save. j1 counts only while j has 64 bytes.
//
// Such a block takes 80, 96, 112 or 128 bytes, so the record of a new job leaves out what its entry
// says: a, for this is the first attempt, and s when the job is plain, that is, runnable at once,
// without claims and under a made ID. Whoever takes the job out of its stream writes both down,
// except after a success that is settled with others: then x1 names the entry. (The time in an
// entry's ID does not go back when the server's clock does.)
//
// The place tells the structure: d in due, r in due after a failure, w TICKET
// in wait, ENTRY alone in its stream, and s f c x ENTRY for the entry in the
// history of the outcome. v marks an ID whose submission was overtaken; it has
// no job and lasts 2 min.
//
// An entry of a queue's stream has one field e: COUNT MUTEX LENGTH IDJOB. COUNT is
// the attempt, or ATTEMPT/FAILURES/LOSSES; MUTEX the token of its mutex or -; LENGTH
// that of the ID; JOB the job unless it is longer than 4096 bytes. An entry of a history has i the ID, d (ATTEMPT LENGTH
// NAMEQUEUE, LENGTH that of the name) and e (error). An entry of ev has i, n (name),
// q (queue), a (attempt), e and t: retrying, revived, quarantined, paused or resumed.
//
// # The record of a schedule
//
//	d   definition                             x   state: what the policies remember
//	g   generation, counts the definitions     k   when to look at it, its score in the plan
//	n   next tick, ms                          e   why it was parked
//	l   last tick that was fired, ms           gr  group
//
// A field without a value is not there. A schedule that is stored again under the
// name of a deleted one goes on with its generations, as long as its versions are
// known: the highest one is the last.
//
// # Rules of scripts
//
//  1. One file is one transition; its header names keys, arguments, replies,
//     what makes it idempotent, and what happens without memory.
//  2. All keys are in KEYS. Channels are arguments.
//  3. Everything that can be refused is checked before the first write, for
//     Redis does not roll back.
//  4. Time comes from TIME only, in ms; numbers leave without an exponent.
//  5. Sending a script twice does no harm, except fetch, which is not repeated.
//  6. A script that must work when Redis is out of memory first writes by a
//     command that needs none. No script has a shebang.
//  7. A call carries at most 500 jobs, or 200 turns and jobs of turns, or about
//     512 KiB; a single job or turn of more goes alone.
//
// # What Redis must allow
//
// Version 6.2 or newer. docs/operations.md has the rights that a limited user
// needs; every test of this package runs with them. A script that is denied a
// command stops half way, so all of them have to be granted. The checks at start
// also use INFO and CONFIG GET, and do without them when they are denied.
package store

package main

// mutant is one mistake, and the tests that have to find it.
type mutant struct {
	name  string
	edits []edit
	pkg   string // of the tests, relative to the module
	run   string // which tests, as for go test -run
}

// edit replaces a text that occurs once in a file.
type edit struct{ file, old, new string }

// mutants are the mistakes that job queues on Redis were found to make, made in
// this one.
var mutants = []mutant{
	{
		name: "settle ignores the token",
		edits: []edit{
			{"store/lua/settle.lua", "if acked ~= 1 and not bereft then", "if false then"},
			{"store/lua/settle.lua", "if job[1] ~= token then return 0 end", ""},
		},
		pkg: ".", run: "TestLostWorker/cannot_settle_the_job_that_moved_on",
	},
	{
		name: "a token is the one before plus one",
		edits: []edit{
			{"store/lua/lib/mutex.lua", "if previous >= token then token = previous + 1 end", "token = previous + 1"},
		},
		pkg: "./store", run: "TestTokensGrowThoughTheLastOneIsLost",
	},
	{
		name: "an entry is acknowledged before its job runs",
		edits: []edit{
			{"store/lua/fetch.lua", "'COUNT', count, 'STREAMS'", "'COUNT', count, 'NOACK', 'STREAMS'"},
		},
		pkg: "./store", run: "TestWhoLeavesKeepsWhatIsPending",
	},
	{
		name: "an entry is deleted before it is acknowledged",
		edits: []edit{
			{
				"store/lua/fetch.lua", "  return #entries\n",
				"  for _, e in ipairs(entries) do call('XDEL', streams[index], e[1]) end\n  return #entries\n",
			},
		},
		pkg: "./store", run: "TestWhoLeavesKeepsWhatIsPending",
	},
	{
		name: "a job is stored again under the same ID",
		edits: []edit{
			{"store/lua/lib/accept.lua", "  if known[1] then\n", "  if false then\n"},
			{"store/lua/lib/accept.lua", "if known[2] and known[2] ~= 'v' then return '!' end", ""},
		},
		pkg: "./store", run: "TestActs",
	},
	{
		name: "a consumer is deleted while entries are pending",
		edits: []edit{
			{"store/lua/leave.lua", "if first[1] then", "if false then"},
		},
		pkg: "./store", run: "TestWhoLeavesKeepsWhatIsPending",
	},
	{
		name: "a repeated submission of a plain job stores it again",
		edits: []edit{
			{"store/lua/submit_plain.lua", "if all_new or call('EXISTS', record) == 0 then", "if true then"},
		},
		pkg: "./store", run: "TestPlainJobsAreStoredOnce",
	},
	{
		name: "a lease has no time to live",
		edits: []edit{
			{"store/lua/lease_acquire.lua", "'NX', 'PX', ttl)", "'NX')"},
		},
		pkg: ".", run: "TestLock/goes_over_when_its_holder_dies/^redis$",
	},
	{
		name: "the local clock tells when a job is due",
		edits: []edit{
			{"store/submit.go", "start = -ceilMillis(spec.Delay)", "start = time.Now().UnixMilli() + ceilMillis(spec.Delay)"},
		},
		pkg: "./store", run: "TestRedisTimeDecides",
	},
	{
		name: "EVALSHA in a pipeline has no fallback",
		edits: []edit{
			{"store/scripts.go", `if hasReply(errs[n], "NOSCRIPT") {`, "if false {"},
		},
		pkg: "./store", run: "TestScriptFlushUnderLoad",
	},
	{
		name: "successes are settled whatever their records say",
		edits: []edit{
			{"store/lua/settle.lua", "if try('HGET', KEYS[record + i], 'p') == t and t ~= tokens[n] then", "if t ~= tokens[n] then"},
		},
		pkg: "./store", run: "TestSuccessesThatTravelTogether",
	},
	{
		name: "successes take with them what is pending in front of them",
		edits: []edit{
			{"store/lua/lib/front.lua", "if m < ms or m == ms and s < seq then", "if true then"},
		},
		pkg: "./store", run: "TestSuccessesLeaveTheRestInTheStream",
	},
	{
		name: "settle is refused when Redis is out of memory",
		edits: []edit{
			{"store/lua/settle.lua", "local answers = {}\n", "local answers = {}\ncall('ZADD', due, 'XX', 0, '')\n"},
		},
		pkg: "./store", run: "TestOutOfMemory",
	},
	{
		name: "an outage counts as the death of everybody",
		edits: []edit{
			{"keeper.go", "if !k.grace.over() {", "if false {"},
		},
		pkg: ".", run: "TestAnOutageIsNobodysDeath",
	},
	{
		name: "the ID of a tick's job is random",
		edits: []edit{
			{
				"store/turns.go", `schedule + "~" + strconv.FormatInt(generation, 10) + "~" + suffix`,
				"NewID()",
			},
		},
		pkg: "./store", run: "TestATickThatIsForgottenHasTheSameJob",
	},
	{
		name: "what a turn remembers of is not compared",
		edits: []edit{
			{"store/lua/fire.lua", "or (current[3] or '') ~= state ", ""},
		},
		pkg: "./store", run: "TestTurnComparesWhatWasRead",
	},
	{
		name: "the generations of a deleted schedule begin anew",
		edits: []edit{
			{"store/lua/schedule_put.lua", "for _, g in ipairs(made) do last = math.max(last, whole(g)) end", ""},
		},
		pkg: "./store", run: "TestGenerationsGoOn",
	},
	{
		name: "a job is retried for ever",
		edits: []edit{
			{"worker.go", "if e.Failures+1 >= policy.attempts() {", "if e.Failures+1 < 0 {"},
		},
		pkg: ".", run: "TestRetry$/MaxAttempts/^redis$",
	},
}

// Command bench puts Carillon, its peers and the bare commands of Redis side by
// side. It starts servers of its own, measures every contestant in every
// scenario in turn, and prints medians with minimum and maximum, and how far the
// goals are met. `make bench` and `make bench-quick` run it.
//
// Where a rate is measured, slow contestants have a half or a quarter of the jobs, which
// spares an hour. Handlers do nothing, payloads are 52 bytes of JSON and no server persists
// anything, unless a scenario says otherwise. Load and workers share this
// process, for every contestant alike. A rate counts handlers that have run, from
// the first to the last; what a contestant records in the background may follow
// by a moment.
//
// Time in commands is what INFO commandstats has. It is wall time: on a busy
// machine it exceeds the CPU time, which is shown beside it. What both a client and a
// script read by XREADGROUP is in it twice.
//
// GOGC is 400 for all, as the collector of a process without data of its own would run all
// the time; set it to 100 to see that.
package main

// Package difftest holds the schedules of Carillon against what others make of the same words: four cron libraries, the
// recurrences of RFC 5545, and the holidays that governments publish. It has tests only, and is a module of its own so
// that nobody who uses Carillon depends on what it is compared with.
//
// A run draws expressions, time zones and instants at random. Every answer that differs from ours has to belong to a class
// that says why (see classes_test.go and docs/schedules-differences.md), and has to be ours by the definition, which
// clock_test.go spells out with a calendar and a clock, slowly. DIFFTEST_SEED repeats a run, DIFFTEST_CASES sets its length.
package difftest

// Package plan computes the ticks of a schedule: the instants at which it is
// planned to fire.
//
// A [Spec] says when, as a value that can be stored; a [Plan] is a spec made
// ready, with its time zone, its bounds and its [Calendar]. Everything here is a
// pure function of these and of the instant it is asked about, so that all
// instances agree on every tick.
//
// Ticks are whole milliseconds of the years 1970 to 2199.
package plan

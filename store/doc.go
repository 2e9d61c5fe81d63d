// Package store is everything of Carillon that knows Redis: keys, scripts and
// the encoding of jobs.
package store

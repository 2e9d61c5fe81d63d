// Package archtest holds the architecture: its tests read the sources of the whole repository and fail, with the
// reason, where code departs from the rules of docs/design.md. It has no code that anything could import.
//
// Each rule is one function from files to violations. To add one, write the function, give it a reason in the list
// of rules, and show with a fixture that it can fail.
package archtest

// Package knobs carries settings that only tests turn: in virtual time an idle
// instance must not wake every second, and fault tests stand between the store
// and Redis.
package knobs

import (
	"context"
	"sync"
	"time"
)

// Knobs replace intervals that users have no reason to change. Zero values
// leave the default.
type Knobs struct {
	Poll  time.Duration // how often an instance looks at a segment, and Await at a job, without being told
	Block time.Duration // longest blocking read
	Lease time.Duration // of the instance, without the limits of Config.LeaseTTL
}

type key struct{}

// With returns a context for Start, Run or Await.
func With(ctx context.Context, k Knobs) context.Context {
	return context.WithValue(ctx, key{}, k)
}

// From returns the knobs of ctx.
func From(ctx context.Context) Knobs {
	k, _ := ctx.Value(key{}).(Knobs)
	return k
}

// hooks maps a client to what stands between it and Redis.
var hooks sync.Map

// Hook sets go-redis hooks for every client that is made from this one. It is
// called before New.
func Hook(client any, h ...any) { hooks.Store(client, h) }

// HooksOf returns what Hook set.
func HooksOf(client any) []any {
	h, _ := hooks.Load(client)
	all, _ := h.([]any)
	return all
}

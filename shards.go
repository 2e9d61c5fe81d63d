package carillon

import (
	"context"
	"errors"
	"fmt"
)

// Shards returns the jobs whose end the job was waiting for, in the order of their
// shards, with their results: it is for the handler of Sharding.Then. A shard that
// is no longer known, because its retention has passed, is nil.
func (x *Execution) Shards(ctx context.Context) ([]*JobInfo, error) {
	ids := x.entry.Spec.Then
	if len(ids) == 0 {
		return nil, opError("shards", x.ID, fmt.Errorf("%w: the job does not follow others", ErrState))
	}
	out := make([]*JobInfo, len(ids))
	for i, id := range ids {
		info, err := x.scheduler.Get(ctx, id)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, opError("shards", x.ID, err)
		}
		out[i] = info
	}
	return out, nil
}

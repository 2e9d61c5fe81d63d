package carillon

import (
	"maps"
	"slices"

	"github.com/carillon-go/carillon/store"
)

// Shard is one of the jobs that share the work of a tick. Zero Total: the job is
// not a shard.
type Shard struct {
	Index int // from 0
	Total int
	Param string
}

// slots is how many jobs of a queue the instance runs at a time. Those of its own
// queue have slots apart, so that neither long jobs nor a pause of another queue
// keep them from running where nobody can run them instead.
func (in *instance) slots(queue string) int {
	if store.InstanceOf(queue) != "" {
		return slices.Max(slices.Collect(maps.Values(in.config.Queues)))
	}
	return in.config.Queues[queue]
}

// shownQueue is the queue as users know it: an instance's own has no name.
func shownQueue(queue string) string {
	if store.InstanceOf(queue) != "" {
		return ""
	}
	return queue
}

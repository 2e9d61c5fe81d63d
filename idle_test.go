package carillon_test

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/faultnet"
	"github.com/carillon-go/carillon/internal/knobs"
	"github.com/carillon-go/carillon/internal/redistest"
)

// The more instances there are, the less often each of them looks whether the
// owner of the segment does its work.
func TestManyInstancesLookByTurns(t *testing.T) {
	t.Parallel()
	const instances = 24
	server := redistest.Single(t)
	p := &place{rdb: server.Client(t), namespace: redistest.Namespace(t), real: true}
	var beats, looks atomic.Int64
	watch(t, server, func(line string) { // scripts are told by a command that they alone send
		switch line = strings.ToLower(line); {
		case !strings.Contains(line, " lua]"):
		case strings.Contains(line, `"hkeys"`):
			beats.Add(1)
		case strings.Contains(line, `"type"`):
			looks.Add(1)
		}
	})
	for range instances {
		p.run(t, handlers{"x": succeed}, lease(3*time.Second)) // each looked every second if it were alone, and sends a heartbeat as often
	}
	rounds := func(n int64) {
		t.Helper()
		until := beats.Load() + n*instances
		eventually(t, "heartbeats", func() bool { return beats.Load() >= until })
	}
	rounds(2) // everybody has heard of the others
	rounds(1) // and the last wait that began before has ended
	before, at := looks.Load(), time.Now()
	rounds(3)
	seen, took := looks.Load()-before, time.Since(at) // 3 s, or more on a busy machine
	assert.Less(t, float64(seen), instances*took.Seconds()/3, "looks; three times that if nobody left it to others")
	assert.GreaterOrEqual(t, seen, int64(3+3), "those of the owner, and some of the others")
}

// When the owner of a segment is gone, the others do its work in time, though each
// of them looks less often than that.
func TestTurnsAreInTime(t *testing.T) {
	t.Parallel()
	const instances, ttl = 12, 6 * time.Second
	// A turn in each second; 12 s from one turn of an instance to its next.
	looks := knobs.With(t.Context(), knobs.Knobs{Poll: 4 * time.Second})
	p := backends[1].place(t)
	type begun struct {
		id string
		at time.Time
	}
	begins := make(chan begun, 100)
	h := handlers{"x": func(_ context.Context, x *carillon.Execution) error {
		begins <- begun{x.ID, time.Now()}
		return nil
	}}
	var wires []*faultnet.Net
	var schedulers []*carillon.Scheduler
	for range instances {
		rdb, wire := wireTo(t, p.rdb)
		wires = append(wires, wire)
		s := p.over(t, rdb, h, lease(ttl))
		require.NoError(t, s.Start(looks))
		schedulers = append(schedulers, s)
	}
	producer := p.new(t, nil)
	eventually(t, "everybody has heard of the others", passed(ttl/2+time.Second))
	all, err := producer.Instances(t.Context())
	require.NoError(t, err)
	require.Len(t, all, instances)
	slices.SortFunc(all, func(a, b carillon.InstanceInfo) int { return strings.Compare(a.ID, b.ID) }) // by start
	holder := p.rdb.Get(t.Context(), keyLike(t, p.rdb, p.namespace, ":k:%00segment/0")).Val()
	owner := slices.IndexFunc(all, func(i carillon.InstanceInfo) bool { return strings.HasPrefix(holder, i.ID) })
	require.GreaterOrEqual(t, owner, 0, holder)

	wires[owner].Set(faultnet.Faults{Cut: true})
	var jobs []carillon.Job
	for i := range 15 {
		jobs = append(jobs, carillon.Job{Name: "x", Delay: time.Duration(i+2) * 100 * time.Millisecond})
	}
	submitted := time.Now()
	ids := submitAll(t, producer, jobs)
	var most time.Duration
	for range jobs {
		b := receive(t, begins, "a job runs")
		most = max(most, b.at.Sub(submitted)-jobs[slices.Index(ids, b.id)].Delay)
	}
	heal(t, wires[owner], schedulers[owner])
	assert.Less(t, most, 4*time.Second, "two turns, for one of them was the owner's, on a busy machine")
}

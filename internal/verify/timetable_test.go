package verify

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/carillon-go/carillon"
)

// at is an instant of these tests, in seconds.
func at(s float64) time.Time {
	return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(time.Duration(s * float64(time.Second)))
}

// sheet is a timetable of one tick a second, from 1 to 4, that were all fired in time.
func sheet(s carillon.Schedule) *Timetable {
	s.Name = "s"
	t := &Timetable{Schedule: s}
	for i := range 4 {
		tick := at(float64(i + 1))
		t.Planned = append(t.Planned, tick)
		t.Jobs = append(t.Jobs, jobOf(tick, tick.Add(10*time.Millisecond), tick.Add(500*time.Millisecond)))
		t.Ledger = append(t.Ledger, carillon.TickInfo{Tick: tick, At: tick.Add(9 * time.Millisecond), Outcome: carillon.TickFired})
	}
	return t
}

func jobOf(tick, submitted, ended time.Time) *carillon.JobInfo {
	return &carillon.JobInfo{ID: "s~1~" + fmt.Sprint(tick.UnixMilli()), Name: "job", Schedule: "s", Tick: tick, SubmittedAt: submitted, FinishedAt: ended}
}

// leave takes the run of the i-th tick away, and says in the ledger why, s seconds late.
func (t *Timetable) leave(i int, late float64, outcome carillon.TickOutcome, reason string) {
	for n, j := range t.Jobs {
		if j.Tick.Equal(t.Planned[i]) {
			t.Jobs = append(t.Jobs[:n:n], t.Jobs[n+1:]...)
			break
		}
	}
	t.Ledger[i] = carillon.TickInfo{Tick: t.Planned[i], At: t.Planned[i].Add(time.Duration(late * float64(time.Second))), Outcome: outcome, Reason: reason}
}

func text(t time.Time) string { return t.Format("2006-01-02 15:04:05.999 MST") }

func TestTimetable(t *testing.T) {
	t.Parallel()
	missed := "it was missed: no instance fired it in time, and the misfire policy leaves it out"
	merged := "with the missed tick " + text(at(1)) + ", which ran for all of them"
	overlapped := "the run of " + text(at(1)) + " was unfinished"
	full := "a run was unfinished, and no further tick may wait"
	for name, c := range map[string]struct {
		schedule              carillon.Schedule
		edit                  func(*Timetable)
		missing, extra, wrong int
	}{
		"all fired": {edit: func(*Timetable) {}},
		"no job, no line": {edit: func(t *Timetable) {
			t.Jobs, t.Ledger = t.Jobs[1:], t.Ledger[1:]
		}, missing: 1},
		"no job, though it was fired": {edit: func(t *Timetable) { t.Jobs = t.Jobs[1:] }, missing: 1},
		"waits for ever":              {edit: func(t *Timetable) { t.leave(0, 0, carillon.TickWaiting, "for the end of a run") }, missing: 1},
		"fired twice":                 {edit: func(t *Timetable) { t.Jobs = append(t.Jobs, t.Jobs[0]) }, extra: 1},
		"fired at no tick": {edit: func(t *Timetable) {
			t.Jobs = append(t.Jobs, jobOf(at(5), at(5), at(6)))
		}, extra: 1},
		"early":                {edit: func(t *Timetable) { t.Jobs[0].SubmittedAt = at(0.999) }, wrong: 1},
		"run without a line":   {edit: func(t *Timetable) { t.Ledger = t.Ledger[1:] }, wrong: 1},
		"line of no tick":      {edit: func(t *Timetable) { t.Ledger[3].Tick = at(5) }, wrong: 2},
		"missed":               {carillon.Schedule{Misfire: carillon.SkipMissed}, func(t *Timetable) { t.leave(1, 5.1, carillon.TickSkipped, missed) }, 0, 0, 0},
		"missed in time":       {carillon.Schedule{Misfire: carillon.SkipMissed}, func(t *Timetable) { t.leave(1, 4.9, carillon.TickSkipped, missed) }, 0, 0, 1},
		"missed, and not last": {carillon.Schedule{Misfire: carillon.FireLast}, func(t *Timetable) { t.leave(1, 6.1, carillon.TickSkipped, missed) }, 0, 0, 0},
		"missed, and last":     {carillon.Schedule{Misfire: carillon.FireLast}, func(t *Timetable) { t.leave(1, 5.1, carillon.TickSkipped, missed) }, 0, 0, 1},
		"missed, and all fire": {carillon.Schedule{Misfire: carillon.FireAll}, func(t *Timetable) { t.leave(1, 9, carillon.TickSkipped, missed) }, 0, 0, 1},
		"merged":               {carillon.Schedule{}, func(t *Timetable) { t.leave(1, 5.1, carillon.TickMerged, merged) }, 0, 0, 0},
		"merged in time":       {carillon.Schedule{}, func(t *Timetable) { t.leave(1, 4.9, carillon.TickMerged, merged) }, 0, 0, 1},
		"merged with nothing": {carillon.Schedule{}, func(t *Timetable) {
			t.leave(1, 5.1, carillon.TickMerged, merged)
			t.leave(0, 6.1, carillon.TickSkipped, overlapped)
		}, 0, 0, 2},
		"merged, and all fire": {carillon.Schedule{Misfire: carillon.FireAll}, func(t *Timetable) { t.leave(1, 6, carillon.TickMerged, merged) }, 0, 0, 1},
		"beyond the bounds": {carillon.Schedule{Misfire: carillon.FireAll, ReplayMax: 2}, func(t *Timetable) {
			t.leave(1, 7.1, carillon.TickSkipped, "it was missed, and is beyond the bounds of what is made up for")
		}, 0, 0, 0},
		"within the bounds": {carillon.Schedule{Misfire: carillon.FireAll, ReplayMax: 3}, func(t *Timetable) {
			t.leave(1, 7.1, carillon.TickSkipped, "it was missed, and is beyond the bounds of what is made up for")
		}, 0, 0, 1},
		"overlapped": {carillon.Schedule{Overlap: carillon.Skip}, func(t *Timetable) {
			t.Jobs[0].FinishedAt = at(2.9)
			t.leave(1, 0.5, carillon.TickSkipped, overlapped)
		}, 0, 0, 0},
		"overlapped, after the end": {carillon.Schedule{Overlap: carillon.Skip}, func(t *Timetable) { t.leave(1, 0.6, carillon.TickSkipped, overlapped) }, 0, 0, 1},
		"overlapped, and may": {carillon.Schedule{}, func(t *Timetable) {
			t.Jobs[0].FinishedAt = at(2.9)
			t.leave(1, 0.5, carillon.TickSkipped, overlapped)
		}, 0, 0, 1},
		"buffer full": {carillon.Schedule{Overlap: carillon.BufferOne}, func(t *Timetable) {
			t.Jobs[0].FinishedAt = at(2.9)
			t.leave(1, 0.5, carillon.TickSkipped, full)
		}, 0, 0, 0},
		"buffer full of nothing": {carillon.Schedule{Overlap: carillon.BufferOne}, func(t *Timetable) { t.leave(1, 0.6, carillon.TickSkipped, full) }, 0, 0, 1},
		"replaced": {carillon.Schedule{Overlap: carillon.Replace}, func(t *Timetable) {
			t.leave(1, 0.1, carillon.TickSkipped, "while it waited for the end of a run, the tick "+text(at(3))+" took its place")
		}, 0, 0, 0},
		"replaced by an earlier one": {carillon.Schedule{Overlap: carillon.Replace}, func(t *Timetable) {
			t.leave(1, 0.1, carillon.TickSkipped, "while it waited for the end of a run, the tick "+text(at(1))+" took its place")
		}, 0, 0, 1},
		"dropped": {carillon.Schedule{Overlap: carillon.BufferOne}, func(t *Timetable) {
			t.leave(1, 0.1, carillon.TickSkipped, "the run it waited for failed")
		}, 0, 0, 1},
		"paused":            {carillon.Schedule{}, func(t *Timetable) { t.leave(1, 0.1, carillon.TickSkipped, "the schedule was paused") }, 0, 0, 1},
		"runs beside":       {carillon.Schedule{}, func(t *Timetable) { t.Jobs[0].FinishedAt = at(9) }, 0, 0, 0},
		"runs that may not": {carillon.Schedule{Overlap: carillon.Skip}, func(t *Timetable) { t.Jobs[0].FinishedAt = at(2.5) }, 0, 0, 1},
		"shards missing":    {carillon.Schedule{Sharding: carillon.Sharding{Shards: 2}}, func(*Timetable) {}, 4, 0, 0},
		"nothing follows":   {carillon.Schedule{Sharding: carillon.Sharding{Then: &carillon.Job{Name: "then"}}}, func(*Timetable) {}, 0, 0, 4},
		"follows too soon": {carillon.Schedule{Sharding: carillon.Sharding{Then: &carillon.Job{Name: "then"}}}, func(t *Timetable) {
			for i, tick := range t.Planned {
				then := jobOf(tick, tick.Add(time.Second/2), tick.Add(time.Second))
				if then.Name = "then"; i == 0 {
					then.SubmittedAt = tick.Add(499 * time.Millisecond)
				}
				t.Jobs = append(t.Jobs, then)
			}
		}, 0, 0, 1},
	} {
		s := sheet(c.schedule)
		c.edit(s)
		m := s.Match()
		assert.Len(t, m.Missing, c.missing, "%s: missing %v", name, m.Missing)
		assert.Len(t, m.Extra, c.extra, "%s: extra %v", name, m.Extra)
		assert.Len(t, m.Wrong, c.wrong, "%s: wrong %v", name, m.Wrong)
	}
}

// One line can speak of many ticks.
func TestTimetableRange(t *testing.T) {
	t.Parallel()
	s := sheet(carillon.Schedule{})
	merged := "with the missed tick " + text(at(1)) + ", which ran for all of them"
	for i := 1; i < 4; i++ {
		s.leave(i, 5.1, carillon.TickMerged, merged)
	}
	s.Ledger = append(s.Ledger[:1], s.Ledger[3])
	s.Ledger[1].From = s.Planned[1]
	m := s.Match()
	assert.Equal(t, Match{Schedules: 1, Planned: 4, Fired: 1, Merged: 3, Late: []time.Duration{10 * time.Millisecond}}, m)
	s.Ledger[1].From = s.Planned[2]
	assert.Len(t, s.Match().Missing, 1)
	assert.Equal(t, 10*time.Millisecond, m.LateAt(99))
	m.Add(m)
	assert.Equal(t, 8, m.Planned)
}

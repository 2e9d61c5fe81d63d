package main

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"time"
)

var costScenarios = []scenario{
	{name: "redis-time", run: redisTime, only: []string{ours, "asynq", "gocraft", "floor"}},
	{name: "bytes", run: bytes, only: []string{ours, "asynq", "gocraft", "floor"}},
	{name: "parked", run: parked, only: []string{ours, "asynq", "gocraft"}},
	{name: "idle", run: idle, only: []string{ours, "asynq", "asynq-eager", "gocraft"}},
}

const (
	redisCPU   = "µs of Redis CPU a job"
	inCommands = "µs in Redis commands a job"
	bytesUnit  = "bytes of Redis a job"

	busiestMaster = "% of Redis CPU, busiest master"
	idlestMaster  = "% of Redis CPU, idlest master"
)

// redisTime measures what a job costs Redis: the CPU of the server with its
// network, and the time in commands alone. And how often this process allocates.
func redisTime(t *trial) error {
	q, meter, err := t.metered()
	if err != nil {
		return err
	}
	n := t.size.of(100_000, 20_000)
	all := jobs(n, standardPayload, time.Time{})
	if err := meter.during(t, "redis-time/submit", n, func() error { return q.submitMany(t.ctx, all) }); err != nil {
		return err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := meter.during(t, "redis-time/drain", n, func() error {
		_, err := t.drain(q, nil, work{instances: 1}, n)
		return err
	}); err != nil {
		return err
	}
	runtime.ReadMemStats(&after)
	t.put("allocations/drain", "allocations a job", float64(after.Mallocs-before.Mallocs)/float64(n))
	return nil
}

// meter measures what servers do.
type meter struct {
	servers []*redisServer
	sends   map[string]int // the commands of the contestant's clients
}

// metered opens a queue on a server, with a meter of what both cost.
func (t *trial) metered() (queue, *meter, error) {
	q, server, err := t.open()
	if err != nil {
		return nil, nil, err
	}
	m, err := t.meter(q, server)
	return q, m, err
}

// meter learns what the contestant sends from a first few jobs.
func (t *trial) meter(q queue, servers ...*redisServer) (*meter, error) {
	warm := func() error { return t.warm(q) }
	m := &meter{servers: servers, sends: make(map[string]int)}
	for _, s := range servers {
		next := warm
		warm = func() error {
			sends, err := s.sent(t.ctx, next)
			for name, n := range sends {
				m.sends[name] += n
			}
			return err
		}
	}
	return m, warm()
}

// used returns the CPU and the seconds in commands of each server so far.
func (m *meter) used(t *trial) (cpu, commands []float64, err error) {
	for _, s := range m.servers {
		c, err1 := s.cpu(t.ctx)
		i, err2 := s.inCommands(t.ctx, m.sends)
		cpu, commands, err = append(cpu, c), append(commands, i), errors.Join(err, err1, err2)
	}
	return cpu, commands, err
}

// during puts what n jobs cost while f runs.
func (m *meter) during(t *trial, row string, n int, f func() error) error {
	cpu1, commands1, err := m.used(t)
	if err := errors.Join(err, f()); err != nil {
		return err
	}
	cpu2, commands2, err := m.used(t)
	if err != nil {
		return err
	}
	cpu, commands := differences(cpu1, cpu2), differences(commands1, commands2)
	t.put(row, redisCPU, sum(cpu)/float64(n)*1e6)
	t.put(row, inCommands, sum(commands)/float64(n)*1e6)
	if len(m.servers) > 1 {
		// Not of the time in commands, in which a master also waits for a core.
		share := 100 / sum(cpu)
		t.put(row+"/share", busiestMaster, slices.Max(cpu)*share)
		t.put(row+"/share", idlestMaster, slices.Min(cpu)*share)
	}
	return nil
}

func differences(from, to []float64) []float64 {
	out := make([]float64, len(from))
	for i := range out {
		out[i] = to[i] - from[i]
	}
	return out
}

func sum(all []float64) (total float64) {
	for _, v := range all {
		total += v
	}
	return total
}

// bytes measures the memory of a job in each of its states.
func bytes(t *trial) error {
	n := t.size.of(100_000, 20_000)
	for _, state := range []struct {
		name string
		at   time.Time
		work bool
	}{{"scheduled", time.Now().Add(day), false}, {"queued", time.Time{}, false}, {"finished", time.Time{}, true}} {
		s, err := t.redis()
		if err != nil {
			return err
		}
		q, err := t.openAt(place{redis: []string{s.addr}, keepAll: state.work})
		if errors.Is(err, errors.ErrUnsupported) {
			continue // it keeps no finished jobs
		}
		if err != nil {
			return err
		}
		if err := t.warm(q); err != nil {
			return err
		}
		before, err := s.memory(t.ctx)
		if err != nil {
			return err
		}
		err = q.submitMany(t.ctx, jobs(n, standardPayload, state.at))
		if errors.Is(err, errors.ErrUnsupported) {
			continue
		}
		if err == nil && state.work {
			_, err = t.drain(q, nil, work{instances: 1}, n)
		}
		if err != nil {
			return err
		}
		after, err := s.memory(t.ctx)
		if err != nil {
			return err
		}
		t.put("bytes/"+state.name, bytesUnit, (after-before)/float64(n))
	}
	return nil
}

const day = 24 * time.Hour

// parked measures what draining costs while other jobs wait for tomorrow.
func parked(t *trial) error {
	q, meter, err := t.metered()
	if err != nil {
		return err
	}
	n := t.size.of(100_000, 20_000)
	all := jobs(n, standardPayload, time.Time{})
	there := 0
	for _, want := range []int{1000, 10_000, 100_000, 1_000_000} {
		if t.size == tiny && want > 1000 {
			break
		}
		if err := q.submitMany(t.ctx, jobs(want-there, standardPayload, time.Now().Add(day))); err != nil {
			return err
		}
		there = want
		if err := q.submitMany(t.ctx, all); err != nil {
			return err
		}
		row := fmt.Sprintf("parked/%d", want)
		if err := meter.during(t, row, n, func() error {
			done, err := t.drain(q, nil, work{instances: 1}, n)
			if err == nil {
				t.put(row, "jobs/s", done.rate())
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// idle measures what instances cost that have nothing to do.
func idle(t *trial) error {
	settle, window := 5*time.Second, 10*time.Second
	if t.size == tiny {
		settle, window = 0, 100*time.Millisecond
	}
	for _, instances := range []int{1, 256} {
		if t.size == tiny && instances > 1 || t.who.name == "gocraft" && instances > 1 { // of its 16,384 workers
			break
		}
		q, server, err := t.open()
		if err != nil {
			return err
		}
		stop, err := q.start(t.ctx, work{instances: instances, do: func(int, []byte) error { return nil }})
		if err != nil {
			return err
		}
		<-time.After(settle)
		err = t.idling(server, fmt.Sprintf("idle/%d", instances), window)
		if err := errors.Join(err, stop()); err != nil {
			return err
		}
	}
	return nil
}

func (t *trial) idling(server *redisServer, row string, window time.Duration) error {
	cpu1, err := server.cpu(t.ctx)
	if err != nil {
		return err
	}
	own1, begun := ownCPU(), time.Now()
	<-time.After(window)
	cpu2, err := server.cpu(t.ctx)
	took := time.Since(begun).Seconds()
	t.put(row, "% of a core, Redis", (cpu2-cpu1)/took*100)
	t.put(row, "% of a core, instances", (ownCPU()-own1)/took*100)
	if err != nil {
		return err
	}
	begun = time.Now()
	sent, err := server.sent(t.ctx, func() error { <-time.After(window); return nil })
	total := 0
	for _, n := range sent {
		total += n
	}
	t.put(row, "commands/s", float64(total)/time.Since(begun).Seconds())
	return err
}

// ownCPU returns the seconds of CPU that this process has used.
func ownCPU() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails only for a bad argument
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

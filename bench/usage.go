package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
)

// number reads a field of INFO.
func (s *redisServer) number(ctx context.Context, section, field string) (float64, error) {
	info, err := s.rdb.Info(ctx, section).Result()
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(info) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), field+":"); ok {
			return strconv.ParseFloat(v, 64)
		}
	}
	return 0, fmt.Errorf("INFO %s has no %s", section, field)
}

// cpu returns the seconds of CPU that the server has used.
func (s *redisServer) cpu(ctx context.Context) (float64, error) {
	user, err1 := s.number(ctx, "cpu", "used_cpu_user")
	sys, err2 := s.number(ctx, "cpu", "used_cpu_sys")
	return user + sys, errors.Join(err1, err2)
}

// memory returns the bytes of the server, without the buffers of its clients.
func (s *redisServer) memory(ctx context.Context) (float64, error) {
	used, err1 := s.number(ctx, "memory", "used_memory")
	clients, err2 := s.number(ctx, "memory", "mem_clients_normal")
	return used - clients, errors.Join(err1, err2)
}

// inCommands returns the seconds that the server has spent in those commands,
// by INFO commandstats. A script's time contains that of its commands, so only
// what clients send themselves may be asked for.
func (s *redisServer) inCommands(ctx context.Context, sent map[string]int) (float64, error) {
	info, err := s.rdb.InfoMap(ctx, "commandstats").Result()
	var total float64
	for key, value := range info["Commandstats"] {
		name, _, _ := strings.Cut(strings.TrimPrefix(key, "cmdstat_"), "|")
		if sent[name] == 0 {
			continue
		}
		_, value, _ = strings.Cut(value, "usec=")
		value, _, _ = strings.Cut(value, ",")
		usec, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, err
		}
		total += usec / 1e6
	}
	return total, err
}

// sent counts the commands that clients send to the server while f runs, those
// of scripts and INFO left out.
func (s *redisServer) sent(ctx context.Context, f func() error) (map[string]int, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte("MONITOR\r\n")); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	count := make(map[string]int)
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, 1<<26) // a line holds a whole command
	lines.Scan()             // OK
	var reading sync.WaitGroup
	reading.Go(func() { // ends with the connection
		for lines.Scan() {
			// 1700000000.123456 [0 127.0.0.1:4711] "xadd" "key" ...
			_, rest, _ := strings.Cut(lines.Text(), " [")
			from, command, _ := strings.Cut(rest, "] ")
			name, _, _ := strings.Cut(strings.TrimPrefix(command, `"`), `"`)
			if name = strings.ToLower(name); !strings.HasSuffix(from, " lua") && name != "info" {
				count[name]++
			}
		}
	})
	err = f()
	err = errors.Join(err, conn.Close())
	reading.Wait()
	return count, err
}

package carillontest

import (
	"context"
	"fmt"
	"net"
	"sort"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"os"

	"github.com/redis/go-redis/v9"
	"github.com/carillon-go/carillon"
)

type cc struct {
	net.Conn
	f func(string)
}

func (c cc) Write(p []byte) (int, error) { c.f(string(p)); return c.Conn.Write(p) }

func TestZZCount(t *testing.T) {
	real := time.Now()
	_ = real
	synctest.Test(t, func(t *testing.T) {
		env := New(t, carillon.Config{})
		o := *env.rdb.Options()
		d := o.Dialer
		var mu sync.Mutex
		n := map[string]int{}
		var log []string
		o.Dialer = func(ctx context.Context, a, b string) (net.Conn, error) {
			c, err := d(ctx, a, b)
			return cc{c, func(s string) {
				mu.Lock()
				defer mu.Unlock()
				parts := strings.Split(s, "\r\n")
				if len(parts) > 4 {
					k := parts[2]
					if strings.HasPrefix(k, "eval") {
						k += " " + parts[4][:8] + " " + parts[8]
					}
					n[k]++
					log = append(log, env.Elapsed().String()+" "+k)
				} else {
					n["?"+s]++
				}
			}}, err
		}
		rdb := redis.NewClient(&o)
		t.Cleanup(func() { rdb.Close() })
		env.rdb = rdb
		s := env.Instance(carillon.Config{})
		s.Handle("w", carillon.HandlerFunc(func(context.Context, *carillon.Execution) error { return nil })); env.Start(s); if os.Getenv("CRON") != "" { s.Schedule(t.Context(), carillon.Schedule{Name: "h", Spec: carillon.Cron("30 * * * *"), Job: carillon.Job{Name: "w"}}) }
		mu.Lock()
		n = map[string]int{}
		log = nil
		mu.Unlock()
		env.Advance(24 * time.Hour)
		mu.Lock()
		var ks []string
		for k, v := range n {
			ks = append(ks, fmt.Sprintf("%6d %s", v, k))
		}
		sort.Strings(ks)
		fmt.Println(strings.Join(ks, "\n"))
		if os.Getenv("L") != "" { fmt.Println(strings.Join(log, "\n")) }
		mu.Unlock()
		s.Shutdown(context.Background())
	})
}

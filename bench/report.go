package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"text/tabwriter"
)

// report is what a run writes down.
type report struct {
	Machine     string        `json:"machine"`
	Go          string        `json:"go"`
	Redis       string        `json:"redis"`
	Persistence string        `json:"persistence"`
	Payload     string        `json:"payload"`
	Handler     string        `json:"handler"`
	Contestants []participant `json:"contestants"`
	Rows        []*row        `json:"rows"`

	results *results
}

type participant struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Setting string `json:"setting"`
}

func newReport(ctx context.Context, b *bench) (*report, error) {
	// The run may have been interrupted, and this takes a moment only.
	s, err := startRedis(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	defer s.stop()
	server, err := s.rdb.InfoMap(context.WithoutCancel(ctx), "server").Result()
	if err != nil {
		return nil, err
	}
	r := &report{
		Machine: fmt.Sprintf("%s/%s, %d cores%s; servers on the same machine, by loopback", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), processor()),
		Go:      fmt.Sprintf("%s, GOGC=%d", runtime.Version(), gogc()), Redis: server["Server"]["redis_version"],
		Persistence: "none, unless the scenario's name says so",
		Payload:     fmt.Sprintf("%d bytes of JSON, unless the scenario's name says so", standardPayload),
		Handler:     "returns at once, unless the scenario's name says so",
		Rows:        b.results.rows, results: &b.results,
	}
	for _, c := range b.contestants {
		r.Contestants = append(r.Contestants, participant{c.name, c.version, c.setting})
	}
	return r, nil
}

// gogc is negative when it is off.
func gogc() int64 {
	percent := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(percent)
	return int64(percent[0].Value.Uint64()) //nolint:gosec // as the environment has it
}

// processor names the CPU, where that is easy to find out.
func processor() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	_, model, found := strings.Cut(string(info), "model name")
	if !found {
		return ""
	}
	model, _, _ = strings.Cut(model, "\n")
	return " of " + strings.TrimLeft(model, "\t :")
}

// moduleVersion is that of a module in this binary.
func moduleVersion(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == path {
				return m.Version
			}
		}
	}
	return "unknown"
}

func (r *report) print(out io.Writer) {
	_, _ = fmt.Fprintf(out, "%s\n%s, Redis %s\n", r.Machine, r.Go, r.Redis)
	for _, c := range r.Contestants {
		_, _ = fmt.Fprintf(out, "%s: %s; %s\n", c.Name, c.Version, c.Setting)
	}
	_, _ = fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "scenario\tcontestant\tmedian\tmin\tmax\tunit")
	for _, v := range r.Rows {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", v.Scenario, v.Contestant, figure(v.Median), figure(v.Min), figure(v.Max), v.Unit)
	}
	_ = w.Flush()
	_, _ = fmt.Fprintln(out)
	r.results.printGoals(out)
}

func (r *report) write(file string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o600)
}

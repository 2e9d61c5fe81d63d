package main

import (
	"errors"
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// plot is a chart of bars in groups, or of lines, with one colour for each
// contestant. Its values are positive.
type plot struct {
	title  string
	unit   string
	groups []string
	series []series
	log    bool // else linear, from 0
	lines  bool
}

type series struct {
	name   string
	colour string    // the same in all plots
	values []float64 // of each group; NaN: none
}

// bar is a group of a plot: the row it shows, and what it is called.
type bar struct{ label, scenario, unit string }

// draw writes the plots whose rows were measured.
func (r *report) draw(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	var errs []error
	for name, p := range map[string]*plot{
		"throughput": r.plot("Throughput", "jobs/s", []bar{
			{"drain", "drain/1", "jobs/s"}, {"sustained", "sustained", "jobs/s"}, {"bulk submit", "submit/bulk", "jobs/s"},
			{"submit, 1 goroutine", "submit/single/1", "jobs/s"}, {"16 goroutines", "submit/single/16", "jobs/s"}, {"256", "submit/single/256", "jobs/s"},
		}),
		"latency": r.plot("Latency", "ms", []bar{
			{"idle pick-up, p50", "pickup", "p50 ms"}, {"p99", "pickup", "p99 ms"},
			{"lateness, p50", "lateness", "p50 ms"}, {"p99", "lateness", "p99 ms"},
		}).logarithmic(),
		"parked": r.plot("Redis CPU of a job, by delayed jobs that are parked", "µs", []bar{
			{"1,000", "parked/1000", redisCPU}, {"10,000", "parked/10000", redisCPU},
			{"100,000", "parked/100000", redisCPU}, {"1,000,000", "parked/1000000", redisCPU},
		}).asLines(),
	} {
		if len(p.series) > 0 {
			errs = append(errs, os.WriteFile(filepath.Join(dir, name+".svg"), []byte(p.svg()), 0o600))
		}
	}
	return errors.Join(errs...)
}

// plot collects what was measured. A value that is not positive, as of jobs that
// start too early, is left out.
func (r *report) plot(title, unit string, bars []bar) *plot {
	p := &plot{title: title, unit: unit}
	for _, b := range bars {
		p.groups = append(p.groups, b.label)
	}
	for i, c := range r.Contestants {
		s := series{name: c.Name, colour: colours[i%len(colours)]}
		for _, b := range bars {
			value := math.NaN()
			if w := r.results.find(b.scenario, c.Name, b.unit); w != nil && w.Median > 0 {
				value = w.Median
			}
			s.values = append(s.values, value)
		}
		if slices.ContainsFunc(s.values, func(v float64) bool { return v > 0 }) {
			p.series = append(p.series, s)
		}
	}
	return p
}

func (p *plot) logarithmic() *plot { p.log = true; return p }
func (p *plot) asLines() *plot     { p.lines = true; return p }

const (
	plotWidth, plotHeight       = 860.0, 360.0
	left, right, above, beneath = 70.0, 20.0, 64.0, 40.0
)

// colours are told apart by most eyes, on white and on black.
var colours = []string{"#d55e00", "#0072b2", "#56b4e9", "#009e73", "#cc79a7", "#8c8c8c"}

// svg draws the plot.
func (p *plot) svg() string {
	var b strings.Builder
	text := func(x, y float64, anchor, s string) {
		_, _ = fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", x, y, anchor, html.EscapeString(s))
	}
	_, _ = fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="sans-serif" font-size="12" fill="#333">
<rect width="100%%" height="100%%" fill="#fff"/>
`, plotWidth, plotHeight)
	text(left, 20, "start", p.title+", "+p.unit)
	x := left
	for _, s := range p.series {
		_, _ = fmt.Fprintf(&b, `<rect x="%.1f" y="32" width="10" height="10" fill="%s"/>`+"\n", x, s.colour)
		text(x+14, 41, "start", s.name)
		x += 34 + 7*float64(len(s.name))
	}
	ticks := p.ticks()
	scale := p.scale(ticks)
	for _, v := range ticks {
		_, _ = fmt.Fprintf(&b, `<path d="M%.1f %.1fH%.1f" stroke="#ddd"/>`+"\n", left, scale(v), plotWidth-right)
		text(left-6, scale(v)+4, "end", short(v))
	}
	step := (plotWidth - left - right) / float64(len(p.groups))
	for g, label := range p.groups {
		text(left+(float64(g)+0.5)*step, plotHeight-beneath+18, "middle", label)
	}
	for i, s := range p.series {
		width := step * 0.8 / float64(len(p.series))
		var points []string
		for g, v := range s.values {
			if math.IsNaN(v) {
				continue
			}
			name := html.EscapeString(fmt.Sprintf("%s: %s %s", s.name, figure(v), p.unit))
			if p.lines {
				x := left + (float64(g)+0.5)*step
				points = append(points, fmt.Sprintf("%.1f,%.1f", x, scale(v)))
				_, _ = fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="4" fill="%s"><title>%s</title></circle>`+"\n", x, scale(v), s.colour, name)
				continue
			}
			x := left + (float64(g)+0.1)*step + float64(i)*width
			_, _ = fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"><title>%s</title></rect>`+"\n",
				x, scale(v), width-1, plotHeight-beneath-scale(v), s.colour, name)
		}
		if len(points) > 1 {
			_, _ = fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(points, " "), s.colour)
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// ticks are the labelled values of the scale, which enclose all others.
func (p *plot) ticks() (ticks []float64) {
	least, most := math.Inf(1), 0.0
	for _, s := range p.series {
		for _, v := range s.values {
			if !math.IsNaN(v) {
				least, most = min(least, v), max(most, v)
			}
		}
	}
	if p.log {
		last := math.Ceil(math.Log10(most))
		for e := min(math.Floor(math.Log10(least)), last-1); e <= last; e++ {
			ticks = append(ticks, math.Pow(10, e))
		}
		return ticks
	}
	step := math.Pow(10, math.Floor(math.Log10(most)))
	for most/step < 3 { // too few
		step /= 2
	}
	for v := 0.0; ; v += step {
		ticks = append(ticks, v)
		if v >= most {
			return ticks
		}
	}
}

// scale returns where a value is drawn.
func (p *plot) scale(ticks []float64) func(float64) float64 {
	place := func(v float64) float64 { return v }
	if p.log {
		place = math.Log10
	}
	least, most := place(ticks[0]), place(ticks[len(ticks)-1])
	return func(v float64) float64 {
		return plotHeight - beneath - (place(v)-least)/(most-least)*(plotHeight-beneath-above)
	}
}

// short prints the value of a tick.
func short(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%gM", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%gk", v/1e3)
	}
	return fmt.Sprintf("%.3g", v)
}

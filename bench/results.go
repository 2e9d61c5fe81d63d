package main

import (
	"fmt"
	"slices"
)

// row is what was measured of one contestant in all rounds.
type row struct {
	Scenario   string  `json:"scenario"`
	Contestant string  `json:"contestant"`
	Unit       string  `json:"unit"`
	Median     float64 `json:"median"`
	Min        float64 `json:"min"`
	Max        float64 `json:"max"`

	values []float64
}

// results are rows in the order in which they were first measured.
type results struct {
	rows []*row
}

func (r *results) add(scenario, contestant, unit string, value float64) {
	w := r.find(scenario, contestant, unit)
	if w == nil {
		w = &row{Scenario: scenario, Contestant: contestant, Unit: unit}
		r.rows = append(r.rows, w)
	}
	w.values = append(w.values, value)
	sorted := slices.Sorted(slices.Values(w.values))
	n := len(sorted)
	w.Min, w.Max, w.Median = sorted[0], sorted[n-1], (sorted[(n-1)/2]+sorted[n/2])/2
}

func (r *results) find(scenario, contestant, unit string) *row {
	i := slices.IndexFunc(r.rows, func(w *row) bool {
		return w.Scenario == scenario && w.Contestant == contestant && w.Unit == unit
	})
	if i < 0 {
		return nil
	}
	return r.rows[i]
}

// figure prints three or more digits.
func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/carillon-go/carillon"
)

// Order is what a customer sends.
type Order struct {
	ID    string `json:"id"`
	Email string `json:"email"`
}

// status is what the API says about an order.
type status struct {
	ID           string         `json:"id"`
	Confirmation carillon.State `json:"confirmation"`
	Attempts     int            `json:"attempts"`
	ConfirmedAt  time.Time      `json:"confirmedAt,omitzero"`
}

func routes(jobs *carillon.Scheduler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) {
		var o Order
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&o); err != nil {
			http.Error(w, "the order is not JSON", http.StatusBadRequest)
			return
		}
		if o.ID == "" || o.Email == "" {
			http.Error(w, "an order has an id and an email", http.StatusBadRequest)
			return
		}
		// A customer who is not sure whether the order came through sends it
		// again. The job's ID is made of the order's, so it is confirmed once.
		receipt, err := jobs.Submit(r.Context(), carillon.Job{Name: confirmOrder, ID: jobID(o.ID), Args: o})
		switch {
		case err != nil:
			refuse(w, err)
		case receipt.Duplicate:
			w.WriteHeader(http.StatusOK)
		default:
			w.Header().Set("Location", "/orders/"+url.PathEscape(o.ID))
			w.WriteHeader(http.StatusAccepted)
		}
	})
	mux.HandleFunc("GET /orders/{id}", func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		job, err := jobs.Get(r.Context(), jobID(id))
		if err != nil {
			refuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(status{
			ID: id, Confirmation: job.State, Attempts: job.Attempt, ConfirmedAt: job.FinishedAt,
		})
	})
	return mux
}

func jobID(order string) string { return "confirm/" + order }

// refuse translates Carillon's errors.
func refuse(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, carillon.ErrNotFound):
		http.Error(w, "no such order", http.StatusNotFound)
	case errors.Is(err, carillon.ErrConflict):
		http.Error(w, "another order has this id", http.StatusConflict)
	case errors.Is(err, carillon.ErrInvalid): // an ID that is too long, say
		http.Error(w, err.Error(), http.StatusBadRequest)
	default: // ErrUnavailable: surely not stored; ErrUncertain: perhaps. Sending it again is right for both.
		http.Error(w, "try again", http.StatusServiceUnavailable)
	}
}

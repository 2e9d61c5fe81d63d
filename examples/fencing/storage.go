package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// storage is the resource that has to be protected: another system, with an
// interface of its own, that knows nothing of Carillon but the idea of a token.
type storage struct {
	addr string
	tell story

	mu      sync.Mutex
	orders  int
	report  string
	largest uint64 // token
	begun   bool   // somebody has read

	// For the show.
	firstReader chan string   // name of the worker that reads first
	release     chan struct{} // closed when it may have its answer
	refused     chan string   // name of a worker whose write was refused
	server      *http.Server
}

func openStorage(ctx context.Context, tell story) (*storage, error) {
	s := &storage{
		tell: tell, orders: 2, firstReader: make(chan string, 1),
		release: make(chan struct{}), refused: make(chan string, 1),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /orders", s.read)
	mux.HandleFunc("PUT /report", s.write)
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.addr = "http://" + listener.Addr().String()
	s.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = s.server.Serve(listener) }() // ends with close
	return s, nil
}

func (s *storage) close() { _ = s.server.Close() }

// write is the fence: it refuses every token smaller than the largest it has
// seen. In a database this is one statement:
//
//	UPDATE reports SET content = $1, token = $2 WHERE name = $3 AND token <= $2
func (s *storage) write(w http.ResponseWriter, r *http.Request) {
	who := r.Header.Get("Worker")
	token, err := strconv.ParseUint(r.Header.Get("Token"), 10, 64)
	content, err2 := io.ReadAll(http.MaxBytesReader(w, r.Body, 1000))
	if err != nil || err2 != nil {
		http.Error(w, "a report comes with a token", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell(who, "writes %q with token %d", content, token)
	if token < s.largest {
		s.tell("storage", "REFUSES it: it has seen token %d, which is larger", s.largest)
		http.Error(w, "a newer attempt has written", http.StatusConflict)
		s.refused <- who
		return
	}
	s.tell("storage", "accepts it")
	s.largest, s.report = token, string(content)
}

// read answers how many orders there are. The first one who asks is paused and
// so gets its answer late.
func (s *storage) read(w http.ResponseWriter, r *http.Request) {
	who := r.Header.Get("Worker")
	s.mu.Lock()
	first, orders := !s.begun, s.orders
	s.begun = true
	s.tell(who, "begins attempt %s, token %s, and asks for the orders: there are %d", r.Header.Get("Attempt"), r.Header.Get("Token"), orders)
	s.mu.Unlock()
	if first {
		s.firstReader <- who
		select {
		case <-s.release:
		case <-r.Context().Done():
		}
	}
	fmt.Fprint(w, orders)
}

func (s *storage) order() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders++
	s.tell("storage", "has a new order, which makes %d", s.orders)
}

func (s *storage) content() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report
}

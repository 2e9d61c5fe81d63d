package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/carillon-go/carillon"
)

// jobName selects the handler, and File is what it is given.
const jobName = "digest"

// File names a file. Paths are bytes, not text: JSON would mend what is not UTF-8.
type File struct{ Path []byte }

// Digest is the result of a job.
type Digest struct {
	SHA256 string
	Lines  int64
}

// work does jobs until ctx ends, and then finishes what it has begun.
func work(ctx context.Context, s *carillon.Scheduler) error {
	config := carillon.HandlerConfig{Retry: &carillon.Retry{MaxAttempts: 3}}
	if err := s.HandleWith(jobName, carillon.FuncResult(digest), config); err != nil {
		return err
	}
	return s.Run(ctx)
}

// digest is the handler.
func digest(ctx context.Context, f File) (Digest, error) {
	file, err := os.Open(string(f.Path))
	if err != nil {
		return Digest{}, steer(err)
	}
	defer file.Close()
	hash, lines := sha256.New(), new(lineCounter)
	if _, err := io.Copy(io.MultiWriter(hash, lines), reader{ctx, file}); err != nil {
		return Digest{}, steer(err)
	}
	return Digest{hex.EncodeToString(hash.Sum(nil)), int64(*lines)}, nil
}

// steer marks errors that another attempt cannot mend.
func steer(err error) error {
	permanent := errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
	var withPath *fs.PathError
	if errors.As(err, &withPath) {
		err = withPath.Err // the report names the path itself
	}
	if permanent {
		return carillon.Permanent(err)
	}
	return err
}

// reader gives up when ctx ends, so that a stop does not wait for a huge file.
type reader struct {
	ctx context.Context
	io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(p)
}

type lineCounter int64

func (c *lineCounter) Write(p []byte) (int, error) {
	*c += lineCounter(bytes.Count(p, []byte{'\n'}))
	return len(p), nil
}

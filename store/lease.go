package store

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// Lease is a named hold: SET NX PX with an owner and a token. Tokens grow with
// every holder.
type Lease struct {
	Name  string
	Owner string
	Token uint64
}

func (s *Store) leaseKeys(name string) keys {
	return s.segments[hashSegment(name, len(s.segments))]
}

// Acquire takes a lease for ttl. When another owner holds it, the lease is nil
// and the duration tells when that hold lapses unless it is renewed.
func (s *Store) Acquire(ctx context.Context, name, owner string, ttl time.Duration) (*Lease, time.Duration, error) {
	k := s.leaseKeys(name)
	reply, err := s.run(ctx, call{
		scriptLeaseAcquire, []string{k.lease(name), k.token(name)}, []any{owner, ttl.Milliseconds()},
	})
	if err != nil {
		return nil, 0, err
	}
	token := text(at(reply, 0))
	if token == "" {
		if number(at(reply, 1)) == -2 {
			return nil, 0, fmt.Errorf("lease %s: %w: the last token is 2^53 or more and cannot grow; delete the key %s when "+
				"nobody relies on tokens that large", clip(name, 64), ErrDamaged, clip(k.token(name), 200))
		}
		if number(at(reply, 1)) == -1 { // ours have a time to live
			return nil, 0, fmt.Errorf("lease %s: %w", clip(name, 64), ErrDamaged)
		}
		return nil, time.Duration(max(0, number(at(reply, 1)))) * time.Millisecond, nil
	}
	n, err := strconv.ParseUint(token, 10, 63)
	if err != nil {
		return nil, 0, fmt.Errorf("lease token %q: %w", clip(token, 40), ErrDamaged)
	}
	return &Lease{Name: name, Owner: owner, Token: n}, 0, nil
}

// Renew extends a lease; [ErrFenced] means that it is no longer held.
func (s *Store) Renew(ctx context.Context, l *Lease, ttl time.Duration) error {
	k := s.leaseKeys(l.Name)
	reply, err := s.run(ctx, call{
		scriptLeaseRenew, []string{k.lease(l.Name)}, []any{l.Owner, l.Token, ttl.Milliseconds()},
	})
	if err == nil && number(reply) != 1 {
		err = fmt.Errorf("renew: %w", ErrFenced)
	}
	return err
}

// Release gives a lease back; [ErrFenced] means that it was no longer held.
func (s *Store) Release(ctx context.Context, l *Lease) error {
	reply, again, err := s.runAgain(ctx, s.releaseCall(l))
	if err == nil && number(reply) != 1 && !again {
		err = fmt.Errorf("release: %w", ErrFenced)
	}
	return err
}

// ReleaseAll gives leases back at once. Those that it cannot give back lapse.
func (s *Store) ReleaseAll(ctx context.Context, leases []*Lease) {
	calls := make([]call, len(leases))
	for i, l := range leases {
		calls[i] = s.releaseCall(l)
	}
	_, _ = s.runAll(ctx, calls)
}

func (s *Store) releaseCall(l *Lease) call {
	k := s.leaseKeys(l.Name)
	return call{scriptLeaseRelease, []string{k.lease(l.Name)}, []any{l.Owner, l.Token, k.released(l.Name)}}
}

// Package seal encrypts small pieces of data so that each can be opened only in
// the place it was made for.
//
// A sealed piece is a mark, the ID of its key, a nonce, and the ciphertext with
// its tag (AES-256-GCM). The binding, a list of texts such as the ID of a job and
// the name of a field, says where the piece belongs. It is associated data, and
// each binding has an AES key of its own, so no key ever seals so many pieces
// that their number would have to be counted.
//
// The nonce is a MAC of the content. Equal contents under one key and binding
// give equal bytes, by which a repetition is known as such; all other pieces
// have nothing in common.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Why a piece cannot be opened. The last three come with ErrOpen.
var (
	ErrOpen    = errors.New("cannot be decrypted")
	ErrNoKey   = errors.New("this instance does not have its key")
	ErrPlain   = errors.New("it is not encrypted, and this instance takes only what is")
	ErrAltered = errors.New("it was altered, or belongs somewhere else")
)

const (
	// KeySize is the length of a key in bytes: AES-256.
	KeySize = 32
	// MaxID is the largest length of a key's ID in bytes.
	MaxID = 100

	mark      = 0x01 // no JSON begins with it
	nonceSize = 12
)

// Ring holds keys by ID. A nil Ring has none: it opens only what is plain.
type Ring struct {
	keys    map[string][]byte
	current string
}

// New returns a Ring whose current key seals and whose keys all open.
func New(keys map[string][]byte, current string) *Ring {
	r := &Ring{keys: make(map[string][]byte, len(keys)), current: current}
	for id, key := range keys {
		r.keys[id] = slices.Clone(key)
	}
	return r
}

// Seal encrypts data under the current key.
func (r *Ring) Seal(data []byte, binding ...string) []byte {
	return r.seal(r.current, data, binding)
}

// SealLike encrypts data under the key of another sealed piece. It reports false
// when that is not sealed or its key is not there.
func (r *Ring) SealLike(other, data []byte, binding ...string) ([]byte, bool) {
	id, _, ok := parse(other)
	if !ok || r.keys[id] == nil {
		return nil, false
	}
	return r.seal(id, data, binding), true
}

func (r *Ring) seal(id string, data []byte, binding []string) []byte {
	place := placeOf(binding)
	mac := hmac.New(sha256.New, derive(r.keys[id], "nonce", place))
	mac.Write(data)
	nonce := mac.Sum(nil)[:nonceSize]

	out := make([]byte, 0, 2+len(id)+nonceSize+len(data)+sha256.Size)
	out = append(out, mark, byte(len(id))) //nolint:gosec // an ID is at most MaxID long
	out = append(out, id...)
	out = append(out, nonce...)
	return gcm(derive(r.keys[id], "key", place)).Seal(out, nonce, data, place)
}

// Open decrypts what Seal made for the same binding.
func (r *Ring) Open(data []byte, binding ...string) ([]byte, error) {
	if !Sealed(data) {
		if r == nil {
			return data, nil
		}
		return nil, fmt.Errorf("%w: %w", ErrOpen, ErrPlain)
	}
	id, rest, ok := parse(data)
	if r == nil || ok && r.keys[id] == nil {
		return nil, fmt.Errorf("%w: %w: %.100q", ErrOpen, ErrNoKey, id)
	}
	if ok {
		place := placeOf(binding)
		plain, err := gcm(derive(r.keys[id], "key", place)).Open(nil, rest[:nonceSize], rest[nonceSize:], place)
		if err == nil {
			return plain, nil
		}
	}
	return nil, fmt.Errorf("%w: %w", ErrOpen, ErrAltered)
}

// Sealed tells sealed data from JSON.
func Sealed(data []byte) bool { return len(data) > 0 && data[0] == mark }

// parse reads the ID of the key; rest is nonce and ciphertext.
func parse(data []byte) (id string, rest []byte, ok bool) {
	if len(data) < 2 || data[0] != mark {
		return "", nil, false
	}
	n := 2 + int(data[1])
	if len(data) < n+nonceSize {
		return "", nil, false
	}
	return string(data[2:n]), data[n:], true
}

// placeOf encodes a binding so that no two of them give the same bytes.
func placeOf(binding []string) []byte {
	var b []byte
	for _, part := range binding {
		b = binary.AppendUvarint(b, uint64(len(part)))
		b = append(b, part...)
	}
	return b
}

// derive makes the key for one purpose in one place.
func derive(key []byte, purpose string, place []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("carillon " + purpose + "\x00"))
	mac.Write(place)
	return mac.Sum(nil)
}

func gcm(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err == nil {
		var aead cipher.AEAD
		if aead, err = cipher.NewGCM(block); err == nil {
			return aead
		}
	}
	panic(fmt.Sprintf("carillon: AES-GCM: %v", err)) // not with a key of 32 bytes
}

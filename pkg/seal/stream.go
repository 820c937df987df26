package seal

import (
	"bufio"
	"bytes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
)

// A sealed stream is a head and chunks, each sealed under its number. All but the
// last are full; the last, which may be empty, says that it is: what was cut off
// is not taken for whole.

const chunkSize = 64 << 10

var (
	more = []byte{0}
	last = []byte{1}
)

// PlainSize is the number of bytes in a sealed stream of that size; in one that was
// cut off too early for any, none.
func PlainSize(sealed int64) int64 {
	body := max(sealed-HeadSize, 0)
	chunks := (body + chunkSize + tagSize - 1) / (chunkSize + tagSize)
	return max(body-chunks*tagSize, 0)
}

// Writer seals what is written to it, under the ring's newest key, into w. The
// stream is whole once it is closed; w is not closed.
func (r *Ring) Writer(w io.Writer) io.WriteCloser {
	head, aead := r.begin()
	return &writer{to: w, aead: aead, head: head, buf: make([]byte, 0, chunkSize+tagSize)}
}

type writer struct {
	to    io.Writer
	aead  cipher.AEAD
	head  []byte // until it is written
	buf   []byte
	count uint64
}

func (w *writer) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if len(w.buf) == chunkSize {
			if err := w.flush(more); err != nil {
				return 0, err
			}
		}
		fits := min(len(p), chunkSize-len(w.buf))
		w.buf, p = append(w.buf, p[:fits]...), p[fits:]
	}
	return n, nil
}

func (w *writer) Close() error { return w.flush(last) }

func (w *writer) flush(kind []byte) error {
	if w.head != nil {
		if _, err := w.to.Write(w.head); err != nil {
			return err
		}
		w.head = nil
	}
	w.count++
	_, err := w.to.Write(w.aead.Seal(w.buf[:0], nonce(w.count), w.buf, kind))
	w.buf = w.buf[:0]
	return err
}

// Reader opens a sealed stream. What it returns is as it was written, so far; that
// nothing is missing is known at the end.
func (r *Ring) Reader(from io.Reader) io.Reader {
	return &reader{ring: r, from: bufio.NewReaderSize(from, chunkSize+tagSize)}
}

type reader struct {
	ring  *Ring
	from  *bufio.Reader
	aead  cipher.AEAD
	rest  bytes.Reader
	count uint64
	err   error // once there is no more
}

func (r *reader) Read(p []byte) (int, error) {
	for r.rest.Len() == 0 {
		if r.err != nil {
			return 0, r.err
		}
		if err := r.next(); err != nil {
			r.err = err
		}
	}
	return r.rest.Read(p)
}

// next opens the next chunk; its error holds for what is behind it.
func (r *reader) next() error {
	if r.aead == nil {
		var head [HeadSize]byte
		if _, err := io.ReadFull(r.from, head[:]); err != nil || !Sealed(head[:]) {
			return fmt.Errorf("open sealed stream: %w", errors.Join(errDamaged, err))
		}
		var err error
		if r.aead, err = r.ring.aead(head); err != nil {
			return fmt.Errorf("open sealed stream: %w", err)
		}
	}
	chunk := make([]byte, chunkSize+tagSize)
	n, err := io.ReadFull(r.from, chunk)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
	case err != nil:
		return fmt.Errorf("open sealed stream: %w", err)
	}
	_, peek := r.from.Peek(1)
	kind, end := more, error(nil)
	if errors.Is(peek, io.EOF) {
		kind, end = last, io.EOF
	}
	r.count++
	plain, err := r.aead.Open(chunk[:0], nonce(r.count), chunk[:n], kind)
	if err != nil {
		return fmt.Errorf("open sealed stream: chunk %d: %w", r.count, errDamaged)
	}
	r.rest.Reset(plain)
	return end
}

// Package backup is the format of a cluster's backup: a line that says what it is,
// the state sealed under the cluster's backup key, and a checksum of both, by which
// damage is known without the key.
package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/seal"
)

const (
	format  = "orch-backup"
	version = 1
	// maxHeader bounds what is read before it is known to be a backup.
	maxHeader = 4 << 10
	// window is what is read at a time.
	window = 32 << 10
)

// Header is what everybody may know of a backup.
type Header struct {
	Format  string    `json:"format"`
	Version int       `json:"version"`
	Cluster string    `json:"cluster"`
	Index   api.Index `json:"index"` // of the state
	Made    time.Time `json:"made"`
	Orch    string    `json:"orch,omitempty"` // the version that made it
}

var (
	errNoBackup = errors.New("this is not a backup of orch's")
	errDamaged  = errors.New("the backup is damaged, or cut off: its checksum is not that of what is in it")
	errKey      = errors.New("this is not the key that the backup was made under: it is the one that `orch cluster backup-key` printed then")
)

// Write makes a backup of what save writes.
func Write(w io.Writer, h Header, key seal.UnlockKey, rand io.Reader, save func(io.Writer) error) error {
	h.Format, h.Version = format, version
	head, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	head = append(head, '\n')
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), window)
	sealed := key.Ring(rand).Writer(out)
	_, err = out.Write(head)
	if err == nil {
		_, err = sealed.Write(head) // so that it cannot be put before another state
	}
	if err == nil {
		err = save(sealed)
	}
	if err == nil {
		err = sealed.Close()
	}
	if err == nil {
		err = out.Flush()
	}
	if err == nil {
		_, err = w.Write(sum.Sum(nil))
	}
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}

// Check reads a backup to its end and returns what it says of itself. Whether it is
// what a cluster has written only its key can tell.
func Check(r io.Reader) (Header, error) {
	h, _, body, err := open(r)
	if err != nil {
		return h, err
	}
	_, err = io.Copy(io.Discard, body)
	return h, err
}

// Read gives the state in a backup to restore. What that has got counts for nothing
// if Read fails.
func Read(r io.Reader, key seal.UnlockKey, rand io.Reader, restore func(io.Reader) error) (Header, error) {
	h, head, body, err := open(r)
	if err != nil {
		return h, err
	}
	plain := key.Ring(rand).Reader(body)
	same := make([]byte, len(head))
	_, err = io.ReadFull(plain, same)
	if err == nil && !bytes.Equal(same, head) {
		err = errors.New("the backup begins with what belongs to another one")
	}
	if err == nil {
		err = restore(plain)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, plain) // it is whole if it has its end
	}
	switch {
	case errors.Is(err, seal.ErrKey):
		return h, errKey
	case err != nil:
		return h, fmt.Errorf("read backup of cluster %s: %w", h.Cluster, err)
	}
	return h, nil
}

// open reads the line that a backup begins with, and returns it and what follows.
func open(r io.Reader) (h Header, head []byte, body *summed, err error) {
	from := bufio.NewReaderSize(r, window+sha256.Size)
	begin, err := from.Peek(maxHeader)
	if err != nil && !errors.Is(err, io.EOF) {
		return h, nil, nil, fmt.Errorf("read backup: %w", err)
	}
	end := bytes.IndexByte(begin, '\n') + 1
	if json.Unmarshal(begin[:end], &h) != nil || h.Format != format {
		return h, nil, nil, errNoBackup
	}
	if h.Version != version {
		return h, nil, nil, fmt.Errorf("the backup has format version %d, this orch knows version %d: use the orch that made it (%s), or a newer one", h.Version, version, h.Orch)
	}
	head = bytes.Clone(begin[:end])
	body = &summed{from: from, sum: sha256.New()}
	body.sum.Write(head)
	_, err = from.Discard(end)
	return h, head, body, err
}

// summed reads what is before the checksum, and has an end only if that is right.
type summed struct {
	from *bufio.Reader
	sum  hash.Hash
}

func (s *summed) Read(p []byte) (int, error) {
	ahead, err := s.from.Peek(min(len(p), window) + sha256.Size)
	if n := len(ahead) - sha256.Size; n > 0 {
		copy(p, ahead[:n])
		s.sum.Write(ahead[:n])
		_, err = s.from.Discard(n)
		return n, err
	}
	switch {
	case !errors.Is(err, io.EOF):
		return 0, err
	case !bytes.Equal(ahead, s.sum.Sum(nil)):
		return 0, errDamaged
	}
	return 0, io.EOF
}

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"
)

// Headers and trailers of streams.
const (
	headerReplica = "X-Replica"
	trailerDigest = "X-Sha256"
)

// bytes sends n bytes as fast as it can, and their digest after them.
func (p *probe) bytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.FormValue("n"), 10, 64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set(headerReplica, p.replica)
	w.Header().Set("Trailer", trailerDigest)
	digest := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(w, digest), new(pattern), n); err != nil {
		slog.Info("bytes not sent", "err", err)
		return
	}
	w.Header().Set(trailerDigest, hex.EncodeToString(digest.Sum(nil)))
}

// pattern is an endless source of bytes that do not repeat soon.
type pattern struct{ state uint64 }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		p.state = p.state*6364136223846793005 + 1442695040888963407
		b[i] = byte(p.state >> 56)
	}
	return len(b), nil
}

// drip sends size bytes at every interval until the client has had enough.
func (p *probe) drip(w http.ResponseWriter, r *http.Request) {
	size, err := strconv.Atoi(r.FormValue("size"))
	if err != nil || size < 1 {
		size = 1
	}
	every, err := time.ParseDuration(r.FormValue("every"))
	if err != nil {
		every = 10 * time.Millisecond
	}
	w.Header().Set(headerReplica, p.replica)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	chunk := make([]byte, size)
	flush := http.NewResponseController(w)
	for {
		if _, err := w.Write(chunk); err != nil {
			return
		}
		if err := flush.Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-ticker.C:
		}
	}
}

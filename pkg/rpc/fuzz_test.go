package rpc

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
)

// FuzzRequest looks for requests that make a manager panic before or while it reads
// what they ask, or that get through as somebody else's: its own handlers never
// see a caller that may not call them.
func FuzzRequest(f *testing.F) {
	for _, procedure := range []string{api.ProcReport, api.ProcDeploy, api.ProcAdmit, "/x"} {
		for _, role := range []string{"worker", "manager", "user", ""} {
			f.Add(procedure, role, "orch://c/manager/m", "application/json", "", []byte(`{"node":"w","statuses":{"t":{"state":"running"}}}`))
			f.Add(procedure, role, "self", "application/connect+json", "gzip", []byte("\x00\x00\x00\x00\x02{}"))
			f.Add(procedure, role, "", "application/proto", "stale", []byte("\xff\xff\xff\xff\xff"))
		}
	}
	f.Fuzz(func(t *testing.T, procedure, role, forwarded, contentType, encoding string, body []byte) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://orch/", io.NopCloser(bytes.NewReader(body)))
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Path, req.RemoteAddr, req.ContentLength = procedure, "192.0.2.1:1", -1
		for name, value := range map[string]string{
			callerHeader: forwarded, "Content-Type": contentType, "Connect-Content-Encoding": encoding, "Content-Encoding": encoding, readHeader: encoding,
		} {
			if value != "" {
				req.Header.Set(name, value)
			}
		}
		peer := Caller{Identity: pki.Identity{Cluster: "c", Role: api.Role(role), Node: "w"}}
		if role == "" {
			peer = Caller{}
		}
		req = req.WithContext(context.WithValue(req.Context(), peerKey{}, peer))

		mux := NewMux()
		for _, proc := range []string{api.ProcReport, api.ProcDeploy, api.ProcAdmit} {
			Handle(mux, proc, func(ctx context.Context, _ *api.Report) (*api.Empty, error) {
				if caller := CallerOf(ctx); caller.May(proc) != nil {
					t.Errorf("%v (peer %v) calls %s", caller, peer, proc)
				} else if peer.Role != api.RoleManager && caller.Node != peer.Node {
					t.Errorf("%v is taken for %v", peer, caller)
				}
				return &api.Empty{}, nil
			})
		}
		server := NewServer(mux, &Security{Now: time.Now}, slog.New(slog.DiscardHandler))
		held, err := Hold(deadlines{httptest.NewRecorder()}, req)
		if err != nil {
			t.Fatal(err)
		}
		defer held.Release()
		held.Try(deadlines{httptest.NewRecorder()}, server.guard(mux))
	})
}

// deadlines is a response whose request may be given a time.
type deadlines struct{ *httptest.ResponseRecorder }

func (deadlines) SetReadDeadline(time.Time) error { return nil }

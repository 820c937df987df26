package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// FuzzContent looks for requests about content that make a daemon panic, or that it
// takes for more of a request than may be read.
func FuzzContent(f *testing.F) {
	f.Add(`{"id":"i","diffID":"d","offset":3}`, []byte(`{"id":"i","layer":1}`))
	f.Add(`{"offset":-1}`, []byte(`{}{}`))
	f.Add(`null`, []byte(`null`))
	f.Add(``, bytes.Repeat([]byte(" "), maxGuestMessage+1))
	f.Fuzz(func(t *testing.T, header string, body []byte) {
		mux := NewMux()
		var asked, taken bool
		HandleContent(mux, "/content", func(context.Context, *api.ImageRequest) (io.ReadCloser, error) {
			asked = true
			return io.NopCloser(strings.NewReader("content")), nil
		})
		HandleUpload(mux, "/upload", func(_ context.Context, _ *api.LayerUpload, content io.Reader) error {
			got, err := io.ReadAll(content)
			if taken = true; err != nil || !bytes.Equal(got, body) {
				t.Errorf("%q arrives as %q: %v", body, got, err)
			}
			return nil
		})
		for path, called := range map[string]*bool{"/content": &asked, "/upload": &taken} {
			req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, bytes.NewReader(body))
			req.Header.Set("Content-Type", "application/octet-stream")
			req.Header.Set(requestHeader, header)
			answer := httptest.NewRecorder()
			mux.ServeHTTP(answer, req)
			if refused := answer.Code != http.StatusOK; refused == *called {
				t.Errorf("%s %q %q: status %d, and called: %v", path, header, body, answer.Code, *called)
			}
		}
		if len(bytes.TrimLeft(body, " \t\r\n")) < len(body)-maxGuestMessage && asked {
			t.Errorf("a request of more than %d bytes was read", maxGuestMessage)
		}
	})
}

// FuzzAnswer looks for what may answer in a daemon's place, or one of another
// version, that makes who calls it panic, wait for ever, or take for an answer what
// is none.
func FuzzAnswer(f *testing.F) {
	for _, contentType := range []string{"application/json", "application/connect+json", "text/html", ""} {
		f.Add(200, contentType, "", []byte(`{"nodes":[{"id":"n"}]}`))
		f.Add(503, contentType, "", []byte(`{"code":"unavailable","message":"no quorum","details":[{"type":"x","value":"AAAA"}]}`))
		f.Add(500, contentType, "gzip", []byte("<html>"))
		f.Add(200, contentType, "", []byte("\x00\x00\x00\x00\x02{}\x02\x00\x00\x00\x02{}"))
		f.Add(200, contentType, "", []byte("\x02\xff\xff\xff\xff{}"))
		f.Add(304, contentType, "identity", []byte(`{"code":7,"message":null}`))
	}
	f.Fuzz(func(t *testing.T, status int, contentType, encoding string, body []byte) {
		if status < 200 || status > 999 {
			t.Skip() // net/http has no such answers
		}
		client := &Client{most: maxMessage, http: &http.Client{Transport: answers(func(r *http.Request) *http.Response {
			header := http.Header{"Content-Type": {contentType}}
			if encoding != "" {
				header.Set("Content-Encoding", encoding)
				header.Set("Connect-Content-Encoding", encoding)
			}
			return &http.Response{StatusCode: status, Status: http.StatusText(status), ProtoMajor: 2, Header: header,
				Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: r}
		})}}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		list, callErr := Call[api.Empty, api.NodeList](ctx, client, api.ProcNodes, &api.Empty{})
		if (list == nil) != (callErr != nil) || callErr == nil && status != http.StatusOK {
			t.Errorf("%d %q %q: %v, %v", status, contentType, body, list, callErr)
		}
		streamErr := Stream(ctx, client, api.ProcSession, &api.SessionRequest{}, func(*api.Update) error { return nil })
		content, contentErr := Content(ctx, client, api.ProcNodes, &api.Empty{})
		if contentErr == nil {
			if got, err := io.ReadAll(content); status != http.StatusOK || err != nil || !bytes.Equal(got, body) {
				t.Errorf("%d %q is taken for content %q: %v", status, body, got, err)
			}
		}
		for _, err := range []error{callErr, streamErr, contentErr} {
			if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
				t.Errorf("%d %q %q: %v", status, contentType, body, err)
			}
		}
	})
}

// answers is what a client calls.
type answers func(*http.Request) *http.Response

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return nil, err
		}
		r.Body.Close()
	}
	return a(r), nil
}

package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"connectrpc.com/connect"

	"github.com/orch-dev/orch/pkg/api"
)

// Large content travels as the plain body of a request or an answer, without a
// message around it. What it belongs to stands in the body of the request, or,
// where that is the content, in this header.
const requestHeader = "Orch-Request"

// HandleContent answers a procedure with what open returns. What is asked for is
// named in a few words.
func HandleContent[Req any](m *Mux, procedure string, open func(context.Context, *Req) (io.ReadCloser, error)) {
	m.http.HandleFunc(procedure, func(w http.ResponseWriter, r *http.Request) {
		req := new(Req)
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxGuestMessage)).Decode(req); err != nil {
			WriteError(w, r, api.Errorf(api.CodeInvalid, "read the request: %v", err))
			return
		}
		content, err := open(r.Context(), req)
		if err != nil {
			WriteError(w, r, err)
			return
		}
		defer content.Close()
		w.Header().Set("Content-Type", "application/octet-stream")
		if _, err := io.Copy(w, content); err != nil {
			panic(http.ErrAbortHandler) // so that the caller does not take it for all
		}
	})
}

// HandleUpload hands the body of a request to take.
func HandleUpload[Req any](m *Mux, procedure string, take func(context.Context, *Req, io.Reader) error) {
	m.http.HandleFunc(procedure, func(w http.ResponseWriter, r *http.Request) {
		req := new(Req)
		if err := json.Unmarshal([]byte(r.Header.Get(requestHeader)), req); err != nil {
			WriteError(w, r, api.Errorf(api.CodeInvalid, "read the request: %v", err))
			return
		}
		if err := take(r.Context(), req, r.Body); err != nil {
			WriteError(w, r, err)
		}
	})
}

// Content calls a procedure that answers with content.
func Content[Req any](ctx context.Context, c *Client, procedure string, req *Req) (io.ReadCloser, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, baseURL+procedure, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	setRead(ctx, r.Header)
	res, err := c.send(r)
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

// Upload sends content to a procedure.
func Upload[Req any](ctx context.Context, c *Client, procedure string, req *Req, content io.Reader) error {
	header, err := json.Marshal(req)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, baseURL+procedure, content)
	if err != nil {
		return err
	}
	r.Header.Set(requestHeader, string(header))
	res, err := c.send(r)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// send sends a request and takes an answer that is not the content for an error.
func (c *Client) send(r *http.Request) (*http.Response, error) {
	r.Header.Set("Content-Type", "application/octet-stream")
	res, err := c.http.Do(r)
	if err != nil {
		return nil, clientError(err)
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	defer res.Body.Close()
	var answer struct {
		Code    connect.Code `json:"code"`
		Message string       `json:"message"`
	}
	text, _ := io.ReadAll(io.LimitReader(res.Body, maxHeader))
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, fmt.Errorf("the daemon answered %s", res.Status)
	}
	return nil, &api.Error{Code: codeOf(answer.Code), Message: answer.Message}
}

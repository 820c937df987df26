// Package rpc is the transport between daemons, and between a daemon and its
// CLI: Connect over HTTP/2 with the domain types of pkg/api as JSON, on a unix
// socket and, by mutual TLS, on one TCP port that Raft's streams share.
package rpc

import (
	"bytes"
	"encoding/json"
	"errors"

	"connectrpc.com/connect"

	"github.com/orch-dev/orch/pkg/api"
)

// codec carries the types of pkg/api as they are. They need no schema beside
// their Go definition, and encoding/json ignores fields that it does not know.
type codec struct{}

func (codec) Name() string                    { return "json" }
func (codec) Unmarshal(b []byte, v any) error { return json.Unmarshal(b, v) }

func (codec) Marshal(v any) ([]byte, error) {
	if encoded, ok := v.(*Encoded); ok {
		return bytes.Join(*encoded, nil), nil
	}
	return json.Marshal(v)
}

// Encoded is a message that a handler has made JSON of already: the parts of it,
// which other messages may share.
type Encoded [][]byte

var codes = map[api.Code]connect.Code{
	api.CodeInvalid:     connect.CodeInvalidArgument,
	api.CodeNotFound:    connect.CodeNotFound,
	api.CodeConflict:    connect.CodeAlreadyExists,
	api.CodeDenied:      connect.CodePermissionDenied,
	api.CodeUnavailable: connect.CodeUnavailable,
	api.CodeInternal:    connect.CodeInternal,
}

// toWire gives a handler's error the code its client will see.
func toWire(err error) error {
	if err == nil {
		return nil
	}
	wire := connect.NewError(codes[api.CodeOf(err)], err)
	var e *api.Error
	if errors.As(err, &e) && e.Undone {
		wire.Meta().Set(undoneHeader, "1")
	}
	return wire
}

// fromWire turns an error that a server answered back into an *api.Error; that
// the server could not be asked is another error.
func fromWire(err error) error {
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return err
	}
	if !connect.IsWireError(err) {
		return ce.Unwrap()
	}
	return &api.Error{Code: codeOf(ce.Code()), Message: ce.Message()}
}

func codeOf(wire connect.Code) api.Code {
	for code, w := range codes {
		if w == wire {
			return code
		}
	}
	return api.CodeInternal
}

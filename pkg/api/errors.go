package api

import (
	"errors"
	"fmt"
)

// Code classifies an error for callers that branch on it; the message is for
// people.
type Code string

const (
	CodeInvalid     Code = "invalid"     // the request is wrong; repeating it is useless
	CodeNotFound    Code = "not-found"   // what it names does not exist
	CodeConflict    Code = "conflict"    // it contradicts what exists
	CodeDenied      Code = "denied"      // the caller may not do this
	CodeUnavailable Code = "unavailable" // nobody can answer now; try again
	CodeInternal    Code = "internal"    // a fault of ours
)

// Error is an error that crosses the API: its message is shown to the user as
// it is, so it names what, where and what to do.
type Error struct {
	Code    Code
	Message string
	// Undone: nothing was done, and another manager may be asked the same. It does
	// not reach those who called.
	Undone bool
}

func (e *Error) Error() string { return e.Message }

// Errorf makes an Error as fmt.Sprintf makes its text.
func Errorf(code Code, format string, args ...any) error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Undone makes an Error that says that nobody can answer now, and nothing was done.
func Undone(format string, args ...any) error {
	return &Error{Code: CodeUnavailable, Message: fmt.Sprintf(format, args...), Undone: true}
}

// CodeOf returns the code of the first Error in err's chain; an error of any
// other kind is internal.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

package docker

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"syscall"

	"github.com/moby/moby/client"

	"github.com/orch-dev/orch/pkg/api"
)

// wrap names the operation and its object, puts the engine's message into a
// user's words, and marks an engine that could not be reached.
func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	if unreachable(err) {
		return fmt.Errorf("%s: %w: %w", op, api.ErrRuntimeUnavailable, err)
	}
	return fmt.Errorf("%s: %w", op, &engineError{msg: plain(err.Error()), err: err})
}

func unreachable(err error) bool {
	if client.IsErrConnectionFailed(err) {
		return true
	}
	for _, broken := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.ECONNREFUSED, syscall.EPIPE} {
		if errors.Is(err, broken) {
			return true
		}
	}
	return false
}

// engineError reads as msg and is err.
type engineError struct {
	msg string
	err error
}

func (e *engineError) Error() string { return e.msg }
func (e *engineError) Unwrap() error { return e.err }

// layers are what the engine, its shim and runc each put before a message.
var layers = regexp.MustCompile(`^(` + strings.Join([]string{
	`Error response from daemon: `,
	`failed to create task for container: `,
	`failed to create shim( task)?: `,
	`OCI runtime create failed: `,
	`OCI runtime start failed: `,
	`runc create failed: `,
	`unable to start container process: `,
	`(container|process|rootfs|standard_init)_linux\.go:\d+: `,
	`starting container process caused:? `,
	`container init caused:? `,
	`error during container init: `,
	`rootfs_linux\.go:\d+: `,
	`mounting ".*" caused: `,
}, "|") + `)`)

type rewriteRule struct {
	from *regexp.Regexp
	to   string
}

var rewrites = []rewriteRule{
	{regexp.MustCompile(`^No such image: (.*)$`), "no such image: $1"},
	{regexp.MustCompile(`^invalid mount config for type "bind": bind source path does not exist: (.*)$`),
		"bind mount: no such file or directory on this node: $1"},
	{regexp.MustCompile(`^(No such container: orch-.*-net|cannot join network of a non running container: .*)$`),
		"its sandbox does not run"},
}

// plain puts an engine's message into a user's words: without the layers it
// came through, and the commonest ones rewritten.
func plain(msg string) string {
	msg = strings.TrimSpace(msg)
	for layers.MatchString(msg) {
		msg = layers.ReplaceAllString(msg, "")
	}
	msg = strings.TrimSuffix(msg, ": unknown")
	return rewrite(msg, rewrites)
}

func rewrite(msg string, rules []rewriteRule) string {
	for _, r := range rules {
		if r.from.MatchString(msg) {
			return r.from.ReplaceAllString(msg, r.to)
		}
	}
	return msg
}

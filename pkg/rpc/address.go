package rpc

import (
	"fmt"
	"net"
	"strings"

	"github.com/orch-dev/orch/pkg/api"
)

// WithPort completes HOST to HOST:PORT, with the port that managers answer at by default.
func WithPort(addr string) string {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return net.JoinHostPort(strings.Trim(addr, "[]"), fmt.Sprint(api.DefaultAPIPort))
	}
	return addr
}

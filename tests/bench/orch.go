package main

import (
	"context"
	"errors"
	"io"
)

// nodeCommand is the first argument of the process that runs a node's data
// plane in the node's namespace.
const nodeCommand = "node"

func underOrch(string) func(context.Context, *fabric) error {
	return func(context.Context, *fabric) error { return errors.New("no data plane yet") }
}

func runNode(io.Reader, io.Writer) error { return errors.New("no data plane yet") }

// Package bpf holds the data plane's eBPF programs and their generated
// bindings. There is no logic here: pkg/dataplane loads and feeds them. The
// packet walks and the table of maps stand at the top of orch.c.
package bpf

//go:generate go tool bpf2go -target bpfel -go-package bpf -type endpoint_flags -type frontend_flags -type backend_flags -type seen -type addr6 -cc clang -cflags "-O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" Orch orch.c

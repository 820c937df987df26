// Package bpf holds the data plane's eBPF programs and their generated
// bindings. There is no logic here: pkg/dataplane loads and feeds them. The
// packet walks and the table of maps stand at the top of orch.c.
package bpf

//go:generate go tool bpf2go -target bpfel -go-package bpf -type endpoint_flags -type member_flags -type frontend_flags -type backend_flags -type seen -type addr6 -cc clang -cflags "-O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" Orch orch.c
//
// The programs of another version, whose flows and sessions have another layout, for tests:
//go:generate clang --target=bpfel -mcpu=v1 -O2 -g -fno-ident -fdebug-compilation-dir=. -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu -DSIZE_OF_MORE=8 "-DMORE_OF_A_FLOW=__u32 more[2];" -c orch.c -o ../pkg/dataplane/testdata/other.o
//go:generate llvm-strip -g ../pkg/dataplane/testdata/other.o

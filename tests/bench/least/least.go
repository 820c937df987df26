// Package least holds the programs of the least overlay, for what others are
// compared with.
package least

//go:generate go tool bpf2go -target bpfel -go-package least -cc clang -cflags "-O2 -g -Wall -Wextra -Werror -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" Least least.c

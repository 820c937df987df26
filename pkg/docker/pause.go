package docker

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"runtime"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"
)

// sandboxImage is made here, not pulled: no registry is needed for a task's
// network. A new content needs a new tag.
const sandboxImage = "orch/sandbox:1"

// The sandbox's program: wait for a signal, for ever. As the first process of a
// PID namespace it has no default signal actions, so only SIGKILL ends it; it
// has no children to reap, because the application has a PID namespace of its
// own.
var pauseCode = map[string][]byte{
	"amd64": {
		0xb8, 0x22, 0x00, 0x00, 0x00, // mov eax, 34 (pause)
		0x0f, 0x05, // syscall
		0xeb, 0xf7, // jmp back to the mov
	},
	// arm64 has no pause: ppoll(NULL, 0, NULL, NULL, 0) waits as long.
	"arm64": {
		0x00, 0x00, 0x80, 0xd2, // mov x0, #0
		0x01, 0x00, 0x80, 0xd2, // mov x1, #0
		0x02, 0x00, 0x80, 0xd2, // mov x2, #0
		0x03, 0x00, 0x80, 0xd2, // mov x3, #0
		0x04, 0x00, 0x80, 0xd2, // mov x4, #0
		0x28, 0x09, 0x80, 0xd2, // mov x8, #73 (ppoll)
		0x01, 0x00, 0x00, 0xd4, // svc #0
		0xf9, 0xff, 0xff, 0x17, // b back to the first mov
	},
}

var elfMachine = map[string]uint16{"amd64": 62, "arm64": 183} // EM_X86_64, EM_AARCH64

// pauseELF is a static executable of one segment, headers and code, as elf(5)
// lays it out.
func pauseELF(arch string) ([]byte, error) {
	code, ok := pauseCode[arch]
	if !ok {
		return nil, fmt.Errorf("no sandbox program for architecture %s", arch)
	}
	const base, headers = 0x400000, 64 + 56 // ELF header, one program header
	size := uint64(headers + len(code))
	var b bytes.Buffer
	for _, field := range []any{
		[16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, // 64 bit, little endian, version 1
		uint16(2),                              // ET_EXEC
		elfMachine[arch],
		uint32(1),              // version
		uint64(base + headers), // entry
		uint64(64), uint64(0),  // offsets of program and section headers
		uint32(0),                         // flags
		uint16(64), uint16(56), uint16(1), // sizes of headers, number of program headers
		uint16(0), uint16(0), uint16(0), // no sections
		// The program header.
		uint32(1), uint32(5), // PT_LOAD, readable and executable
		uint64(0), uint64(base), uint64(base), // offset, addresses
		size, size, // in the file, in memory
		uint64(0x10000), // alignment: the largest page of arm64
	} {
		if err := binary.Write(&b, binary.LittleEndian, field); err != nil {
			return nil, fmt.Errorf("encode sandbox program: %w", err)
		}
	}
	b.Write(code)
	return b.Bytes(), nil
}

// ensureSandboxImage loads the image into the engine unless it is there.
func (e *Engine) ensureSandboxImage(ctx context.Context) error {
	e.loadImage.Lock()
	defer e.loadImage.Unlock()
	if _, err := e.cli.ImageInspect(ctx, e.sandboxImage); err == nil {
		return nil
	}
	prog, err := pauseELF(runtime.GOARCH)
	if err != nil {
		return err
	}
	archive, err := imageArchive(e.sandboxImage, runtime.GOARCH,
		map[string]any{"Entrypoint": []string{"/pause"}}, []file{{"pause", 0o755, prog}})
	if err != nil {
		return err
	}
	return wrap("load image "+e.sandboxImage, load(ctx, e.cli, archive))
}

// RemoveSandboxImage removes the image from the engine, unless containers of
// others, on an engine that several nodes share, are made of it.
func (e *Engine) RemoveSandboxImage(ctx context.Context) error {
	_, err := e.cli.ImageRemove(ctx, e.sandboxImage, client.ImageRemoveOptions{})
	if cerrdefs.IsConflict(err) || cerrdefs.IsNotFound(err) {
		return nil
	}
	return wrap("remove image "+e.sandboxImage, err)
}

func load(ctx context.Context, cli *client.Client, archive []byte) error {
	res, err := cli.ImageLoad(ctx, bytes.NewReader(archive), client.ImageLoadWithQuiet(true))
	if err != nil {
		return err
	}
	defer res.Close()
	return loadError(res)
}

// loadError reads the engine's progress messages to their end: a load that
// fails half way fails there.
func loadError(r io.Reader) error {
	dec := json.NewDecoder(r)
	for {
		var msg struct {
			Error string `json:"error"`
		}
		if err := dec.Decode(&msg); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if msg.Error != "" {
			return fmt.Errorf("%s", msg.Error)
		}
	}
}

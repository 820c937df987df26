package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/moby/moby/client"
)

// image is the name of a version of the probe's image, this process's own.
func image(version string) string { return fmt.Sprintf("orch-bench-probe:%s-%d", version, os.Getpid()) }

// buildProbe builds the program that the tasks run: one static program that is
// the whole image.
func buildProbe(ctx context.Context, dir string) ([]byte, error) {
	path := filepath.Join(dir, "probe")
	if err := build(ctx, "github.com/orch-dev/orch/tests/e2e/probe", path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

func build(ctx context.Context, name, path string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", name, err, text)
	}
	return nil
}

// importImages makes both versions of the image in an engine.
func importImages(ctx context.Context, docker *client.Client, program []byte) error {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	err := w.WriteHeader(&tar.Header{Name: "probe", Mode: 0o755, Size: int64(len(program))})
	if err == nil {
		_, err = w.Write(program)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return err
	}
	for _, version := range []string{"v1", "v2"} {
		res, err := docker.ImageImport(ctx, client.ImageImportSource{Source: bytes.NewReader(layer.Bytes()), SourceName: "-"}, image(version),
			client.ImageImportOptions{Changes: []string{`ENTRYPOINT ["/probe"]`, "ENV VERSION=" + version}})
		if err != nil {
			return fmt.Errorf("import image %s: %w", image(version), err)
		}
		_, err = io.Copy(io.Discard, res)
		res.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func removeImages(docker *client.Client) {
	for _, version := range []string{"v1", "v2"} {
		_, _ = docker.ImageRemove(context.Background(), image(version), client.ImageRemoveOptions{Force: true})
	}
}

package docker

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
)

// imageArchive packs an image of one layer in the form that an engine loads
// (the OCI image specification's predecessor, which all engines read): its
// configuration, the layer and a manifest. Equal arguments give equal bytes,
// and so the same image id everywhere. config is the image's "config" object:
// Entrypoint, Env, Volumes and so on.
func imageArchive(tag, arch string, config map[string]any, files []file) ([]byte, error) {
	layer, err := tarball(files)
	if err != nil {
		return nil, err
	}
	const epoch = "1970-01-01T00:00:00Z"
	image, err := json.Marshal(map[string]any{
		"architecture": arch,
		"os":           "linux",
		"created":      epoch,
		"config":       config,
		"rootfs": map[string]any{
			"type":     "layers",
			"diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))},
		},
		"history": []any{map[string]any{"created": epoch, "created_by": "orch"}},
	})
	if err != nil {
		return nil, fmt.Errorf("pack image %s: %w", tag, err)
	}
	imageName := fmt.Sprintf("%x.json", sha256.Sum256(image))
	manifest, err := json.Marshal([]any{map[string]any{
		"Config": imageName, "RepoTags": []string{tag}, "Layers": []string{"layer.tar"},
	}})
	if err != nil {
		return nil, fmt.Errorf("pack image %s: %w", tag, err)
	}
	return tarball([]file{
		{imageName, 0o644, image},
		{"layer.tar", 0o644, layer},
		{"manifest.json", 0o644, manifest},
	})
}

// file of an archive; its name has no leading slash.
type file struct {
	name string
	mode int64
	data []byte
}

func tarball(files []file) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data))}); err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.name, err)
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	return b.Bytes(), nil
}

package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/client"

	"github.com/orch-dev/orch/pkg/api"
)

// Two layers; the upper one is large enough to be interrupted half way.
var copied = [][]file{
	{{"base", 0o644, []byte("the base")}},
	{{"top", 0o644, bytes.Repeat([]byte("0123456789abcdef"), 1<<16)}},
}

// loadLayers gives the engine an image of layers, which is removed at the end.
func loadLayers(t *testing.T, e *Engine, tag string, layers ...[]file) (id string) {
	t.Helper()
	var diffIDs, names []string
	var history []any
	archive := []file{}
	for i, files := range layers {
		layer, err := tarball(files)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("%d.tar", i)
		names, diffIDs = append(names, name), append(diffIDs, digestOf(layer))
		history = append(history, map[string]any{"created": "1970-01-01T00:00:00Z"})
		archive = append(archive, file{name, 0o644, layer})
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}, "history": history,
	})
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := json.Marshal([]any{map[string]any{"Config": "c.json", "RepoTags": []string{tag}, "Layers": names}})
	if err != nil {
		t.Fatal(err)
	}
	all, err := tarball(append(archive, file{"c.json", 0o644, config}, file{"manifest.json", 0o644, manifest}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeImage(e, digestOf(config)) })
	if err := load(t.Context(), e.cli, all); err != nil {
		t.Fatal(err)
	}
	return digestOf(config)
}

func removeImage(e *Engine, ref string) {
	_, _ = e.cli.ImageRemove(context.Background(), ref, client.ImageRemoveOptions{Force: true})
}

func hasImage(t *testing.T, e *Engine, ref string) bool {
	t.Helper()
	s, err := e.ImageStatus(t.Context(), &api.ImageStatusRequest{Image: ref, Ask: api.AskNever})
	if err != nil {
		t.Fatal(err)
	}
	return s.Present
}

// elsewhere is an image on another node: what was read there is in memory, and
// what is asked for is noted.
type elsewhere struct {
	manifest *api.ImageManifest
	layers   [][]byte
	asked    []string
	breakAt  int64                 // a connection that breaks there, once
	change   func(b []byte) []byte // what a liar does to a layer
}

func readElsewhere(t *testing.T, e *Engine, id string) *elsewhere {
	t.Helper()
	m, err := e.ImageManifest(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	x := &elsewhere{manifest: m}
	for i := range m.Layers {
		r, err := e.ImageLayer(t.Context(), id, i, 0)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if r.Close(); err != nil || int64(len(b)) != m.Layers[i] {
			t.Fatalf("layer %d: %d bytes of %d, %v", i, len(b), m.Layers[i], err)
		}
		x.layers = append(x.layers, b)
	}
	return x
}

func (x *elsewhere) Manifest(context.Context, string) (*api.ImageManifest, error) {
	return x.manifest, nil
}

func (x *elsewhere) Layer(_ context.Context, _ string, layer int, offset int64) (io.ReadCloser, error) {
	x.asked = append(x.asked, fmt.Sprintf("layer %d from %d", layer, offset))
	rest := x.layers[layer]
	if x.change != nil {
		rest = x.change(slices.Clone(rest))
	}
	rest = rest[offset:]
	if at := x.breakAt; at != 0 {
		x.breakAt = 0
		return io.NopCloser(io.MultiReader(bytes.NewReader(rest[:at]), brokenConnection{})), nil
	}
	return io.NopCloser(bytes.NewReader(rest)), nil
}

var errBroken = errors.New("the connection broke")

type brokenConnection struct{}

func (brokenConnection) Read([]byte) (int, error) { return 0, errBroken }

func TestCopyImage(t *testing.T) {
	e := newEngine(t, func(c *Config) { c.ImageDir = t.TempDir() })
	tag := strings.Replace(testImage, "docker-", "copy-", 1)
	loadLayers(t, e, strings.Replace(testImage, "docker-", "copybase-", 1), copied[0])
	id := loadLayers(t, e, tag, copied...)
	from := readElsewhere(t, e, id)
	removeImage(e, id)
	if hasImage(t, e, id) {
		t.Fatal("the image was not removed")
	}
	if _, err := e.localImage(t.Context(), &api.TaskSpec{Image: tag, Pin: api.ImagePin{ID: id}}); !errors.Is(err, api.ErrImageNotHere) {
		t.Errorf("an image that is not here: %v", err)
	}

	// A break in the upper layer; the base is there already, under another image.
	const half = 300_000
	from.breakAt = half
	var last [2]int64
	progress := func(done, total int64) { last = [2]int64{done, total} }
	if err := e.ImportImage(t.Context(), id, tag, from, progress); !errors.Is(err, errBroken) {
		t.Fatalf("import over a broken connection: %v", err)
	}
	if err := e.ImportImage(t.Context(), id, tag, from, progress); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"layer 1 from 0", fmt.Sprintf("layer 1 from %d", half)}, from.asked); diff != "" {
		t.Errorf("asked for (-want +got):\n%s", diff)
	}
	if size := int64(len(from.layers[1])); last != [2]int64{size, size} {
		t.Errorf("progress ended at %v of %d", last, size)
	}
	for _, ref := range []string{id, tag} {
		if !hasImage(t, e, ref) {
			t.Errorf("%s is not there", ref)
		}
	}
	if got, err := e.localImage(t.Context(), &api.TaskSpec{Image: tag, Pin: api.ImagePin{ID: id}}); got != tag || err != nil {
		t.Errorf("the engine knows it as %q, %v", got, err)
	}
	if left, _ := os.ReadDir(e.importsDir()); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// What is not what it says it is never gets into the engine.
func TestCopyLies(t *testing.T) {
	e := newEngine(t, func(c *Config) { c.ImageDir = t.TempDir() })
	tag := strings.Replace(testImage, "docker-", "lies-", 1)
	id := loadLayers(t, e, tag, copied...)
	honest := readElsewhere(t, e, id)
	removeImage(e, id)
	progress := func(int64, int64) {}

	liar := *honest
	liar.change = func(b []byte) []byte { b[0] ^= 1; return b }
	if err := e.ImportImage(t.Context(), id, tag, &liar, progress); err == nil || !strings.Contains(err.Error(), "what was sent is sha256:") {
		t.Errorf("a changed layer: %v", err)
	}
	other := *honest
	other.manifest = &api.ImageManifest{Config: bytes.Replace(honest.manifest.Config, []byte("linux"), []byte("linuX"), 1), Layers: honest.manifest.Layers}
	if err := e.ImportImage(t.Context(), id, tag, &other, progress); err == nil || !strings.Contains(err.Error(), "what was sent is sha256:") {
		t.Errorf("another configuration: %v", err)
	}
	if err := e.WriteLayer(t.Context(), "sha256:../../etc/passwd", 0, strings.NewReader("x")); api.CodeOf(err) != api.CodeInvalid {
		t.Errorf("a digest that is a path: %v", err)
	}
	if hasImage(t, e, id) {
		t.Error("a lie became an image")
	}
	if err := e.ImportImage(t.Context(), id, tag, honest, progress); err != nil {
		t.Errorf("the truth after the lies: %v", err)
	}
}

// An unpacked image goes when nobody has read it for a while, and what a killed
// daemon left goes at the next start.
func TestUnpackedImagesGo(t *testing.T) {
	e := newEngine(t, func(c *Config) { c.ImageDir = t.TempDir() })
	id := loadLayers(t, e, strings.Replace(testImage, "docker-", "unpacked-", 1), copied[0])
	r, err := e.ImageLayer(t.Context(), id, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	e.exports.discard(id)
	if _, err := io.ReadAll(r); err != nil {
		t.Errorf("taken away under a reader: %v", err)
	}
	r.Close()
	e.exports.discard(id)
	if left, _ := os.ReadDir(e.exportsDir()); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}

	if _, err := e.ImageManifest(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(e.importsDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	old, fresh := filepath.Join(e.importsDir(), "old.part"), filepath.Join(e.importsDir(), "fresh.part")
	for _, name := range []string{old, fresh} {
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	if err := os.Chtimes(old, now, now.Add(-2*incomingKept)); err != nil {
		t.Fatal(err)
	}
	if err := e.SweepImages(now); err != nil {
		t.Fatal(err)
	}
	var left []string
	_ = filepath.WalkDir(e.dir, func(path string, d os.DirEntry, _ error) error {
		if !d.IsDir() {
			left = append(left, path)
		}
		return nil
	})
	if diff := cmp.Diff([]string{fresh}, left); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

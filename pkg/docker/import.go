package docker

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/client"

	"github.com/orch-dev/orch/pkg/api"
)

// An image comes in layer by layer, each checked by its digest and kept on disk
// until the engine has taken the image in. What an interrupted copy has left is
// where the next one goes on.

// incomingKept is how long parts of an image that never became one are kept.
const incomingKept = 24 * time.Hour

// ImportImage copies an image from elsewhere: only the layers that the engine
// lacks. Progress is told in bytes. The image gets the name, if it is a tag that
// no image of the node has.
func (i *Images) ImportImage(ctx context.Context, id, name string, from api.ImageContent, progress func(done, total int64)) error {
	m, err := from.Manifest(ctx, id)
	if err != nil {
		return err
	}
	if got := digestOf(m.Config); got != id {
		return fmt.Errorf("copy image %s: what was sent is %s", id, got)
	}
	wants, err := i.OfferImage(ctx, m)
	if err != nil {
		return err
	}
	var done, total int64
	for _, w := range wants.Layers {
		done += w.Have
		total += m.Layers[w.Layer]
	}
	progress(done, total)
	for _, w := range wants.Layers {
		body, err := from.Layer(ctx, id, w.Layer, w.Have)
		if err != nil {
			return err
		}
		err = i.WriteLayer(ctx, w.DiffID, w.Have, &countingReader{io.LimitReader(body, m.Layers[w.Layer]-w.Have), func(n int) {
			done += int64(n)
			progress(done, total)
		}})
		body.Close()
		if err != nil {
			return err
		}
	}
	_, err = i.CommitImage(ctx, m, name)
	return err
}

// countingReader tells of what is read.
type countingReader struct {
	io.Reader
	read func(n int)
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.read(n)
	return n, err
}

// OfferImage says which layers of an image the node lacks, and how much of each
// it has received already.
func (i *Images) OfferImage(ctx context.Context, m *api.ImageManifest) (*api.ImageWants, error) {
	diffIDs, err := layersOf(m)
	if err != nil {
		return nil, err
	}
	present, err := i.layersPresent(ctx, diffIDs)
	if err != nil {
		return nil, err
	}
	wants := &api.ImageWants{ID: digestOf(m.Config)}
	for n := present; n < len(diffIDs); n++ {
		have, err := i.received(diffIDs[n])
		if err != nil {
			return nil, err
		}
		if !i.complete(diffIDs[n]) {
			wants.Layers = append(wants.Layers, api.LayerWant{Layer: n, DiffID: diffIDs[n], Have: have})
		}
	}
	return wants, nil
}

// layersOf reads the layers' digests out of an image's configuration.
func layersOf(m *api.ImageManifest) ([]string, error) {
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(m.Config, &config); err != nil {
		return nil, api.Errorf(api.CodeInvalid, "the image's configuration: %v", err)
	}
	diffIDs := config.RootFS.DiffIDs
	if len(diffIDs) != len(m.Layers) {
		return nil, api.Errorf(api.CodeInvalid, "the image's configuration names %d layers, %d come with it", len(diffIDs), len(m.Layers))
	}
	for _, id := range diffIDs {
		if err := checkDigest(id); err != nil {
			return nil, err
		}
	}
	return diffIDs, nil
}

// checkDigest makes sure that a digest can be part of a path.
func checkDigest(digest string) error {
	hex, ok := strings.CutPrefix(digest, "sha256:")
	if !ok || len(hex) != 2*sha256.Size || strings.Trim(hex, "0123456789abcdef") != "" {
		return api.Errorf(api.CodeInvalid, "%q is not a sha256 digest", digest)
	}
	return nil
}

// layersPresent counts the lowest layers that the engine has, in this order, for
// another image: it needs those no more.
func (i *Images) layersPresent(ctx context.Context, diffIDs []string) (int, error) {
	info, err := i.cli.Info(ctx, client.InfoOptions{})
	if err != nil {
		return 0, wrap("docker info", err)
	}
	for _, pair := range info.Info.DriverStatus {
		if pair[0] == "driver-type" && strings.HasPrefix(pair[1], "io.containerd.snapshotter") {
			return 0, fmt.Errorf("copy an image to this node: %w", errImageStore)
		}
	}
	list, err := i.cli.ImageList(ctx, client.ImageListOptions{All: true})
	if err != nil {
		return 0, wrap("list images", err)
	}
	most := 0
	for _, img := range list.Items {
		res, err := i.cli.ImageInspect(ctx, img.ID)
		if cerrdefs.IsNotFound(err) {
			continue // removed meanwhile
		}
		if err != nil {
			return 0, wrap("inspect image "+img.ID, err)
		}
		most = max(most, commonPrefix(diffIDs, res.RootFS.Layers))
	}
	return most, nil
}

func commonPrefix(a, b []string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// WriteLayer takes in a layer from a byte on, which must be the first that is
// lacking, and checks it when all of it is there.
func (i *Images) WriteLayer(ctx context.Context, diffID string, offset int64, content io.Reader) error {
	op := "receive layer " + diffID
	if err := checkDigest(diffID); err != nil {
		return err
	}
	unlock, err := i.incoming.lock(ctx, diffID)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	defer unlock()
	if i.complete(diffID) {
		return nil // by another copy
	}
	have, err := i.received(diffID)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if have != offset {
		return api.Errorf(api.CodeConflict, "%s: %d bytes of it are here already, and those from %d on were sent: try again", op, have, offset)
	}
	if err := appendTo(i.partial(diffID), content); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return i.finishLayer(diffID)
}

func appendTo(name string, content io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}

// finishLayer makes a received layer complete if its digest is right; else what
// was received is worth nothing.
func (i *Images) finishLayer(diffID string) error {
	name := i.partial(diffID)
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if got := fmt.Sprintf("sha256:%x", sum.Sum(nil)); got != diffID {
		_ = os.Remove(name)
		return api.Errorf(api.CodeInvalid, "receive layer %s: what was sent is %s", diffID, got)
	}
	return os.Rename(name, i.layer(diffID))
}

// received is how much of a layer is on disk.
func (i *Images) received(diffID string) (int64, error) {
	for _, name := range []string{i.layer(diffID), i.partial(diffID)} {
		info, err := os.Stat(name)
		if err == nil {
			return info.Size(), nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
	}
	return 0, nil
}

// CommitImage gives the engine an image whose layers are all there, and returns
// its ID.
func (i *Images) CommitImage(ctx context.Context, m *api.ImageManifest, name string) (string, error) {
	id := digestOf(m.Config)
	op := "take in image " + id
	diffIDs, err := layersOf(m)
	if err != nil {
		return "", err
	}
	tags, err := i.freeTag(ctx, name)
	if err != nil {
		return "", err
	}
	archive, feed := io.Pipe()
	go func() { feed.CloseWithError(i.pack(feed, m.Config, diffIDs, tags)) }()
	defer archive.Close()
	res, err := i.cli.ImageLoad(ctx, archive, client.ImageLoadWithQuiet(true))
	if err != nil {
		return "", wrap(op, err)
	}
	defer res.Close()
	if err := loadError(res); err != nil {
		return "", wrap(op, err)
	}
	if _, err := i.cli.ImageInspect(ctx, id); err != nil {
		return "", wrap(op, err)
	}
	for _, diffID := range diffIDs {
		_ = os.Remove(i.layer(diffID))
	}
	return id, nil
}

// freeTag is the name, as a list, if it is a tag that no image here has: another
// image of a user's keeps its name.
func (i *Images) freeTag(ctx context.Context, name string) ([]string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, nil
	}
	if _, ok := named.(reference.Digested); ok {
		return nil, nil
	}
	tag := reference.FamiliarString(reference.TagNameOnly(named))
	_, err = i.cli.ImageInspect(ctx, tag)
	switch {
	case err == nil:
		return nil, nil
	case cerrdefs.IsNotFound(err):
		return []string{tag}, nil
	}
	return nil, wrap("inspect image "+tag, err)
}

// pack writes the archive of an image that the engine loads, with the layers
// that were received; the engine does not look for those it has.
func (i *Images) pack(w io.Writer, config []byte, diffIDs, tags []string) error {
	archive := tar.NewWriter(w)
	add := func(name string, size int64, content io.Reader) error {
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size}); err != nil {
			return err
		}
		_, err := io.Copy(archive, content)
		return err
	}
	var names []string
	for _, diffID := range diffIDs {
		name := strings.TrimPrefix(diffID, "sha256:") + ".tar"
		names = append(names, name)
		f, err := os.Open(i.layer(diffID))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err == nil {
			err = add(name, info.Size(), f)
		}
		f.Close()
		if err != nil {
			return err
		}
	}
	configName := strings.TrimPrefix(digestOf(config), "sha256:") + ".json"
	manifest, err := json.Marshal([]any{map[string]any{"Config": configName, "RepoTags": tags, "Layers": names}})
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{configName: config, "manifest.json": manifest} {
		if err := add(name, int64(len(content)), strings.NewReader(string(content))); err != nil {
			return err
		}
	}
	return archive.Close()
}

// SweepImages removes what copies of images left on disk: of those from here
// all, of those to here what is old.
func (i *Images) SweepImages(now time.Time) error {
	if i.dir == "" {
		return nil
	}
	if err := os.RemoveAll(i.exportsDir()); err != nil {
		return fmt.Errorf("sweep images: %w", err)
	}
	entries, err := os.ReadDir(i.importsDir())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("sweep images: %w", err)
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && now.Sub(info.ModTime()) > incomingKept {
			_ = os.Remove(filepath.Join(i.importsDir(), entry.Name()))
		}
	}
	return nil
}

func (i *Images) importsDir() string { return filepath.Join(i.dir, "in") }

// layer is where a layer is that is complete, partial where it is until then.
func (i *Images) layer(diffID string) string {
	return filepath.Join(i.importsDir(), strings.TrimPrefix(diffID, "sha256:"))
}

func (i *Images) partial(diffID string) string { return i.layer(diffID) + ".part" }

func (i *Images) complete(diffID string) bool {
	_, err := os.Stat(i.layer(diffID))
	return err == nil
}

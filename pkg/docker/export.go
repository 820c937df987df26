package docker

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// An engine gives out an image as one stream only. So that other nodes can read
// just the layers they lack, and go on where they were interrupted, the image is
// unpacked on disk for as long as somebody reads it.

// exportIdle is how long an unpacked image is kept after it was last read.
const exportIdle = 2 * time.Minute

// exports are the images that are unpacked.
type exports struct {
	unpack func(ctx context.Context, id string) (*export, error)

	unpacking keyedLock
	mu        sync.Mutex
	byID      map[string]*export
}

// export is one unpacked image.
type export struct {
	dir      string
	manifest api.ImageManifest
	layers   []string // their files, lowest first

	readers int
	idle    *time.Timer // runs while there are no readers
}

// acquire returns an image that stays on disk until release is called.
func (x *exports) acquire(ctx context.Context, id string) (ex *export, release func(), err error) {
	unlock, err := x.unpacking.lock(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	x.mu.Lock()
	ex = x.byID[id]
	if ex != nil {
		ex.readers++
		ex.idle.Stop()
	}
	x.mu.Unlock()
	if ex == nil {
		if ex, err = x.unpack(ctx, id); err != nil {
			return nil, nil, err
		}
		ex.readers = 1
		ex.idle = time.AfterFunc(exportIdle, func() { x.discard(id) })
		ex.idle.Stop()
		x.mu.Lock()
		if x.byID == nil {
			x.byID = make(map[string]*export)
		}
		x.byID[id] = ex
		x.mu.Unlock()
	}
	return ex, func() { x.release(ex) }, nil
}

func (x *exports) release(ex *export) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if ex.readers--; ex.readers == 0 {
		ex.idle.Reset(exportIdle)
	}
}

// discard removes an image that nobody reads.
func (x *exports) discard(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if ex := x.byID[id]; ex != nil && ex.readers == 0 {
		delete(x.byID, id)
		_ = os.RemoveAll(ex.dir)
	}
}

// ImageManifest says what an image of this node is made of.
func (i *Images) ImageManifest(ctx context.Context, id string) (*api.ImageManifest, error) {
	ex, release, err := i.exports.acquire(ctx, id)
	if err != nil {
		return nil, err
	}
	defer release()
	return &ex.manifest, nil
}

// ImageLayer reads a layer of an image of this node, counted from 0, from a
// byte on.
func (i *Images) ImageLayer(ctx context.Context, id string, layer int, offset int64) (io.ReadCloser, error) {
	ex, release, err := i.exports.acquire(ctx, id)
	if err != nil {
		return nil, err
	}
	if layer < 0 || layer >= len(ex.layers) || offset < 0 || offset > ex.manifest.Layers[layer] {
		release()
		return nil, api.Errorf(api.CodeInvalid, "image %s has no layer %d with a byte %d", id, layer, offset)
	}
	f, err := os.Open(ex.layers[layer])
	if err == nil {
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		release()
		return nil, fmt.Errorf("read layer %d of image %s: %w", layer, id, err)
	}
	return &layerReader{f, release}, nil
}

// layerReader keeps the image on disk until it is closed.
type layerReader struct {
	*os.File
	release func()
}

func (r *layerReader) Close() error {
	defer r.release()
	return r.File.Close()
}

// unpackImage writes the parts of an image into a directory of its own.
func (i *Images) unpackImage(ctx context.Context, id string) (_ *export, err error) {
	op := "unpack image " + id
	if _, err := i.cli.ImageInspect(ctx, id); err != nil {
		return nil, wrap(op, err)
	}
	if err := os.MkdirAll(i.exportsDir(), 0o700); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	dir, err := os.MkdirTemp(i.exportsDir(), "")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(dir)
		}
	}()
	archive, err := i.cli.ImageSave(ctx, []string{id})
	if err != nil {
		return nil, wrap(op, err)
	}
	defer archive.Close()
	files, err := untar(archive, dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	ex, err := newExport(dir, id, files)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return ex, nil
}

// untar writes each file of an archive into dir, under a number, and returns
// where it is by its name in the archive. A link is where its target is.
func untar(archive io.Reader, dir string) (map[string]string, error) {
	files := make(map[string]string)
	links := make(map[string]string)
	r := tar.NewReader(bufio.NewReaderSize(archive, 1<<20))
	for n := 0; ; n++ {
		h, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			for name, target := range links {
				files[name] = files[target]
			}
			return files, nil
		case err != nil:
			return nil, err
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeSymlink:
			links[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeReg:
			files[name] = filepath.Join(dir, strconv.Itoa(n))
			if err := writeFile(files[name], r); err != nil {
				return nil, err
			}
		}
	}
}

func writeFile(name string, r io.Reader) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// newExport makes sense of the files of an engine's archive.
func newExport(dir, id string, files map[string]string) (*export, error) {
	list, err := os.ReadFile(files["manifest.json"])
	if err != nil {
		return nil, fmt.Errorf("the engine gave no manifest: %w", err)
	}
	var images []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(list, &images); err != nil {
		return nil, fmt.Errorf("the engine gave a manifest that cannot be read: %w", err)
	}
	if len(images) != 1 {
		return nil, fmt.Errorf("the engine gave the manifest of %d images", len(images))
	}
	ex := &export{dir: dir}
	if ex.manifest.Config, err = os.ReadFile(files[images[0].Config]); err != nil {
		return nil, err
	}
	if got := digestOf(ex.manifest.Config); got != id {
		return nil, fmt.Errorf("the engine calls it %s, but its configuration is %s: %w", id, got, errImageStore)
	}
	for _, name := range images[0].Layers {
		file, ok := files[path.Clean(name)]
		if !ok {
			return nil, fmt.Errorf("the engine gave no layer %s", name)
		}
		size, err := uncompress(file)
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", name, err)
		}
		ex.layers = append(ex.layers, file)
		ex.manifest.Layers = append(ex.manifest.Layers, size)
	}
	return ex, nil
}

// errImageStore says what else than the images of a graph driver is not handled.
var errImageStore = errors.New(`engines that keep images in containerd's store cannot have them copied between nodes: push the image to a registry, or set "containerd-snapshotter": false in the engine's features`)

var gzipMagic = []byte{0x1f, 0x8b}

// uncompress makes a layer's file the plain archive and returns its size.
func uncompress(name string) (int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buffered := bufio.NewReaderSize(f, 1<<20)
	if magic, _ := buffered.Peek(len(gzipMagic)); bytes.Equal(magic, gzipMagic) {
		plain, err := gzip.NewReader(buffered)
		if err != nil {
			return 0, err
		}
		if err := writeFile(name+".plain", plain); err != nil {
			return 0, err
		}
		if err := os.Rename(name+".plain", name); err != nil {
			return 0, err
		}
	}
	info, err := os.Stat(name)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func digestOf(content []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(content)) }

func (i *Images) exportsDir() string { return filepath.Join(i.dir, "out") }

package docker

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
)

// FuzzArchive looks for archives of images, as engines give them, that make a node
// panic, write anywhere else than it was told, or offer others a layer that it does
// not have.
func FuzzArchive(f *testing.F) {
	one := []byte(`[{"Config":"c.json","Layers":["l/layer.tar"]}]`)
	packed := []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\x01\x01\x00\xfe\xffx\x83\x16\xdc\x8c\x01\x00\x00\x00")
	f.Add("l/layer.tar", "", byte(tar.TypeReg), one, []byte("a layer"), uint16(0))
	f.Add("./l//layer.tar", "", byte(tar.TypeReg), one, packed, uint16(0))
	f.Add("l/layer.tar", "", byte(tar.TypeReg), one, packed[:len(packed)-3], uint16(0))
	f.Add("l/layer.tar", "../c.json", byte(tar.TypeSymlink), one, []byte{}, uint16(0))
	f.Add("l/layer.tar", "/etc/passwd", byte(tar.TypeSymlink), one, []byte{}, uint16(0))
	f.Add("l/layer.tar", "../../x", byte(tar.TypeLink), one, []byte{}, uint16(700))
	f.Add("../../x", "", byte(tar.TypeReg), []byte(`[{"Config":"c.json","Layers":["../../x"]}]`), []byte("x"), uint16(0))
	f.Add("manifest.json", "manifest.json", byte(tar.TypeSymlink), one, []byte{}, uint16(0))
	f.Add("x", "", byte(tar.TypeDir), []byte(`[]`), []byte{}, uint16(0))
	f.Add("x", "", byte(tar.TypeReg), []byte(`[{"Config":"/etc/hostname"}]`), []byte{}, uint16(3000))
	f.Fuzz(func(t *testing.T, name, link string, kind byte, manifest, layer []byte, cut uint16) {
		archive := archiveOf([]tar.Header{
			{Name: "c.json", Typeflag: tar.TypeReg}, {Name: "manifest.json", Typeflag: tar.TypeReg}, {Name: name, Linkname: link, Typeflag: kind},
		}, []byte("{}"), manifest, layer)
		archive = archive[:max(0, len(archive)-int(cut))]
		around := t.TempDir()
		dir := filepath.Join(around, "image")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		files, err := untar(bytes.NewReader(archive), dir)
		if err == nil {
			for name, at := range files {
				if at != "" && filepath.Dir(at) != dir {
					t.Fatalf("%q is at %s", name, at)
				}
			}
			id := digestOf(content(files, "c.json"))
			var ex *export
			if ex, err = newExport(dir, id, files); err == nil {
				checkExport(t, dir, id, ex)
			}
		}
		if err != nil && (err.Error() == "" || strings.Contains(err.Error(), "%!")) {
			t.Fatalf("%q: %v", archive, err)
		}
		if beside, err := os.ReadDir(around); err != nil || len(beside) != 1 {
			t.Fatalf("%q: there are files beside it: %v, %v", archive, beside, err)
		}
	})
}

// archiveOf is an archive of as much of this as can be in one.
func archiveOf(headers []tar.Header, contents ...[]byte) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(contents[i]))
		}
		if w.WriteHeader(&h) == nil && h.Typeflag == tar.TypeReg {
			_, _ = w.Write(contents[i]) // it has the room
		}
	}
	_ = w.Close() // what is there counts
	return b.Bytes()
}

func content(files map[string]string, name string) []byte {
	data, _ := os.ReadFile(files[name])
	return data
}

func checkExport(t *testing.T, dir, id string, ex *export) {
	t.Helper()
	if digestOf(ex.manifest.Config) != id || len(ex.layers) != len(ex.manifest.Layers) {
		t.Fatalf("%+v is offered as %s", ex, id)
	}
	for i, name := range ex.layers {
		info, err := os.Stat(name)
		if err != nil || filepath.Dir(name) != dir || info.Size() != ex.manifest.Layers[i] {
			t.Fatalf("layer %d, of %d bytes, is %v: %v", i, ex.manifest.Layers[i], info, err)
		}
	}
}

// FuzzImageConfig looks for configurations of images, as other nodes send them, that
// make this one panic, or name layers that would be files elsewhere.
func FuzzImageConfig(f *testing.F) {
	f.Add([]byte(`{"rootfs":{"type":"layers","diff_ids":["sha256:`+strings.Repeat("0a", 32)+`"]}}`), 1)
	f.Add([]byte(`{"rootfs":{"type":"layers","diff_ids":["sha256:`+strings.Repeat("../", 21)+`x"]}}`), 1)
	f.Add([]byte(`{"rootfs":{"diff_ids":["",null]}}`), 2)
	f.Add([]byte(`null`), 0)
	f.Fuzz(func(t *testing.T, config []byte, layers int) {
		if layers < 0 || layers > 100 {
			t.Skip()
		}
		images := &Images{dir: "/var/lib/orch/images"}
		diffIDs, err := layersOf(&api.ImageManifest{Config: config, Layers: make([]int64, layers)})
		if err != nil {
			if api.CodeOf(err) != api.CodeInvalid {
				t.Fatalf("%q: %v", config, err)
			}
			return
		}
		if len(diffIDs) != layers {
			t.Fatalf("%q names %d layers of %d", config, len(diffIDs), layers)
		}
		for _, id := range diffIDs {
			if path := images.layer(id); filepath.Dir(path) != images.importsDir() {
				t.Fatalf("layer %q would be at %s", id, path)
			}
		}
	})
}

// FuzzProgress looks for what an engine may say, while it builds or loads an image,
// that makes a node panic, or never come to an end, or take a failure for success.
func FuzzProgress(f *testing.F) {
	f.Add([]byte(`{"stream":"Step 1/2"}` + "\n" + `{"stream":"done\n"}`))
	f.Add([]byte(`{"stream":"Step 1/2"}{"errorDetail":{"message":"no such file"},"error":"no such file"}`))
	f.Add([]byte(`{"stream":"cut o`))
	f.Add([]byte(`{"error":{}}`))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, said []byte) {
		var out bytes.Buffer
		buildErr, loadErr := buildOutput(bytes.NewReader(said), &out), loadError(bytes.NewReader(said))
		if out.Len() > len(said)*3 { // a byte that is no UTF-8 becomes three
			t.Fatalf("%q is passed on as %q", said, out.Bytes())
		}
		if loadErr != nil && loadErr.Error() != "" && buildErr == nil {
			t.Fatalf("%q fails a load (%v), and no build", said, loadErr)
		}
	})
}

package rpc

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
)

// brokenReader fails after some bytes.
type brokenReader struct{ left int }

func (r *brokenReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, errors.New("the disk broke")
	}
	n := min(len(p), r.left)
	r.left -= n
	return n, nil
}

func TestContent(t *testing.T) {
	const large = 5 << 20
	var uploaded int
	c := newCluster(t)
	n := start(t, c.node(t, api.RoleManager), func(mux *Mux) {
		HandleContent(mux, "/test/Content", func(_ context.Context, req *api.ImageRequest) (io.ReadCloser, error) {
			switch req.ID {
			case "large":
				return io.NopCloser(strings.NewReader(strings.Repeat("x", large))), nil
			case "broken":
				return io.NopCloser(&brokenReader{1 << 20}), nil
			}
			return nil, api.Errorf(api.CodeNotFound, "no image %q", req.ID)
		})
		HandleUpload(mux, "/test/Upload", func(_ context.Context, req *api.LayerUpload, content io.Reader) error {
			if req.Offset < 0 {
				return api.Errorf(api.CodeConflict, "begin at 7")
			}
			text, err := io.ReadAll(content)
			uploaded = len(text)
			return err
		})
	})
	client := NewPool(c.node(t, api.RoleManager)).Manager(n.addr)

	body, err := Content(t.Context(), client, "/test/Content", &api.ImageRequest{ID: "large"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(body)
	body.Close()
	if len(got) != large || err != nil {
		t.Errorf("read %d bytes, %v", len(got), err)
	}

	body, err = Content(t.Context(), client, "/test/Content", &api.ImageRequest{ID: "broken"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(body); err == nil {
		t.Errorf("%d bytes were taken for all", len(got))
	}
	body.Close()

	_, err = Content(t.Context(), client, "/test/Content", &api.ImageRequest{ID: "none"})
	if api.CodeOf(err) != api.CodeNotFound || err.Error() != `no image "none"` {
		t.Errorf("%v", err)
	}

	if err := Upload(t.Context(), client, "/test/Upload", &api.LayerUpload{}, strings.NewReader(strings.Repeat("y", large))); err != nil || uploaded != large {
		t.Errorf("%d bytes arrived, %v", uploaded, err)
	}
	err = Upload(t.Context(), client, "/test/Upload", &api.LayerUpload{Offset: -1}, strings.NewReader("y"))
	if api.CodeOf(err) != api.CodeConflict || err.Error() != "begin at 7" {
		t.Errorf("%v", err)
	}
}

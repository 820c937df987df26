package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

// Copies is the way to images that other nodes have.
type Copies interface {
	// Sources are the nodes that have the image of a task and let this one read
	// it, in the order in which to try them.
	Sources(ctx context.Context, task api.TaskID) ([]api.Node, error)
	Images(from *api.Node) api.ImageContent
}

// progressEvery is how often it is told how far a copy is.
const progressEvery = 2 * time.Second

// ensureImage makes a task's image present: the node has it, or its registry, or
// another node.
func (w *worker) ensureImage(ctx context.Context, t *api.Task) error {
	err := w.agent.Runtime.EnsureImage(ctx, &t.Spec)
	if err == nil || ctx.Err() != nil || errors.Is(err, api.ErrRuntimeUnavailable) || t.Spec.Pin.ID == "" {
		return err
	}
	if copyErr := w.copyImage(ctx, t); copyErr != nil {
		if errors.Is(err, api.ErrImageNotHere) {
			return copyErr
		}
		return fmt.Errorf("%w; and %w", err, copyErr)
	}
	return nil
}

// copyImage brings a task's image from the first node from which it can. What
// one has begun, the next goes on with.
func (w *worker) copyImage(ctx context.Context, t *api.Task) error {
	op := "copy image " + t.Spec.Image + " from another node"
	sources, err := w.agent.Copies.Sources(ctx, t.ID)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	var errs []error
	for i := range sources {
		from := &sources[i]
		err := w.agent.Runtime.ImportImage(ctx, t.Spec.Pin.ID, t.Spec.Image, w.agent.Copies.Images(from), w.copyProgress(from))
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", from.Hostname, err))
	}
	if len(errs) == 0 {
		errs = append(errs, fmt.Errorf("no node that is up has it (%s)", t.Spec.Pin.ID))
	}
	return fmt.Errorf("%s: %w", op, errors.Join(errs...))
}

// copyProgress reports now and then how far a copy is.
func (w *worker) copyProgress(from *api.Node) func(done, total int64) {
	var told time.Time
	return func(done, total int64) {
		if now := w.agent.Now(); now.Sub(told) >= progressEvery {
			told = now
			w.report(api.TaskStatus{State: api.TaskPreparing, Message: fmt.Sprintf(
				"copies its image from %s: %d of %d MB", from.Hostname, done>>20, (total+1<<20-1)>>20)})
		}
	}
}

// Sources implements Copies.
func (d *Directory) Sources(ctx context.Context, task api.TaskID) ([]api.Node, error) {
	res, err := rpc.Call[api.ImageSourcesRequest, api.ImageSources](ctx, d.peers.Manager(d.Addr()), api.ProcImageSources,
		&api.ImageSourcesRequest{Node: d.node, Task: task})
	if err != nil {
		return nil, err
	}
	return res.Nodes, nil
}

// Images implements Copies.
func (d *Directory) Images(from *api.Node) api.ImageContent { return imagesOf{d.peers.Node(from)} }

// imagesOf reads the images of a node.
type imagesOf struct{ node *rpc.Client }

func (i imagesOf) Manifest(ctx context.Context, id string) (*api.ImageManifest, error) {
	return rpc.Call[api.ImageRequest, api.ImageManifest](ctx, i.node, api.ProcImageManifest, &api.ImageRequest{ID: id})
}

func (i imagesOf) Layer(ctx context.Context, id string, layer int, offset int64) (io.ReadCloser, error) {
	return rpc.Content(ctx, i.node, api.ProcImageLayer, &api.ImageLayerRequest{ID: id, Layer: layer, Offset: offset})
}

// ImageStore is what the node's runtime has of images.
type ImageStore interface {
	ImageStatus(ctx context.Context, req *api.ImageStatusRequest) (api.ImageStatus, error)
	ImageManifest(ctx context.Context, id string) (*api.ImageManifest, error)
	ImageLayer(ctx context.Context, id string, layer int, offset int64) (io.ReadCloser, error)
	ImageUpload
}

// ImageUpload takes in an image that a user has elsewhere.
type ImageUpload interface {
	OfferImage(ctx context.Context, m *api.ImageManifest) (*api.ImageWants, error)
	WriteLayer(ctx context.Context, diffID string, offset int64, content io.Reader) error
	CommitImage(ctx context.Context, m *api.ImageManifest, name string) (id string, err error)
}

// ServeImages adds to a mux what is asked about images: by managers, by users
// through them, and by nodes that a manager lets read one. open returns the store
// for who is calling.
func ServeImages(mux *rpc.Mux, open func(ctx context.Context) (ImageStore, error), now func() time.Time) {
	g := &grants{now: now, until: make(map[grant]time.Time)}
	rpc.Handle(mux, api.ProcImageStatus, func(ctx context.Context, req *api.ImageStatusRequest) (*api.ImageStatus, error) {
		store, err := open(ctx)
		if err != nil {
			return nil, err
		}
		status, err := store.ImageStatus(ctx, req)
		if err == nil && status.Present && req.Grant != "" {
			g.add(grant{req.Grant, status.ID})
		}
		return &status, err
	})
	rpc.Handle(mux, api.ProcImageManifest, func(ctx context.Context, req *api.ImageRequest) (*api.ImageManifest, error) {
		store, err := g.open(ctx, open, req.ID)
		if err != nil {
			return nil, err
		}
		return store.ImageManifest(ctx, req.ID)
	})
	rpc.HandleContent(mux, api.ProcImageLayer, func(ctx context.Context, req *api.ImageLayerRequest) (io.ReadCloser, error) {
		store, err := g.open(ctx, open, req.ID)
		if err != nil {
			return nil, err
		}
		return store.ImageLayer(ctx, req.ID, req.Layer, req.Offset)
	})
	serveUpload(mux, open)
}

func serveUpload(mux *rpc.Mux, open func(ctx context.Context) (ImageStore, error)) {
	rpc.Handle(mux, api.ProcImageOffer, func(ctx context.Context, req *api.ImageOffer) (*api.ImageWants, error) {
		store, err := open(ctx)
		if err != nil {
			return nil, err
		}
		return store.OfferImage(ctx, &req.Manifest)
	})
	rpc.HandleUpload(mux, api.ProcImageUpload, func(ctx context.Context, req *api.LayerUpload, content io.Reader) error {
		store, err := open(ctx)
		if err != nil {
			return err
		}
		return store.WriteLayer(ctx, req.DiffID, req.Offset, content)
	})
	rpc.Handle(mux, api.ProcImageCommit, func(ctx context.Context, req *api.ImageCommit) (*api.ImageRequest, error) {
		store, err := open(ctx)
		if err != nil {
			return nil, err
		}
		id, err := store.CommitImage(ctx, &req.Manifest, req.Name)
		return &api.ImageRequest{ID: id}, err
	})
}

// grants are which nodes may read which images: a manager says so when it tells
// a node where it can get the image of a task of its own.
type grants struct {
	now   func() time.Time
	mu    sync.Mutex
	until map[grant]time.Time
}

type grant struct {
	node  api.NodeID
	image string
}

// grantLife is how long a node may take to copy an image.
const grantLife = time.Hour

func (g *grants) add(key grant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	for k, until := range g.until {
		if now.After(until) {
			delete(g.until, k)
		}
	}
	g.until[key] = now.Add(grantLife)
}

// open returns the store if the caller may read the image.
func (g *grants) open(ctx context.Context, open func(context.Context) (ImageStore, error), image string) (ImageStore, error) {
	if caller := rpc.CallerOf(ctx); !caller.Local {
		g.mu.Lock()
		until, ok := g.until[grant{caller.Node, image}]
		g.mu.Unlock()
		if !ok || g.now().After(until) {
			return nil, api.Errorf(api.CodeDenied, "no manager lets node %s read image %s", caller.Node, image)
		}
	}
	return open(ctx)
}

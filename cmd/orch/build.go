package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/compose"
	"github.com/orch-dev/orch/pkg/docker"
	"github.com/orch-dev/orch/pkg/rpc"
)

// imageFlags say how a command finds the images that it deploys.
type imageFlags struct {
	noBuild bool
	resolve string
	auth    bool
}

func (f *imageFlags) define(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.noBuild, "no-build", false, "take images with build: as they are, instead of building them with this machine's Docker Engine")
	f.defineResolve(cmd)
}

func (f *imageFlags) defineResolve(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.resolve, "resolve-image", string(api.ResolveChanged),
		"when to look up what an image's name stands for: changed (new services and new names), always, never")
	cmd.Flags().BoolVar(&f.auth, "with-registry-auth", false, "give the nodes what `docker login` stored here for the images' registries")
}

// when returns the value of --resolve-image.
func (f *imageFlags) when() (api.Resolve, error) {
	resolve := api.Resolve(f.resolve)
	if !slices.Contains([]api.Resolve{api.ResolveChanged, api.ResolveAlways, api.ResolveNever}, resolve) {
		return "", fmt.Errorf("--resolve-image %q: give changed, always or never", f.resolve)
	}
	return resolve, nil
}

// credentials are those for an image, if they are wanted.
func (f *imageFlags) credentials(image string) (*api.RegistryAuth, error) {
	if !f.auth {
		return nil, nil
	}
	return docker.Credentials(image)
}

// prepare builds the images that a request needs, sees to it that the cluster has
// them, and completes the request.
func (f *imageFlags) prepare(cmd *cobra.Command, c *cli, req *api.DeployRequest, builds []compose.Build) (err error) {
	if req.Resolve, err = f.when(); err != nil {
		return err
	}
	for i := range req.Services {
		task := &req.Services[i].Task
		if task.RegistryAuth, err = f.credentials(task.Image); err != nil {
			return err
		}
	}
	if f.noBuild || len(builds) == 0 {
		return nil
	}
	dir, err := os.MkdirTemp("", "orch-images-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	images, err := docker.OpenImages("", dir)
	if err != nil {
		return err
	}
	defer images.Close()
	for _, b := range builds {
		id, err := build(cmd, c, images, &b.ImageBuild)
		if err != nil {
			return fmt.Errorf("nothing was deployed: service %s: %w", b.Service, err)
		}
		for i := range req.Services {
			if req.Services[i].Name == b.Service {
				req.Services[i].Task.Pin.ID = id
			}
		}
	}
	return nil
}

// build makes one image with the engine beside this command, and gives it to the
// cluster if no node has that engine.
func build(cmd *cobra.Command, c *cli, images *docker.Images, b *api.ImageBuild) (id string, err error) {
	out := cmd.OutOrStdout()
	began := time.Now()
	said := &buildLog{name: b.Name, steps: out}
	if id, err = images.Build(cmd.Context(), b, said); err != nil {
		_, _ = said.WriteTo(cmd.ErrOrStderr())
		return "", err
	}
	fmt.Fprintf(out, "%s: built in %.1f s\n", b.Name, time.Since(began).Seconds())
	holders, err := call[api.ImageRequest, api.ImageHolders](cmd, c, api.ProcImageHolders, &api.ImageRequest{ID: id})
	if err != nil || len(holders.Nodes) > 0 {
		return id, err
	}
	client, err := c.daemon()
	if err != nil {
		return "", err
	}
	return id, upload(cmd, client, images, id, b.Name)
}

// buildLog shows the steps of a build, and keeps all that was said for the case
// that it fails.
type buildLog struct {
	bytes.Buffer
	name  string
	steps io.Writer
}

func (l *buildLog) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		if bytes.HasPrefix(line, []byte("Step ")) {
			fmt.Fprintf(l.steps, "%s: %s\n", l.name, bytes.TrimSpace(line))
		}
	}
	return l.Buffer.Write(p)
}

// upload gives an image to the node that the command talks to; the others get it
// from there.
func upload(cmd *cobra.Command, client *rpc.Client, images *docker.Images, id, name string) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	manifest, err := images.ImageManifest(ctx, id)
	if err != nil {
		return err
	}
	wants, err := rpc.Call[api.ImageOffer, api.ImageWants](ctx, client, api.ProcImageOffer, &api.ImageOffer{Manifest: *manifest})
	if err != nil {
		return fmt.Errorf("upload image %s: %w", name, err)
	}
	for n, want := range wants.Layers {
		fmt.Fprintf(out, "%s: uploading layer %d of %d, %d MB\n", name, n+1, len(wants.Layers), (manifest.Layers[want.Layer]-want.Have+1<<20-1)>>20)
		layer, err := images.ImageLayer(ctx, id, want.Layer, want.Have)
		if err != nil {
			return err
		}
		err = rpc.Upload(ctx, client, api.ProcImageUpload, &api.LayerUpload{DiffID: want.DiffID, Offset: want.Have}, layer)
		layer.Close()
		if err != nil {
			return fmt.Errorf("upload image %s: %w", name, err)
		}
	}
	if _, err := rpc.Call[api.ImageCommit, api.ImageRequest](ctx, client, api.ProcImageCommit, &api.ImageCommit{Manifest: *manifest, Name: name}); err != nil {
		return fmt.Errorf("upload image %s: %w", name, err)
	}
	return nil
}

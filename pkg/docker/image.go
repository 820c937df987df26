package docker

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/orch-dev/orch/pkg/api"
)

// registryTimeout bounds the question whether a registry has an image: a user
// waits for the answer.
const registryTimeout = 5 * time.Second

// EnsureImage makes the image present on the node: it pulls it, as long as ctx
// allows, only if the engine does not have it.
func (e *Engine) EnsureImage(ctx context.Context, ref string) error {
	op := "pull image " + ref
	_, err := e.cli.ImageInspect(ctx, ref)
	if err == nil {
		return nil
	}
	if !cerrdefs.IsNotFound(err) {
		return wrap("inspect image "+ref, err)
	}
	res, err := e.cli.ImagePull(ctx, ref, client.ImagePullOptions{})
	if err != nil {
		return registryError(op, err)
	}
	defer res.Close()
	return registryError(op, res.Wait(ctx))
}

// ImageStatus says whether the node has the image, and if not, whether its
// registry does; that question takes five seconds at most.
func (e *Engine) ImageStatus(ctx context.Context, ref string) (api.ImageStatus, error) {
	local, err := e.cli.ImageInspect(ctx, ref)
	if err == nil {
		return api.ImageStatus{Present: true, ID: local.ID, Digest: manifestDigest(local.RepoDigests, ref)}, nil
	}
	if !cerrdefs.IsNotFound(err) {
		return api.ImageStatus{}, wrap("inspect image "+ref, err)
	}
	askCtx, cancel := context.WithTimeout(ctx, registryTimeout)
	defer cancel()
	remote, err := e.cli.DistributionInspect(askCtx, ref, client.DistributionInspectOptions{})
	switch {
	case err == nil:
		return api.ImageStatus{Pullable: true, Digest: remote.Descriptor.Digest.String()}, nil
	case ctx.Err() != nil:
		return api.ImageStatus{}, wrap("look up image "+ref, ctx.Err())
	case errors.Is(err, context.DeadlineExceeded):
		return api.ImageStatus{Reason: fmt.Sprintf("not on the node, and its registry did not answer within %s", registryTimeout)}, nil
	case unreachable(err):
		return api.ImageStatus{}, wrap("look up image "+ref, err)
	}
	return api.ImageStatus{Reason: "not on the node, and " + registryProblem(err)}, nil
}

// manifestDigest picks from REPOSITORY@DIGEST entries the one of ref's
// repository. An image that was made here and never pushed has none, one that
// was pulled from several repositories has several.
func manifestDigest(repoDigests []string, ref string) string {
	for _, entry := range repoDigests {
		if _, digest, _ := strings.Cut(entry, "@"); repository(entry) == repository(ref) {
			return digest
		}
	}
	return ""
}

// repository of an image reference, as the engine writes it: without tag,
// digest and the default registry.
func repository(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	if colon := strings.LastIndex(ref, ":"); colon > strings.LastIndex(ref, "/") {
		ref = ref[:colon]
	}
	return strings.TrimPrefix(strings.TrimPrefix(ref, "docker.io/"), "library/")
}

// What registries and engines say of an image they do not give, each in its own
// way; which image it is, the operation says.
var registryRewrites = []rewriteRule{
	{regexp.MustCompile(`(?i)^(manifest for .* not found|.*manifest unknown).*$`), "the registry has no such image"},
	{regexp.MustCompile(`(?i)^(pull access denied for|.*\bdenied\b|.*unauthorized|.*name unknown|.*repository name not known).*$`),
		"the registry has no such image, or it is private"},
	{regexp.MustCompile(`^(?:Get|Head) "?https?://([^/"]+)[^"]*"?: (?:dial tcp(?: [^ ]+:\d+)?: )?(?:net/http: )?(.*)$`),
		"cannot reach the registry $1: $2"},
}

func registryProblem(err error) string {
	return rewrite(plain(err.Error()), registryRewrites)
}

func registryError(op string, err error) error {
	if err == nil || unreachable(err) {
		return wrap(op, err)
	}
	return fmt.Errorf("%s: %w", op, &engineError{msg: registryProblem(err), err: err})
}

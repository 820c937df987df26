package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// flavour is the kernel of Debian's that is built for virtual machines: the
// same source, with fewer drivers.
const flavour = "cloud-amd64"

// kernel is one that was downloaded and unpacked.
type kernel struct {
	suite   string // of Debian
	release string // as uname -r says it
	image   string // file
	modules string // directory
}

// archive is one release of Debian, seen by an apt of its own that knows only
// that release and has nothing installed. Apt verifies what it downloads.
type archive struct {
	suite string
	dir   string
}

// fetchKernels gives the kernel of each release, from the cache if it is there.
func fetchKernels(ctx context.Context, opt options) ([]kernel, error) {
	kernels := make([]kernel, len(opt.suites))
	group, ctx := errgroup.WithContext(ctx)
	for i, suite := range opt.suites {
		group.Go(func() error {
			a := archive{suite: suite, dir: filepath.Join(opt.cache, suite)}
			k, err := a.unpacked()
			if err != nil || opt.refresh {
				if err = a.download(ctx); err == nil {
					k, err = a.unpacked()
				}
			}
			if err != nil {
				return fmt.Errorf("kernel of Debian %s: %w", suite, err)
			}
			kernels[i] = k
			return nil
		})
	}
	return kernels, group.Wait()
}

// unpacked finds the kernel that is in the cache.
func (a archive) unpacked() (kernel, error) {
	k := kernel{suite: a.suite}
	for _, place := range []string{"lib/modules", "usr/lib/modules"} {
		found, _ := filepath.Glob(filepath.Join(a.dir, "root", place, "*-"+flavour))
		if len(found) > 0 {
			k.modules, k.release = found[0], filepath.Base(found[0])
		}
	}
	for _, image := range []string{filepath.Join(a.dir, "root/boot/vmlinuz-"+k.release), filepath.Join(k.modules, "vmlinuz")} {
		if info, err := os.Stat(image); err == nil && info.Mode().IsRegular() {
			k.image = image
			return k, nil
		}
	}
	return k, errors.New("it is not in " + a.dir)
}

// download asks the mirror for the newest kernel and unpacks it.
func (a archive) download(ctx context.Context) error {
	mirror, err := debianMirror(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "downloading the kernel of Debian %s\n", a.suite)
	for _, dir := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.dir, dir), 0o755); err != nil {
			return err
		}
	}
	for name, content := range map[string]string{"status": "", "sources.list": fmt.Sprintf("deb %s %s main\n", mirror, a.suite)} {
		if err := os.WriteFile(filepath.Join(a.dir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	if _, err := a.apt(ctx, "apt-get", "update"); err != nil {
		return err
	}
	names, err := a.closure(ctx, "linux-image-"+flavour)
	if err != nil {
		return err
	}
	return a.unpack(ctx, names)
}

// unpack downloads packages and puts their files in the place of what was there.
func (a archive) unpack(ctx context.Context, names []string) error {
	debs, root, fresh := filepath.Join(a.dir, "debs"), filepath.Join(a.dir, "root"), filepath.Join(a.dir, "fresh")
	for _, dir := range []string{debs, fresh} {
		if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755)); err != nil {
			return err
		}
	}
	defer os.RemoveAll(debs)
	cmd := a.command(ctx, "apt-get", append([]string{"download"}, names...)...)
	cmd.Dir = debs
	if _, err := output(cmd); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if _, err := output(exec.CommandContext(ctx, "dpkg-deb", "--extract", file, fresh)); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(root); err != nil {
		return err
	}
	return os.Rename(fresh, root)
}

// closure gives the packages that a kernel's package stands for: newer releases
// have the image, the modules and what they share in packages of their own.
func (a archive) closure(ctx context.Context, name string) ([]string, error) {
	part := regexp.MustCompile(`^linux-(image|binary|modules|base)-[^ ]*` + flavour + `$`)
	all := []string{name}
	for i := 0; i < len(all); i++ {
		fields, err := a.apt(ctx, "apt-cache", "show", "--no-all-versions", all[i])
		if err != nil {
			return nil, err
		}
		for _, dependency := range dependencies(fields) {
			if part.MatchString(dependency) && !slices.Contains(all, dependency) {
				all = append(all, dependency)
			}
		}
	}
	return all, nil
}

// dependencies gives the names in the Depends field of a package's description.
func dependencies(description string) []string {
	var names []string
	for line := range strings.Lines(description) {
		list, ok := strings.CutPrefix(line, "Depends: ")
		if !ok {
			continue
		}
		for _, item := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == '|' }) {
			names = append(names, strings.Fields(item)[0])
		}
	}
	return names
}

func (a archive) apt(ctx context.Context, program string, args ...string) (string, error) {
	return output(a.command(ctx, program, args...))
}

func (a archive) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	settings := []string{
		"-o", "Dir::State=" + a.dir, "-o", "Dir::State::lists=lists", "-o", "Dir::State::status=" + a.dir + "/status",
		"-o", "Dir::Cache=" + a.dir, "-o", "Dir::Etc::sourcelist=" + a.dir + "/sources.list", "-o", "Dir::Etc::sourceparts=-",
		"-o", "APT::Architecture=amd64", "-o", "Acquire::Languages=none", "-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"-o", "APT::Sandbox::User=root", "-q",
	}
	cmd := exec.CommandContext(ctx, program, append(settings, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd
}

// debianMirror is the archive of Debian that this machine is set up to use.
func debianMirror(ctx context.Context) (string, error) {
	lines, err := output(exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(lines) {
		if mirror, ok := strings.CutPrefix(strings.TrimSpace(line), "Debian|Debian|"); ok {
			return mirror, nil
		}
	}
	return "", errors.New("apt knows no mirror of Debian on this machine: the kernels are Debian's; if this is Debian, run apt-get update")
}

// output runs a command and gives what it prints; an error has what it complains.
func output(cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(string(exit.Stderr)))
	}
	return string(out), err
}

package runtimes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/edge-serverless-box/esb/functions/imagebuild"
)

// systemLibraries are what the interpreters and most compiled extension modules need.
func systemLibraries() []string {
	return []string{"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1",
		"libresolv.so.2", "libgcc_s.so.1", "libstdc++.so.6"}
}

const (
	passwd = "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n"
	group  = "root:x:0:\nnogroup:x:65534:\n"
	// nsswitch makes the C library ask /etc/hosts before DNS.
	nsswitch = "passwd: files\ngroup: files\nhosts: files dns\n"
	caBundle = "/etc/ssl/certs/ca-certificates.crt"
)

// buildSystem makes the layer that both interpreters share.
func (b *Builder) buildSystem(ctx context.Context, scratch string, _ *Base) (v1.Image, error) {
	unpacked, versions, err := b.download(ctx, scratch,
		[]string{"libc6", "libgcc-s1", "libstdc++6", "ca-certificates", "tzdata"})
	if err != nil {
		return nil, err
	}
	root := filepath.Join(scratch, "root")
	if err := errors.Join(
		copyLibraries(unpacked, root),
		copyTimeZones(unpacked, root),
		writeCABundle(unpacked, root),
		writeFile(root, "etc/passwd", []byte(passwd)),
		writeFile(root, "etc/group", []byte(group)),
		writeFile(root, "etc/nsswitch.conf", []byte(nsswitch)),
		copyFile("/etc/os-release", filepath.Join(root, "etc/os-release")),
		link(root, "lib", "usr/lib"),
		link(root, "lib64", "usr/lib64"),
		link(root, "bin", "usr/bin"),
		// OpenSSL's default places on Debian.
		link(root, "usr/lib/ssl/certs", "/etc/ssl/certs"),
		link(root, "usr/lib/ssl/cert.pem", caBundle),
		os.MkdirAll(filepath.Join(root, "usr/lib64"), 0o755),
		os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755),
	); err != nil {
		return nil, err
	}
	folders := imagebuild.NewTree()
	folders.AddDir("/tmp", fs.ModeSticky|0o777)
	for _, dir := range []string{"/dev", "/proc", "/sys", "/run", "/opt", "/root", "/var/runtime", TaskRoot} {
		folders.AddDir(dir, 0)
	}
	scratchImage, err := imagebuild.Scratch()
	if err != nil {
		return nil, err
	}
	return layered(scratchImage, scratch, imagebuild.Config{
		Env: map[string]string{
			"PATH": "/usr/local/bin:/usr/bin:/bin:/opt/bin",
			// AWS: extension modules find libraries of layers and of the code here.
			"LD_LIBRARY_PATH":    "/var/task:/var/task/lib:/opt/lib",
			"LANG":               "C.UTF-8",
			"TZ":                 ":UTC",
			"SSL_CERT_FILE":      caBundle,
			"LAMBDA_TASK_ROOT":   TaskRoot,
			"LAMBDA_RUNTIME_DIR": "/var/runtime",
		},
		WorkingDir: TaskRoot,
		Labels:     map[string]string{"io.esb.packages.system": versions},
	}, folders)
}

func copyLibraries(unpacked, root string) error {
	loaders, err := filepath.Glob(filepath.Join(unpacked, "usr/lib*/ld-linux*"))
	if err != nil {
		return err
	}
	for _, loader := range loaders {
		target, err := os.Readlink(loader)
		if err != nil {
			return fmt.Errorf("the loader of libc6: %w", err)
		}
		relative, err := filepath.Rel(unpacked, loader)
		if err != nil {
			return err
		}
		if err := link(root, relative, target); err != nil {
			return err
		}
	}
	dirs, err := filepath.Glob(filepath.Join(unpacked, "usr/lib/*-linux-gnu*/libc.so.6"))
	if err != nil || len(dirs) != 1 || len(loaders) == 0 {
		return fmt.Errorf("libc6 has %d C libraries and %d loaders, want one of each", len(dirs), len(loaders))
	}
	dir := filepath.Dir(dirs[0])
	files, err := filepath.Glob(filepath.Join(dir, "ld-linux*"))
	if err != nil {
		return err
	}
	for _, name := range systemLibraries() {
		files = append(files, filepath.Join(dir, name))
	}
	for _, file := range files {
		if err := copyFile(file, filepath.Join(root, "usr/lib", filepath.Base(dir), filepath.Base(file))); err != nil {
			return err
		}
	}
	return nil
}

func copyTimeZones(unpacked, root string) error {
	zones := filepath.Join(unpacked, "usr/share/zoneinfo")
	// The same zones with other leap seconds, and a link to the machine's own setting.
	for _, other := range []string{"right", "posix", "localtime"} {
		if err := os.RemoveAll(filepath.Join(zones, other)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "usr/share"), 0o755); err != nil {
		return err
	}
	return os.Rename(zones, filepath.Join(root, "usr/share/zoneinfo"))
}

func writeCABundle(unpacked, root string) error {
	files, err := filepath.Glob(filepath.Join(unpacked, "usr/share/ca-certificates/mozilla/*.crt"))
	if err != nil || len(files) == 0 {
		return errors.Join(err, errors.New("ca-certificates has no certificates"))
	}
	var bundle bytes.Buffer
	for _, file := range files { // sorted by Glob
		pem, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		bundle.Write(bytes.TrimSpace(pem))
		bundle.WriteByte('\n')
	}
	return writeFile(root, caBundle, bundle.Bytes())
}

func writeFile(root, name string, data []byte) error {
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

func link(root, name, target string) error {
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.Symlink(target, path)
}

// copyFile copies what from names, links followed, with its execute bits.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644|info.Mode().Perm()&0o111)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

package runtimes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/edge-serverless-box/esb/functions/imagebuild"
	"github.com/edge-serverless-box/esb/functions/runtimes/debian"
)

// systemPackages are the programs that AWS's base images of Amazon Linux 2023 have and functions count on (a shell, what
// scripts are made of, curl), or that its managed runtimes brought before (tar, gzip, find), with what they need.
func systemPackages() []string {
	return []string{"bash", "coreutils", "curl", "findutils", "gawk", "grep", "gzip", "libc-bin", "sed", "tar"}
}

// systemRoots are the packages whose dependencies the system layer has: libraries of both interpreters too, so that
// their layers need not bring them, and that programs of functions find them as on AWS.
func systemRoots() []string {
	return append(systemPackages(), "libc6", "libexpat1", "libgcc-s1", "libgomp1", "liblz4-1", "libpython3-stdlib", "libstdc++6",
		"libuuid1", "libzstd1", "zlib1g")
}

// systemLibraries are what programs and extension modules of functions need, as patterns of names below
// usr/lib/<architecture>. Each is the library of an AL2023 package that AWS's base images have; what the programs of
// systemPackages need comes too.
func systemLibraries() []string {
	return []string{
		"ld-linux*", "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1", "libresolv.so.2",
		"libanl.so.1", "libnss_dns.so.2", "libnss_files.so.2",
		"libgcc_s.so.1", "libstdc++.so.6", "libgomp.so.1",
		"libz.so.1", "libbz2.so.1.0", "liblzma.so.5", "libzstd.so.1", "liblz4.so.1",
		"libssl.so.*", "libcrypto.so.*", "libcrypt.so.?", "libffi.so.?", "libexpat.so.1", "libuuid.so.1", "libsqlite3.so.0",
		"libncursesw.so.6", "libpanelw.so.6", "libtinfo.so.6", "libreadline.so.8",
		// What iconv needs for encodings that are not Unicode's: those that AL2023 has without its package of all of them.
		"gconv/gconv-modules", "gconv/ISO8859-1.so", "gconv/ISO8859-15.so", "gconv/CP1252.so", "gconv/UTF-7.so", "gconv/UTF-16.so",
		"gconv/UTF-32.so",
	}
}

// unusedPrograms are programs of systemPackages that a function cannot use: they need root or a terminal, are for
// reporting bugs, or change what the image is.
func unusedPrograms() []string {
	return []string{"bashbug", "localedef", "pldd", "tzselect", "zdump", "catchsegv", "rbash", "ld.so", "iconvconfig",
		"tarcat", "gawkbug", "clear_console", "md5sum.textutils", "chcon", "runcon", "pinky"}
}

const (
	// AWS: functions run as this user, and his group has no name.
	passwd = "root:x:0:0:root:/root:/bin/bash\nsbx_user1051:x:993:990::/home/sbx_user1051:/sbin/nologin\n" +
		"nobody:x:65534:65534:nobody:/:/sbin/nologin\n"
	group = "root:x:0:\nnogroup:x:65534:\n"
	// nsswitch makes the C library ask /etc/hosts before DNS.
	nsswitch = "passwd: files\ngroup: files\nhosts: files dns\n"
	caBundle = "/etc/ssl/certs/ca-certificates.crt"
)

// buildSystem makes the layer that all bases share.
func (b *Builder) buildSystem(ctx context.Context, scratch string, _ *Base) (v1.Image, error) {
	apt, err := b.aptTools()
	if err != nil {
		return nil, err
	}
	graph, err := apt.Dependencies(ctx, systemRoots()...)
	if err != nil {
		return nil, err
	}
	// Of Python's library only what it depends on is wanted here.
	names := graph.Closure(func(name string) bool {
		return (strings.HasPrefix(name, "lib") || strings.HasPrefix(name, "zlib")) && name != "libc-bin"
	}, systemRoots()...)
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, "libpython3") })
	unpacked, versions, err := b.download(ctx, scratch, append(names, "ca-certificates", "tzdata"))
	if err != nil {
		return nil, err
	}
	root := filepath.Join(scratch, "root")
	if err := errors.Join(
		copyPrograms(unpacked, root),
		copyTimeZones(unpacked, root),
		writeCABundle(unpacked, root),
		writeFile(root, "etc/passwd", []byte(passwd)),
		writeFile(root, "etc/group", []byte(group)),
		writeFile(root, "etc/nsswitch.conf", []byte(nsswitch)),
		copyFile("/etc/os-release", filepath.Join(root, "etc/os-release")),
		link(root, "lib", "usr/lib"),
		link(root, "lib64", "usr/lib64"),
		link(root, "bin", "usr/bin"),
		link(root, "sbin", "usr/sbin"),
		// AL2023's sh is bash, and scripts rely on it.
		link(root, "usr/bin/sh", "bash"),
		link(root, "usr/bin/awk", "gawk"),
		// The places of certificates: OpenSSL's on Debian, and those of Amazon Linux, which functions name.
		link(root, "usr/lib/ssl/certs", "/etc/ssl/certs"),
		link(root, "usr/lib/ssl/cert.pem", caBundle),
		link(root, "etc/ssl/cert.pem", caBundle),
		link(root, "etc/pki/tls/cert.pem", caBundle),
		link(root, "etc/pki/tls/certs/ca-bundle.crt", caBundle),
		link(root, "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", caBundle),
		os.MkdirAll(filepath.Join(root, "usr/lib64"), 0o755),
		os.MkdirAll(filepath.Join(root, "usr/sbin"), 0o755),
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

// copyPrograms copies the programs of systemPackages, systemLibraries, and what both need.
func copyPrograms(unpacked, root string) error {
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
	libraries := map[string]string{} // name below dir to file
	var files []string
	for _, pattern := range systemLibraries() {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(found) == 0 {
			return errors.Join(err, fmt.Errorf("the packages of the system layer have no %s", pattern))
		}
		for _, file := range found {
			name := strings.TrimPrefix(file, dir+"/")
			libraries[name] = file
			if strings.Contains(name, ".so") {
				files = append(files, file)
			}
		}
	}
	programs, err := copyUsrBin(unpacked, root)
	if err != nil {
		return err
	}
	needed, err := debian.Libraries(unpacked, nil, append(files, programs...)...)
	if err != nil {
		return err
	}
	maps.Copy(libraries, needed)
	for name, file := range libraries {
		if err := copyFile(file, filepath.Join(root, "usr/lib", filepath.Base(dir), name)); err != nil {
			return err
		}
	}
	return nil
}

// copyUsrBin copies the programs and returns those that are binaries.
func copyUsrBin(unpacked, root string) (binaries []string, err error) {
	entries, err := os.ReadDir(filepath.Join(unpacked, "usr/bin"))
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if slices.Contains(unusedPrograms(), entry.Name()) {
			continue
		}
		from, to := filepath.Join(unpacked, "usr/bin", entry.Name()), filepath.Join(root, "usr/bin", entry.Name())
		if entry.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(from)
			if err != nil {
				return nil, err
			}
			if err := link(root, "usr/bin/"+entry.Name(), target); err != nil {
				return nil, err
			}
			continue
		}
		if _, err := debian.Loader(from); err == nil {
			binaries = append(binaries, from)
		}
		if err := copyFile(from, to); err != nil {
			return nil, err
		}
	}
	return binaries, nil
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

package runtimes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/edge-serverless-box/esb/functions/imagebuild"
	"github.com/edge-serverless-box/esb/functions/runtimes/debian"
)

// pinnedBoto3 is boto3 of Debian 13, for machines whose release has one that is too old. It is Python alone and runs on
// Python 3.8 and newer; what it needs comes from the machine's own release.
func pinnedBoto3() []debian.Pinned {
	return []debian.Pinned{
		{Path: "pool/main/p/python-boto3/python3-boto3_1.37.9-1_all.deb",
			SHA256: "075544512aa3ef06ece5c5d4138a6ce1454e27cc2de7b20f1482f030a786e1b0"},
		{Path: "pool/main/p/python-botocore/python3-botocore_1.37.9+repack-1_all.deb",
			SHA256: "ca7193ec8ab83f071c18c872f3cbde43b968251342de919915a8f56b2253683b"},
		{Path: "pool/main/p/python-s3transfer/python3-s3transfer_0.11.4-1_all.deb",
			SHA256: "485ad1216593bdc736009435035a5ae97740e72ecbe6198ee59bd35f73874998"},
	}
}

// oldestBotocore is the first that reads AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_S3 (botocore's changes, 1.31.0): an older
// one would ask AWS in place of this box.
const oldestBotocore = "1.31"

// buildBoto3 makes the layer with boto3 and what it needs, in /var/runtime, where AWS's python3.11 has it.
func (b *Builder) buildBoto3(ctx context.Context, scratch string, python *Base) (*imagebuild.Tree, string, error) {
	debs, unpacked := filepath.Join(scratch, "work", "boto3-debs"), filepath.Join(scratch, "work", "boto3")
	if err := errors.Join(os.MkdirAll(debs, 0o755), os.MkdirAll(unpacked, 0o755)); err != nil {
		return nil, "", err
	}
	files, err := b.downloadBoto3(ctx, debs)
	if err != nil {
		return nil, "", err
	}
	versions, err := unpack(ctx, unpacked, files)
	if err != nil {
		return nil, "", err
	}
	packages := filepath.Join(unpacked, "usr/lib/python3/dist-packages")
	botocore := filepath.Join(packages, "botocore")
	script := filepath.Join(scratch, "work", "slim_models.py")
	b.log.Info("packing boto3", "packages", versions)
	if err := errors.Join(
		os.WriteFile(script, slimModels, 0o600),
		python.python(ctx, script, filepath.Join(botocore, "data")),
		withoutRequests(botocore),
		// Texts for help(), and what would be compiled for another Python.
		removeUnused(packages, []string{"boto3/examples", "*/__pycache__"}),
		removeCompiled(packages),
		python.compile(ctx, packages, "/var/runtime"),
	); err != nil {
		return nil, "", err
	}
	tree := imagebuild.NewTree()
	return tree, versions, tree.AddTree("/var/runtime", packages)
}

// downloadBoto3 fetches boto3 of this machine's release, or the pinned one, and what it needs.
func (b *Builder) downloadBoto3(ctx context.Context, debs string) ([]string, error) {
	apt, err := b.aptTools()
	if err != nil {
		return nil, err
	}
	own := []string{"python3-boto3", "python3-botocore", "python3-s3transfer"}
	needed := []string{"python3-jmespath", "python3-dateutil", "python3-urllib3", "python3-six"}
	version, err := apt.Version(ctx, "python3-botocore")
	if err != nil {
		return nil, err
	}
	if olderThan(version, oldestBotocore) {
		_, err := apt.DownloadPinned(ctx, debs, "python3-botocore", pinnedBoto3()...)
		switch {
		case err == nil:
			own = nil
		case ctx.Err() != nil:
			return nil, err
		default:
			// The mirror may not have that release any more, or be another distribution's.
			b.log.Warn("the pinned boto3 cannot be had: this release's own is taken, which does not follow AWS_ENDPOINT_URL_*",
				"version", version, "error", err.Error())
		}
	}
	return apt.Download(ctx, debs, append(own, needed...)...)
}

// olderThan compares the leading numbers of two versions.
func olderThan(version, than string) bool {
	have, want := strings.Split(version, "."), strings.Split(than, ".")
	for i := range want {
		if i >= len(have) {
			return true
		}
		a, _ := strconv.Atoi(have[i])
		b, _ := strconv.Atoi(want[i])
		if a != b {
			return a < b
		}
	}
	return false
}

// withoutRequests gives botocore, as Debian packages it, its own copy of the errors of requests back, which the original
// has in the same place: botocore.vendored.
func withoutRequests(botocore string) error {
	file := filepath.Join(botocore, "exceptions.py")
	source, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	debians := []byte("import requests\nfrom requests.packages import urllib3\n")
	if !bytes.Contains(source, debians) {
		if bytes.Contains(source, []byte("botocore.vendored")) {
			return nil
		}
		return fmt.Errorf("%s imports requests in a way that is not known here", file)
	}
	source = bytes.Replace(source, debians,
		[]byte("from botocore.vendored import requests\nfrom botocore.vendored.requests.packages import urllib3\n"), 1)
	vendored := filepath.Join(botocore, "vendored")
	return errors.Join(
		os.WriteFile(file, source, 0o644),
		writeFile(vendored, "__init__.py", nil),
		writeFile(vendored, "requests/__init__.py", []byte("from . import exceptions\nfrom .exceptions import *\n")),
		writeFile(vendored, "requests/exceptions.py", requestsErrors),
		writeFile(vendored, "requests/packages/__init__.py", []byte("import urllib3\n")),
	)
}

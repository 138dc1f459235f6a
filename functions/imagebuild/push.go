package imagebuild

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// ErrCredentials says that a registry wants other credentials, or any.
var ErrCredentials = errors.New("the registry asks for a user and password")

// PushOptions say how a registry is spoken to.
type PushOptions struct {
	// Insecure: plain HTTP is fine, also for a host that is neither loopback nor private.
	Insecure bool
	// User and Password for the registry. No user: those of `docker login` are taken.
	User, Password string
}

// Push writes an image to the registry that ref names. Registries on loopback and private addresses are spoken to over
// plain HTTP when TLS fails, all others only when that is asked for.
func Push(ctx context.Context, ref string, img v1.Image, o PushOptions) error {
	var options []name.Option
	if o.Insecure {
		options = append(options, name.Insecure)
	}
	parsed, err := name.ParseReference(ref, options...)
	if err != nil {
		return fmt.Errorf("push: image name %q: must be host[:port]/name[:tag]: %w", ref, err)
	}
	auth := remote.WithAuthFromKeychain(authn.DefaultKeychain)
	if o.User != "" {
		auth = remote.WithAuth(&authn.Basic{Username: o.User, Password: o.Password})
	}
	err = remote.Write(parsed, img, remote.WithContext(ctx), auth)
	var refused *transport.Error
	if errors.As(err, &refused) && (refused.StatusCode == http.StatusUnauthorized || refused.StatusCode == http.StatusForbidden) {
		return fmt.Errorf("push %s: %w: %w", ref, ErrCredentials, err)
	}
	if err != nil {
		return fmt.Errorf("push %s: %w", ref, err)
	}
	return nil
}

package images

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"

	"github.com/edge-serverless-box/esb/guard/secretfile"
)

// dialTimeout bounds how long a registry may take to answer at all: a request is waiting for the image.
const dialTimeout = 5 * time.Second

// dockerHub is docker.io's key in config.json.
const dockerHub = "https://index.docker.io/v1/"

// credentialSource says where the credentials for registries are.
type credentialSource struct {
	// config is the path of a Docker config.json, or "".
	config string
	// registry is the box's own, which has a user of its own where that is not "", with a password or a file that has it.
	registry, user, password, passwordFile string
}

// read reads all credentials.
func (s credentialSource) read() (credentials, error) {
	creds, err := readCredentials(s.config)
	if err != nil || s.user == "" {
		return creds, err
	}
	password := s.password
	if password == "" && s.passwordFile != "" {
		if password, err = secretfile.Read(s.passwordFile); err != nil {
			return nil, fmt.Errorf("ESB_REGISTRY_PASSWORD_FILE: %w", err)
		}
	}
	if creds == nil {
		creds = credentials{}
	}
	creds[s.registry] = [2]string{s.user, password}
	return creds, nil
}

// newRegistryClient returns what speaks to all registries.
func newRegistryClient() *http.Client {
	transport := docker.DefaultHTTPTransport(nil)
	transport.DialContext = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext
	return &http.Client{Transport: transport}
}

// newResolver returns what finds images in registries, with credentials that are read anew, so that new ones need no
// restart.
func newResolver(client *http.Client, plainHTTP []string, source credentialSource) (remotes.Resolver, error) {
	creds, err := source.read()
	if err != nil {
		return nil, err
	}
	plain := func(host string) (bool, error) {
		if slices.Contains(plainHTTP, host) {
			return true, nil
		}
		return docker.MatchLocalhost(host)
	}
	authorizer := docker.NewDockerAuthorizer(docker.WithAuthClient(client), docker.WithAuthCreds(creds.find))
	return docker.NewResolver(docker.ResolverOptions{
		Hosts: docker.ConfigureDefaultRegistries(docker.WithClient(client), docker.WithPlainHTTP(plain), docker.WithAuthorizer(authorizer)),
	}), nil
}

// credentials are user and password by registry host.
type credentials map[string][2]string

func (c credentials) find(host string) (user, password string, err error) {
	if host == "registry-1.docker.io" {
		host = "docker.io"
	}
	return c[host][0], c[host][1], nil
}

// readCredentials reads a Docker config.json (docker login writes it). An empty name means no credentials.
func readCredentials(file string) (credentials, error) {
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("REGISTRY_CONFIG: %w", err)
	}
	var config struct {
		Auths map[string]struct {
			Auth, Username, Password, IdentityToken string
		}
	}
	if err := json.Unmarshal(b, &config); err != nil {
		return nil, fmt.Errorf("REGISTRY_CONFIG: %s: %w", file, err)
	}
	creds := credentials{}
	for key, a := range config.Auths {
		host := registryKey(key)
		user, password := a.Username, a.Password
		switch {
		case a.IdentityToken != "":
			user, password = "", a.IdentityToken
		case a.Auth != "":
			plain, err := base64.StdEncoding.DecodeString(a.Auth)
			if err != nil {
				return nil, fmt.Errorf("REGISTRY_CONFIG: %s: auths.%s.auth is not base64: %w", file, key, err)
			}
			user, password, _ = strings.Cut(string(plain), ":")
		case user == "":
			return nil, fmt.Errorf("REGISTRY_CONFIG: %s: auths.%s has no credentials in it: credential helpers are not supported, use \"auth\"", file, key)
		}
		creds[host] = [2]string{user, password}
	}
	return creds, nil
}

// registryKey turns a key of config.json, which may be a URL, into a host.
func registryKey(key string) string {
	if key == dockerHub {
		return "docker.io"
	}
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, _, _ := strings.Cut(key, "/")
	return host
}

// pullProblem says in words why an image could not be had from its registry.
func pullProblem(err error) string {
	var status remoteerrors.ErrUnexpectedStatus
	var network net.Error
	switch {
	case errdefs.IsNotFound(err):
		return "the registry does not have it"
	case errors.As(err, &status) && (status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden),
		errors.Is(err, docker.ErrInvalidAuthorization):
		return "the registry refused the credentials (REGISTRY_CONFIG, ESB_REGISTRY_USER)"
	case errors.As(err, &status):
		return "the registry answered " + status.Status
	case errors.As(err, &network):
		return "the registry cannot be reached"
	}
	return "the pull failed"
}

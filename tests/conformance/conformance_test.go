package conformance

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/issuer"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// TestConformance runs every case against one box and prints the table, also to .esb/conformance.txt of the repository. With
// -run TestConformance/1/some-case the rows that other cases show are not missed.
func TestConformance(t *testing.T) {
	rows, err := loadRows("rows.yml")
	require.NoError(t, err)
	cases, err := loadCases("cases", rows, kinds)
	require.NoError(t, err)
	box := mustBox(t)
	// One profile after the other: each is a reload.
	slices.SortStableFunc(cases, func(a, b *Case) int {
		return strings.Compare(order(a.Profile), order(b.Profile))
	})
	var outcomes []outcome
	profile := DefaultProfile
	for _, c := range cases {
		t.Run(c.Section+"/"+c.Name, func(t *testing.T) {
			if c.Profile != profile {
				mustUse(t, box, c.Profile)
				profile = c.Profile
			}
			failures, err := kinds[c.Kind](t.Context(), box, c)
			if err != nil {
				failures = append(failures, err.Error())
			}
			outcomes = append(outcomes, outcome{c, failures})
			for _, f := range failures {
				t.Error(f)
			}
		})
	}
	text, bad := report(rows, outcomes)
	fmt.Print("\n", text)
	if len(outcomes) < len(cases) {
		return // some were selected
	}
	root, err := stack.RepositoryRoot()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(root, ".esb", "conformance.txt"), []byte(text), 0o644))
	for _, b := range bad {
		t.Error(b)
	}
}

// order puts the default profile, which the box starts with, first.
func order(profile string) string {
	if profile == DefaultProfile {
		return ""
	}
	return profile
}

// mustBox starts the box that all cases share.
func mustBox(t *testing.T) *Box {
	t.Helper()
	require.Zero(t, os.Getuid(), "the box starts containers: run this as root")
	home := t.TempDir()
	config := filepath.Join(home, "config")
	require.NoError(t, os.MkdirAll(config, 0o755))
	for _, name := range []string{"functions.yml", "resources.yml"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(config, name), data, 0o644))
	}
	require.NoError(t, addProbe(config))
	archives, err := probeImages(config)
	require.NoError(t, err)
	for _, folder := range []string{"python", "runtimes", "logging"} {
		require.NoError(t, os.CopyFS(filepath.Join(config, folder), os.DirFS(filepath.Join("testdata", folder))))
	}
	b := &Box{}
	require.NoError(t, setRouting(config, DefaultProfile, nil))
	s, err := stack.Prepare(home, stack.Options{
		FunctionsConfig: filepath.Join(config, "functions.yml"),
		RoutingConfig:   filepath.Join(config, "routing.yml"),
		ResourcesConfig: filepath.Join(config, "resources.yml"),
		Images:          archives,
		// Seconds in place of minutes.
		Env: []string{"ASYNC_RETRY_BASE_SECONDS=1"},
	})
	require.NoError(t, err)
	b.Stack = s
	t.Cleanup(func() {
		if err := s.Down(); err != nil {
			t.Error(err)
		}
	})
	require.NoError(t, s.Up(t.Context()))
	b.Vars, err = variables(t.Context(), s)
	require.NoError(t, err)
	idp, err := issuer.Open()
	require.NoError(t, err)
	t.Cleanup(idp.Stop)
	more, err := credentials(t.Context(), s, b.Vars["token"], idp)
	require.NoError(t, err)
	maps.Copy(b.Vars, more)
	return b
}

// variables are what cases can name.
func variables(ctx context.Context, s *stack.Stack) (map[string]string, error) {
	token, err := s.Token(ctx)
	if err != nil {
		return nil, err
	}
	host := strings.TrimPrefix(s.HTTPURL, "http://")
	return map[string]string{
		"token":      token,
		"api_key":    stack.APIKey,
		"user":       stack.User,
		"host":       host,
		"port":       host[strings.LastIndexByte(host, ':')+1:],
		"https_port": s.HTTPSURL[strings.LastIndexByte(s.HTTPSURL, ':')+1:],
		"source_ip":  "127.0.0.1",
	}, nil
}

// mustUse gives the box another routing file. The functions stay, and so do their warm containers.
func mustUse(t *testing.T, b *Box, profile string) {
	t.Helper()
	require.NoError(t, setRouting(filepath.Join(b.Home, "config"), profile, b.Vars))
	answer, err := b.reload(t.Context())
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, answer.Status, "%s", bytes.TrimSpace(answer.Body))
}

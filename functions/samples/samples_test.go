package samples

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/functions/imagebuild"
)

func TestBuild_GoSample_BuiltOnceAndAgainWhenBroken(t *testing.T) {
	var log bytes.Buffer
	out := filepath.Join(t.TempDir(), "images")
	b := &Builder{Source: "..", Out: out, Log: slog.New(slog.NewTextHandler(&log, nil))}
	archive := filepath.Join(out, "lambda-event.tar")
	build := func() (content []byte, said string) {
		t.Helper()
		log.Reset()
		require.NoError(t, b.Build(context.Background(), "lambda-event"))
		content, err := os.ReadFile(archive)
		require.NoError(t, err)
		return content, log.String()
	}
	first, said := build()
	assert.Contains(t, said, "built")
	opened, err := imagebuild.OpenArchive(archive)
	require.NoError(t, err)
	defer func() { _ = opened.Close() }()
	settings, err := opened.ConfigFile()
	require.NoError(t, err)
	assert.Equal(t, []string{"/var/task/bootstrap"}, settings.Config.Entrypoint)
	annotations, err := imagebuild.Annotations(archive)
	require.NoError(t, err)
	assert.Equal(t, "esb/lambda-event:latest", annotations[imagebuild.AnnotationImageName])

	_, said = build()
	assert.Contains(t, said, "up to date")
	assert.NotContains(t, said, "built")

	for _, broken := range [][]byte{[]byte("cut"), first[:len(first)/2]} {
		require.NoError(t, os.WriteFile(archive, broken, 0o600))
		again, said := build()
		assert.Contains(t, said, "built")
		assert.True(t, bytes.Equal(first, again), "the same input gives the same bytes")
	}
}

func TestBuild_BadInput(t *testing.T) {
	b := &Builder{Source: t.TempDir(), Out: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	assert.ErrorContains(t, b.Build(context.Background(), "lambda-nothere"), `no sample function "lambda-nothere"`)
	assert.ErrorContains(t, b.Build(context.Background()), "give it with -src")
	b.Source = ".."
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	assert.ErrorIs(t, b.Build(ctx, "lambda-event"), context.Canceled)
	entries, err := os.ReadDir(b.Out)
	require.NoError(t, err)
	assert.Empty(t, entries)
}

package stack

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/native"
)

func TestStartEarly_StoresAreNotBuilt_ServesWithoutThemAndIsLeftAloneAfterwards(t *testing.T) {
	b := mustOpen(t)
	b.play("lacks stores")
	assert.True(t, b.idle())
	var st starts
	require.NoError(t, b.startEarly(t.Context(), &st), b.out)
	assert.False(t, b.idle())
	early := b.pids(t)
	assert.Contains(t, b.out.String(), "serves already what needs no store, at "+b.urls()[0])
	require.Error(t, b.serves(t.Context(), native.Gateway), "from then on the stores are missed")

	require.NoError(t, os.WriteFile(filepath.Join(b.settings.Home, "stores"), nil, 0o600))
	require.NoError(t, b.begin(t.Context(), &st, b.services()), b.out)
	assert.Equal(t, early, b.pids(t))
}

func TestStartEarly_WhatFollowsFails_IsTakenBack(t *testing.T) {
	b := mustOpen(t)
	b.play("lacks stores")
	var st starts
	require.NoError(t, b.startEarly(t.Context(), &st), b.out)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, b.takeBack(ended, &st), b.out)
	assert.Equal(t, [2]int{}, b.pids(t))
	assert.FileExists(t, filepath.Join(b.settings.Home, "purged"), "the agent's network must go too")
	require.NoError(t, b.takeBack(t.Context(), &st), "nothing is left to take back")
}

func TestMake_ProgramsDoNotCompile_NothingIsStarted(t *testing.T) {
	b := mustOpen(t)
	var st starts
	// The folder is no repository: there is nothing to build from.
	require.ErrorContains(t, b.make(t.Context(), &st), "build agent")
	assert.Equal(t, [2]int{}, b.pids(t))
	require.ErrorContains(t, b.Build(t.Context(), "nonsense"), `nothing is called "nonsense" here: build services, runtime, stores, inspect`)
}

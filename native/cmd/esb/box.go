package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/edge-serverless-box/esb/native/console"
	"github.com/edge-serverless-box/esb/native/release"
	"github.com/edge-serverless-box/esb/native/settings"
	"github.com/edge-serverless-box/esb/native/stack"
)

// open finds the box that a command is about: that of the installation which this program belongs to, else that of a working copy, around
// the folder root or the current one. All commands but those that start it take the settings that it was started with, where it is up.
func open(command, root string, environ []string, out io.Writer) (settings.Settings, *stack.Stack, error) {
	if root == "" {
		program, err := os.Executable()
		if err != nil {
			return settings.Settings{}, nil, fmt.Errorf("find this program: %w", err)
		}
		if layout, ok := release.Of(program); ok {
			return openInstalled(command, layout, environ, out)
		}
		root = "."
	}
	root, err := settings.FindRoot(root)
	if err != nil {
		return settings.Settings{}, nil, err
	}
	s, err := load(command, root, func(name string) string { return lookup(environ, name) })
	return s, stack.New(s, environ, console.New(out)), err
}

// openInstalled finds the box of an installation.
func openInstalled(command string, layout release.Layout, environ []string, out io.Writer) (settings.Settings, *stack.Stack, error) {
	environ, err := layout.Environ(environ)
	if err != nil {
		return settings.Settings{}, nil, err
	}
	s, err := load(command, layout.Current(), layout.Getenv(environ))
	return s, stack.New(s, environ, console.New(out)).Installed(layout), err
}

// load reads the settings.
func load(command, root string, getenv func(string) string) (settings.Settings, error) {
	s, err := settings.Load(getenv, root)
	if err != nil {
		return settings.Settings{}, fmt.Errorf("settings:\n%w", err)
	}
	if command == "up" || command == "run" || command == "build" || command == "fit" {
		return s, nil
	}
	record, err := stack.Recorded(s.Home)
	if command == "doctor" && record == nil {
		err = nil // it says so itself
	}
	if err != nil || record == nil {
		return s, err
	}
	s, err = settings.Load(func(name string) string {
		if value, ok := record[name]; ok {
			return value
		}
		return getenv(name)
	}, root)
	if err != nil {
		return settings.Settings{}, fmt.Errorf("settings of the running stack:\n%w", err)
	}
	return s, nil
}

// lookup is os.Getenv for an environment.
func lookup(environ []string, name string) string {
	value := ""
	for _, v := range environ {
		if n, found, ok := strings.Cut(v, "="); ok && n == name {
			value = found
		}
	}
	return value
}

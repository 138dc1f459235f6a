package app

import (
	"errors"

	"github.com/edge-serverless-box/esb/gateway/config"
)

// ErrBroken is the error of a part that Break breaks.
var ErrBroken = errors.New("broken by a test")

// Parts are the names of what a configuration is for.
func (a *App) Parts() []string {
	names := make([]string, len(a.parts))
	for i, p := range a.parts {
		names[i] = p.name
	}
	return names
}

// LeaveOut has the next configurations compile part i, and not swap it.
func (a *App) LeaveOut(i int) {
	compile := a.parts[i].compile
	a.parts[i].compile = func(cfg *config.Config) (func(), error) {
		_, err := compile(cfg)
		return func() {}, err
	}
}

// Break has the next configurations fail when all parts up to i are compiled, but for the last, which is then not. It returns
// what mends that.
func (a *App) Break(i int) (mend func()) {
	compile := a.parts[i].compile
	a.parts[i].compile = func(cfg *config.Config) (func(), error) {
		if i == len(a.parts)-1 {
			return nil, ErrBroken
		}
		_, err := compile(cfg)
		return nil, errors.Join(err, ErrBroken)
	}
	return func() { a.parts[i].compile = compile }
}

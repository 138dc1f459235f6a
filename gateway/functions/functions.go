// Package functions knows the current functions by name.
package functions

import (
	"sync/atomic"

	"github.com/edge-serverless-box/esb/gateway"
)

// Registry holds the functions of the current configuration. Its zero value has none. It is safe for concurrent use.
type Registry struct {
	current atomic.Pointer[map[string]*gateway.Function]
}

// Set replaces all functions at once. The map must not be changed any more.
func (r *Registry) Set(functions map[string]*gateway.Function) { r.current.Store(&functions) }

// Function returns the function with that name, if there is one.
func (r *Registry) Function(name string) (*gateway.Function, bool) {
	fn, ok := r.All()[name]
	return fn, ok
}

// All returns the functions by name. Nobody may change the map.
func (r *Registry) All() map[string]*gateway.Function {
	if p := r.current.Load(); p != nil {
		return *p
	}
	return nil
}

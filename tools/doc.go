// Package tools has no code: the module pins the tools that build and check the box.
package tools

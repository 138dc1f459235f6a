// Package getter stands in for github.com/hashicorp/go-getter when Task is compiled (the replace line of ../go.mod). Task fetches Taskfiles
// of other repositories with it, which nothing here has, and with it come the clients of two clouds: 600 packages, more to compile
// than the box's gateway and agent together.
package getter

import (
	"context"
	"errors"
)

// ClientMode says what is fetched.
type ClientMode uint

// ClientModeDir fetches a folder.
const ClientModeDir ClientMode = 2

// Client has those fields of go-getter's that Task sets.
type Client struct {
	// Ctx ends the fetching.
	Ctx context.Context //nolint:containedctx // as go-getter has it
	// Src is what is fetched, Dst the folder that it goes to.
	Src, Dst string
	Mode     ClientMode
}

// Get fetches nothing: its error says so.
func (c *Client) Get() error {
	return errors.New("this Task fetches no Taskfiles of other repositories: get " + c.Src + " yourself and include it as a file")
}

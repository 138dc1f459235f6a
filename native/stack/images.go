package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/agentclient"
)

// imagesTimeout bounds the listing and the removal of images: what is removed is taken off the disk.
const imagesTimeout = 2 * time.Minute

// Images prints the images that the agent has.
func (s *Stack) Images(ctx context.Context, w io.Writer, asJSON bool) error {
	return s.askAgent(ctx, func(ctx context.Context, client *agentclient.Client) error {
		images, bytes, err := client.Images(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			encoder := json.NewEncoder(w)
			encoder.SetIndent("", "  ")
			return encoder.Encode(struct {
				Images []native.Image `json:"images"`
				Bytes  int64          `json:"bytes"`
			}{images, bytes})
		}
		return printImages(w, images, bytes, time.Now())
	})
}

func printImages(w io.Writer, images []native.Image, bytes int64, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(t, "IMAGE\tDIGEST\tSIZE\tUSED\tFROM\n")
	for _, i := range images {
		used, from := since(i.Used, now)+" ago", "registry"
		if i.InUse {
			used = "now"
		}
		if i.Archive != "" {
			from = filepath.Base(i.Archive)
		}
		_, _ = fmt.Fprintf(t, "%s\t%.19s\t%s\t%s\t%s\n", i.Name, i.Digest, megabytes(i.Bytes), used, from)
	}
	_, _ = fmt.Fprintf(t, "%d images, together\t\t%s\t\t\n", len(images), megabytes(bytes))
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print the images: %w", err)
	}
	return nil
}

func megabytes(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }

// RemoveImages removes images that nothing uses: those that are named, or all that nothing has used for so long; archives says whether
// their archives go, too.
func (s *Stack) RemoveImages(ctx context.Context, names []string, unusedFor time.Duration, archives bool) error {
	return s.askAgent(ctx, func(ctx context.Context, client *agentclient.Client) error {
		removed, err := client.RemoveImages(ctx, names, unusedFor, archives)
		if err != nil {
			return err
		}
		for _, name := range removed {
			s.console.Printf("removed %s", name)
		}
		if len(removed) == 0 {
			s.console.Printf("nothing is unused")
		}
		return nil
	})
}

// askAgent asks the agent that runs.
func (s *Stack) askAgent(ctx context.Context, ask func(context.Context, *agentclient.Client) error) error {
	if _, alive, err := s.running(native.Agent); err != nil || !alive {
		if err == nil {
			err = &native.Problem{What: "the box is down: its agent knows the images", Do: "Run `esb up` first."}
		}
		return err
	}
	client, err := agentclient.Dial(s.settings)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(ctx, imagesTimeout)
	defer cancel()
	return ask(ctx, client)
}

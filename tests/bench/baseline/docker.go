package baseline

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"time"
)

// Docker is "docker run" of the same image.
type Docker struct {
	tag   string
	event []byte
}

// OpenDocker loads an image into the Docker of this machine. It fails where no daemon runs.
func OpenDocker(ctx context.Context, archive, tag string, event []byte) (*Docker, error) {
	for _, args := range [][]string{{"version"}, {"load", "-q", "-i", archive}} {
		if out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput(); err != nil {
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			return nil, fmt.Errorf("docker %s: %w: %s", args[0], err, lines[len(lines)-1])
		}
	}
	return &Docker{tag: tag, event: event}, nil
}

// Start is "docker run --detach", from its start to its end; the container has answered nothing yet. Then it is asked, and its answer
// returned, and what ends the container.
func (d *Docker) Start(ctx context.Context) (answer []byte, took time.Duration, end func() error, err error) {
	began := time.Now()
	out, err := exec.CommandContext(ctx, "docker", "run", "--detach", "--rm", d.tag).Output()
	if err != nil {
		return nil, 0, nil, fmt.Errorf("docker run: %w", err)
	}
	took = time.Since(began)
	id := strings.TrimSpace(string(out))
	end = func() error {
		return exec.CommandContext(context.WithoutCancel(ctx), "docker", "rm", "--force", id).Run()
	}
	address, err := exec.CommandContext(ctx, "docker", "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", id).Output()
	if err == nil {
		answer, err = firstAnswer(ctx, net.JoinHostPort(strings.TrimSpace(string(address)), riePort), d.event, (&net.Dialer{Timeout: answerLimit}).DialContext)
	}
	if err != nil {
		_ = end()
		return nil, 0, nil, err
	}
	return answer, took, end, nil
}

// Close removes the image.
func (d *Docker) Close(ctx context.Context) error {
	return exec.CommandContext(ctx, "docker", "rmi", "--force", d.tag).Run()
}

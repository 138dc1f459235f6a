package baseline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/edge-serverless-box/esb/tests/stack"
)

// namespace is the baseline's own in the box's containerd.
const namespace = "esb-bench"

// riePort is where the image's Runtime Interface Emulator listens.
const riePort = "8080"

// Containerd makes containers as a program does that uses containerd's client and nothing else: the client's own spec, a snapshot, a
// task, with or without the network of CNI's plugins. It uses the containerd, shim and runc of the box, in a namespace of its own.
type Containerd struct {
	client *client.Client
	image  client.Image
	event  []byte
	count  atomic.Int64
	// Network is that of the containers to come; nil for none but loopback.
	Network *CNI
}

// OpenContainerd imports an image from an archive, with a program that behaves as RIE does, which is sent event. Close ends it.
func OpenContainerd(ctx context.Context, socket, archive string, event []byte) (*Containerd, error) {
	connection, err := client.New(socket, client.WithDefaultNamespace(namespace))
	if err != nil {
		return nil, fmt.Errorf("connect to the box's containerd: %w", err)
	}
	c := &Containerd{client: connection, event: event}
	if err := c.load(namespaces.WithNamespace(ctx, namespace), archive); err != nil {
		return nil, errors.Join(fmt.Errorf("import %s: %w", archive, err), connection.Close())
	}
	return c, nil
}

func (c *Containerd) load(ctx context.Context, archive string) error {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	found, err := c.client.Import(ctx, file, client.WithIndexName("bench/index"))
	if err != nil {
		return err
	}
	for _, one := range found {
		if c.image = client.NewImage(c.client, one); one.Name != "bench/index" {
			break
		}
	}
	if c.image == nil {
		return errors.New("it has no image")
	}
	return c.image.Unpack(ctx, "overlayfs")
}

// Close removes the image and the namespace.
func (c *Containerd) Close(ctx context.Context) error {
	ctx = namespaces.WithNamespace(ctx, namespace)
	list, err := c.client.ListImages(ctx)
	for _, one := range list {
		err = errors.Join(err, c.client.ImageService().Delete(ctx, one.Name()))
	}
	// What is left in it goes when the containerd does, which is the box's.
	return errors.Join(err, c.client.Close())
}

// Container is one that has answered.
type Container struct {
	task      client.Task
	container client.Container
	network   *CNI
	netns     string
	id        string
}

// Start makes a container and returns it when it has answered its first event.
func (c *Containerd) Start(ctx context.Context) (answer []byte, x *Container, err error) {
	ctx = namespaces.WithNamespace(ctx, namespace)
	id := "bench-" + strconv.FormatInt(c.count.Add(1), 10) + "-" + strconv.Itoa(os.Getpid())
	x = &Container{id: id, network: c.Network}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start a container by containerd's client: %w", err), x.Destroy(context.WithoutCancel(ctx)))
		}
	}()
	if x.container, err = c.client.NewContainer(ctx, id, client.WithImage(c.image), client.WithSnapshotter("overlayfs"),
		client.WithNewSnapshot(id, c.image), client.WithNewSpec(oci.WithImageConfig(c.image))); err != nil {
		return nil, x, err
	}
	if x.task, err = x.container.NewTask(ctx, cio.NullIO); err != nil {
		return nil, x, err
	}
	x.netns = filepath.Join("/proc", strconv.Itoa(int(x.task.Pid())), "ns", "net")
	addr, dial := net.JoinHostPort("127.0.0.1", riePort), func(ctx context.Context, _, addr string) (net.Conn, error) {
		return stack.DialInside(ctx, x.netns, addr)
	}
	if x.network != nil {
		ip, err := x.network.add(ctx, id, x.netns)
		if err != nil {
			return nil, x, err
		}
		addr, dial = net.JoinHostPort(ip, riePort), (&net.Dialer{Timeout: answerLimit}).DialContext
	}
	if err := x.task.Start(ctx); err != nil {
		return nil, x, err
	}
	answer, err = firstAnswer(ctx, addr, c.event, dial)
	return answer, x, err
}

// firstAnswer asks as soon as something listens.
func firstAnswer(ctx context.Context, addr string, event []byte, dial func(ctx context.Context, network, addr string) (net.Conn, error)) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	connection, err := dial(ctx, "tcp", addr)
	for ; err != nil; connection, err = dial(ctx, "tcp", addr) {
		select {
		case <-time.After(probePause):
		case <-ctx.Done():
			return nil, fmt.Errorf("nothing listens at %s: %w", addr, err)
		}
	}
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return connection, nil }}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+InvocationPath, bytes.NewReader(event))
	if err != nil {
		return nil, errors.Join(err, connection.Close())
	}
	res, err := transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %d %s", addr, res.StatusCode, body)
	}
	return body, err
}

// Destroy removes it and all that was made for it.
func (x *Container) Destroy(ctx context.Context) error {
	ctx = namespaces.WithNamespace(ctx, namespace)
	var errs []error
	if x.network != nil && x.netns != "" {
		errs = append(errs, x.network.del(ctx, x.id, x.netns))
	}
	if x.task != nil {
		_, err := x.task.Delete(ctx, client.WithProcessKill)
		errs = append(errs, err)
	}
	if x.container != nil {
		errs = append(errs, x.container.Delete(ctx, client.WithSnapshotCleanup))
	}
	return errors.Join(errs...)
}

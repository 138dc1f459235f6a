package agentclient

import (
	"context"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/cpugate"
	"github.com/edge-serverless-box/esb/gateway/pool"
)

// Watch implements pool.Watcher.
func (c *Client) Watch(ctx context.Context, begun func(), ended func(function, workerID string, oom bool), short func(pool.Shortage)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.agent.WatchContainers(ctx, &agentv1.WatchContainersRequest{})
	if err != nil {
		return c.toError(err, "watching containers")
	}
	for {
		event, err := stream.Recv()
		if err != nil {
			return c.toError(err, "watching containers")
		}
		if s := event.GetMemoryShortage(); s != nil {
			short(pool.Shortage{Bytes: s.GetBytes(), Machine: s.GetMachine()})
		} else if id := event.GetContainerId(); id != "" {
			ended(event.GetFunctionName(), id, event.GetOom())
		} else {
			begun()
		}
	}
}

// WatchCPU implements cpugate.Source.
func (c *Client) WatchCPU(ctx context.Context, tell func(cpugate.Load)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.agent.WatchCPU(ctx, &agentv1.WatchCPURequest{})
	if err != nil {
		return c.toError(err, "watching the CPU")
	}
	for {
		l, err := stream.Recv()
		if err != nil {
			return c.toError(err, "watching the CPU")
		}
		tell(cpugate.Load{CPUs: int(l.GetCpus()), Functions: l.GetFunctions(), Runnable: l.GetRunnable()})
	}
}

// ImageVersions returns the digests of the images of functions as the agent has them now, by what imageOf says of each;
// what it does not have is left out.
func (c *Client) ImageVersions(ctx context.Context, images []gateway.ImageReference) (map[gateway.ImageReference]string, error) {
	request := &agentv1.GetImageVersionsRequest{}
	for _, i := range images {
		request.Images = append(request.Images, &agentv1.ImageReference{Image: i.Image, Runtime: i.Runtime, AskRegistry: i.AskRegistry})
	}
	res, err := c.agent.GetImageVersions(ctx, request)
	if err != nil {
		return nil, c.toError(err, "asking for the versions of images")
	}
	versions := make(map[gateway.ImageReference]string, len(images))
	for _, v := range res.GetVersions() {
		if v.GetDigest() != "" {
			ref := v.GetImage()
			versions[gateway.ImageReference{Image: ref.GetImage(), Runtime: ref.GetRuntime(), AskRegistry: ref.GetAskRegistry()}] = v.GetDigest()
		}
	}
	return versions, nil
}

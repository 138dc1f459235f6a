// Package agentclient asks the agent how it is and which containers it has. It is the only package of the native way
// that imports gRPC.
package agentclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/guard/bearer"
	"github.com/edge-serverless-box/esb/guard/setting"
	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/settings"
)

// Client is a connection to one agent.
type Client struct{ conn *grpc.ClientConn }

// Dial prepares a connection to the agent of these settings; it is made with the first call. It goes to the agent's
// socket, or to its port where there is no socket.
func Dial(s settings.Settings) (*Client, error) {
	target, creds := "unix:"+s.AgentSocket, insecure.NewCredentials()
	var options []grpc.DialOption
	if s.AgentSocket == setting.Off {
		target = "passthrough:///" + settings.Reachable(s.AgentAddr)
		if s.AgentTLS.CA != "" {
			config, err := mutualTLS(s.AgentTLS)
			if err != nil {
				return nil, err
			}
			creds = credentials.NewTLS(config)
		} else {
			options = append(options, grpc.WithPerRPCCredentials(bearer.File(s.AgentTokenFile)))
		}
	}
	conn, err := grpc.NewClient(target, append(options, grpc.WithTransportCredentials(creds))...)
	if err != nil {
		return nil, fmt.Errorf("connect to the agent at %s: %w", target, err)
	}
	return &Client{conn: conn}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

func mutualTLS(files settings.TLSFiles) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		return nil, fmt.Errorf("AGENT_TLS_CERT, AGENT_TLS_KEY: %w", err)
	}
	pem, err := os.ReadFile(files.CA)
	if err != nil {
		return nil, fmt.Errorf("AGENT_TLS_CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("AGENT_TLS_CA: no certificate in %s", files.CA)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, RootCAs: pool}, nil
}

// Ready returns nil when the agent and its containerd serve.
func (c *Client) Ready(ctx context.Context) error {
	answer, err := grpc_health_v1.NewHealthClient(c.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return fmt.Errorf("ask the agent for its health: %w", err)
	}
	if answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		return errors.New("the agent says that it is not serving: its containerd is down")
	}
	return nil
}

// Answers returns nil when the agent says anything at all, also that it does not serve, or refuses the question.
func (c *Client) Answers(ctx context.Context) error {
	if _, err := grpc_health_v1.NewHealthClient(c.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil {
		switch status.Code(err) {
		case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
			return fmt.Errorf("ask the agent for its health: %w", err)
		default:
		}
	}
	return nil
}

// Notes are what the agent says to its operator, one sentence each.
func (c *Client) Notes(ctx context.Context) ([]string, error) {
	list, err := agentv1.NewAgentServiceClient(c.conn).ListContainers(ctx, &agentv1.ListContainersRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask the agent for its notes: %w", err)
	}
	return list.GetNotes(), nil
}

// Containers lists the agent's containers with their memory.
func (c *Client) Containers(ctx context.Context) ([]native.Container, error) {
	api := agentv1.NewAgentServiceClient(c.conn)
	list, err := api.ListContainers(ctx, &agentv1.ListContainersRequest{})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	containers := make([]native.Container, 0, len(list.GetContainers()))
	for _, info := range list.GetContainers() {
		container := native.Container{
			ID:       info.GetContainerId(),
			Name:     info.GetContainerName(),
			Function: info.GetFunctionName(),
			Address:  net.JoinHostPort(info.GetIpAddress(), strconv.FormatUint(uint64(info.GetPort()), 10)),
			State:    info.GetStatus().String(),
			Standby:  info.GetStandby(),
			Image:    info.GetImage(),
			Created:  info.GetCreatedAt().AsTime(),
		}
		// A container may end between the two calls; it is listed all the same, without a figure.
		metrics, err := api.GetContainerMetrics(ctx, &agentv1.GetContainerMetricsRequest{ContainerId: container.ID})
		if err == nil {
			container.MemoryBytes = metrics.GetMemoryCurrentBytes()
		}
		containers = append(containers, container)
	}
	return containers, nil
}

// Images lists the images that the agent has, and says how many bytes they take together.
func (c *Client) Images(ctx context.Context) ([]native.Image, int64, error) {
	answer, err := agentv1.NewAgentServiceClient(c.conn).ListImages(ctx, &agentv1.ListImagesRequest{})
	if err != nil {
		return nil, 0, fmt.Errorf("list images: %w", err)
	}
	images := make([]native.Image, 0, len(answer.GetImages()))
	for _, i := range answer.GetImages() {
		images = append(images, native.Image{
			Name: i.GetName(), Digest: i.GetDigest(), Bytes: i.GetBytes(), Used: i.GetUsedAt().AsTime(), InUse: i.GetInUse(), Archive: i.GetArchive(),
		})
	}
	return images, answer.GetBytes(), nil
}

// RemoveImages removes images that nothing uses: those that are named, or all that nothing has used for so long. archives says
// whether their archives go, too. It returns what was removed.
func (c *Client) RemoveImages(ctx context.Context, names []string, unusedFor time.Duration, archives bool) ([]string, error) {
	answer, err := agentv1.NewAgentServiceClient(c.conn).RemoveImages(ctx, &agentv1.RemoveImagesRequest{
		Names: names, UnusedFor: durationpb.New(unusedFor), Archives: archives,
	})
	if err != nil {
		return nil, fmt.Errorf("remove images: %w", err)
	}
	return answer.GetRemoved(), nil
}

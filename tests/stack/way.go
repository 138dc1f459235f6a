package stack

import (
	"context"
	"fmt"
	"net"
	"os"
)

// Way is one of the ways to run the box (docs/system-specification.md 3).
type Way string

// The ways.
const (
	// Native: plain processes, by "esb up".
	Native Way = "native"
	// Compose: docker-compose.yml on the machine's Docker.
	Compose Way = "compose"
	// DinD: docker-compose.dind.yml, the whole box in one container.
	DinD Way = "dind"
)

// ChosenWay reads ESB_E2E_WAY: native (default), compose or dind.
func ChosenWay() (Way, error) {
	switch way := Way(os.Getenv("ESB_E2E_WAY")); way {
	case "":
		return Native, nil
	case Native, Compose, DinD:
		return way, nil
	default:
		return "", fmt.Errorf("ESB_E2E_WAY: must be native, compose or dind, got %q", way)
	}
}

// driver is what differs between the ways.
type driver interface {
	// up starts what is not running and returns when all of it is ready.
	up(ctx context.Context) error
	// down ends the box and removes all that it has made outside of its home.
	down(ctx context.Context) error
	// gatewayFile reads a file of the folder in which the gateway keeps its state.
	gatewayFile(ctx context.Context, name string) ([]byte, error)
	// logsPassword are the credentials of VictoriaLogs; no user means none.
	logsPassword() (user, password string, err error)
	// agentToken is what calls to the agent must bring.
	agentToken(ctx context.Context) (string, error)
	// dial connects to an address of the Stack.
	dial(ctx context.Context, addr string) (net.Conn, error)
}

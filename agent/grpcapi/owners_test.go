package grpcapi

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/agent"
	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
)

// listed is a runtime with some containers, one more of which may be on its way.
type listed struct {
	fakeRuntime
	containers []agent.Container
}

func (l *listed) List(context.Context, string) ([]agent.Container, error) { return l.containers, nil }

func TestOwners_SilenceIsSinceTheLastCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runtime := &listed{containers: []agent.Container{{ID: "mine", Owner: "me"}, {ID: "theirs", Owner: "them"}, {ID: "nobodys"}}}
		s := &service{runtime: runtime, owners: newOwners(), launches: newLaunches()}
		time.Sleep(time.Minute)
		runtime.ensure = func(_ context.Context, spec agent.ContainerSpec) (agent.Container, error) {
			return agent.Container{ID: "c", Owner: spec.Owner}, nil
		}
		_, err := s.EnsureContainer(t.Context(), &agentv1.EnsureContainerRequest{FunctionName: "f", Image: "i", Owner: "them"})
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		list, err := s.ListContainers(t.Context(), &agentv1.ListContainersRequest{Owner: "me"})
		require.NoError(t, err)
		silent := map[string]uint32{}
		for _, c := range list.GetContainers() {
			silent[c.GetOwner()] = c.GetOwnerSilentSeconds()
		}
		assert.Equal(t, map[string]uint32{"me": 0, "them": 10, "": 70}, silent)
	})
}

func TestOwners_AreBounded(t *testing.T) {
	o := newOwners()
	for i := range 3 * maxOwners {
		o.heard(string(rune('a' + i)))
	}
	assert.LessOrEqual(t, len(o.last), maxOwners)
}

func TestList_WaitsForStartsWhoseCallerHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runtime := &listed{}
		undone := make(chan struct{})
		runtime.ensure = func(ctx context.Context, _ agent.ContainerSpec) (agent.Container, error) {
			<-ctx.Done()
			<-undone
			return agent.Container{}, ctx.Err()
		}
		s := &service{runtime: runtime, owners: newOwners(), launches: newLaunches()}
		caller, leave := context.WithCancel(t.Context())
		go func() {
			_, _ = s.EnsureContainer(caller, &agentv1.EnsureContainerRequest{FunctionName: "f", Image: "i"})
		}()
		synctest.Wait()
		list := func() chan struct{} {
			answered := make(chan struct{})
			go func() {
				defer close(answered)
				_, _ = s.ListContainers(t.Context(), &agentv1.ListContainersRequest{})
			}()
			synctest.Wait()
			return answered
		}
		isClosed := func(c chan struct{}) bool {
			select {
			case <-c:
				return true
			default:
				return false
			}
		}
		assert.True(t, isClosed(list()), "a start whose caller waits is nothing to wait for")
		leave()
		synctest.Wait()
		answered := list()
		assert.False(t, isClosed(answered))
		close(undone)
		synctest.Wait()
		assert.True(t, isClosed(answered))
	})
}

func TestEnsure_ReadyAfterItsCallerLeft_IsDestroyed(t *testing.T) {
	runtime := &listed{}
	ctx, leave := context.WithCancel(t.Context())
	runtime.ensure = func(context.Context, agent.ContainerSpec) (agent.Container, error) {
		leave()
		return agent.Container{ID: "late"}, nil
	}
	var destroyed string
	runtime.destroy = func(ctx context.Context, id string, _ time.Duration, _ string) error {
		destroyed = id
		return ctx.Err()
	}
	s := &service{runtime: runtime, owners: newOwners(), launches: newLaunches()}
	_, err := s.EnsureContainer(ctx, &agentv1.EnsureContainerRequest{FunctionName: "f", Image: "i"})
	require.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, "late", destroyed)
}

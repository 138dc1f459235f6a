package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/agentclient"
	"github.com/edge-serverless-box/esb/native/leftovers"
	"github.com/edge-serverless-box/esb/native/preflight"
)

const (
	// doctorUnused is for how long an image is unused that the doctor names.
	doctorUnused = 7 * 24 * time.Hour
	// young is the age up to which what belongs to no container may be of one that is being made or removed.
	young = 2 * time.Minute
)

// finding is something that is not as it should be.
type finding struct {
	native.Problem
	// fix cures it without harm; nil when a person has to.
	fix func(context.Context) error
}

// Doctor looks at the machine, the files of state and what the box has on the machine, and prints what is wrong, each with its cure.
// With fix it does the cures that do no harm: what is damaged is set aside, never removed. The error has what is left to do.
func (s *Stack) Doctor(ctx context.Context, fix bool) error {
	if os.Geteuid() != 0 {
		return &native.Problem{What: "not running as root", Do: "Run it as root: what the box has on the machine is root's to see."}
	}
	held, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = held.Close() }()
	var found []finding
	var left []error
	for _, look := range []func(context.Context) ([]finding, error){s.lookMachine, s.lookFiles, s.lookServices, s.lookLeaks, s.lookImages} {
		some, err := look(ctx)
		if err != nil {
			left = append(left, &native.Problem{What: err.Error(), Do: "Cure that first: the rest of this look could not be done."})
		}
		found = append(found, some...)
	}
	for _, f := range found {
		if !fix || f.fix == nil {
			if f.fix != nil {
				f.Do += " (esb doctor -fix does it)"
			}
			left = append(left, &f.Problem)
			continue
		}
		if err := f.fix(ctx); err != nil {
			left = append(left, &native.Problem{What: fmt.Sprintf("%s; its cure failed: %v", f.What, err), Do: f.Do})
			continue
		}
		s.console.Printf("cured: %s", f.What)
	}
	if len(left) == 0 {
		s.console.Printf("all is well")
	}
	return errors.Join(left...)
}

// lookMachine is what `up` looks at before it starts anything.
func (s *Stack) lookMachine(context.Context) ([]finding, error) {
	var found []finding
	for _, p := range native.Problems(s.preflight()) {
		found = append(found, finding{Problem: *p})
	}
	var low *native.Problem
	if errors.As(preflight.Disk(s.settings.Home, diskBuilt), &low) {
		found = append(found, finding{Problem: *low})
	}
	return found, nil
}

// lookServices names the services that run and do not work. A box that is down is not ill.
func (s *Stack) lookServices(ctx context.Context) ([]finding, error) {
	var found []finding
	for _, service := range s.services() {
		_, alive, err := s.running(service)
		if err != nil {
			return found, err
		}
		if !alive {
			continue
		}
		if err := s.ready(ctx, service); err != nil {
			found = append(found, finding{Problem: native.Problem{
				What: fmt.Sprintf("%s runs and is not ready: %v", service, err),
				Do:   "Run `esb up`, which starts it again; its log is " + s.settings.LogFile(service) + ".",
			}})
		}
	}
	return found, nil
}

// lookLeaks names what the box has on the machine that belongs to nothing: all of it when the box is down, else shims and cgroups
// without a container.
func (s *Stack) lookLeaks(ctx context.Context) ([]finding, error) {
	record, err := Recorded(s.settings.Home)
	known := err == nil && record != nil
	_, up := s.supervisor() // what it has not started yet, it starts
	for _, service := range allServices {
		_, alive, err := s.running(service)
		if err != nil {
			return nil, err
		}
		up = up || alive
	}
	if up {
		return s.lookStrays(ctx)
	}
	scope := s.scope()
	if !known {
		scope = s.certain()
	}
	items, err := leftovers.Find(scope)
	if err != nil || len(items) == 0 {
		return nil, err
	}
	names := make([]string, len(items))
	for i, item := range items {
		names[i] = item.String()
	}
	fix := s.remove
	if !known {
		fix = nil // the containers of ESB_RUN_DIR, which that purges, may be another stack's
	}
	return []finding{{
		Problem: native.Problem{
			What: "no service of the box runs, and this is left of it on the machine:\n" + native.Indent(strings.Join(names, "\n"), "      "),
			Do:   "Run `esb down`, which removes it, or `esb up`, which goes on with it.",
		},
		fix: fix,
	}}, nil
}

// shimOf finds the container's id in the command line of its shim, or that of one that containers share.
var shimOf = regexp.MustCompile(`containerd-shim-runc-v2 .*-id (\S+)`)

// lookStrays names shims and cgroups of a box that is up which belong to no container. The agent removes them at its start.
func (s *Stack) lookStrays(ctx context.Context) ([]finding, error) {
	if _, alive, err := s.running(native.Agent); err != nil || !alive {
		return nil, err // they wait for an agent that adopts them
	}
	// Before the containers: what has come since has one.
	items, err := leftovers.Find(s.scope())
	if err != nil {
		return nil, err
	}
	have := map[string]bool{}
	err = s.askAgent(ctx, func(ctx context.Context, client *agentclient.Client) error {
		containers, err := client.Containers(ctx)
		for _, c := range containers {
			have[c.ID] = true
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var strays []string
	for _, item := range items {
		switch item.Kind {
		case leftovers.Process:
			if m := shimOf.FindStringSubmatch(item.Name); len(m) == 2 && !have[m[1]] && !shared(m[1], item.PID) && old(fmt.Sprintf("/proc/%d", item.PID)) {
				strays = append(strays, item.String())
			}
		case leftovers.Cgroup:
			groups, err := filepath.Glob(filepath.Join(item.Name, "*", "cgroup.procs"))
			if err != nil {
				return nil, err
			}
			for _, file := range groups {
				if dir := filepath.Dir(file); !have[filepath.Base(dir)] && old(dir) {
					strays = append(strays, string(leftovers.Cgroup)+" "+dir)
				}
			}
		}
	}
	if len(strays) == 0 {
		return nil, nil
	}
	return []finding{{
		Problem: native.Problem{
			What: "these belong to no container of the box:\n" + native.Indent(strings.Join(strays, "\n"), "      "),
			Do:   "Start the agent again, which removes them and keeps the containers.",
		},
		fix: s.restartAgent,
	}}, nil
}

// restartAgent has the agent's process replaced by another one: by the supervisor, which would start one beside it, where there is one.
func (s *Stack) restartAgent(ctx context.Context) error {
	if _, alive := s.supervisor(); !alive {
		if err := s.keepSecrets(); err != nil {
			return err
		}
		if err := s.stop(ctx, native.Agent); err != nil {
			return err
		}
		_, err := s.ensure(ctx, native.Agent)
		return err
	}
	before, alive, err := s.running(native.Agent)
	if err != nil {
		return err
	}
	if alive {
		if _, err := before.Stop(ctx, s.grace(native.Agent)); err != nil {
			return fmt.Errorf("stop %s: %w", native.Agent, err)
		}
	}
	waiting, cancel := context.WithTimeout(ctx, s.settings.StartTimeout)
	defer cancel()
	ticker := time.NewTicker(readyPoll)
	defer ticker.Stop()
	for {
		now, alive, err := s.running(native.Agent)
		if err != nil {
			return err
		}
		another := alive && (now.PID != before.PID || now.StartTicks != before.StartTicks)
		if another && s.ready(waiting, native.Agent) == nil {
			return nil
		}
		select {
		case <-waiting.Done():
			return fmt.Errorf("wait until the supervisor has started the agent again: %w", waiting.Err())
		case <-ticker.C:
		}
	}
}

// shared says whether a shim is one that the agent has started for several containers, and has one.
func shared(id string, pid int) bool {
	if !strings.HasPrefix(id, "esb-shim-") {
		return false
	}
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	return slices.ContainsFunc(files, func(file string) bool {
		children, err := os.ReadFile(file)
		return err == nil && len(bytes.TrimSpace(children)) > 0
	})
}

// old says whether a folder was made a while ago.
func old(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && time.Since(info.ModTime()) > young
}

// lookImages names images that nothing uses.
func (s *Stack) lookImages(ctx context.Context) ([]finding, error) {
	if _, alive, err := s.running(native.Agent); err != nil || !alive || s.ready(ctx, native.Agent) != nil {
		return nil, err
	}
	var unused []string
	bytes := int64(0)
	err := s.askAgent(ctx, func(ctx context.Context, client *agentclient.Client) error {
		images, _, err := client.Images(ctx)
		for _, i := range images {
			if !i.InUse && time.Since(i.Used) > doctorUnused {
				unused = append(unused, i.Name)
				bytes += i.Bytes
			}
		}
		return err
	})
	if err != nil || len(unused) == 0 {
		return nil, err
	}
	return []finding{{Problem: native.Problem{
		What: fmt.Sprintf("nothing has used these images for a week (%s at most):\n%s", megabytes(bytes), native.Indent(strings.Join(unused, "\n"), "      ")),
		Do:   "Remove them: `esb images prune -days 7`. Those of a registry need it when a function names them again.",
	}}}, nil
}

package stack

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/agentclient"
)

// Status observes the services and, when the agent answers, its containers.
func (s *Stack) Status(ctx context.Context) (native.Status, error) {
	status := native.Status{Home: s.settings.Home, URLs: s.urls(), Containers: []native.Container{}, Functions: []native.Function{}}
	agent, gateway := native.Down, native.Down
	supervisor, supervised := s.supervisor()
	if supervised {
		status.Supervisor = supervisor.Process.PID
	}
	for _, name := range s.services() {
		record, alive, err := s.running(name)
		if err != nil {
			return native.Status{}, err
		}
		service := native.Service{Name: name, State: native.Down}
		if alive {
			service.State, service.PID, service.Since = native.Healthy, record.PID, record.Started
			if err := s.ready(ctx, name); err != nil {
				service.State, service.Reason = native.Unhealthy, err.Error()
			}
		}
		if seen, ok := supervisor.Services[name]; ok && supervised && !supervisor.Released {
			service.Restarts = seen.Restarts
			if !seen.Serving {
				service.DownSince = seen.Since
				service.Reason = cmp.Or(service.Reason, seen.Error)
			}
		}
		status.Services = append(status.Services, service)
		switch name {
		case native.Agent:
			agent = service.State
		case native.Gateway:
			gateway = service.State
		}
	}
	for _, store := range s.settings.NotAvailable {
		status.Services = append(status.Services, native.Service{Name: store.Name, State: native.NotAvailable, Reason: store.Why})
	}
	status.State = native.Overall(status.Services)
	if gateway != native.Down {
		// An unhealthy one may answer: it says here what it lacks.
		if err := s.askGateway(ctx, &status); err != nil && gateway == native.Healthy {
			return native.Status{}, err
		}
	}
	if agent != native.Healthy {
		return status, nil
	}
	client, err := agentclient.Dial(s.settings)
	if err != nil {
		return native.Status{}, err
	}
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	containers, err := client.Containers(ctx)
	if err != nil {
		return native.Status{}, err
	}
	status.Containers = append(status.Containers, containers...)
	return status, nil
}

// askGateway asks for the configuration and the functions.
func (s *Stack) askGateway(ctx context.Context, status *native.Status) error {
	configuration, err := s.configuration(ctx)
	if err != nil {
		return err
	}
	status.Configuration = configuration
	var answer struct {
		Pools []struct {
			native.Function
			Name string `json:"function"`
		} `json:"pools"`
	}
	if err := s.askAdmin(ctx, http.MethodGet, "/pools", &answer); err != nil {
		return err
	}
	for _, p := range answer.Pools {
		p.Function.Name = p.Name
		status.Functions = append(status.Functions, p.Function)
	}
	return nil
}

// stateOf is a function's state in a word.
func stateOf(f native.Function) string {
	switch {
	case f.Error != "" && f.Outdated > 0:
		return "outdated"
	case f.Error != "":
		return "failing"
	case f.Busy > 0:
		return "busy"
	case f.Starting > 0:
		return "starting"
	case f.Idle > 0:
		return "warm"
	}
	return "cold"
}

// PrintStatus writes a status for a person; now is the time that ages are counted from.
func PrintStatus(w io.Writer, status native.Status, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(t, "SERVICE\tSTATE\tPID\tUP FOR\tRESTARTS\t\n")
	for _, s := range status.Services {
		pid, age := "-", "-"
		if s.PID != 0 {
			pid, age = fmt.Sprint(s.PID), since(s.Since, now)
		}
		reason := oneLine(s.Reason)
		if !s.DownSince.IsZero() {
			reason = fmt.Sprintf("does not serve since %s: %s", s.DownSince.Local().Format(time.DateTime), reason)
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\n", s.Name, s.State, pid, age, s.Restarts, reason)
	}
	switch {
	case status.Supervisor != 0:
		_, _ = fmt.Fprintf(t, "\nprocess %d starts again what ends or hangs\n", status.Supervisor)
	case status.State != native.Down:
		_, _ = fmt.Fprint(t, "\nnobody starts again what ends or hangs\n")
	}
	if status.State != native.Down {
		_, _ = fmt.Fprintln(t)
		for _, url := range status.URLs {
			_, _ = fmt.Fprintf(t, "%s\n", url)
		}
		_, _ = fmt.Fprintln(t)
		if len(status.Containers) == 0 {
			_, _ = fmt.Fprintln(t, "no containers")
		} else {
			_, _ = fmt.Fprintf(t, "CONTAINER\tFUNCTION\tADDRESS\tSTATE\tAGE\tMEMORY\n")
		}
		for _, c := range status.Containers {
			state := c.State
			if c.Standby {
				// What the container was made as; the agent does not see invocations.
				state += " (standby)"
			}
			memory := "-"
			if c.MemoryBytes > 0 {
				memory = fmt.Sprintf("%.1f MiB", float64(c.MemoryBytes)/(1<<20))
			}
			_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", c.Name, c.Function, c.Address, state, since(c.Created, now), memory)
		}
	}
	if len(status.Functions) > 0 {
		_, _ = fmt.Fprintln(t)
		_, _ = fmt.Fprintf(t, "FUNCTION\tSTATE\tIDLE\tBUSY\tWAITING\t\n")
		for _, f := range status.Functions {
			_, _ = fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%s\n", f.Name, stateOf(f), f.Idle, f.Busy, f.Waiting, oneLine(f.Error))
		}
	}
	if list := status.Configuration.Substitutes; len(list) > 0 {
		_, _ = fmt.Fprintf(t, "\nRuntimes that others run: %s\n", strings.Join(list, ", "))
	}
	if status.Configuration.Refused {
		_, _ = fmt.Fprintf(t, "\n%s\n", refusal(status.Configuration))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print the status: %w", err)
	}
	return nil
}

// oneLine keeps a message in its row.
func oneLine(text string) string {
	return strings.Join(strings.Fields(text), " ")
}

// refusal says that the files were refused, and why.
func refusal(c native.Configuration) string {
	return fmt.Sprintf("REFUSED: the configuration of %s is not served, the one before it still is:\n%s",
		c.RefusedAt.Local().Format(time.DateTime), native.Indent(strings.Join(c.Problems, "\n"), "  "))
}

func since(start, now time.Time) string {
	d := max(now.Sub(start), 0)
	switch {
	case d < time.Minute:
		return d.Truncate(time.Second).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%02dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

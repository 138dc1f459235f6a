package build

import (
	"runtime"

	"github.com/edge-serverless-box/esb/functions/runtimes/npm"
	"github.com/edge-serverless-box/esb/native/settings"
)

// Groups of targets, by what needs them.
const (
	// GroupRuntime is containerd, runc and the CNI plugins.
	GroupRuntime = "runtime"
	// GroupInspect is ctr, to look into the agent's containerd with; the box runs without it.
	GroupInspect = "inspect"
	// GroupServices is what this repository's own modules make for the native way.
	GroupServices = "services"
	// GroupGateway is the one of GroupServices that the gateway's image has.
	GroupGateway = "gateway"
	// GroupStores are the native stores.
	GroupStores = "stores"
	// GroupGenerate is buf and its plugins.
	GroupGenerate = "generate"
	// GroupCommand is the esb command, as a release has it: one of a working copy is built by whoever calls it.
	GroupCommand = "command"
	// GroupLint is golangci-lint.
	GroupLint = "lint"
	// GroupTest is the test runner.
	GroupTest = "test"
	// GroupVulncheck is govulncheck.
	GroupVulncheck = "vulncheck"
)

// BoxGroups are the groups of the programs of a box, in the order of need.
var BoxGroups = []string{GroupServices, GroupRuntime, GroupStores, GroupInspect}

// ToolGroups are the groups that are built into the folder of the project's tools, not of the stack's binaries.
var ToolGroups = []string{GroupGenerate, GroupLint, GroupTest, GroupVulncheck}

// seconds is Target.Seconds of the programs of a box, in the order of BoxGroups and after the esb command: as measured on two CPUs (AMD EPYC).
var seconds = map[string]int{
	"agent": 46, "lambda-init": 1, "esb-runc": 1, "gateway": 60, "esb-image": 4, "esb-relay": 2,
	"containerd": 27, "runc": 20, "cni-plugins": 4,
	"stores": 2, "victoria-logs": 18, "versitygw": 48, "registry": 9, "dynoxide": 1,
	"ctr": 10,
}

// Targets returns the targets of a group for a machine of this one's architecture, nil for a name that is no group.
func Targets(group string) []Target {
	targets := targetsFor(group, runtime.GOARCH)
	for i := range targets {
		targets[i].Seconds = seconds[targets[i].Name]
	}
	return targets
}

func targetsFor(group, arch string) []Target {
	switch group {
	case GroupRuntime:
		return []Target{
			containerd(Target{
				Packages: []string{"./cmd/containerd", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"},
				Outputs:  []string{"containerd", "containerd-shim-runc-v2"},
			}),
			wrapper("runc", "tools/runc", Target{
				Packages: []string{"github.com/opencontainers/runc"},
				Outputs:  []string{"runc"},
				CGO:      true,
				// seccomp: without it runc ignores the profile that keeps functions away from the kernel. netgo and
				// osusergo: glibc cannot resolve names or users in a static program.
				Tags:      []string{"seccomp", "netgo", "osusergo"},
				Commands:  []string{"gcc", "pkg-config"},
				Libraries: []string{"libc.a", "libseccomp.a"},
				Debian:    []string{"gcc", "libc6-dev", "libseccomp-dev", "pkg-config"},
			}),
			wrapper("cni-plugins", "tools/cni", Target{
				Packages: []string{
					"github.com/containernetworking/plugins/plugins/main/bridge",
					"github.com/containernetworking/plugins/plugins/ipam/host-local",
					"github.com/containernetworking/plugins/plugins/main/loopback",
				},
				Outputs: []string{"bridge", "host-local", "loopback"},
				LDFlags: []string{"-X", "github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=v1.9.1"},
			}),
		}
	case GroupInspect:
		return []Target{wrapper("ctr", "tools/containerd", Target{
			Packages: []string{"github.com/containerd/containerd/v2/cmd/ctr"},
			Outputs:  []string{"ctr"},
		})}
	case GroupServices:
		return []Target{
			own("agent", "agent", "./cmd/agent", "agent"),
			own("agent", "lambda-init", "./cmd/lambda-init", "lambda-init"),
			own("agent", "esb-runc", "./cmd/esb-runc", "esb-runc", "cmd/esb-runc", "runcfront", "go.mod", "go.sum"),
			gateway(),
			own("functions", "esb-image", "./cmd/esb-image", "esb-image",
				"cmd", "gotool", "imagebuild", "internal", "runtimes", "samples", "go.mod", "go.sum"),
			own("stores", "esb-relay", "./cmd/esb-relay", "esb-relay",
				"basicauth", "cmd/esb-relay", "dockerpasswords", "dockerrelay", "dynamofront", "front", "relay", "s3front", "server", "settings", "stores.go", "go.mod", "go.sum"),
		}
	case GroupGateway:
		return []Target{gateway()}
	case GroupStores:
		targets := []Target{
			own("stores", "stores", "./cmd/stores", "stores", "app", "basicauth", "child", "cmd/stores", "confine", "dynamofront", "front", "logfront", "logroom",
				"registryfront", "relay", "s3front", "server", "settings", "ttl", "stores.go", "go.mod", "go.sum"),
			wrapper("victoria-logs", "stores/victorialogs", Target{
				Packages: []string{"github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs"},
				Outputs:  []string{"victoria-logs"},
			}),
			wrapped("versitygw", "stores/versitygw"),
			wrapped("registry", "stores/registry", "autoexport", "redis", "redisotel"),
		}
		if arch == settings.DynoxideArch {
			targets = append(targets, Target{
				Name: "dynoxide", Module: "stores", Outputs: []string{"dynoxide"},
				NPM: &npm.Package{
					Name: "@dynoxide/linux-x64", Version: "1.2.1",
					Integrity: "sha512-sBHqlxJ9ANkLluFkYRfd5r8Y0ApFew4FhOrlhgRAgD4XzEoFOukEo1nuBTQ1+jTtofqwn4NWQ2k0Tn5mNTjgUg==",
				},
				Commands: []string{"npm"}, Debian: []string{"npm"},
			})
		}
		return targets
	case GroupCommand:
		command := own("native", "esb", "./cmd/esb", "esb")
		command.Sources = append(command.Sources, "functions/gotool", "functions/runtimes")
		return []Target{command}
	case GroupGenerate:
		return []Target{wrapper("buf", "tools/buf", Target{
			Packages: []string{
				"github.com/bufbuild/buf/cmd/buf",
				"google.golang.org/protobuf/cmd/protoc-gen-go",
				"google.golang.org/grpc/cmd/protoc-gen-go-grpc",
			},
			Outputs: []string{"buf", "protoc-gen-go", "protoc-gen-go-grpc"},
		})}
	case GroupLint:
		return []Target{wrapper("golangci-lint", "tools/lint", Target{
			Packages: []string{"github.com/golangci/golangci-lint/v2/cmd/golangci-lint"},
			Outputs:  []string{"golangci-lint"},
		})}
	case GroupTest:
		return []Target{wrapper("gotestsum", "tools/lint", Target{
			Packages: []string{"gotest.tools/gotestsum"},
			Outputs:  []string{"gotestsum"},
			// The race detector needs a C compiler (Go: "go: -race requires cgo").
			Commands:  []string{"gcc"},
			Libraries: []string{"libc.a"},
			Debian:    []string{"gcc", "libc6-dev"},
		})}
	case GroupVulncheck:
		return []Target{wrapper("govulncheck", "tools/vulncheck", Target{
			Packages: []string{"golang.org/x/vuln/cmd/govulncheck"},
			Outputs:  []string{"govulncheck"},
		})}
	}
	return nil
}

// wrapper completes a target that a wrapper module pins: its go.mod and go.sum say all there is to know.
func wrapper(name, module string, t Target) Target {
	t.Name, t.Module = name, module
	t.Sources = []string{module + "/go.mod", module + "/go.sum"}
	return t
}

// wrapped is a wrapper module with a main package of ours, and stand-ins for modules that it does without.
func wrapped(name, module string, standIns ...string) Target {
	t := wrapper(name, module, Target{Packages: []string{"./cmd/" + name}, Outputs: []string{name}})
	t.Sources = append(t.Sources, module+"/cmd")
	for _, name := range standIns {
		t.Sources = append(t.Sources, module+"/"+name)
	}
	return t
}

// containerd completes a target of containerd with our main package: its own has all plugins, ours those that the agent uses.
func containerd(t Target) Target {
	t = wrapper("containerd", "tools/containerd", t)
	t.Sources = append(t.Sources, t.Module+"/cmd")
	return t
}

func gateway() Target { return own("gateway", "gateway", "./cmd/gateway", "gateway") }

// own is a target of one of the repository's modules. Its sources are the whole module, or those
// parts of it, and what it uses of others.
func own(module, name, pkg, output string, parts ...string) Target {
	sources := []string{"api", "guard", "go.work", "go.work.sum"}
	if module == "gateway" || module == "stores" {
		sources = append(sources, "sigv4")
	}
	if len(parts) == 0 {
		sources = append(sources, module)
	}
	for _, part := range parts {
		sources = append(sources, module+"/"+part)
	}
	return Target{Name: name, Module: module, Packages: []string{pkg}, Outputs: []string{output}, Workspace: true, Sources: sources}
}

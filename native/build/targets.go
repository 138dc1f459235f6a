package build

// Groups of targets, by what needs them.
const (
	// GroupRuntime is containerd, runc and the CNI plugins.
	GroupRuntime = "runtime"
	// GroupServices is what this repository's own modules make for the native way.
	GroupServices = "services"
	// GroupGenerate is buf and its plugins.
	GroupGenerate = "generate"
	// GroupLint is golangci-lint.
	GroupLint = "lint"
	// GroupTest is the test runner.
	GroupTest = "test"
)

// ToolGroups are the groups that are built into the folder of the project's tools, not of the stack's binaries.
var ToolGroups = []string{GroupGenerate, GroupLint, GroupTest}

// Targets returns the targets of a group, nil for a name that is no group.
func Targets(group string) []Target {
	switch group {
	case GroupRuntime:
		return []Target{
			wrapper("containerd", "tools/containerd", Target{
				Packages: []string{
					"github.com/containerd/containerd/v2/cmd/containerd",
					"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
					"github.com/containerd/containerd/v2/cmd/ctr",
				},
				Outputs: []string{"containerd", "containerd-shim-runc-v2", "ctr"},
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
	case GroupServices:
		return []Target{
			own("agent", "agent", "./cmd/agent", "agent"),
			own("agent", "lambda-init", "./cmd/lambda-init", "lambda-init"),
			own("gateway", "gateway", "./cmd/gateway", "gateway"),
			own("functions", "esb-image", "./cmd/esb-image", "esb-image",
				"cmd", "imagebuild", "internal", "runtimes", "samples", "go.mod", "go.sum"),
		}
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
	}
	return nil
}

// wrapper completes a target that a wrapper module pins: its go.mod and go.sum say all there is to know.
func wrapper(name, module string, t Target) Target {
	t.Name, t.Module = name, module
	t.Sources = []string{module + "/go.mod", module + "/go.sum"}
	return t
}

// own is a target of one of the repository's modules. Its sources are the whole module, or those parts of it.
func own(module, name, pkg, output string, parts ...string) Target {
	sources := []string{"api", "go.work", "go.work.sum"}
	if len(parts) == 0 {
		sources = append(sources, module)
	}
	for _, part := range parts {
		sources = append(sources, module+"/"+part)
	}
	return Target{Name: name, Module: module, Packages: []string{pkg}, Outputs: []string{output}, Workspace: true, Sources: sources}
}

package conformance

import (
	"net/http"
	"regexp"
)

// baseChecks are the cases of section 6 that look at the box's base images, by name; their functions are in
// testdata/runtimes.
var baseChecks = map[string]func(*examination){
	"base-shell": func(x *examination) {
		x.values("/base-shell", map[string]string{"files": "bootstrap", "sum": "3", "packed": "Packed", "event": "0", "shell": "bash"})
	},
	"base-env": func(x *examination) {
		x.values("/base-node", map[string]string{"layer": "from a layer"})
		x.logged("base-node", "by-env registered: 200")
	},
	"base-python": func(x *examination) {
		x.values("/base-python", map[string]string{
			// AWS: uid 993, gid 990.
			"id": `uid=993.* gid=990.*`, "system": "0", "object": "by boto3", "missing": "NoSuchKey", "boto3": `1\.(2[8-9]|[3-9]\d)\.\d+`,
			"requests": "None", "services": "True",
			// AWS: as in Amazon Linux 2 (aws-lambda-base-images issue 229).
			"locale": `en_US\.UTF-8 1,234,567`, "standard library": `curses,distutils\.version,lib2to3\.pytree`,
		})
	},
	"base-node-import": func(x *examination) {
		x.values("/base-node", map[string]string{
			"id": `uid=993.* gid=990.*\n`, "object": "by the SDK of JavaScript", "layer": "from a layer",
			"missing": "Cannot find package 'not-there' imported from /var/task/index.mjs", "certificates": "-----BEGIN CERTIFICATE-----",
		})
	},
	"base-node-require": func(x *examination) {
		x.values("/base-node-cjs", map[string]string{"document": "function", "lambda": "function", "shared": "shared", "sdk": `3\.\d+\.\d+`})
	},
	"runtime-names": func(x *examination) {
		// By an older name of Node.js, by another runtime that functions.yml names, by an image that it names.
		for path, want := range map[string]string{
			"/named-node20": "AWS_Lambda_nodejs20.x", "/named-python312": "AWS_Lambda_python3.12", "/named-python313": "AWS_Lambda_python3.13",
			"/named-java17": "AWS_Lambda_java17",
		} {
			got := x.ask(path, "report", 0)
			x.check(got.Env["AWS_EXECUTION_ENV"] == want, "%s answers %d, AWS_EXECUTION_ENV is %q, want %q", path, got.status, got.Env["AWS_EXECUTION_ENV"], want)
		}
		for _, name := range []string{"python3.9", "nodejs16.x", "java21", "ruby3.3", "dotnet8", "go1.x"} {
			x.refused("functions:\n  f: {code: ./probe, runtime: "+name+", handler: a.b}\n", "functions.f.runtime: "+name+" is not on this box")
		}
	},
	"base-node-heap": func(x *examination) {
		// V8 counts the young generation in: beside 90 % of 512 MB three semi-spaces of 5 %, which it makes powers of two.
		heap := x.ask("/base-node", "report", 0).HeapMB
		x.check(heap >= 461 && heap <= 461+3*32, "with 512 MB, V8's limit is %.0f MB", heap)
		heap = x.ask("/base-node-cjs", "report", 0).HeapMB
		x.check(heap >= 300 && heap < 500, "with --max-old-space-size=300 in NODE_OPTIONS, V8's limit is %.0f MB", heap)
	},
}

// values asks a function of testdata/runtimes, and compares what it says with patterns.
func (x *examination) values(path string, want map[string]string) {
	got := x.ask(path, "report", 0)
	x.check(got.status == http.StatusOK, "%s answers %d: %.500s", path, got.status, got.body)
	for name, pattern := range want {
		x.check(regexp.MustCompile("^(?:"+pattern+")$").MatchString(got.Values[name]), "%s: %s is %q, want %s", path, name, got.Values[name], pattern)
	}
}

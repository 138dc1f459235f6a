package conformance

import (
	"strconv"
	"strings"
	"time"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
)

// sandboxHandler does to /tmp what it is told, and reads files of the kernel.
const sandboxHandler = `import json, os

def fill(mb):
    n, piece = 0, b"x" * 1048576
    try:
        with open("/tmp/big", "wb", buffering=0) as f:
            while n < mb:
                if f.write(piece) < len(piece):
                    raise OSError("short write")
                n += 1
            os.fsync(f.fileno())
    except OSError as e:
        return {"WROTE": str(n), "ERROR": str(e)}
    return {"WROTE": str(n), "ERROR": ""}

def many(count):
    os.makedirs("/tmp/many", exist_ok=True)
    for i in range(count):
        try:
            open("/tmp/many/%d" % i, "w").close()
        except OSError as e:
            return {"MADE": str(i), "ERROR": str(e)}
    return {"MADE": str(count), "ERROR": ""}

def look():
    fs = os.statvfs("/tmp")
    return {"SIZE": str(fs.f_blocks * fs.f_frsize >> 20), "ROOM": str(fs.f_bavail * fs.f_frsize >> 20), "LIST": ",".join(sorted(os.listdir("/tmp"))),
        "MOUNT": [l for l in open("/proc/self/mounts") if " /tmp " in l][0].strip()}

def remove():
    for top, dirs, files in os.walk("/tmp", topdown=False):
        for n in files: os.remove(os.path.join(top, n))
        for n in dirs: os.rmdir(os.path.join(top, n))
    return {}

def read(name):
    try:
        with open(name) as f:
            return f.read().strip()
    except OSError as e:
        return str(e)

def kernel():
    names = ["memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory.max", "memory.current", "cpu.max", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us", "cgroup.controllers"]
    env = {n: read("/sys/fs/cgroup/" + n) for n in names}
    env["cgroup"], env["list"] = read("/proc/self/cgroup"), ",".join(sorted(os.listdir("/sys/fs/cgroup")))
    wrote = []
    for top, dirs, files in os.walk("/sys/fs/cgroup"):
        for n in files:
            try:
                open(os.path.join(top, n), "r+").close()
                wrote.append(os.path.join(top, n))
            except OSError:
                pass
        try:
            os.mkdir(os.path.join(top, "mine"))
            wrote.append(top)
        except OSError:
            pass
    env["writable"] = ",".join(wrote)
    return env

def handler(event, context):
    order = json.loads(event["body"])
    do = {"fill": lambda: fill(order["ms"]), "many": lambda: many(order["ms"]), "look": look, "remove": remove, "kernel": kernel, "exit": lambda: os._exit(3)}
    return {"statusCode": 200, "body": json.dumps({"PID": os.getpid(), "Env": do[order["do"]]()})}
`

// linksHandler is a module that sees a layer by a link alone: import does not look into NODE_PATH.
const linksHandler = `import dep from "dep";
import fs from "fs";
export const handler = async () => {
  fs.mkdirSync("/tmp/cache", { recursive: true });
  fs.writeFileSync("/var/task/cache/kept", "by a link");
  const env = { DEP: dep.name, CACHE: fs.readFileSync("/tmp/cache/kept", "utf8"), UP: fs.readFileSync("/var/task/up", "utf8"), LAYER: fs.readFileSync("/opt/back", "utf8") };
  return { statusCode: 200, body: JSON.stringify({ Env: env }) };
};
`

// dependency is a module of the layer.
const dependency = `module.exports = { name: "of the layer" };
`

// links are in the code of probe-links and in its layer.
var links = map[string]string{
	"probe-links/node_modules": "/opt/nodejs/node_modules", "probe-links/cache": "/tmp/cache", "probe-links/up": "../../opt/nodejs/node_modules/dep/index.js",
	"probe-links-layer/back": "/var/task/index.mjs",
}

// checkLinks looks at links that lead out of code and layers: they are looked up in the container.
func checkLinks(x *examination) {
	got := x.ask("/probe-links", "report", 0)
	for name, want := range map[string]string{"DEP": "of the layer", "CACHE": "by a link", "UP": dependency, "LAYER": linksHandler} {
		x.check(got.Env[name] == want, "%s is %q, want %q; the answer is %d %.300s", name, got.Env[name], want, got.status, got.body)
	}
}

// checkTmp writes more to /tmp than the function has memory, and more than /tmp has.
func checkTmp(x *examination) {
	first := x.ask("/probe-tmp", "fill", 300)
	x.check(first.Env["WROTE"] == "300" && first.Env["ERROR"] == "", "300 MB with memory_size 128: %d %.300s", first.status, first.body)
	got := x.ask("/probe-tmp", "look", 0)
	x.check(got.PID == first.PID, "it is another process")
	x.check(got.Env["SIZE"] == "512" && got.Env["LIST"] == "big", "the next invocation finds %q", got.Env)
	x.check(strings.Contains(got.Env["MOUNT"], "nosuid,nodev"), "mounted as %s", got.Env["MOUNT"])
	room, _ := strconv.Atoi(got.Env["ROOM"])
	x.check(room >= 211 && room <= 212, "%d MB are left of 512", room)
	// After a crash, in the same sandbox.
	x.ask("/probe-tmp", "exit", 0)
	got = x.ask("/probe-tmp", "look", 0)
	x.check(got.Env["LIST"] == "big", "after a crash it finds %q", got.Env)
	x.ask("/probe-tmp", "remove", 0)
	got = x.ask("/probe-tmp", "fill", 600)
	x.check(got.Env["WROTE"] == "512" && strings.Contains(got.Env["ERROR"], "No space left on device"), "of 600 MB: %d %.300s", got.status, got.body)
	x.ask("/probe-tmp", "remove", 0)
	got = x.ask("/probe-tmp", "many", 40000)
	made, _ := strconv.Atoi(got.Env["MADE"])
	x.check(made > 30000 && strings.Contains(got.Env["ERROR"], "No space left on device"), "of 40000 files: %d %.300s", got.status, got.body)
	list := x.containers("probe-tmp")
	x.check(len(list) == 1, "%d containers", len(list))
	for _, c := range list {
		m, err := x.box.Agent.GetContainerMetrics(x.ctx, &agentv1.GetContainerMetricsRequest{ContainerId: c.GetContainerId()})
		x.fail(err)
		x.check(m.GetOomKills() == 0, "%d processes were killed for memory", m.GetOomKills())
	}
	x.ask("/probe-tmp", "remove", 0)
}

// checkMemoryView reads what runtimes with a garbage collector read to know how much memory they have.
func checkMemoryView(x *examination) {
	var got map[string]string
	var limit, quota string
	// The init has no quota, and the agent sets it when it hears that the init is over: the first invocation may be sooner.
	for began := time.Now(); ; {
		got = x.ask("/probe-memory", "kernel", 0).Env
		limit, quota = got["memory.max"], got["cpu.max"]
		if limit == "" || !isNumber(limit) {
			limit, quota = got["memory/memory.limit_in_bytes"], got["cpu/cpu.cfs_quota_us"]+" "+got["cpu/cpu.cfs_period_us"]
		}
		if lifted := strings.HasPrefix(quota, "-1 ") || strings.HasPrefix(quota, "max "); !lifted || time.Since(began) > 30*time.Second {
			break
		}
	}
	x.check(limit == strconv.Itoa(200<<20), "the memory limit is %q, want 200 MB: %q", limit, got)
	x.check(quota == "11305 100000", "the CPU quota is %q, want that of 200 MB: %q", quota, got)
	x.check(got["writable"] == "", "it can write to %s", got["writable"])
	for line := range strings.Lines(got["cgroup"]) {
		x.check(strings.HasSuffix(strings.TrimSpace(line), ":/"), "its own group is %q", line)
	}
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 64)
	return err == nil
}

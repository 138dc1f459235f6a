package conformance

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

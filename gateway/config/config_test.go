package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/config"
)

const (
	noRoutes    = "routes: []\n"
	noFunctions = "functions: {}\n"
)

// vars is the environment of these tests.
var vars = map[string]string{"IMAGE": "esb/echo:1", "TABLE": "items", "MAX": "7", "EMPTY": "", "DIGITS": "42", "PARTNER_KEY": "partner-key-0123456789"}

func lookup(name string) (string, bool) {
	v, ok := vars[name]
	return v, ok
}

func options() config.Options {
	return config.Options{
		LookupEnv:     lookup,
		IdleTimeout:   5 * time.Minute,
		ReservedPaths: map[string]string{"/user/auth/ver1.0": "the login (AUTH_ENDPOINT_PATH)", "/2015-03-31/functions/": "Lambda's API"},
	}
}

// load loads both files from a folder of its own, and shortens that folder's name out of the error.
func load(t *testing.T, functions, routing string) (*config.Config, error) {
	t.Helper()
	dir := t.TempDir()
	fp, rp := filepath.Join(dir, "functions.yml"), filepath.Join(dir, "routing.yml")
	require.NoError(t, os.WriteFile(fp, []byte(functions), 0o600))
	require.NoError(t, os.WriteFile(rp, []byte(routing), 0o600))
	c, err := config.Load(fp, rp, options())
	if err != nil {
		err = fmt.Errorf("%s", strings.ReplaceAll(err.Error(), dir+"/", ""))
	}
	return c, err
}

func mustLoad(t *testing.T, functions, routing string) *config.Config {
	t.Helper()
	c, err := load(t, functions, routing)
	require.NoError(t, err)
	return c
}

func TestLoad_ImageAlone_GetsTheDefaults(t *testing.T) {
	c := mustLoad(t, "functions:\n  echo:\n    image: esb/echo:latest\n", noRoutes)
	f := c.Functions["echo"]
	require.NotNil(t, f)
	assert.NotEmpty(t, f.Generation)
	want := &gateway.Function{
		Name: "echo", Image: "esb/echo:latest", PullPolicy: "if_not_present", Timeout: 3 * time.Second,
		MemoryMB: 128, EphemeralStorageMB: 512, Interface: gateway.Supervisor, Generation: f.Generation,
		Scaling: gateway.Scaling{MaxCapacity: 10, IdleTimeout: 5 * time.Minute, AcquireTimeout: 30 * time.Second, Queue: 100},
		Async:   gateway.Async{Retries: 2, MaxAge: 6 * time.Hour, DeadLetter: true},
	}
	assert.Equal(t, want, f)
}

func TestLoad_EveryKey_IsTaken(t *testing.T) {
	c := mustLoad(t, `
defaults:
  environment: {LOG_LEVEL: INFO, TABLE: default}
  timeout: 5
  memory_size: 256
  scaling: {max_capacity: 4, queue: 9}
functions:
  all:
    image: registry.example:5010/team/all:1.2@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    timeout: 900
    memory_size: 10240
    ephemeral_storage: 1024
    environment: {TABLE: items, PORT: 8080, DEBUG: true, RATIO: 1.50, NONE: ""}
    scaling: {min_capacity: 1, max_capacity: 3, idle_timeout: 2.5, acquire_timeout: 10, queue: 0, standby: 2}
    runtime_interface: supervisor
    pull_policy: always
    freeze: true
    entrypoint: [/bin/app]
    command: [app.handler, "2"]
    working_directory: /var/task
  inherits: {image: a, runtime_interface: rie}
  reserved: {image: a, ReservedConcurrentExecutions: 2}
  reserved_same: {image: a, ReservedConcurrentExecutions: 2, scaling: {max_capacity: 2}}
  reserved_scaling: {image: a, scaling: {ReservedConcurrentExecutions: 6}}
  off: {image: a, scaling: {max_capacity: 0}}
`, noRoutes)

	all := c.Functions["all"]
	assert.Equal(t, 900*time.Second, all.Timeout)
	assert.Equal(t, 10240, all.MemoryMB)
	assert.Equal(t, 1024, all.EphemeralStorageMB)
	assert.Equal(t, map[string]string{"LOG_LEVEL": "INFO", "TABLE": "items", "PORT": "8080", "DEBUG": "true", "RATIO": "1.50",
		"NONE": ""}, all.Environment)
	assert.Equal(t, gateway.Scaling{MinCapacity: 1, MaxCapacity: 3, IdleTimeout: 2500 * time.Millisecond,
		AcquireTimeout: 10 * time.Second, Queue: 0, Standby: 2}, all.Scaling)
	assert.Equal(t, "always", all.PullPolicy)
	assert.True(t, all.Freeze)
	assert.Equal(t, []string{"/bin/app"}, all.Entrypoint)
	assert.Equal(t, []string{"app.handler", "2"}, all.Command)
	assert.Equal(t, "/var/task", all.WorkingDirectory)

	inherits := c.Functions["inherits"]
	assert.Equal(t, 5*time.Second, inherits.Timeout)
	assert.Equal(t, 256, inherits.MemoryMB)
	assert.Equal(t, map[string]string{"LOG_LEVEL": "INFO", "TABLE": "default"}, inherits.Environment)
	assert.Equal(t, 4, inherits.Scaling.MaxCapacity)
	assert.Equal(t, 9, inherits.Scaling.Queue)
	assert.Equal(t, gateway.RIE, inherits.Interface)

	assert.Equal(t, 2, c.Functions["reserved"].Scaling.MaxCapacity)
	assert.Equal(t, 2, c.Functions["reserved_same"].Scaling.MaxCapacity)
	assert.Equal(t, 6, c.Functions["reserved_scaling"].Scaling.MaxCapacity)
	assert.Equal(t, 0, c.Functions["off"].Scaling.MaxCapacity)
}

func TestLoad_Code_PathsAreRelativeToTheFile(t *testing.T) {
	dir := t.TempDir()
	fp, rp := filepath.Join(dir, "functions.yml"), filepath.Join(dir, "routing.yml")
	require.NoError(t, os.WriteFile(rp, []byte(noRoutes), 0o600))
	loadCode := func(keys string) *gateway.Function {
		require.NoError(t, os.WriteFile(fp, []byte("defaults: {runtime_interface: rie}\n"+zipped(keys)), 0o600))
		c, err := config.Load(fp, rp, options())
		require.NoError(t, err)
		return c.Functions["echo"]
	}
	keys := "code: ../echo\nruntime: python3.11\nhandler: app.handler\nlayers: [layer.zip, /srv/layer, 's3://layers/${TABLE}.zip']"
	f := loadCode(keys)
	assert.Equal(t, &gateway.FunctionCode{
		Source: gateway.CodeSource{Location: filepath.Join(filepath.Dir(dir), "echo")}, Runtime: "python3.11", Handler: "app.handler",
		Layers: []gateway.CodeSource{{Location: filepath.Join(dir, "layer.zip")}, {Location: "/srv/layer"}, {Location: "s3://layers/items.zip"}},
	}, f.Code)
	assert.Equal(t, gateway.Supervisor, f.Interface, "what defaults say is for all functions")
	assert.Empty(t, f.Image)
	assert.NotEqual(t, f.Generation, loadCode(strings.Replace(keys, "app.handler", "app.other", 1)).Generation)
}

func TestLoad_Variables_AreReplacedInValues(t *testing.T) {
	c := mustLoad(t, `
functions:
  f:
    image: ${IMAGE}
    environment:
      TABLE: "t-${TABLE}-${TABLE}"
      EMPTY: ${EMPTY}
      QUOTED: '${DIGITS}'
      LITERAL: "$${TABLE} costs $5 $$ ${TABLE}"
    scaling:
      max_capacity: ${MAX}
`, noRoutes)
	f := c.Functions["f"]
	assert.Equal(t, "esb/echo:1", f.Image)
	assert.Equal(t, map[string]string{"TABLE": "t-items-items", "EMPTY": "", "QUOTED": "42",
		"LITERAL": "${TABLE} costs $5 $$ items"}, f.Environment)
	assert.Equal(t, 7, f.Scaling.MaxCapacity)
}

// one wraps the keys of one function.
func TestLoad_Runtime_IsRunByWhatTheBoxOrTheOperatorHas(t *testing.T) {
	code := func(runtime string) string { return "{code: ./c, runtime: " + runtime + ", handler: a.b}" }
	c := mustLoad(t, "runtimes:\n  python3.12: python3.11\n  java21: registry.local:5010/my/java:21\n  nodejs20.x: my/node:20\nfunctions:\n"+
		"  own: "+code("python3.11")+"\n  older: "+code("nodejs18.x")+"\n  named: "+code("python3.12")+"\n  image: "+code("java21")+
		"\n  replaced: "+code("nodejs20.x")+"\n  program: {code: ./c, runtime: provided.al2}\n", noRoutes)
	for name, want := range map[string][2]string{
		"own":      {"python3.11", ""},
		"older":    {"nodejs18.x", "nodejs24.x"},
		"named":    {"python3.12", "python3.11"},
		"image":    {"java21", "registry.local:5010/my/java:21"},
		"replaced": {"nodejs20.x", "my/node:20"},
		"program":  {"provided.al2", ""},
	} {
		code := c.Functions[name].Code
		assert.Equal(t, want, [2]string{code.Runtime, code.Base}, name)
	}
	assert.Equal(t, []string{"java21 by registry.local:5010/my/java:21 (image)", "nodejs18.x by nodejs24.x (older)", "nodejs20.x by my/node:20 (replaced)",
		"python3.12 by python3.11 (named)"}, c.Substitutes())

	before := mustLoad(t, "runtimes: {java21: my/java:1}\nfunctions: {f: "+code("java21")+"}\n", noRoutes).Functions["f"].Generation
	after := mustLoad(t, "runtimes: {java21: my/java:2}\nfunctions: {f: "+code("java21")+"}\n", noRoutes).Functions["f"].Generation
	assert.NotEqual(t, before, after, "another image is another generation")
}

func TestLoad_Runtimes_OfAnotherMachine(t *testing.T) {
	o := options()
	o.Runtimes = []string{"python3.13", "nodejs24.x", "provided.al2023"}
	dir := t.TempDir()
	fp, rp := filepath.Join(dir, "functions.yml"), filepath.Join(dir, "routing.yml")
	require.NoError(t, os.WriteFile(rp, []byte(noRoutes), 0o600))
	require.NoError(t, os.WriteFile(fp, []byte("functions: {f: {code: ./c, runtime: python3.13, handler: a.b}}\n"), 0o600))
	_, err := config.Load(fp, rp, o)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(fp, []byte("functions: {f: {code: ./c, runtime: python3.11, handler: a.b}}\n"), 0o600))
	_, err = config.Load(fp, rp, o)
	assert.ErrorContains(t, err, "python3.11 is not on this box, which has nodejs24.x, provided.al2023, python3.13")
}

func one(keys string) string {
	return "functions:\n  echo:\n    image: esb/echo\n" + indent(keys, "    ")
}

// zipped wraps the keys of one function without an image.
func zipped(keys string) string {
	return "functions:\n  echo:\n" + indent(keys, "    ")
}

func indent(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+by) + "\n"
}

func TestLoad_BadFunctions_NameFileLineAndKey(t *testing.T) {
	for _, c := range []struct{ name, functions, want string }{
		{"range", one("timeout: 0"), "functions.yml:4: functions.echo.timeout: must be 1 to 900 seconds, got 0"},
		{"memory", one("memory_size: 64"), "functions.yml:4: functions.echo.memory_size: must be 128 to 10240 MB, got 64"},
		{"storage", one("ephemeral_storage: 20000"), "functions.yml:4: functions.echo.ephemeral_storage: must be 512 to 10240 MB, got 20000"},
		{"text for a number", one("timeout: fast"), `functions.yml:4: functions.echo.timeout: must be a whole number of seconds, got "fast"`},
		{"quoted number", one(`timeout: "3"`), `functions.yml:4: functions.echo.timeout: must be a whole number of seconds, got "3"`},
		{"fraction", one("timeout: 1.5"), `functions.yml:4: functions.echo.timeout: must be a whole number of seconds, got "1.5"`},
		{"list for a number", one("timeout: [3]"), "functions.yml:4: functions.echo.timeout: must be a whole number of seconds, got a list"},
		{"too big for an int", one("timeout: 99999999999999999999"), `functions.yml:4: functions.echo.timeout: must be a whole number of seconds, got "99999999999999999999"`},
		{"not a truth value", one("freeze: often"), `functions.yml:4: functions.echo.freeze: must be true or false, got "often"`},
		{"negative", one("scaling: {min_capacity: -1}"), "functions.yml:4: functions.echo.scaling.min_capacity: must be 0 to 1000, got -1"},
		{"not a number", one("scaling: {idle_timeout: .nan}"), "functions.yml:4: functions.echo.scaling.idle_timeout: must be 1 to 604800 seconds, got .nan"},
		{"unknown key that is begun", one("memory: 256"), "functions.yml:4: functions.echo.memory: is not a known key; did you mean memory_size?"},
		{"unknown key", one("timeuot: 3"), "functions.yml:4: functions.echo.timeuot: is not a known key; did you mean timeout?"},
		{"AWS's spelling", one("MemorySize: 256"), "functions.yml:4: functions.echo.MemorySize: is not a known key; did you mean memory_size?"},
		{"async: retries", one("async: {retries: 3}"), "functions.yml:4: functions.echo.async.retries: must be 0 to 2, got 3"},
		{"async: age", one("async: {max_age: 59}"), "functions.yml:4: functions.echo.async.max_age: must be 60 to 21600 seconds, got 59"},
		{"async: concurrency", one("async: {concurrency: 0}"), "functions.yml:4: functions.echo.async.concurrency: must be 1 to 1000, got 0"},
		{"async: no function", one("async: {on_success: ecko}"), "functions.yml:4: functions.echo.async.on_success: there is no function ecko; did you mean echo?"},
		{"async: itself", one("async: {on_failure: echo}"), "functions.yml:4: functions.echo.async.on_failure: is the function itself, which would go on for ever"},
		{"async: destination", one("async: {on_failure: 'sqs://q'}"), `functions.yml:4: functions.echo.async.on_failure: must be the name of a function, s3://bucket/prefix, or an http or https URL, got "sqs://q"`},
		{"async: bucket", one("async: {on_failure: 's3://No/x'}"), `functions.yml:4: functions.echo.async.on_failure: must name a bucket of 3 to 63 lower-case letters, digits, dots and dashes after s3://, got "No"`},
		{"async: URL", one("async: {on_failure: 'https://a:b@c'}"), "functions.yml:4: functions.echo.async.on_failure: must be a URL without user, password and fragment"},
		{"async: lost", one("async: {dead_letter: false}"), "functions.yml:4: functions.echo.async.dead_letter: must not be false without on_failure: failed events would be lost"},
		{"async: unknown key", one("async: {retrys: 1}"), "functions.yml:4: functions.echo.async.retrys: is not a known key; did you mean retries?"},
		{"invoke: unknown", one("invoke: [echo, ecko]"), "functions.yml:4: functions.echo.invoke[1]: there is no function ecko; did you mean echo?"},
		{"invoke: twice", one("invoke:\n- echo\n- echo"), "functions.yml:6: functions.echo.invoke[1]: names echo twice"},
		{"invoke: no list", one("invoke: echo"), `functions.yml:4: functions.echo.invoke: must be a list, got "echo"`},
		{"s3: no list", one("s3: data"), `functions.yml:4: functions.echo.s3: must be a list, got "data"`},
		{"s3: a name alone", one("s3: [data]"), `functions.yml:4: functions.echo.s3[0]: must be a mapping of keys to values, got "data"`},
		{"s3: no bucket", one("s3: [{access: read}]"), `functions.yml:4: functions.echo.s3[0].bucket: is missing: the name of a bucket, or a pattern such as "data-*"`},
		{"s3: no access", one("s3: [{bucket: data}]"), "functions.yml:4: functions.echo.s3[0].access: is missing: read or write"},
		{"s3: access", one("s3: [{bucket: data, access: all}]"), `functions.yml:4: functions.echo.s3[0].access: must be one of read, write, got "all"`},
		{"s3: bucket", one("s3: [{bucket: Data/x, access: read}]"), `functions.yml:4: functions.echo.s3[0].bucket: must be the name of a bucket, or a pattern such as "data-*", got "Data/x"`},
		{"s3: prefix", one("s3: [{bucket: data, prefix: /x, access: read}]"), `functions.yml:4: functions.echo.s3[0].prefix: must not begin with /: keys do not, got "/x"`},
		{"s3: pattern as prefix", one("s3: [{bucket: data, prefix: x/*, access: read}]"), `functions.yml:4: functions.echo.s3[0].prefix: is no pattern: it stands for all keys that begin with it; remove the * of "x/*"`},
		{"s3: dots in prefix", one("s3: [{bucket: data, prefix: x/../y, access: read}]"), `functions.yml:4: functions.echo.s3[0].prefix: must not have . or .. between slashes, got "x/../y"`},
		{"s3: empty prefix", one("s3: [{bucket: data, prefix: '', access: read}]"), "functions.yml:4: functions.echo.s3[0].prefix: is empty: remove it for the whole bucket"},
		{"s3: unknown key", one("s3: [{bucket: data, access: read, acces: read}]"), "functions.yml:4: functions.echo.s3[0].acces: is not a known key; did you mean access?"},
		{"tables: name", one("tables: [a b]"), `functions.yml:4: functions.echo.tables[0]: must be the name of a table, or a pattern such as "orders-*", got "a b"`},
		{"tables: no access", one("tables: [a, {table: b}]"), "functions.yml:4: functions.echo.tables[1].access: is missing: read or write"},
		{"tables: no table", one("tables: [{access: read}]"), `functions.yml:4: functions.echo.tables[0].table: is missing: the name of a table, or a pattern such as "orders-*"`},
		{"defaults: s3", "defaults:\n  s3: [{bucket: data}]\nfunctions: {}\n", "functions.yml:2: defaults.s3[0].access: is missing: read or write"},
		{"unknown key, nothing near", one("scaling:\n  replicas: 3"), "functions.yml:5: functions.echo.scaling.replicas: is not a known key; known are ReservedConcurrentExecutions, acquire_timeout, idle_timeout, max_capacity, min_capacity, queue, standby"},
		{"unknown top key", "function: {}\nfunctions: {}\n", "functions.yml:1: function: is not a known key; did you mean functions?"},
		{"duplicate key", one("timeout: 3\ntimeout: 4"), "functions.yml:5: functions.echo.timeout: is given twice, first on line 4"},
		{"duplicate function", "functions:\n  a: {image: a}\n  a: {image: b}\n", "functions.yml:3: functions.a: is given twice, first on line 2"},
		{"empty value", one("timeout:"), "functions.yml:4: functions.echo.timeout: is empty: give it a value or remove it"},
		{"empty function", "functions:\n  echo:\n", "functions.yml:2: functions.echo: is empty: give it a value or remove it"},
		{"no image", "functions:\n  echo:\n    timeout: 3\n", "functions.yml:3: functions.echo.image: is missing: the function's container image, such as esb/lambda-echo:latest, or code with runtime and handler"},
		{"bad image", "functions:\n  echo: {image: 'Echo Image'}\n", `functions.yml:2: functions.echo.image: must be an image reference, name[:tag][@digest] with the name in lower case, got "Echo Image"`},
		{"number as image", "functions:\n  echo: {image: 5}\n", "functions.yml:2: functions.echo.image: must be an image reference, name[:tag][@digest] with the name in lower case, got 5"},
		{"runtime of an image", one("runtime: python3.12"), "functions.yml:4: functions.echo.runtime: belongs to code, and there is none: a function with image has its code in the image"},
		{"image and code", one("code: ./echo\nruntime: python3.11\nhandler: app.handler"), "functions.yml:3: functions.echo.image: and code exclude each other: the image, and how it is started, follow from runtime"},
		{"no runtime", zipped("code: ./echo"), "functions.yml:3: functions.echo.runtime: is missing: what runs the code: nodejs24.x, provided.al2, provided.al2023, python3.11"},
		{"unknown runtime", zipped("code: ./echo\nruntime: cobol85\nhandler: a.b"), `functions.yml:4: functions.echo.runtime: must be the name of a runtime of AWS that this box has (nodejs24.x, provided.al2, provided.al2023, python3.11) or that runtimes: in functions.yml names, got "cobol85"`},
		{"another Python", zipped("code: ./echo\nruntime: python3.12\nhandler: a.b"), "functions.yml:4: functions.echo.runtime: python3.12 is not on this box, which has nodejs24.x, provided.al2, provided.al2023, python3.11: " +
			"where the code runs on python3.11 too, say so at the top of functions.yml (runtimes: {python3.12: python3.11}), or name an image with that runtime (runtimes: {python3.12: my/image:tag})"},
		{"Node.js of old", zipped("code: ./echo\nruntime: nodejs16.x\nhandler: a.b"), "functions.yml:4: functions.echo.runtime: nodejs16.x is not on this box, which has nodejs24.x, provided.al2, provided.al2023, python3.11: " +
			"where the code runs on nodejs24.x too, say so at the top of functions.yml (runtimes: {nodejs16.x: nodejs24.x}), or name an image with that runtime (runtimes: {nodejs16.x: my/image:tag})"},
		{"Node.js to come", zipped("code: ./echo\nruntime: nodejs26.x\nhandler: a.b"), "functions.yml:4: functions.echo.runtime: nodejs26.x is not on this box, which has nodejs24.x, provided.al2, provided.al2023, python3.11: " +
			"where the code runs on nodejs24.x too, say so at the top of functions.yml (runtimes: {nodejs26.x: nodejs24.x}), or name an image with that runtime (runtimes: {nodejs26.x: my/image:tag})"},
		{"Java", zipped("code: ./echo\nruntime: java21\nhandler: a.B::c"), "functions.yml:4: functions.echo.runtime: java21 is not on this box, which has nodejs24.x, provided.al2, provided.al2023, python3.11: " +
			"name an image with that runtime at the top of functions.yml (runtimes: {java21: my/image:tag}), make the function an image, or bring the runtime as bootstrap with provided.al2023"},
		{"Go of old", zipped("code: ./echo\nruntime: go1.x\nhandler: a"), "functions.yml:4: functions.echo.runtime: go1.x is not on this box, nor any more on AWS: " +
			"build the program as bootstrap (GOOS=linux go build -tags lambda.norpc -o bootstrap) and say provided.al2023"},
		{"runtime that nobody has", "runtimes: {cobol85: my/cobol}\nfunctions: {}\n", "functions.yml:1: runtimes.cobol85: is not the name of a runtime of AWS, such as python3.12 or java21"},
		{"runtime run by one that is not there", "runtimes: {python3.13: python3.12}\nfunctions: {}\n", "functions.yml:1: runtimes.python3.13: must be another runtime, " +
			"one that this box has (nodejs24.x, provided.al2, provided.al2023, python3.11), or an image that runs python3.13, got python3.12"},
		{"runtime run by no image", "runtimes: {python3.13: 'A B'}\nfunctions: {}\n", `functions.yml:1: runtimes.python3.13: must be an image reference, name[:tag][@digest] with the name in lower case, got "A B"`},
		{"no handler", zipped("code: ./echo\nruntime: nodejs24.x"), "functions.yml:3: functions.echo.handler: is missing: what the runtime calls, module.function, such as app.handler"},
		{"handler with a space", zipped("code: ./echo\nruntime: nodejs24.x\nhandler: a b"), `functions.yml:5: functions.echo.handler: must have 1 to 128 characters and no spaces, got "a b"`},
		{"code elsewhere", zipped("code: https://host/a.zip\nruntime: provided.al2023"), `functions.yml:3: functions.echo.code: must be s3://bucket/key.zip, or the path of a zip file or folder, got "https://host/a.zip"`},
		{"code without a key", zipped("code: s3://bucket\nruntime: provided.al2023"), `functions.yml:3: functions.echo.code: must be s3://bucket/key.zip, or the path of a zip file or folder, got "s3://bucket"`},
		{"empty code", zipped("code:\nruntime: provided.al2023"), "functions.yml:3: functions.echo.code: is empty: give it a value or remove it"},
		{"six layers", zipped("code: c\nruntime: provided.al2023\nlayers: [a, a, a, a, a, a]"), "functions.yml:5: functions.echo.layers: must be at most 5 layers (AWS's limit), got 6"},
		{"code behind RIE", zipped("code: c\nruntime: provided.al2023\nruntime_interface: rie"), "functions.yml:5: functions.echo.runtime_interface: must be supervisor with code"},
		{"function name", "functions:\n  'my function': {image: a}\n", "functions.yml:2: functions.my function: is not a function name: 1 to 64 letters, digits, dashes and underscores"},
		{"interface", one("runtime_interface: http"), `functions.yml:4: functions.echo.runtime_interface: must be one of supervisor, rie, got "http"`},
		{"pull policy", one("pull_policy: Always"), `functions.yml:4: functions.echo.pull_policy: must be one of always, if_not_present, never, got "Always"`},
		{"entrypoint as text", one("entrypoint: /bin/app"), `functions.yml:4: functions.echo.entrypoint: must be a list, got "/bin/app"`},
		{"number in a list", one("command: [a, 1]"), "functions.yml:4: functions.echo.command[1]: must be a text, got 1"},
		{"empty list", one("command: []"), "functions.yml:4: functions.echo.command: must not be an empty list: remove it to keep the image's own"},
		{"relative folder", one("working_directory: task"), `functions.yml:4: functions.echo.working_directory: must be an absolute path, got "task"`},
		{"reserved variable", one("environment: {AWS_REGION: x}"), "functions.yml:4: functions.echo.environment.AWS_REGION: is a name that Lambda reserves and sets itself: choose another"},
		{"variable of the box", one("environment: {ESB_INIT_STANDBY: 1}"), "functions.yml:4: functions.echo.environment.ESB_INIT_STANDBY: is a name that the box reserves: choose one that does not begin with ESB_INIT_"},
		{"variable name", one("environment: {MY-VAR: x}"), "functions.yml:4: functions.echo.environment.MY-VAR: is not the name of a variable: a letter, then letters, digits and underscores"},
		{"variable as mapping", one("environment:\n  A: {b: c}"), "functions.yml:5: functions.echo.environment.A: must be a text, got a mapping"},
		{"variable with NUL", one(`environment: {A: "x\0"}`), "functions.yml:4: functions.echo.environment.A: must not contain a NUL character"},
		{"environment as list", one("environment: [A=b]"), "functions.yml:4: functions.echo.environment: must be a mapping of keys to values, got a list"},
		{"unset variable", one("environment: {A: '${NOPE}'}"), "functions.yml:4: functions.echo.environment.A: the environment variable NOPE is not set"},
		{"default syntax", one("environment: {A: '${TABLE:-x}'}"), "functions.yml:4: functions.echo.environment.A: ${TABLE:-x} is not supported: only ${NAME} is; write $${ for a plain ${"},
		{"open variable", one("environment: {A: '${TABLE'}"), "functions.yml:4: functions.echo.environment.A: has ${ without }: write $${ for a plain ${"},
		{"variable that is no number", one("timeout: ${TABLE}"), `functions.yml:4: functions.echo.timeout: must be a whole number of seconds, got "items"`},
		{"too much environment", one("environment: {BIG: " + strings.Repeat("x", 4094) + "}"), "functions.yml:3: functions.echo.environment: must be at most 4096 bytes, all names and values together and those of defaults too (AWS's limit), is 4097"},
		{"min over max", one("scaling: {min_capacity: 2, standby: 2, max_capacity: 3}"), "functions.yml:4: functions.echo.scaling: min_capacity 2 and standby 2, together, must not be more than max_capacity 3 (what is not set here comes from defaults)"},
		{"min over max from defaults", "defaults:\n  scaling: {standby: 1}\nfunctions:\n  echo: {image: a, ReservedConcurrentExecutions: 0}\n", "functions.yml:4: functions.echo.scaling: min_capacity 0 and standby 1, together, must not be more than max_capacity 0 (what is not set here comes from defaults)"},
		{"reserved and max differ", one("ReservedConcurrentExecutions: 2\nscaling: {max_capacity: 3}"), "functions.yml:4: functions.echo.ReservedConcurrentExecutions: is 2 and max_capacity on line 5 is 3: they mean the same; keep one"},
		{"standby with rie", one("runtime_interface: rie\nscaling: {standby: 1}"), "functions.yml:5: functions.echo.scaling.standby: must be 0 with runtime_interface: rie: only lambda-init can stand by"},
		{"image in defaults", "defaults: {image: a}\nfunctions: {}\n", "functions.yml:1: defaults.image: is not a known key; known are async, environment, ephemeral_storage, freeze, logging, memory_size, pull_policy, recursive_loop, runtime_interface, s3, scaling, tables, timeout"},
		{"functions as list", "functions: [a]\n", "functions.yml:1: functions: must be a mapping of keys to values, got a list"},
		{"function as text", "functions: {echo: esb/echo}\n", `functions.yml:1: functions.echo: must be a mapping of keys to values, got "esb/echo"`},
		{"top list", "- a\n", "functions.yml:1: must be a mapping of keys to values, got a list"},
		{"no functions", "defaults: {}\n", "functions.yml:1: functions: is missing: a mapping of function names to their images; write functions: {} for none"},
		{"empty file", "", "functions.yml: is empty: it needs the key functions"},
		{"comments only", "# nothing\n", "functions.yml: is empty: it needs the key functions"},
		{"not YAML", "functions:\n  echo: {image: a\n", "functions.yml:2: is not valid YAML: did not find expected ',' or '}'"},
		{"tab", "functions:\n\techo: 1\n", "functions.yml:2: is not valid YAML: it is indented with a tab: YAML wants spaces (found character that cannot start any token)"},
		{"two documents", "functions: {}\n---\nfunctions: {}\n", "functions.yml:2: has a second document: remove the --- before it"},
		{"merge key", "functions:\n  a: &a {image: a}\n  b: {<<: *a}\n", "functions.yml:3: functions.b: uses a merge key (<<), which is not supported: write the keys out, or put them under defaults\nfunctions.yml:3: functions.b.image: is missing: the function's container image, such as esb/lambda-echo:latest, or code with runtime and handler"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, c.functions, noRoutes)
			require.EqualError(t, err, c.want)
		})
	}
}

func TestLoad_RIEWithStandbyFromDefaults_HasNone(t *testing.T) {
	c := mustLoad(t, "defaults: {scaling: {standby: 1}}\nfunctions: {a: {image: a, runtime_interface: rie}}\n", noRoutes)
	assert.Equal(t, 0, c.Functions["a"].Scaling.Standby)
}

func TestLoad_ManyProblems_ReportsAllOfBothFilesInOrder(t *testing.T) {
	_, err := load(t, `functions:
  b: {image: b, timeout: 0}
  a: {memory_size: 1}
`, `routes:
  - {path: /x, method: GET, function: b}
  - {path: y, method: GIT, function: c}
`)
	require.EqualError(t, err, strings.Join([]string{
		"functions.yml:2: functions.b.timeout: must be 1 to 900 seconds, got 0",
		"functions.yml:3: functions.a.memory_size: must be 128 to 10240 MB, got 1",
		"functions.yml:3: functions.a.image: is missing: the function's container image, such as esb/lambda-echo:latest, or code with runtime and handler",
		`routing.yml:3: routes[1].path: must begin with a slash, got "y"`,
		`routing.yml:3: routes[1].method: must be ANY or of DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, got "GIT"`,
		"routing.yml:3: routes[1].function: there is no function c",
	}, "\n"))
}

func TestLoad_Routes_AreTaken(t *testing.T) {
	c := mustLoad(t, "functions: {users: {image: u}}\n", `
routes:
  - path: /api/users/{id}
    method: ANY
    function: users
  - path: /api/users
    method: [get, POST]
    function: {container: users}
    auth: api_key
    payload: 2.0
    timeout: 0.5
    binary_media_types: [image/PNG, "*/*"]
  - path: /inline
    method: PUT
    auth: none
    function: {container: inline-fn, image: i, environment: {A: b}, timeout: 7}
  - path: /inline/again
    method: PUT
    function: inline-fn
    stream: true
    timeout: 900
  - path: /inline/same
    method: PUT
    function: {container: inline-fn, image: i, environment: {A: b}, timeout: 7}
`)
	users, inline := c.Functions["users"], c.Functions["inline-fn"]
	require.NotNil(t, inline)
	assert.Len(t, c.Functions, 2)
	assert.Equal(t, "i", inline.Image)
	assert.Equal(t, map[string]string{"A": "b"}, inline.Environment)
	assert.Equal(t, 7*time.Second, inline.Timeout)

	full := 29 * time.Second
	assert.Equal(t, []gateway.Route{
		{Path: "/api/users/{id}", Function: users, Auth: gateway.AuthJWT, Payload: gateway.PayloadV1, Timeout: full},
		{Path: "/api/users", Methods: []string{"GET", "POST"}, Function: users, Auth: gateway.AuthAPIKey, Payload: gateway.PayloadV2,
			Timeout: 500 * time.Millisecond, BinaryMediaTypes: []string{"image/png", "*/*"}},
		{Path: "/inline", Methods: []string{"PUT"}, Function: inline, Auth: gateway.AuthNone, Payload: gateway.PayloadV1, Timeout: full},
		{Path: "/inline/again", Methods: []string{"PUT"}, Function: inline, Auth: gateway.AuthJWT, Payload: gateway.PayloadV1, Timeout: 15 * time.Minute, Stream: true},
		{Path: "/inline/same", Methods: []string{"PUT"}, Function: inline, Auth: gateway.AuthJWT, Payload: gateway.PayloadV1, Timeout: full},
	}, c.Routes)
	for _, r := range c.Routes {
		assert.Same(t, c.Functions[r.Function.Name], r.Function, "a route must share the function of the map")
	}
}

// rt wraps the keys of one route, each on a line of its own from line 2.
func rt(lines ...string) string {
	return "routes:\n  - " + strings.Join(lines, "\n    ") + "\n"
}

func TestLoad_BadRouting_NamesFileLineAndKey(t *testing.T) {
	const path, method, function = "path: /x", "method: GET", "function: users"
	for _, c := range []struct{ name, routing, want string }{
		{"no path", rt(method, function), "routing.yml:2: routes[0].path: is missing: such as /api/users/{id}"},
		{"no method", rt(path, function), "routing.yml:2: routes[0].method: is missing: ANY, one method, or a list of methods"},
		{"no function", rt(path, method), "routing.yml:2: routes[0].function: is missing: the name of a function, or its definition"},
		{"template", rt("path: /{p+}/x", method, function), `routing.yml:2: routes[0].path: segment 1 of "/{p+}/x": a greedy parameter must be the last segment`},
		{"login", rt("path: /user/auth/ver1.0", method, function), "routing.yml:2: routes[0].path: /user/auth/ver1.0 is served by the gateway itself: the login (AUTH_ENDPOINT_PATH)"},
		{"Lambda's API", rt("path: /2015-03-31/functions/{name}", method, function), "routing.yml:2: routes[0].path: /2015-03-31/functions/{name} is served by the gateway itself: Lambda's API"},
		{"no methods", rt(path, "method: []", function), "routing.yml:3: routes[0].method: must not be an empty list: write ANY for every method"},
		{"ANY in a list", rt(path, "method: [GET, ANY]", function), "routing.yml:3: routes[0].method[1]: must be ANY alone, or a list without it"},
		{"method twice", rt(path, "method: [GET, get]", function), "routing.yml:3: routes[0].method[1]: GET is listed twice"},
		{"unknown function", rt(path, method, "function: user"), "routing.yml:4: routes[0].function: there is no function user; did you mean users?"},
		{"unknown container", rt(path, method, "function: {container: nobody}"), "routing.yml:4: routes[0].function.container: there is no function nobody"},
		{"inline without name", rt(path, method, "function: {image: a}"), "routing.yml:4: routes[0].function.container: is missing: the function's name"},
		{"inline without image", rt(path, method, "function: {container: new, timeout: 3}"), "routing.yml:4: routes[0].function.image: is missing: the function's container image, such as esb/lambda-echo:latest, or code with runtime and handler"},
		{"inline with a bad key", rt(path, method, "function: {container: new, image: a, timeout: 0}"), "routing.yml:4: routes[0].function.timeout: must be 1 to 900 seconds, got 0"},
		{"inline that invokes nobody", rt(path, method, "function: {container: new, image: a, invoke: [nobody]}"), "routing.yml:4: routes[0].function.invoke[0]: there is no function nobody"},
		{"inline with a bad name", rt(path, method, "function: {container: new fn, image: a}"), `routing.yml:4: routes[0].function.container: "new fn" is not a function name: 1 to 64 letters, digits, dashes and underscores`},
		{"inline over another file's", rt(path, method, "function: {container: users, image: a}"), "routing.yml:4: routes[0].function.container: users is a function of the functions file already: write function: users"},
		{"auth", rt(path, method, function, "auth: basic"), `routing.yml:5: routes[0].auth: must be one of jwt, api_key, none, got "basic"`},
		{"payload", rt(path, method, function, "payload: 3.0"), `routing.yml:5: routes[0].payload: must be one of 1.0, 2.0, got "3.0"`},
		{"timeout", rt(path, method, function, "timeout: 30"), "routing.yml:5: routes[0].timeout: must be 0.05 to 29 seconds, got 30"},
		{"timeout of a stream", rt(path, method, function, "stream: true", "timeout: 901"), "routing.yml:6: routes[0].timeout: must be 0.05 to 900 seconds, got 901"},
		{"stream off", rt(path, method, function, "stream: false", "timeout: 30"), "routing.yml:6: routes[0].timeout: must be 0.05 to 29 seconds, got 30"},
		{"stream as text", rt(path, method, function, "stream: STREAM"), `routing.yml:5: routes[0].stream: must be true or false, got "STREAM"`},
		{"stream of rie", rt(path, method, "function: {container: new, image: a, runtime_interface: rie}", "stream: true"), "routing.yml:5: routes[0].stream: the function new cannot stream: its runtime_interface is rie, which collects every answer"},
		{"timeout as text", rt(path, method, function, "timeout: 5s"), `routing.yml:5: routes[0].timeout: must be a number of seconds, got "5s"`},
		{"media type", rt(path, method, function, "binary_media_types: [png]"), `routing.yml:5: routes[0].binary_media_types[0]: must be a media type such as image/png or */*, got "png"`},
		{"unknown key", rt(path, method, function, "authh: jwt"), "routing.yml:5: routes[0].authh: is not a known key; did you mean auth?"},
		{"route as text", "routes: [/x]\n", `routing.yml:1: routes[0]: must be a mapping of keys to values, got "/x"`},
		{"routes as mapping", "routes: {}\n", "routing.yml:1: routes: must be a list, got a mapping"},
		{"empty file", "", "routing.yml: is empty: it needs the key routes"},
		{"equal", "routes:\n  - {path: '/a/{x}', method: [GET, PUT], function: users}\n  - {path: '/a/{y}', method: PUT, function: users}\n",
			"routing.yml:3: routes[1].path: the route PUT /a/{} is given twice, first on line 2 (names of parameters do not tell routes apart)"},
		{"equal for any", "routes:\n  - {path: /a, method: ANY, function: users}\n  - {path: /a, method: GET, function: users}\n  - {path: /a, method: any, function: users}\n",
			"routing.yml:4: routes[2].path: the route ANY /a is given twice, first on line 2 (names of parameters do not tell routes apart)"},
		{"inline twice, different", "routes:\n  - {path: /a, method: ANY, function: {container: n, image: a}}\n  - {path: /b, method: ANY, function: {container: n, image: b}}\n",
			"routing.yml:3: routes[1].function.container: n is defined otherwise on line 2: define it once, and write function: n elsewhere"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, "functions: {users: {image: u}}\n", c.routing)
			require.EqualError(t, err, c.want)
		})
	}
}

func TestLoad_RouteToARefusedFunction_IsNoSecondProblem(t *testing.T) {
	_, err := load(t, "functions:\n  users:\n", rt("path: /x", "method: GET", "function: users"))
	require.EqualError(t, err, "functions.yml:2: functions.users: is empty: give it a value or remove it")
}

func TestLoad_MissingFile_NamesTheSetting(t *testing.T) {
	dir := t.TempDir()
	present := filepath.Join(dir, "functions.yml")
	_, err := config.Load(present, filepath.Join(dir, "routing.yml"), options())
	require.ErrorContains(t, err, "FUNCTIONS_CONFIG_PATH")
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(present, []byte(noFunctions), 0o600))
	_, err = config.Load(present, filepath.Join(dir, "routing.yml"), options())
	require.ErrorContains(t, err, "ROUTING_CONFIG_PATH")
}

func TestGeneration_FollowsWhatAContainerDependsOn(t *testing.T) {
	generation := func(keys string) string {
		return mustLoad(t, one(keys), noRoutes).Functions["echo"].Generation
	}
	base := generation("environment: {A: a, B: b}")
	for _, same := range []string{
		"environment: {B: b, A: a}",
		"environment: {A: a, B: b}\nscaling: {max_capacity: 3, idle_timeout: 9}",
		"environment: {A: a, B: b}\npull_policy: never",
		"environment: {A: a, B: b}\ntimeout: 3",
	} {
		assert.Equal(t, base, generation(same), same)
	}
	for _, other := range []string{
		"environment: {A: a, B: c}",
		"environment: {A: a, B: b}\ntimeout: 4",
		"environment: {A: a, B: b}\nmemory_size: 129",
		"environment: {A: a, B: b}\nephemeral_storage: 513",
		"environment: {A: a, B: b}\nruntime_interface: rie",
		"environment: {A: a, B: b}\ncommand: [x]",
		"environment: {A: a, B: b}\nentrypoint: [x]",
		"environment: {A: a, B: b}\nworking_directory: /x",
	} {
		assert.NotEqual(t, base, generation(other), other)
	}
	assert.NotEqual(t, generation("command: [x]"), generation("entrypoint: [x]"))
}

// The samples are what `task up` runs with.
func TestLoad_SampleFiles_AreValid(t *testing.T) {
	const dir = "../../functions/"
	o := options()
	o.ResourcesPath = dir + "resources.yml"
	c, err := config.Load(dir+"functions.yml", dir+"routing.yml", o)
	require.NoError(t, err)
	found := make(map[string]string)
	for _, r := range c.Routes {
		want := gateway.AuthJWT
		if strings.HasSuffix(r.Path, "/guarded") {
			want = gateway.AuthFunction
		}
		assert.Equal(t, want, r.Auth, r.Path)
		found[strings.Join(r.Methods, ",")+" "+r.Path] = r.Function.Image
	}
	assert.Equal(t, map[string]string{
		"POST /api/echo": "esb/lambda-echo:latest",
		" /api/event":    "esb/lambda-event:latest",
		" /api/v2/event": "esb/lambda-event:latest", " /api/event/{proxy+}": "esb/lambda-event:latest",
		"POST /api/respond":         "esb/lambda-respond:latest",
		"POST /api/chaos":           "esb/lambda-chaos:latest",
		"POST /api/chaos/impatient": "esb/lambda-chaos:latest",
		"POST /api/s3":              "esb/lambda-s3:latest",
		"POST /api/watched":         "",
		"POST /api/invoke":          "esb/lambda-invoke:latest",
		"POST /api/dynamodb":        "esb/lambda-dynamodb:latest",
		"POST /api/hello-python":    "esb/lambda-hello-python:latest",
		"POST /api/hello-node":      "esb/lambda-hello-node:latest",
		"GET /api/guarded":          "esb/lambda-event:latest",
		"GET /api/v2/guarded":       "esb/lambda-event:latest",
		"GET /api/stream":           "esb/lambda-stream:latest",
		"GET /api/stream-node":      "esb/lambda-stream-node:latest",
	}, found)
	assert.Len(t, c.Functions, 13)
	assert.Len(t, c.Resources.Tables, 2)
	assert.Len(t, c.Resources.Buckets, 1)
}

func TestLoad_StoreAccess_OfAFunctionReplacesThatOfDefaults(t *testing.T) {
	cfg, err := load(t, `defaults:
  s3: [{bucket: "*", access: read}]
  tables: ["*"]
functions:
  a: {image: a}
  b: {image: a, s3: [{bucket: data-*, prefix: b/, access: write}], tables: [x, {table: "y-*", access: read}]}
  c: {image: a, s3: [], tables: []}
`, "routes:\n  - {path: /x, method: GET, function: {container: d, image: b, tables: [z]}}\n")
	require.NoError(t, err)
	assert.True(t, cfg.NamesStores)
	all, table := []gateway.ObjectAccess{{Bucket: "*"}}, []gateway.TableAccess{{Table: "*", Write: true}}
	assert.Equal(t, gateway.StoreAccess{S3: all, Tables: table}, cfg.Functions["a"].Stores)
	assert.Equal(t, gateway.StoreAccess{
		S3:     []gateway.ObjectAccess{{Bucket: "data-*", Prefix: "b/", Write: true}},
		Tables: []gateway.TableAccess{{Table: "x", Write: true}, {Table: "y-*"}},
	}, cfg.Functions["b"].Stores)
	assert.Empty(t, cfg.Functions["c"].Stores)
	assert.Equal(t, gateway.StoreAccess{S3: all, Tables: []gateway.TableAccess{{Table: "z", Write: true}}}, cfg.Functions["d"].Stores)

	plain, err := load(t, "functions:\n  b: {image: a}\n", "routes: []\n")
	require.NoError(t, err)
	assert.False(t, plain.NamesStores)
	assert.Empty(t, plain.Functions["b"].Stores)
	with, err := load(t, "functions:\n  b: {image: a, tables: [t]}\n", "routes: []\n")
	require.NoError(t, err)
	assert.Equal(t, plain.Functions["b"].Generation, with.Functions["b"].Generation, "a container does not know of it")
}

// FuzzLoad checks that no file makes the parser panic, and that what it takes keeps the promises of the types.
func FuzzLoad(f *testing.F) {
	f.Add(one("timeout: 3"), rt("path: /x", "method: GET", "function: echo"))
	f.Add("functions: &a {b: *a}\n", "routes: &a [*a]\n")
	f.Add("functions:\n  ? [a]\n  : b\n", "routes:\n- !foo bar\n")
	f.Add(one("environment: !!binary aGk="), "routes: !!set {a}\n")
	dir := f.TempDir()
	fp, rp := filepath.Join(dir, "functions.yml"), filepath.Join(dir, "routing.yml")
	f.Fuzz(func(t *testing.T, functions, routing string) {
		require.NoError(t, os.WriteFile(fp, []byte(functions), 0o600))
		require.NoError(t, os.WriteFile(rp, []byte(routing), 0o600))
		c, err := config.Load(fp, rp, options())
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		for name, fn := range c.Functions {
			require.Equal(t, name, fn.Name)
			require.True(t, fn.Image != "" || fn.Code != nil)
			require.NotEmpty(t, fn.Generation)
			require.LessOrEqual(t, fn.Scaling.MinCapacity+fn.Scaling.Standby, fn.Scaling.MaxCapacity)
		}
		for _, r := range c.Routes {
			require.NotNil(t, r.Function)
			require.Same(t, c.Functions[r.Function.Name], r.Function)
			require.Positive(t, r.Timeout)
		}
	})
}

func TestLoad_Invoke_MayNameFunctionsOfBothFiles(t *testing.T) {
	cfg, err := load(t, "functions:\n  a: {image: a, invoke: [inline, a]}\n",
		"routes:\n  - {path: /x, method: GET, function: {container: inline, image: b, invoke: [a]}}\n")
	require.NoError(t, err)
	assert.Equal(t, []string{"inline", "a"}, cfg.Functions["a"].Invoke)
	assert.Equal(t, []string{"a"}, cfg.Functions["inline"].Invoke)
}

// problemsOf are the problems of the files.
func problemsOf(t *testing.T, functions, routing string) []string {
	t.Helper()
	_, err := load(t, functions, routing)
	require.Error(t, err)
	return strings.Split(err.Error(), "\n")
}

func TestLoad_CirclesOfDestinations_AreRefused(t *testing.T) {
	const three = `functions:
  a:
    image: a
    async:
      on_success: b
  b:
    image: a
    async: {on_failure: c, on_success: d}
  c: {image: a, async: {on_success: a, on_failure: b}}
  d: {image: a}
`
	problems := problemsOf(t, three, "routes: []\n")
	assert.Equal(t, []string{
		"functions.yml:5: functions.a.async.on_success: is part of a circle of destinations, in which an event would go on for ever: " +
			"a -> b (on_success, functions.yml:5) -> c (on_failure, functions.yml:8) -> a (on_success, functions.yml:9)",
		"functions.yml:9: functions.c.async.on_failure: is part of a circle of destinations, in which an event would go on for ever: " +
			"c -> b (on_failure, functions.yml:9) -> c (on_failure, functions.yml:8)",
	}, problems)

	const two = "functions:\n  a: {image: a, async: {on_success: b}}\n  b: {image: a, async: {on_failure: a}}\n"
	assert.Len(t, problemsOf(t, two, "routes: []\n"), 1)

	// A destination of all, which has none of its own, is no circle; one that has the defaults' is the function itself.
	const defaults = "defaults: {async: {on_failure: sink}}\nfunctions:\n  a: {image: a}\n  b: {image: a, async: {on_success: a}}\n  sink: {image: a, async: {on_failure: 's3://failed'}}\n"
	_, err := load(t, defaults, "routes: []\n")
	assert.NoError(t, err)

	// A function that a route has in place.
	assert.Equal(t, []string{"functions.yml:2: functions.a.async.on_success: is part of a circle of destinations, in which an event would go on for ever: " +
		"a -> here (on_success, functions.yml:2) -> a (on_success, routing.yml:4)"},
		problemsOf(t, "functions:\n  a: {image: a, async: {on_success: here}}\n", "routes:\n- path: /x\n  method: GET\n  function: {container: here, image: a, async: {on_success: a}}\n"))
}

func TestLoad_RecursiveLoop(t *testing.T) {
	cfg, err := load(t, "defaults: {recursive_loop: allow}\nfunctions:\n  a: {image: a}\n  b: {image: a, recursive_loop: terminate}\n", "routes: []\n")
	require.NoError(t, err)
	assert.True(t, cfg.Functions["a"].AllowLoops)
	assert.False(t, cfg.Functions["b"].AllowLoops)
}

func TestLoad_Async(t *testing.T) {
	cfg, err := load(t, `
defaults:
  async: {retries: 1, on_failure: "s3://failed/box"}
functions:
  a: {image: a}
  b:
    image: b
    async: {retries: 0, max_age: 60, concurrency: 2, on_success: a, on_failure: "https://host/hook", dead_letter: false}
`, "routes: []\n")
	require.NoError(t, err)
	assert.Equal(t, gateway.Async{Retries: 1, MaxAge: 6 * time.Hour, OnFailure: &gateway.Destination{Bucket: "failed", Prefix: "box/"}, DeadLetter: true}, cfg.Functions["a"].Async)
	assert.Equal(t, gateway.Async{MaxAge: time.Minute, Concurrency: 2, OnSuccess: &gateway.Destination{Function: "a"}, OnFailure: &gateway.Destination{URL: "https://host/hook"}}, cfg.Functions["b"].Async)
	for _, d := range []gateway.Destination{{Function: "a"}, {Bucket: "failed", Prefix: "box/"}, {Bucket: "failed"}, {URL: "https://host/hook"}} {
		again, err := gateway.ParseDestination(d.String())
		require.NoError(t, err)
		assert.Equal(t, d, again)
	}
}

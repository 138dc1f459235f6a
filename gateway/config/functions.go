package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
)

// Limits of AWS Lambda (developer guide, Lambda quotas) and of the box.
const (
	minTimeout, maxTimeout = 1, 900
	minMemory, maxMemory   = 128, 10240
	minStorage, maxStorage = 512, 10240
	maxEnvironment         = 4096 // bytes of all names and values
	maxCapacity            = 1000 // a bridge has 1023 ports
	maxQueue               = 100_000
)

var (
	functionName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)
	// The grammar of distribution/reference: [host[:port]/]path[:tag][@digest].
	imageReference = regexp.MustCompile(`^(?:[a-zA-Z0-9.-]+(?::[0-9]+)?/)?[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*` +
		`(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*(?::\w[\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?$`)
	environmentName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_]*$`)
)

// reservedEnvironment are the variables that Lambda sets itself and refuses (developer guide, Environment
// variables), and those that would change how the box talks to the function.
var reservedEnvironment = map[string]bool{
	"_HANDLER": true, "_X_AMZN_TRACE_ID": true, "AWS_DEFAULT_REGION": true, "AWS_REGION": true,
	"AWS_EXECUTION_ENV": true, "AWS_LAMBDA_FUNCTION_NAME": true, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": true,
	"AWS_LAMBDA_FUNCTION_VERSION": true, "AWS_LAMBDA_INITIALIZATION_TYPE": true,
	"AWS_LAMBDA_LOG_GROUP_NAME": true, "AWS_LAMBDA_LOG_STREAM_NAME": true, "AWS_ACCESS_KEY": true,
	"AWS_ACCESS_KEY_ID": true, "AWS_SECRET_ACCESS_KEY": true, "AWS_SESSION_TOKEN": true,
	"AWS_LAMBDA_RUNTIME_API": true, "LAMBDA_TASK_ROOT": true, "LAMBDA_RUNTIME_DIR": true,
	"AWS_LAMBDA_FUNCTION_TIMEOUT": true, "AWS_LAMBDA_MAX_CONCURRENCY": true, "AWS_ACCOUNT_ID": true,
	"ESB_SYSTEM_LOG_LEVEL": true,
}

// functionSet is what functions.yml says, for routing.yml to refer to and add to.
type functionSet struct {
	defaults  functionDefaults
	functions map[string]*gateway.Function
	// schedules says where the schedule of each name is.
	schedules map[string]string
	// declared has the line of every function of the file, the refused ones too, so that a route to one of
	// those is no second problem.
	declared map[string]int
	// unread is true when nobody knows which functions functions.yml has, so that a name that is not there is no problem.
	unread bool
	// circles are the steps of circles of destinations that were reported.
	circles map[send]bool
	// docs are the files that have functions, whose mentions of others are looked up when all are known.
	docs []*document
}

// functionDefaults is the part of an entry that the section defaults may give.
type functionDefaults struct {
	environment map[string]string
	scaling     gateway.Scaling
	timeout     int // seconds
	memory      int // MB
	storage     int // MB
	iface       gateway.RuntimeInterface
	pullPolicy  string
	freeze      bool
	async       gateway.Async
	allowLoops  bool
	stores      gateway.StoreAccess
	logging     gateway.Logging
}

func codeDefaults(opts Options) functionDefaults {
	return functionDefaults{
		scaling: gateway.Scaling{
			MaxCapacity:    10,
			IdleTimeout:    opts.IdleTimeout,
			AcquireTimeout: 30 * time.Second,
			Queue:          100,
		},
		timeout:    3, // AWS's default
		memory:     minMemory,
		storage:    minStorage,
		iface:      gateway.Supervisor,
		pullPolicy: "if_not_present",
		async:      gateway.Async{Retries: gateway.MaxAsyncRetries, MaxAge: gateway.MaxAsyncAge, DeadLetter: true},
	}
}

func parseFunctions(f file, opts Options) (*functionSet, []Problem) {
	have := opts.Runtimes
	if have == nil {
		have = DefaultRuntimes()
	}
	d := &document{path: f.path, lookupEnv: opts.LookupEnv, runtimes: &runtimes{have: slices.Sorted(slices.Values(have)), given: map[string]string{}}}
	set := &functionSet{
		defaults:  codeDefaults(opts),
		functions: make(map[string]*gateway.Function),
		schedules: make(map[string]string),
		declared:  make(map[string]int),
		circles:   make(map[send]bool),
		docs:      []*document{d},
	}
	set.unread = true
	top, ok := d.open(f.data, "the key functions")
	if !ok {
		return set, d.sorted()
	}
	if v, ok := top.get("runtimes"); ok {
		v.runtimes(d.runtimes)
	}
	if v, ok := top.get("defaults"); ok {
		if o, ok := v.object(); ok {
			o.defaults(&set.defaults)
			o.close()
		}
	}
	if v, ok := top.need("functions", "a mapping of function names to their images; write functions: {} for none"); ok {
		if o, ok := v.object(); ok {
			set.unread = false
			for _, name := range o.names {
				entry := o.fields[name]
				set.declared[name] = entry.line
				if !functionName.MatchString(name) {
					entry.problemf("is not a function name: 1 to 64 letters, digits, dashes and underscores")
					continue
				}
				if entry.null() {
					continue // reported by object
				}
				if fo, ok := entry.object(); ok {
					f := fo.function(name, set.defaults)
					set.functions[name] = f
					set.claimSchedules(fo, f)
				}
			}
		}
	}
	top.close()
	return set, d.sorted()
}

// checkMentions looks up the functions that functions name, when all are known. A problem is one of the file that
// names them.
func (s *functionSet) checkMentions() []Problem {
	var problems []Problem
	for _, d := range s.docs {
		d.problems = nil
		for _, m := range d.mentions {
			if _, ok := s.declared[m.name]; ok || s.unread {
				continue
			}
			if guess := nearest(m.name, s.known()); guess != "" {
				m.value.problemf("there is no function %s; did you mean %s?", m.name, guess)
			} else {
				m.value.problemf("there is no function %s", m.name)
			}
		}
		s.checkCircles(d)
		problems = append(problems, d.sorted()...)
	}
	return problems
}

// invoke reads which functions this one may invoke.
func (v value) invoke() []string {
	items, ok := v.list()
	if !ok {
		return nil
	}
	var names []string
	for _, item := range items {
		name, ok := item.text("the name of a function")
		if !ok {
			continue
		}
		if slices.Contains(names, name) {
			item.problemf("names %s twice", name)
			continue
		}
		names = append(names, name)
		v.doc.mentions = append(v.doc.mentions, mention{value: item, name: name})
	}
	return names
}

// defaults reads the keys that defaults and a function share over those in def.
func (o *object) defaults(def *functionDefaults) {
	if v, ok := o.get("environment"); ok {
		def.environment = v.environment(def.environment)
	}
	if v, ok := o.get("scaling"); ok {
		def.scaling = v.scaling(def.scaling)
	}
	if v, ok := o.get("timeout"); ok {
		if n, ok := v.integer(minTimeout, maxTimeout, "seconds"); ok {
			def.timeout = n
		}
	}
	if v, ok := o.get("memory_size"); ok {
		if n, ok := v.integer(minMemory, maxMemory, "MB"); ok {
			def.memory = n
		}
	}
	if v, ok := o.get("ephemeral_storage"); ok {
		if n, ok := v.integer(minStorage, maxStorage, "MB"); ok {
			def.storage = n
		}
	}
	if v, ok := o.get("async"); ok {
		def.async = v.async(def.async)
	}
	if v, ok := o.get("recursive_loop"); ok {
		if s, ok := v.oneOf("allow", "terminate"); ok {
			def.allowLoops = s == "allow"
		}
	}
	if v, ok := o.get("s3"); ok {
		def.stores.S3 = v.objects()
	}
	if v, ok := o.get("tables"); ok {
		def.stores.Tables = v.tables()
	}
	if v, ok := o.get("runtime_interface"); ok {
		if s, ok := v.oneOf(string(gateway.Supervisor), string(gateway.RIE)); ok {
			def.iface = gateway.RuntimeInterface(s)
		}
	}
	if v, ok := o.get("freeze"); ok {
		if on, ok := v.boolean(); ok {
			def.freeze = on
		}
	}
	if v, ok := o.get("logging"); ok {
		def.logging = v.logging(def.logging)
	}
	if v, ok := o.get("pull_policy"); ok {
		if s, ok := v.oneOf(gateway.PullAlways, "if_not_present", "never"); ok {
			def.pullPolicy = s
		}
	}
}

// function reads one function's entry and closes o.
func (o *object) function(name string, def functionDefaults) *gateway.Function {
	before := len(o.doc.problems)
	o.defaults(&def)
	f := &gateway.Function{
		Name:               name,
		PullPolicy:         def.pullPolicy,
		Environment:        def.environment,
		Timeout:            time.Duration(def.timeout) * time.Second,
		MemoryMB:           def.memory,
		EphemeralStorageMB: def.storage,
		Interface:          def.iface,
		Freeze:             def.freeze,
		Scaling:            def.scaling,
		Async:              def.async,
		AllowLoops:         def.allowLoops,
		Stores:             def.stores,
		Logging:            def.logging,
	}
	given := 0
	if v, ok := o.fields["scaling"]; ok {
		given, _ = fieldOf(v, "max_capacity")
	}
	o.reservedConcurrency(&f.Scaling, given)
	f.Code = o.code()
	if o.has("code") {
		o.withoutImage(f)
	} else if v, ok := o.need("image", "the function's container image, such as esb/lambda-echo:latest, or code with runtime and handler"); ok {
		f.Image = v.image()
	}
	if v, ok := o.get("entrypoint"); ok {
		f.Entrypoint = v.texts()
	}
	if v, ok := o.get("command"); ok {
		f.Command = v.texts()
	}
	if v, ok := o.get("invoke"); ok {
		f.Invoke = v.invoke()
	}
	if v, ok := o.get("working_directory"); ok {
		if s, ok := v.text("an absolute path"); ok {
			if !strings.HasPrefix(s, "/") {
				v.problemf("must be an absolute path, got %q", s)
			}
			f.WorkingDirectory = s
		}
	}
	f.Schedules = o.schedules(name)
	o.close()
	// The rules between keys, only when each key is right by itself.
	if len(o.doc.problems) == before {
		o.together(f)
	}
	f.Generation = generation(f)
	return f
}

// together checks the rules between keys.
func (o *object) together(f *gateway.Function) {
	if size := environmentSize(f.Environment); size > maxEnvironment {
		o.doc.problemf(o.line, join(o.key, "environment"),
			"must be at most %d bytes, all names and values together and those of defaults too (AWS's limit), is %d", maxEnvironment, size)
	}
	line, own := o.line, false
	if v, ok := o.fields["scaling"]; ok {
		line = v.line
		_, own = fieldOf(v, "standby")
	}
	s := &f.Scaling
	if f.Interface == gateway.RIE && s.Standby > 0 {
		if own {
			o.doc.problemf(line, join(o.key, "scaling.standby"), "must be 0 with runtime_interface: rie: only lambda-init can stand by")
			return
		}
		s.Standby = 0 // from defaults, which are for all functions
	}
	o.checkAsync(f)
	o.checkLogging(f)
	if s.MinCapacity+s.Standby > s.MaxCapacity {
		o.doc.problemf(line, join(o.key, "scaling"),
			"min_capacity %d and standby %d, together, must not be more than max_capacity %d (what is not set here comes from defaults)",
			s.MinCapacity, s.Standby, s.MaxCapacity)
	}
}

// fieldOf looks a key of a mapping up without reading the mapping again.
func fieldOf(v value, name string) (line int, ok bool) {
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		if v.node.Content[i].Value == name {
			return v.node.Content[i+1].Line, true
		}
	}
	return 0, false
}

// reservedConcurrency takes AWS's name for max_capacity, which stands on line given, 0 when it does not.
func (o *object) reservedConcurrency(s *gateway.Scaling, given int) {
	v, ok := o.get("ReservedConcurrentExecutions")
	if !ok {
		return
	}
	n, ok := v.integer(0, maxCapacity, "")
	if !ok {
		return
	}
	if given > 0 && s.MaxCapacity != n {
		v.problemf("is %d and max_capacity on line %d is %d: they mean the same; keep one", n, given, s.MaxCapacity)
		return
	}
	s.MaxCapacity = n
}

func (v value) scaling(s gateway.Scaling) gateway.Scaling {
	o, ok := v.object()
	if !ok {
		return s
	}
	count := func(key string, most int, to *int) {
		if v, ok := o.get(key); ok {
			if n, ok := v.integer(0, most, ""); ok {
				*to = n
			}
		}
	}
	seconds := func(key string, least, most float64, to *time.Duration) {
		if v, ok := o.get(key); ok {
			if n, ok := v.number(least, most, "seconds"); ok {
				*to = time.Duration(n * float64(time.Second))
			}
		}
	}
	count("min_capacity", maxCapacity, &s.MinCapacity)
	count("max_capacity", maxCapacity, &s.MaxCapacity)
	seconds("idle_timeout", 1, 7*24*3600, &s.IdleTimeout)
	seconds("acquire_timeout", 0.05, maxTimeout, &s.AcquireTimeout)
	count("queue", maxQueue, &s.Queue)
	count("standby", maxCapacity, &s.Standby)
	o.reservedConcurrency(&s, o.fields["max_capacity"].line)
	o.close()
	return s
}

// environment reads variables over those of base. A number or a truth value counts as the text that is written.
func (v value) environment(base map[string]string) map[string]string {
	o, ok := v.object()
	if !ok {
		return base
	}
	env := make(map[string]string, len(base)+len(o.names))
	maps.Copy(env, base)
	for _, name := range o.names {
		v := o.fields[name]
		switch {
		case reservedEnvironment[name]:
			v.problemf("is a name that Lambda reserves and sets itself: choose another")
		case strings.HasPrefix(name, "ESB_INIT_"):
			v.problemf("is a name that the box reserves: choose one that does not begin with ESB_INIT_")
		case !environmentName.MatchString(name):
			v.problemf("is not the name of a variable: a letter, then letters, digits and underscores")
		case v.null():
			// reported by object
		default:
			text, _, ok := v.scalar("a text")
			if ok && strings.ContainsRune(text, 0) {
				v.problemf("must not contain a NUL character")
			}
			env[name] = text
		}
	}
	return env
}

func environmentSize(env map[string]string) int {
	size := 0
	for name, text := range env {
		size += len(name) + len(text)
	}
	return size
}

func (v value) image() string {
	const want = "an image reference, name[:tag][@digest] with the name in lower case"
	s, ok := v.text(want)
	if ok && (len(s) > 512 || !imageReference.MatchString(s)) {
		v.problemf("must be %s, got %q", want, s)
	} else if ok {
		v.doc.images = append(v.doc.images, v.place(s))
	}
	return s
}

func (v value) texts() []string {
	items, ok := v.list()
	if !ok {
		return nil
	}
	if len(items) == 0 {
		v.problemf("must not be an empty list: remove it to keep the image's own")
	}
	texts := make([]string, 0, len(items))
	for _, item := range items {
		if s, ok := item.text("a text"); ok {
			texts = append(texts, s)
		}
	}
	return texts
}

// generation digests what a running container depends on: not the scaling, and not the pull policy, which
// matters before it runs only.
func generation(f *gateway.Function) string {
	data, err := json.Marshal(struct {
		Version          int // of this digest
		Name, Image      string
		Environment      map[string]string // json sorts the keys
		Timeout          time.Duration
		Memory, Storage  int
		Interface        gateway.RuntimeInterface
		Entrypoint       []string
		Command          []string
		WorkingDirectory string
		Code             *gateway.FunctionCode `json:",omitempty"` // without versions, which package codewatch adds
		// A container does not know of it, but one that stands still must not stay so when it is switched off.
		Freeze  bool            `json:",omitempty"`
		Logging gateway.Logging `json:",omitzero"`
	}{
		1, f.Name, f.Image, f.Environment, f.Timeout, f.MemoryMB, f.EphemeralStorageMB, f.Interface,
		f.Entrypoint, f.Command, f.WorkingDirectory, f.Code, f.Freeze, f.Logging,
	})
	if err != nil {
		panic(fmt.Sprintf("config: digest of function %s: %v", f.Name, err)) // strings and numbers always encode
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}

// known returns the names of all functions, sorted, for messages.
func (s *functionSet) known() []string {
	return slices.Sorted(maps.Keys(s.declared))
}

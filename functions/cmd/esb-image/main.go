// Command esb-image makes container images for functions without Docker and without a registry.
//
//	esb-image build-samples -out <folder> [-cache <folder>] [-src <folder>] [name...]
//	esb-image build -tag <name:tag> -out <file.tar> [-base scratch|provided|python|nodejs|<archive.tar>] ...
//	esb-image runtimes <folder>
//	esb-image push -ref <registry/name:tag> <archive.tar>
//
// `esb-image <command> -h` shows the flags of a command.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/edge-serverless-box/esb/functions/imagebuild"
	"github.com/edge-serverless-box/esb/functions/runtimes"
	"github.com/edge-serverless-box/esb/functions/samples"
)

const usage = `usage: esb-image <command> [flags]

  build-samples   build the runtime base images and those of the sample functions as OCI archives
  build           build one image from a base, files and settings
  runtimes        print the runtimes of AWS whose base images are in a folder
  push            push an archive to a registry
`

func main() { os.Exit(execute()) }

// execute runs the program and returns its exit code.
func execute() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stderr)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		return 2
	}
	fmt.Fprintln(os.Stderr, "esb-image:", err)
	return 1
}

// run runs one command; progress and help go to w.
func run(ctx context.Context, args []string, w io.Writer) error {
	log := slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
	if len(args) == 0 {
		_, _ = io.WriteString(w, usage)
		return flag.ErrHelp
	}
	flags := flag.NewFlagSet("esb-image "+args[0], flag.ContinueOnError)
	flags.SetOutput(w)
	switch args[0] {
	case "build-samples":
		return buildSamples(ctx, flags, args[1:], log)
	case "build":
		return build(ctx, flags, args[1:], log)
	case "runtimes":
		return listRuntimes(flags, args[1:], os.Stdout)
	case "push":
		return push(ctx, flags, args[1:], log)
	}
	_, _ = io.WriteString(w, usage)
	return fmt.Errorf("no command %q: must be build-samples, build, runtimes or push", args[0])
}

// withoutTime shortens progress lines: they are read while they happen.
func withoutTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
		return slog.Attr{}
	}
	return a
}

func buildSamples(ctx context.Context, flags *flag.FlagSet, args []string, log *slog.Logger) error {
	out := flags.String("out", "", "folder for the archives (required)")
	cache := cacheFlag(flags)
	source := flags.String("src", "", "folder of the module functions (default ./functions, else .)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *out == "" {
		return errors.New("build-samples: -out is required: the folder for the archives")
	}
	bases, err := newBases(*cache, log)
	if err != nil {
		return err
	}
	if *source == "" {
		*source = "functions"
		if _, err := os.Stat(*source); err != nil {
			*source = "."
		}
	}
	builder := &samples.Builder{Source: *source, Out: *out, Bases: bases, Log: log}
	return builder.Build(ctx, flags.Args()...)
}

func listRuntimes(flags *flag.FlagSet, args []string, out io.Writer) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("runtimes: one folder with image archives is required")
	}
	names, err := samples.Runtimes(flags.Arg(0))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, strings.Join(names, ","))
	return err
}

// recipe is what the flags of build say.
type recipe struct {
	base, cache, tag, out    string
	dir, handler, binary     string
	entrypoint, cmd          words
	workdir, user            string
	env, labels, files, dirs list
}

func build(ctx context.Context, flags *flag.FlagSet, args []string, log *slog.Logger) error {
	var r recipe
	flags.StringVar(&r.base, "base", "scratch", "base image: scratch, provided, python, nodejs, or an archive made by esb-image, docker save, buildx ...")
	flags.StringVar(&r.tag, "tag", "", "name of the image, name[:tag] (required)")
	flags.StringVar(&r.out, "out", "", "archive to write, <file>.tar (required)")
	flags.StringVar(&r.dir, "dir", "", "code folder, copied to "+runtimes.TaskRoot)
	flags.StringVar(&r.handler, "handler", "", "handler of Python and Node.js code, module.function: becomes the image's command")
	flags.StringVar(&r.binary, "binary", "", "static program, copied to "+runtimes.TaskRoot+"/bootstrap; the entrypoint unless -entrypoint is given")
	flags.Var(&r.entrypoint, "entrypoint", `entrypoint, words or a JSON list: '["/bin/a","b c"]'`)
	flags.Var(&r.cmd, "cmd", "command, words or a JSON list")
	flags.StringVar(&r.workdir, "workdir", "", "working directory")
	flags.StringVar(&r.user, "user", "", "user, uid[:gid] or a name of the image")
	flags.Var(&r.env, "env", "environment variable NAME=value (repeatable)")
	flags.Var(&r.labels, "label", "label name=value (repeatable)")
	flags.Var(&r.files, "file", "file or folder to add, <path in the image>=<path here> (repeatable)")
	flags.Var(&r.dirs, "mkdir", "empty folder to add (repeatable)")
	cache := cacheFlag(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	r.cache = *cache
	if r.tag == "" || r.out == "" || flags.NArg() > 0 {
		return errors.New("build: -tag and -out are required, and nothing may follow the flags")
	}
	if err := r.check(log); err != nil {
		return err
	}
	img, done, err := r.image(ctx, log)
	if err != nil {
		return fmt.Errorf("build %s: %w", r.tag, err)
	}
	defer done()
	if err := imagebuild.WriteArchive(r.out, r.tag, img, nil); err != nil {
		return err
	}
	digest, err := img.Digest()
	if err != nil {
		return fmt.Errorf("build %s: %w", r.tag, err)
	}
	info, err := os.Stat(r.out)
	if err != nil {
		return err
	}
	log.Info("built", "image", r.tag, "archive", r.out, "mb", info.Size()>>20, "digest", digest.String())
	return nil
}

// check refuses what would make an image that cannot run, before anything is downloaded.
func (r *recipe) check(log *slog.Logger) error {
	if r.dir != "" {
		info, err := os.Stat(r.dir)
		if err == nil && !info.IsDir() {
			err = errors.New("it is no folder")
		}
		if err != nil {
			return fmt.Errorf("-dir %s: the code folder cannot be read: %w", r.dir, err)
		}
	}
	if r.base != runtimes.Python && r.base != runtimes.NodeJS || len(r.entrypoint) > 0 {
		return nil
	}
	handler := r.handler
	if handler == "" && len(r.cmd) > 0 {
		handler = r.cmd[0]
	}
	if handler == "" {
		if r.dir == "" {
			return nil // an image that others are made of
		}
		return fmt.Errorf("-base %s needs -handler, what the runtime calls: module.function, such as app.handler", r.base)
	}
	if r.dir == "" || strings.HasPrefix(handler, "/") {
		return nil // its code may come with -file, or is that of the base
	}
	candidates, err := runtimes.HandlerFiles(r.base, handler)
	if err != nil {
		return fmt.Errorf("-handler %s: %w", handler, err)
	}
	for _, name := range candidates {
		if found, err := filepath.Glob(filepath.Join(r.dir, name)); err == nil && len(found) > 0 {
			return nil
		}
	}
	if len(r.files) > 0 {
		log.Warn("the handler's module is not in the code folder", "handler", handler, "dir", r.dir)
		return nil
	}
	return fmt.Errorf("-handler %s: %s has none of %s", handler, r.dir, strings.Join(candidates, ", "))
}

// image makes the image; done closes what it reads from.
func (r *recipe) image(ctx context.Context, log *slog.Logger) (img v1.Image, done func(), err error) {
	base, codeLayer, closeBase, err := r.openBase(ctx, log)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			closeBase()
		}
	}()
	config, err := r.config()
	if err != nil {
		return nil, nil, err
	}
	tree := imagebuild.NewTree()
	if r.base == "scratch" {
		tree.AddDir("/tmp", fs.ModeSticky|0o777)
	}
	for _, dir := range r.dirs {
		tree.AddDir(dir, 0)
	}
	for _, file := range r.files {
		target, source, ok := strings.Cut(file, "=")
		if !ok {
			return nil, nil, fmt.Errorf("-file %s: must be <path in the image>=<path here>", file)
		}
		if err := addPath(tree, target, source); err != nil {
			return nil, nil, err
		}
	}
	if r.binary != "" {
		tree.AddFile(runtimes.TaskRoot+"/bootstrap", r.binary, true)
	}
	layer, err := imagebuild.NewLayer(tree)
	if err != nil {
		return nil, nil, err
	}
	layers := []v1.Layer{layer}
	if r.dir != "" {
		code, err := codeLayer(ctx, r.dir)
		if err != nil {
			return nil, nil, err
		}
		layers = append(layers, code)
	}
	img, err = imagebuild.Build(base, config, layers...)
	return img, closeBase, err
}

func addPath(tree *imagebuild.Tree, target, source string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return tree.AddTree(target, source)
	}
	tree.AddFile(target, source, info.Mode()&0o111 != 0)
	return nil
}

type layerFunc func(ctx context.Context, dir string) (v1.Layer, error)

// openBase opens the base image; codeLayer makes the layer of a code folder for it, closeBase
// ends the reading from it.
func (r *recipe) openBase(ctx context.Context, log *slog.Logger) (base v1.Image, codeLayer layerFunc, closeBase func(), err error) {
	plain := func(_ context.Context, dir string) (v1.Layer, error) {
		tree := imagebuild.NewTree()
		if err := tree.AddTree(runtimes.TaskRoot, dir); err != nil {
			return nil, fmt.Errorf("code folder: %w", err)
		}
		return imagebuild.NewLayer(tree)
	}
	switch r.base {
	case "scratch":
		base, err := imagebuild.Scratch()
		return base, plain, func() {}, err
	case runtimes.Python, runtimes.NodeJS, runtimes.Provided:
		bases, err := newBases(r.cache, log)
		if err != nil {
			return nil, nil, nil, err
		}
		base, err := bases.Base(ctx, r.base)
		if err != nil {
			return nil, nil, nil, err
		}
		return base, base.CodeLayer, func() {}, nil
	}
	archive, err := imagebuild.OpenArchive(r.base)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("-base must be scratch, provided, python, nodejs or an archive: %w", err)
	}
	return archive, plain, func() { _ = archive.Close() }, nil
}

func (r *recipe) config() (imagebuild.Config, error) {
	config := imagebuild.Config{Entrypoint: r.entrypoint, Cmd: r.cmd, WorkingDir: r.workdir, User: r.user}
	if r.handler != "" {
		if len(r.cmd) > 0 {
			return config, errors.New("-handler and -cmd exclude each other: the handler is the command")
		}
		config.Cmd = []string{r.handler}
	}
	if r.binary != "" && len(r.entrypoint) == 0 {
		config.Entrypoint = []string{runtimes.TaskRoot + "/bootstrap"}
	}
	var err error
	if config.Env, err = pairs("-env", r.env); err != nil {
		return config, err
	}
	config.Labels, err = pairs("-label", r.labels)
	return config, err
}

func push(ctx context.Context, flags *flag.FlagSet, args []string, log *slog.Logger) error {
	ref := flags.String("ref", "", "where to, host[:port]/name[:tag] (required)")
	insecure := flags.Bool("insecure", false, "plain HTTP is fine, also for a host that is neither loopback nor private")
	user := flags.String("user", "", "user of the registry (default: ESB_REGISTRY_USER, else esb where there is a password, else as docker login says)")
	passwordFile := flags.String("password-file", "", "file with the password (default: the variable ESB_REGISTRY_PASSWORD, the file ESB_REGISTRY_PASSWORD_FILE, or for a registry on this machine <ESB_HOME>/data/registry.password)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *ref == "" || flags.NArg() != 1 {
		return errors.New("push: -ref and one archive are required: esb-image push -ref localhost:5010/esb/hello:1 hello.tar")
	}
	archive, err := imagebuild.OpenArchive(flags.Arg(0))
	if err != nil {
		return err
	}
	defer func() { _ = archive.Close() }()
	options := imagebuild.PushOptions{Insecure: *insecure}
	if options.User, options.Password, err = registryCredentials(*ref, *user, *passwordFile, os.Getenv); err != nil {
		return err
	}
	err = imagebuild.Push(ctx, *ref, archive, options)
	if errors.Is(err, imagebuild.ErrCredentials) {
		return fmt.Errorf("%w: give the box's with -password-file <ESB_HOME>/data/registry.password or ESB_REGISTRY_PASSWORD, or run docker login", err)
	}
	if err != nil {
		return err
	}
	log.Info("pushed", "image", *ref)
	return nil
}

// registryCredentials are what the flags say, else the environment, else those of the box around the current folder for a
// registry on this machine; no user for none.
func registryCredentials(ref, user, file string, getenv func(string) string) (name, password string, err error) {
	if user == "" {
		user = getenv("ESB_REGISTRY_USER")
	}
	password = getenv("ESB_REGISTRY_PASSWORD")
	if file != "" {
		password = ""
	} else if password == "" {
		file = getenv("ESB_REGISTRY_PASSWORD_FILE")
	}
	if file == "" && password == "" && onThisMachine(ref) {
		home := getenv("ESB_HOME")
		if home == "" {
			home = ".esb"
		}
		file = filepath.Join(home, "data", "registry.password")
		if _, err := os.Stat(file); err != nil {
			file = ""
		}
	}
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", "", fmt.Errorf("push: the password of the registry: %w", err)
		}
		password = strings.TrimSpace(string(text))
	}
	if user == "" && password != "" {
		user = "esb"
	}
	return user, password, nil
}

// onThisMachine is true for an image of a registry on loopback.
func onThisMachine(ref string) bool {
	host, _, _ := strings.Cut(ref, "/")
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func cacheFlag(flags *flag.FlagSet) *string {
	return flags.String("cache", "", "folder that keeps base images (default: .esb/cache/images of the repository, where `up` keeps them; "+
		"elsewhere, and for who may not read it, esb-image in the user's cache folder)")
}

func newBases(cache string, log *slog.Logger) (*runtimes.Builder, error) {
	if cache == "" {
		var err error
		if cache, err = defaultCache(); err != nil {
			return nil, fmt.Errorf("no cache folder: give one with -cache: %w", err)
		}
	}
	return runtimes.NewBuilder(cache, log)
}

// defaultCache is the folder in which `esb up` keeps the base images, so that what up has made or fetched is not made or
// fetched again: that of the repository around the working folder, else of the one that this program was built in.
func defaultCache() (string, error) {
	var near []string
	if dir, err := os.Getwd(); err == nil {
		near = append(near, dir)
	}
	if program, err := os.Executable(); err == nil {
		near = append(near, filepath.Dir(program))
	}
	for _, dir := range near {
		for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
			cache := filepath.Join(dir, ".esb", "cache", "images")
			if _, err := os.ReadDir(cache); err == nil { // there, and ours to read
				return cache, nil
			}
		}
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "esb-image"), err
}

// list is a flag that may be repeated.
type list []string

// String implements flag.Value.
func (l *list) String() string { return strings.Join(*l, ", ") }

// Set implements flag.Value.
func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

// words is a flag that is a list: words between spaces, or JSON.
type words []string

// String implements flag.Value.
func (w *words) String() string { return strings.Join(*w, " ") }

// Set implements flag.Value.
func (w *words) Set(value string) error {
	if strings.HasPrefix(value, "[") {
		return json.Unmarshal([]byte(value), w)
	}
	*w = strings.Fields(value)
	return nil
}

func pairs(flagName string, values []string) (map[string]string, error) {
	m := make(map[string]string, len(values))
	for _, value := range values {
		name, rest, ok := strings.Cut(value, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%s %s: must be name=value", flagName, value)
		}
		m[name] = rest
	}
	return m, nil
}

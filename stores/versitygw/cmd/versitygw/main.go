// Command versitygw serves the S3 API from one folder: versitygw's gateway with its posix backend. It is a program of
// its own because the backend changes the working directory of its process, and because one process can run one
// gateway only (versitygw v1.8.0, embedgw). `stores` starts it; credentials come in S3_ACCESS_KEY and S3_SECRET_KEY, so
// that no process list shows them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
	"golang.org/x/sys/unix"
)

// healthPath cannot be the name of a bucket, so it hides none.
const healthPath = "/_health"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "versitygw:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	addr := flag.String("addr", "", "host:port of the S3 API")
	uiAddr := flag.String("ui-addr", "", "host:port of the web UI; empty: no web UI")
	dir := flag.String("dir", "", "folder of the data")
	region := flag.String("region", "us-east-1", "region")
	endpoints := flag.String("endpoints", "", "comma-separated URLs of the S3 API that the web UI offers")
	flag.Parse()

	s, err := openStorage(*dir)
	if err != nil {
		return err
	}
	backend, err := posix.New(s.buckets, s.meta, posix.PosixOpts{
		VersioningDir:       s.versions,
		SideCarDir:          s.sidecar,
		ValidateBucketNames: true,
		CopyObjectThreshold: 5 << 30, // AWS: CopyObject takes sources of up to 5 GiB.
	})
	if err != nil {
		return fmt.Errorf("open %s: %w", *dir, err)
	}
	cfg := &embedgw.Config{
		RootUserAccess: os.Getenv("S3_ACCESS_KEY"),
		RootUserSecret: os.Getenv("S3_SECRET_KEY"),
		Region:         *region,
		Ports:          []string{*addr},
		MaxConnections: 4096, MaxRequests: 1024, // Each request in flight may hold an I/O buffer of 1 MiB.
		MultipartMaxParts: 10000,
		Quiet:             true,
		KeepAlive:         true,
		HealthPath:        healthPath,
	}
	if *uiAddr != "" {
		cfg.WebuiPorts = []string{*uiAddr}
		cfg.WebuiGateways = strings.Split(*endpoints, ",")
		// The page comes from another port than the API. Requests are signed with keys that the person types in, so there
		// is nothing that another page could make use of.
		cfg.CORSAllowOrigin = "*"
	}
	return embedgw.RunVersityGW(ctx, whole{backend}, cfg)
}

// storage is where a store keeps what. The folders are siblings because none may be inside of another.
type storage struct {
	buckets, versions string
	// sidecar is the folder of object metadata where the file system has no extended attributes; else it is empty.
	sidecar string
	meta    meta.MetadataStorer
}

// openStorage makes the folders and decides where metadata goes. The decision is for ever: objects whose metadata is
// elsewhere would lose it.
func openStorage(dir string) (storage, error) {
	if dir == "" {
		return storage{}, errors.New("-dir is missing")
	}
	s := storage{buckets: filepath.Join(dir, "buckets"), versions: filepath.Join(dir, "versions"), meta: meta.XattrMeta{}}
	_, err := os.Stat(s.buckets)
	used := err == nil
	for _, d := range []string{s.buckets, s.versions} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return storage{}, fmt.Errorf("make the folder of the data: %w", err)
		}
	}
	sidecar := filepath.Join(dir, "metadata")
	if _, err := os.Stat(sidecar); errors.Is(err, fs.ErrNotExist) {
		xattrErr := unix.Setxattr(s.buckets, "user.esb.probe", []byte("1"), 0)
		if xattrErr == nil {
			return s, nil
		}
		if used {
			return storage{}, fmt.Errorf("%s holds objects with their metadata in extended attributes, and its file system takes none (%w): put the data on one that does, such as ext4 or xfs, and restore it with its attributes (tar --xattrs)", s.buckets, xattrErr)
		}
		if err := os.Mkdir(sidecar, 0o755); err != nil {
			return storage{}, fmt.Errorf("make the folder of the metadata: %w", err)
		}
	} else if err != nil {
		return storage{}, fmt.Errorf("look for the folder of the metadata: %w", err)
	}
	s.sidecar = sidecar
	if s.meta, err = meta.NewSideCar(sidecar); err != nil {
		return storage{}, fmt.Errorf("open %s: %w", sidecar, err)
	}
	return s, nil
}

// Package app is the agent as a whole: it wires the parts together, in the order in which they need each other, and
// takes them down in the reverse one. cmd/agent and tests call it.
package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"

	"google.golang.org/grpc/credentials"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/cni"
	"github.com/edge-serverless-box/esb/agent/code"
	"github.com/edge-serverless-box/esb/agent/containerd"
	"github.com/edge-serverless-box/esb/agent/grpcapi"
	"github.com/edge-serverless-box/esb/agent/hostfiles"
	"github.com/edge-serverless-box/esb/agent/loginsert"
	"github.com/edge-serverless-box/esb/agent/logshare"
	"github.com/edge-serverless-box/esb/agent/logship"
	"github.com/edge-serverless-box/esb/agent/metrics"
	"github.com/edge-serverless-box/esb/agent/settings"
	"github.com/edge-serverless-box/esb/agent/supervisor"
	"github.com/edge-serverless-box/esb/agent/tmpdisk"
	"github.com/edge-serverless-box/esb/guard/bearer"
	"github.com/edge-serverless-box/esb/guard/memlimit"
	"github.com/edge-serverless-box/esb/guard/secretfile"
)

// Run runs the agent until ctx ends. Containers live on; the next Run adopts them. listening, when not nil, is called
// with the address of the gRPC server as soon as it serves.
func Run(ctx context.Context, s settings.Settings, log *slog.Logger, listening func(net.Addr)) (err error) {
	if err := checkRoot(); err != nil {
		return err
	}
	var closers closers
	defer func() { err = errors.Join(err, closers.close()) }()

	unlock, err := lock(s)
	if err != nil {
		return err
	}
	closers.add("release the lock", unlock)
	creds, err := transport(s)
	if err != nil {
		return err
	}
	token, err := ownToken(s)
	if err != nil {
		return err
	}
	listeners, err := listen(ctx, s, log)
	if err != nil {
		return err
	}
	defer func() { // again, when Serve was not reached
		for _, l := range listeners {
			_ = l.Close()
		}
	}()

	address, shimSockets, healthy := s.ContainerdAddress, "", func() bool { return true }
	if address == "" {
		child, err := supervisor.Start(ctx, supervisorConfig(s, log))
		if err != nil {
			return fmt.Errorf("start containerd: %w", err)
		}
		closers.add("stop containerd", child.Close)
		address, shimSockets, healthy = child.Address(), child.ShimSockets(), child.Healthy
	}
	dns, err := nameservers(s, log)
	if err != nil {
		return err
	}
	network, err := cni.Open(ctx, networkConfig(s, dns, log))
	if err != nil {
		return fmt.Errorf("open the function network: %w", err)
	}
	closers.add("close the function network", network.Close)
	store, err := code.Open(ctx, codeConfig(s, log))
	if err != nil {
		return err
	}
	closers.add("close the store of function code", store.Close)
	config := runtimeConfig(s, address, dns, log)
	machine, err := memlimit.Whole()
	if err != nil {
		return err
	}
	config.Machine, config.MemoryBudget = machine.Bytes, s.MemoryBudget.Of(machine.Bytes)
	config.Code, config.ShimSockets = store, shimSockets
	if s.TmpOnDisk {
		disks, err := tmpdisk.Open(ctx, tmpdisk.Config{Dir: filepath.Join(s.Home, "tmp"), SizeMB: s.TmpSizeMB, ReserveMB: s.TmpReserveMB, Logger: log})
		if err != nil {
			log.WarnContext(ctx, "/tmp of functions is memory, and counts as the function's: this machine makes no disks for it (FUNCTION_TMP=memory says so without this warning)", "error", err)
		} else {
			config.Disks = disks
			closers.add("give up disks that are ready", disks.Close)
		}
	}
	runtime, err := containerd.Open(ctx, config, network)
	if err != nil {
		return err
	}
	closers.add("close the runtime", runtime.Close)
	// Behind the runtime, which knows what containers there are.
	shares := logshare.New(int64(s.LogDayMB)<<20, log)
	shipper, err := logship.Open(shipperConfig(s, runtime, shares, log))
	if err != nil {
		return err
	}
	closers.add("stop shipping logs", shipper.Close)
	if s.FunctionLogsAddr != "" {
		// After the function network, which brings the address.
		posted, err := loginsert.Open(ctx, insertConfig(s, runtime, shares, log))
		if err != nil {
			return err
		}
		closers.add("stop taking log lines of functions", posted.Close)
	}
	if s.MetricsAddr != "" {
		figures, err := metrics.Open(ctx, s.MetricsAddr, func() []metrics.Figure { return logFigures(shipper.Stats(), shares) })
		if err != nil {
			return err
		}
		closers.add("stop serving metrics", figures.Close)
	}

	server := grpcapi.New(runtime, grpcapi.Options{TLS: creds, Token: token, Logger: log, Healthy: func(ctx context.Context) error {
		if !healthy() {
			return errors.New("containerd does not run")
		}
		return runtime.Healthy(ctx)
	}, Notes: func() []string { return append(notes(s), runtime.Notes()...) }})
	log.InfoContext(ctx, "agent serves", "address", listeners[0].Addr().String(), "socket", s.Socket, "tls", creds != nil, "home", s.Home, "bridge", s.Bridge, "subnet", s.Subnet.String())
	if listening != nil {
		listening(listeners[0].Addr())
	}
	return server.Serve(ctx, listeners...)
}

// Purge removes everything that agents of these settings ever made, but images, unpacked code and logs: containers and their shims,
// network, firewall, cgroups, sockets. It may be called again, and after a crash.
func Purge(ctx context.Context, s settings.Settings, log *slog.Logger) (err error) {
	if err := checkRoot(); err != nil {
		return err
	}
	unlock, err := lock(s)
	if err != nil {
		return err
	}
	if err := errors.Join(purgeContainers(ctx, s, log), unlock()); err != nil {
		return err
	}
	if err := cni.Purge(ctx, networkConfig(s, s.DNS, log)); err != nil {
		return fmt.Errorf("remove the function network: %w", err)
	}
	if err := removeRunDir(s.RunDir); err != nil {
		return err
	}
	log.InfoContext(ctx, "purged", "home", s.Home, "bridge", s.Bridge)
	return nil
}

// removeRunDir removes what agents put into the run folder, and the folder when nothing else is in it; the same with
// the folder that the run folders of all stacks are in by default.
func removeRunDir(dir string) error {
	for _, name := range []string{"c", "net", "runc", "shims", "containerd", "agent.sock", "agent.lock"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("empty the run folder: %w", err)
		}
	}
	dirs := []string{dir}
	if parent := filepath.Dir(dir); parent == settings.DefaultRunRoot {
		dirs = append(dirs, parent) // any other is not ours
	}
	for _, d := range dirs {
		if err := os.Remove(d); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.EBUSY) {
			return fmt.Errorf("remove the run folder: %w", err)
		}
	}
	return nil
}

// purgeContainers removes the stack's containers, through a containerd of its own when nobody else runs one.
func purgeContainers(ctx context.Context, s settings.Settings, log *slog.Logger) (err error) {
	address, shimSockets := s.ContainerdAddress, ""
	if address == "" {
		config := supervisorConfig(s, log)
		if _, err := os.Stat(config.Dir); errors.Is(err, fs.ErrNotExist) {
			return nil // no agent has ever run here
		}
		child, err := supervisor.Start(ctx, config)
		if err != nil {
			return fmt.Errorf("start containerd to remove its containers: %w", err)
		}
		defer func() { err = errors.Join(err, child.Close()) }()
		address, shimSockets = child.Address(), child.ShimSockets()
	}
	config := runtimeConfig(s, address, s.DNS, log)
	config.ShimSockets = shimSockets
	if err := containerd.Purge(ctx, config); err != nil {
		return fmt.Errorf("remove the containers: %w", err)
	}
	return nil
}

// closers are what has to be closed, in reverse order.
type closers []func() error

func (c *closers) add(what string, fn func() error) {
	*c = append(*c, func() error {
		if err := fn(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	})
}

func (c closers) close() error {
	var errs []error
	for i := len(c) - 1; i >= 0; i-- {
		errs = append(errs, c[i]())
	}
	return errors.Join(errs...)
}

func checkRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("the agent must run as root: it makes network namespaces, mounts and cgroups (try sudo)")
	}
	return nil
}

// lock makes sure that a stack has one agent. The kernel gives the lock back when the process ends, however it does.
func lock(s settings.Settings) (unlock func() error, err error) {
	if err := os.MkdirAll(s.RunDir, 0o711); err != nil {
		return nil, fmt.Errorf("ESB_RUN_DIR: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(s.RunDir, "agent.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("ESB_RUN_DIR: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another agent runs with ESB_BRIDGE=%s (lock %s): stop it, or set another ESB_BRIDGE, ESB_SUBNET and ESB_HOME: %w",
			s.Bridge, f.Name(), err), f.Close())
	}
	return f.Close, nil
}

// listen opens the TCP listener, and the unix socket unless that is off.
func listen(ctx context.Context, s settings.Settings, log *slog.Logger) ([]net.Listener, error) {
	tcp, err := new(net.ListenConfig).Listen(ctx, "tcp", s.GRPCAddr)
	if err != nil {
		return nil, fmt.Errorf("AGENT_GRPC_ADDR: listen on %s: %w: stop what uses the port, or choose another", s.GRPCAddr, err)
	}
	if s.Socket == "" {
		return []net.Listener{tcp}, nil
	}
	socket, err := grpcapi.ListenUnix(s.Socket, s.GatewayUID, log)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("AGENT_SOCKET: %w", err), tcp.Close())
	}
	return []net.Listener{tcp, socket}, nil
}

// ownToken returns the token that callers over TCP must bring, and leaves its file to the gateway. With mutual TLS there
// is none.
func ownToken(s settings.Settings) (bearer.Token, error) {
	if s.TLS() {
		return "", nil
	}
	token, err := secretfile.Open(s.TokenFile)
	if err != nil {
		return "", fmt.Errorf("AGENT_TOKEN_FILE: %w", err)
	}
	if err := os.Chown(s.TokenFile, s.GatewayUID, -1); err != nil {
		return "", fmt.Errorf("AGENT_TOKEN_FILE: leave it to the gateway (GATEWAY_UID): %w", err)
	}
	return bearer.Token(token), nil
}

// transport returns the credentials of mutual TLS, nil without TLS.
func transport(s settings.Settings) (credentials.TransportCredentials, error) {
	if !s.TLS() {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(s.TLSCert, s.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("AGENT_TLS_CERT, AGENT_TLS_KEY: %w", err)
	}
	pem, err := os.ReadFile(s.TLSCA)
	if err != nil {
		return nil, fmt.Errorf("AGENT_TLS_CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("AGENT_TLS_CA: %s holds no PEM certificate", s.TLSCA)
	}
	return credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}), nil
}

// nameservers are the setting's, else the host's.
func nameservers(s settings.Settings, log *slog.Logger) (dns []netip.Addr, err error) {
	if len(s.DNS) > 0 {
		return s.DNS, nil
	}
	dns, err = hostfiles.Nameservers(hostfiles.ResolvConfs())
	if err == nil && len(dns) == 0 {
		log.Warn("functions have no DNS: the host has no nameserver that they can reach; set ESB_DNS")
	}
	return dns, err
}

func supervisorConfig(s settings.Settings, log *slog.Logger) supervisor.Config {
	return supervisor.Config{
		Dir: filepath.Join(s.Home, "containerd"), RunDir: filepath.Join(s.RunDir, "containerd"),
		Binary: filepath.Join(s.BinDir, "containerd"), BinDir: s.BinDir, Logger: log, Before: repair(s, log),
	}
}

func networkConfig(s settings.Settings, dns []netip.Addr, log *slog.Logger) cni.Config {
	return cni.Config{
		StateDir: filepath.Join(s.RunDir, "net"), PluginDir: s.BinDir, Bridge: s.Bridge, Subnet: s.Subnet, MTU: s.MTU, DNS: dns,
		HostPorts: s.HostPorts, Deny: s.EgressDeny, Users: []uint32{uint32(s.GatewayUID)}, PoolSize: s.NetworkPoolSize, UIDBase: s.UIDBase, Logger: log,
	}
}

// logFigures are the metrics of log shipping.
func logFigures(s logship.Stats, shares *logshare.Shares) []metrics.Figure {
	return []metrics.Figure{
		{Name: "esb_log_lines_shipped_total", Kind: metrics.Counter, Help: "Log records that VictoriaLogs has accepted.", Value: s.Lines},
		{Name: "esb_log_batches_shipped_total", Kind: metrics.Counter, Help: "Batches that VictoriaLogs has accepted.", Value: s.Batches},
		{Name: "esb_log_ship_failures_total", Kind: metrics.Counter, Help: "Batches that VictoriaLogs has not accepted.", Value: s.Failures},
		{Name: "esb_log_lines_dropped_total", Kind: metrics.Counter, Help: "Log lines given up at FUNCTION_LOG_MAX_MB since the log folder was made.", Value: s.DroppedLines},
		{Name: "esb_log_lines_over_share_total", Kind: metrics.Counter, Help: "Log lines that the store did not get, because their function had used up its share of the day (FUNCTION_LOG_DAY_MB).", Value: shares.Refused()},
		{Name: "esb_log_backlog_bytes", Kind: metrics.Gauge, Help: "Bytes of log files that are not shipped yet.", Value: s.BacklogBytes},
	}
}

func shipperConfig(s settings.Settings, r agent.Host, shares *logshare.Shares, log *slog.Logger) logship.Config {
	return logship.Config{
		Dir: s.LogDir, URL: s.VictoriaLogsURL, User: s.VictoriaLogsUser, Password: string(s.VictoriaLogsPassword), PasswordFile: s.VictoriaLogsPasswordFile,
		BatchBytes: s.LogShipBatchBytes, Interval: s.LogShipInterval, MaxBytes: int64(s.LogMaxMB) << 20, Shares: shares,
		Container: func(id string) logship.Container {
			function, supervised, alive := r.Container(id)
			return logship.Container{Function: function, Supervised: supervised, Alive: alive}
		},
		Logger: log,
	}
}

func insertConfig(s settings.Settings, r agent.Host, shares *logshare.Shares, log *slog.Logger) loginsert.Config {
	store := logship.NewStore(shipperConfig(s, r, shares, log))
	return loginsert.Config{
		Addr: s.FunctionLogsAddr, Source: r.At, Send: store.Send, Shares: shares, BytesPerSecond: s.FunctionLogsKBPerSecond << 10, Logger: log,
	}
}

func codeConfig(s settings.Settings, log *slog.Logger) code.Config {
	config := code.Config{Dir: filepath.Join(s.Home, "code"), MaxBytes: int64(s.CodeCacheMB) << 20, Roots: s.CodeRoots, Logger: log}
	if s.S3Endpoint != "" {
		config.Objects = code.NewS3(s.S3Endpoint, s.Region, s.S3AccessKey, s.S3SecretKey)
	}
	return config
}

func runtimeConfig(s settings.Settings, address string, dns []netip.Addr, log *slog.Logger) containerd.Config {
	return containerd.Config{
		Address: address, Stack: s.Bridge, GatewayUID: s.GatewayUID, RunDir: s.RunDir,
		LogDir: filepath.Join(s.LogDir, "functions"),
		BinDir: s.BinDir, ArchivesDir: s.ArchivesDir, ImageMaxMB: s.ImageMaxMB,
		ImagesUnusedFor: s.ImagesUnusedFor, ArchivesUnusedFor: s.ArchivesUnusedFor, ImageStoreMaxMB: s.ImageStoreMaxMB, ArchivesMaxMB: s.ArchivesMaxMB, ImagesDisk: imagesDisk(s), Registry: s.Registry, PlainHTTP: s.PlainHTTP, RegistryPoll: s.RegistryPoll, RegistryConfig: s.RegistryConfig,
		RegistryUser: s.RegistryUser, RegistryPassword: string(s.RegistryPassword), RegistryPasswordFile: s.RegistryPasswordFile,
		TmpSizeMB: s.TmpSizeMB, TmpOnDisk: s.TmpOnDisk, CPUWeight: s.CPUWeight, PIDsLimit: s.PIDsLimit, NoFile: s.NoFile, LogRate: s.OutputKBPerSecond << 10, ReadyTimeout: s.ReadyTimeout, MaxStarts: s.MaxStarts, Parked: parkable(s, s.ParkedSandboxes), ParkedMax: parkable(s, s.ParkedSandboxesMax), StemCells: s.StemCells,
		Region: s.Region, AccountID: s.AccountID, DNS: dns, Environment: s.FunctionEnvironment(), Logger: log,
	}
}

// parkable bounds how many containers may be nobody's to a quarter of the addresses of the function network, but one is not too many.
func parkable(s settings.Settings, n int) int {
	return min(n, max((1<<(32-s.Subnet.Bits()))/4, 1))
}

// imagesDisk is a folder on the disk that containerd has images on; empty for a containerd of somebody else's, whose disk is not known.
func imagesDisk(s settings.Settings) string {
	if s.ContainerdAddress != "" {
		return ""
	}
	return s.Home
}

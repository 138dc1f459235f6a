// Command fn is the function of the agent's integration test. With a Runtime API it is a function process; without, it
// listens on 8080 as an image with RIE does. Its answer is what it sees of its container.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	waitAhead()
	switch os.Getenv("MODE") {
	case "exit":
		fmt.Println("cannot go on")
		os.Exit(3)
	case "hang":
		time.Sleep(time.Hour)
	case "boosted":
		// The agent hears of the init phase when this runs already.
		for until := time.Now().Add(8 * time.Second); time.Now().Before(until) && !unlimited(); {
			time.Sleep(time.Millisecond)
		}
	}
	boosted = unlimited()
	if api := os.Getenv("AWS_LAMBDA_RUNTIME_API"); api != "" {
		log.Fatal(serveRuntimeAPI("http://" + api + "/2018-06-01/runtime/invocation/"))
	}
	log.Fatal(http.ListenAndServe(":8080", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/crash":
			os.Exit(4)
		case "/oom":
			for keep := [][]byte{}; ; {
				b := make([]byte, 8<<20)
				for i := range b {
					b[i] = 1
				}
				keep = append(keep, b)
			}
		case "/bomb":
			if fork() {
				for {
					fork()
				}
			}
		case "/sleepers":
			for range 360 {
				if fork() {
					for {
						_, _, _ = syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
					}
				}
			}
		}
		_, _ = fmt.Fprint(w, describe())
	})))
}

// boosted says whether the process had all the CPU there is at the end of its init phase.
var boosted bool

// unlimited says whether the container has no CPU quota now.
func unlimited() bool {
	quota := read(own("/cpu/cpu.cfs_quota_us", "/cpu.max"))
	return strings.HasPrefix(quota, "-1") || strings.HasPrefix(quota, "max")
}

// fork makes a copy of this process, with this thread alone, and is true in the copy: which may make system calls, and nothing
// else that Go can do.
func fork() bool {
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	return pid == 0 && errno == 0
}

func serveRuntimeAPI(base string) error {
	for {
		resp, err := http.Get(base + "next")
		if err != nil {
			return err
		}
		id := resp.Header.Get("Lambda-Runtime-Aws-Request-Id")
		event, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			return err
		}
		if string(event) == `"exit"` {
			os.Exit(5)
		}
		answer := describe
		if string(event) == `"inside"` {
			answer = inside
		}
		resp, err = http.Post(base+id+"/response", "application/json", strings.NewReader(answer()))
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
	}
}

func describe() string {
	env := map[string]string{}
	for _, kv := range os.Environ() {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	status := map[string]string{}
	for line := range strings.Lines(read("/proc/self/status")) {
		k, v, _ := strings.Cut(line, ":")
		status[k] = strings.TrimSpace(v)
	}
	var files syscall.Rlimit
	_ = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files)
	var tmp syscall.Statfs_t
	_ = syscall.Statfs("/tmp", &tmp)
	host, _ := os.Hostname()
	b, _ := json.Marshal(map[string]any{
		"boosted": boosted, "env": env, "hostname": host, "resolv": read("/etc/resolv.conf"), "hosts": read("/etc/hosts"),
		"capabilities": status["CapBnd"] + status["CapEff"], "no_new_privileges": status["NoNewPrivs"], "seccomp": status["Seccomp"],
		"tmp_type": tmp.Type, "tmp_user": owner("/tmp"), "files": files.Cur, "tmp_mb": tmp.Blocks * uint64(tmp.Bsize) >> 20, "uid": os.Getuid(), "theirs": read("/theirs"),
		"task": read("/var/task/data"), "opt": read("/opt/data"), "write_task": write("/var/task/x"), "write_opt": write("/opt/x"),
		"write_root": write("/x"), "write_dev": write("/dev/x"), "write_tmp": write("/tmp/x"), "write_run": write("/run/esb/x"),
		"write_cgroup": write(own("/memory") + "/cgroup.procs"), "memory_limit": read(own("/memory/memory.limit_in_bytes", "/memory.max")), "meminfo": read("/proc/meminfo"),
		"slice": slice(),
	})
	return string(b)
}

// own returns the first of several files of the container's cgroup that is there.
func own(names ...string) string {
	for _, name := range names {
		if _, err := os.Stat("/sys/fs/cgroup" + name); err == nil {
			return "/sys/fs/cgroup" + name
		}
	}
	return "/sys/fs/cgroup"
}

// owner says whose a folder is, and who may use it.
func owner(name string) string {
	var s syscall.Stat_t
	if err := syscall.Stat(name, &s); err != nil {
		return err.Error()
	}
	who := fmt.Sprint(s.Uid)
	if s.Uid == 0 && s.Gid == 0 && s.Mode&syscall.S_ISVTX != 0 {
		who = "root"
	}
	return fmt.Sprintf("%s %o", who, s.Mode&0o777)
}

func read(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func write(name string) string {
	if err := os.WriteFile(name, []byte("1"), 0o600); err != nil {
		return "refused"
	}
	return "written"
}

// slice is the length of this thread's turns on the CPU, in nanoseconds.
func slice() uint64 {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return 0
	}
	return attr.Runtime
}

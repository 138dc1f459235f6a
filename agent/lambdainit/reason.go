package lambdainit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
)

// headBytes is how much of a program is looked at: more than the kernel takes of a script's first line (256), and where the
// headers of ELF files end.
const headBytes = 4096

// The numbers of ELF's machines (elf(5), e_machine) that people build for.
var machines = map[uint16]string{3: "386", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64"}

// cause says what the kernel's one word for a program that cannot be started leaves out: which file it was that is missing, or
// what is wrong with this one. It is "" when nothing is known beyond that word. It looks at path as this process sees it.
func cause(path string, err error) string {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return ""
	}
	info, failed := os.Stat(path)
	switch {
	case errors.Is(failed, os.ErrNotExist):
		if target, err := os.Readlink(path); err == nil {
			return "it is a link to " + target + ", which is not there"
		}
		return ""
	case failed != nil:
		return ""
	case info.IsDir():
		return "it is a folder"
	case !info.Mode().IsRegular():
		return "it is no file" // a pipe, which must not be opened: nobody may ever write to it
	case errno == syscall.EACCES && info.Mode()&0o111 == 0:
		return "its mode lacks the executable bit: chmod 755 before it is packed"
	}
	f, failed := os.Open(path)
	if failed != nil {
		return "" // its user may execute it, and this process not read it
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, headBytes)
	n, failed := io.ReadFull(f, head)
	if failed != nil && !errors.Is(failed, io.ErrUnexpectedEOF) && !errors.Is(failed, io.EOF) {
		return ""
	}
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, []byte("#!")):
		return scriptCause(head, errno)
	case bytes.HasPrefix(head, []byte("\x7fELF")):
		return binaryCause(head, errno)
	case errno != syscall.ENOEXEC:
		return ""
	case n == 0:
		return "it is empty"
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf#!")):
		return `it begins with a byte order mark, and must with "#!"`
	}
	return `it is no program for Linux, and no script either: those begin with "#!" and their interpreter`
}

// scriptCause looks at the first line of a script.
func scriptCause(head []byte, errno syscall.Errno) string {
	line, _, _ := strings.Cut(string(head[2:]), "\n")
	interpreter, _, _ := strings.Cut(strings.TrimLeft(line, " \t"), " ")
	interpreter, _, _ = strings.Cut(interpreter, "\t")
	name, windows := strings.CutSuffix(interpreter, "\r")
	switch {
	case name == "":
		return `its first line names no interpreter after "#!"`
	case errno == syscall.ENOENT && windows:
		return "its first line ends with CR LF, so that the kernel looks for an interpreter " + name + `\r: save it with the line ends of Linux, LF`
	case errno == syscall.ENOENT:
		return "it needs " + interpreter + ", which is not there"
	case errno == syscall.EACCES:
		return "it needs " + interpreter + ", which may not be executed"
	}
	return ""
}

// binaryCause looks at the headers of an ELF file: only 64-bit ones in this machine's order of bytes run here at all.
func binaryCause(head []byte, errno syscall.Errno) string {
	const (
		class64   = 2
		programs  = 32 // e_phoff; e_phentsize and e_phnum follow at 54 and 56
		header    = 64
		typInterp = 3
	)
	if len(head) < header {
		return "it is a part of a program: the file ends too early"
	}
	order := binary.LittleEndian
	if machine := machines[order.Uint16(head[18:])]; errno == syscall.ENOEXEC && machine != runtime.GOARCH {
		if machine == "" {
			machine = "another machine"
		}
		return "it is built for " + machine + ", and this box is " + runtime.GOARCH
	}
	if errno != syscall.ENOENT || head[4] != class64 {
		return ""
	}
	at, size, count := order.Uint64(head[programs:]), uint64(order.Uint16(head[54:])), uint64(order.Uint16(head[56:]))
	for n := range count {
		begin := at + n*size
		if begin+56 > uint64(len(head)) || begin+56 < begin {
			break
		}
		entry := head[begin:]
		if order.Uint32(entry) != typInterp {
			continue
		}
		offset, length := order.Uint64(entry[8:]), order.Uint64(entry[32:])
		if offset > uint64(len(head)) || length > uint64(len(head))-offset {
			break
		}
		return "it needs " + strings.TrimRight(string(head[offset:offset+length]), "\x00") + ", which is not there (it is built for another C library, or the image has none)"
	}
	return ""
}

//go:build hostile

package main

import (
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// attacks are what a VCM does that was taken over. Each leaves the host as it was.
var attacks = map[string]func(map[string]string) (string, error){
	// the neighbour
	"read-file":    func(a map[string]string) (string, error) { return read(filepath.Join(a["dir"], "store.log")) },
	"read-environ": func(a map[string]string) (string, error) { return readProc(a["pid"], "environ") },
	"read-cmdline": func(a map[string]string) (string, error) { return readProc(a["pid"], "cmdline") },
	"read-memory":  readMemory,
	"ptrace":       attach,
	"vm-read":      vmRead,
	"signal":       func(a map[string]string) (string, error) { return "", unix.Kill(number(a["pid"]), 0) },
	"pidfd": func(a map[string]string) (string, error) {
		fd, err := unix.PidfdOpen(number(a["pid"]), 0)
		return "", closed(fd, err)
	},
	"connect":       func(a map[string]string) (string, error) { return "", connectTCP(a["address"]) },
	"abstract":      func(a map[string]string) (string, error) { return "", connectUnix("@" + a["abstract"]) },
	"shared-memory": sharedMemory,
	// the host
	"read-passwd": func(map[string]string) (string, error) { return read("/etc/passwd") },
	"read-state":  func(a map[string]string) (string, error) { return read(a["unit"]) },
	"climb":       climb,
	"list-root": func(map[string]string) (string, error) {
		fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		return "", closed(fd, err)
	},
	"write-outside":  writeOutside,
	"make-file":      makeFile,
	"open-by-handle": openByHandle,
	"device-node":    deviceNode,
	"mount":          mountData,
	"hsm-socket":     func(a map[string]string) (string, error) { return "", connectUnix(a["hsm"]) },
	"signal-host":    func(a map[string]string) (string, error) { return "", unix.Kill(number(a["orchestrator"]), 0) },
	"connect-host":   func(a map[string]string) (string, error) { return "", connectTCP(a["platform"]) },
	"bind":           bindTCP,
	"raw-socket": func(map[string]string) (string, error) {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		return "", closed(fd, err)
	},
	"domain-name":  func(a map[string]string) (string, error) { return "", unix.Setdomainname([]byte(a["domain"])) },
	"chroot":       func(map[string]string) (string, error) { return "", unix.Chroot("/") },
	"set-uid":      setUID,
	"become-other": becomeOther,
	// the kernel
	"fork":           func(map[string]string) (string, error) { return "", fork(0) },
	"user-namespace": func(map[string]string) (string, error) { return "", fork(unix.CLONE_NEWUSER) },
	"own-program":    ownProgram,
	"new-code":       newCode,
	"dumpable":       func(map[string]string) (string, error) { return "", unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) },
	"raise-limit":    raiseLimit,
	"keyring": func(map[string]string) (string, error) {
		_, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, true)
		return "", err
	},
	"io-uring":       ioUring,
	"bpf":            loadBPF,
	"another-filter": anotherFilter,
	// resources
	"big-file":   bigFile,
	"fill-store": fillStore,
	"many-files": manyFiles,
	"memory":     takeMemory,
	"fork-bomb":  forkBomb,
	"threads":    threads,
	"burn":       burn,
	"burn-forks": burnForks,
	"scratch":    scratch,
	// of itself
	"leak":  leak,
	"crash": crash,
}

func number(s string) int { n, _ := strconv.Atoi(s); return n }

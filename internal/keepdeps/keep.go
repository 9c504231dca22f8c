//go:build keepdeps

package keepdeps

import (
	_ "github.com/apache/thrift/lib/go/thrift"
	_ "github.com/elastic/go-seccomp-bpf"
	_ "github.com/gliderlabs/ssh"
	_ "github.com/google/uuid"
	_ "github.com/hiddeco/sshsig"
	_ "github.com/jedib0t/go-pretty/v6/table"
	_ "github.com/landlock-lsm/go-landlock/landlock"
	_ "github.com/prometheus/client_golang/prometheus/promhttp"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "github.com/schollz/progressbar/v3"
	_ "github.com/urfave/cli/v2"
	_ "go.etcd.io/bbolt"
	_ "go.etcd.io/etcd/client/v3"
	_ "go.etcd.io/etcd/server/v3/embed"
	_ "golang.org/x/crypto/ssh"
	_ "golang.org/x/sys/unix"
	_ "golang.org/x/term"
	_ "pgregory.net/rapid"
)

#!/bin/sh
# Generates the Go code of every Thrift interface with Debian's thrift-compiler.
set -eu
cd "$(dirname "$0")/../.."
module=github.com/tesserae-hsm/tesserae
command -v thrift >/dev/null || { echo "generate: install thrift-compiler 0.17 (Debian package thrift-compiler)" >&2; exit 1; }

generate() { # idl, output folder
	mkdir -p "$2"
	thrift -out "$2" -gen "go:package_prefix=$module/$2/,skip_remote,ignore_initialisms" "$1"
}

rm -rf internal/api/gen vcm/prismtoken/gen
for idl in internal/api/idl/*.thrift; do
	generate "$idl" internal/api/gen
done
generate vcm/prismtoken/idl/prismtoken1-TokenApi.thrift vcm/prismtoken/gen
gofmt -w internal/api/gen vcm/prismtoken/gen

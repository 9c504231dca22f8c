package console

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// ForceFlag is --force for commands that write files.
func ForceFlag() cli.Flag {
	return &cli.BoolFlag{Name: "force", Usage: "replace a file that exists"}
}

// ReadFile reads an input file of at most limit bytes; "-" is standard input.
func (e *Env) ReadFile(path string, limit int64) ([]byte, error) {
	if path == "-" {
		p, err := io.ReadAll(io.LimitReader(e.Stdin, limit+1))
		if err != nil {
			return nil, errkind.Errorf(errkind.Invalid, "read standard input: %w", err)
		}
		if int64(len(p)) > limit {
			return nil, errkind.Errorf(errkind.Invalid, "standard input is larger than %d bytes", limit)
		}
		return p, nil
	}
	p, err := atomicfile.Read(path, limit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errkind.Errorf(errkind.NotFound, "%w", err)
	}
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "%w", err)
	}
	return p, nil
}

// WriteFile writes an output file whole or not at all; one that exists is
// replaced only with force. "-" is standard output.
func (e *Env) WriteFile(path string, data []byte, perm os.FileMode, force bool) error {
	if path == "-" {
		_, err := e.Stdout.Write(data)
		return err
	}
	if err := CheckNew(path, force); err != nil {
		return err
	}
	if err := atomicfile.Write(path, data, perm); err != nil {
		return errkind.Errorf(errkind.Invalid, "write %s: %w", path, err)
	}
	return nil
}

// CheckNew refuses an output file that exists, unless force is given.
func CheckNew(path string, force bool) error {
	if _, err := os.Lstat(path); err == nil && !force && path != "-" {
		return errkind.Errorf(errkind.Refused, "file %s exists; give --force to replace it", path)
	}
	return nil
}

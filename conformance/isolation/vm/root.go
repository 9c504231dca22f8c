package vm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// makeRoot writes the machine's initial file system: an archive in the format
// that cpio calls newc, which the kernel unpacks. It is not compressed, for a
// processor that is emulated takes longer to undo that than to copy.
func (m Machine) makeRoot(path string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	a := &archive{w: bufio.NewWriterSize(f, 1<<20)}
	for _, dir := range []string{"bin", "dev", "proc", "sys", "tmp", "etc", "run"} {
		a.add(dir, unix.S_IFDIR|0o755, nil, 0)
	}
	a.device("dev/console", 5, 1)
	a.device("dev/null", 1, 3)
	a.link("init", "bin/"+m.Init)
	a.text("etc/passwd", "root:x:0:0:root:/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n")
	err = filepath.WalkDir(m.Programs, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == m.Programs {
			return err
		}
		name := "bin" + path[len(m.Programs):]
		switch {
		case e.IsDir():
			a.add(name, unix.S_IFDIR|0o755, nil, 0)
		case e.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			a.link(name, to)
		case e.Type().IsRegular():
			return a.file(name, path)
		}
		return nil
	})
	return errors.Join(err, a.close())
}

// archive is a cpio archive that is being written. The first error stays.
type archive struct {
	w     *bufio.Writer
	inode int
	err   error
}

func (a *archive) add(name string, mode uint32, content io.Reader, size int64, device ...int) {
	if a.err != nil {
		return
	}
	a.inode++
	var major, minor int
	if len(device) == 2 {
		major, minor = device[0], device[1]
	}
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.inode, mode, 0, 0, 1, 0, size, 0, 0, major, minor, len(name)+1, 0)
	if _, a.err = fmt.Fprintf(a.w, "%s%s\x00%s", header, name, padding(len(header)+len(name)+1)); a.err != nil || content == nil {
		return
	}
	n, err := io.Copy(a.w, content)
	if err == nil && n != size {
		err = fmt.Errorf("%s has changed its size", name)
	}
	if err == nil {
		_, err = a.w.WriteString(padding(int(size)))
	}
	a.err = err
}

// padding fills up to a multiple of four.
func padding(n int) string { return "\x00\x00\x00"[:(4-n%4)%4] }

func (a *archive) device(name string, major, minor int) {
	a.add(name, unix.S_IFCHR|0o666, nil, 0, major, minor)
}

func (a *archive) text(name, content string) {
	a.add(name, unix.S_IFREG|0o644, strings.NewReader(content), int64(len(content)))
}

func (a *archive) link(name, to string) {
	a.add(name, unix.S_IFLNK|0o777, strings.NewReader(to), int64(len(to)))
}

func (a *archive) file(name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	a.add(name, unix.S_IFREG|uint32(st.Mode().Perm()), f, st.Size())
	return a.err
}

func (a *archive) close() error {
	a.add("TRAILER!!!", 0, nil, 0)
	return errors.Join(a.err, a.w.Flush())
}

// Package keyfd carries a key from one process to another in a descriptor, and
// keeps keys in memory that is neither swapped nor written to a core dump.
//
// The best carrier is memfd_secret(2): its pages are not in the kernel's direct
// map, so that not even the kernel reads them by accident. It has no read or
// write, only mmap. Where the kernel lacks it, a memfd_create(2) file with every
// seal set is used. Key says which one it came by.
package keyfd

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Carrier is how a key travels or is kept.
type Carrier string

const (
	// Secret is memfd_secret.
	Secret Carrier = "memfd_secret"
	// Sealed is memfd_create with every seal set; on the receiving side the key
	// is copied to locked anonymous memory and the file is closed.
	Sealed Carrier = "memfd_create"
)

const allSeals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// Pack returns a descriptor that carries a copy of key.
func Pack(key []byte) (*os.File, Carrier, error) {
	return pack(key, unix.MemfdSecret)
}

func pack(key []byte, memfdSecret func(int) (int, error)) (*os.File, Carrier, error) {
	if len(key) == 0 {
		return nil, "", errors.New("keyfd: empty key")
	}
	if fd, err := memfdSecret(unix.O_CLOEXEC); err == nil {
		f := os.NewFile(uintptr(fd), "partition-key")
		if err := fillMapped(fd, key); err == nil {
			return f, Secret, nil
		}
		_ = f.Close() // no room to lock: the sealed file needs none
	}
	f, err := packSealed(key)
	return f, Sealed, err
}

func fillMapped(fd int, key []byte) error {
	if err := unix.Ftruncate(fd, int64(len(key))); err != nil {
		return err
	}
	m, err := unix.Mmap(fd, 0, len(key), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(m, key)
	return unix.Munmap(m)
}

func packSealed(key []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("partition-key", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // kernels before 6.3
		fd, err = unix.MemfdCreate("partition-key", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "partition-key")
	if _, err := f.Write(key); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("write to memfd: %w", err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, allSeals); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("seal memfd: %w", err)
	}
	return f, nil
}

// Key is a key in protected memory.
type Key struct {
	mem     []byte
	carrier Carrier
	locked  bool
}

// Take maps the key that f carries and closes f. It refuses a descriptor that
// is neither a secret memory file nor a fully sealed one, and any length but size.
func Take(f *os.File, size int) (*Key, error) {
	defer f.Close()
	carrier, err := carrierOf(f)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("key descriptor: %w", err)
	}
	if st.Size != int64(size) {
		return nil, errkind.Errorf(errkind.Integrity, "key descriptor holds %d bytes, not %d", st.Size, size)
	}
	if carrier == Secret {
		m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return nil, fmt.Errorf("map key: %w", err)
		}
		return &Key{mem: m, carrier: Secret, locked: true}, nil
	}
	k, err := anonymous(size)
	if err != nil {
		return nil, err
	}
	if n, err := f.ReadAt(k.mem, 0); err != nil || n != size {
		k.Destroy()
		return nil, errkind.Errorf(errkind.Integrity, "key descriptor: read %d of %d bytes: %w", n, size, err)
	}
	return k, nil
}

func carrierOf(f *os.File) (Carrier, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return "", fmt.Errorf("key descriptor: %w", err)
	}
	if int64(fs.Type) == unix.SECRETMEM_MAGIC {
		return Secret, nil
	}
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil || seals&allSeals != allSeals {
		return "", errkind.Errorf(errkind.Integrity, "key descriptor is neither secret memory nor sealed")
	}
	return Sealed, nil
}

// New keeps a copy of key in protected memory; the caller erases his own.
func New(key []byte) (*Key, error) {
	if len(key) == 0 {
		return nil, errors.New("keyfd: empty key")
	}
	k, err := anonymous(len(key))
	if err != nil {
		return nil, err
	}
	copy(k.mem, key)
	return k, nil
}

// anonymous locks where the limit allows; without, the page is still kept out
// of dumps and children.
func anonymous(size int) (*Key, error) {
	m, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("protected memory: %w", err)
	}
	if err := errors.Join(unix.Madvise(m, unix.MADV_DONTDUMP), unix.Madvise(m, unix.MADV_WIPEONFORK)); err != nil {
		_ = unix.Munmap(m)
		return nil, fmt.Errorf("protected memory: %w", err)
	}
	return &Key{mem: m, carrier: Sealed, locked: unix.Mlock(m) == nil}, nil
}

// Bytes is the key itself, not a copy; nil after Destroy.
func (k *Key) Bytes() []byte { return k.mem }

// Carrier says how the key came or is kept.
func (k *Key) Carrier() Carrier { return k.carrier }

// Locked says whether the memory is certain not to be swapped.
func (k *Key) Locked() bool { return k.locked }

// Destroy erases the key and gives the memory back. It may be called twice.
func (k *Key) Destroy() {
	if k.mem == nil {
		return
	}
	clear(k.mem)
	_ = unix.Munmap(k.mem)
	k.mem = nil
}

//go:build darwin || dragonfly || freebsd || linux || netbsd

package journal

import (
	"errors"
	"os"
	"syscall"
)

var errSystem error // why there can be no journal on this system

// lock keeps other processes from using the directory, until this one closes it or ends.
func lock(dir *os.File) error {
	err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == syscall.EWOULDBLOCK {
		return errors.New("the directory is in use by another pixel-ping")
	}
	return err
}

// mapFile maps the file, and room for it to grow. What is changed there is changed in the file.
func mapFile(file *os.File, size int) ([]byte, error) {
	return syscall.Mmap(int(file.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
}

func unmap(b []byte) { syscall.Munmap(b) }

// isFull reports whether err says that the disk, the user's quota or the file is full, or that the disk is read-only.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) ||
		errors.Is(err, syscall.EROFS)
}

// populate makes the pages of a mapping writable, and setNoCopyOnWrite is for btrfs: only on Linux.
var (
	populate         = func([]byte) error { return nil }
	setNoCopyOnWrite = func(*os.File) {}
)

// writable says why this user may not make files in a directory, or returns nil.
func writable(path string) error {
	const write, search = 2, 1 // W_OK and X_OK of unistd.h
	return syscall.Access(path, write|search)
}

//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package journal

import (
	"errors"
	"os"
	"syscall"
)

var errSystem error // why there can be no journal on this system

// lock keeps other processes from using the directory, until this one closes it
// or ends.
func lock(dir *os.File) error {
	err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == syscall.EWOULDBLOCK {
		return errors.New("the directory is in use by another pixel-ping")
	}
	return err
}

// mapFile maps a part of the file, whose changes are the file's.
func mapFile(file *os.File, offset int64, size int) ([]byte, error) {
	return syscall.Mmap(int(file.Fd()), offset, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
}

func unmap(b []byte) { syscall.Munmap(b) }

// isDeleted reports whether the file has no name any more.
func isDeleted(file *os.File) bool {
	info, err := file.Stat()
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Nlink == 0
}

// isFull reports whether err says that there is no room: on the disk, in the
// user's quota, or in a file.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// writable says why this user may not make files in a directory, or returns nil.
func writable(path string) error {
	const write, search = 2, 1 // W_OK and X_OK of unistd.h
	return syscall.Access(path, write|search)
}

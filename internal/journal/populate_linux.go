package journal

import "syscall"

// populate makes the pages of a mapping writable. A page fault does the same,
// but while a goroutine waits in one, the garbage collector cannot stop it, and
// with it stops all others.
func populate(b []byte) error {
	const madvPopulateWrite = 23 // since Linux 5.14
	if err := syscall.Madvise(b, madvPopulateWrite); err != syscall.EINVAL {
		return err
	}
	return nil
}

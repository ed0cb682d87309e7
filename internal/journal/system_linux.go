package journal

import (
	"os"
	"syscall"
	"unsafe"
)

func init() { populate, setNoCopyOnWrite = madvise, setFlag }

// madvise makes the pages of a mapping writable. A page fault does the same, but while a goroutine waits in one,
// the garbage collector cannot stop it, and with it stops all others.
func madvise(b []byte) error {
	const madvPopulateWrite = 23 // since Linux 5.14
	if err := syscall.Madvise(b, madvPopulateWrite); err != syscall.EINVAL {
		return err
	}
	return nil
}

// setFlag asks btrfs to overwrite the pages of a new file where they are. Otherwise each page is written
// to another place each time, and needs room for that. Other file systems refuse, or have no use for it.
func setFlag(file *os.File) {
	// FS_IOC_GETFLAGS, FS_IOC_SETFLAGS and FS_NOCOW_FL. Some processors have other numbers, which do nothing here.
	var flags uintptr
	const size, noCopyOnWrite = unsafe.Sizeof(flags) << 16, 0x00800000
	const getFlags, setFlags = 0x80006601 | size, 0x40006602 | size
	if _, _, err := syscall.Syscall(syscall.SYS_IOCTL, file.Fd(), getFlags, uintptr(unsafe.Pointer(&flags))); err == 0 {
		flags |= noCopyOnWrite
		syscall.Syscall(syscall.SYS_IOCTL, file.Fd(), setFlags, uintptr(unsafe.Pointer(&flags)))
	}
}

package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Check reports in one line why Open would not be able to use the directory, as far as
// that can be said without a change on the disk and without the lock: another process
// may use it. A directory that is missing is made by Open, which needs its parent. If
// path is empty, there is nothing to report.
func Check(path string) error {
	j := &Journal{path: path}
	if path == "" {
		return nil
	}
	if errSystem != nil {
		return j.describe(errSystem)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = writable(filepath.Dir(filepath.Clean(path)))
	case err == nil && !info.IsDir():
		err = syscall.ENOTDIR
	case err == nil:
		err = writable(path)
	}
	return j.describe(err)
}

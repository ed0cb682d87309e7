package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Check reports in one line why Open would not be able to use the directory, as far as that can be said without a
// change on the disk and without the lock: another process may use it. A directory that is missing is made by Open,
// which needs its parent. If path is empty, there is nothing to report. Check calls tell with a line for each file that
// Open would leave alone as it is of another format.
func Check(path string, tell func(line string)) error {
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
		if err = writable(path); isFull(err) {
			err = nil // Open can do without.
		}
	}
	names, _ := filepath.Glob(filepath.Join(path, "*.hits"))
	for _, name := range names {
		file, err := os.Open(name)
		if err == nil {
			_, err = readHeader(file)
			file.Close()
		}
		if err != nil {
			tell(leftAlone(path, filepath.Base(name), err))
		}
	}
	return j.describe(err)
}

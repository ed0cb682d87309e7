package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// Where there can be no journal, Open says so and makes no directory.
func TestNotSupported(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	_, _, _, err := Open(dir, func(line string) { t.Errorf("told: %s", line) })
	if want := "journal " + dir + ": not supported on this system; remove the setting"; err == nil || err.Error() != want {
		t.Errorf("the error is %v, want %s", err, want)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is there (error %v)", err)
	}
}

package logwriter

import (
	"os"
	"syscall"
	"testing"
)

// A second file for the null device, as PrivateDevices= makes one, is the null device.
func TestNullDeviceOfASecondFile(t *testing.T) {
	path := t.TempDir() + "/null"
	if err := syscall.Mknod(path, syscall.S_IFCHR|0o666, 1<<8|3); err != nil {
		t.Skip("needs the right to make devices: ", err) // TestNullDeviceOfAnotherFile needs none
	}
	null, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Skip("needs a folder that may have devices: ", err)
	}
	defer null.Close()
	if (lines{"a"}).write(New(null)).Taken() {
		t.Error("a block is taken, though it was written to the null device")
	}
}

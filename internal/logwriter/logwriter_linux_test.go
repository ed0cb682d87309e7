package logwriter

import (
	"io"
	"os"
	"syscall"
	"testing"
	"time"
)

// A pipe that is full of chunks has room for a last line, so that nobody has to read before the
// program ends.
func TestLastLineInAFullPipe(t *testing.T) {
	read, stdout, _ := pipe(t)
	w := New(stdout)
	block := numbered(1000).write(w) // more than a pipe holds
	if block.Taken() {
		t.Error("a block that nobody reads is taken")
	}
	const last = "3 hits of 2 keys were not delivered\n"
	io.WriteString(w, last)
	if _, err := io.ReadFull(read, make([]byte, chunkSize)); err != nil { // there is room for the chunk under way
		t.Fatal(err)
	}
	w.Wait(10 * time.Second)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.idle != nil {
		t.Error("the last line waits for a reader")
	}
}

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

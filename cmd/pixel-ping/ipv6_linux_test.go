//go:build amd64 || arm64

package main

import (
	"net"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"unsafe"
)

// With this variable in its environment, the test binary starts itself again with the
// rest of the environment, as on a kernel without IPv6.
const withoutIPv6 = "WITHOUT_IPV6=1"

func init() {
	env := os.Environ()
	i := slices.Index(env, withoutIPv6)
	if i < 0 {
		return
	}
	runtime.LockOSThread() // The filter is that of the thread, until it executes a program.
	if err := refuseIPv6(); err != nil {
		panic(err)
	}
	panic(syscall.Exec("/proc/self/exe", os.Args, slices.Delete(env, i, i+1)))
}

// refuseIPv6 makes the kernel refuse IPv6 sockets to the calling thread, with the error
// that it has where it was built or booted without IPv6.
func refuseIPv6() error {
	const (
		setSeccomp, filterMode, setNoNewPrivs = 22, 2, 38 // of prctl
		allow, fail                           = 0x7fff0000, 0x00050000
		number, firstArgument                 = 0, 16 // offsets of what the filter sees
	)
	filter := []syscall.SockFilter{
		{Code: syscall.BPF_LD | syscall.BPF_W | syscall.BPF_ABS, K: number},
		{Code: syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K, K: syscall.SYS_SOCKET, Jf: 3},
		{Code: syscall.BPF_LD | syscall.BPF_W | syscall.BPF_ABS, K: firstArgument},
		{Code: syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K, K: syscall.AF_INET6, Jf: 1},
		{Code: syscall.BPF_RET, K: fail | uint32(syscall.EAFNOSUPPORT)},
		{Code: syscall.BPF_RET, K: allow},
	}
	program := &syscall.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setNoNewPrivs, 1, 0); errno != 0 {
		return errno
	}
	_, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setSeccomp, filterMode, uintptr(unsafe.Pointer(program)))
	if errno != 0 {
		return errno
	}
	return nil
}

// With host empty, the daemon starts and serves on a machine without IPv6.
func TestMachineWithoutIPv6(t *testing.T) {
	cmd := command(settings(t, map[string]any{"host": ""}))
	cmd.Env = append(cmd.Env, withoutIPv6)
	d := startCommand(t, cmd)
	d.hit(t, "key=a")
	_, port, err := net.SplitHostPort(d.address())
	if err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", "[::1]:"+port); err == nil {
		conn.Close()
		t.Error("the daemon serves over IPv6, so this machine was not without it")
	}
	d.Signal(t, syscall.SIGTERM)
	if status := d.Wait(t); status != 0 {
		t.Errorf("exit status %d, want 0; it says:\n%s", status, d.log)
	}
}

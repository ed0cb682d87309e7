//go:build unix

package server

import "syscall"

// reserve is how many descriptors are left for the daemon's own work: listeners,
// the log, the certificate's files, name servers, the connection to the endpoint and 8
// scrapes. These take two dozen.
const reserve = 32

// limitConnections returns how many connections there may be: maxConnections,
// unless the system allows fewer descriptors.
func limitConnections(maxConnections int) int {
	var files syscall.Rlimit // the Go runtime has raised it as far as it can be
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return maxConnections
	}
	return int(min(uint64(maxConnections), max(uint64(files.Cur), reserve+1)-reserve))
}

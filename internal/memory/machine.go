package memory

import (
	"fmt"
	"os"
)

const (
	// maxDefaultKeys is the default of maxmemory on a large machine, in bytes.
	maxDefaultKeys = 256 << 20
	// program is what the daemon takes beside keys and connections, in bytes. It is less
	// than base, which has room for everything that happens at once.
	program = 16 << 20
	// minConnections is the least default of maxconnections: fewer would be closed in the
	// middle of a page.
	minConnections = 128
)

// A Machine is how many bytes of memory the process may use. It is math.MaxInt64 if
// that is not known.
type Machine int64

// ThisMachine returns the memory that this process may use: that of the machine, or of
// the container or the unit that it runs in, whichever is the least. Only Linux says so.
func ThisMachine() Machine { return readMachine(os.DirFS("/")) }

// DefaultKeys returns how many bytes the keys may take if the configuration does not
// say so: a quarter of the memory, as twice that and a quarter are needed during a
// flush, but 256 MB at most.
func (m Machine) DefaultKeys() int64 { return int64(min(m/4, maxDefaultKeys)) }

// DefaultConnections returns how many connections there may be beside keys if the
// configuration does not say so, but most at most.
func (m Machine) DefaultConnections(keys int64, most int) int {
	room := (int64(m.share()) - flushed(keys) - program) / perConnection
	return int(min(max(room, minConnections), int64(most)))
}

// Warnings returns a line for each setting whose value needs more memory than there is:
// keys (maxmemory, in bytes) during a flush, and connections (maxconnections).
func (m Machine) Warnings(keys int64, connections int) (warnings []string) {
	warn := func(setting, what string, bytes int64) {
		if bytes > int64(m.share()) {
			warnings = append(warnings, fmt.Sprintf("%s: %s may take %d MB, but this process may use %d MB in all; "+
				"it may be killed", setting, what, bytes>>20, m>>20))
		}
	}
	warn("maxmemory", "the keys, and the batch of a flush,", flushed(keys)+program)
	warn("maxconnections", "these connections", int64(connections)*perConnection+program)
	return warnings
}

// share returns how much of the memory the collector may use. The rest is for what the
// collector does not see: the program itself, and the system's buffers of connections.
func (m Machine) share() Machine { return m - m/8 }

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

// Fit fills in what the configuration leaves to the machine, which is 0: keys, which is
// how many bytes the keys may take (maxmemory), and connections (maxconnections). It
// returns a line for each value of the configuration that needs more memory than there is.
//
// By default the keys have a quarter of the memory, 256 MB at most: during a flush they
// take 2.25 times that. The connections have the rest; there are no more than most.
func (m Machine) Fit(keys *int64, connections *int, most int) (warnings []string) {
	fit := func(setting, what string, bytes int64) {
		if bytes > m.share() {
			warnings = append(warnings, fmt.Sprintf("%s: %s may take %d MB, but this process may use %d MB in all; "+
				"it may be killed", setting, what, bytes>>20, m>>20))
		}
	}
	if *keys == 0 {
		*keys = min(int64(m)/4, maxDefaultKeys)
	} else {
		fit("maxmemory", "the keys, and the batch of a flush,", flushed(*keys)+program)
	}
	if *connections == 0 {
		room := (m.share() - flushed(*keys) - program) / perConnection
		*connections = int(min(max(room, minConnections), int64(most)))
	} else {
		fit("maxconnections", "these connections", int64(*connections)*perConnection+program)
	}
	return warnings
}

// share returns how much of the memory the collector may use. The rest is for what the
// collector does not see: the program itself, and the system's buffers of connections.
func (m Machine) share() int64 { return int64(m - m/8) }

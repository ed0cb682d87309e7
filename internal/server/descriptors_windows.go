package server

// limitConnections returns how many connections there may be. Windows has no
// limit on descriptors that a daemon could meet.
func limitConnections(maxConnections int) int {
	return maxConnections
}

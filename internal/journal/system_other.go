//go:build !(darwin || dragonfly || freebsd || linux || netbsd)

package journal

import (
	"errors"
	"os"
)

var errSystem = errors.New("not supported on this system; remove the setting")

func lock(*os.File) error                   { return errSystem }
func mapFile(*os.File, int) ([]byte, error) { return nil, errSystem }
func unmap([]byte)                          {}
func isFull(error) bool                     { return false }
func populate([]byte) error                 { return errSystem }
func setNoCopyOnWrite(*os.File)             {}
func writable(string) error                 { return errSystem }

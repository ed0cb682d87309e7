//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package journal

import (
	"errors"
	"os"
)

var errSystem = errors.New("not supported on this system; remove the setting")

func lock(*os.File) error                          { return errSystem }
func mapFile(*os.File, int64, int) ([]byte, error) { return nil, errSystem }
func unmap([]byte)                                 {}
func isDeleted(*os.File) bool                      { return false }
func writable(string) error                        { return errSystem }
func isFull(error) bool                            { return false }

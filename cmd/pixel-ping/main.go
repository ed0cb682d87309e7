// Pixel-ping is a minimalist pixel tracker. It answers
//
//	<img src="http://pixels.example.com/pixel.gif?key=...">
//
// with a 1x1 GIF at once and counts the hit in memory. At every interval it posts
// the counts to the publisher's own application, which stores them. It is a port
// of Pixel Ping 0.1.6 (CoffeeScript on Node): it takes the same configuration and
// sends the same POST. The README lists the differences.
//
// Usage:
//
//	pixel-ping path/to/config.json
//	pixel-ping -v
//	pixel-ping -h
//
// The configuration is one JSON object. port and interval are required; defaults
// stand in parentheses.
//
//	host           the name or address to listen on (all interfaces)
//	port           the port to listen on; 0 for a free one
//	interval       seconds between two flushes
//	endpoint       the URL that the counts are posted to (none: they are only logged)
//	discard        true to drop the counts of a flush that failed (false: they are
//	               merged into the next one)
//	secret         sent with each flush, for the application to check
//	maxmemory      megabytes that the keys may take (256)
//	maxconnections connections that may be open at once (8000, or fewer if fewer
//	               files may be open)
//	journal        a directory in which counts outlive kill -9 and crashes; not on
//	               Windows (none)
//	sslkey         a file with the key of the certificate, for HTTPS
//	sslcert        a file with the certificate
//	sslca          a file with the certificates of its authorities, to complete the
//	               chain
//
// SIGUSR2 forces a flush (not on Windows). SIGTERM, SIGINT and SIGHUP stop the
// daemon: it delivers the counts that it holds, within 9 seconds. A second SIGTERM
// or SIGINT ends it at once.
//
// The exit status is 0 after a stop that delivered every hit, or left it in the
// journal. Without an endpoint, or with discard, it is 0 after any stop. It is 1 if
// hits were not delivered; a line says whether the log has them. It is also 1 if the
// daemon could not start.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"pixel-ping/internal/logwriter"
)

const version = "1.0.0"

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

const usage = "Usage: pixel-ping path/to/config.json"

// run is the program without its process: args is the command line without the
// program's name, and the result is the exit status. It returns after a stop (by a
// signal, or by the end of ctx), or when the daemon cannot start or cannot serve.
// It handles the signals of the process, so there may be one run at a time.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	path := ""
	if len(args) > 0 {
		path = args[0]
	}
	switch path {
	case "-v", "-version", "--version":
		fmt.Fprintf(stdout, "Pixel Ping version %s\n", version)
		return 0
	case "", "-h", "-help", "--help":
		fmt.Fprintln(stderr, usage)
		return 0
	}
	// As in the original, a file may have the name of a flag.
	if _, err := os.Stat(path); strings.HasPrefix(path, "-") && errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(stderr, "pixel-ping: %s is not a flag, and there is no such file\n%s\n", oneLine(path), usage)
		return 1
	}
	out, log := logwriter.NewPair(stdout, stderr)
	defer log.Wait(logwriter.Grace)
	defer out.Wait(logwriter.Grace)
	if len(args) > 1 {
		fmt.Fprintf(log, "pixel-ping: arguments after the configuration are ignored: %q\n", args[1:])
	}
	if err := daemon(ctx, path, out, log); err != nil {
		fmt.Fprintf(log, "pixel-ping: %s\n", oneLine(err.Error()))
		return 1
	}
	return 0
}

// oneLine escapes the line ends in text, which may come from the name of a file.
func oneLine(text string) string {
	return strings.ReplaceAll(text, "\n", `\n`)
}

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
//	pixel-ping --check path/to/config.json
//	pixel-ping -v
//	pixel-ping -h
//
// With --check it reads the configuration and its certificate as a start would, prints
// that they are ok or what is wrong, and exits with 0 or 1.
//
// # Configuration
//
// The configuration is one JSON object. port and interval are required, but for
// port under systemd's socket activation; defaults stand in parentheses.
//
//	host           the name or address to listen on (all interfaces)
//	port           the port to listen on, 0 for a free one; or the path of a Unix
//	               socket, which has a slash in it
//	interval       seconds between two flushes
//	endpoint       the URL that the counts are posted to (none: they are only logged)
//	discard        true to drop the counts of a failed flush (false: send them again)
//	secret         sent with each flush, for the application to check
//	maxmemory      megabytes that the keys may take (256)
//	maxconnections connections that may be open at once (5000, or fewer if fewer
//	               files may be open)
//	journal        a directory in which counts outlive kill -9 and crashes; not on
//	               Windows (none)
//	metrics        an address (host:port), or the path of a Unix socket, for
//	               Prometheus to scrape at /metrics (none)
//	sslkey         a file with the key of the certificate, for HTTPS
//	sslcert        a file with the certificate
//	sslca          a file with certificates of authorities, to complete its chain
//
// # Signals
//
// SIGUSR2 forces a flush (not on Windows). SIGTERM, SIGINT and SIGHUP stop the
// daemon: it delivers the counts that it holds, within 9 seconds. A second SIGTERM
// or SIGINT ends it at once.
//
// # Exit status
//
// The exit status is 0 after a stop that delivered every hit, or left it in the
// journal. Without an endpoint, or with discard, it is 0 after any stop. It is 1 if
// hits were not delivered; a line says whether the log has them. It is also 1 if the
// daemon could not start or accept connections.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"pixel-ping/internal/config"
	"pixel-ping/internal/logwriter"
	"pixel-ping/internal/version"
)

const usage = "Usage: pixel-ping path/to/config.json"

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

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
		info, _ := debug.ReadBuildInfo()
		fmt.Fprintln(stdout, version.Line(info))
		return 0
	case "", "-h", "-help", "--help":
		fmt.Fprintln(stderr, usage)
		return 0
	case "--check":
		return check(args[1:], stdout, stderr)
	}
	// As in the original, a file may have the name of a flag.
	if _, err := os.Stat(path); strings.HasPrefix(path, "-") && errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(stderr, "pixel-ping: %s is not a flag, and there is no such file\n%s\n", oneLine(path), usage)
		return 1
	}
	out, log := logwriter.NewPair(stdout, stderr)
	// The process ends when run returns. The lines under way get a moment before.
	defer func() {
		end := time.Now().Add(logwriter.Grace)
		out.Wait(time.Until(end))
		log.Wait(time.Until(end))
	}()
	warnOfArguments(args[1:], log)
	if err := daemon(ctx, path, out, log); err != nil {
		fmt.Fprintf(log, "pixel-ping: %s\n", oneLine(err.Error()))
		return 1
	}
	return 0
}

// check is run for pixel-ping --check: args is the rest of the command line.
func check(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 || args[0] == "" {
		fmt.Fprintf(stderr, "pixel-ping: --check needs the path of a configuration\n%s\n", usage)
		return 1
	}
	warnOfArguments(args[1:], stderr)
	conf, _, err := load(args[0], stderr)
	if err != nil {
		fmt.Fprintf(stderr, "pixel-ping: %s\n", oneLine(err.Error()))
		return 1
	}
	if conf.Port == config.NoPort {
		fmt.Fprintf(stderr, "pixel-ping: %s: port: missing; the daemon needs a socket of systemd's, "+
			"which a check does not see\n", oneLine(args[0]))
	}
	fmt.Fprintf(stdout, "%s: ok\n", oneLine(args[0]))
	return 0
}

// warnOfArguments names the arguments that the original ignores without a word.
func warnOfArguments(further []string, stderr io.Writer) {
	if len(further) > 0 {
		fmt.Fprintf(stderr, "pixel-ping: arguments after the configuration are ignored: %q\n", further)
	}
}

// oneLine escapes the line ends in text. The name of a file may bring some.
func oneLine(text string) string {
	return strings.ReplaceAll(text, "\n", `\n`)
}

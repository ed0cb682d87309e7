// Pixel-ping is a minimalist pixel tracker: it answers
//
//	<img src="http://pixels.example.com/pixel.gif?key=...">
//
// with a 1x1 GIF at once, counts the hit in memory, and at every interval posts
// the counts to the publisher's own application, which stores them. It is a
// port of Pixel Ping 0.1.6 (CoffeeScript on Node), and takes its place without
// any other change.
//
// Usage:
//
//	pixel-ping path/to/config.json
//	pixel-ping -v
//	pixel-ping -h
//
// The configuration is one JSON object. port and interval are required.
//
//	host      the name or address to listen on (all interfaces)
//	port      the port to listen on; 0 for a free one
//	interval  seconds between two flushes
//	endpoint  the URL that the counts are posted to (none: they are only logged)
//	discard   true to drop the counts of a flush that failed (merged back)
//	secret    sent with each flush, for the application to check
//	maxmemory megabytes that the keys may take (256)
//	sslkey    a file with the key of the certificate, for HTTPS
//	sslcert   a file with the certificate
//	sslca     a file with the certificates of its authorities, to complete the chain
//
// SIGUSR2 forces a flush (not on Windows). SIGTERM, SIGINT and SIGHUP stop the
// daemon: it delivers what it holds, within 9 seconds. A second SIGTERM or SIGINT
// ends it at once.
//
// The exit status is 0 after a stop if every hit was delivered, or none was to
// be: without an endpoint, or with discard. It is 1 if some were not, which
// stand in the log, or if the daemon could not start.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"pixel-ping/internal/config"
	"pixel-ping/internal/logwriter"
)

const version = "1.0.0"

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program: args is the command line without the program's
// name, the result the exit status. It ends when the process is told to, when
// ctx ends, or when it can not serve. It handles the signals of the process, so
// there is one run at a time.
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
		fmt.Fprintln(stderr, "Usage: pixel-ping path/to/config.json")
		return 0
	}
	out, errors := logwriter.New(stdout), logwriter.New(stderr)
	if err := daemon(ctx, path, out, errors); err != nil {
		line := strings.ReplaceAll(err.Error(), "\n", `\n`) // as there may be in a file's name
		fmt.Fprintf(errors, "pixel-ping: %s\n", line)
		return 1
	}
	return 0
}

// load reads the configuration. It warns of settings that are not known, since
// they may be misspelt.
func load(path string, stderr io.Writer) (config.Config, error) {
	file, err := os.Open(path)
	if err != nil {
		return config.Config{}, fmt.Errorf("%s: %w", path, cause(err))
	}
	defer file.Close()
	conf, unknown, err := config.Parse(file)
	for _, name := range unknown {
		fmt.Fprintf(stderr, "pixel-ping: %s: unknown setting %q is ignored\n", path, name)
	}
	if err != nil {
		return config.Config{}, fmt.Errorf("%s: %w", path, cause(err))
	}
	return conf, nil
}

// cause takes off what an error of the file system says of the call and the
// path.
func cause(err error) error {
	if of, ok := errors.AsType[*fs.PathError](err); ok {
		return of.Err
	}
	return err
}

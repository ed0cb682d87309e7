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
// With --check it reads the configuration and the files of the certificate as a
// start would, and neither listens nor connects. It prints that they are ok and
// exits with 0, or it prints the error and exits with 1.
//
// The configuration is one JSON object. port and interval are required; defaults
// stand in parentheses.
//
//	host           the name or address to listen on (all interfaces)
//	port           the port to listen on, 0 for a free one; or the path of a Unix
//	               socket, which has a slash in it
//	interval       seconds between two flushes
//	endpoint       the URL that the counts are posted to (none: they are only logged)
//	discard        true to drop the counts of a flush that failed (false: they are
//	               merged into the next one)
//	secret         sent with each flush, for the application to check
//	maxmemory      megabytes that the keys may take (256)
//	maxconnections connections that may be open at once (the server's default)
//	sslkey         a file with the key of the certificate, for HTTPS
//	sslcert        a file with the certificate
//	sslca          a file with the certificates of its authorities, to complete the
//	               chain
//
// SIGUSR2 forces a flush (not on Windows). SIGTERM, SIGINT and SIGHUP stop the
// daemon: it delivers the counts that it holds, within 9 seconds. A second SIGTERM
// or SIGINT ends it at once.
//
// The exit status is 0 after a stop that delivered every hit. Without an endpoint,
// or with discard, it is 0 after any stop. It is 1 if hits were not delivered: the
// log has them. It is also 1 if the daemon could not start.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"pixel-ping/internal/cert"
	"pixel-ping/internal/config"
	"pixel-ping/internal/endpoint"
	"pixel-ping/internal/flush"
	"pixel-ping/internal/hits"
	"pixel-ping/internal/pixel"
	"pixel-ping/internal/server"
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
	case "--check":
		return check(args[1:], stdout, stderr)
	}
	// As in the original, a file may have the name of a flag.
	if _, err := os.Stat(path); strings.HasPrefix(path, "-") && errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(stderr, "pixel-ping: %s is not a flag, and there is no such file\n%s\n", oneLine(path), usage)
		return 1
	}
	out, log := &logWriter{w: stdout}, &logWriter{w: stderr}
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
	if _, _, err := load(args[0], stderr); err != nil {
		fmt.Fprintf(stderr, "pixel-ping: %s\n", oneLine(err.Error()))
		return 1
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

// oneLine escapes the line ends in text, which may come from the name of a file.
func oneLine(text string) string {
	return strings.ReplaceAll(text, "\n", `\n`)
}

// daemon builds the way of a hit, announces it, and lives until it is stopped.
// The original announces before it has listened, and lives on without a server
// if the port is taken or the certificate does not load.
func daemon(ctx context.Context, path string, stdout, stderr *logWriter) error {
	conf, certificate, err := load(path, stderr)
	if err != nil {
		return err
	}
	boundMemory(conf.MaxMemory)
	store := hits.NewStore(conf.MaxMemory)
	httpServer := newServer(pixel.Handler{Hits: store}, certificate, stderr)
	flusher := &flush.Flusher{
		Store:    store,
		Discard:  conf.Discard,
		Interval: conf.Interval,
		Stdout:   stdout,
		Stderr:   stderr,
	}
	if conf.Endpoint != nil {
		flusher.Endpoint = endpoint.New(conf.Endpoint, conf.EndpointTarget, conf.Secret, conf.Interval)
	}

	// Signals first: whoever can connect may send one.
	stop, forced := make(chan os.Signal, 1), make(chan os.Signal, 1)
	notify(stop, forced)
	defer signal.Stop(stop)
	defer signal.Stop(forced)
	var listeners []net.Listener
	if conf.Socket != "" {
		var listener net.Listener
		listener, err = server.ListenSocket(conf.Socket)
		listeners = []net.Listener{listener}
	} else {
		listeners, err = listen(conf.Host, conf.Port)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, explainPort(err, conf.Port))
	}
	if conf.Endpoint != nil {
		fmt.Fprintf(stdout, "Flushing hits to %s\n", conf.EndpointText)
	} else {
		fmt.Fprintf(stderr, "No endpoint set. Hits won't be flushed, add \"endpoint\" to %s.\n", path)
	}
	fmt.Fprintf(stdout, "Serving the pixel at %s\n", address(conf, listeners[0]))

	failed, open := make(chan error, len(listeners)), new(connections)
	for _, listener := range listeners {
		go func() { failed <- serve(httpServer, listener, open) }()
	}
	delivery, abandon := context.WithCancelCause(context.Background())
	defer abandon(nil)
	stopped, flushed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(flushed)
		flusher.Run(delivery, stopped, forced)
	}()
	if certificate != nil {
		go certificate.Watch(delivery, func(err error) { fmt.Fprintf(stderr, "pixel-ping: %s: %v\n", path, err) })
	}

	select {
	case <-ctx.Done():
	case <-stop:
	case err = <-failed:
	}

	bound(delivery, abandon, stop)
	stdout.hurryAfter(stopTimeout / 2)
	stderr.hurryAfter(stopTimeout / 2)
	shut(delivery, httpServer, open)
	close(stopped)
	ended := within(delivery, flushed)
	switch pending := store.Pending(); {
	case conf.Endpoint == nil || conf.Discard: // Nothing was promised.
	case !ended:
		err = join(err, fmt.Sprintf("up to %d hits were not delivered, and there was no time to log them all", pending))
	case pending > 0:
		err = join(err, fmt.Sprintf("%d hits of %d keys were not delivered; the log has them", pending, len(store.Take())))
	}
	return err
}

// boundMemory has the garbage collector keep the process to about twice what the
// store may hold: that much, again as much while a batch is out, and some for
// the rest. Garbage may take half of what is in use, rather than as much as that.
// Whoever sets GOMEMLIMIT or GOGC knows better.
//
// A hit leaves over 2 kB of garbage, all net/http's, and the heap is small when
// there are few keys: by default the collector would run for every 4 MB. The
// ballast, which is never touched and so takes no memory, has it run for every
// 16 MB. That takes a tenth off the processor time for a hit (14.8 µs of make
// bench, and 13.3 with this).
func boundMemory(maxMemory int64) {
	if os.Getenv("GOMEMLIMIT") != "" || os.Getenv("GOGC") != "" {
		return
	}
	debug.SetMemoryLimit(2*maxMemory + 128<<20 + ballastSize)
	debug.SetGCPercent(50)
	ballast = make([]byte, ballastSize)
}

const ballastSize = 32 << 20

var ballast []byte

// load reads the configuration, and the certificate that it names: certificate is
// nil if it names none. It prints the warnings about the configuration. Its errors
// begin with path.
func load(path string, stderr io.Writer) (conf config.Config, certificate *cert.Certificate, err error) {
	file, err := os.Open(path)
	if err != nil {
		return config.Config{}, nil, fmt.Errorf("%s: %w", path, cause(err))
	}
	defer file.Close()
	conf, warnings, err := config.Parse(file)
	for _, warning := range warnings {
		fmt.Fprintf(stderr, "pixel-ping: %s: %s\n", oneLine(path), warning)
	}
	if err == nil && conf.SSLKey != "" {
		certificate, err = cert.Load(conf.SSLKey, conf.SSLCert, conf.SSLCA)
	}
	if err != nil {
		return config.Config{}, nil, fmt.Errorf("%s: %w", path, cause(err))
	}
	return conf, certificate, nil
}

// cause returns an error of the file system without the call and the path that
// its text begins with.
func cause(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}

// explainPort says what to do if the system lets only privileged processes listen
// on a port below 1024.
func explainPort(err error, port int) error {
	if errors.Is(err, syscall.EACCES) && 0 < port && port < 1024 {
		return fmt.Errorf("%w; ports below 1024 need a privilege: start it with the systemd unit, "+
			"run setcap cap_net_bind_service=+ep on the program, or use a higher port behind a front end", err)
	}
	return err
}

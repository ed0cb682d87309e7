// Pixel-ping is a minimalist pixel tracker. It answers
//
//	<img src="http://pixels.example.com/pixel.gif?key=...">
//
// with a 1x1 GIF at once and counts the hit in memory. At every interval it posts the counts to the
// publisher's own application, which stores them. It is a port of Pixel Ping 0.1.6 (CoffeeScript on
// Node): it takes the same configuration and sends the same POST. The README lists the differences.
//
// Usage:
//
//	pixel-ping path/to/config.json
//	pixel-ping --check path/to/config.json
//	pixel-ping --health path/to/config.json
//	pixel-ping -v
//	pixel-ping -h
//
// With --check it reads the configuration and its certificate as a start would, looks at the journal's
// directory, and prints that they are ok or what is wrong. With --health it asks the daemon that runs
// with the configuration for the pixel, and prints one line within 3 seconds. Both exit with 0 or 1.
//
// # Configuration
//
// The configuration is one JSON object. port and interval are required, but for port under systemd's
// socket activation; defaults stand in parentheses.
//
//	host           the name or address to listen on (all interfaces)
//	port           the port to listen on, 0 for a free one; or the path of a Unix socket, which has a slash in it
//	interval       seconds between two flushes
//	endpoint       the URL that the counts are posted to, http://unix:/run/app.sock:/save_hits for a Unix
//	               socket (none: they are only logged)
//	discard        true to drop the counts of a failed flush (false: send them again)
//	secret         sent with each flush, for the application to check
//	maxmemory      megabytes that the keys may take (a quarter of the memory, at most 256)
//	maxconnections connections that may be open at once (4500, or what memory and open files allow)
//	keepalive      seconds that a connection may be idle (75)
//	journal        a directory in which counts outlive kill -9 and crashes; not on Windows (none)
//	metrics        an address (host:port), or the path of a Unix socket, for Prometheus to scrape at /metrics (none)
//	sslkey         a file with the key of the certificate, for HTTPS
//	sslcert        a file with the certificate
//	sslca          a file with certificates of authorities, to complete its chain
//
// The environment variables SSL_CERT_FILE and SSL_CERT_DIR name other certificates of authorities than
// the system's, for an endpoint with https.
//
// # Signals
//
// SIGUSR2 forces a flush (not on Windows). SIGTERM, SIGINT and SIGHUP stop the daemon: it delivers the counts that it
// holds, within 9 seconds. After a second SIGTERM or SIGINT, it only writes the log, for 2 seconds.
//
// # Exit status
//
// The exit status is 0 after a stop if each hit was delivered, is in the journal, or was refused by the application
// for its key. With discard, or without an endpoint and a journal, it is 0 after any stop. It is 1 if other hits were
// not delivered; a line says whether the log has them. It is also 1 if the daemon could not start or accept
// connections, but 78 if no start can succeed before the configuration or the certificate is edited.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"pixel-ping/internal/arguments"
	"pixel-ping/internal/config"
	"pixel-ping/internal/health"
	"pixel-ping/internal/journal"
	"pixel-ping/internal/logwriter"
	"pixel-ping/internal/pixel"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program without its process: args is the command line without the program's name, and the result is the
// exit status. It returns after a stop (by a signal, or by the end of ctx), or when the daemon cannot start or cannot
// serve. It handles the signals of the process, so there may be one run at a time.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	what, path, status := arguments.Parse(args, stdout, stderr)
	if path == "" {
		return status
	}
	out, log := logwriter.NewPair(stdout, stderr)
	d := daemon{path: path, stdout: out, stderr: log}
	var err error
	switch what {
	case arguments.Run:
		err = d.run(ctx)
	case arguments.Check:
		err = d.check()
	case arguments.Health:
		err = d.askHealth(ctx)
	}
	wait := logwriter.Grace
	if err != nil {
		fmt.Fprintf(log, "pixel-ping: %s\n", arguments.OneLine(err.Error()))
		status, wait = 1, log.Left()
	}
	if what == arguments.Run && d.refused {
		status = 78 // EX_CONFIG of sysexits.h: no service manager needs to try again
	}
	// The process ends when run returns. The lines under way get a moment before.
	end := time.Now().Add(wait)
	out.Wait(time.Until(end))
	log.Wait(time.Until(end))
	return status
}

// check is --check: a start that ends before anything is made or listened on.
func (d *daemon) check() error {
	conf, _, err := d.load()
	if err != nil {
		return err
	}
	if conf.Port == config.NoPort {
		d.tell("port: missing; the daemon needs a socket of systemd's, which a check does not see")
	}
	return d.path.Answer(d.stdout, "ok", journal.Check(conf.Journal, d.tell))
}

// askHealth is --health. It needs no certificate, which it may not be able to read.
func (d *daemon) askHealth(ctx context.Context) error {
	conf, _, err := config.Load(string(d.path))
	if err != nil {
		return err
	}
	err = health.Ask(ctx, conf.Host, conf.Port, conf.Socket, conf.SSLKey != "", pixel.Path)
	return d.path.Answer(d.stdout, "the daemon serves the pixel", err)
}

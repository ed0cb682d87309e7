package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"pixel-ping/internal/cert"
	"pixel-ping/internal/config"
	"pixel-ping/internal/endpoint"
	"pixel-ping/internal/flush"
	"pixel-ping/internal/hits"
	"pixel-ping/internal/journal"
	"pixel-ping/internal/logwriter"
	"pixel-ping/internal/memory"
	"pixel-ping/internal/pixel"
	"pixel-ping/internal/server"
)

// The parts of a stop end at these times after its beginning. Container engines kill
// after 10 seconds.
const (
	requestsUntil = 2 * time.Second         // the requests that are under way
	deliveryUntil = 6500 * time.Millisecond // the delivery of the counts
	logUntil      = 8400 * time.Millisecond // the log of the counts
	stopUntil     = 8500 * time.Millisecond // the flusher; then the program ends
)

// secondLog is how long the log may take after a second signal.
const secondLog = 2 * time.Second

// daemon wires the store, the server and the flusher, prints the start-up lines,
// and runs until it is stopped: by the end of ctx, by a signal, or because it cannot
// accept connections any more. Then it delivers the counts that it holds. The
// original prints its line before it listens, and runs on without a server if the
// port is taken or the certificate does not load.
func daemon(ctx context.Context, path string, stdout, stderr *logwriter.Writer) error {
	conf, warnings, err := config.Load(path)
	for _, warning := range warnings {
		fmt.Fprintf(stderr, "pixel-ping: %s: %s\n", oneLine(path), warning)
	}
	if err != nil {
		return err
	}
	var certificate *cert.Certificate
	var getCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	if conf.SSLKey != "" {
		if certificate, err = cert.Load(conf.SSLKey, conf.SSLCert, conf.SSLCA); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		getCertificate = certificate.Get
	}
	store := hits.NewStore(conf.MaxMemory)
	if conf.Journal != "" {
		tell := func(line string) { fmt.Fprintf(stderr, "pixel-ping: %s: %s\n", path, line) }
		kept, batches, err := journal.Open(conf.Journal, tell)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		store.UseJournal(kept, batches)
		defer store.Close()
	}
	srv := server.New(pixel.Handler{Hits: store}, getCertificate, conf.MaxConnections, stderr)
	memory.Bound(conf.MaxMemory, srv.MaxConnections())
	flusher := &flush.Flusher{
		Store: store, Discard: conf.Discard, Interval: conf.Interval,
		Stdout: stdout, Stderr: stderr,
	}
	if conf.Endpoint != nil {
		flusher.Endpoint = endpoint.New(conf.Endpoint, conf.EndpointTarget, conf.Secret, conf.Interval)
	}

	// Signals are handled before the daemon listens: looking up the name of the host may
	// take long, and a signal ends it. Two contexts end one after the other: running at
	// the beginning of a stop, delivery when the stop has no more time for a delivery.
	stop, forced := make(chan os.Signal, 1), make(chan os.Signal, 1)
	notify(stop, forced)
	defer signal.Stop(stop)
	defer signal.Stop(forced)
	running, end := context.WithCancel(ctx)
	defer end()
	delivery, abandon := context.WithCancelCause(context.Background())
	defer abandon(nil)
	go func() {
		for {
			select {
			case s := <-stop:
				// A second signal ends the stop. SIGHUP does not: a terminal that closes
				// sends it twice, and systemd may send it after SIGTERM.
				if running.Err() != nil && s != syscall.SIGHUP {
					abandon(errors.New("stopped by a second signal"))
					stdout.SetDeadline(time.Now().Add(secondLog))
				}
				end()
			case <-delivery.Done():
				return
			}
		}
	}()

	listeners, err := server.Listen(running, conf.Host, conf.Port)
	if running.Err() != nil { // stopped meanwhile
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if conf.Endpoint != nil {
		fmt.Fprintf(stdout, "Flushing hits to %s\n", conf.EndpointText)
	} else {
		fmt.Fprintf(stderr, "No endpoint set. Hits won't be flushed, add \"endpoint\" to %s.\n", oneLine(path))
	}
	if recovered := store.Pending(); recovered > 0 {
		fmt.Fprintf(stderr, "pixel-ping: %s of %s were recovered from the journal %s\n",
			logwriter.Plural(recovered, "hit"), logwriter.Plural(len(store.List()), "key"), conf.Journal)
	}
	fmt.Fprintf(stdout, "Serving the pixel at %s%s\n", srv.URL(conf.Host, listeners[0]), pixel.Path)

	failures := make(chan error, len(listeners))
	for _, listener := range listeners {
		go func() { failures <- srv.Serve(listener) }()
	}
	stopped, flushed := make(chan struct{}), make(chan flush.Rest, 1)
	go func() { flushed <- flusher.Run(delivery, stopped, forced) }()
	if certificate != nil {
		go certificate.Watch(delivery, func(err error) {
			fmt.Fprintf(stderr, "pixel-ping: %s: %s\n", oneLine(path), oneLine(err.Error()))
		})
	}
	go memory.ReturnAfterSpikes(delivery)

	select {
	case <-running.Done():
	case err = <-failures:
		fmt.Fprintf(stderr, "pixel-ping: cannot accept connections: %v\n", err)
		err = errors.New("stopped, since it cannot accept connections")
		end()
	}
	defer time.AfterFunc(deliveryUntil, func() { abandon(errors.New("stopped before there was an answer")) }).Stop()
	stdout.SetDeadline(time.Now().Add(logUntil))
	late := time.After(stopUntil)
	requests, cancel := context.WithTimeout(delivery, requestsUntil)
	defer cancel()
	srv.Stop(requests)
	close(stopped)
	select {
	case rest := <-flushed:
		if rest.Kept {
			fmt.Fprintf(stderr, "pixel-ping: %s\n", rest)
		} else if rest.Hits > 0 {
			return errors.New(rest.String())
		}
	case <-late:
		return fmt.Errorf("up to %s were not delivered, and there was no time to log them all",
			logwriter.Plural(store.Pending(), "hit"))
	}
	return err
}

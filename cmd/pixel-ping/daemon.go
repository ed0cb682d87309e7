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
	"pixel-ping/internal/logwriter"
	"pixel-ping/internal/memory"
	"pixel-ping/internal/pixel"
	"pixel-ping/internal/server"
)

// A stop takes less than the 10 seconds after which container engines kill.
// These are counted from its beginning.
const (
	requestsUntil = 2 * time.Second         // requests that are under way
	deliveryUntil = 6500 * time.Millisecond // the delivery of what is held
	logUntil      = 8400 * time.Millisecond // the log of what was held
	stopUntil     = 8500 * time.Millisecond // the flusher; then the program ends

	// secondLog is how long the log may take after a second signal.
	secondLog = 2 * time.Second
)

// daemon wires the store, the server and the flusher, prints the start-up lines,
// and runs until it is stopped: by ctx, by a signal, or because it cannot listen
// any more. The original prints its line before it listens, and runs on without
// a server if the port is taken or the certificate does not load.
func daemon(ctx context.Context, path string, stdout, stderr *logwriter.Writer) error {
	tell := func(line string) { fmt.Fprintf(stderr, "pixel-ping: %s: %s\n", oneLine(path), line) }
	conf, warnings, err := config.Load(path)
	for _, warning := range warnings {
		tell(warning)
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
	store, err := hits.Open(conf.MaxMemory, conf.Journal, tell)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	visitors := server.New(pixel.Handler{Hits: store}, getCertificate, conf.MaxConnections, stderr)
	memory.Bound(conf.MaxMemory, visitors.MaxConnections())
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

	// Signals come before listening: whoever can connect may send one, and a name
	// server that does not answer must not keep the daemon from stopping.
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
	if running.Err() != nil {
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
	fmt.Fprintf(stdout, "Serving the pixel at %s%s\n", visitors.URL(conf.Host, listeners[0]), pixel.Path)

	failed := make(chan error, len(listeners))
	for _, listener := range listeners {
		go func() { failed <- visitors.Serve(listener) }()
	}
	stopped, flushed := make(chan struct{}), make(chan flush.Rest, 1)
	go func() { flushed <- flusher.Run(delivery, stopped, forced) }()
	if certificate != nil {
		go certificate.Watch(delivery, func(err error) { tell(err.Error()) })
	}
	go memory.ReturnAfterSpikes(delivery)

	select {
	case <-running.Done():
	case err = <-failed:
		end()
	}
	defer time.AfterFunc(deliveryUntil, func() { abandon(errors.New("stopped before there was an answer")) }).Stop()
	stdout.SetDeadline(time.Now().Add(logUntil))
	late := time.After(stopUntil)
	requests, cancel := context.WithTimeout(delivery, requestsUntil)
	defer cancel()
	visitors.Stop(requests)
	close(stopped)
	var lost string
	select {
	case rest := <-flushed:
		if rest.Hits > 0 {
			lost = rest.String()
		}
	case <-late:
		lost = flusher.Unfinished()
	}
	if err == nil && lost != "" {
		return errors.New(lost)
	}
	if lost != "" {
		fmt.Fprintf(stderr, "pixel-ping: %s\n", lost)
	}
	return err
}

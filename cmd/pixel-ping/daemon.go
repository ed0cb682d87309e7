package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"pixel-ping/internal/cert"
	"pixel-ping/internal/config"
	"pixel-ping/internal/endpoint"
	"pixel-ping/internal/flush"
	"pixel-ping/internal/hits"
	"pixel-ping/internal/listen"
	"pixel-ping/internal/logwriter"
	"pixel-ping/internal/memory"
	"pixel-ping/internal/metrics"
	"pixel-ping/internal/pixel"
	"pixel-ping/internal/server"
	"pixel-ping/internal/signals"
	"pixel-ping/internal/stats"
	"pixel-ping/internal/systemd"
	"pixel-ping/internal/version"
)

// The parts of a stop end at these times after its beginning. Container engines kill
// after 10 seconds.
const (
	requestsUntil = 2 * time.Second         // the requests that are under way
	deliveryUntil = 6500 * time.Millisecond // the delivery of the counts
	logUntil      = 8400 * time.Millisecond // the log of the counts
	stopUntil     = 8500 * time.Millisecond // the flusher; then the program ends

	// secondLog is how long the log may take after a second signal.
	secondLog = 2 * time.Second
)

// daemon has the parts of a running daemon, in the order in which start makes them.
// One that start has not made is nil. run is to be called once.
type daemon struct {
	path           string            // of the configuration
	stdout, stderr *logwriter.Writer // the log, and what goes wrong

	signals     *signals.Signals
	certificate *cert.Certificate // also nil if there is none
	store       *hits.Store
	server      *server.Server
	flusher     *flush.Flusher
	listeners   []net.Listener
	metrics     *metrics.Server // also nil if there is none
	manager     *systemd.Notifier

	flushed chan flush.Rest // what the flusher leaves; nil until the flusher runs, which then closes the store
}

// run starts the daemon, and returns when it has stopped: by the end of ctx, by a
// signal, or because it cannot accept connections any more. After a stop, it returns
// an error that says which hits are lost, if some are.
func (d *daemon) run(ctx context.Context) error {
	defer d.close()
	if err := d.start(ctx); err != nil {
		if d.signals.Running.Err() != nil {
			return nil // stopped meanwhile
		}
		return err
	}
	return d.serve()
}

// close undoes start, in the reverse order. What is undone already stays so.
func (d *daemon) close() {
	d.manager.Close()
	d.metrics.Close()
	for _, listener := range d.listeners {
		listener.Close()
	}
	if d.store != nil && d.flushed == nil {
		d.store.Close()
	}
	d.signals.Close()
}

// start makes the parts, and prints the start-up lines when the daemon listens. The
// original prints its line before it listens, and runs on without a server if the
// port is taken or the certificate does not load. An error begins with d.path.
func (d *daemon) start(ctx context.Context) error {
	// Signals come first: looking up the name of the host may take long, and a signal
	// ends it.
	d.signals = signals.Watch(ctx, func() { d.stdout.SetDeadline(time.Now().Add(secondLog)) })
	conf, certificate, err := load(d.path, d.stderr)
	if err != nil {
		return err
	}
	d.certificate = certificate
	if d.store, err = hits.Open(conf.MaxMemory, conf.Journal, d.tell); err != nil {
		return fmt.Errorf("%s: %w", d.path, err)
	}
	d.server = server.New(pixel.Handler{Hits: d.store}, certificate.Getter(), conf.MaxConnections, d.stderr)
	memory.Bound(conf.MaxMemory, d.server.MaxConnections())
	d.manager = systemd.NewNotifier()
	d.flusher = &flush.Flusher{Store: d.store, Discard: conf.Discard, Interval: conf.Interval,
		Stdout: d.stdout, Stderr: d.stderr, Alive: d.manager.Expect}
	if conf.Endpoint != nil {
		application := endpoint.New(conf.Endpoint, conf.EndpointTarget, conf.Secret, conf.Interval)
		application.Alive, d.flusher.Endpoint = d.manager.Expect, application
	}
	var inherited bool
	d.listeners, inherited, err = listen.Find(d.signals.Running, conf.Host, conf.Port, conf.Socket)
	if inherited {
		d.server.Inherit()
		if conf.Port != config.NoPort {
			d.tell("host and port are ignored: the daemon serves the sockets that systemd listens on for it")
		}
		conf.Host = "" // for the URL: the socket has its own address
	}
	if err == nil {
		handler := metrics.Handler{Version: version.Number, Stats: d.stats}
		d.metrics, err = metrics.Start(d.signals.Running, conf.Metrics, handler)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", d.path, err)
	}

	if conf.Endpoint != nil {
		fmt.Fprintf(d.stdout, "Flushing hits to %s\n", conf.EndpointText)
	} else {
		fmt.Fprintf(d.stderr, "No endpoint set. Hits won't be flushed, add \"endpoint\" to %s.\n", oneLine(d.path))
	}
	fmt.Fprintf(d.stdout, "Serving the pixel at %s\n", d.server.URL(conf.Host, d.listeners[0], pixel.Path))
	d.metrics.Announce(d.stdout)
	return nil
}

// serve serves until the daemon is to stop. Then it delivers the counts that are held.
func (d *daemon) serve() (err error) {
	failures := make(chan error, len(d.listeners))
	for _, listener := range d.listeners {
		go func() { failures <- d.server.Serve(listener) }()
	}
	answered := make(chan struct{})
	d.flushed = make(chan flush.Rest, 1)
	go func() { d.flushed <- d.flusher.Run(d.signals.Delivery, answered, d.signals.Forced) }()
	go d.certificate.Watch(d.signals.Delivery, func(err error) { d.tell(err.Error()) })
	go memory.ReturnAfterSpikes(d.signals.Delivery)
	status := func() string { return d.stats().Status(time.Now()) }
	d.manager.Ready(d.signals.Running, status)

	select {
	case <-d.signals.Running.Done():
	case err = <-failures:
		fmt.Fprintf(d.stderr, "pixel-ping: cannot accept connections: %v\n", err)
		err = errors.New("stopped, since it cannot accept connections")
		d.signals.End()
	}
	d.signals.AbandonAfter(deliveryUntil)
	d.stdout.SetDeadline(time.Now().Add(logUntil))
	late := time.After(stopUntil)
	d.manager.Stopping(status())
	requests, cancel := context.WithTimeout(d.signals.Delivery, requestsUntil)
	defer cancel()
	d.server.Stop(requests)
	close(answered)
	select {
	case rest := <-d.flushed:
		if rest.Hits > 0 {
			err = errors.New(rest.String())
		}
	case <-late:
		err = errors.New(d.flusher.Unfinished())
	}
	return err
}

// stats returns what the parts count. It may be called by many goroutines at once.
func (d *daemon) stats() stats.All {
	return stats.All{Hits: d.store.Stats(), Flushes: d.flusher.Stats(), Connections: d.server.Stats()}
}

// tell writes a line about the configuration to stderr.
func (d *daemon) tell(line string) {
	fmt.Fprintf(d.stderr, "pixel-ping: %s: %s\n", oneLine(d.path), oneLine(line))
}

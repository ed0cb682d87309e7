# Only Go is needed, but for the targets that say so.

PREFIX ?= /usr/local
GOFMT = "$$(go env GOROOT)/bin/gofmt"

# go.mod names the toolchain. A go command that is older fetches it as a module.
ifneq ($(shell command -v go),)
export GOTOOLCHAIN := $(shell GOTOOLCHAIN=auto go version >/dev/null 2>&1 && echo auto || echo local)
ifeq ($(GOTOOLCHAIN)$(MAKELEVEL),local0)
$(shell echo "Warning: $$(sed -n 's/^toolchain //p' go.mod) cannot be fetched. This Go has known security holes that \
	reach pixel-ping: GO-2026-6617, GO-2026-6603, GO-2026-6611, GO-2026-6613." >&2)
endif
# git refuses to read a repository of another user, such as that of a clone in which root
# runs make install. The go command would then refuse to build.
ifneq ($(wildcard .git),)
ifneq ($(shell git rev-parse HEAD >/dev/null 2>&1; echo $$?),0)
export GOFLAGS := $(shell go env GOFLAGS) -buildvcs=false
endif
endif
endif

# The Go programs: ./... leaves out what is in testdata.
RECEIVER = ./testdata/recipes/receiver

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: run
run: build ## show the whole loop: the daemon on port 9187 and an example application
	@go build -o .build/ $(RECEIVER) ./internal/rig/run
	@.build/run .build/receiver ./pixel-ping $(RECEIVER)/config.json

.PHONY: test
test: ## check formatting, vet, and run all tests
	@unformatted=$$($(GOFMT) -l .) && test -z "$$unformatted" || { echo "gofmt would change: $$unformatted"; exit 1; }
	go vet ./... $(RECEIVER)
	@if [ "$$(go env CGO_ENABLED)" = 1 ] && command -v $$(go env CC) >/dev/null; then \
		set -x; go test -race -timeout 30m ./...; \
	elif [ "$(RACE)" = required ]; then \
		echo "The race detector is required, and needs a C compiler: there is none."; exit 1; \
	else \
		echo "Without the race detector, as there is no C compiler for it."; \
		set -x; go test -timeout 30m ./...; \
	fi

# The original, the Node that it is compared on, and the compiler for its own
# test.
ORIGINAL = .build/original
$(ORIGINAL)/node_modules/pixel-ping:
	@internal/rig/need npm nodejs npm
	@mkdir -p $(ORIGINAL)
	npm install --prefix $(ORIGINAL) --no-save --no-package-lock --no-audit --no-fund pixel-ping@0.1.6 coffeescript@2.7.0 node@20.20.2

CONFORMANCE = PATH="$(CURDIR)/$(ORIGINAL)/node_modules/.bin:$$PATH" ORIGINAL="$(CURDIR)/$(ORIGINAL)" PIXEL_PING="$(CURDIR)/pixel-ping" \
	go test -count=1 -v ./internal/rig/conformance

.PHONY: conformance
conformance: build $(ORIGINAL)/node_modules/pixel-ping ## compare with the original, byte for byte (needs npm); SEED=n repeats a run
	$(CONFORMANCE)

.PHONY: record
record: build $(ORIGINAL)/node_modules/pixel-ping ## record what the original answers to testdata/vectors (needs npm)
	RECORD="$(CURDIR)/testdata/vectors" $(CONFORMANCE) -run TestRecord

SOAKTIME ?= 60s

.PHONY: soak
soak: build ## keep a ledger of every hit for SOAKTIME (60s), and flood the daemon, FLOOD=full as an attack would (needs nginx; root, xfs, btrfs and ext4 for the disks)
	@internal/rig/need nginx nginx
	@internal/rig/need mkfs.xfs xfsprogs
	@internal/rig/need mkfs.btrfs btrfs-progs
	@internal/rig/need mkfs.ext4 e2fsprogs
	SOAKTIME=$(SOAKTIME) PIXEL_PING="$(CURDIR)/pixel-ping" go test -count=1 -v -timeout 20m ./internal/rig/soak

# What the Express application needs. A node_modules beside it would be taken
# for a part of the source.
EXPRESS = .build/express
$(EXPRESS)/installed: testdata/recipes/express/package.json
	@internal/rig/need npm nodejs npm
	@mkdir -p $(EXPRESS)
	cp $< $(EXPRESS)
	npm install --prefix $(EXPRESS) --no-save --no-package-lock --no-audit --no-fund
	@touch $@

.PHONY: e2e
e2e: build $(EXPRESS)/installed ## show it with real browsers, front ends and applications (needs Debian, or what Makefile names)
	@internal/rig/need chromium chromium
	@internal/rig/need firefox-esr firefox-esr
	@internal/rig/need nginx nginx
	@internal/rig/need '/usr/lib/postgresql/*/bin/postgres' postgresql
	@internal/rig/need systemd-analyze systemd
	@internal/rig/need promtool prometheus
	@internal/rig/need rsyslogd rsyslog
	@internal/rig/need '/usr/lib/*/rsyslog/omhiredis.so' rsyslog-hiredis
	@internal/rig/need redis-server redis-server
	@internal/rig/need '/usr/sbin/php-fpm*' php-fpm php-sqlite3
	@internal/rig/need '/usr/lib/php/*/pdo_sqlite.so' php-sqlite3
	@internal/rig/need gunicorn gunicorn
	@internal/rig/need django-admin python3-django
	@internal/rig/need puma puma
	@internal/rig/need '/usr/share/rubygems-integration/all/gems/railties-*/lib/rails.rb' ruby-railties
	@internal/rig/need '/usr/share/rubygems-integration/all/gems/activerecord-*/lib/active_record.rb' ruby-activerecord
	@internal/rig/need /usr/lib/ruby/vendor_ruby/sqlite3.rb ruby-sqlite3
	@internal/rig/need '/usr/share/rubygems-integration/all/gems/sinatra-*/lib/sinatra.rb' ruby-sinatra
	@internal/rig/need sqlite3 sqlite3
	@internal/rig/need /usr/lib/python3/dist-packages/yaml/__init__.py python3-yaml
	@internal/rig/need varnishd varnish
	@internal/rig/need pgbouncer pgbouncer
	@internal/rig/need /usr/lib/nginx/modules/ngx_http_modsecurity_module.so libnginx-mod-http-modsecurity
	@internal/rig/need /etc/modsecurity/crs/crs-setup.conf modsecurity-crs
	@internal/rig/need dnsmasq dnsmasq-base
	@internal/rig/need apache2 apache2-bin
	@internal/rig/need ip iproute2
	@internal/rig/need /usr/sbin/update-ca-certificates ca-certificates
	@internal/rig/need unshare util-linux
	EXPRESS="$(CURDIR)/$(EXPRESS)" PIXEL_PING="$(CURDIR)/pixel-ping" go test -count=1 -v -timeout 20m ./internal/rig/e2e

.PHONY: pictures
pictures: build $(EXPRESS)/installed ## take the README's pictures of the pages anew (needs what e2e needs)
	@internal/rig/need chromium chromium
	@internal/rig/need '/usr/lib/postgresql/*/bin/postgres' postgresql
	PICTURES=1 EXPRESS="$(CURDIR)/$(EXPRESS)" PIXEL_PING="$(CURDIR)/pixel-ping" go test -count=1 -run TestPictures ./internal/rig/e2e

BENCH = PATH="$(CURDIR)/$(ORIGINAL)/node_modules/.bin:$$PATH" ORIGINAL="$(CURDIR)/$(ORIGINAL)" EXPRESS="$(CURDIR)/$(EXPRESS)" PIXEL_PING="$(CURDIR)/pixel-ping" \
	go test -count=1 -v -timeout 30m ./internal/rig/bench

.PHONY: bench
bench: build $(ORIGINAL)/node_modules/pixel-ping $(EXPRESS)/installed ## measure beside the original, Express and nginx, in ROUNDS (3), with VISITORS (4400) that stay for two minutes (needs npm, nginx, wrk, Chromium)
	@internal/rig/need nginx nginx
	@internal/rig/need wrk wrk
	@internal/rig/need chromium chromium
	$(BENCH) -run 'TestHits|TestJournal|TestVisitors|TestBrowser|TestIdle|TestStart'

.PHONY: bench-flush
bench-flush: build $(ORIGINAL)/node_modules/pixel-ping $(EXPRESS)/installed ## measure flushes of 200,000 and 1,000,000 keys beside the original, and what a journal costs (needs npm, wrk)
	@internal/rig/need wrk wrk
	$(BENCH) -run 'TestFlush|TestJournal'

FUZZTIME ?= 30s

.PHONY: fuzz
fuzz: ## fuzz the parser and the encoders, each for FUZZTIME (30s)
	go test -run '^$$' -fuzz '^FuzzQueryValue$$' -fuzztime $(FUZZTIME) ./internal/node
	go test -run '^$$' -fuzz '^FuzzEscapes$$' -fuzztime $(FUZZTIME) ./internal/node
	go test -run '^$$' -fuzz '^FuzzBody$$' -fuzztime $(FUZZTIME) ./internal/post
	go test -run '^$$' -fuzz '^FuzzLog$$' -fuzztime $(FUZZTIME) ./internal/flush
	go test -run '^$$' -fuzz '^FuzzRecovery$$' -fuzztime $(FUZZTIME) ./internal/journal
	go test -run '^$$' -fuzz '^FuzzDecode$$' -fuzztime $(FUZZTIME) ./internal/journal

# -trimpath lets make dist use what this has compiled.
.PHONY: platforms
platforms: ## build for Linux, macOS, FreeBSD and Windows, to see that it does
	@for os in linux darwin freebsd windows; do \
		echo "$$os"; \
		GOOS=$$os CGO_ENABLED=0 go build -trimpath -o .build/$$os/ ./cmd/pixel-ping && GOOS=$$os CGO_ENABLED=0 go vet ./... || exit 1; \
	done

BUILD = CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o pixel-ping ./cmd/pixel-ping

.PHONY: build
build: ## build ./pixel-ping, static and stripped
	$(BUILD)

# Folders are sources, too: they are newer after a file was removed.
pixel-ping: $(shell find cmd internal go.mod ! -name '*_test.go')
	@command -v go >/dev/null || { \
		echo "./pixel-ping is missing or older than its source, and $$(id -un) has no go command in the PATH to build it." >&2; \
		echo "Run make build as a user who has one, then make install again." >&2; exit 1; }
	$(BUILD)

.PHONY: install
install: pixel-ping ## install it to PREFIX/bin (/usr/local/bin); build it first if the source is newer
	install -d "$(DESTDIR)$(PREFIX)/bin"
	install -m 755 pixel-ping "$(DESTDIR)$(PREFIX)/bin/pixel-ping"

.PHONY: dist
dist: ## make the archives of a release in .build/dist (needs GNU tar, zip)
	@internal/packages/dist

.PHONY: deb
deb: ## make Debian packages in .build/deb (needs dpkg-deb)
	@internal/packages/deb

.PHONY: image
image: ## make container images in .build/image (needs Docker or buildah)
	@internal/packages/image

.PHONY: packages
packages: build $(EXPRESS)/installed ## make archives, packages and images, and install and run them (needs root, dpkg, lintian, man, buildah, npm)
	@internal/rig/need lintian lintian
	@internal/rig/need man man-db
	@internal/rig/need unzip unzip
	@internal/rig/need git git
	@internal/rig/need npm nodejs npm
	@internal/rig/need adduser adduser
	EXPRESS="$(CURDIR)/$(EXPRESS)" PIXEL_PING="$(CURDIR)/pixel-ping" go test -count=1 -v -timeout 20m ./internal/rig/packages

# A small Debian, on which the machines of make systemd stand.
LIVING = .build/systemd
$(LIVING)/debian/pixel-test-machine: internal/rig/systemd/root
	@internal/rig/need debootstrap debootstrap
	internal/rig/systemd/root $(LIVING)/debian

.PHONY: systemd
systemd: build deb $(LIVING)/debian/pixel-test-machine ## install the package on machines with a systemd of their own (needs root, namespaces, debootstrap, iproute2)
	@internal/rig/need ip iproute2
	@internal/rig/need sysctl procps
	CGO_ENABLED=0 go build -o $(LIVING)/receiver $(RECEIVER)
	DEBIAN="$(CURDIR)/$(LIVING)/debian" PACKAGES="$(CURDIR)/.build/deb" RECEIVER="$(CURDIR)/$(LIVING)/receiver" \
		PIXEL_PING="$(CURDIR)/pixel-ping" go test -count=1 -v -timeout 15m ./internal/rig/systemd

.PHONY: clean
clean: ## remove what was built
	rm -rf pixel-ping .build

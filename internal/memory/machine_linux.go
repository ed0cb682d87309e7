package memory

import (
	"bufio"
	"bytes"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// readMachine reads from the root of the file system how much memory the process may
// use: the least of MemTotal and the limits of its cgroups and of all above them. What
// cannot be read is no limit.
func readMachine(root fs.FS) Machine {
	least := uint64(math.MaxInt64)
	for fields := range lines(root, "proc/meminfo") {
		if len(fields) > 1 && fields[0] == "MemTotal:" {
			if kilobytes, err := strconv.ParseUint(fields[1], 10, 53); err == nil {
				least = min(least, kilobytes<<10)
			}
		}
	}
	for _, h := range hierarchies(root) {
		// Above its mount point, a hierarchy cannot be seen.
		for folder := h.folder; ; folder = path.Dir(folder) {
			for _, name := range h.limits {
				text, err := fs.ReadFile(root, path.Join(folder, name))
				if limit, wrong := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil && wrong == nil {
					least = min(least, limit) // "max" is no number, and no limit
				}
			}
			if folder == h.top || folder == "." {
				break
			}
		}
	}
	return Machine(least)
}

// A hierarchy is a tree of cgroups that bounds memory.
type hierarchy struct {
	top    string   // where it is mounted
	folder string   // the cgroup of this process, at top or below
	limits []string // the files that have limits, in bytes
}

// hierarchies finds the hierarchies that bound memory: version 1's controller, version
// 2, or both where they are mixed.
func hierarchies(root fs.FS) (all []hierarchy) {
	groups := make(map[string]string) // the cgroup of this process, by controller; version 2 has an empty one
	for fields := range lines(root, "proc/self/cgroup") {
		// The path may have spaces: 4:memory:/a b
		parts := strings.SplitN(strings.Join(fields, " "), ":", 3)
		if len(parts) == 3 {
			for controller := range strings.SplitSeq(parts[1], ",") {
				groups[controller] = parts[2]
			}
		}
	}
	for fields := range lines(root, "proc/self/mountinfo") {
		// 35 31 0:32 ROOT TOP OPTIONS … - TYPE SOURCE OPTIONS
		dash := slices.Index(fields, "-")
		if dash < 6 || len(fields) < dash+4 {
			continue
		}
		h := hierarchy{top: unescape(fields[4]), limits: []string{"memory.max", "memory.high"}}
		group, ok := groups[""]
		if fields[dash+1] == "cgroup" {
			h.limits = []string{"memory.limit_in_bytes"}
			group, ok = groups["memory"]
			ok = ok && slices.Contains(strings.Split(fields[dash+3], ","), "memory")
		} else if fields[dash+1] != "cgroup2" {
			continue
		}
		if !ok {
			continue
		}
		// In a container, the mount shows only the part of the tree below ROOT. Where the
		// cgroup is not below it, it is the container's own.
		mounted := unescape(fields[3])
		below, ok := strings.CutPrefix(group, strings.TrimSuffix(mounted, "/"))
		if !ok || below != "" && below[0] != '/' || slices.Contains(strings.Split(below, "/"), "..") {
			below = ""
		}
		h.top = strings.TrimPrefix(h.top, "/")
		h.folder = path.Clean(h.top + below)
		all = append(all, h)
	}
	return all
}

// lines yields the fields of each line of a file, and none if it cannot be read.
func lines(root fs.FS, name string) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return
		}
		for scanner := bufio.NewScanner(bytes.NewReader(text)); scanner.Scan(); {
			if !yield(strings.Fields(scanner.Text())) {
				return
			}
		}
	}
}

// unescape returns a path of mountinfo, which has spaces and the like as octal numbers.
func unescape(text string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(text)
}

package memory

import (
	"math"
	"strings"
	"testing"
	"testing/fstest"
)

// What the process may use is the least limit up the tree of each hierarchy, and what
// the machine has.
func TestReadMachine(t *testing.T) {
	const (
		meminfo = "proc/meminfo"
		groups  = "proc/self/cgroup"
		mounts  = "proc/self/mountinfo"

		total   = "MemTotal:        8000000 kB\nMemFree:         1000 kB\n"
		v2      = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
		v1      = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
		v1cpu   = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
		unified = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
		root    = "23 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
		unitV2  = "sys/fs/cgroup/system.slice/pixel-ping.service/"
		unitV1  = "sys/fs/cgroup/memory/system.slice/pixel-ping.service/"
	)
	for name, test := range map[string]struct {
		files map[string]string
		want  Machine
	}{
		"nothing can be read": {nil, math.MaxInt64},
		"no cgroups":          {map[string]string{meminfo: total, mounts: root}, 8000000 << 10},
		"no limit": {map[string]string{
			meminfo: total, mounts: root + v2, groups: "0::/user.slice\n", "sys/fs/cgroup/user.slice/memory.max": "max\n",
		}, 8000000 << 10},
		"a unit's MemoryMax": {map[string]string{
			meminfo: total, mounts: root + v2, groups: "0::/system.slice/pixel-ping.service\n",
			unitV2 + "memory.max": "134217728\n", unitV2 + "memory.high": "max\n",
			"sys/fs/cgroup/system.slice/memory.max": "max\n",
		}, 128 << 20},
		"a unit's MemoryHigh": {map[string]string{
			meminfo: total, mounts: v2, groups: "0::/system.slice/pixel-ping.service\n",
			unitV2 + "memory.max": "134217728\n", unitV2 + "memory.high": "100000000\n",
		}, 100000000},
		"a slice's limit is less": {map[string]string{
			meminfo: total, mounts: v2, groups: "0::/system.slice/pixel-ping.service\n",
			unitV2 + "memory.max": "134217728\n", "sys/fs/cgroup/system.slice/memory.max": "67108864\n",
		}, 64 << 20},
		"a limit of version 1": {map[string]string{
			meminfo: total, mounts: v1cpu + v1, groups: "4:memory:/system.slice/pixel-ping.service\n1:cpu,cpuacct:/\n",
			unitV1 + "memory.limit_in_bytes": "134217728\n",
		}, 128 << 20},
		"up the tree of version 1": {map[string]string{
			meminfo: total, mounts: v1, groups: "4:memory:/system.slice/pixel-ping.service\n",
			unitV1 + "memory.limit_in_bytes":                          "9223372036854771712\n",
			"sys/fs/cgroup/memory/system.slice/memory.limit_in_bytes": "67108864\n",
		}, 64 << 20},
		"both versions, memory in 1": {map[string]string{
			meminfo: total, mounts: v1 + unified, groups: "4:memory:/a\n0::/b\n",
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "134217728\n",
		}, 128 << 20},
		"both versions, memory in 2": {map[string]string{
			meminfo: total, mounts: v1cpu + unified, groups: "1:cpu,cpuacct:/a\n0::/b\n",
			"sys/fs/cgroup/unified/b/memory.max": "134217728\n",
		}, 128 << 20},
		"a container of version 2 with its own namespace": {map[string]string{
			meminfo: total, mounts: v2, groups: "0::/\n", "sys/fs/cgroup/memory.max": "134217728\n",
		}, 128 << 20},
		"a container of version 2 that sees the host's names": {map[string]string{
			meminfo: total, groups: "0::/docker/0123\n",
			mounts:                     strings.Replace(v2, " / ", " /docker/0123 ", 1),
			"sys/fs/cgroup/memory.max": "134217728\n",
		}, 128 << 20},
		"a container of version 1": {map[string]string{
			meminfo: total, groups: "4:memory:/docker/0123\n",
			mounts: strings.Replace(v1, " / ", " /docker/0123 ", 1),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "134217728\n",
		}, 128 << 20},
		"a group in a container of version 1": {map[string]string{
			meminfo: total, groups: "4:memory:/docker/0123/inner\n",
			mounts: strings.Replace(v1, " / ", " /docker/0123 ", 1),
			"sys/fs/cgroup/memory/memory.limit_in_bytes":       "134217728\n",
			"sys/fs/cgroup/memory/inner/memory.limit_in_bytes": "67108864\n",
		}, 64 << 20},
		"a mount of another group": {map[string]string{
			meminfo: total, groups: "0::/../elsewhere\n", mounts: v2, "sys/fs/cgroup/memory.max": "134217728\n",
		}, 128 << 20},
		"a mount of a group whose name begins alike": {map[string]string{
			meminfo: total, groups: "0::/docker/01234\n", mounts: strings.Replace(v2, " / ", " /docker/0123 ", 1),
			"sys/fs/cgroup/memory.max": "134217728\n", "sys/fs/cgroup/4/memory.max": "1\n",
		}, 128 << 20},
		"a mount point with a space": {map[string]string{
			meminfo: total, groups: "0::/a b\n", mounts: strings.Replace(v2, "/sys/fs/cgroup", `/sys/fs/c\040g`, 1),
			"sys/fs/c g/a b/memory.max": "134217728\n",
		}, 128 << 20},
		"a limit above what the machine has": {map[string]string{
			meminfo: total, groups: "0::/\n", mounts: v2, "sys/fs/cgroup/memory.max": "100000000000\n",
		}, 8000000 << 10},
	} {
		files := make(fstest.MapFS)
		for name, text := range test.files {
			files[name] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := readMachine(files); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

// This machine says how much memory it has.
func TestThisMachine(t *testing.T) {
	if m := ThisMachine(); m < 16<<20 || m == math.MaxInt64 {
		t.Errorf("this machine has %d bytes", m)
	}
}

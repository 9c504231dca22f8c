package sandbox

import "testing"

// Where a group is, on hosts with either version, with both, and inside of a
// container that sees a part of the tree.
func TestGroupMount(t *testing.T) {
	t.Parallel()
	const mounts = `24 1 0:21 / / rw - ext4 /dev/vda rw
30 24 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
31 24 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 24 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
33 24 0:30 /docker/abc /part rw - cgroup cgroup rw,pids
`
	for _, tc := range []struct{ controller, path, want string }{
		{"memory", "/tess/u", "/sys/fs/cgroup/memory/tess/u"},
		{"cpu", "/tess/u", "/sys/fs/cgroup/cpu,cpuacct/tess/u"},
		{"cpuacc", "/tess/u", ""},
		{"", "/tess/u", "/sys/fs/cgroup/unified/tess/u"},
		{"pids", "/docker/abc/u", "/part/u"},
		{"pids", "/elsewhere", ""},
	} {
		got := ""
		for _, m := range groupMounts(mounts) {
			got += m.shows(tc.controller, tc.path)
		}
		if got != tc.want {
			t.Errorf("%+v: %q", tc, got)
		}
	}
}

// A process in the root of every hierarchy is bounded by nothing.
func TestTheRootGroupBoundsNothing(t *testing.T) {
	t.Parallel()
	mounts := groupMounts("30 24 0:27 / / rw - cgroup cgroup rw,memory\n31 24 0:27 / / rw - cgroup2 cgroup2 rw\n")
	for _, own := range []string{"0::/\n", "4:memory:/\n0::/\n", ""} {
		for _, b := range bounds() {
			if file := groupFile(own, mounts, b); file != "" {
				t.Errorf("%q, %s: %s", own, b.controller, file)
			}
		}
	}
	for value, limit := range map[string]bool{"268435456": true, "max": false, "9223372036854771712": false, "": false} {
		if err := below(unbounded)(value); (err == nil) != limit {
			t.Errorf("%q: %v", value, err)
		}
	}
}

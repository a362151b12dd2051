package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// underProfile names the system call that a container's profile forbids, in the process that starts the store.
const underProfile = "TIDEGATE_TEST_PROFILE"

// forbiddenByProfile are the system calls of underProfile.
var forbiddenByProfile = map[string]uint32{
	"landlock": unix.SYS_LANDLOCK_CREATE_RULESET,
	"seccomp":  unix.SYS_SECCOMP,
	"nothing":  unix.SYS_REBOOT,
}

// startUnderProfile forbids a system call and starts the store. The second step prints its name instead of the
// library's answer.
func startUnderProfile(name string) {
	if slices.Contains([]string{stepLoad, stepLoadFenced}, os.Args[1]) {
		fmt.Println(os.Args[1])
		return
	}
	profile := newSyscallFilter()
	profile.addCall(forbiddenByProfile[name], refuse(unix.EPERM))
	if err := append(profile, allow).install(false); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	main()
}

// TestStoreIsRefusedUnderAProfileWithoutItsFence starts the store where a container's profile forbids a half of the
// fence: it is refused with a word that names the half, and with allow_unfenced the other half is kept.
func TestStoreIsRefusedUnderAProfileWithoutItsFence(t *testing.T) {
	if landlockVersion() < minLandlock {
		t.Skip("this kernel has no Landlock")
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	files := mappedFiles(string(maps))
	library := slices.IndexFunc(files, func(file string) bool { return strings.HasPrefix(filepath.Base(file), "libc.so") })
	if library < 0 {
		t.Skip("this program has no C library")
	}
	start := func(profile, step string) (string, error) {
		cmd := exec.Command("/proc/self/exe", step, "0", files[library], t.TempDir(), "--http_port=1")
		cmd.Env = []string{underProfile + "=" + profile}
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	check := func(profile, step, want string, code int) {
		t.Helper()
		got, err := start(profile, step)
		exit, _ := errors.AsType[*exec.ExitError](err)
		if (exit == nil) != (code == 0) || exit != nil && exit.ExitCode() != code || !strings.HasPrefix(got, want) {
			t.Errorf("%s, without %s: %q, %v, want %q and exit code %d", step, profile, got, err, want, code)
		}
	}
	check("nothing", "fence", stepLoadFenced, 0)
	check("landlock", "fence", "embedded store: "+errNoLandlock.Error(), 3)
	check("seccomp", "fence", "embedded store: "+errNoSeccomp.Error(), 3)
	check("landlock", "fence-if-possible", stepLoadFenced, 0)
	check("seccomp", "fence-if-possible", stepLoad, 0)
}

#!/usr/bin/env bash
# Makes a folder that holds Debian's arm64 Python and its libraries, for use under qemu-aarch64-static without chroot or binfmt.
# usage: make_root.sh DIR      needs: Debian or Ubuntu with apt, dpkg
set -euo pipefail
root=$(realpath -m "${1:?usage: make_root.sh DIR}")
[ -e "$root/.complete" ] && exit 0
rm -rf "$root"
state="$root/.apt"
mkdir -p "$state/lists/partial" "$state/archives/partial"
: > "$state/status"
apt=(apt-get -q -y -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$state" -o Dir::State::status="$state/status"
     -o Dir::State::Lists="$state/lists" -o Dir::Cache::archives="$state/archives" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
     -o Debug::NoLocking=1 -o APT::Sandbox::User=root)
"${apt[@]}" update > "$state/log" 2>&1 || { cat "$state/log" >&2; exit 1; }
"${apt[@]}" install --download-only --no-install-recommends python3 python3-dev libstdc++6 libgomp1 >> "$state/log" 2>&1 ||
  { cat "$state/log" >&2; exit 1; }
for package in "$state"/archives/*.deb; do dpkg -x "$package" "$root"; done

# The runtimes read the processor from /proc and /sys and crash on the host's: they get an ARM board's instead.
mkdir -p "$root/proc" "$root/sys/devices/system/cpu"
for cpu in 0 1; do
  printf 'processor\t: %d\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n' "$cpu"
done > "$root/proc/cpuinfo"
for list in possible present online; do echo 0-1 > "$root/sys/devices/system/cpu/$list"; done
touch "$root/.complete"

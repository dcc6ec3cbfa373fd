#!/bin/sh
# Installs frames on this machine: downloads the archive for it, checks its SHA-256 sum, and puts
# the executable on PATH. Its one argument is the address of a release (http, https or file):
#
#   curl -fsSL ADDRESS/install.sh | sh -s ADDRESS
#   sh install.sh file:///media/usb/frames
#
# It installs to /usr/local/bin if that is writable, else to ~/.local/bin. The same command updates.
set -eu

fail() {
  printf 'install: %s\n' "$1" >&2
  exit 1
}

has() {
  command -v "$1" >/dev/null 2>&1
}

# Prints its argument on one line.
one_line() {
  printf '%s' "$1" | tr '\n' ' '
}

# Prints the name of the archive for this machine.
choose_archive() {
  system=$(uname -s) processor=$(uname -m)
  case $processor in
    x86_64 | amd64) processor=x64 ;;
    aarch64 | arm64) processor=arm64 ;;
    *) fail "There is no frames for $system on $processor, only for x64 and arm64" ;;
  esac
  case $system in
    Linux)
      if [ "$(getconf LONG_BIT 2>/dev/null)" = 32 ]; then
        fail "This system is 32-bit; install a 64-bit one (for a Raspberry Pi: the 64-bit image)"
      fi
      case $(ldd --version 2>&1) in
        *musl*) processor=$processor-musl ;;
      esac
      echo "frames-linux-$processor.tar.gz"
      ;;
    Darwin)
      # On Apple silicon a shell under Rosetta reports an Intel processor.
      if [ "$(sysctl -n sysctl.proc_translated 2>/dev/null)" = 1 ]; then processor=arm64; fi
      echo "frames-darwin-$processor.tar.gz"
      ;;
    MINGW* | MSYS* | CYGWIN*)
      fail "On Windows unpack $base/frames-windows-$processor.zip and put frames.exe on PATH"
      ;;
    *) fail "There is no frames for $system, only for Linux, macOS and Windows" ;;
  esac
}

# Downloads a file of the release into the temporary folder.
download() {
  from=$base/$1 to=$temporary/$1 status=0
  case $base in
    file://*) problem=$(cp "${from#file://}" "$to" 2>&1) || status=$? ;;
    *)
      if has curl; then
        problem=$(curl -fsSL --connect-timeout 30 --speed-limit 1 --speed-time 60 \
          -o "$to" "$from" 2>&1) || status=$?
      else
        # Without -T, which crashes the wget of BusyBox 1.35; it gives up after 15 minutes by itself.
        problem=$(wget -q -O "$to" "$from" 2>&1) || status=$?
      fi
      ;;
  esac
  [ "$status" = 0 ] ||
    fail "Cannot get $from: $(one_line "${problem:-status $status}"); check the address, try again"
}

sha256() {
  if has sha256sum; then sha256sum "$1"; else shasum -a 256 "$1"; fi
}

main() {
  [ $# -eq 1 ] || fail "Give it the address of a release: sh install.sh https://HOST/PATH"
  base=${1%/}
  case $base in
    file:///*) ;;
    http://* | https://*)
      has curl || has wget || fail "Needs curl or wget to download; install curl, then try again"
      ;;
    *) fail "An address begins with https://, http:// or file:///, this one is \"$base\"" ;;
  esac
  has tar || fail "Needs tar to unpack the archive; install tar, then try again"
  has sha256sum || has shasum || fail "Needs sha256sum or shasum; install one, then try again"
  archive=$(choose_archive)

  mkdir -p /usr/local/bin 2>/dev/null || true
  folder=/usr/local/bin
  if ! [ -w "$folder" ]; then
    [ -n "${HOME-}" ] || fail "Cannot write to $folder, and HOME is not set; try again as root"
    folder=$HOME/.local/bin
  fi
  [ ! -d "$folder/frames" ] || fail "$folder/frames is a folder; move it away, then try again"
  # In the same folder, so that the last step is a rename and replaces an old frames at once.
  { mkdir -p "$folder" && temporary=$(mktemp -d "$folder/.frames-XXXXXX"); } 2>/dev/null ||
    fail "Cannot write to $folder; try again as root"
  trap 'rm -rf "$temporary"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' HUP TERM

  echo "Getting $archive from $base"
  download SHA256SUMS
  expected=$(sed -n "s/^\([0-9a-f]\{64\}\)  $archive\$/\1/p" "$temporary/SHA256SUMS")
  [ -n "$expected" ] || fail "$base/SHA256SUMS does not name $archive; check the address"
  download "$archive"
  actual=$(sha256 "$temporary/$archive")
  [ "${actual%% *}" = "$expected" ] ||
    fail "$archive is damaged: its SHA-256 is ${actual%% *}, not $expected; try again"
  problem=$(tar -xzf "$temporary/$archive" -C "$temporary" frames 2>&1) ||
    fail "Cannot unpack $archive: $(one_line "$problem"); make room in $folder, then try again"
  chmod 755 "$temporary/frames"

  status=0
  version=$("$temporary/frames" version 2>&1) || status=$?
  case $archive in
    *-musl*) needs="libstdc++ (on Alpine: apk add libstdc++)" ;;
    *-darwin-*) needs="macOS 13" ;;
    *-x64*) needs="glibc 2.17 and a processor with SSE4.2" ;;
    *) needs="glibc 2.17" ;;
  esac
  [ "$status" = 0 ] ||
    fail "frames does not start here: $(one_line "${version:-status $status}"); it needs $needs"
  mv -f "$temporary/frames" "$folder/frames" 2>/dev/null ||
    fail "Cannot replace $folder/frames; try again as root"
  echo "Installed $folder/frames: $version, SHA-256 as in SHA256SUMS"

  case :$PATH: in
    *:"$folder":*)
      found=$(command -v frames)
      [ "$found" = "$folder/frames" ] || echo "Note: $found comes first on PATH; remove it"
      ;;
    *)
      echo "$folder is not on PATH. Add this line to ~/.profile and open a new terminal:"
      echo "  export PATH=\"$folder:\$PATH\""
      ;;
  esac
}

main "$@"

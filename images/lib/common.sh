# What the builder and the recipes share. A recipe fills $OUT, may use $TMP, and finds what it needs in $NEEDS.
# shellcheck shell=bash

export SUITE=trixie
export MIRROR=${YUNJU_MIRROR:-http://deb.debian.org}
# No file that we make is newer than this: 2026-11-01.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1793491200}

cache=${YUNJU_CACHE:-$HOME/.cache/yunju}/images
# shellcheck disable=SC2034 # for images/build
built=$cache/.built
debs=$cache/.debs

say() { echo "images: $*" >&2; }

# die MESSAGE [EXIT CODE]
die() {
    echo "images: error: $1" >&2
    exit "${2:-1}"
}

# require PROGRAM:PACKAGE…
require() {
    local item missing=()
    for item in "$@"; do
        command -v "${item%:*}" >/dev/null || missing+=("${item#*:}")
    done
    [[ ${#missing[@]} -eq 0 ]] || die "missing programs; run: apt-get install ${missing[*]}"
}

# The archives that images are made from, in the form of sources.list.
sources() {
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$keyring] $MIRROR/debian $SUITE main"
    echo "deb [signed-by=$keyring] $MIRROR/debian $SUITE-updates main"
    echo "deb [signed-by=$keyring] $MIRROR/debian-security $SUITE-security main"
}

# fetch FOLDER PACKAGE…: download packages, without what they depend on, and unpack them into a folder.
# Names and versions are added to $OUT/packages.txt.
fetch() {
    local dir=$1 apt=$TMP/apt deb package
    shift
    mkdir -p "$dir" "$apt"/{etc/{preferences.d,apt.conf.d},state/lists/partial,cache/archives/partial,here}
    sources >"$apt/etc/sources.list"
    # One apt configuration that looks at nothing of this machine.
    cat >"$apt/apt.conf" <<EOF
Dir::Etc "$apt/etc";
Dir::Etc::sourcelist "sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State "$apt/state";
Dir::State::status "/dev/null";
Dir::Cache "$apt/cache";
APT::Architecture "amd64";
APT::Architectures "amd64";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
EOF
    export APT_CONFIG=$apt/apt.conf
    [[ -n $(compgen -G "$apt/state/lists/*Packages*") ]] || apt-get -qq update >&2
    for package in "$@"; do
        deb=$(apt-get -qq --print-uris download "$package" | cut -d' ' -f2)
        [[ -f $debs/$deb ]] || (cd "$apt/here" && say "downloading $deb" &&
            apt-get -qq download "$package" >&2 && mv "$deb" "$debs/")
        dpkg-deb -x "$debs/$deb" "$dir"
        # shellcheck disable=SC2016 # dpkg fills these in, not the shell
        dpkg-deb -W --showformat='${Package} ${Version}\n' "$debs/$deb" >>"$OUT/packages.txt"
    done
    unset APT_CONFIG
}

# The kernel package that the suite has now. Works after a fetch.
newest_kernel() { APT_CONFIG=$TMP/apt/apt.conf apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: //p'; }

# pack_initrd FOLDER FILE: an initrd, the same for the same content.
pack_initrd() {
    find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    (cd "$1" && find . -mindepth 1 -print0 | sort -z |
        cpio --quiet --null -o -H newc -R 0:0 --reproducible) >"$2"
}

# load_order MODULE…: files of the modules under /lib/modules, as for insmod: what is needed comes first.
load_order() {
    modprobe -d "$NEEDS/kernel" -S "$(<"$NEEDS/kernel/version")" -a --show-depends "$@" |
        sed -n 's,^insmod .*\(/lib/modules/[^ ]*\)\.xz.*,\1,p' | awk '!seen[$0]++'
}

# add_modules FOLDER MODULE…: put kernel modules, uncompressed, and all that they need into FOLDER/lib/modules.
add_modules() {
    local dir=$1 version file
    version=$(<"$NEEDS/kernel/version")
    shift
    load_order "$@" | while read -r file; do
        mkdir -p "$dir${file%/*}"
        xz -dc "$NEEDS/kernel$file.xz" >"$dir$file"
    done
    cp "$NEEDS/kernel/lib/modules/$version"/modules.{order,builtin,builtin.modinfo} "$dir/lib/modules/$version/"
    depmod -b "$dir" "$version"
}

# seal FOLDER: complete an image.json with what only the finished image knows.
seal() {
    python3 - "$1" <<'EOF'
import hashlib, json, os, sys, time

folder = sys.argv[1]
path = os.path.join(folder, "image.json")
image = json.load(open(path))
names = [image["kernel"]]
if "initrd" in image:
    names.append(image["initrd"])
names += [disk["path"] for disk in image["disks"]]

# The files in this order; of each, its length and every MiB that is not all zeros, with its place. So a hole costs nothing.
STEP = 1 << 20
ZEROS = bytes(STEP)
digest = hashlib.sha256()
for name in names:
    with open(os.path.join(folder, name), "rb") as file:
        digest.update(b"file %d\n" % os.fstat(file.fileno()).st_size)
        place = 0
        while True:
            try:
                place = os.lseek(file.fileno(), place, os.SEEK_DATA) // STEP * STEP
            except OSError:  # ENXIO: no more data
                break
            chunk = os.pread(file.fileno(), STEP, place)
            if chunk != ZEROS[: len(chunk)]:
                digest.update(b"at %d\n" % place)
                digest.update(chunk)
            place += STEP
image["digest"] = "sha256:" + digest.hexdigest()
image["created"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
with open(path, "w") as file:
    json.dump(image, file, indent=2, ensure_ascii=False)
    file.write("\n")
EOF
}

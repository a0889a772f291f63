SUMMARY = "Updates for embedded Linux that come back up"
SUMMARY:bootenv = "The U-Boot environment, read and written safely"
DESCRIPTION = "otad writes a signed image to the root file system that is not running, checks every byte twice, switches with \
one atomic write to the U-Boot environment, and keeps the new system only if it proves healthy."
SECTION = "base"
LICENSE = "Apache-2.0 | MIT"
LIC_FILES_CHKSUM = "file://LICENSE-APACHE;md5=3b83ef96387f14655fc854ddc3c6bd57 \
                    file://LICENSE-MIT;md5=c738517615babe8e9b976b162b171707"

# The sources are those beside the layer: one commit is the recipe, its list of crates and what they build. Cargo wants the whole
# workspace there, also what is not built.
FILESEXTRAPATHS:prepend := "${OTAD_SOURCE_DIR}:"
OTAD_SOURCES = "Cargo.toml Cargo.lock LICENSE-APACHE LICENSE-MIT systemd bootenv bundle dbus daemon cli server demo bench test-images fuzz fleet-sim"
OTAD_SOURCES[doc] = "Files and directories of otad's repository that the recipe takes"
SRC_URI = "${@' '.join('file://%s;subdir=otad' % name for name in d.getVar('OTAD_SOURCES').split())}"
require otad-crates.inc

S = "${UNPACKDIR}/otad"

inherit cargo cargo-update-recipe-crates systemd useradd

# What is built. On the device otad is otactl too, under that name; the machine that builds wants the tools alone.
OTAD_PROGRAMS = "otad bootenv"
OTAD_PROGRAMS:class-native = "otactl bootenv"
OTAD_PROGRAMS[doc] = "Cargo packages that the recipe builds and installs"
CARGO_BUILD_FLAGS:append = " ${@' '.join('--package ' + name for name in d.getVar('OTAD_PROGRAMS').split())}"

# BitBake splits the symbols off by itself, and refuses programs that have none.
export CARGO_PROFILE_RELEASE_STRIP = "none"

# Cargo.toml's rust-version. A clear word before the fetch instead of an error of cargo after it.
OTAD_RUST_VERSION = "1.94"
OTAD_RUST_VERSION[doc] = "Oldest Rust that builds otad"
python () {
    have = (d.getVar("RUSTVERSION") or "").rstrip("%")
    if have and bb.utils.vercmp_string_op(have, d.getVar("OTAD_RUST_VERSION"), "<"):
        raise bb.parse.SkipRecipe("otad needs Rust %s or later, this distribution has %s: add a layer with a newer Rust (README.md)"
                                  % (d.getVar("OTAD_RUST_VERSION"), have))
}

# Of everything that cargo leaves, the programs that were asked for.
do_install () {
    for program in ${OTAD_PROGRAMS}; do
        install -D -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/$program ${D}${bindir}/$program
    done
}

do_install:append:class-target () {
    ln -s otad ${D}${bindir}/otactl
    install -d ${D}${systemd_system_unitdir}
    install -m 0644 ${S}/systemd/usr/lib/systemd/system/* ${D}${systemd_system_unitdir}
    sed -i 's|/usr/bin/|${bindir}/|' ${D}${systemd_system_unitdir}/*
    install -D -m 0644 -t ${D}${datadir}/dbus-1/system.d ${S}/systemd/usr/share/dbus-1/system.d/org.otad1.conf
    install -D -m 0644 -t ${D}${datadir}/dbus-1/system-services ${S}/systemd/usr/share/dbus-1/system-services/org.otad1.service
    install -D -m 0644 -t ${D}${datadir}/polkit-1/actions ${S}/systemd/usr/share/polkit-1/actions/org.otad1.policy
    install -D -m 0644 -t ${D}${datadir}/dbus-1/interfaces ${S}/dbus/org.otad1.xml
    install -D -m 0644 -t ${D}${nonarch_libdir}/sysusers.d ${S}/systemd/usr/lib/sysusers.d/otad.conf
    install -D -m 0644 -t ${D}${nonarch_libdir}/tmpfiles.d ${S}/systemd/usr/lib/tmpfiles.d/otad.conf
    install -D -m 0755 -t ${D}${nonarch_libdir}/otad ${S}/systemd/usr/lib/otad/on-trial
    install -d ${D}${nonarch_libdir}/otad/health.d
    install -D -m 0644 -t ${D}${docdir}/otad ${S}/systemd/usr/share/doc/otad/health-checks.md
}

# The tool for the environment is of use without otad.
PACKAGES =+ "bootenv"
FILES:bootenv = "${bindir}/bootenv"
FILES:${PN} += "${systemd_system_unitdir} ${datadir}/dbus-1/system.d ${datadir}/dbus-1/system-services ${datadir}/polkit-1/actions \
                ${nonarch_libdir}/sysusers.d ${nonarch_libdir}/tmpfiles.d ${nonarch_libdir}/otad"
FILES:${PN}-dev += "${datadir}/dbus-1/interfaces"

# Qualified: the native variant must not drag a message bus into every build. otad-conf belongs to one machine, so not this recipe,
# which is built once for many, but the image asks for it (otad-image.bbclass); without it otad.service waits.
RDEPENDS:${PN}:class-target = "bootenv dbus"
# blockdev, for the self-test of a new system ([pre-run] in otad.toml).
RRECOMMENDS:${PN}:class-target = "util-linux-blockdev"

RPROVIDES:${PN}:class-target = "otactl"

SYSTEMD_SERVICE:${PN} = "otad.service otad-mark-good.service otad-trial-deadline.timer"
# Members may install, commit and roll back. sysusers.d says the same for a root file system that is not made at build time.
USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system otad"

BBCLASSEXTEND = "native"

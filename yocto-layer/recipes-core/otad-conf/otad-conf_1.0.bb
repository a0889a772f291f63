SUMMARY = "What otad has to know of this device"
DESCRIPTION = "/etc/otad/otad.toml, made of the layer's variables, and /etc/otad/root.toml, the keys that the device trusts."
SECTION = "base"
LICENSE = "Apache-2.0 | MIT"
LIC_FILES_CHKSUM = "file://${OTAD_SOURCE_DIR}/LICENSE-APACHE;md5=3b83ef96387f14655fc854ddc3c6bd57 \
                    file://${OTAD_SOURCE_DIR}/LICENSE-MIT;md5=c738517615babe8e9b976b162b171707"

# A board with other needs puts its own otad.toml in the way: FILESEXTRAPATHS:prepend := "${THISDIR}/files:".
SRC_URI = "file://otad.toml"
S = "${UNPACKDIR}"

# The programs are the same for every machine of an architecture, this is not.
PACKAGE_ARCH = "${MACHINE_ARCH}"
INHIBIT_DEFAULT_DEPS = "1"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

python __anonymous () {
    root = d.getVar("OTAD_TRUST_ROOT")
    if root:
        # The file may come into being after the first parse.
        bb.parse.mark_dependency(d, root)
        d.appendVarFlag("do_install", "file-checksums", " %s:%s" % (root, os.path.exists(root)))
}

do_install () {
    install -D -m 0644 ${UNPACKDIR}/otad.toml ${D}${sysconfdir}/otad/otad.toml
    sed -i -e 's|@COMPATIBLE@|${@(d.getVar('OTAD_COMPATIBLE').split() or [''])[0]}|' \
        -e 's|@SCHEME@|${OTAD_BOOT_SCHEME}|' -e 's|@LIMIT@|${OTAD_BOOT_LIMIT}|' \
        -e 's|@REBOOT@|${OTAD_REBOOT_POLICY}|' ${D}${sysconfdir}/otad/otad.toml
    if [ -n "${OTAD_SERVER_URL}" ]; then
        printf '\n[server]\nurl = "%s"\n' "${OTAD_SERVER_URL}" >> ${D}${sysconfdir}/otad/otad.toml
    fi
    if [ -n "${OTAD_TRUST_ROOT}" ]; then
        [ -e "${OTAD_TRUST_ROOT}" ] || bbfatal "there is no file ${OTAD_TRUST_ROOT} (OTAD_TRUST_ROOT); otactl trust create makes one"
        install -m 0644 ${OTAD_TRUST_ROOT} ${D}${sysconfdir}/otad/root.toml
    else
        bbwarn "OTAD_TRUST_ROOT is not set: this device trusts no key, and otad will not start"
    fi
}

FILES:${PN} = "${sysconfdir}/otad"
CONFFILES:${PN} = "${sysconfdir}/otad/otad.toml"

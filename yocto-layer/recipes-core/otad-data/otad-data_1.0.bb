SUMMARY = "The data partition: grown, mounted, with otad's record on it"
DESCRIPTION = "Grows the partition `data` to the end of its disk at the first boot, mounts it on /data, and keeps otad's record \
(/var/lib/otad) on it, which must outlive every update."
SECTION = "base"
LICENSE = "Apache-2.0 | MIT"
LIC_FILES_CHKSUM = "file://${OTAD_SOURCE_DIR}/LICENSE-APACHE;md5=3b83ef96387f14655fc854ddc3c6bd57 \
                    file://${OTAD_SOURCE_DIR}/LICENSE-MIT;md5=c738517615babe8e9b976b162b171707"

SRC_URI = "file://grow-data \
           file://otad-grow-data.service \
           file://data.mount \
           file://otad-data.service \
           file://var-lib-otad.mount"
S = "${UNPACKDIR}"

inherit systemd

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install () {
    install -D -m 0755 ${UNPACKDIR}/grow-data ${D}${nonarch_libdir}/otad/grow-data
    for unit in ${SYSTEMD_SERVICE:${PN}}; do
        install -D -m 0644 ${UNPACKDIR}/$unit ${D}${systemd_system_unitdir}/$unit
    done
    # Mount points of a root file system that is read-only.
    install -d ${D}/data ${D}${localstatedir}/lib/otad
}

SYSTEMD_SERVICE:${PN} = "otad-grow-data.service data.mount otad-data.service var-lib-otad.mount"
FILES:${PN} += "/data ${localstatedir}/lib/otad ${nonarch_libdir}/otad"
RDEPENDS:${PN} = "util-linux-partx util-linux-sfdisk"

SUMMARY = "The boot environment of this machine, for U-Boot, for Linux and for the factory"
DESCRIPTION = "Makes, from OTAD_ENV_* and two texts, everything that must say the same: the environment and the options that are \
compiled into U-Boot, the first environment of a device, /etc/fw_env.config and what otad rebuilds a lost environment from."
SECTION = "bootloaders"
LICENSE = "Apache-2.0 | MIT"
LIC_FILES_CHKSUM = "file://${OTAD_SOURCE_DIR}/LICENSE-APACHE;md5=3b83ef96387f14655fc854ddc3c6bd57 \
                    file://${OTAD_SOURCE_DIR}/LICENSE-MIT;md5=c738517615babe8e9b976b162b171707"

# The text of the scheme is the one that the emulated board boots; a machine adds otad-board.env (how a kernel is loaded) and
# otad-board.config (where the environment is) in files/<machine>/ here or in a bbappend.
FILESEXTRAPATHS:prepend := "${THISDIR}/files:${OTAD_SOURCE_DIR}/test-images/uboot:"
DEPENDS = "otad-native u-boot-tools-native"
SRC_URI = "file://otad-board.env \
           file://otad-board.config \
           file://${OTAD_BOOT_SCHEME}.env \
           file://${OTAD_BOOT_SCHEME}.config"
S = "${UNPACKDIR}"
B = "${WORKDIR}/build"

inherit deploy

PACKAGE_ARCH = "${MACHINE_ARCH}"
INHIBIT_DEFAULT_DEPS = "1"

python __anonymous () {
    if not bb.utils.which(d.getVar("FILESPATH"), "otad-board.env"):
        raise bb.parse.SkipRecipe("meta-otad does not know how %s loads a kernel: add otad-board.env and otad-board.config "
                                  "in a bbappend, docs/yocto.md has an example" % d.getVar("MACHINE"))
}

do_configure[noexec] = "1"
do_compile[dirs] = "${B}"
do_compile[cleandirs] = "${B}"
do_compile[vardeps] += "OTAD_BOOT_SCHEME OTAD_BOOT_LIMIT OTAD_ENV_DEVICE OTAD_ENV_SIZE OTAD_ENV_OFFSET OTAD_ENV_OFFSET_REDUNDANT"
python do_compile () {
    import os, subprocess
    environment = otadlayer.environment
    out, scheme = d.getVar("B"), d.getVar("OTAD_BOOT_SCHEME")
    def read(name):
        with open(os.path.join(d.getVar("UNPACKDIR"), name)) as file:
            return file.read()
    def write(name, content):
        with open(os.path.join(out, name), "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
    def run(program, *arguments):
        program = os.path.join(d.getVar("STAGING_BINDIR_NATIVE"), program)
        done = subprocess.run([program, *arguments], cwd=out, capture_output=True, text=True)
        if done.returncode != 0:
            bb.fatal("%s %s: %s" % (program, " ".join(arguments), done.stderr.strip()))
    try:
        limit = int(d.getVar("OTAD_BOOT_LIMIT"))
        numbers = environment.places(*(d.getVar("OTAD_ENV_" + name) for name in ("SIZE", "OFFSET", "OFFSET_REDUNDANT")))
        variables = environment.compiled_in(read("otad-board.env"), read(scheme + ".env"), scheme, limit)
        write("otad-u-boot.env", environment.text_of(variables))
        write("otad-u-boot.cfg", environment.u_boot_fragment(read("otad-board.config"), read(scheme + ".config"), numbers))
        write("default.env", environment.text_of(environment.rebuilt(variables)))
        write("factory.env", environment.text_of(environment.factory(variables, scheme, limit)))
        write("fw_env.config", environment.fw_env_config(d.getVar("OTAD_ENV_DEVICE"), numbers))
        run("bootenv", "make-image", "--size", hex(numbers[0]), "--redundant", "factory.env", "otad-environment.bin")
        with open(os.path.join(out, "otad-environment.bin"), "rb") as file:
            write("otad-environment.img", environment.medium(file.read(), numbers))
        if scheme == "boot-order":
            write("boot.cmd", environment.boot_script(variables))
            run("mkimage", "-A", "arm64", "-T", "script", "-C", "none", "-d", "boot.cmd", "boot.scr")
    except environment.Mistake as mistake:
        bb.fatal(str(mistake))
}

do_install () {
    install -D -m 0644 ${B}/fw_env.config ${D}${sysconfdir}/fw_env.config
    install -D -m 0644 ${B}/default.env ${D}${datadir}/otad/default.env
}

do_deploy () {
    install -m 0644 ${B}/otad-u-boot.env ${B}/otad-u-boot.cfg ${B}/otad-environment.bin ${B}/otad-environment.img ${DEPLOYDIR}
    if [ -e ${B}/boot.scr ]; then
        install -m 0644 ${B}/boot.scr ${DEPLOYDIR}/otad-boot.scr
    fi
}
addtask deploy after do_compile before do_build

FILES:${PN} = "${sysconfdir}/fw_env.config ${datadir}/otad"

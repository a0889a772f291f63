addtask fetch
addtask unpack after do_fetch
addtask patch after do_unpack
addtask configure after do_patch
addtask compile after do_configure
addtask install after do_compile
addtask build after do_install
do_patch () {
    :
}
do_configure () {
    :
}
do_compile () {
    :
}
do_install () {
    :
}
do_build () {
    :
}
bbwarn () {
    echo "WARNING: $*" >&2
}
bbfatal () {
    echo "ERROR: $*" >&2
    exit 1
}

python () {
    d.setVar("FILESPATH", ":".join(
        directory + suffix
        for directory in (d.getVar("FILESEXTRAPATHS") or "").replace("__default:", "").split(":")
        + [d.getVar("FILE_DIRNAME") + "/" + name for name in (d.getVar("BP"), d.getVar("BPN"), "files")]
        if directory for suffix in [*("/" + name for name in reversed(d.getVar("FILESOVERRIDES").split(":"))), "/"]))
}
FILESEXTRAPATHS ?= "__default:"

python do_fetch () {
    bb.fetch2.Fetch((d.getVar("SRC_URI") or "").split(), d).download()
}
python do_unpack () {
    bb.utils.remove(d.getVar("UNPACKDIR"), recurse=True)
    bb.utils.mkdirhier(d.getVar("UNPACKDIR"))
    bb.fetch2.Fetch((d.getVar("SRC_URI") or "").split(), d).unpack(d.getVar("UNPACKDIR"))
}

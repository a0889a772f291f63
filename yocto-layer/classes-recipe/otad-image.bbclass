# otad-image: makes an image recipe's image fit a slot: kernel and device trees inside, read-only, never larger than
# the slot, with its version, with otad and with a data partition beside it.
#
#   inherit core-image otad-image

# Where the series before wrynose look for kickstart files only below a layer's wic/, which wrynose refuses to see.
WKS_SEARCH_PATH:append = ":${OTAD_LAYERDIR}/files/wic"

IMAGE_FSTYPES += "${OTAD_SLOT_FSTYPE} wic wic.bmap"
# The disk image holds the very file that bundles are made of.
IMAGE_TYPEDEP:wic += "${OTAD_SLOT_FSTYPE}"
# The environment that wic writes in front of the partitions, where a machine's kickstart file does so.
do_image_wic[depends] += "otad-boot-environment:do_deploy"

# In KiB. Too large is an error here, and once more, to the byte, where the bundle is made.
IMAGE_ROOTFS_MAXSIZE = "${@int(d.getVar('OTAD_SLOT_SIZE_MIB')) * 1024}"
IMAGE_OVERHEAD_FACTOR ?= "1.0"
IMAGE_ROOTFS_EXTRA_SPACE ?= "8192"

IMAGE_FEATURES += "read-only-rootfs"
IMAGE_INSTALL:append = " otad bootenv otad-conf otad-boot-environment otad-data kernel-image"
IMAGE_INSTALL:append = " ${@'kernel-devicetree' if d.getVar('KERNEL_DEVICETREE') else ''}"

# IMAGE_FEATURES += "overlayfs-etc" keeps what the device changes in /etc on the data partition. Not by default: a file that was
# once changed there hides what later releases bring, root.toml included.
OVERLAYFS_ETC_MOUNT_POINT ?= "/data"
OVERLAYFS_ETC_DEVICE ?= "${OTAD_DATA_DEVICE}"
OVERLAYFS_ETC_FSTYPE ?= "ext4"

python otad_write_image_info () {
    import os
    try:
        text = otadlayer.release.image_info(d)
    except otadlayer.release.Mistake as mistake:
        bb.fatal(str(mistake))
    directory = os.path.join(d.getVar("IMAGE_ROOTFS"), d.getVar("nonarch_libdir").lstrip("/"), "otad")
    bb.utils.mkdirhier(directory)
    with open(os.path.join(directory, "image.toml"), "w") as file:
        file.write(text)
}
otad_write_image_info[doc] = "Writes /usr/lib/otad/image.toml: version, sequence and kernel of the image"
otad_write_image_info[vardeps] += "OTAD_VERSION OTAD_SEQUENCE OTAD_KERNEL"
ROOTFS_POSTPROCESS_COMMAND:append = " otad_write_image_info"

inherit image-artifact-names
IMGDEPLOYDIR = "${WORKDIR}/deploy-image"
IMAGE_ROOTFS = "${WORKDIR}/rootfs"
IMAGE_INSTALL ?= "packagegroup-core-boot"
WKS_SEARCH_PATH ?= "${@':'.join('%s/files/wic' % p for p in d.getVar('BBPATH').split(':'))}"

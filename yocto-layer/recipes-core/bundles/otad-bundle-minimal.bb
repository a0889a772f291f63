SUMMARY = "A bundle of otad-image-minimal"
DESCRIPTION = "The example to begin a product's bundle with."
LICENSE = "MIT"

inherit otad-bundle

OTAD_BUNDLE_ROLES = "rootfs"
OTAD_IMAGE_rootfs = "otad-image-minimal"

SUMMARY = "A small image that otad updates"
DESCRIPTION = "What boots, can be reached by SSH, and can be updated: the example to begin a product with."
LICENSE = "MIT"

inherit core-image otad-image

IMAGE_FEATURES += "ssh-server-dropbear"
# What a person finds strange about a device is in its journal.
IMAGE_INSTALL:append = " packagegroup-core-boot"

require ${@bb.utils.contains('DISTRO_FEATURES', 'otad', 'linux-yocto-otad.inc', '', d)}

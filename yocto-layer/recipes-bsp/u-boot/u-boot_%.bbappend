require ${@bb.utils.contains('DISTRO_FEATURES', 'otad', 'u-boot-otad.inc', '', d)}

# otad-sanity: two mistakes that are hard to see, said once when a build starts: the layer is there but its feature is
# not, and an OTAD_ variable that nothing reads. Warns only; no task and no signature depends on it.

# Silence, where the layer is there for its recipes alone.
OTAD_SANITY_SKIP ??= "0"
OTAD_SANITY_SKIP[doc] = "1: do not warn that DISTRO_FEATURES lacks otad"

addhandler otad_sanity
otad_sanity[doc] = "Warns about a forgotten feature and about misspelled variables"
otad_sanity[eventmask] = "bb.event.BuildStarted"
python otad_sanity () {
    feature = bb.utils.contains("DISTRO_FEATURES", "otad", True, False, d)
    if not feature and not bb.utils.to_boolean(d.getVar("OTAD_SANITY_SKIP")):
        bb.warn("meta-otad is in BBLAYERS, but DISTRO_FEATURES has no `otad`: U-Boot, kernel and disk stay as they are. "
                "Add DISTRO_FEATURES:append = \" otad\", or set OTAD_SANITY_SKIP = \"1\"")
    for complaint in otadlayer.variables.complaints(d):
        bb.warn(complaint)
}

# otad-bundle: makes a signed bundle (.otab) of the images of other recipes, verifies it, and deploys it with what
# `otactl bundle inspect` says of it.
#
#   inherit otad-bundle
#   OTAD_BUNDLE_ROLES = "rootfs"
#   OTAD_IMAGE_rootfs = "otad-image-minimal"          # the recipe
#   OTAD_IMAGE_rootfs[fstype] = "ext4"                # optional; also [file], [task], [slot-size-mib]
#
# All other variables and their defaults: conf/include/otad-variables.inc. docs/yocto.md has the whole way.

inherit deploy image-artifact-names nopackages

PACKAGE_ARCH = "${MACHINE_ARCH}"
INHIBIT_DEFAULT_DEPS = "1"
EXCLUDE_FROM_WORLD = "1"
# A bundle is made of what was deployed, so there is nothing to unpack, and nothing to keep: a bundle from the shared state
# would be the one of an earlier image.
do_fetch[noexec] = "1"
do_unpack[noexec] = "1"
do_patch[noexec] = "1"
do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install[noexec] = "1"
SSTATE_SKIP_CREATION:task-deploy = "1"
B = "${WORKDIR}/bundle"
OTAD_BUNDLE_IS_HERE = "1"
OTAD_BUNDLE_IS_HERE[doc] = "Set by otad-bundle.bbclass: this recipe makes a bundle"
OTAD_BUNDLE_PLAN[doc] = "Set by otad-bundle.bbclass: what the bundle is made of, for the signature of its task"

# What the images are made of is in the signature of this task through the tasks it depends on; keys, the trust root and earlier
# bundles by their contents.
do_bundle[depends] += "otad-native:do_populate_sysroot"
do_bundle[doc] = "Makes the bundle of the images that were deployed, signs and verifies it"
do_bundle[dirs] = "${B}"
do_bundle[cleandirs] = "${B}"
do_bundle[vardeps] += "OTAD_BUNDLE_PLAN OTAD_COMPATIBLE OTAD_VERSION OTAD_SEQUENCE OTAD_DESCRIPTION OTAD_BUNDLE_COMPRESS \
    OTAD_BUNDLE_LEVEL OTAD_BUNDLE_CHUNKING OTAD_BUNDLE_CHUNK_SIZE"
# The bundle does not depend on the number of threads, nor on where the build is.
do_bundle[vardepsexclude] += "BB_NUMBER_THREADS DEPLOY_DIR_IMAGE"
# A token or a signing machine may be on the network.
do_bundle[network] = "${@'1' if d.getVar('OTAD_SIGN_COMMAND') or (d.getVar('OTAD_SIGNING_KEY') or '').startswith('pkcs11:') else '0'}"

def otad_key_files(d):
    """The private keys that are files."""
    return [key for key in (d.getVar("OTAD_SIGNING_KEY") or "").split() if not key.startswith("pkcs11:")]

def otad_act(d, *command, **added):
    """Runs one otactl command of the native recipe; what it writes to standard output comes back."""
    import os, subprocess
    program = os.path.join(d.getVar("STAGING_BINDIR_NATIVE"), command[0])
    if d.getVar("OTAD_SIGNING_PASSPHRASE_FILE"):
        added["OTAD_PASSPHRASE_FILE"] = d.getVar("OTAD_SIGNING_PASSPHRASE_FILE")
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, env={**os.environ, **added})
    if done.returncode != 0:
        bb.fatal("%s ended with %d: %s" % (" ".join(command), done.returncode, done.stderr.strip()))
    return done.stdout

python __anonymous () {
    for complaint in otadlayer.variables.complaints(d):
        bb.warn("%s: %s" % (d.getVar("PN"), complaint))
    try:
        images = otadlayer.release.images(d)
    except otadlayer.release.Mistake as mistake:
        raise bb.parse.SkipRecipe(str(mistake))
    for image in images:
        d.appendVarFlag("do_bundle", "depends", " %s:%s" % (image.recipe, image.task))
    # Flags of a variable are in no signature; this text is.
    d.setVar("OTAD_BUNDLE_PLAN", "\n".join("%s %s %s %d" % (i.role, i.recipe, i.file, i.slot_bytes) for i in images))
    files = otad_key_files(d) + (d.getVar("OTAD_DELTA_FROM") or "").split() + (d.getVar("OTAD_NEWER_ROOTS") or "").split()
    files += [path for path in (d.getVar("OTAD_TRUST_ROOT"), d.getVar("OTAD_SIGNING_PUBLIC_KEY")) if path]
    for path in files:
        # A key may come into being after the first parse.
        bb.parse.mark_dependency(d, path)
        d.appendVarFlag("do_bundle", "file-checksums", " %s:%s" % (path, os.path.exists(path)))
}

python do_bundle () {
    import os
    mistakes = (otadlayer.release.Mistake, otadlayer.signing.Mistake)
    work, bundle = d.getVar("B"), os.path.join(d.getVar("B"), "bundle.otab")
    public, command = d.getVar("OTAD_SIGNING_PUBLIC_KEY"), d.getVar("OTAD_SIGN_COMMAND")
    key, keys, added = d.getVar("OTAD_SIGNING_KEY") or "", otad_key_files(d), {}
    elsewhere = bool(command) or key.startswith(otadlayer.signing.SCHEME)
    if elsewhere and (keys or not public):
        bb.fatal("OTAD_SIGN_COMMAND and a pkcs11: key need OTAD_SIGNING_PUBLIC_KEY, and no key file beside them")
    if not elsewhere and not keys:
        bb.fatal("OTAD_SIGNING_KEY is not set. Make a key outside of the build directory and name it in site.conf:\n"
                 "  oe-run-native otad-native otactl key generate --out release.key")
    for path in keys + ([public] if public else []):
        if not os.path.exists(path):
            bb.fatal("there is no key %s (OTAD_SIGNING_KEY, OTAD_SIGNING_PUBLIC_KEY)" % path)
    try:
        if elsewhere and not command:
            command, added = otadlayer.signing.token_command(key)
        create = otadlayer.release.create_command(d, d.getVar("DEPLOY_DIR_IMAGE"), [public] if elsewhere else keys, bundle)
        otad_act(d, *create, *(["--sign-command", command] if command else []), **added)
    except mistakes as mistake:
        bb.fatal(str(mistake))
    root = d.getVar("OTAD_TRUST_ROOT")
    trust = ["--root", root] if root else ["--key", public or keys[0] + ".pub"]
    otad_act(d, "otactl", "bundle", "verify", "--quiet", *trust, bundle)
    with open(os.path.join(work, "bundle.json"), "w") as file:
        file.write(otad_act(d, "otactl", "bundle", "inspect", "--json", *trust, bundle))
    for old in (d.getVar("OTAD_DELTA_FROM") or "").split():
        name = os.path.splitext(os.path.basename(old))[0] + ".otad-delta"
        otad_act(d, "otactl", "bundle", "delta", "--quiet", "--from", old, "--to", bundle, "--out", os.path.join(work, name))
}
addtask bundle after do_configure before do_deploy

do_deploy () {
    install -m 0644 ${B}/bundle.otab ${DEPLOYDIR}/${OTAD_BUNDLE_NAME}.otab
    install -m 0644 ${B}/bundle.json ${DEPLOYDIR}/${OTAD_BUNDLE_NAME}.json
    for delta in ${B}/*.otad-delta; do
        [ ! -e "$delta" ] || install -m 0644 "$delta" ${DEPLOYDIR}/$(basename "$delta" .otad-delta)--${OTAD_BUNDLE_NAME}.otad-delta
    done
    ln -sf ${OTAD_BUNDLE_NAME}.otab ${DEPLOYDIR}/${PN}-${MACHINE}.otab
}
addtask deploy after do_bundle before do_build

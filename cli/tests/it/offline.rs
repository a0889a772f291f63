//! Keys, roots and bundles through the command itself: output, JSON, exit statuses.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

struct Done {
    status: i32,
    out: String,
    err: String,
}

impl Done {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

fn done(output: Output) -> Done {
    Done {
        status: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn command(directory: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otactl"));
    command.args(line.split_whitespace()).current_dir(directory).stdin(Stdio::null());
    command
}

/// Runs `otactl` with the words of `line`.
fn run(directory: &Path, line: &str) -> Done {
    done(command(directory, line).output().unwrap())
}

/// Runs it and expects success without a word on standard error.
fn ok(directory: &Path, line: &str) -> Done {
    let done = run(directory, line);
    assert_eq!((done.status, done.err.as_str()), (0, ""), "{line}\n{}", done.out);
    done
}

const CREATE: &str =
    "bundle create --manifest m.toml --image rootfs=rootfs --image kernel=kernel --key k -o x.otab";

/// A directory with a key, a root, a template, two images and a bundle `x.otab` of them.
fn workshop() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let text = "some text of a root file system\n".repeat(9000);
    std::fs::write(path.join("rootfs"), [text.as_bytes(), &[0; 600_000]].concat()).unwrap();
    std::fs::write(path.join("kernel"), "kernel".repeat(5000)).unwrap();
    let template = "[update]\nversion = \"2.1.0\"\nsequence = 42\ncompatible = [\"acme-gateway\"]\ndescription = \"new things\"\n";
    std::fs::write(path.join("m.toml"), template).unwrap();
    ok(path, "key generate --out k");
    ok(path, "trust create --key k.pub --out root.toml");
    ok(path, CREATE);
    directory
}

#[test]
fn the_way_of_a_release() {
    let shop = workshop();
    let path = shop.path();
    let verified = ok(path, "bundle verify x.otab --root root.toml");
    assert!(verified.out.starts_with("ok: every byte of x.otab holds\n"), "{}", verified.out);
    let id = ok(path, "key id k").out;
    assert_eq!(id, ok(path, "key id k.pub").out);
    assert!(verified.out.contains(id.trim()));

    let extracted = ok(path, "bundle extract x.otab --key k.pub -o out");
    assert_eq!(extracted.out, "out/rootfs.img\nout/kernel.img\n");
    for (image, original) in [("out/rootfs.img", "rootfs"), ("out/kernel.img", "kernel")] {
        assert_eq!(std::fs::read(path.join(image)).unwrap(), std::fs::read(path.join(original)).unwrap());
    }

    // A second signature, and a root that wants both.
    ok(path, "key generate --out k2 --quiet");
    ok(path, "trust create --key k.pub --key k2.pub --threshold 2 --out both.toml");
    let one = run(path, "bundle verify x.otab --root both.toml");
    assert_eq!((one.status, one.err.contains("code SIG_MISSING")), (3, true), "{}", one.err);
    ok(path, "bundle sign x.otab --key k2");
    ok(path, "bundle verify x.otab --root both.toml");
}

#[test]
fn inspect_is_loud_about_what_it_did_not_check() {
    let shop = workshop();
    let unchecked = ok(shop.path(), "bundle inspect x.otab");
    assert!(unchecked.out.contains("signature NOT checked"), "{}", unchecked.out);
    assert!(!unchecked.out.contains('\x1b'), "no colours in a pipe");
    for word in ["2.1.0", "42", "acme-gateway", "new things", "rootfs", "kernel", "zero", "zstd"] {
        assert!(unchecked.out.contains(word), "{word}: {}", unchecked.out);
    }
    for trust in ["--root root.toml", "--key k.pub"] {
        let checked = ok(shop.path(), &format!("bundle inspect x.otab {trust}"));
        assert!(checked.out.contains("verified") && !checked.out.contains("NOT"), "{}", checked.out);
    }
    let value = ok(shop.path(), "bundle inspect x.otab --json").json();
    assert_eq!(value["signature_verified"], false);
    assert_eq!(value["images"][0]["size"], 888_000);
    assert_eq!(
        ok(shop.path(), "bundle inspect x.otab --json --key k.pub").json()["signature_verified"],
        true
    );
    let zeros = value["images"][0]["kinds"]["zero"]["chunks"].as_u64().unwrap();
    assert!(zeros > 0);
}

#[test]
fn pipes_do() {
    let shop = workshop();
    for line in [
        "bundle verify - --key k.pub",
        "bundle inspect -",
        "bundle extract - --key k.pub -o piped",
        "bundle verify /dev/stdin --key k.pub",
    ] {
        let mut cat =
            Command::new("cat").arg(shop.path().join("x.otab")).stdout(Stdio::piped()).spawn().unwrap();
        let mut otactl = command(shop.path(), line);
        let done = done(otactl.stdin(cat.stdout.take().unwrap()).output().unwrap());
        assert!(cat.wait().unwrap().success());
        assert_eq!(done.status, 0, "{line}: {}", done.err);
    }
    assert!(shop.path().join("piped/rootfs.img").exists());
}

#[test]
fn refusals_have_status_3_and_a_code() {
    let shop = workshop();
    let path = shop.path();
    ok(path, "key generate --out stranger");
    let mut bytes = std::fs::read(path.join("x.otab")).unwrap();
    let middle = bytes.windows(14).position(|name| name == b"rootfs.chunks\0").unwrap() + 512 + 20;
    bytes[middle] ^= 1;
    std::fs::write(path.join("damaged.otab"), &bytes).unwrap();
    std::fs::write(path.join("cut.otab"), &bytes[..middle]).unwrap();
    for (line, code) in [
        ("bundle verify x.otab --key stranger.pub", "SIG_UNTRUSTED"),
        ("bundle verify damaged.otab --key k.pub", "HASH_MISMATCH"),
        ("bundle verify cut.otab --key k.pub", "BUNDLE_TRUNCATED"),
        ("bundle verify rootfs --key k.pub", "NOT_A_BUNDLE"),
        ("bundle inspect rootfs", "NOT_A_BUNDLE"),
        ("bundle extract damaged.otab --key k.pub -o out", "HASH_MISMATCH"),
        ("bundle sign damaged.otab --key stranger", "HASH_MISMATCH"),
    ] {
        let text = run(path, line);
        assert_eq!(text.status, 3, "{line}: {}", text.err);
        assert!(
            text.err.starts_with("otactl: ") && text.err.ends_with(&format!("\ncode {code}\n")),
            "{}",
            text.err
        );
        let json = run(path, &format!("{line} --json"));
        assert_eq!((json.status, json.err.as_str()), (3, ""), "{line}");
        assert_eq!(json.json()["error"]["code"], code);
        assert!(!json.json()["error"]["message"].as_str().unwrap().is_empty());
        // `--quiet` does not silence errors.
        assert!(run(path, &format!("{line} --quiet")).err.contains(code));
    }
    let leftovers = std::fs::read_dir(path.join("out")).unwrap().count();
    assert_eq!(leftovers, 0, "a refused bundle leaves no image");
}

#[test]
fn mistakes_have_status_2_or_1() {
    let shop = workshop();
    let path = shop.path();
    std::fs::write(path.join("typo.toml"), "[update]\nversoin = \"1.0.0\"\n").unwrap();
    std::fs::write(path.join("empty"), "").unwrap();
    for (line, status) in [
        ("", 2),
        ("nonsense", 2),
        ("bundle verify x.otab", 2),
        ("bundle verify x.otab --key k.pub --root root.toml", 2),
        ("bundle create --image rootfs=rootfs --key k -o y.otab", 2),
        ("bundle create --manifest typo.toml --image rootfs=rootfs --key k -o y.otab", 2),
        ("bundle create --manifest m.toml --image rootfs --key k -o y.otab", 2),
        ("bundle create --manifest m.toml --image ../x=rootfs --key k -o y.otab", 2),
        ("bundle create --manifest m.toml --image rootfs=empty --key k -o y.otab", 2),
        (
            "bundle create --manifest m.toml --image rootfs=rootfs --key k -o y.otab --compress none --level 3",
            2,
        ),
        ("bundle create --manifest m.toml --image rootfs=rootfs --key k -o y.otab --chunk-size 4096", 2),
        ("bundle create --manifest m.toml --image rootfs=rootfs --key k -o y.otab --version 1", 2),
        ("bundle create --manifest m.toml --image rootfs=missing --key k -o y.otab", 1),
        ("bundle create --manifest m.toml --image rootfs=rootfs --key k.pub -o y.otab", 1),
        ("bundle verify missing.otab --key k.pub", 1),
        ("bundle verify x.otab --key k", 1),
        ("trust create --key k.pub --key k.pub --out r.toml", 2),
        ("trust create --key k.pub --threshold 2 --out r.toml", 2),
        ("trust create --key k.pub --out root.toml", 1),
        ("trust show m.toml", 1),
        ("key generate --out k", 1),
        ("key id m.toml", 1),
    ] {
        let done = run(path, line);
        assert_eq!(done.status, status, "{line}: {}{}", done.out, done.err);
        assert!(!done.err.is_empty(), "{line}");
    }
    assert!(!path.join("y.otab").exists());
    let typo = run(path, "bundle create --manifest typo.toml --image rootfs=rootfs --key k -o y.otab");
    assert!(typo.err.contains("versoin") && typo.err.contains("line 2"), "{}", typo.err);
}

#[test]
fn flags_override_the_template_and_quiet_is_quiet() {
    let shop = workshop();
    let path = shop.path();
    let line = format!(
        "{CREATE} --version 3.0.0-rc.1 --sequence 50 --compatible x1 --compatible x2 --description d --quiet"
    );
    assert_eq!(ok(path, &line).out, "");
    let value = ok(path, "bundle inspect x.otab --json").json();
    assert_eq!(value["version"], "3.0.0-rc.1");
    assert_eq!(value["sequence"], 50);
    assert_eq!(value["compatible"], serde_json::json!(["x1", "x2"]));
    assert_eq!(ok(path, "bundle verify x.otab --key k.pub --quiet").out, "");

    let created =
        ok(path, &format!("{CREATE} --compress gzip --chunking fixed --chunk-size 8192 --threads 1 --json"))
            .json();
    let verified = ok(path, "bundle verify x.otab --key k.pub --json").json();
    assert_eq!(created["release"], verified["release"]);
    assert_eq!(verified["verified"], true);
    let value = ok(path, "bundle inspect x.otab --json").json();
    assert!(value["images"][0]["kinds"]["gzip"]["chunks"].as_u64().unwrap() > 0);
}

#[test]
fn a_delta_is_made_and_shown() {
    let shop = workshop();
    let path = shop.path();
    std::fs::rename(path.join("x.otab"), path.join("old.otab")).unwrap();
    std::fs::write(path.join("kernel"), "kernel".repeat(5000) + "and more").unwrap();
    ok(path, &format!("{CREATE} --sequence 43 --chunk-size 8192"));
    let made = ok(path, "bundle delta --from old.otab --to x.otab -o d.otad-delta").out;
    assert!(made.starts_with("d.otad-delta: ") && made.contains("kernel.index"), "{made}");
    let shown = ok(path, "bundle inspect d.otad-delta").out;
    let release = ok(path, "bundle inspect x.otab --json").json()["release"].as_str().unwrap().to_owned();
    assert!(shown.contains(&format!("to release    {release}")), "{shown}");
    let value = ok(path, "bundle inspect d.otad-delta --json").json();
    assert_eq!(value["size"], std::fs::metadata(path.join("d.otad-delta")).unwrap().len());
    assert_eq!(value["sections"][3]["role"], "kernel");
    assert_eq!(value["sections"][3]["new_size"], 30_008);
    assert!(value["sections"][2]["stored"].as_u64().unwrap() < 100, "the same image");
    let again =
        ok(path, "bundle delta --from old.otab --to x.otab -o e.otad-delta --threads 1 --json").json();
    assert_eq!(again["size"], value["size"]);
    assert_eq!(again["left_out"], serde_json::json!([]));
    for (line, status) in [
        ("bundle delta --from old.otab --to missing.otab -o y", 1),
        ("bundle delta --from m.toml --to x.otab -o y", 3),
        ("bundle delta --from old.otab --to x.otab -o y --threads 0", 2),
        ("bundle inspect missing.otad-delta", 1),
    ] {
        let done = run(path, line);
        assert_eq!(done.status, status, "{line}: {}{}", done.out, done.err);
    }
    assert!(!path.join("y").exists());
}

#[test]
fn trust_show_lists_roles() {
    let shop = workshop();
    let id = ok(shop.path(), "key id k.pub --json").json()["id"].as_str().unwrap().to_owned();
    let text = ok(shop.path(), "trust show root.toml").out;
    assert!(text.contains("release") && text.contains("1 of 1") && text.contains(&id), "{text}");
    let value = ok(shop.path(), "trust show root.toml --json").json();
    assert_eq!(value["roles"]["release"]["keys"][0], id.as_str());
    assert_eq!(value["version"], 1);
}

/// Help, man pages and completions come from one definition, which clap itself checks.
#[test]
fn the_definition_is_sound() {
    use clap::CommandFactory;
    otactl::args::Cli::command().debug_assert();
    let directory = tempfile::tempdir().unwrap();
    for line in [
        "--help",
        "install --help",
        "bundle create --help",
        "bundle delta --help",
        "trust create --help",
        "key generate --help",
    ] {
        let help = ok(directory.path(), line).out;
        assert!(help.contains("Example"), "{line} teaches nothing: {help}");
    }
    assert!(ok(directory.path(), "--version").out.starts_with("otactl "));
}

/// A release key is replaced, by two of two root keys, and devices with the old root take the new release.
#[test]
fn a_rotation_from_one_end_to_the_other() {
    let shop = workshop();
    let path = shop.path();
    for name in ["s1", "s2", "bob"] {
        ok(path, &format!("key generate --out {name} --quiet"));
    }
    ok(
        path,
        "trust init --key k.pub --root-key s1.pub --root-key s2.pub --root-threshold 2 --expires 2035-01-01 --out root.1.toml",
    );
    ok(path, "trust add root.1.toml --role online --key bob.pub --quiet");
    let shown = ok(path, "trust show root.1.toml --json").json();
    assert_eq!(shown["roles"]["root"]["threshold"], 2);
    assert_eq!(
        (shown["version"].as_u64(), shown["expires"].as_str()),
        (Some(1), Some("2035-01-01T00:00:00Z"))
    );

    let old = ok(path, "key id k.pub").out;
    let rotate =
        format!("trust rotate root.1.toml --remove {} --add release=bob.pub --out root.2.toml", old.trim());
    assert!(ok(path, &rotate).out.contains("draft of root 2"));
    assert_eq!(run(path, &rotate).status, 1, "a draft is not replaced");
    assert!(ok(path, "trust sign root.2.toml --key s1").out.contains("1 of 2"));
    let early = run(path, "trust show root.1.toml root.2.toml");
    assert_eq!((early.status, early.err.contains("code SIG_MISSING")), (3, true), "{}", early.err);
    let again = run(path, "trust sign root.2.toml --key s1");
    assert_eq!(again.status, 2, "{}", again.err);
    ok(path, "trust sign root.2.toml --key s2");
    let whole = ok(path, "trust show root.1.toml root.2.toml");
    assert!(whole.out.contains("root 2 follows root 1"), "{}", whole.out);
    let refused = run(path, "trust add root.2.toml --role release --key k.pub");
    assert_eq!((refused.status, refused.err.contains("trust rotate")), (2, true), "{}", refused.err);

    let create = CREATE.replace("--key k -o x.otab", "--key bob --with-root root.2.toml -o new.otab");
    ok(path, &create);
    ok(path, "bundle verify new.otab --root root.1.toml");
    ok(path, "bundle verify new.otab --root root.2.toml");
    let without = CREATE.replace("--key k -o x.otab", "--key bob -o without.otab");
    ok(path, &without);
    let unknown = run(path, "bundle verify without.otab --root root.1.toml");
    assert!(unknown.err.contains("code SIG_UNTRUSTED"), "{}", unknown.err);
    ok(path, "bundle sign without.otab --key s1 --with-root root.2.toml");
    ok(path, "bundle verify without.otab --root root.1.toml");
    let retired = run(path, "bundle verify x.otab --root root.2.toml");
    assert!(retired.err.contains("code SIG_UNTRUSTED"), "{}", retired.err);
}

/// The private half of a key is a file that openssl reads too, and useless without its passphrase.
#[test]
fn keys_under_a_passphrase() {
    let shop = workshop();
    let path = shop.path();
    std::fs::write(path.join("secret"), "correct horse\n").unwrap();
    std::fs::write(path.join("wrong"), "battery staple\n").unwrap();
    let with = |file: &str, line: &str| {
        done(command(path, line).env("OTAD_PASSPHRASE_FILE", path.join(file)).output().unwrap())
    };
    let made = with("secret", "key generate --out locked --encrypt");
    assert_eq!(made.status, 0, "{}", made.err);
    let text = std::fs::read_to_string(path.join("locked")).unwrap();
    assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), "{text}");
    let signed = with("secret", "bundle sign x.otab --key locked");
    assert_eq!(signed.status, 0, "{}", signed.err);
    ok(path, "bundle verify x.otab --key locked.pub");
    let refused = with("wrong", "bundle sign x.otab --key locked -o y.otab");
    assert_eq!((refused.status, refused.err.contains("passphrase is wrong")), (1, true), "{}", refused.err);
    assert!(refused.err.contains("code KEY_INVALID"), "{}", refused.err);
    assert!(!path.join("y.otab").exists());

    // Both ways between this program and openssl.
    let openssl = |words: &str| {
        let status =
            Command::new("openssl").args(words.split_whitespace()).current_dir(path).status().unwrap();
        assert!(status.success(), "{words}");
    };
    openssl("pkey -in locked -passin file:secret -pubout -out again.pub");
    assert_eq!(ok(path, "key id again.pub").out, ok(path, "key id locked.pub").out);
    openssl("genpkey -algorithm ed25519 -aes256 -pass file:secret -out theirs");
    openssl("pkey -in theirs -passin file:secret -pubout -out theirs.pub");
    assert_eq!(with("secret", "bundle sign x.otab --key theirs").status, 0);
    ok(path, "bundle verify x.otab --key theirs.pub");
}

/// A key that never comes near: a command signs, here openssl; what it answers is checked before it is written.
#[test]
fn a_command_signs() {
    let shop = workshop();
    let path = shop.path();
    ok(path, "key generate --out far --quiet");
    let sign = |command_line: &str, out: &str| {
        let mut otactl = command(path, &format!("bundle sign x.otab --key far.pub -o {out} --sign-command"));
        done(otactl.arg(command_line).output().unwrap())
    };
    // openssl wants to know the length of what it signs, so the message goes through a file.
    let raw = "cat > message && openssl pkeyutl -sign -inkey far -rawin -in message";
    for (command_line, out) in [(raw.to_owned(), "raw.otab"), (format!("{raw} | base64"), "base64.otab")] {
        let signed = sign(&command_line, out);
        assert_eq!(signed.status, 0, "{}", signed.err);
        ok(path, &format!("bundle verify {out} --key far.pub"));
    }
    let told = sign(&format!("echo $OTAD_KEY_ID $OTAD_PUBLIC_KEY > told; {raw}"), "told.otab");
    assert_eq!(told.status, 0, "{}", told.err);
    let id = ok(path, "key id far.pub").out;
    assert_eq!(std::fs::read_to_string(path.join("told")).unwrap(), format!("{} far.pub\n", id.trim()));
    for (wrong, part) in [
        ("false", "ended with"),
        ("cat > /dev/null; echo hello", "no signature"),
        ("cat > message; openssl pkeyutl -sign -inkey k -rawin -in message", "does not verify"),
        ("head -c 64 /dev/zero", "does not verify"),
    ] {
        let refused = sign(wrong, "wrong.otab");
        assert_eq!((refused.status, refused.err.contains(part)), (1, true), "{wrong}: {}", refused.err);
        assert!(!path.join("wrong.otab").exists());
    }
}

/// PKCS#11 through the same door: a key that is made in a token (SoftHSM) and never leaves it signs a bundle and a root.
#[test]
fn a_token_signs() {
    let shop = workshop();
    let path = shop.path();
    std::fs::create_dir(path.join("tokens")).unwrap();
    let conf = format!("directories.tokendir = {}/tokens\nobjectstore.backend = file\n", path.display());
    std::fs::write(path.join("hsm.conf"), conf).unwrap();
    let tool = "pkcs11-tool --module /usr/lib/softhsm/libsofthsm2.so --token-label otad";
    let shell = |line: &str| {
        let mut sh = Command::new("sh");
        let made = sh.args(["-ec", line]).current_dir(path).env("SOFTHSM2_CONF", path.join("hsm.conf"));
        let done = done(made.output().unwrap());
        assert_eq!(done.status, 0, "{line}: {}", done.err);
    };
    shell("softhsm2-util --init-token --free --label otad --pin 1234 --so-pin 5678");
    shell(&format!(
        "{tool} --login --pin 1234 --keypairgen --key-type EC:edwards25519 --id 01 --label release"
    ));
    shell(&format!("{tool} --read-object --type pubkey --id 01 -o token.pub"));
    let sign = format!(
        "cat > message && {tool} --login --pin 1234 --sign --mechanism EDDSA --id 01 -i message -o sig >&2 && cat sig"
    );
    let by_token = |line: &str| {
        let mut otactl = command(path, &format!("{line} --key token.pub --sign-command"));
        let done = done(otactl.arg(&sign).env("SOFTHSM2_CONF", path.join("hsm.conf")).output().unwrap());
        assert_eq!(done.status, 0, "{line}: {}", done.err);
        done
    };
    by_token("bundle sign x.otab -o token.otab");
    ok(path, "bundle verify token.otab --key token.pub");
    ok(path, "trust rotate root.toml --add root=token.pub --out root.2.toml");
    ok(path, "trust sign root.2.toml --key k");
    by_token("trust sign root.2.toml");
    ok(path, "trust show root.toml root.2.toml");
}

#[test]
fn a_channel_document_names_the_latest_release() {
    let shop = workshop();
    let path = shop.path();
    ok(path, "key generate --out online --quiet");
    ok(path, "trust add root.toml --role online --key online.pub --quiet");
    let create =
        "channel create x.otab --root root.toml --counter 18 --hours 24 --key online -o channel.toml";
    let made = ok(path, &format!("{create} --json")).json();
    let release = ok(path, "bundle inspect x.otab --json").json()["release"].clone();
    assert_eq!((&made["release"], made["sequence"].as_u64()), (&release, Some(42)));
    assert_eq!(made["expires"].as_u64().unwrap() - made["issued"].as_u64().unwrap(), 24 * 3600);
    let shown = ok(path, "channel show channel.toml --root root.toml");
    assert!(shown.out.contains("verified") && shown.out.contains("counter = 18"), "{}", shown.out);
    assert!(ok(path, "channel show channel.toml").out.contains("NOT checked"));

    // While it is on its way in stages, an older one is fine as well; a newer one is not older.
    let other = |sequence: &str| {
        let template = std::fs::read_to_string(path.join("m.toml")).unwrap();
        std::fs::write(path.join("other.toml"), template.replace("sequence = 42", sequence)).unwrap();
        ok(path, &CREATE.replace("m.toml", "other.toml").replace("x.otab", "other.otab"));
        run(path, &format!("{create} --also other.otab --json"))
    };
    let made = other("sequence = 41").json();
    assert_eq!(made["also"][0]["sequence"].as_u64(), Some(41), "{made}");
    assert!(ok(path, "channel show channel.toml --root root.toml").out.contains("[[also]]"));
    std::fs::remove_file(path.join("other.otab")).unwrap();
    let newer = other("sequence = 43");
    assert!([&newer.out, &newer.err].iter().any(|text| text.contains("METADATA_INVALID")), "{}", newer.err);
    assert_eq!(newer.status, 3);

    ok(path, &create.replace("--key online", "--key k").replace("channel.toml", "wrong.toml"));
    let wrong = run(path, "channel show wrong.toml --root root.toml");
    assert_eq!((wrong.status, wrong.err.contains("code SIG_UNTRUSTED")), (3, true), "{}", wrong.err);
    let model = run(path, &format!("{create} --compatible other"));
    assert_eq!((model.status, model.err.contains("acme-gateway")), (2, true), "{}", model.err);
}

/// Keys of devices, and what can be known of an encrypted bundle without one.
#[test]
fn an_encrypted_bundle_is_for_its_recipients() {
    let shop = workshop();
    let path = shop.path();
    ok(path, "key generate --device --out d");
    ok(path, "key generate --device --out other --quiet");
    let id = ok(path, "key id d").out.trim().to_owned();
    assert_eq!(id, ok(path, "key id d.pub").out.trim());
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(path.join("d")).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let create = CREATE.replace("x.otab", "sealed.otab");
    let made = ok(path, &format!("{create} --recipient d.pub"));
    assert!(made.out.contains(&format!("readable by {id} (hpke-x25519)")), "{}", made.out);

    let shown = ok(path, "bundle inspect sealed.otab --key k.pub");
    assert!(shown.out.contains(&id) && shown.out.contains("encrypted"), "{}", shown.out);
    let value = ok(path, "bundle inspect sealed.otab --json").json();
    assert_eq!(
        (&value["images"][0]["sha256"], value["images"][0]["size"].as_u64()),
        (&Value::Null, Some(888_000))
    );
    let opened = ok(path, "bundle inspect sealed.otab --key k.pub --device-key d --json").json();
    assert_eq!(opened["images"], {
        let mut plain = ok(path, "bundle inspect x.otab --json").json()["images"].clone();
        for (image, number) in plain.as_array_mut().unwrap().iter_mut().zip(0..) {
            let sealed = &opened["images"][number];
            image["payload_size"] = sealed["payload_size"].clone();
            image["kinds"] = sealed["kinds"].clone();
        }
        plain
    });

    let stored = ok(path, "bundle verify sealed.otab --root root.toml");
    assert!(stored.out.contains("as it is stored"), "{}", stored.out);
    let whole = ok(path, "bundle verify sealed.otab --root root.toml --device-key d");
    assert!(!whole.out.contains("as it is stored"), "{}", whole.out);
    ok(path, "bundle extract sealed.otab --key k.pub --device-key d -o out");
    assert_eq!(
        std::fs::read(path.join("out/kernel.img")).unwrap(),
        std::fs::read(path.join("kernel")).unwrap()
    );
    for line in [
        "bundle extract sealed.otab --key k.pub -o none",
        "bundle extract sealed.otab --key k.pub --device-key other -o none",
        "bundle verify sealed.otab --key k.pub --device-key other",
        "bundle delta --from sealed.otab --to sealed.otab -o d.otad-delta",
    ] {
        let refused = run(path, line);
        assert_eq!(
            (refused.status, refused.err.contains("code DECRYPT_NO_KEY")),
            (3, true),
            "{}",
            refused.err
        );
    }
    assert!(!path.join("none").exists());
    ok(path, "bundle delta --from sealed.otab --to sealed.otab --device-key d -o d.otad-delta --quiet");
    let delta = ok(path, "bundle inspect d.otad-delta --json").json();
    assert_eq!((&delta["encrypted"], &delta["new_release"]), (&Value::Bool(true), &value["release"]));
    // Signing vouches for what is stored.
    ok(path, "key generate --out k2 --quiet");
    ok(path, "bundle sign sealed.otab --key k2");
    ok(path, "bundle verify sealed.otab --key k2.pub --device-key d");
    // A key that signs is none that can be encrypted for, and an RSA key is.
    let wrong = run(path, &format!("{create} --recipient k.pub"));
    assert!(wrong.err.contains("a key that signs"), "{}", wrong.err);
    for line in
        ["genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out rsa", "pkey -in rsa -pubout -out rsa.pub"]
    {
        let made = Command::new("openssl").args(line.split(' ')).current_dir(path).output().unwrap();
        assert!(made.status.success(), "{line}");
    }
    let both = ok(path, &format!("{create} --recipient rsa.pub --recipient d.pub --json")).json();
    assert_eq!(both["recipients"].as_array().unwrap().len(), 2);
    ok(path, "bundle verify sealed.otab --key k.pub --device-key d");
}

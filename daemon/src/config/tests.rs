//! Every rule of the configuration, with the place its message points at.

use super::*;

const GOOD: &str = r#"
[system]
compatible = "acme-gateway"
data-dir = "/var/lib/otad"

[boot]
backend = "uboot"
scheme = "bootcount"
env-config = "/etc/fw_env.config"
boot-limit = 3

[[slot]]
name = "a"
images.rootfs = "/dev/a"
images.kernel = "/dev/ka"
[[slot]]
name = "b"
images.rootfs = "/dev/b"
images.kernel = "/dev/kb"

[trust]
root = "/etc/otad/root.toml"

[health]
checks = "/usr/lib/otad/health.d"
units = ["network-online.target"]
settle-seconds = 30
deadline-seconds = 300

[server]
url = "https://updates.example.com/"
interval-seconds = 60
[reboot]
policy = "manual"
"#;

fn read(text: &str) -> Result<Config, Failure> {
    parse(text, Path::new("otad.toml"), &|path| !path.ends_with("missing"))
}

#[test]
fn the_documented_example_is_understood() {
    let config = read(GOOD).unwrap();
    assert_eq!(config.slot("b").unwrap().images["kernel"], PathBuf::from("/dev/kb"));
    assert_eq!(config.other("b").unwrap().name, "a");
    assert_eq!(config.server.as_ref().unwrap().url, "https://updates.example.com");
    assert_eq!(config.health.deadline, Duration::from_secs(300));
    assert_eq!(config.boot.backend, Backend::Uboot);
}

#[test]
fn sections_that_may_be_missing_have_defaults() {
    let short = GOOD
        .split("[health]")
        .next()
        .unwrap()
        .replace("boot-limit = 3\n", "")
        .replace("scheme = \"bootcount\"\n", "");
    let config = read(&short).unwrap();
    assert_eq!(config.boot.limit, 3);
    assert_eq!(config.boot.scheme, bootenv::SchemeKind::Bootcount);
    assert_eq!(config.health.settle, Duration::from_secs(30));
    assert_eq!((config.server, config.reboot), (None, RebootPolicy::Manual));
}

/// D10: every mistake is refused with file, line, column, the value and what would be right.
#[test]
fn mistakes_are_named_where_they_are() {
    let cases = [
        ("compatible = \"acme-gateway\"", "compatible = \"\"", "otad.toml:3:14: `compatible` is empty"),
        ("compatible = ", "compatibel = ", "otad.toml:3:1: unknown field `compatibel`"),
        ("boot-limit = 3", "boot-limit = 10", "otad.toml:10:14: `boot-limit` is 10"),
        ("boot-limit = 3", "boot-limit = 0", "otad.toml:10:14: `boot-limit` is 0"),
        ("boot-limit = 3", "boot-limit = \"3\"", "otad.toml:10:14: invalid type"),
        ("backend = \"uboot\"", "backend = \"grub\"", "otad.toml:7:11: unknown variant `grub`"),
        ("backend = \"uboot\"", "backend = \"file\"", "otad.toml:7:11: backend = \"file\" needs `model-dir`"),
        ("name = \"b\"", "name = \"B\"", "otad.toml:17:8: slot name `B` is not usable"),
        ("name = \"b\"", "name = \"a\"", "otad.toml:17:8: slot `a` is there twice"),
        ("\"/dev/b\"", "\"/dev/missing\"", "otad.toml:18:17: slot b: /dev/missing does not exist"),
        ("\"/dev/b\"", "\"dev/b\"", "otad.toml:18:17: `dev/b` is not an absolute path"),
        (
            "images.kernel = \"/dev/kb\"\n",
            "",
            "otad.toml:12:1: slots a (kernel, rootfs) and b (rootfs) differ",
        ),
        (
            "\"/dev/kb\"",
            "\"/dev/a\"",
            "otad.toml:12:1: /dev/a is rootfs of slot a and an image of slot b too",
        ),
        ("deadline-seconds = 300", "deadline-seconds = 30", "otad.toml:28:20: `deadline-seconds` is 30"),
        ("\"https://updates", "\"ftp://updates", "otad.toml:31:7: `ftp://updates.example.com/` is neither"),
        ("interval-seconds = 60", "interval-seconds = 0", "otad.toml:32:20: `interval-seconds` is 0"),
        ("interval-seconds = 60", "ca = \"ca.pem\"", "otad.toml:32:6: `ca.pem` is not an absolute path"),
        (
            "interval-seconds = 60",
            "pin = [\"abc\"]",
            "otad.toml:32:8: pin `abc` is not 64 hexadecimal digits",
        ),
        ("interval-seconds = 60", "client-key = \"/k\"", "otad.toml:32:14: `client-key` needs `client-cert"),
        (
            "interval-seconds = 60",
            "client-certificate = \"/c\"",
            "otad.toml:32:22: `client-certificate` needs",
        ),
        (
            "https://updates.example.com/\"",
            "http://x\"\nca = \"/c\"",
            "otad.toml:32:6: this is for encrypted",
        ),
        ("policy = \"manual\"", "policy = \"later\"", "otad.toml:34:10: unknown variant `later`"),
        ("[reboot]", "[reboot", "otad.toml:33:8: "),
    ];
    for (from, to, expected) in cases {
        assert!(GOOD.contains(from), "{from}");
        let failure = read(&GOOD.replacen(from, to, 1)).unwrap_err();
        assert_eq!(failure.code, Code::Config);
        assert!(failure.message.starts_with(expected), "{to}: {failure}");
    }
}

#[test]
fn encrypted_bundles_are_read_with_a_file_or_a_command() {
    let with = |lines: &str| read(&format!("{GOOD}[decrypt]\n{lines}"));
    assert_eq!(read(GOOD).unwrap().decrypt, None);
    let file = with("key = \"/etc/otad/device.key\"").unwrap().decrypt;
    assert_eq!(file, Some(Decrypt::Key("/etc/otad/device.key".into())));
    let command =
        with("command = [\"/bin/unwrap\", \"-x\"]\npublic = \"/etc/otad/device.pub\"").unwrap().decrypt;
    let expected = ["/bin/unwrap", "-x"].map(str::to_owned).to_vec();
    assert_eq!(command, Some(Decrypt::Command { command: expected, public: "/etc/otad/device.pub".into() }));
    for (lines, expected) in [
        ("", "[decrypt] needs `key`"),
        ("key = \"device.key\"", "`device.key` is not an absolute path"),
        ("command = [\"unwrap\"]\npublic = \"/p\"", "`unwrap` is not an absolute path"),
        ("command = []\npublic = \"/p\"", "`command` is empty"),
        ("command = [\"/bin/unwrap\"]", "`command` needs `public`"),
        ("key = \"/k\"\npublic = \"/p\"", "`key` is all there is then"),
    ] {
        let failure = with(lines).unwrap_err();
        assert_eq!(failure.code, Code::Config);
        assert!(failure.message.contains(expected), "{lines}: {failure}");
    }
}

#[test]
fn exactly_two_slots_are_needed() {
    let one =
        GOOD.replace("[[slot]]\nname = \"b\"\nimages.rootfs = \"/dev/b\"\nimages.kernel = \"/dev/kb\"\n", "");
    let failure = read(&one).unwrap_err();
    assert!(failure.message.contains("1 [[slot]] sections; otad needs exactly two"), "{failure}");
}

/// D10: a configuration that everybody may write would let everybody choose what is overwritten.
#[test]
fn a_world_writable_file_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("otad.toml");
    std::fs::write(&path, GOOD).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(load(&path).unwrap_err().message.contains("mode 0666 lets everybody write it"));
    assert!(load(&dir.path().join("none")).unwrap_err().message.contains("cannot read"));
}

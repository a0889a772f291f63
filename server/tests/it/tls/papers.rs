//! An authority, and the certificates it gives to servers and devices, in a directory of their own.

use std::path::{Path, PathBuf};
use std::process::Command;

use otad::config::Identity;
use otaserver::tls::Files;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use tempfile::TempDir;

/// Who asks.
#[derive(Debug)]
pub(super) enum Who {
    Nobody,
    /// With a certificate for this device.
    OfDevice(&'static str),
    /// The same, made by the commands of docs/server.md.
    ByOpenssl(&'static str),
    /// With the device's name as common name and as a DNS name, and not where it belongs.
    WithoutName,
    OfTwo,
    /// With a certificate of another authority.
    Stranger,
    Expired,
}

pub(super) struct Papers {
    directory: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn of_devices(names: &[&str]) -> CertificateParams {
    let mut params = named("a device");
    let uri = |name: &&str| SanType::URI(format!("otad:device:{name}").try_into().unwrap());
    params.subject_alt_names = names.iter().map(uri).collect();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn of_server() -> CertificateParams {
    let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "the server");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

impl Papers {
    pub(super) fn new() -> Papers {
        let papers =
            Papers { directory: tempfile::tempdir().unwrap(), authority: authority("the authority") };
        std::fs::write(papers.path("ca.pem"), papers.authority.pem()).unwrap();
        std::fs::write(papers.path("ca.key"), papers.authority.key().serialize_pem()).unwrap();
        papers.renew_server();
        for device in ["gw-1", "gw-2", "gw-1x"] {
            papers.issue(device, of_devices(&[device]));
        }
        papers.issue("two", of_devices(&["gw-1", "gw-2"]));
        let mut unnamed = named("gw-1");
        unnamed.subject_alt_names = vec![SanType::DnsName("gw-1".try_into().unwrap())];
        papers.issue("unnamed", unnamed);
        let mut expired = of_devices(&["gw-1"]);
        (expired.not_before, expired.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        papers.issue("expired", expired);
        let mut ended = of_server();
        (ended.not_before, ended.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        papers.issue("ended", ended);
        let mut later = of_server();
        (later.not_before, later.not_after) = (date_time_ymd(2095, 1, 1), date_time_ymd(2096, 1, 1));
        papers.issue("later", later);
        papers.write("stranger", of_devices(&["gw-1"]), &authority("the authority"));
        std::fs::write(papers.path("other.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        papers
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn files(&self) -> Files {
        let [certificate, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|name| self.path(name));
        Files { certificate, key, device_ca: Some(ca) }
    }

    /// Gives the server a new key and a certificate for it.
    pub(super) fn renew_server(&self) {
        self.issue("server", of_server());
    }

    fn issue(&self, name: &str, params: CertificateParams) {
        self.write(name, params, &self.authority);
    }

    fn write(&self, name: &str, params: CertificateParams, by: &CertifiedIssuer<'static, KeyPair>) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, by).unwrap();
        private(&self.path(&format!("{name}.key")), &key.serialize_pem());
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
    }

    /// The files that somebody shows, without their suffix.
    fn name(&self, who: &Who) -> Option<String> {
        Some(match who {
            Who::Nobody => return None,
            Who::OfDevice(device) => (*device).to_owned(),
            Who::ByOpenssl(device) => self.by_openssl(device),
            Who::WithoutName => "unnamed".into(),
            Who::OfTwo => "two".into(),
            Who::Stranger => "stranger".into(),
            Who::Expired => "expired".into(),
        })
    }

    /// What curl is told to show.
    pub(super) fn shown(&self, who: &Who) -> Vec<String> {
        let Some(name) = self.name(who) else { return Vec::new() };
        let [certificate, key] =
            ["pem", "key"].map(|kind| self.path(&format!("{name}.{kind}")).display().to_string());
        vec!["--cert".into(), certificate, "--key".into(), key]
    }

    /// What otad is told to show.
    pub(super) fn identity(&self, who: &Who) -> Option<Identity> {
        let name = self.name(who)?;
        let [certificate, key] = ["pem", "key"].map(|kind| self.path(&format!("{name}.{kind}")));
        Some(Identity { certificate, key })
    }

    fn by_openssl(&self, device: &str) -> String {
        let text =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/server.md")).unwrap();
        let recipe = text.split("<!-- a device's certificate -->\n```console\n").nth(1).unwrap();
        let recipe = recipe.split("```").next().unwrap().replace("\\\n", " ").replace("gw-0001", device);
        let name = format!("openssl-{device}");
        for line in recipe.lines() {
            let line = line.trim_start_matches("$ ").replace("device.", &format!("{name}."));
            let output =
                Command::new("sh").args(["-c", &line]).current_dir(self.directory.path()).output().unwrap();
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        }
        name
    }
}

fn private(path: &Path, text: &str) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let _ = std::fs::remove_file(path);
    let mut file = std::fs::File::options().create_new(true).write(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

//! The text as serde sees it; spans stay with what validation may complain about.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::RebootPolicy;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) system: System,
    pub(super) boot: Boot,
    pub(super) slot: Spanned<Vec<Slot>>,
    pub(super) trust: Trust,
    pub(super) decrypt: Option<Decrypt>,
    #[serde(default)]
    pub(super) health: Health,
    #[serde(rename = "pre-run")]
    pub(super) pre_run: Option<PreRun>,
    pub(super) server: Option<Server>,
    #[serde(default)]
    pub(super) reboot: Reboot,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct System {
    pub(super) compatible: Spanned<String>,
    #[serde(default = "data_dir")]
    pub(super) data_dir: Spanned<PathBuf>,
    #[serde(default = "runtime_dir")]
    pub(super) runtime_dir: Spanned<PathBuf>,
    #[serde(default = "image_info")]
    pub(super) image_info: Spanned<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Boot {
    pub(super) backend: Spanned<Backend>,
    #[serde(default)]
    pub(super) scheme: Scheme,
    #[serde(default = "env_config")]
    pub(super) env_config: Spanned<PathBuf>,
    #[serde(default = "boot_limit")]
    pub(super) boot_limit: Spanned<u32>,
    #[serde(default = "default_env")]
    pub(super) default_env: Spanned<PathBuf>,
    #[serde(default = "cmdline")]
    pub(super) cmdline: Spanned<PathBuf>,
    #[serde(default = "yes")]
    pub(super) root_device_check: bool,
    pub(super) model_dir: Option<Spanned<PathBuf>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Backend {
    Uboot,
    File,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Scheme {
    #[default]
    Bootcount,
    BootOrder,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Slot {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) images: BTreeMap<String, Spanned<PathBuf>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trust {
    pub(super) root: Spanned<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Health {
    pub(super) checks: Option<Spanned<PathBuf>>,
    pub(super) units: Vec<String>,
    pub(super) settle_seconds: u32,
    pub(super) deadline_seconds: Spanned<u32>,
}

impl Default for Health {
    fn default() -> Self {
        Health {
            checks: None,
            units: Vec::new(),
            settle_seconds: 30,
            deadline_seconds: Spanned::new(0..0, 300),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Decrypt {
    pub(super) key: Option<Spanned<PathBuf>>,
    pub(super) command: Option<Spanned<Vec<String>>>,
    pub(super) public: Option<Spanned<PathBuf>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PreRun {
    pub(super) image: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Server {
    pub(super) url: Spanned<String>,
    #[serde(default = "interval")]
    pub(super) interval_seconds: Spanned<u32>,
    pub(super) ca: Option<Spanned<PathBuf>>,
    #[serde(default)]
    pub(super) pin: Vec<Spanned<String>>,
    pub(super) client_certificate: Option<Spanned<PathBuf>>,
    pub(super) client_key: Option<Spanned<PathBuf>>,
    pub(super) token_file: Option<Spanned<PathBuf>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reboot {
    pub(super) policy: RebootPolicy,
}

impl Default for Reboot {
    fn default() -> Self {
        Reboot { policy: RebootPolicy::Manual }
    }
}

fn path(text: &str) -> Spanned<PathBuf> {
    Spanned::new(0..0, PathBuf::from(text))
}
fn data_dir() -> Spanned<PathBuf> {
    path("/var/lib/otad")
}
fn runtime_dir() -> Spanned<PathBuf> {
    path("/run/otad")
}
fn image_info() -> Spanned<PathBuf> {
    path("/usr/lib/otad/image.toml")
}
fn env_config() -> Spanned<PathBuf> {
    path("/etc/fw_env.config")
}
fn default_env() -> Spanned<PathBuf> {
    path("/usr/share/otad/default.env")
}
fn cmdline() -> Spanned<PathBuf> {
    path("/proc/cmdline")
}
fn boot_limit() -> Spanned<u32> {
    Spanned::new(0..0, 3)
}
fn interval() -> Spanned<u32> {
    Spanned::new(0..0, 60)
}
fn yes() -> bool {
    true
}

//! `otactl trust`: making, rotating, signing and showing roots, and turning `--root` and `--key` into a root.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use otad_bundle::{Chain, KeyId, PublicKey, Role, Root, SignedRoot};
use otad_dbus::Code;
use serde_json::{Value, json};

use super::{output, signer};
use crate::args::{Globals, OptionalTrust, SignArgs, TrustCommand};
use crate::exit::Exit;
use crate::show;

pub(crate) fn run(command: TrustCommand, globals: &Globals) -> Result<(), Exit> {
    match command {
        TrustCommand::Init { keys, threshold, root_keys, root_threshold, add, expires, out } => {
            let mut root = releases(&read_keys(&keys)?, threshold)?;
            let root_keys = distinct(&read_keys(&root_keys)?, root_threshold)?;
            for key in &root_keys {
                root = root.with_key(Role::Root, *key);
            }
            if !root_keys.is_empty() {
                root = root.with_threshold(Role::Root, root_threshold)?;
            }
            init(changed(root, &add, &[], expires.as_deref())?, &out, globals)
        }
        TrustCommand::Add { root, role, keys, threshold } => add(&root, &role, &keys, threshold, globals),
        TrustCommand::Rotate { root, add, remove, threshold, expires, out } => {
            let mut next = newest(&root)?.successor()?;
            for id in &remove {
                next = next.without_key(id.parse::<KeyId>()?)?;
            }
            let next = changed(next, &add, &threshold, expires.as_deref())?;
            let draft = SignedRoot::draft(&next)?;
            create(&out, &draft.to_text())?;
            let version = next.version();
            let text = format!(
                "{}: draft of root {version}; sign it with the keys of root {} and of root {version} (otactl trust sign)\n",
                out.display(),
                version.saturating_sub(1)
            );
            output::show(globals, &text, &describe(&draft))
        }
        TrustCommand::Sign { root, signing } => sign(&root, &signing, globals),
        TrustCommand::Show { roots } => show_roots(&roots, globals),
    }
}

/// The root that the options name, or `None` when they name none.
pub(super) fn chosen(trust: &OptionalTrust) -> Result<Option<Root>, Exit> {
    match (&trust.root, trust.keys.as_slice()) {
        (Some(path), _) => Ok(Some(Root::read(path)?)),
        (None, []) => Ok(None),
        (None, paths) => Ok(Some(Root::with_release_keys(&read_keys(paths)?))),
    }
}

/// The roots of several files, in their order; `None` when there is none.
pub(super) fn roots(paths: &[PathBuf]) -> Result<Option<Chain>, Exit> {
    let mut roots = Vec::new();
    for path in paths {
        roots.extend_from_slice(Chain::read(path)?.roots());
    }
    if roots.is_empty() { Ok(None) } else { Ok(Some(Chain::of(roots)?)) }
}

fn newest(path: &Path) -> Result<Root, Exit> {
    let tip = Chain::read(path)?.tip().cloned();
    tip.ok_or_else(|| Exit::coded(Code::TrustInvalid, format!("{} holds no root", path.display())))
}

fn read_keys(paths: &[PathBuf]) -> Result<Vec<PublicKey>, Exit> {
    Ok(paths.iter().map(|path| PublicKey::read(path)).collect::<Result<_, _>>()?)
}

fn distinct(keys: &[PublicKey], threshold: usize) -> Result<Vec<PublicKey>, Exit> {
    let twice = |key: &PublicKey| keys.iter().filter(|other| other.id() == key.id()).count() > 1;
    if keys.iter().any(twice) {
        return Err(Exit::usage("the same key is given twice"));
    }
    if !keys.is_empty() && (threshold == 0 || threshold > keys.len()) {
        return Err(Exit::usage(format!("threshold {threshold} with {} keys", keys.len())));
    }
    Ok(keys.to_vec())
}

fn releases(keys: &[PublicKey], threshold: usize) -> Result<Root, Exit> {
    Ok(Root::with_release_keys(&distinct(keys, threshold)?).release_threshold(threshold)?)
}

/// A root with `ROLE=KEY.pub` added, `ROLE=N` as thresholds, and another end.
fn changed(
    mut root: Root,
    add: &[String],
    thresholds: &[String],
    expires: Option<&str>,
) -> Result<Root, Exit> {
    for text in add {
        let (role, path) = pair(text, "ROLE=KEY.pub")?;
        root = root.with_key(role, PublicKey::read(Path::new(path))?);
    }
    for text in thresholds {
        let (role, number) = pair(text, "ROLE=N")?;
        let number = number.parse().map_err(|_| Exit::usage(format!("{text}: {number} is no number")))?;
        root = root.with_threshold(role, number)?;
    }
    Ok(match expires {
        Some(text) => root.with_expiry(text)?,
        None => root,
    })
}

fn pair<'a>(text: &'a str, form: &str) -> Result<(Role, &'a str), Exit> {
    let (name, rest) =
        text.split_once('=').ok_or_else(|| Exit::usage(format!("{text}: write it as {form}")))?;
    Ok((role(name)?, rest))
}

fn role(name: &str) -> Result<Role, Exit> {
    let unknown = || Exit::usage(format!("{name} is no role: root, release, online or recovery"));
    Role::from_name(name).ok_or_else(unknown)
}

fn init(root: Root, out: &Path, globals: &Globals) -> Result<(), Exit> {
    let draft = SignedRoot::draft(&root)?;
    create(out, &draft.to_text())?;
    let releases = root.quorum(Role::Release).map_or((0, 0), |quorum| (quorum.threshold, quorum.keys.len()));
    let text = format!("{}: {} of {} keys must sign a release\n", out.display(), releases.0, releases.1);
    output::show(globals, &text, &describe(&draft))
}

fn add(
    path: &Path,
    name: &str,
    keys: &[PathBuf],
    threshold: Option<usize>,
    globals: &Globals,
) -> Result<(), Exit> {
    let role = role(name)?;
    let chain = Chain::read(path)?;
    let [unsigned] = chain.roots() else {
        return Err(Exit::usage(format!("{} holds {} roots", path.display(), chain.roots().len())));
    };
    if !unsigned.signatures().is_empty() {
        let what = format!("root {} is signed and stays as it is", unsigned.root().version());
        return Err(Exit::usage(format!("{what}; make the next one with `otactl trust rotate`")));
    }
    let mut root = unsigned.root().clone();
    for key in read_keys(keys)? {
        root = root.with_key(role, key);
    }
    if let Some(threshold) = threshold {
        root = root.with_threshold(role, threshold)?;
    }
    let draft = SignedRoot::draft(&root)?;
    replace(path, &draft.to_text())?;
    output::show(globals, &format!("{}: {}\n", path.display(), lacking(&draft, None)), &describe(&draft))
}

fn sign(path: &Path, signing: &SignArgs, globals: &Globals) -> Result<(), Exit> {
    let mut roots = Chain::read(path)?.roots().to_vec();
    let Some(last) = roots.last_mut() else {
        return Err(Exit::usage(format!("{} holds no root", path.display())));
    };
    for signer in signer::all(signing)? {
        last.sign(&*signer)?;
    }
    let last = last.clone();
    replace(path, &Chain::of(roots)?.to_text())?;
    output::show(globals, &format!("{}: {}\n", path.display(), lacking(&last, None)), &describe(&last))
}

/// Whether the signatures are enough, in one sentence.
fn lacking(root: &SignedRoot, before: Option<&Root>) -> String {
    let version = root.root().version();
    let judged = match before {
        Some(before) => root.check_after(before),
        None => root.check_own(),
    };
    match (judged, before) {
        (Ok(()), Some(before)) => format!("root {version} follows root {}", before.version()),
        (Ok(()), None) => format!("root {version} is signed by its own threshold"),
        (Err(error), _) => format!("not yet: {error}"),
    }
}

fn show_roots(paths: &[PathBuf], globals: &Globals) -> Result<(), Exit> {
    let Some(chain) = roots(paths)? else { return Err(Exit::usage("give a root file")) };
    let mut parts = Vec::new();
    let mut values = Vec::new();
    let mut before: Option<&Root> = None;
    for signed in chain.roots() {
        let verdict = match (before, signed.signatures().is_empty()) {
            (None, true) => "vouched for by the image that it lies in".to_owned(),
            (before, _) => lacking(signed, before),
        };
        parts.push(format!("{}\n{verdict}\n", show_root(signed)));
        let mut value = describe(signed);
        if let Value::Object(map) = &mut value {
            map.insert("verdict".to_owned(), verdict.into());
        }
        values.push(value);
        before = Some(signed.root());
    }
    // One root keeps the form that it has always had.
    let value = if values.len() == 1 { values.pop().unwrap_or_default() } else { json!({"roots": values}) };
    output::answer(globals, &parts.join("\n"), &value)?;
    // What does not hold is shown and then refused. A draft alone is nobody's chain yet.
    if chain.roots().len() > 1 { Ok(chain.check()?) } else { Ok(()) }
}

fn show_root(signed: &SignedRoot) -> String {
    let root = signed.root();
    let mut text = format!("version  {}\n", root.version());
    if let Some(expires) = root.expires() {
        text.push_str(&format!("expires  {expires}\n"));
    }
    let mut rows = vec![["ROLE", "THRESHOLD", "KEYS"].map(str::to_owned).to_vec()];
    for (role, quorum) in root.roles() {
        let mut first =
            vec![role.name().to_owned(), format!("{} of {}", quorum.threshold, quorum.keys.len())];
        for key in &quorum.keys {
            first.push(key.to_string());
            rows.push(std::mem::replace(&mut first, vec![String::new(), String::new()]));
        }
    }
    text.push('\n');
    text.push_str(&show::table(&rows));
    for entry in signed.signatures().iter() {
        text.push_str(&format!("signed   {}\n", entry.key));
    }
    text
}

fn describe(signed: &SignedRoot) -> Value {
    let root = signed.root();
    let roles: serde_json::Map<String, Value> = root
        .roles()
        .map(|(role, quorum)| {
            let keys: Vec<_> = quorum.keys.iter().map(ToString::to_string).collect();
            (role.name().to_owned(), json!({"threshold": quorum.threshold, "keys": keys}))
        })
        .collect();
    let signed_by: Vec<_> = signed.signatures().iter().map(|entry| entry.key.to_string()).collect();
    json!({"version": root.version(), "expires": root.expires(), "roles": roles, "signed_by": signed_by})
}

/// Writes a new file; a root that exists is never replaced by another one.
fn create(path: &Path, text: &str) -> Result<(), Exit> {
    let failed = |error| Exit::coded(Code::FileIo, format!("cannot create {}: {error}", path.display()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}

/// Replaces a file in one step: a signature that somebody travelled for is not lost by a full disk.
fn replace(path: &Path, text: &str) -> Result<(), Exit> {
    let failed = |error| Exit::coded(Code::FileIo, format!("cannot write {}: {error}", path.display()));
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let beside = PathBuf::from(name);
    create(&beside, text)?;
    std::fs::rename(&beside, path).map_err(failed)
}

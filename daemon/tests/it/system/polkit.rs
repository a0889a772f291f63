//! Row D4 with polkit: the real one with rules of a device, and one that is slow, wrong, torn away or asked too much.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use zbus::OwnedVariant;

use super::callers::{ACTS, MANAGER, Stage, is_denied};
use super::{NOBODY, Running, said, tree, wait_for};

/// Users of every Debian system that are in no group but their own: `games` and `daemon`.
const GAMES: &str = "5";
const DAEMON: &str = "1";

const RULES: &str = r#"
polkit.addRule(function(action, subject) {
    var allowed = { nobody: ["check", "install"], games: ["commit", "reboot"] }[subject.user] || [];
    if (allowed.indexOf(action.id.replace("org.otad1.", "")) >= 0) { return polkit.Result.YES; }
});
"#;

/// D4: the real polkit, our actions, and a device's rules: each user may what the rules say, act by act.
#[test]
fn d4_polkit_decides_act_by_act() {
    let mut stage = Stage::start();
    let _polkit = real_polkit(&stage);
    let users = [
        ("0", &["check", "install", "commit", "reboot"][..]),
        (DAEMON, &[]),
        (NOBODY, &["check", "install"]),
    ];
    for (user, allowed) in users.into_iter().chain([(GAMES, &["commit", "reboot"][..])]) {
        for (act, action) in ACTS {
            let may = allowed.contains(&action);
            // What is allowed would happen.
            if act[0] == "Reboot" && may {
                continue;
            }
            let answer = stage.call(user, act);
            assert_eq!(is_denied(&answer, action), !may, "user {user}, {act:?}: {answer}");
            assert!(!answer.contains("polkit cannot be asked"), "{answer}");
        }
    }
    // An install that ends in a reboot needs the permission for both.
    let both = ["Install", "sa{sv}", "http://127.0.0.1:9/x.otab", "1", "reboot", "b", "true"];
    let answer = stage.call(NOBODY, &both);
    assert!(is_denied(&answer, "reboot"), "{answer}");
    // Nothing is allowed by default: the actions ask for an administrator, and a downgrade cannot even be asked for.
    let text = fs::read_to_string(tree().join("usr/share/polkit-1/actions/org.otad1.policy")).unwrap();
    assert_eq!(text.matches("<allow_").count(), 15);
    let (admin, keep, no) = (">auth_admin<", ">auth_admin_keep<", ">no<");
    assert_eq!([admin, keep, no].map(|word| text.matches(word).count()), [10, 2, 3]);

    let answer = stage.call(GAMES, &["Reboot"]);
    assert!(!is_denied(&answer, "reboot"), "{answer}");
    wait_for("the model machine to go down", Duration::from_secs(10), || {
        stage.otad.0.try_wait().unwrap().is_some_and(|status| status.success())
    });
}

/// Debian's polkitd, which believes the private bus to be the system's, with our actions and the rules above in place of the machine's.
fn real_polkit(stage: &Stage) -> Running {
    let [actions, rules] = ["actions", "rules"].map(|name| {
        let dir = stage.dir.path().join(name);
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        dir
    });
    fs::copy(tree().join("usr/share/polkit-1/actions/org.otad1.policy"), actions.join("org.otad1.policy"))
        .unwrap();
    fs::write(rules.join("50-otad.rules"), RULES).unwrap();
    let script = "mkdir -p /usr/share/polkit-1/actions && mount --bind \"$1\" /usr/share/polkit-1/actions \
                  && mount --bind \"$2\" /etc/polkit-1/rules.d && exec /usr/lib/polkit-1/polkitd --no-debug";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "polkit"])
        .args([actions, rules]);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", &stage.address).stdin(Stdio::null()).stdout(Stdio::null());
    let log = stage.dir.path().join("polkit.log");
    let mut polkit = Running(command.stderr(fs::File::create(&log).unwrap()).spawn().unwrap());
    let owner = [
        "call",
        "org.freedesktop.DBus",
        "/org/freedesktop/DBus",
        "org.freedesktop.DBus",
        "GetNameOwner",
        "s",
    ];
    wait_for("polkitd (Debian's package polkitd)", Duration::from_secs(20), || {
        assert_eq!(polkit.0.try_wait().unwrap(), None, "{}", fs::read_to_string(&log).unwrap());
        stage.busctl("0", &[&owner[..], &["org.freedesktop.PolicyKit1"]].concat()).status.success()
    });
    polkit
}

/// How the authority of a test answers.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Yes,
    No,
    Challenge,
    Error,
    Never,
}

/// One question: the kind of its subject, what names the subject, action and flags.
type Question = (String, Vec<String>, String, u32);

#[derive(Clone)]
struct Authority {
    mood: Arc<Mutex<Mood>>,
    asked: Arc<Mutex<Vec<Question>>>,
    /// What cancels each question that was asked and not withdrawn.
    open: Arc<Mutex<HashSet<String>>>,
    withdrawn: Arc<Mutex<usize>>,
}

#[zbus::interface(name = "org.freedesktop.PolicyKit1.Authority")]
impl Authority {
    async fn check_authorization(
        &self,
        subject: (String, HashMap<String, OwnedVariant>),
        action: String,
        _details: HashMap<String, String>,
        flags: u32,
        cancellation: String,
    ) -> zbus::fdo::Result<((bool, bool, HashMap<String, String>),)> {
        let (kind, names) = subject;
        let names =
            names.into_iter().map(|(key, value)| format!("{key}={}", <&str>::try_from(&value).unwrap()));
        self.asked.lock().unwrap().push((kind, names.collect(), action, flags));
        let unique = self.open.lock().unwrap().insert(cancellation);
        assert!(unique, "polkit refuses a second question of one number");
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Error => return Err(zbus::fdo::Error::Failed("out of order".to_owned())),
            Mood::Never => std::future::pending().await,
            Mood::Yes | Mood::No | Mood::Challenge => {}
        }
        Ok(((mood == Mood::Yes, mood == Mood::Challenge, HashMap::new()),))
    }

    fn cancel_check_authorization(&self, cancellation: String) {
        assert!(self.open.lock().unwrap().remove(&cancellation), "{cancellation} was not asked");
        *self.withdrawn.lock().unwrap() += 1;
    }
}

/// An authority on the bus of a stage for as long as it lives.
struct Fake {
    authority: Authority,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    fn start(stage: &Stage) -> Fake {
        let authority = Authority {
            mood: Arc::new(Mutex::new(Mood::Yes)),
            asked: Arc::default(),
            open: Arc::default(),
            withdrawn: Arc::default(),
        };
        let (served, address) = (authority.clone(), stage.address.clone());
        let ((ready, is_ready), (stop, stopped)) = (mpsc::channel(), oneshot::channel());
        let serve = async move {
            let builder = zbus::connection::Builder::address(address.as_str());
            let builder = builder.serve_at("/org/freedesktop/PolicyKit1/Authority", served);
            let connection = builder.name("org.freedesktop.PolicyKit1").build().await.unwrap();
            ready.send(()).unwrap();
            // Whether it is told to stop or its owner is gone makes no difference.
            let _ = stopped.await;
            connection.close().await.unwrap();
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let thread = std::thread::spawn(move || runtime.block_on(serve));
        is_ready.recv().unwrap();
        Fake { authority, stop: Some(stop), thread: Some(thread) }
    }

    fn mood(&self, mood: Mood) {
        *self.authority.mood.lock().unwrap() = mood;
    }

    fn asked(&self) -> Vec<Question> {
        std::mem::take(&mut self.authority.asked.lock().unwrap())
    }

    /// Goes away in the middle of whatever is asked.
    fn vanish(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// D4: the question names the caller by its bus name alone, and whatever is not a yes is a no.
#[test]
fn d4_only_a_clear_yes_is_one() {
    let stage = Stage::start();
    let fake = Fake::start(&stage);
    let answer = stage.call(NOBODY, &["Commit"]);
    assert!(answer.contains("nothing to commit"), "{answer}");
    let (kind, names, action, flags) = fake.asked().pop().unwrap();
    assert_eq!((kind.as_str(), action.as_str(), flags), ("system-bus-name", "org.otad1.commit", 0));
    assert!(names.len() == 1 && names[0].starts_with("name=:"), "{names:?}");

    // A dialog is for callers who said that they can wait for one, and never for a downgrade.
    let mut patient = stage.busctl_command(NOBODY);
    let install = ["Install", "sa{sv}", "http://127.0.0.1:9/x.otab", "0"];
    patient.arg("--allow-interactive-authorization=yes").args(MANAGER).args(install).output().unwrap();
    let asked: Vec<_> = fake.asked().into_iter().map(|(_, _, action, flags)| (action, flags)).collect();
    assert_eq!(asked, [("org.otad1.install".to_owned(), 1), ("org.otad1.downgrade".to_owned(), 0)]);
    // Root is asked for nothing.
    stage.call("0", &install);
    assert_eq!(fake.asked(), []);

    for (mood, words) in [
        (Mood::No, "polkit does not allow it"),
        (Mood::Challenge, "wants a password"),
        (Mood::Error, "out of order"),
    ] {
        fake.mood(mood);
        let answer = stage.call(NOBODY, &["Commit"]);
        assert!(is_denied(&answer, "commit") && answer.contains(words), "{answer}");
    }
}

/// D4, D5: an authority that never answers holds up its askers for seconds and nobody else, and not more of them than a few.
#[test]
fn d4_a_silent_authority_is_no_yes() {
    let stage = Stage::start();
    let mut fake = Fake::start(&stage);
    fake.mood(Mood::Never);
    let started = Instant::now();
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let mut command = stage.busctl_command(NOBODY);
            command.arg("--allow-interactive-authorization=no").args(MANAGER).arg("Commit");
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    wait_for("as many questions as otad asks at a time", Duration::from_secs(20), || {
        fake.authority.asked.lock().unwrap().len() >= 4
    });
    let answer = stage.call("0", &["Commit"]);
    assert!(answer.contains("nothing to commit"), "{answer}");
    let answers: Vec<_> = calls.into_iter().map(|call| said(&call.wait_with_output().unwrap())).collect();
    assert!(started.elapsed() >= Duration::from_secs(5), "{:?}", started.elapsed());
    let count = |words: &str| answers.iter().filter(|answer| answer.contains(words)).count();
    assert!(answers.iter().all(|answer| is_denied(answer, "commit")), "{answers:?}");
    let (silent, many) = (count("did not answer within 5 s"), count("too many questions"));
    assert!(
        silent >= 4 && many > 0 && silent + many == 20,
        "{silent} unanswered, {many} not asked: {answers:?}"
    );

    // No dialog stays behind whose answer nobody waits for.
    wait_for("each of them to be withdrawn", Duration::from_secs(5), || {
        *fake.authority.withdrawn.lock().unwrap() == silent
    });

    // The same when it goes away over a question.
    fake.asked();
    let mut command = stage.busctl_command(NOBODY);
    command.arg("--allow-interactive-authorization=no").args(MANAGER).arg("Commit");
    let call = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the question", Duration::from_secs(10), || !fake.authority.asked.lock().unwrap().is_empty());
    fake.vanish();
    let answer = said(&call.wait_with_output().unwrap());
    assert!(is_denied(&answer, "commit") && answer.contains("polkit cannot be asked"), "{answer}");
}

//! U-Boot's own opinion of the environment on a card.
//!
//! The board never waits at U-Boot's prompt (`bootdelay` 0), but a key that is there when it looks still stops it. So the
//! card is put into a machine without a disk, a key is pressed as soon as U-Boot shows its banner, and `printenv` is typed.
//! The card keeps nothing of it: with a trial under way, U-Boot has counted and saved by then.

use std::collections::BTreeMap;
use std::time::Duration;

use bootenv::Environment;

use super::boots::BANNER;
use super::card::Card;
use super::error::Error;
use super::machine::{Drive, Machine};

/// U-Boot is at its prompt long before.
const PATIENCE: Duration = Duration::from_secs(60);
const PROMPT: &str = "=> ";
/// The last line of `printenv`.
const SIZE: &str = "Environment size: ";

/// What U-Boot sets in memory at every start, so that `printenv` has it and the card need not: where its console and its
/// device tree are, and the count of this very start.
const SET_AT_START: [&str; 6] = ["bootcount", "ethaddr", "fdtcontroladdr", "stderr", "stdin", "stdout"];

/// Asks U-Boot for every variable of a card.
pub fn printenv(board: &Machine, card: &Card) -> Result<BTreeMap<String, String>, Error> {
    let machine = Machine {
        disk: None,
        card: Some(Drive::forgetting(card.path())),
        server_port: None,
        init: None,
        ..board.clone()
    };
    let mut power = machine.power_on()?;
    power.console.wait_for(&[BANNER], PATIENCE)?;
    power.console.type_text(" ")?;
    power.console.wait_for_prompt(PROMPT, PATIENCE)?;
    power.console.type_text("printenv\n")?;
    let begin = power.console.transcript().len();
    power.console.wait_for(&[SIZE], PATIENCE)?;
    let lines = power.console.transcript();
    power.cut();
    // The first line may be the prompt with what was typed; behind the last one the next prompt may have begun.
    let lines = lines.get(begin..).unwrap_or_default().iter().map(|(_, line)| line.as_str());
    let said =
        lines.take_while(|line| !line.starts_with(SIZE)).filter(|line| !line.starts_with(PROMPT.trim_end()));
    let pairs = said.filter_map(|line| line.split_once('='));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// Compares what is stored with what U-Boot printed: `None` if it is the same, else the first difference.
pub fn difference(stored: &Environment, printed: &BTreeMap<String, String>) -> Option<String> {
    let stored: BTreeMap<String, String> = stored
        .iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .map(|(name, value)| [name, value].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).into())
        .collect();
    let names = stored.keys().chain(printed.keys());
    let mut names: Vec<&String> = names.filter(|name| !SET_AT_START.contains(&name.as_str())).collect();
    names.sort();
    let wrong = names.into_iter().find(|name| stored.get(*name) != printed.get(*name))?;
    Some(format!("{wrong} is {:?} on the card and {:?} in U-Boot", stored.get(wrong), printed.get(wrong)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bootenv::Environment;

    use super::difference;

    #[test]
    fn only_what_u_boot_sets_itself_may_differ() {
        let stored = Environment::parse(b"bootcount=0\0otad_slot=a\0\0");
        let print = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!(
            difference(&stored, &print(&[("bootcount", "1"), ("otad_slot", "a"), ("stdin", "x")])),
            None
        );
        for wrong in [print(&[("otad_slot", "b")]), print(&[]), print(&[("otad_slot", "a"), ("extra", "1")])]
        {
            assert!(difference(&stored, &wrong).is_some(), "{wrong:?}");
        }
    }
}

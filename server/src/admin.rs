//! `otaserver admin`: tokens of operators and devices, and webhooks, by whoever may write the database. Works while a server runs.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::Limits;
use crate::names::{check_name, check_operator};
use crate::role::Role;
use crate::secret;
use crate::store::{Addition, Location, Store};
use crate::webhooks::{Event, Target};

/// Makes, lists and revokes tokens.
///
/// A token is shown once; the database keeps only its hash. As long as no operator ever had a token and the server runs without a
/// token file, operators are whoever connects from the server's own machine; the first token ends that for good.
#[derive(Debug, Parser)]
#[command(name = "otaserver admin", bin_name = "otaserver admin", version)]
pub struct AdminArgs {
    /// The data directory of the server
    #[arg(long, value_name = "DIR", required_unless_present = "database")]
    data: Option<PathBuf>,
    /// The PostgreSQL database of the server, if it has one
    #[arg(long, value_name = "URL")]
    database: Option<Location>,
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Gives a new operator a token and prints it
    AddToken {
        /// The name that the audit log shows
        name: String,
        /// What the token opens
        #[arg(long, value_enum)]
        role: Role,
    },
    /// Lists operators who have a token
    Tokens,
    /// Takes an operator's token back
    RevokeToken {
        /// The operator
        name: String,
    },
    /// Gives a device a token and prints it; from then on nothing is believed of it without
    AddDeviceToken {
        /// The device
        name: String,
    },
    /// Adds a webhook and prints the secret that signs what is sent to it
    AddWebhook {
        /// Its name
        name: String,
        /// Where it leads: https://…, or http:// to this machine
        url: String,
        /// What it is told of; may be given several times
        #[arg(long = "event", value_enum, required = true)]
        events: Vec<Event>,
    },
    /// Lists webhooks with what is still to be delivered
    Webhooks,
    /// Removes a webhook
    RemoveWebhook {
        /// The webhook
        name: String,
    },
    /// Takes a device's token back
    RevokeDeviceToken {
        /// The device
        name: String,
    },
}

/// Why nothing came of it.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Does it, and returns what is to be printed.
pub async fn run(args: &AdminArgs) -> Result<String, Failure> {
    let data = args.data.clone().unwrap_or_default();
    let location = Location::of(args.database.as_ref(), &data, Limits::default().max_database_bytes);
    if let Location::File(path, _) = &location
        && !path.exists()
    {
        let what = format!("{} does not exist: start otaserver once, or correct --data", path.display());
        return Err(what.into());
    }
    let store = Store::at(&location).await?;
    let result = act(&store, &args.act).await;
    store.close().await;
    result
}

async fn act(store: &Store, act: &Act) -> Result<String, Failure> {
    let (name, action) = match act {
        Act::Tokens => {
            let operators = store.operators().await?;
            let lines =
                operators.iter().map(|operator| format!("{}\t{}\n", operator.name, operator.role.as_str()));
            return Ok(lines.collect());
        }
        Act::Webhooks => {
            let webhooks = store.webhooks().await?;
            let lines = webhooks.iter().map(|hook| {
                let events: Vec<_> = hook.events.iter().map(|event| event.as_str()).collect();
                format!("{}\t{}\t{}\t{} pending\n", hook.name, hook.url, events.join(","), hook.pending)
            });
            return Ok(lines.collect());
        }
        Act::AddWebhook { name, .. } => (name, "admin add-webhook"),
        Act::RemoveWebhook { name } => (name, "admin remove-webhook"),
        Act::AddToken { name, .. } => (name, "admin add-token"),
        Act::RevokeToken { name } => (name, "admin revoke-token"),
        Act::AddDeviceToken { name } => (name, "admin add-device-token"),
        Act::RevokeDeviceToken { name } => (name, "admin revoke-device-token"),
    };
    match act {
        Act::AddToken { .. } => check_operator("name", name)?,
        _ => check_name("name", name)?,
    }
    let id = store.audit("otaserver admin", action, name).await?;
    let result = change(store, act).await;
    store.audit_done(id, if result.is_ok() { 200 } else { 409 }, None).await?;
    result
}

async fn change(store: &Store, act: &Act) -> Result<String, Failure> {
    match act {
        Act::AddToken { name, role } => {
            let token = secret::token()?;
            if !store.add_operator(name, *role, &token).await? {
                return Err(format!("{name} has a token: revoke it first").into());
            }
            Ok(format!("{token}\n"))
        }
        Act::AddDeviceToken { name } => {
            let token = secret::token()?;
            store.set_device_token(name, &token).await?;
            Ok(format!("{token}\n"))
        }
        Act::RevokeToken { name } => revoked(store.remove_operator(name).await?, name),
        Act::RevokeDeviceToken { name } => revoked(store.remove_device_token(name).await?, name),
        Act::AddWebhook { name, url, events } => add_webhook(store, name, url, events).await,
        Act::RemoveWebhook { name } => {
            let missing = || format!("there is no webhook {name}").into();
            if store.remove_webhook(name).await? { Ok(String::new()) } else { Err(missing()) }
        }
        Act::Tokens | Act::Webhooks => Ok(String::new()),
    }
}

/// Whether plain HTTP may lead beyond this machine is for the server to say: it was not started with this command line.
async fn add_webhook(store: &Store, name: &str, url: &str, events: &[Event]) -> Result<String, Failure> {
    Target::parse(url)?;
    let secret = secret::token()?;
    match store.add_webhook(name, url, events, &secret).await? {
        Addition::Added => Ok(format!("{secret}\n")),
        Addition::Taken => Err(format!("there is a webhook {name}: remove it first").into()),
        Addition::Many => Err("there are as many webhooks as a server has: remove one first".into()),
    }
}

fn revoked(done: bool, name: &str) -> Result<String, Failure> {
    if done { Ok(String::new()) } else { Err(format!("{name} has no token").into()) }
}

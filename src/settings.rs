//! The settings of a running role as they may be shown: every one by its variable, none with a secret in it.

use clap::{ArgMatches, Command, CommandFactory};
use insightforge_api::system::Setting;
use insightforge_schema::address::shown_url;

use crate::Cli;

/// What stands for a value that is not shown.
const HIDDEN: &str = "…";

/// The settings that this process was started with.
pub(crate) fn of_this_process() -> Vec<Setting> {
    let cli = Cli::command();
    let matches = cli.clone().get_matches();
    let Some((name, matches)) = matches.subcommand() else { return Vec::new() };
    cli.find_subcommand(name).map(|command| read(command, matches)).unwrap_or_default()
}

fn read(command: &Command, matches: &ArgMatches) -> Vec<Setting> {
    let settings = command.get_arguments().filter_map(|argument| {
        let name = argument.get_env()?.to_str()?.to_owned();
        let id = argument.get_id().as_str();
        let given = matches.value_source(id).is_some_and(|source| source != clap::parser::ValueSource::DefaultValue);
        let values: Option<Vec<String>> =
            matches.get_raw(id).map(|values| values.map(|value| value.to_string_lossy().into_owned()).collect());
        let value = values.map(|values| values.join(",")).filter(|value| !value.is_empty());
        let hidden = argument.is_hide_env_values_set() && value.is_some();
        let value = value.map(|value| if hidden { HIDDEN.to_owned() } else { shown(&value) });
        Some(Setting { name, value, given, hidden })
    });
    let mut settings: Vec<Setting> = settings.collect();
    settings.sort_by(|a, b| a.name.cmp(&b.name));
    settings
}

/// An address without credentials, whatever setting it stands in.
fn shown(value: &str) -> String {
    let parts = value.split(',').map(|part| if part.contains("://") { shown_url(part) } else { part.to_owned() });
    parts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_shown_with_their_source_and_without_secrets() {
        let cli = Cli::command();
        let arguments = [
            "insightforge",
            "api",
            "--redis-url=redis://:hush@10.0.0.1:6379",
            "--database-url=mysql://u:hush@db/if",
            "--encryption-key=hush",
            "--archive=s3://key:hush@bucket/a",
            "--max-backlog=7",
        ];
        let matches = cli.clone().get_matches_from(arguments);
        let (name, matches) = matches.subcommand().unwrap();
        let settings = read(cli.find_subcommand(name).unwrap(), matches);
        assert!(!format!("{settings:?}").contains("hush"), "{settings:?}");
        let setting = |name: &str| settings.iter().find(|setting| setting.name == name).unwrap().clone();
        assert_eq!(setting("DATABASE_URL").value.as_deref(), Some(HIDDEN));
        assert!(setting("DATABASE_URL").hidden && setting("INSIGHTFORGE_ENCRYPTION_KEY").hidden);
        let backlog = setting("INSIGHTFORGE_MAX_BACKLOG");
        assert_eq!((backlog.value.as_deref(), backlog.given, backlog.hidden), (Some("7"), true, false));
        let waits = setting("INSIGHTFORGE_WAIT_LIMIT_S");
        assert_eq!((waits.value.as_deref(), waits.hidden), (Some("30"), false));
    }
}

//! A rebuild cannot announce: none of the modules that it can reach knows the outbox or the sender.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Modules that write or send announcements.
const ANNOUNCING: [&str; 4] = ["announce", "outbox", "project", "webhook"];
const TABLES: [&str; 2] = ["webhook_outbox", "webhook_attempts"];

/// The modules of this crate that `module` names, and those that they name, with their code.
fn reached_from(module: &str) -> (BTreeSet<String>, String) {
    let (mut reached, mut code, mut next) = (BTreeSet::new(), String::new(), vec![module.to_owned()]);
    while let Some(module) = next.pop() {
        if reached.insert(module.clone()) {
            let text = code_of(&module);
            next.extend(named_in(&text));
            code.push_str(&text);
        }
    }
    (reached, code)
}

/// All code of a module and its submodules, without comments.
fn code_of(module: &str) -> String {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files: Vec<PathBuf> = vec![src.join(format!("{module}.rs"))];
    if let Ok(folder) = std::fs::read_dir(src.join(module)) {
        files.extend(folder.map(|file| file.unwrap().path()));
    }
    files.retain(|file| file.is_file());
    assert!(!files.is_empty(), "the crate has no module {module}");
    let text = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect::<Vec<_>>().join("\n");
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// What follows `crate::`, also in braces.
fn named_in(code: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let paths = code.split("crate::").skip(1).zip(code.split("crate::"));
    // Not the end of a longer name, as in `insightforge_schema::` spelled `…crate::`.
    let own = paths.filter(|(_, before)| !before.ends_with(|c: char| c.is_alphanumeric() || c == '_'));
    own.flat_map(|(path, _)| match path.strip_prefix('{') {
        Some(group) => group.split('}').next().unwrap_or("").split(',').map(|path| word(path.trim())).collect(),
        None => vec![word(path)],
    })
    .filter(|name| name.chars().next().is_some_and(char::is_lowercase))
    .collect()
}

#[test]
fn neither_a_rebuild_nor_a_verification_reaches_the_outbox_or_the_sender() {
    for module in ["rebuild", "verify"] {
        let (reached, code) = reached_from(module);
        assert!(reached.contains("fold") && reached.contains("checkpoint"), "{reached:?}");
        for announcing in ANNOUNCING {
            assert!(!reached.contains(announcing), "{module} reaches {announcing}: {reached:?}");
        }
        for table in TABLES {
            assert!(!code.contains(table), "{module} names {table}");
        }
        for root in ["crate::Deps", "crate::Config", "crate::run"] {
            assert!(!code.contains(root), "{module} names {root}");
        }
    }
}

#[test]
fn the_projector_itself_does_reach_them() {
    let (reached, code) = reached_from("project");
    assert!(ANNOUNCING.iter().all(|announcing| reached.contains(*announcing)), "{reached:?}");
    assert!(code.contains(TABLES[0]));
}

//! Commands, the fold and the resolution: as tables, and as properties over any sequence of commands and events.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use insightforge_schema::registry::event::{
    CanarySet, CandidateSet, Promoted, RefusalEnded, Refused, Registered, Retired, RolledBack, ShadowSet, Unknown,
    Unloaded,
};
use insightforge_schema::registry::{
    Change, Command, Entry, Meta, Reason, Refusal, Routes, Undoes, Unresolved, WHOLE, bucket, decide, staffed,
    sticky_key, user_key,
};
use proptest::prelude::*;

const TYPE: &str = "acting";

fn registered(version: &str, digest: &str) -> Registered {
    Registered {
        task_type: TYPE.to_owned(),
        version: version.to_owned(),
        digest: digest.to_owned(),
        backend: "linear".to_owned(),
        device: "cpu".to_owned(),
        folder: format!("/models/{version}"),
        worker: "w".to_owned(),
    }
}

fn fold(routes: &mut Routes, change: Change) {
    let meta = Meta { at_us: 1, actor: "test".to_owned(), reason: None };
    routes.apply(&Entry { n: routes.position + 1, meta, change });
}

/// Decides and folds; says how many events it came to.
fn run(routes: &mut Routes, command: Command) -> Result<usize, Refusal> {
    let changes = decide(routes, &command)?;
    let count = changes.len();
    changes.into_iter().for_each(|change| fold(routes, change));
    Ok(count)
}

fn with_versions(versions: &[&str]) -> Routes {
    let mut routes = Routes::default();
    for version in versions {
        run(&mut routes, Command::Register(registered(version, version))).unwrap();
    }
    routes
}

fn promote(version: &str) -> Command {
    Command::Promote { task_type: TYPE.to_owned(), version: version.to_owned() }
}

fn canary(version: &str, share: u16) -> Command {
    Command::Canary { task_type: TYPE.to_owned(), version: version.to_owned(), share }
}

fn shadow(versions: &[&str]) -> Command {
    Command::Shadow { task_type: TYPE.to_owned(), versions: versions.iter().map(|it| (*it).to_owned()).collect() }
}

fn rollback() -> Command {
    undo(Undoes::Newest)
}

fn undo(undoes: Undoes) -> Command {
    Command::Rollback { task_type: TYPE.to_owned(), undoes }
}

fn unload(version: &str) -> Command {
    Command::Unload(Unloaded {
        task_type: TYPE.to_owned(),
        version: version.to_owned(),
        digest: version.to_owned(),
        worker: "w".to_owned(),
    })
}

fn retire(version: &str) -> Command {
    Command::Retire { task_type: TYPE.to_owned(), version: version.to_owned() }
}

fn candidate(version: Option<&str>) -> Command {
    Command::Candidate { task_type: TYPE.to_owned(), version: version.map(str::to_owned) }
}

fn resolved(routes: &Routes, asked: &str, key: &str) -> (String, Reason) {
    let resolved = routes.resolve(TYPE, asked, key).unwrap();
    (resolved.version, resolved.reason)
}

#[test]
fn the_first_version_becomes_stable_and_no_later_one_does_by_itself() {
    let routes = with_versions(&["v2", "v1", "v3"]);
    assert_eq!(resolved(&routes, "", "k"), ("v2".to_owned(), Reason::Stable));
    assert_eq!(resolved(&routes, "stable", "k"), ("v2".to_owned(), Reason::Stable));
    assert_eq!(resolved(&routes, "latest", "k"), ("v3".to_owned(), Reason::Latest));
    assert_eq!(resolved(&routes, "v1", "k"), ("v1".to_owned(), Reason::Exact));
}

#[test]
fn many_analyzers_that_find_the_same_package_make_one_event() {
    let mut routes = with_versions(&["v1"]);
    assert_eq!(run(&mut routes, Command::Register(registered("v1", "v1"))), Ok(0));
    assert_eq!(run(&mut routes, Command::Register(registered("v1", "other"))), Ok(1), "another package");
    assert_eq!(run(&mut routes, Command::Register(registered("v1", "v1"))), Ok(0), "no ping-pong while they differ");
    let refused = Refused {
        task_type: None,
        version: None,
        folder: "/models/v2".to_owned(),
        reason: "r".to_owned(),
        worker: "w".to_owned(),
    };
    assert_eq!(run(&mut routes, Command::Refuse(refused.clone())), Ok(1));
    assert_eq!(run(&mut routes, Command::Refuse(Refused { worker: "x".to_owned(), ..refused.clone() })), Ok(0));
    assert_eq!(run(&mut routes, Command::Refuse(Refused { reason: "s".to_owned(), ..refused })), Ok(1));
    assert_eq!(run(&mut routes, Command::Register(registered("v2", "v2"))), Ok(1));
    assert!(routes.refused.is_empty(), "served now");
    let unloaded = Unloaded {
        task_type: TYPE.to_owned(),
        version: "v2".to_owned(),
        digest: "v2".to_owned(),
        worker: "w".to_owned(),
    };
    assert_eq!(run(&mut routes, Command::Unload(unloaded.clone())), Ok(1));
    assert_eq!(run(&mut routes, Command::Unload(unloaded)), Ok(0));
    assert_eq!(run(&mut routes, promote("v2")).unwrap_err().code(), "model_version_gone");
    assert_eq!(run(&mut routes, Command::Register(registered("v2", "v2"))), Ok(1), "back again");
    assert_eq!(run(&mut routes, promote("v2")), Ok(1));
}

#[test]
fn a_canary_grows_is_promoted_and_rolled_back() {
    let mut routes = with_versions(&["v1", "v2"]);
    assert_eq!(run(&mut routes, canary("v2", 500)), Ok(1));
    assert_eq!(run(&mut routes, canary("v2", 500)), Ok(0), "so already");
    assert_eq!(routes.targets(TYPE, "stable"), ["v1", "v2"]);
    assert_eq!(run(&mut routes, promote("v2")), Ok(1));
    assert_eq!(routes.tasks[TYPE].canary, None);
    assert_eq!(routes.targets(TYPE, ""), ["v2"]);
    assert_eq!(run(&mut routes, rollback()), Ok(1));
    assert_eq!(routes.targets(TYPE, ""), ["v1"]);
    assert_eq!(run(&mut routes, rollback()).unwrap_err().code(), "nothing_earlier");
}

#[test]
fn a_rollback_ends_the_canary_first_and_then_goes_back_step_by_step() {
    let mut routes = with_versions(&["v1", "v2", "v3", "v4"]);
    for command in [promote("v2"), promote("v3"), canary("v4", WHOLE)] {
        run(&mut routes, command).unwrap();
    }
    assert_eq!(routes.targets(TYPE, ""), ["v4"]);
    let mut answers = Vec::new();
    while run(&mut routes, rollback()).is_ok() {
        answers.push(resolved(&routes, "", "k").0);
    }
    assert_eq!(answers, ["v3", "v2", "v1"]);
}

#[test]
fn a_rollback_that_is_repeated_takes_back_what_the_first_one_meant_and_no_more() {
    let mut routes = with_versions(&["v1", "v2", "v3", "v4"]);
    for command in [promote("v2"), promote("v3"), canary("v4", 100)] {
        run(&mut routes, command).unwrap();
    }
    // Which step is meant is settled once: a promotion in between makes no rollback of that promotion out of it.
    let settled = rollback().settled(&routes);
    assert_eq!(settled, undo(Undoes::Canary("v4".to_owned())));
    let mut promoted = routes.clone();
    run(&mut promoted, promote("v4")).unwrap();
    assert_eq!(run(&mut promoted, settled.clone()), Ok(0));
    assert_eq!(run(&mut routes, settled.clone()), Ok(1));
    assert_eq!(run(&mut routes, settled), Ok(0));

    // Who names the version may ask as often as the network makes them.
    let named = |version: &str| undo(Undoes::Version(version.to_owned()));
    run(&mut routes, canary("v4", 100)).unwrap();
    assert_eq!(run(&mut routes, named("v3")), Ok(1), "the promotion, although a canary runs");
    assert_eq!(run(&mut routes, named("v3")), Ok(0));
    assert_eq!(routes.targets(TYPE, ""), ["v2", "v4"]);
    assert_eq!(run(&mut routes, named("v4")), Ok(1));
    assert_eq!(run(&mut routes, named("v4")), Ok(0));
    assert_eq!(routes.targets(TYPE, ""), ["v2"]);
    assert_eq!(rollback().settled(&routes), undo(Undoes::Promotion("v2".to_owned())));
    assert_eq!(run(&mut routes, named("v9")).unwrap_err().code(), "unknown_model_version");
}

#[test]
fn who_asks_for_the_candidate_is_answered_by_it_after_its_promotion_too() {
    let mut routes = with_versions(&["v1", "v2"]);
    for command in [candidate(Some("v2")), promote("v2")] {
        run(&mut routes, command).unwrap();
    }
    assert_eq!(resolved(&routes, "candidate", "k"), ("v2".to_owned(), Reason::Candidate));
    run(&mut routes, rollback()).unwrap();
    assert_eq!(resolved(&routes, "candidate", "k"), ("v2".to_owned(), Reason::Candidate));
}

#[test]
fn the_latest_version_is_one_whose_package_is_there_as_long_as_there_is_any() {
    let mut routes = with_versions(&["v1", "v2", "v3"]);
    for (command, latest) in [
        (unload("v3"), "v2"),
        (retire("v2"), "v1"),
        (unload("v1"), "v3"),
        (Command::Register(registered("v1", "v1")), "v1"),
    ] {
        run(&mut routes, command).unwrap();
        assert_eq!(resolved(&routes, "latest", "k").0, latest);
    }
}

#[test]
fn a_change_that_leaves_an_alias_to_no_analyzer_is_told_from_one_that_makes_nothing_worse() {
    let worker = |versions: &[&str]| insightforge_schema::catalogue::Worker {
        name: "w".to_owned(),
        lanes: versions.iter().map(|version| format!("{TYPE}:{version}")).collect(),
        in_flight: 0,
        started_ms: 0,
        last_read_ms: 0,
        seen_ms: 0,
        infer_addr: None,
        limits: None,
    };
    let with_candidate = [candidate(Some("v1"))];
    for (before, command, workers, left) in [
        (&[][..], canary("v2", 100), vec![worker(&["v1"]), worker(&["v2"])], Some("stable")),
        (&[], canary("v2", 100), vec![worker(&["v1"]), worker(&["v1", "v2"])], None),
        (&[], promote("v2"), vec![worker(&["v1"])], Some("stable")),
        (&[], promote("v2"), vec![worker(&["v1"]), worker(&["v2"])], None),
        (&[], candidate(Some("v2")), vec![worker(&["v1"])], Some("candidate")),
        (&with_candidate, candidate(Some("v2")), vec![worker(&["v1"])], Some("candidate")),
        (&with_candidate, candidate(None), vec![worker(&["v1"])], None),
        (&[], shadow(&["v2"]), vec![worker(&["v1"])], None),
        // Nobody is there at all, or nobody answered before.
        (&[], promote("v2"), vec![], None),
        (&[], promote("v2"), vec![worker(&[])], None),
        (&[canary("v2", 100)], rollback(), vec![worker(&["v2"])], None),
        (&[canary("v2", 100)], rollback(), vec![worker(&["v1", "v2"])], None),
    ] {
        let mut routes = with_versions(&["v1", "v2"]);
        before.iter().for_each(|command| assert_eq!(run(&mut routes, command.clone()), Ok(1)));
        let changes = decide(&routes, &command).unwrap();
        let alias = match staffed::check(&routes, &changes, &workers) {
            Err(Refusal::Unstaffed { alias, .. }) => Some(alias),
            other => other.map(|()| None).unwrap(),
        };
        assert_eq!(alias, left, "{command:?} after {before:?} with {workers:?}");
    }
}

#[test]
fn on_what_a_newer_release_wrote_nobody_decides_but_packages_are_still_registered() {
    let mut routes = with_versions(&["v1", "v2"]);
    fold(&mut routes, Change::Unknown(Unknown { event_type: "exploded".to_owned(), reason: "r".to_owned() }));
    for command in [promote("v2"), canary("v2", 1), candidate(None), shadow(&[]), rollback(), retire("v2")] {
        let refusal = run(&mut routes, command).unwrap_err();
        assert_eq!(refusal, Refusal::Newer { n: 3, event_type: "exploded".to_owned() });
    }
    assert_eq!(run(&mut routes, Command::Register(registered("v3", "v3"))), Ok(1));
    fold(&mut routes, Change::Promoted(Promoted { task_type: TYPE.to_owned(), version: "v3".to_owned(), from: None }));
    assert_eq!(resolved(&routes, "", "k").0, "v3", "what is understood is followed");
}

#[test]
fn a_refusal_ends_when_its_package_is_gone() {
    let mut routes = with_versions(&["v1"]);
    let folder = "/models/v2".to_owned();
    let reason = "cut off".to_owned();
    let refused = Refused { task_type: None, version: None, folder: folder.clone(), reason, worker: "w".to_owned() };
    let ended = Command::EndRefusal(RefusalEnded { task_type: None, folder, worker: "w".to_owned() });
    assert_eq!(run(&mut routes, ended.clone()), Ok(0));
    assert_eq!(run(&mut routes, Command::Refuse(refused)), Ok(1));
    assert_eq!(run(&mut routes, ended), Ok(1));
    assert!(routes.refused.is_empty());
}

#[test]
fn a_retired_version_answers_nobody_and_takes_part_in_nothing() {
    let mut routes = with_versions(&["v1", "v2", "v3"]);
    for command in [promote("v3"), canary("v2", 10), candidate(Some("v2")), shadow(&["v2"])] {
        run(&mut routes, command).unwrap();
    }
    assert_eq!(run(&mut routes, retire("v3")).unwrap_err().code(), "version_is_stable");
    assert_eq!(run(&mut routes, retire("v2")), Ok(1));
    assert_eq!(run(&mut routes, retire("v2")), Ok(0));
    let task = &routes.tasks[TYPE];
    assert_eq!((&task.canary, &task.candidate, task.shadows.len()), (&None, &None, 0));
    assert!(matches!(routes.resolve(TYPE, "v2", "k"), Err(Unresolved::Retired { .. })));
    assert!(matches!(routes.resolve(TYPE, "candidate", "k"), Err(Unresolved::Unset { .. })));
    for command in [promote("v2"), canary("v2", 10), candidate(Some("v2")), shadow(&["v2"])] {
        assert_eq!(run(&mut routes, command).unwrap_err().code(), "model_version_retired");
    }
    run(&mut routes, retire("v1")).unwrap();
    assert_eq!(run(&mut routes, rollback()).unwrap_err().code(), "nothing_earlier");
}

#[test]
fn commands_that_make_no_sense_are_refused_with_the_reason() {
    let mut routes = with_versions(&["v1", "v2", "v3"]);
    run(&mut routes, canary("v2", 100)).unwrap();
    let elsewhere = Command::Promote { task_type: "singing".to_owned(), version: "v1".to_owned() };
    for (command, code) in [
        (elsewhere, "unknown_task_type"),
        (promote("v9"), "unknown_model_version"),
        (promote("stable"), "unknown_model_version"),
        (canary("v2", WHOLE + 1), "bad_share"),
        (canary("v3", 1), "other_canary"),
        (canary("v3", 0), "other_canary"),
        (canary("v1", 1), "other_canary"),
        (shadow(&["v1"]), "version_is_stable"),
        (shadow(&["v2", "v9"]), "unknown_model_version"),
        (shadow(&["a", "b", "c", "d", "e"]), "too_many_shadows"),
        (retire("v1"), "version_is_stable"),
        (retire("v9"), "unknown_model_version"),
        (candidate(Some("v9")), "unknown_model_version"),
    ] {
        let refusal = run(&mut routes, command.clone()).expect_err(code);
        assert_eq!(refusal.code(), code, "{command:?}");
        assert!(!refusal.to_string().is_empty());
    }
    run(&mut routes, canary("v2", 0)).unwrap();
    assert_eq!(run(&mut routes, canary("v1", 1)).unwrap_err().code(), "version_is_stable");
    assert_eq!(run(&mut routes, promote("v1")), Ok(0), "so already");
}

#[test]
fn what_is_not_known_resolves_to_nothing_and_says_why() {
    let routes = with_versions(&["v1"]);
    for (task_type, asked, code) in [
        ("singing", "", "unknown_task_type"),
        (TYPE, "v9", "unknown_model_version"),
        (TYPE, "any", "unknown_model_version"),
        (TYPE, "candidate", "model_alias_unset"),
    ] {
        assert_eq!(routes.resolve(task_type, asked, "k").unwrap_err().code(), code, "{task_type} {asked}");
        assert!(routes.targets(task_type, asked).is_empty());
    }
}

#[test]
fn a_key_s_place_never_changes_between_releases() {
    // Each is `int(sha256(b"<type>|<key>").hexdigest()[:16], 16) % 10000`.
    for (task_type, key, place) in GOLDEN_PLACES {
        assert_eq!(bucket(task_type, key), place, "{task_type}|{key}");
    }
}

const GOLDEN_PLACES: [(&str, &str, u16); 4] = [
    ("sentiment_analysis", "user:42", 6829),
    ("sentiment_analysis", "0190a6f0-0000-7000-8000-000000000001", 9026),
    ("named_entity_recognition", "user:42", 5514),
    ("a", "", 7988),
];

#[test]
fn one_person_has_one_key_however_the_document_came() {
    let task = insightforge_schema::id::TaskId::new();
    let own = task.to_string();
    for (user, document, key) in [
        (Some(42), r#"{"user_id":7}"#, "user:42"),
        (None, r#"{"text":"a","user_id":42}"#, "user:42"),
        (None, r#"{"user_id":"42"}"#, "user:42"),
        (None, r#"{"user_id":null}"#, &own),
        (None, r#"{"user_id":{"a":1}}"#, &own),
        (None, r#"{"text":"a"}"#, &own),
        (None, "[1]", &own),
        (None, "not json", &own),
    ] {
        assert_eq!(sticky_key(user, document, task), key, "{document}");
        // The synchronous door knows the same people; whom it does not know is anybody.
        let user = user.map(|user| user.to_string());
        assert_eq!(user_key(user.as_deref(), document).unwrap_or(own.clone()), key, "{document}");
    }
}

#[test]
fn places_are_evenly_spread() {
    let below = |share: u16| (0..20_000).filter(|key| bucket(TYPE, &key.to_string()) < share).count();
    for (share, expected) in [(100, 200), (1_000, 2_000), (5_000, 10_000)] {
        let found = below(share);
        let spread = 5 * (expected as f64).sqrt() as usize;
        assert!(found.abs_diff(expected) < spread, "{share}: {found} of 20000");
    }
}

const VERSIONS: [&str; 4] = ["v1", "v2", "v3", "stable"];

fn version() -> impl Strategy<Value = String> {
    (0..VERSIONS.len()).prop_map(|index| VERSIONS[index].to_owned())
}

fn task_type() -> impl Strategy<Value = String> {
    prop_oneof![9 => Just(TYPE.to_owned()), 1 => Just("singing".to_owned())]
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        (version(), 0..3_u8).prop_map(|(version, digest)| Command::Register(registered(&version, &digest.to_string()))),
        version().prop_map(|version| Command::Unload(Unloaded {
            task_type: TYPE.to_owned(),
            version,
            digest: "0".to_owned(),
            worker: "w".to_owned()
        })),
        (task_type(), version()).prop_map(|(task_type, version)| Command::Promote { task_type, version }),
        (task_type(), proptest::option::of(version()))
            .prop_map(|(task_type, version)| Command::Candidate { task_type, version }),
        (task_type(), version(), 0..=WHOLE + 5).prop_map(|(task_type, version, share)| Command::Canary {
            task_type,
            version,
            share
        }),
        (task_type(), proptest::collection::vec(version(), 0..5))
            .prop_map(|(task_type, versions)| Command::Shadow { task_type, versions }),
        (task_type(), prop_oneof![Just(Undoes::Newest), version().prop_map(Undoes::Version)])
            .prop_map(|(task_type, undoes)| Command::Rollback { task_type, undoes }),
        (task_type(), version()).prop_map(|(task_type, version)| Command::Retire { task_type, version }),
    ]
}

/// Events that no command of ours made: a later release's, or a stranger's.
fn change() -> impl Strategy<Value = Change> {
    let version = version;
    let task = || TYPE.to_owned();
    prop_oneof![
        version().prop_map(|version| Change::Registered(registered(&version, "d"))),
        (version(), proptest::option::of(version())).prop_map(move |(version, from)| Change::Promoted(Promoted {
            task_type: task(),
            version,
            from
        })),
        proptest::option::of(version())
            .prop_map(move |version| Change::CandidateSet(CandidateSet { task_type: task(), version })),
        (version(), any::<u16>()).prop_map(move |(version, share)| Change::CanarySet(CanarySet {
            task_type: task(),
            version,
            share
        })),
        proptest::collection::vec(version(), 0..5)
            .prop_map(move |versions| Change::ShadowSet(ShadowSet { task_type: task(), versions })),
        (version(), version()).prop_map(move |(from, to)| Change::RolledBack(RolledBack {
            task_type: task(),
            from,
            to
        })),
        version().prop_map(move |version| Change::Retired(Retired { task_type: task(), version })),
        Just(Change::Unknown(Unknown { event_type: "exploded".to_owned(), reason: "r".to_owned() })),
    ]
}

proptest! {
    #[test]
    fn whatever_commands_come_aliases_point_at_registered_versions_that_are_not_retired(
        commands in proptest::collection::vec(command(), 0..60)
    ) {
        let mut routes = Routes::default();
        for command in commands {
            let before = routes.clone();
            if run(&mut routes, command.clone()).is_err() {
                prop_assert_eq!(&before, &routes);
            }
            prop_assert_eq!(decide(&routes, &command).is_ok_and(|changes| !changes.is_empty())
                && !matches!(command, Command::Rollback { undoes: Undoes::Newest, .. }), false, "done twice is done once: {:?}", command);
        }
        for (task_type, task) in &routes.tasks {
            for asked in ["", "stable", "candidate", "latest"] {
                for target in routes.targets(task_type, asked) {
                    prop_assert!(task.version(target).is_some() && !task.retired.contains(target), "{asked}: {target}");
                }
            }
            prop_assert!(task.shadows.iter().all(|it| task.version(it).is_some() && !task.retired.contains(it)));
            prop_assert!(task.canary.as_ref().is_none_or(|it| Some(&it.version) != task.stable.as_ref()));
        }
    }

    #[test]
    fn a_resolution_is_always_one_of_the_targets_whatever_events_came(
        changes in proptest::collection::vec(change(), 0..40), asked in "stable|candidate|latest|v1|v2|v9||any", key in ".{0,9}"
    ) {
        let mut routes = Routes::default();
        changes.into_iter().for_each(|change| fold(&mut routes, change));
        let targets = routes.targets(TYPE, &asked);
        match routes.resolve(TYPE, &asked, &key) {
            Ok(resolved) => {
                prop_assert!(targets.contains(&resolved.version.as_str()), "{asked}: {resolved:?} of {targets:?}");
                prop_assert_eq!(routes.resolve(TYPE, &asked, &key).unwrap(), resolved, "the same key, the same answer");
            }
            Err(_) => prop_assert!(targets.is_empty()),
        }
    }

    #[test]
    fn a_growing_share_takes_keys_in_and_lets_none_out(key in ".{0,40}", small in 0..=WHOLE, more in 0..=WHOLE) {
        let grown = small.saturating_add(more).min(WHOLE);
        let answers = |share| {
            let mut routes = with_versions(&["v1", "v2"]);
            run(&mut routes, canary("v2", share)).unwrap();
            resolved(&routes, "", &key)
        };
        if answers(small).1 == Reason::Canary {
            prop_assert_eq!(answers(grown), ("v2".to_owned(), Reason::Canary));
        }
    }

    #[test]
    fn folding_twice_is_folding_once(changes in proptest::collection::vec(change(), 0..20)) {
        let entries: Vec<Entry> = changes.into_iter().zip(1..).map(|(change, n)| {
            Entry { n, meta: Meta { at_us: 1, actor: "test".to_owned(), reason: None }, change }
        }).collect();
        let mut once = Routes::default();
        entries.iter().for_each(|entry| once.apply(entry));
        let mut twice = once.clone();
        entries.iter().for_each(|entry| twice.apply(entry));
        prop_assert_eq!(once, twice);
    }
}

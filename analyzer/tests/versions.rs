//! Several versions of a model at once: loaded, routed, compared, replaced and dropped while tasks flow.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod stage;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use insightforge_analyzer::end::Tally;
use insightforge_analyzer::shadow::tasks_wait;
use insightforge_analyzer::{Config, Pattern};
use insightforge_inference::State;
use insightforge_schema::catalogue;
use insightforge_schema::event::{Change, Completed};
use insightforge_schema::id::TaskId;
use insightforge_schema::keys::Lane;
use insightforge_schema::registry::{Command, Undoes, bucket};
use stage::{Hand, Stage, fold};

fn promote(version: &str) -> Command {
    Command::Promote { task_type: "acting".to_owned(), version: version.to_owned() }
}

fn canary(version: &str, share: u16) -> Command {
    Command::Canary { task_type: "acting".to_owned(), version: version.to_owned(), share }
}

fn shadow(versions: &[&str]) -> Command {
    Command::Shadow { task_type: "acting".to_owned(), versions: versions.iter().map(|it| (*it).to_owned()).collect() }
}

fn rollback() -> Command {
    Command::Rollback { task_type: "acting".to_owned(), undoes: Undoes::Newest }
}

/// The `completed` events of all tasks.
async fn all_completed(stage: &Stage) -> HashMap<TaskId, Completed> {
    let events = stage.journal().await.into_iter();
    let completed = events.filter_map(|event| match event.change {
        Change::Completed(completed) => Some((event.task, completed)),
        _ => None,
    });
    completed.collect()
}

/// The `completed` event of a task.
async fn completed(stage: &Stage, task: TaskId) -> Completed {
    all_completed(stage).await.remove(&task).expect("the task completed")
}

async fn version(stage: &Stage, task: TaskId) -> String {
    completed(stage, task).await.model_version
}

/// Works until nothing waits.
async fn work_all(hand: &mut Hand) -> usize {
    let mut sum = 0;
    loop {
        let tally = hand.work().await;
        sum += tally.completed;
        if tally == Tally::default() {
            return sum;
        }
    }
}

#[tokio::test]
async fn every_answer_says_which_model_gave_it_and_why() {
    let stage = Stage::new();
    stage.put_model("acting", "v2", "");
    let mut hand = stage.worker("w1").await;
    let mut candidate = Command::Candidate { task_type: "acting".to_owned(), version: Some("v2".to_owned()) };
    stage.command(candidate.clone()).await;
    hand.follow().await;
    let asked = ["v1", "v2", "stable", "candidate", "latest"];
    let mut tasks = Vec::new();
    for asked in asked {
        tasks.push(stage.submit_as(asked, None, "ok").await);
    }
    assert_eq!(hand.work().await.completed, 5);
    let digest = |version: &str| hand.worker.store.get("acting", version).unwrap().digest().to_owned();
    for ((task, asked), (version, reason)) in tasks.iter().zip(asked).zip([
        ("v1", "exact"),
        ("v2", "exact"),
        ("v1", "stable"),
        ("v2", "candidate"),
        ("v2", "latest"),
    ]) {
        let completed = completed(&stage, *task).await;
        assert_eq!(completed.model_version, version, "{asked}");
        let route = completed.route.unwrap();
        assert_eq!((route.asked.as_str(), route.reason.as_str()), (asked, reason));
        assert_eq!((route.digest, route.registry_n), (digest(version), 3));
        assert_eq!((route.backend.as_str(), route.device.as_str()), ("actor", "stage"));
    }
    // An alias that points nowhere any more ends its tasks, with the reason.
    let Command::Candidate { version, .. } = &mut candidate else { unreachable!("it is one") };
    *version = None;
    stage.command(candidate).await;
    hand.follow().await;
    let lost = stage.submit_as("candidate", None, "ok").await;
    assert_eq!(hand.work().await, Tally { failed: 1, ..Tally::default() });
    let failed = stage.failure(lost).await;
    assert_eq!((failed.code.as_str(), failed.permanent), ("model_alias_unset", true));
}

#[tokio::test]
async fn who_waits_for_the_candidate_is_answered_by_it_when_it_is_promoted_meanwhile() {
    let stage = Stage::new();
    stage.put_model("acting", "v2", "");
    let mut hand = stage.worker("w1").await;
    stage.command(Command::Candidate { task_type: "acting".to_owned(), version: Some("v2".to_owned()) }).await;
    hand.follow().await;
    let waits = stage.submit_as("candidate", None, "ok").await;
    let taken = hand.take().await;
    stage.command(promote("v2")).await;
    hand.follow().await;
    let later = stage.submit_as("candidate", None, "ok").await;
    for batch in taken {
        insightforge_analyzer::process::process(&hand.worker, batch).await;
    }
    work_all(&mut hand).await;
    for task in [waits, later] {
        assert_eq!(version(&stage, task).await, "v2");
    }
}

#[tokio::test]
async fn a_lane_whose_model_went_while_others_are_opened_is_left_at_the_first_task_that_misses_it() {
    let stage = Stage::new();
    stage.put_model("acting", "v2", "");
    let mut hand = stage.worker("w1").await;
    let task = stage.submit_as("v2", None, "ok").await;
    stage.remove_model("acting", "v2");
    // The store has let it go, and what it found beside is not open yet: the look is not over.
    hand.worker.store.scan().await;
    assert_eq!(hand.lanes("acting"), "v1 v2 stable candidate latest");
    assert_eq!(hand.work().await, Tally { retried: 1, ..Tally::default() });
    hand.follow().await;
    assert_eq!(hand.lanes("acting"), "v1 stable candidate");
    stage.put_model("acting", "v2", "");
    hand.look().await;
    assert_eq!(hand.move_all(&stage).await, 1);
    assert_eq!(hand.work().await.completed, 1);
    assert_eq!(version(&stage, task).await, "v2");
}

#[tokio::test]
async fn a_refused_package_that_is_deleted_is_refused_no_more_even_when_who_refused_it_is_gone() {
    let stage = Stage::new();
    let broken = "instances = 0";
    let one = stage.worker("w1").await;
    for version in ["v2", "v3"] {
        stage.put_model("acting", version, broken);
    }
    one.look().await;
    stage.remove_model("acting", "v2");
    one.look().await;
    let refused = |routes: insightforge_schema::registry::Routes| routes.refused.into_keys().collect::<Vec<_>>();
    assert_eq!(refused(stage.routes_at(100).await), ["acting/v3"]);
    // Who refused it lives no more, and nobody has it.
    catalogue::sign_off(&stage.link, &stage.keys, "w1").await.unwrap();
    stage.remove_model("acting", "v3");
    let two = stage.worker("w2").await;
    two.look().await;
    assert!(stage.routes_at(100).await.refused.is_empty());
    let told = "registered refused refused refusal_ended refusal_ended";
    assert_eq!(stage.registry().await, told);
    // Another process serves its own copy under that name: this one's is broken all the same.
    stage.put_model("acting", "v4", broken);
    two.look().await;
    stage
        .command(Command::EndRefusal(insightforge_schema::registry::event::RefusalEnded {
            task_type: None,
            folder: "acting/v4".to_owned(),
            worker: "w3".to_owned(),
        }))
        .await;
    two.look().await;
    two.look().await;
    assert_eq!(refused(stage.routes_at(100).await), ["acting/v4"]);
    assert_eq!(stage.registry().await, format!("{told} refused refusal_ended refused"));
}

#[tokio::test]
async fn a_package_that_comes_while_tasks_flow_is_served_and_one_that_goes_takes_no_task_along() {
    let stage = Stage::new();
    let mut hand = stage.worker("w1").await;
    assert_eq!(hand.lanes("acting"), "v1 stable candidate latest");
    let mut tasks = Vec::new();
    for round in 0..40 {
        match round {
            10 => stage.put_model("acting", "v2", ""),
            12 => hand.look().await,
            // Changed where it is: the same version with another content.
            20 => stage.put_model("acting", "v1", "[batch]\nmax_items = 8"),
            22 => hand.look().await,
            _ => {}
        }
        for asked in ["v1", "stable", "latest", "v2"] {
            // Nobody may ask for what nobody has announced.
            if asked != "v2" || round >= 12 {
                tasks.push((round, asked, stage.submit_as(asked, None, &format!("ok {round}")).await));
            }
        }
        // Some of it is in the model while the packages change.
        hand.work_behind().await.await.unwrap();
    }
    work_all(&mut hand).await;
    assert_eq!(stage.registry().await, "registered registered registered");
    let mut digests = HashSet::new();
    let answers = all_completed(&stage).await;
    for (round, asked, task) in &tasks {
        let completed = answers[task].clone();
        let expected = if *asked == "v2" || (*asked == "latest" && *round >= 12) { "v2" } else { "v1" };
        assert_eq!(completed.model_version, expected, "{asked} in round {round}");
        digests.insert(completed.route.unwrap().digest);
    }
    assert_eq!(digests.len(), 3, "both contents of v1, and v2");
    assert_eq!(fold(&stage.journal().await), [("completed", tasks.len())].into());

    // What is in the model when the package goes is answered; what comes later waits for its return.
    let taken = stage.submit_as("v2", None, "hang").await;
    let work = hand.work_behind().await;
    let v2 = stage.actors.of("acting", "v2");
    v2.wait_for_hang().await;
    stage.remove_model("acting", "v2");
    hand.look().await;
    v2.release();
    assert_eq!(work.await.unwrap().completed, 1);
    assert_eq!(version(&stage, taken).await, "v2");
    assert_eq!(hand.lanes("acting"), "v1 stable candidate latest", "the latest that is there");
    let waits = stage.submit_as("v2", None, "ok waits").await;
    assert_eq!(hand.work().await, Tally::default());
    stage.put_model("acting", "v2", "");
    hand.look().await;
    assert_eq!(hand.work().await.completed, 1);
    assert_eq!(version(&stage, waits).await, "v2");
    assert_eq!(stage.registry().await, "registered registered registered unloaded registered");
}

#[tokio::test]
async fn a_canary_answers_exactly_its_share_of_the_callers_and_always_the_same_ones() {
    let stage = Stage::new();
    stage.put_model("acting", "v2", "");
    let mut hand = stage.worker_with(Config { max_in_flight: 2_000, ..Stage::config("w1") }).await;
    let users: Vec<u64> = (1..=200).collect();
    let mut before: HashSet<u64> = HashSet::new();
    for share in [0, 500, 2_500, 2_500, 10_000] {
        stage.command(canary("v2", share)).await;
        hand.follow().await;
        let mut tasks = HashMap::new();
        for user in &users {
            tasks.insert(*user, stage.submit_as("stable", Some(*user), "ok").await);
        }
        assert_eq!(work_all(&mut hand).await, users.len());
        let (mut chosen, answers) = (HashSet::new(), all_completed(&stage).await);
        for (user, task) in tasks {
            let completed = answers[&task].clone();
            let is_chosen = completed.model_version == "v2";
            assert_eq!(is_chosen, bucket("acting", &format!("user:{user}")) < share, "user {user} at {share}");
            assert_eq!(completed.route.unwrap().reason, if is_chosen { "canary" } else { "stable" });
            if is_chosen {
                chosen.insert(user);
            }
        }
        assert!(before.is_subset(&chosen), "a growing share lets nobody out");
        before = chosen;
    }
    assert_eq!(before.len(), users.len());
    // Without a user, each task stands for itself.
    stage.command(canary("v2", 5_000)).await;
    hand.follow().await;
    let mut tasks = Vec::new();
    for _ in 0..50 {
        tasks.push(stage.submit_as("stable", None, "ok").await);
    }
    work_all(&mut hand).await;
    for task in tasks {
        let chosen = bucket("acting", &task.to_string()) < 5_000;
        assert_eq!(version(&stage, task).await, if chosen { "v2" } else { "v1" });
    }
}

#[tokio::test]
async fn while_an_operator_promotes_and_rolls_back_each_answer_is_what_the_routes_said_at_its_position() {
    let stage = Stage::new();
    for version in ["v2", "v3"] {
        stage.put_model("acting", version, "");
    }
    let (mut one, mut two) = (stage.worker("w1").await, stage.worker("w2").await);
    let commands =
        [promote("v2"), canary("v3", 4_000), promote("v3"), rollback(), canary("v3", 2_000), rollback(), rollback()];
    let mut tasks = Vec::new();
    for (round, command) in commands.into_iter().enumerate() {
        for user in 0..30 {
            tasks.push(stage.submit_as("stable", Some(user), &format!("ok {round}")).await);
        }
        // What was taken before the command is answered after it, and one analyzer learns of it later than the other.
        let (left, right) = (one.work_behind().await, two.take().await);
        assert_eq!(stage.command(command).await, 1);
        one.follow().await;
        left.await.unwrap();
        for batch in right {
            insightforge_analyzer::process::process(&two.worker, batch).await;
        }
        two.follow().await;
        let newest = stage.routes_at(u64::MAX).await.position;
        for hand in [&one, &two] {
            assert_eq!(hand.worker.view().routes.position, newest, "who followed answers by the newest routes");
        }
    }
    work_all(&mut one).await;
    assert_eq!(fold(&stage.journal().await), [("completed", tasks.len())].into());
    let mut seen = HashSet::new();
    let answers = all_completed(&stage).await;
    for (index, task) in tasks.iter().enumerate() {
        let completed = answers[task].clone();
        let route = completed.route.unwrap();
        let routes = stage.routes_at(route.registry_n).await;
        let expected = routes.resolve("acting", &route.asked, &format!("user:{}", index % 30)).unwrap();
        assert_eq!(
            (completed.model_version.as_str(), route.reason.as_str()),
            (&*expected.version, expected.reason.as_str())
        );
        seen.insert(completed.model_version);
    }
    assert_eq!(seen.len(), 3, "each version had its time");
    let last = stage.submit_as("stable", Some(1), "ok").await;
    work_all(&mut one).await;
    assert_eq!(version(&stage, last).await, "v1", "all the way back");
}

#[tokio::test]
async fn an_analyzer_without_the_version_hands_the_task_on_and_another_answers() {
    let stage = Stage::new();
    stage.put_model("acting", "v2", "");
    let config =
        |name: &str, serve: &str| Config { serve: vec![Pattern::parse(serve).unwrap()], ..Stage::config(name) };
    let mut all = stage.worker("w1").await;
    let mut few = stage.worker_with(config("w2", "acting:v1")).await;
    assert_eq!(few.lanes("acting"), "v1 stable candidate");
    assert_eq!(few.worker.store.served().len(), 1, "the other one is not even opened");
    let task = stage.submit_as("stable", None, "ok").await;
    let taken = few.take().await;
    stage.command(promote("v2")).await;
    few.follow().await;
    assert_eq!(few.lanes("acting"), "v1 candidate", "the stable version is elsewhere now");
    for batch in taken {
        let tally = insightforge_analyzer::process::process(&few.worker, batch).await;
        assert_eq!(tally, Tally { retried: 1, ..Tally::default() });
    }
    all.follow().await;
    assert_eq!(all.move_all(&stage).await, 1);
    assert_eq!(few.work().await, Tally::default());
    assert_eq!(all.work().await.completed, 1);
    assert_eq!(stage.story(task).await, "submitted processing retry_scheduled processing completed");
    let attempts: Vec<u32> = stage.events(task).await.iter().map(|event| event.meta.attempt).collect();
    assert_eq!(attempts, [0, 1, 1, 1, 1], "no attempt was used up");
    assert_eq!(version(&stage, task).await, "v2");
}

#[tokio::test]
async fn shadows_are_asked_after_the_answer_and_stand_beside_it() {
    let stage = Stage::new();
    for version in ["v2", "v3"] {
        stage.put_model("acting", version, "");
    }
    stage.actors.of("acting", "v3").contrary.store(true, Ordering::Relaxed);
    let mut hand = stage.worker("w1").await;
    stage.command(shadow(&["v2", "v3"])).await;
    hand.follow().await;
    let task = stage.submit_as("stable", None, "ok").await;
    let failing = stage.submit_as("stable", None, "bad").await;
    let own = stage.submit_as("v2", None, "ok own").await;
    assert_eq!(hand.work().await, Tally { completed: 2, failed: 1, ..Tally::default() });
    assert_eq!(stage.story(task).await, "submitted processing completed", "the answer waits for no shadow");
    assert_eq!(hand.shadow().await, 3);
    assert_eq!(hand.shadow().await, 0);

    assert_eq!(stage.story(failing).await, "submitted processing failed dead_lettered", "no answer, no comparison");
    assert_eq!(stage.story(own).await, "submitted processing completed shadowed", "nobody is his own shadow");
    assert_eq!(stage.story(task).await, "submitted processing completed shadowed shadowed");
    let mut said = HashMap::new();
    for event in stage.events(task).await {
        if let Change::Shadowed(shadowed) = event.change {
            assert_eq!((event.meta.tenant.as_str(), event.meta.attempt), ("acme", 1));
            assert!(shadowed.result.as_ref().is_some_and(|result| result.contains("ok")), "{shadowed:?}");
            said.insert(shadowed.model_version, shadowed.agrees);
        }
    }
    assert_eq!(said, [("v2".to_owned(), true), ("v3".to_owned(), false)].into());
    assert_eq!(version(&stage, task).await, "v1");
    assert_eq!(fold(&stage.journal().await), [("completed", 2), ("failed", 1)].into());
}

#[tokio::test]
async fn shadows_are_held_back_while_many_tasks_are_in_flight_and_noted_together_afterwards() {
    let stage = Stage::new();
    stage.put_model("acting", "v2", "");
    let mut hand = stage.worker("w1").await;
    stage.command(shadow(&["v2"])).await;
    hand.follow().await;
    for _ in 0..3 {
        stage.submit_as("stable", None, "ok").await;
    }
    let mut taken = hand.take().await;
    assert_eq!(hand.worker.in_flight(), 3);
    assert!(!tasks_wait(&hand.worker), "some are always in flight");
    for _ in 3..40 {
        stage.submit_as("stable", None, "ok").await;
    }
    // A read leaves room for the other lanes.
    while hand.worker.in_flight() < 32 {
        taken.extend(hand.take().await);
    }
    assert!(tasks_wait(&hand.worker), "{} of 64 places are taken", hand.worker.in_flight());
    for batch in taken {
        insightforge_analyzer::process::process(&hand.worker, batch).await;
    }
    work_all(&mut hand).await;
    assert!(!tasks_wait(&hand.worker));
    assert_eq!(hand.shadow().await, 40);
    let mut batches = Vec::new();
    for event in stage.journal().await {
        if let Change::Shadowed(shadowed) = event.change {
            batches.push(shadowed.batch_size);
        }
    }
    let expected: Vec<u32> = [[16; 16], [16; 16]].concat().into_iter().chain([8; 8]).collect();
    assert_eq!(batches, expected);
}

#[tokio::test]
async fn a_broken_package_is_refused_with_the_reason_once_while_the_others_run() {
    let stage = Stage::new();
    let (mut one, two) = (stage.worker("w1").await, stage.worker("w2").await);
    stage.put_model(
        "acting",
        "v2",
        "[files]\n\"weights.bin\" = \"0000000000000000000000000000000000000000000000000000000000000000\"",
    );
    stage.put_model("acting", "v1", "instances = 0");
    for _ in 0..2 {
        one.look().await;
        two.look().await;
    }
    assert_eq!(stage.registry().await, "registered refused refused", "two analyzers, one word each");
    let routes = stage.routes_at(10).await;
    let reason = |folder: &str| routes.refused[folder].reason.clone();
    assert!(reason("acting/v2").contains("weights.bin") && reason("acting/v1").contains("instances"));
    let task = stage.submit_as("stable", None, "ok").await;
    assert_eq!(one.work().await.completed, 1);
    assert_eq!(version(&stage, task).await, "v1");
    let cards = catalogue::models(&stage.link, &stage.keys).await.unwrap();
    assert_eq!(cards.len(), 1);
    assert!(cards[0].refused[0].contains("instances"), "the card of what runs tells of it: {cards:?}");

    stage.put_model("acting", "v1", "");
    stage.put_model("acting", "v2", "");
    one.look().await;
    two.look().await;
    assert_eq!(one.lanes("acting"), "v1 v2 stable candidate latest");
    assert!(stage.routes_at(100).await.refused.is_empty(), "what is served is refused no more");
}

#[tokio::test]
async fn models_beyond_the_memory_budget_take_turns_and_every_task_is_answered() {
    let stage = Stage::new();
    stage.put_model("acting", "v2", "");
    let deps = insightforge_analyzer::Deps { store: stage.store(1_500), ..stage.deps() };
    let mut hand = Stage::hand(Stage::config("w1"), deps).await;
    assert_eq!(hand.lanes("acting"), "v1 v2 stable candidate latest");
    for round in 0..3 {
        for asked in ["v1", "v2"] {
            let task = stage.submit_as(asked, None, &format!("ok {round}")).await;
            assert_eq!(hand.work().await.completed, 1);
            assert_eq!(version(&stage, task).await, asked);
            let in_memory = hand.worker.served().iter().filter(|it| it.state() == State::InMemory).count();
            assert_eq!(in_memory, 1, "there is room for one");
        }
    }
    assert!(stage.actors.of("acting", "v1").opened.load(Ordering::Relaxed) >= 3);
    assert_eq!(stage.registry().await, "registered registered", "leaving memory is no event");
}

#[tokio::test]
async fn a_model_that_takes_few_inputs_holds_back_reading_and_fails_nobody() {
    let stage = Stage::with_model("[batch]\nmax_queue = 3\nmax_items = 2");
    let mut hand = stage.worker("w1").await;
    for index in 0..20 {
        stage.submit_as("v1", None, &format!("ok {index}")).await;
    }
    let taken = hand.take().await;
    assert_eq!(hand.worker.in_flight(), 3, "no more than may wait for the model");
    assert!(hand.take().await.is_empty());
    drop(taken);
    hand.reap_all(&stage).await;
    stage.let_time_pass().await;
    assert_eq!(work_all(&mut hand).await + hand.reap_all(&stage).await.requeued, 20);
    work_all(&mut hand).await;
    assert_eq!(fold(&stage.journal().await), [("completed", 20)].into());
}

#[tokio::test]
async fn tasks_of_a_retired_version_are_ended_by_anybody() {
    let stage = Stage::new();
    stage.put_model("acting", "v2", "");
    let mut hand = stage.worker("w1").await;
    let task = stage.submit_as("v2", None, "ok").await;
    stage.command(Command::Retire { task_type: "acting".to_owned(), version: "v2".to_owned() }).await;
    stage.remove_model("acting", "v2");
    hand.look().await;
    assert_eq!(hand.work().await, Tally { failed: 1, ..Tally::default() });
    assert_eq!(stage.failure(task).await.code, "model_version_retired");
}

#[tokio::test]
async fn a_new_task_type_is_a_new_folder() {
    let stage = Stage::new();
    let mut hand = stage.worker("w1").await;
    stage.put_model("singing", "v1", "");
    hand.look().await;
    let lane = Lane::new("singing", "stable");
    let task = stage.submit_to(&lane, &lane, "ok").await;
    assert_eq!(hand.work().await.completed, 1);
    assert_eq!(version(&stage, task).await, "v1");
    let cards = catalogue::models(&stage.link, &stage.keys).await.unwrap();
    let names: Vec<_> = cards.iter().map(|card| card.lane().to_string()).collect();
    assert_eq!(names, ["acting:v1", "singing:v1"]);
}

//! The life of a batch, from its references to its outcomes, as one pipe.

use insightforge_schema::event::now_us;

use crate::ask::ask;
use crate::begin::{Attempt, begin};
use crate::end::{Judged, Tally, end};
use crate::judge::{Verdict, judge};
use crate::shadow::Job;
use crate::take::Batch;
use crate::told;
use crate::worker::Worker;

/// Works off one batch: begin → ask → judge → end.
pub async fn process(worker: &Worker, batch: Batch) -> Tally {
    let began_us = now_us();
    let attempts = begin(worker, &batch).await;
    if attempts.is_empty() {
        return Tally::default();
    }
    let answers = ask(worker, &batch, &attempts).await;
    let judged: Vec<Judged<'_>> = attempts
        .into_iter()
        .zip(answers)
        .map(|(attempt, answered)| {
            let verdict = judge(answered.answer, attempt.reference.attempt, &worker.config, rand::random());
            Judged { attempt, verdict, by: answered.by }
        })
        .collect();
    let (ours, gone) = still_held(&batch, judged);
    let (mut tally, completed) = end(worker, &batch.lane, &ours, now_us()).await;
    told::tell(&batch.lane, &ours, began_us);
    tally.lost += gone;
    batch.lane.meters.lost(gone);
    for judged in ours.into_iter().enumerate().filter(|(at, _)| completed.contains(at)).map(|(_, judged)| judged) {
        offer_to_shadows(worker, &batch, judged);
    }
    tally
}

/// Leaves out the attempts that a beat found taken away; says how many.
fn still_held<'a>(batch: &Batch, judged: Vec<Judged<'a>>) -> (Vec<Judged<'a>>, usize) {
    let all = judged.len();
    let held = batch.lane.held();
    let ours: Vec<_> = judged.into_iter().filter(|it| held.contains_key(&it.attempt.reference.token)).collect();
    let gone = all - ours.len();
    (ours, gone)
}

/// Hands an answered document to the shadows of its task type.
fn offer_to_shadows(worker: &Worker, batch: &Batch, judged: Judged<'_>) {
    let task_type = &batch.lane.lane.task_type;
    let view = worker.view();
    let Some(shadows) = view.routes.task(task_type).map(|task| &task.shadows) else { return };
    let Judged {
        attempt: Attempt { reference, asked: Ok(asked) },
        verdict: Verdict::Completed { result },
        by: Some(by),
    } = judged
    else {
        return;
    };
    if shadows.iter().all(|shadow| *shadow == by.version) {
        return;
    }
    worker.shadows.offer(Job {
        partition: batch.lane.partition,
        task: reference.task,
        attempt: reference.attempt,
        context: reference.context.clone(),
        task_type: task_type.clone(),
        version: by.version.clone(),
        document: asked.data,
        answer: result,
    });
}

//! The life of a batch, from its references to its outcomes, as one pipe.

use insightforge_schema::event::now_us;

use crate::begin::{Attempt, begin};
use crate::end::{Call, Judged, Tally, end};
use crate::infer::{Answer, Inference};
use crate::judge::judge;
use crate::take::Batch;
use crate::unroutable;
use crate::worker::Worker;

/// Works off one batch: begin → infer → judge → end.
pub async fn process(worker: &Worker, batch: Batch) -> Tally {
    let mut attempts = begin(worker, &batch).await;
    if attempts.is_empty() {
        return Tally::default();
    }
    let (answers, call) = answer(worker, &batch, &mut attempts).await;
    let judged: Vec<Judged<'_>> = attempts
        .iter()
        .zip(answers)
        .map(|(attempt, answer)| {
            let verdict = judge(answer, attempt.reference.attempt, &worker.config, rand::random());
            Judged { reference: attempt.reference, verdict }
        })
        .collect();
    let (ours, gone) = still_held(&batch, judged);
    let mut tally = end(worker, &batch.lane, &ours, call, now_us()).await;
    tally.lost += gone;
    batch.lane.meters.ended(tally);
    tally
}

/// Leaves out the attempts that a beat found taken away; says how many.
fn still_held<'a>(batch: &Batch, judged: Vec<Judged<'a>>) -> (Vec<Judged<'a>>, usize) {
    let all = judged.len();
    let held = batch.lane.held();
    let ours: Vec<_> = judged.into_iter().filter(|judged| held.contains_key(&judged.reference.token)).collect();
    let gone = all - ours.len();
    (ours, gone)
}

/// One answer an attempt: the model's, or why the model could not be asked.
async fn answer(worker: &Worker, batch: &Batch, attempts: &mut [Attempt<'_>]) -> (Vec<Answer>, Call) {
    let Some(engine) = &batch.lane.engine else {
        let answers = unroutable::answer(worker, attempts).await;
        return (answers, Call { inference_us: 0, batch_size: 0 });
    };
    let inputs: Vec<String> = attempts
        .iter_mut()
        .filter_map(|attempt| attempt.asked.as_mut().ok())
        .map(|asked| std::mem::take(&mut asked.data))
        .collect();
    if inputs.is_empty() {
        let answers = attempts.iter().map(|attempt| unread(attempt).unwrap_or(Answer::Stopping)).collect();
        return (answers, Call { inference_us: 0, batch_size: 0 });
    }
    let batch_size = inputs.len();
    let Inference { answers, took } = engine.infer(inputs, &worker.stop.waiting).await;
    batch.lane.meters.inferred(batch_size, took);
    let call = Call {
        inference_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        batch_size: u32::try_from(batch_size).unwrap_or(u32::MAX),
    };
    let mut answers = answers.into_iter();
    let all = attempts
        .iter()
        .map(|attempt| match unread(attempt) {
            Some(answer) => answer,
            None => answers.next().expect("the engine answers every input"),
        })
        .collect();
    (all, call)
}

/// The answer to an attempt whose input could not be read.
fn unread(attempt: &Attempt<'_>) -> Option<Answer> {
    attempt.asked.as_ref().err().map(|error| Answer::Error(error.clone()))
}

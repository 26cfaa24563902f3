import { expect, test } from 'vitest'
import type { JournalEvent } from './api/types'
import { attemptsOf, barsOf, stateAt } from './history'

let number = 0
const event = (type: string, ms: number, attempt: number, data: JournalEvent['data'] = {}): JournalEvent => ({ position: `0:${++number}`, type, task_id: 't', at: new Date(ms).toISOString(), actor: 'x', attempt, data })

const story = [
  event('submitted', 1000, 0, { model_version: 'stable' }),
  event('processing', 1010, 1, { worker: 'a' }),
  event('retry_scheduled', 1060, 1, { code: 'timeout', message: 'late', due_us: 1_100_000 }),
  event('processing', 1110, 2, { worker: 'b' }),
  event('completed', 1130, 2, { model_version: 'v1', result: { label: 'x' }, inference_us: 5000 }),
]

test('the state at any event is what the events up to it had made', () => {
  expect([0, 1, 2, 3, 4].map((at) => stateAt(story, at).status)).toEqual(['pending', 'processing', 'pending', 'processing', 'completed'])
  expect(stateAt(story, 2)).toMatchObject({ worker: null, error: 'timeout: late', next_attempt_at: '1970-01-01T00:00:01.100Z' })
  expect(stateAt(story, 4)).toMatchObject({ attempt: 2, model_version: 'v1', error: null, result: { label: 'x' } })
  expect(stateAt([...story, event('failed', 1, 3, { code: 'c' }), event('dead_lettered', 2, 3), event('redriven', 3, 3, { as_task: 'u' })], 7)).toMatchObject({ dead_lettered: false, redriven_as: 'u' })
})

test('attempts are grouped with how each ended', () => {
  expect(attemptsOf(story).map((group) => [group.attempt, group.worker, group.outcome, group.code])).toEqual([
    [1, 'a', 'retry', 'timeout'],
    [2, 'b', 'completed', null],
  ])
  expect(attemptsOf(story.slice(0, 2))[0]?.outcome).toBe('running')
  expect(attemptsOf([event('submitted', 0, 0), event('cancelled', 1, 0)])).toEqual([])
})

test('all of the time is on the line once', () => {
  const told = { position: '0:1', endpoint: 'default', url: null, state: 'due' as const, due_at: null, created_at: new Date(1135).toISOString(), finished_at: null, attempts: [] }
  const bars = barsOf(story, [told])
  expect(bars.map((bar) => [bar.kind, bar.begin, bar.end])).toEqual([
    ['wait', 1000, 1010],
    ['work', 1010, 1060],
    ['backoff', 1060, 1110],
    ['work', 1110, 1130],
    ['inference', 1125, 1130],
    ['fold', 1130, 1135],
  ])
  expect(barsOf(story.slice(0, 1), [])).toEqual([{ kind: 'wait', number: 0, begin: 1000, end: null }])
})

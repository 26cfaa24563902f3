import { expect, test } from 'vitest'
import type { Acted } from './api/types'
import { nothingYet, throughAll, type Sum } from './acts'

const acted = (done: number, left: number, next: string | null, dry_run = false): Acted => ({
  dry_run,
  matched: done + left,
  more: next !== null,
  next,
  done,
  already: 0,
  left,
  refused: left ? [{ task_id: 'a', detail: `left behind ${next}` }] : [],
})

/** Answers by cursor; one in brackets is a refusal that tells of what was done before it. */
function server(answers: Record<string, Acted | [Acted | null]>) {
  const asked: (string | null)[] = []
  const ask = async (next: string | null): Promise<Acted> => {
    asked.push(next)
    const answer = answers[next ?? 'begin']!
    if (!Array.isArray(answer)) return answer
    throw Object.assign(new Error('no more tasks may wait'), { acted: answer[0] })
  }
  return { ask, asked }
}

test('every page is asked for once, and the sums are told', async () => {
  const { ask, asked } = server({ begin: acted(0, 1000, 'b'), b: acted(0, 0, 'c'), c: acted(7, 0, null) })
  const sums: Sum[] = []
  await throughAll(ask, nothingYet, (sum) => sums.push(sum) > 0)
  expect(asked).toEqual([null, 'b', 'c'])
  expect(sums.at(-1)).toEqual({ matched: 1007, done: 7, already: 0, left: 1000, why: 'left behind b', next: null })
})

test('what was done before a refusal is told, and the next try goes on there', async () => {
  let sum = nothingYet
  const tell = (now: Sum) => ((sum = now), true)
  const full = server({ begin: acted(1000, 0, 'b'), b: [acted(30, 0, 'c')] })
  await expect(throughAll(full.ask, sum, tell)).rejects.toThrow('no more tasks may wait')
  expect([sum.done, sum.next]).toEqual([1030, 'c'])
  const still = server({ c: [null] })
  await expect(throughAll(still.ask, sum, tell)).rejects.toThrow()
  expect([sum.done, sum.next]).toEqual([1030, 'c'])
  await throughAll(server({ c: acted(5, 0, null) }).ask, sum, tell)
  expect([sum.done, sum.next]).toEqual([1035, null])
})

test('it stops when nobody looks any more, and a count when it is large enough', async () => {
  const endless = server({ begin: acted(1, 0, 'b'), b: acted(1, 0, 'b') })
  let turns = 0
  await throughAll(endless.ask, nothingYet, () => ++turns < 3)
  expect(endless.asked.length).toBe(3)
  const counted = server({ begin: acted(0, 0, 'b', true), b: { ...acted(0, 0, 'c', true), matched: 50_000 } })
  await throughAll(counted.ask, nothingYet, () => true)
  expect(counted.asked).toEqual([null, 'b'])
})

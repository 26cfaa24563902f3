import { expect, test } from 'vitest'
import { drawnOf, piecesOf } from './result'

const entity = (start: number, end: number, type = 'PERSON') => ({ text: '', type, start, end, score: null })

test('labels are drawn most likely first, whichever way a model says them', () => {
  const sentiment = drawnOf({ sentiment: 'Positive', score: 0.9, probabilities: { Negative: 0.02, Positive: 0.9, Neutral: 0.08 }, model_info: 'm' })
  expect(sentiment.shares.map((one) => one.label)).toEqual(['Positive', 'Neutral', 'Negative'])
  expect(sentiment.rest).toEqual({})
  const intents = drawnOf({ label: 'a', score: 0.7, labels: [{ label: 'b', score: 0.3 }, { label: 'a', score: 0.7 }], in_scope: true })
  expect(intents.shares[0]).toEqual({ label: 'a', share: 0.7 })
  expect(intents.rest).toEqual({ in_scope: true })
})

test('what has no shape that is known is kept as it is', () => {
  expect(drawnOf({ labels: [1, 2] }).rest).toEqual({ labels: [1, 2] })
  expect(drawnOf([1]).rest).toEqual({ result: [1] })
  expect(drawnOf(null).rest).toEqual({})
})

test('a text is cut at its entities, counted in characters as people see them', () => {
  const pieces = piecesOf('😀張三在台北', [entity(4, 6, 'LOCATION'), entity(1, 3)])
  expect(pieces.map((piece) => [piece.text, piece.entity?.type ?? ''])).toEqual([
    ['😀', ''],
    ['張三', 'PERSON'],
    ['在', ''],
    ['台北', 'LOCATION'],
  ])
})

test('places that overlap or lie beyond the text lose nothing of it', () => {
  for (const entities of [[entity(0, 2), entity(1, 3)], [entity(2, 99)], [entity(-1, -1)], [entity(2, 2)]]) {
    expect(piecesOf('abcd', entities).map((piece) => piece.text).join('')).toBe('abcd')
  }
})

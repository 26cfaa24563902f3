import { expect, test } from 'vitest'
import { parse, put, toggle, valuesOf, write } from './search'

test('what was written is read and written again', () => {
  for (const query of ['status:failed', '-status:failed type:a,b', 'text:"two words" abc', 'text:"a \\"quoted\\" one"', '']) {
    expect(write(parse(query))).toBe(query)
  }
})

test('a value is switched on beside others and off again, and the rest stays', () => {
  expect(toggle('', 'status', 'failed')).toBe('status:failed')
  expect(toggle('age:<1h status:failed', 'status', 'pending')).toBe('age:<1h status:failed,pending')
  expect(toggle('status:failed,pending x', 'status', 'failed')).toBe('status:pending x')
  expect(toggle('status:failed text:"a b"', 'status', 'failed')).toBe('text:"a b"')
  expect(toggle('-status:failed', 'status', 'failed')).toBe('-status:failed status:failed')
  expect(valuesOf('type:a,b -type:c', 'type')).toEqual(['a', 'b'])
})

test('a word is put in the place of what it was', () => {
  expect(put('text:old status:failed', 'text', 'a "b"')).toBe('status:failed text:"a \\"b\\""')
})

test('half a search is no trouble', () => {
  expect(parse('text:"open')).toEqual([{ word: 'text', value: 'open', not: false }])
  expect(parse('status:')).toEqual([{ word: '', value: 'status:', not: false }])
})

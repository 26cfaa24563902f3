import { expect, test } from 'vitest'
import { commonPart, groupsOf, normalized } from './failures'
import { csv, documentOf, previewText } from './submit'

test('a form makes the document that its schema describes', () => {
  const schema = { properties: { text: { type: 'string' }, count: { type: 'integer' }, deep: { type: 'object' }, kind: { enum: ['a', 1] }, yes: { type: 'boolean' }, no: { type: 'string' } } }
  expect(documentOf(schema, { text: '5', count: '5', deep: '{"a":1}', kind: '1', yes: 'true', no: '' })).toEqual({ text: '5', count: 5, deep: { a: 1 }, kind: 1, yes: true })
  // What cannot be read as it should goes as it is: the API says what is wrong with it.
  expect(documentOf(schema, { count: 'x', deep: '{' })).toEqual({ count: 'x', deep: '{' })
})

test('CSV with quotes, line ends of both kinds and a mark at its beginning', () => {
  expect(csv('\ufefftext,n\r\n"a, ""b""\nc",1\r\nd,2')).toEqual([['text', 'n'], ['a, "b"\nc', '1'], ['d', '2']])
  expect(csv('')).toEqual([])
})

test('the beginning of a file is a table, without the line that was cut off', () => {
  expect(previewText('text\na\nb\nha', 'csv', false)).toMatchObject({ columns: ['text'], rows: [['a'], ['b']], lines: 2 })
  expect(previewText('{"text":"a"}\n{"text":"b","n":[1]}\n', 'jsonl', true)).toMatchObject({ columns: ['text', 'n'], rows: [['a', ''], ['b', '[1]']], lines: 2, wrong: '' })
  expect(previewText('{"a":1}\n{oops\n', 'jsonl', true).wrong).toMatch(/^2: /)
})

test('errors that differ in numbers, ids and times are of one kind', () => {
  expect(normalized('host-12-ab34 fell silent at 2026-01-31T12:00:00.1Z')).toBe(normalized('host-9-cd56 fell silent at 2026-02-01T13:00:00Z'))
  const letter = (error_code: string, error_message: string) => ({ task_id: 'x', failed_at: null, error_code, error_message })
  const groups = groupsOf([letter('bad', 'other'), letter('timeout', 'no answer within 10 ms'), letter('timeout', 'no answer within 200 ms')])
  expect(groups.map((group) => [group.code, group.letters.length])).toEqual([['timeout', 2], ['bad', 1]])
  expect(commonPart(groups[0]?.pattern ?? '')).toBe('no answer within')
})

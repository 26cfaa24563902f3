import { expect, test } from 'vitest'
import { en } from './en'
import { zhHant } from './zh-Hant'

type Tree = { [name: string]: string | Tree }

function leaves(tree: Tree, path = ''): Map<string, string> {
  const found = new Map<string, string>()
  for (const [name, value] of Object.entries(tree)) {
    if (typeof value === 'string') found.set(path + name, value)
    else for (const [key, text] of leaves(value, `${path}${name}.`)) found.set(key, text)
  }
  return found
}
const slots = (text: string) => [...new Set(text.match(/\{\w+\}/g) ?? [])].sort()

test('every text says the same things in both languages', () => {
  const english = leaves(en)
  const chinese = leaves(zhHant)
  expect([...chinese.keys()].sort()).toEqual([...english.keys()].sort())
  for (const [key, text] of english) {
    expect(slots(chinese.get(key) ?? ''), key).toEqual(slots(text))
  }
})

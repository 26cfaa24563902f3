// Every page, in both languages and themes and on a narrow screen: nothing goes wrong in it, axe finds nothing serious, and
// a picture is kept for people.

import path from 'node:path'
import { accessibility, noneWrong, visitor } from './browser.mjs'

const LOOKS = [
  { theme: 'light', language: 'en', width: 1280 },
  { theme: 'dark', language: 'zh-Hant', width: 1280 },
  { theme: 'dark', language: 'en', width: 1280 },
  { theme: 'light', language: 'zh-Hant', width: 1280 },
  { theme: 'light', language: 'en', width: 390 },
  { theme: 'dark', language: 'zh-Hant', width: 390 },
]

/** Where the pages are, and what shows that they have their content. */
export function pages({ completed, entities, failed, batch }) {
  return [
    { name: 'overview', at: '', there: '[data-testid=state]' },
    { name: 'tasks', at: 'tasks', there: '[data-testid=rows] [data-task]' },
    { name: 'task', at: `tasks/${completed}`, there: '[data-testid=result]' },
    { name: 'task-entities', at: `tasks/${entities}`, there: '[data-testid=entities] mark' },
    { name: 'task-failed', at: `tasks/${failed}`, there: '[data-testid=why]' },
    { name: 'batch', at: `batches/${batch}`, there: '[data-testid=batch-count]' },
    { name: 'insight', at: 'insight', there: '[data-testid=report]' },
    { name: 'failures', at: 'failures', there: '[data-testid=group]' },
    { name: 'lanes', at: 'lanes', there: '[data-testid=analyzers]' },
    { name: 'models', at: 'models', there: '[data-type=sentiment_analysis]' },
    { name: 'model', at: 'models/sentiment_analysis/v1.0', there: 'dl' },
    { name: 'webhooks', at: 'webhooks', there: '[data-testid=endpoints]' },
    { name: 'journal', at: 'journal', there: '[role=listitem]' },
    { name: 'system', at: 'system', there: '[data-testid=checks]' },
    { name: 'nowhere', at: 'no/such/page', there: 'h3' },
  ]
}

export async function look(browser, base, of, name, shots) {
  const page = pages(of).find((one) => one.name === name)
  for (const look of LOOKS) {
    const visit = await visitor(browser, look)
    const which = `${name} ${look.theme} ${look.language} ${look.width}`
    try {
      await visit.goto(base + page.at)
      await visit.locator(page.there).first().waitFor()
      await visit.waitForLoadState('networkidle').catch(() => {})
      await visit.screenshot({ path: path.join(shots, `${which.replaceAll(' ', '-')}.png`), fullPage: name !== 'tasks' && name !== 'journal' })
      const wide = await visit.evaluate(() => document.documentElement.scrollWidth - innerWidth)
      if (wide > 0) throw new Error(`it is ${wide} px wider than the screen`)
      const found = await accessibility(visit)
      if (found.length) throw new Error(found.join('\n'))
      noneWrong(visit)
    } catch (error) {
      await visit.screenshot({ path: path.join(shots, `${which.replaceAll(' ', '-')}-FAILED.png`) }).catch(() => {})
      throw new Error(`${which}: ${error.message}\n${visit.wrong.join('\n')}`)
    } finally {
      await visit.context().close()
    }
  }
}

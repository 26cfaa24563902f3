// A hundred thousand tasks, and one with twenty thousand events: nothing freezes.

import { noneWrong, visitor } from './browser.mjs'

export const MANY = 100_000
/** Of one frame, in milliseconds, on a machine that also carries the servers. */
const FROZEN_MS = 500

export async function aHundredThousandTasksAreListedWithoutFreezing(browser, stack) {
  copyRows(stack)
  const page = await visitor(browser)
  try {
    await page.goto(`${stack.url}/ui/tasks`)
    await page.locator('[data-task]').first().waitFor()
    await page.evaluate(() => {
      globalThis.longest = 0
      let last = performance.now()
      const tick = (now) => {
        globalThis.longest = Math.max(globalThis.longest, now - last)
        last = now
        requestAnimationFrame(tick)
      }
      requestAnimationFrame(tick)
      globalThis.scroller = setInterval(() => scrollTo(0, document.documentElement.scrollHeight), 16)
    })
    const begin = Date.now()
    await page.waitForFunction((many) => Number(document.querySelector('[data-testid=rows]').dataset.loaded) >= many, MANY, { timeout: 240_000, polling: 250 })
    const seconds = (Date.now() - begin) / 1000
    const { longest, rows, loaded } = await page.evaluate(() => {
      clearInterval(globalThis.scroller)
      return { longest: globalThis.longest, rows: document.querySelectorAll('[data-task]').length, loaded: Number(document.querySelector('[data-testid=rows]').dataset.loaded) }
    })
    stack.note(`${loaded} tasks were scrolled through in ${seconds.toFixed(0)} s; the longest frame took ${Math.round(longest)} ms, ${rows} rows are in the page`)
    if (longest > FROZEN_MS) throw new Error(`a frame took ${Math.round(longest)} ms`)
    if (rows > 120) throw new Error(`${rows} rows are in the page at once`)
    // To find one among them is a matter of one search.
    const id = stack.tables('SELECT task_id FROM analysis_tasks ORDER BY id DESC LIMIT 1 OFFSET 60000')
    const asked = Date.now()
    await page.keyboard.press('/')
    await page.keyboard.type(id)
    await page.keyboard.press('Enter')
    await page.locator(`[data-task="${id}"]`).waitFor()
    stack.note(`one of them was found in ${Date.now() - asked} ms`)
    noneWrong(page)
  } finally {
    await page.context().close()
  }
}

/** As the projector would have written them, but at once. */
function copyRows(stack) {
  const columns = stack
    .tables(`SELECT column_name FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'analysis_tasks' AND generation_expression IS NULL OR (table_schema = DATABASE() AND table_name = 'analysis_tasks' AND generation_expression = '')`)
    .split('\n')
  const values = columns.map((column) => (column === 'id' ? '(1000000 + seq) * 1024' : column === 'task_id' ? 'UUID()' : column === 'created_at' ? 'created_at - INTERVAL seq SECOND' : column))
  stack.tables(`INSERT INTO analysis_tasks (${columns.join(', ')}) SELECT ${values.join(', ')} FROM (SELECT * FROM analysis_tasks WHERE status = 'completed' ORDER BY id LIMIT 1) one, seq_1_to_${MANY}`)
}

export const EVENTS = 20_000

export async function aTaskWithTwentyThousandEventsOpensWithinASecond(browser, stack) {
  const id = await stack.upload('It has a long history')
  await stack.ended(id)
  // Shadows may be asked any number of times; so many of them at once only a table can be given.
  stack.tables(`INSERT INTO task_logs (id, analysis_task_id, event_type, description, details, created_at)
    SELECT l.id + (1000 + seq) * 1024, l.analysis_task_id, 'shadowed', 'a shadow was asked', '{"actor":"test","attempt":1,"agrees":true,"model_version":"v2.0"}', l.created_at
    FROM task_logs l JOIN analysis_tasks t ON t.id = l.analysis_task_id, seq_1_to_${EVENTS}
    WHERE t.task_id = '${id}' AND l.event_type = 'completed'`)
  const page = await visitor(browser)
  try {
    await page.goto(`${stack.url}/ui/tasks?q=id:${id}`)
    const row = page.locator(`[data-task="${id}"]`)
    await row.waitFor()
    const begin = Date.now()
    await row.click()
    await page.getByTestId('result').waitFor()
    await page.locator('.steps li').nth(2).waitFor()
    const took = Date.now() - begin
    await page.waitForFunction((count) => document.querySelector('[data-testid=event-count]').textContent.replace(/\D/g, '') === String(count), EVENTS + 3, { timeout: 60_000 })
    stack.note(`a task with ${EVENTS + 3} events was open after ${took} ms and complete after ${Date.now() - begin} ms`)
    await page.getByTestId('view-events').click()
    await page.getByTestId('slider').fill('10000')
    await page.getByText('10001 / 20003').waitFor()
    if (took > 1000) throw new Error(`open after ${took} ms`)
    noneWrong(page)
  } finally {
    await page.context().close()
  }
}

// What people do with it.

import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { accessibility, on } from './browser.mjs'
import { eventually } from './stack.mjs'

export const theFirstVisitTeaches = (browser, stack) =>
  on(browser, `${stack.url}/ui/`, async (page) => {
    await page.getByTestId('state').waitFor()
    await page.screenshot({ path: path.join(stack.shots, 'first-overview.png'), fullPage: true })
    await page.getByRole('link', { name: 'New task' }).click()
    await page.getByRole('dialog').waitFor()
    await page.keyboard.press('Escape')
    await page.getByRole('dialog').waitFor({ state: 'detached' })
    await page.getByTestId('first').waitFor()
    await page.screenshot({ path: path.join(stack.shots, 'first-visit.png') })
    // Filled in already: one click gives a result.
    await page.getByTestId('send').click()
    await page.locator('[data-testid=outcome][data-status=completed] [data-testid=result]').waitFor()
  })

export const aTaskIsSubmittedFromItsSchemaAndItsResultAppears = (browser, stack) =>
  on(browser, `${stack.url}/ui/tasks`, async (page) => {
    await page.getByTestId('new-task').click()
    await page.getByTestId('task-type').selectOption('named_entity_recognition')
    await page.getByTestId('field-text').fill('蘋果公司在台灣設有研發中心，張三是其員工。')
    await page.getByTestId('send').click()
    await page.locator('[data-testid=outcome] mark').first().waitFor()
    const marks = await page.locator('[data-testid=outcome] mark').allTextContents()
    for (const name of ['蘋果', '台灣', '張三']) if (!marks.some((text) => text.includes(name))) throw new Error(`${name} is not marked: ${marks}`)
  })

export const whatIsWrongIsSaidWithItsField = (browser, stack) =>
  on(browser, `${stack.url}/ui/tasks`, async (page) => {
    await page.getByTestId('new-task').click()
    await page.getByTestId('field-text').fill('   ')
    await page.getByTestId('send').click()
    await page.getByRole('alert').waitFor()
    const said = await page.getByRole('alert').textContent()
    if (!said.includes('data')) throw new Error(`no field is named: ${said}`)
    // The browser itself tells of the refusal on its console; nothing else may be there.
    page.wrong = page.wrong.filter((one) => !one.includes('422'))
  })

export async function aFileIsLookedAtAndUploadedWithItsProgress(browser, stack) {
  const file = path.join(stack.folder, 'reviews.csv')
  writeFileSync(file, `text\n${Array.from({ length: 300 }, (_, index) => `"Review ${index}: I love it, truly"`).join('\n')}\n   \n`)
  let batch = ''
  await on(browser, `${stack.url}/ui/tasks`, async (page) => {
    await page.getByTestId('new-task').click()
    await page.getByTestId('tab-file').click()
    await page.getByTestId('file').setInputFiles(file)
    await page.getByTestId('preview').getByText('Review 0: I love it, truly').waitFor()
    await page.screenshot({ path: path.join(stack.shots, 'upload-preview.png') })
    await page.getByTestId('send-file').click()
    const account = page.getByTestId('account')
    await account.waitFor()
    if (!(await account.textContent()).includes('300')) throw new Error(await account.textContent())
    await account.getByRole('link').click()
    await page.waitForURL(/batches\//)
    batch = page.url().split('/').at(-1)
    await page.waitForFunction(() => [...document.querySelectorAll('[data-testid=batch-count]')].some((one) => one.textContent === '300'))
  })
  return batch
}

export const aNewTaskIsOnTheScreenWithinASecondOfItsAcceptance = (browser, stack) =>
  on(browser, `${stack.url}/ui/tasks`, async (page) => {
    await page.locator('[data-task]').first().waitFor()
    await page.locator('[data-testid=live][data-state=live]').waitFor()
    await page.mouse.move(2, 400)
    const took = []
    for (let turn = 0; turn < 5; turn++) {
      const id = await stack.upload(`Seen at once, number ${turn}`)
      const begin = Date.now()
      await page.locator(`[data-task="${id}"]`).waitFor()
      took.push(Date.now() - begin)
    }
    const lag = await page.getByTestId('live').textContent()
    stack.note(`a task was on the screen ${took.join(', ')} ms after its 202; the pill says ${lag.trim()}`)
    // The machine of a test may stand still for a moment; half of them may not.
    if (took.sort((a, b) => a - b)[2] > 1000) throw new Error(`on the screen after ${took} ms`)
  })

export const nothingMovesUnderThePointer = (browser, stack) =>
  on(browser, `${stack.url}/ui/tasks`, async (page) => {
    await page.locator('[data-testid=live][data-state=live]').waitFor()
    const first = await page.locator('[data-task]').first().getAttribute('data-task')
    await page.locator('[data-task]').first().hover()
    const id = await stack.upload('It waits above')
    await page.getByTestId('fresh').waitFor()
    if ((await page.locator('[data-task]').first().getAttribute('data-task')) !== first) throw new Error('the row under the pointer moved')
    await page.getByTestId('fresh').click()
    await page.locator(`[data-task="${id}"]`).waitFor()
  })

export const aSearchNarrowsStandsInTheAddressAndComesBack = (browser, stack, { failed }) =>
  on(browser, `${stack.url}/ui/tasks`, async (page) => {
    await page.locator('[data-task]').first().waitFor()
    await page.keyboard.press('/')
    await page.keyboard.type('status:failed')
    await page.keyboard.press('Enter')
    await page.locator(`[data-task="${failed}"]`).waitFor()
    if (!decodeURIComponent(page.url()).includes('q=status:failed')) throw new Error(page.url())
    const statuses = await page.locator('[data-task] .status').allTextContents()
    if (!statuses.every((text) => text.includes('Failed'))) throw new Error(statuses.join())
    await page.reload()
    await page.locator(`[data-task="${failed}"]`).waitFor()
    if ((await page.getByTestId('search').inputValue()) !== 'status:failed') throw new Error('the search is not in its box')
  })

export const aSearchThatCannotBeReadSaysWhere = (browser, stack) =>
  on(browser, `${stack.url}/ui/tasks?q=statsu:failed`, async (page) => {
    await page.locator('#search-wrong', { hasText: 'statsu' }).waitFor()
    page.wrong = page.wrong.filter((one) => !one.includes('422'))
  })

export const aFailedTaskIsFoundAndSaysWhyWithinTenSeconds = (browser, stack, { failed }) =>
  on(browser, `${stack.url}/ui/`, async (page) => {
    const begin = Date.now()
    await page.keyboard.press('g')
    await page.keyboard.press('t')
    await page.getByTestId('search').fill(failed.slice(0, 8))
    await page.keyboard.press('Enter')
    await page.locator(`[data-task="${failed}"]`).waitFor()
    await page.keyboard.press('Escape')
    await page.keyboard.press('j')
    await page.keyboard.press('Enter')
    await page.waitForURL(new RegExp(failed))
    await page.getByTestId('why').waitFor()
    const said = await page.locator('main').textContent()
    if (!said.includes('bad_input') && !said.includes('text')) throw new Error(said)
    if (Date.now() - begin > 10_000) throw new Error(`${Date.now() - begin} ms`)
  })

export const timeIsTravelledOverATask = (browser, stack, { completed }) =>
  on(browser, `${stack.url}/ui/tasks/${completed}`, async (page) => {
    await page.getByTestId('view-events').click()
    const state = page.getByTestId('state')
    await state.getByText('Completed').waitFor()
    await page.getByTestId('slider').fill('0')
    await state.getByText('Waiting').waitFor()
    await page.getByTestId('slider').fill('1')
    await state.getByText('Running').waitFor()
    await page.getByTestId('view-timeline').click()
    await page.getByText('In the model 1').waitFor()
    const found = await accessibility(page)
    if (found.length) throw new Error(found.join('\n'))
    await page.screenshot({ path: path.join(stack.shots, 'task-timeline.png'), fullPage: true })
  })

export const aPageOfATaskFollowsItFromItsUploadToItsWebhook = (browser, stack) =>
  on(browser, `${stack.url}/ui/`, async (page) => {
    await page.getByTestId('state').waitFor()
    const id = await stack.upload('Followed')
    await page.goto(`${stack.url}/ui/tasks/${id}`)
    await page.locator('.status.completed').first().waitFor()
    await page.locator('[data-delivery] .status.delivered').first().waitFor()
  })

export const deadLettersAreCountedAndThenRepeated = (browser, stack, { failed }) =>
  on(browser, `${stack.url}/ui/failures`, async (page) => {
    await page.getByTestId('group').first().waitFor()
    const before = Number(/\d+/.exec(await page.getByTestId('letters').textContent())[0])
    await page.getByTestId('redrive-group').first().click()
    await page.getByTestId('dry-run').getByText(/\d/).waitFor()
    await page.screenshot({ path: path.join(stack.shots, 'dry-run.png') })
    await page.getByTestId('reason').fill('tried from the dashboard')
    await page.getByTestId('act').click()
    await page.getByTestId('done').getByText(/\d/).waitFor()
    const events = await stack.get(`/api/tasks/${failed}/events`)
    const redriven = events.events.find((event) => event.type === 'redriven')
    if (redriven?.data.reason !== 'tried from the dashboard') throw new Error(`no reason in the history (${before} letters): ${JSON.stringify(redriven)}`)
  })

export const aModelIsChangedAndChangedBack = (browser, stack) =>
  on(browser, `${stack.url}/ui/models`, async (page) => {
    const card = page.locator('[data-type=text_classification]')
    await card.waitFor()
    const version = async () => (await stack.get('/api/models')).task_types.find((one) => one.task_type === 'text_classification')
    const candidate = (await version()).versions.at(-1)
    await card.getByRole('combobox', { name: `Change ${candidate}` }).selectOption('candidate')
    await page.getByTestId('reason').fill('tried from the dashboard')
    await page.getByTestId('act').click()
    await page.getByTestId('done').waitFor()
    await eventually('the candidate is set', async () => (await version()).candidate === candidate)
    await page.getByRole('button', { name: 'Close' }).last().click()
    await card.getByText('What happened to these versions').click()
    await card.getByText('tried from the dashboard').waitFor()
  })

export const theJournalShowsWhatHappensAsItHappens = (browser, stack) =>
  on(browser, `${stack.url}/ui/journal`, async (page) => {
    await page.locator('[data-testid=live][data-state=live]').waitFor()
    await page.locator('[role=listitem]').first().waitFor()
    const id = await stack.upload('Into the journal')
    const short = `${id.slice(0, 8)}…${id.slice(-6)}`
    await page.locator('[role=listitem]', { hasText: short }).filter({ hasText: 'Completed' }).waitFor()
    // A time leads to a place.
    await page.getByRole('textbox', { name: /time/ }).fill(new Date(Date.now() + 60_000).toISOString().slice(0, 16).replace('T', ' '))
    await page.getByRole('button', { name: 'Go', exact: true }).click()
    await page.waitForURL(/at=/)
    await page.locator('[role=listitem]').first().waitFor()
    await page.getByRole('link', { name: 'Back to now' }).click()
    await page.locator('[role=listitem]', { hasText: short }).first().waitFor()
    await page.locator('[data-testid=live][data-state=live]').waitFor()
    // Paused, nothing comes; afterwards nothing is missing.
    await page.getByTestId('live').click()
    const later = await stack.upload('While it is paused')
    await stack.ended(later)
    const shortLater = `${later.slice(0, 8)}…${later.slice(-6)}`
    if (await page.locator('[role=listitem]', { hasText: shortLater }).count()) throw new Error('it came although paused')
    await page.getByTestId('live').click()
    await page.locator('[role=listitem]', { hasText: shortLater }).first().waitFor()
  })

export const whatAPersonChoseIsKept = (browser, stack) =>
  on(browser, `${stack.url}/ui/`, async (page) => {
    await page.getByTestId('state').waitFor()
    await page.getByTestId('language').click()
    await page.getByRole('link', { name: '任務', exact: true }).waitFor()
    await page.getByTestId('theme').click()
    await page.waitForFunction(() => document.documentElement.dataset.theme === 'dark')
    await page.reload()
    await page.getByRole('link', { name: '任務', exact: true }).waitFor()
    if ((await page.evaluate(() => document.documentElement.lang + document.documentElement.dataset.theme)) !== 'zh-Hantdark') throw new Error('it was forgotten')
  })

export const everyKeyIsTold = (browser, stack) =>
  on(browser, `${stack.url}/ui/`, async (page) => {
    await page.getByTestId('state').waitFor()
    await page.keyboard.press('?')
    await page.getByRole('dialog', { name: 'Keyboard' }).waitFor()
    await page.keyboard.press('Escape')
    for (const [key, path] of [['t', '/tasks'], ['j', '/journal'], ['s', '/system'], ['o', '/ui/']]) {
      await page.keyboard.press('g')
      await page.keyboard.press(key)
      await page.waitForURL((url) => url.pathname.endsWith(path))
    }
  })

export const formsAndDialogsAreAccessible = (browser, stack) =>
  on(browser, `${stack.url}/ui/tasks`, async (page) => {
    await page.getByTestId('new-task').click()
    await page.getByTestId('field-text').waitFor()
    const found = await accessibility(page)
    await page.keyboard.press('Escape')
    await page.getByRole('button', { name: 'As curl' }).click()
    await page.getByText('curl http').waitFor()
    found.push(...(await accessibility(page)))
    await page.goto(`${stack.url}/ui/models`)
    await page.locator('[data-type=sentiment_analysis]').getByRole('button', { name: 'Shadow' }).click()
    await page.getByTestId('act').waitFor()
    found.push(...(await accessibility(page)))
    if (found.length) throw new Error(found.join('\n'))
  })

export const whatASearchFindsIsExported = (browser, stack, { failed }) =>
  on(browser, `${stack.url}/ui/tasks?q=id:${failed}`, async (page) => {
    await page.locator(`[data-task="${failed}"]`).waitFor()
    await page.getByText('Export', { exact: true }).click()
    const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('link', { name: 'CSV' }).click()])
    const lines = readFileSync(await download.path(), 'utf8').trim().split('\n')
    if (lines.length !== 2 || !lines[0].includes('task_id') || !lines[1].includes(failed)) throw new Error(lines.join('\n'))
  })

export const aTestMessageIsSentAndItsAnswerTold = (browser, stack) =>
  on(browser, `${stack.url}/ui/webhooks`, async (page) => {
    const before = stack.received.length
    await page.getByTestId('endpoints').getByRole('button', { name: 'Test' }).click()
    await page.getByTestId('act').click()
    await page.getByText('It answered 200').waitFor()
    if (stack.received.length === before) throw new Error('nothing was sent')
  })

export async function whatIsOnlyDoneFromInsideSaysSoAndHow(browser, stack) {
  if (!stack.prefixed) return
  await on(browser, `${stack.prefixed}/ui/failures`, async (page) => {
    await page.getByTestId('redrive-group').first().click()
    await page.getByRole('alert').getByText('bin/insightforge dead-letters redrive').waitFor()
    await page.screenshot({ path: path.join(stack.shots, 'not-from-here.png') })
    if (await page.getByTestId('act').count()) throw new Error('it offers what it cannot do')
    await page.goto(`${stack.prefixed}/ui/tasks`)
    await page.locator('[data-task]').first().waitFor()
    await page.getByTestId('act-on-all').click()
    await page.getByTestId('retry-all').click()
    await page.getByRole('alert').getByText('INSIGHTFORGE_INTERNAL_ADDR/api/tasks/retry').waitFor()
    await page.goto(`${stack.prefixed}/ui/webhooks`)
    await page.getByTestId('look').first().click()
    await page.getByRole('alert').getByText('INSIGHTFORGE_INTERNAL_ADDR/api/webhooks/deliveries/').waitFor()
    page.wrong = page.wrong.filter((one) => !/40[345]/.test(one))
  })
}

export const anApiThatComesBackIsFoundAgainAndNothingIsMissed = (browser, stack) =>
  on(browser, `${stack.url}/ui/journal`, async (page) => {
    await page.locator('[data-testid=live][data-state=live]').waitFor()
    await stack.stop('api')
    await page.locator('[data-testid=live][data-state=reconnecting]').waitFor()
    await stack.startApi()
    // Before the page is back; it resumes behind the last event that it saw.
    const id = await stack.upload('While nobody listened')
    const short = `${id.slice(0, 8)}…${id.slice(-6)}`
    await page.locator('[role=listitem]', { hasText: short }).filter({ hasText: 'Submitted' }).waitFor({ timeout: 30_000 })
    page.wrong = page.wrong.filter((one) => !/ERR_CONNECTION|WebSocket/.test(one))
  })

// What operators do with it: look into what was sent, send again, act on many, compare versions, follow a rebuild.

import path from 'node:path'
import { accessibility, on } from './browser.mjs'
import { eventually } from './stack.mjs'

export const whatWasSentIsShownWithItsAnswerAndItsSignatureIsChecked = (browser, stack, { completed }) =>
  on(browser, `${stack.url}/ui/tasks/${completed}`, async (page) => {
    const secret = stack.settings.INSIGHTFORGE_WEBHOOK_SECRET
    page.on('request', (request) => {
      if (`${request.url()} ${request.postData() ?? ''}`.includes(secret.slice(8, 30))) page.wrong.push('the secret was sent somewhere')
    })
    await page.locator('[data-delivery] .status.delivered').first().waitFor()
    await page.getByTestId('look').first().click()
    const headers = page.getByTestId('headers')
    await headers.waitFor()
    const got = stack.received.find((one) => one.body.includes(completed))
    for (const name of ['webhook-id', 'webhook-timestamp', 'webhook-signature', 'x-webhook-signature', 'traceparent']) {
      await headers.getByText(got.headers[name], { exact: true }).waitFor()
    }
    const shown = await page.getByLabel('Body as it was sent').textContent()
    if (shown !== got.body) throw new Error(`another body is shown: ${shown}`)
    await page.getByTestId('answer').getByText('Noted, thank you.').waitFor()
    for (const [tried, outcome] of [[secret, 'fits'], [`whsec_${'A'.repeat(44)}`, 'differs'], ['whsec_%%', 'no_key'], [secret, 'fits']]) {
      await page.getByTestId('secret').fill(tried)
      await page.getByTestId('check').click()
      await page.locator(`[data-testid=signature-outcome][data-outcome=${outcome}]`).waitFor()
    }
    const found = await accessibility(page)
    if (found.length) throw new Error(found.join('\n'))
    await page.screenshot({ path: path.join(stack.shots, 'what-was-sent.png') })
    if ((await page.content()).includes(secret)) throw new Error('the secret is in the page')
  })

export const whatAReceiverLostSinceAPositionIsSentAgain = (browser, stack) =>
  on(browser, `${stack.url}/ui/webhooks`, async (page) => {
    const { next: since } = await stack.get('/api/events?after=end&limit=1')
    const id = await stack.upload('To be sent twice')
    const times = () => stack.received.filter((one) => one.body.includes(id)).length
    await eventually('it is delivered and written down', async () => {
      const { deliveries } = await stack.get(`/api/webhooks/deliveries?task_id=${id}`)
      return deliveries.length > 0 && deliveries.every((one) => one.state === 'delivered')
    })
    await page.getByTestId('resend-many').click()
    await page.getByTestId('resend-state').selectOption('delivered')
    await page.getByTestId('by-time').click()
    await page.getByTestId('resend-from').fill('2100-01-01T00:00')
    // Nothing fits, so that nothing can be done.
    await page.getByTestId('dry-run').getByText('None would be sent').waitFor()
    if (await page.getByTestId('act').isEnabled()) throw new Error('it offers to send nothing')
    await page.getByTestId('by-position').click()
    await page.getByTestId('resend-since').fill('1.2.3')
    await page.getByRole('alert').getByText('since').waitFor()
    await page.getByTestId('resend-since').fill(since)
    await page.getByTestId('dry-run').getByText('1 would be sent').waitFor()
    await page.screenshot({ path: path.join(stack.shots, 'send-again.png') })
    await page.getByTestId('reason').fill('the receiver lost a disk')
    await page.getByTestId('act').click()
    await page.getByText('1 is sent again').waitFor()
    await eventually('it came twice', async () => times() === 2)
    const [first, second] = stack.received.filter((one) => one.body.includes(id))
    if (first.headers['webhook-id'] !== second.headers['webhook-id'] || first.body !== second.body) throw new Error('it is not the same')
    page.wrong = page.wrong.filter((one) => !one.includes('422'))
  })

export const columnsAreChosenAndKept = (browser, stack) =>
  on(browser, `${stack.url}/ui/tasks`, async (page) => {
    await page.locator('[data-task]').first().waitFor()
    await page.getByTestId('columns').click()
    await page.getByRole('checkbox', { name: 'Attempts' }).check()
    await page.getByRole('checkbox', { name: 'Batch' }).check()
    await page.getByRole('checkbox', { name: 'Took' }).uncheck()
    const heads = () => page.getByRole('columnheader').allTextContents()
    const wanted = 'Status,Task,Type and model,Attempts,Batch,Submitted'
    await eventually('the columns are there', async () => (await heads()).map((one) => one.trim()).join() === wanted)
    await page.getByTestId('columns').click()
    await page.screenshot({ path: path.join(stack.shots, 'tasks-columns.png') })
    await page.reload()
    await page.locator('[data-task]').first().waitFor()
    if ((await heads()).map((one) => one.trim()).join() !== wanted) throw new Error((await heads()).join())
  })

export async function allThatASearchFindsAreRepeatedOnceCounted(browser, stack) {
  const bad = [await stack.uploadBad(), await stack.uploadBad()]
  for (const id of bad) await stack.ended(id)
  await on(browser, `${stack.url}/ui/tasks?q=${encodeURIComponent(`id:${bad.join(',')}`)}`, async (page) => {
    await page.locator(`[data-task="${bad[0]}"]`).waitFor()
    await page.getByTestId('act-on-all').click()
    await page.getByTestId('cancel-all').click()
    await page.getByTestId('dry-run').getByText('None would be cancelled').waitFor()
    await page.keyboard.press('Escape')
    await page.getByTestId('act-on-all').click()
    await page.getByTestId('retry-all').click()
    await page.getByTestId('dry-run').getByText('2 would be repeated').waitFor()
    const found = await accessibility(page)
    if (found.length) throw new Error(found.join('\n'))
    await page.screenshot({ path: path.join(stack.shots, 'act-on-all.png') })
    await page.getByTestId('reason').fill('the model is back')
    await page.getByTestId('act').click()
    await page.getByTestId('done').getByText('2 are repeated').waitFor()
    for (const id of bad) {
      const { events } = await stack.get(`/api/tasks/${id}/events`)
      if (events.find((event) => event.type === 'redriven')?.data.reason !== 'the model is back') throw new Error(JSON.stringify(events))
    }
  })
}

export const aVersionsFiguresAreOfTheTimeThatIsChosen = (browser, stack) =>
  on(browser, `${stack.url}/ui/models`, async (page) => {
    const card = page.locator('[data-type=sentiment_analysis]')
    await card.getByTestId('labels').first().getByText(/Positive \d+/).waitFor()
    const counted = async () => Number((await card.getByTestId('figure-tasks').first().textContent()).replace(/\D/g, ''))
    const hour = await counted()
    if (hour === 0) throw new Error('nothing in the last hour')
    // A task of two hours ago: of the last day, not of the last hour.
    const { task_id: id } = (await stack.get('/api/tasks?q=type:sentiment_analysis%20status:completed&limit=1')).tasks[0]
    const { versions } = await stack.get('/api/models/sentiment_analysis/figures')
    stack.tables(`UPDATE analysis_tasks SET created_at = created_at - INTERVAL 2 HOUR WHERE task_id = '${id}'`)
    const later = await stack.get('/api/models/sentiment_analysis/figures')
    const day = await stack.get('/api/models/sentiment_analysis/figures?within=day')
    const all = (figures) => figures.reduce((sum, one) => sum + one.tasks, 0)
    if (all(later.versions) !== all(versions) - 1 || all(day.versions) !== all(versions)) throw new Error(JSON.stringify([versions, later, day]))
    await page.getByTestId('within-day').click()
    await page.locator('[data-testid=within-day][aria-pressed=true]').waitFor()
    await page.screenshot({ path: path.join(stack.shots, 'models-day.png'), fullPage: true })
    await page.goto(`${stack.url}/ui/models/sentiment_analysis/v1.0`)
    await page.getByTestId('lately').getByTestId('labels').waitFor()
    stack.tables(`UPDATE analysis_tasks SET created_at = created_at + INTERVAL 2 HOUR WHERE task_id = '${id}'`)
  })

export const aBarOfAChartLeadsToItsTasks = (browser, stack) =>
  on(browser, `${stack.url}/ui/`, async (page) => {
    const chart = page.locator('figure canvas').first()
    await chart.waitFor()
    const { x, y, width, height } = await chart.boundingBox()
    // From the newest minute back, a little above the axis.
    for (let right = 12; right < width && page.url().endsWith('/ui/'); right += 4) await page.mouse.click(x + width - right, y + height - 34)
    await page.waitForURL(/tasks\?q=/)
    const query = decodeURIComponent(page.url())
    if (!/status:(completed|failed) from:\d{4}.* to:\d{4}/.test(query.replaceAll('+', ' '))) throw new Error(query)
    await page.locator('[data-task]').first().waitFor()
  })

export const aRebuildIsFollowedToItsChecksums = (browser, stack) =>
  on(browser, `${stack.url}/ui/journal`, async (page) => {
    await page.getByTestId('rebuilds').waitFor()
    const report = JSON.parse(await stack.beside('rebuild', '--json'))
    if (!report.swapped) throw new Error(JSON.stringify(report))
    const shown = page.locator('[data-testid=rebuild][data-state=swapped]')
    await shown.waitFor()
    for (const { table, fresh } of report.tables) {
      const row = await shown.getByRole('row').filter({ has: page.getByRole('cell', { name: table, exact: true }) }).textContent()
      if (!row.includes(fresh.checksum) || !row.includes('equal')) throw new Error(row)
    }
    await shown.scrollIntoViewIfNeeded()
    await page.screenshot({ path: path.join(stack.shots, 'rebuild.png'), fullPage: true })
    // One that is under way, as its row stands meanwhile.
    stack.tables("INSERT INTO rebuilds (n, owner, state, events, events_whole, started_at, updated_at) SELECT MAX(n) + 1, 'rebuild/1', 'loading', 250, 1000, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) FROM rebuilds")
    await page.locator('[data-testid=rebuild][data-state=loading]').getByText('250 of 1,000').waitFor()
    const found = await accessibility(page)
    if (found.length) throw new Error(found.join('\n'))
    await page.screenshot({ path: path.join(stack.shots, 'rebuild-runs.png'), fullPage: true })
    stack.tables("DELETE FROM rebuilds WHERE owner = 'rebuild/1'")
  })
